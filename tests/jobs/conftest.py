"""Sessions over real WebSockets."""

from __future__ import annotations

import pytest
from fixtures import helping, sessions, short_grace

from wsep_sync.terminals import replay

__all__ = ["engine", "helping", "sessions", "short_grace"]


@pytest.fixture(params=[replay], ids=["replay"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.jobs.drawing.redraw", request.param)
