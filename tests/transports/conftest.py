"""Every transport: both ends of it, and one end with a peer made by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from acceptor import Acceptor
from transport_pairs import (
    NETWORKS,
    ByHand,
    Pair,
    client_by_hand,
    connected,
    forget,
    server_by_hand,
)
from websockets.speedups import apply_mask

from wsep_sync.protocol import frames


@pytest.fixture(params=NETWORKS)
def acceptor(request: pytest.FixtureRequest) -> Iterator[Acceptor]:
    with Acceptor(*NETWORKS[request.param]) as acceptor:
        yield acceptor
    forget(acceptor)


@pytest.fixture(params=["plain", pytest.param("compiled", marks=pytest.mark.thorough)])
def masking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of masking: in Python, and with the extra `speed`."""
    fast_mask = None if request.param == "plain" else apply_mask
    monkeypatch.setattr(frames, "_patience", 0)
    monkeypatch.setattr(frames, "_fast_mask", fast_mask)


@pytest.fixture(params=["memory", *NETWORKS])
def pair(request: pytest.FixtureRequest, masking: None) -> Iterator[Pair]:
    with connected(request.param) as pair:
        yield pair
    forget(pair)


@pytest.fixture(params=[*(f"{kind} server" for kind in NETWORKS), "tcp client", "tls client"])
def by_hand(request: pytest.FixtureRequest, masking: None) -> Iterator[ByHand]:
    """A transport, of a server or a client, and a peer made by hand."""
    kind, _, end = request.param.rpartition(" ")
    with (client_by_hand if end == "server" else server_by_hand)(kind) as by_hand:
        yield by_hand
    forget(by_hand)
