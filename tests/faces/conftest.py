"""Where the faces' commands run: on this machine, and at the other end of a WebSocket."""

from __future__ import annotations

import pytest
from faces import Face, face
from fixtures import url

__all__ = ["local", "remote", "tested", "url"]


@pytest.fixture(params=["local", "remote"])
def tested(request: pytest.FixtureRequest, url: str) -> Face:
    return face(url if request.param == "remote" else None)


@pytest.fixture
def remote(url: str) -> Face:
    return face(url)


@pytest.fixture
def local() -> Face:
    return face(None)
