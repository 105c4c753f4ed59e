"""Where the faces' commands run: on this machine, and at the other end of a WebSocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faces import Face, face
from fixtures import url
from helpers import listening

from wsep_sync import LocalExecer

__all__ = ["local", "plain", "remote", "tested", "url"]


@pytest.fixture(params=["local", "remote"])
def tested(request: pytest.FixtureRequest, url: str) -> Face:
    return face(url if request.param == "remote" else None)


@pytest.fixture
def remote(url: str) -> Face:
    return face(url)


@pytest.fixture(scope="module")
def plain_url() -> Iterator[str]:
    """A server that names no additions to a start, as the reference: it takes a shell for them."""
    with listening(lambda: LocalExecer()) as listener:
        yield listener.url


@pytest.fixture
def plain(plain_url: str) -> Face:
    return face(plain_url)


@pytest.fixture
def local() -> Face:
    return face(None)
