"""Both ways to read messages."""

from __future__ import annotations

import pytest
from message_values import DECODERS, Decoder


@pytest.fixture(params=DECODERS, ids=["client", "server"])
def decode(request: pytest.FixtureRequest) -> Decoder:
    return request.param
