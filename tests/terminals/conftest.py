"""The ways in which a recording becomes a redraw, and the emulators that judge it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from terminal_engines import ENGINES, Replayed, helper
from terminal_judges import JUDGES


@pytest.fixture(scope="module")
def helping() -> Iterator[None]:
    with helper():
        yield


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> type[Replayed]:
    return ENGINES[request.param]


@pytest.fixture(params=list(JUDGES))
def judge(request: pytest.FixtureRequest):
    return JUDGES[request.param]
