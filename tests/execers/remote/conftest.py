"""A server for commands at the other end of a WebSocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import listening


@pytest.fixture
def url() -> Iterator[str]:
    with listening() as listener:
        yield listener.url
