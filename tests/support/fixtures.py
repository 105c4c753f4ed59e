"""Fixtures of several folders. A conftest.py imports those that its folder wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import listening
from session_clients import Hub, hub
from terminal_engines import helper

from wsep_sync import process

__all__ = ["helping", "sessions", "short_grace", "url"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for all tests of a module."""
    with listening() as listener:
        yield listener.url


@pytest.fixture
def sessions() -> Iterator[Hub]:
    with hub() as sessions:
        yield sessions


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ignores SIGTERM is killed sooner."""
    monkeypatch.setattr(process, "CLOSE_GRACE", 0.3)


@pytest.fixture(scope="module")
def helping() -> Iterator[None]:
    """The helper that redraws is there, however loaded the machine is."""
    with helper():
        yield
