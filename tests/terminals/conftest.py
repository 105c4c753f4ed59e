"""The ways in which a recording becomes a redraw, and the emulators that judge it."""

from __future__ import annotations

import pytest
from fixtures import helping, sessions
from terminal_engines import ENGINES, Replayed
from terminal_judges import JUDGES

__all__ = ["engine", "helping", "judge", "sessions"]


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> type[Replayed]:
    return ENGINES[request.param]


@pytest.fixture(params=list(JUDGES))
def judge(request: pytest.FixtureRequest):
    return JUDGES[request.param]
