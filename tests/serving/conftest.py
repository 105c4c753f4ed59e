"""Servers, and how patient they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from fixtures import short_grace
from helpers import SECONDS, listening

from wsep_sync import Command, connect
from wsep_sync.serving import connection as server

__all__ = ["short_close_wait", "short_grace", "url"]


@pytest.fixture(params=["one server", "two hops"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server, which still serves when the test has done its worst."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(listening()).url
        if request.param == "two hops":
            back = url
            url = stack.enter_context(listening(lambda: connect(back))).url
        yield url
        with connect(url) as execer, execer.start(Command("echo", ["next"])) as started:
            assert started.stdout.read() == b"next\n"
            started.wait(SECONDS)


@pytest.fixture
def short_close_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CLOSE_WAIT", 0.2)
