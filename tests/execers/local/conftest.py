"""An execer of this machine."""

from __future__ import annotations

import pytest

from wsep_sync import LocalExecer, process


@pytest.fixture
def execer() -> LocalExecer:
    return LocalExecer()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_GRACE", 0.3)
