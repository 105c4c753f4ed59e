"""The ways in which a recording becomes a redraw, and the emulators that judge it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fixtures import helping, sessions
from measured import measured_helper
from terminal_engines import ENGINES, Replayed
from terminal_judges import JUDGES

from wsep_sync.terminals import emulated

__all__ = ["engine", "helping", "judge", "sessions"]


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> type[Replayed]:
    return ENGINES[request.param]


@pytest.fixture(params=list(JUDGES))
def judge(request: pytest.FixtureRequest):
    return JUDGES[request.param]


@pytest.fixture(scope="session", autouse=True)
def _measured() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulated, "_PROGRAM", measured_helper(emulated._PROGRAM))
        yield
