"""Where the faces' commands run: on this machine, and at the other end of a WebSocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faces import Face, face
from helpers import listening


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as listener:
        yield listener.url


@pytest.fixture(params=["local", "remote"])
def tested(request: pytest.FixtureRequest, url: str) -> Face:
    return face(url if request.param == "remote" else None)


@pytest.fixture
def remote(url: str) -> Face:
    return face(url)


@pytest.fixture
def local() -> Face:
    return face(None)
