"""Sessions over real WebSockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from session_clients import Hub, hub

from wsep_sync import process as process_module
from wsep_sync.terminals import replay


@pytest.fixture
def sessions() -> Iterator[Hub]:
    with hub() as sessions:
        yield sessions


@pytest.fixture(params=[replay], ids=["replay"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.jobs.client.redraw", request.param)


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ignores SIGTERM is killed sooner."""
    monkeypatch.setattr(process_module, "CLOSE_GRACE", 0.3)
