"""Servers for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import listening

from wsep_sync import Server


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server in this process; its sessions end with the test."""
    server = Server()
    with listening(server=server) as listener:
        try:
            yield listener.url
        finally:
            server.close()


@pytest.fixture(params=["own server", "remote server"])
def at_server(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Options for a server in the program itself, and for another."""
    if request.param == "own server":
        yield []
        return
    with listening() as listener:
        yield ["--url", listener.url]
