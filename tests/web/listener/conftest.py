"""The threaded HTTP server, with patience."""

from __future__ import annotations

import pytest
from helpers import SECONDS


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has been answered may take its time, lest a busy machine make a reset."""
    monkeypatch.setattr("wsep_sync.web.http_request.LINGER_TIMEOUT", SECONDS)
