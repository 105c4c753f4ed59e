"""Both ends of every transport, and peers made by hand."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import simple_websocket
from acceptor import Acceptor, drop
from certificates import certificates
from helpers import SECONDS, Task
from peers import BINARY, CLOSE, CONTINUATION, PING, RawPeer, accept_raw, listening_socket

from wsep_sync.errors import ProtocolError, TransportClosed
from wsep_sync.protocol.messages import MAX_MESSAGE
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair
from wsep_sync.transports.simple_websocket import (
    SimpleWebSocketTransport,
    accept_websocket,
    take_over_websocket,
)
from wsep_sync.transports.websocket_client import connect_websocket


@dataclass
class Pair:
    client: Transport
    server: Transport

    @property
    def ways(self) -> list[tuple[Transport, Transport]]:
        """Sender and receiver, for each direction."""
        return [(self.client, self.server), (self.server, self.client)]


def take_over(environ: dict[str, Any]) -> SimpleWebSocketTransport:
    return take_over_websocket(simple_websocket.Server(environ))


NETWORKS = {
    "tcp": (accept_websocket, False),
    "tls": (accept_websocket, True),
    "taken over": (take_over, False),
}


def forget(held: object) -> None:
    """Let go of what a fixture gave: pytest keeps it, and with it descriptors, for longer."""
    vars(held).clear()


@contextlib.contextmanager
def connected(kind: str) -> Iterator[Pair]:
    if kind == "memory":
        pair = Pair(*memory_pair())
        yield pair
        drop(pair.client, pair.server)
        return
    with Acceptor(*NETWORKS[kind]) as acceptor:
        client = acceptor.connect()
        try:
            server = acceptor.accepted()
            try:
                yield Pair(client, server)
            finally:
                drop(client, server)
        finally:
            drop(client)


@dataclass
class ByHand:
    """A transport, and the peer made by hand that it talks to."""

    raw: RawPeer
    transport: Transport


@contextlib.contextmanager
def client_by_hand(kind: str) -> Iterator[ByHand]:
    with Acceptor(*NETWORKS[kind]) as acceptor, acceptor.dial() as raw:
        server = acceptor.accepted()
        yield ByHand(raw, server)
        drop(server)


@contextlib.contextmanager
def server_by_hand(kind: str) -> Iterator[ByHand]:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listening_socket())
        host, port = listening.getsockname()
        if kind == "tls":
            context = certificates().server
            listening = stack.enter_context(context.wrap_socket(listening, server_side=True))
        accepting = stack.enter_context(Task(accept_raw, listening))
        transport = connect_websocket(
            f"{'wss' if kind == 'tls' else 'ws'}://{host}:{port}",
            timeout=SECONDS,
            ssl_context=certificates().client if kind == "tls" else None,
        )
        with accepting.result() as raw:
            yield ByHand(raw, transport)
            drop(transport)


def closed(call: Callable[..., Any], *args: Any) -> tuple[int, str]:
    """Return the code and the reason that a call fails with."""
    with pytest.raises(TransportClosed) as caught:
        call(*args)
    return caught.value.code, caught.value.reason


def refused(transport: Transport) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        transport.receive()
    return caught.value


SIZES = [0, 1, 125, 126, 127, 4096, 65_535 - 1536, MAX_MESSAGE - 1, MAX_MESSAGE]


BAD_FRAMES: dict[str, Callable[[RawPeer], bytes]] = {
    "reserved bit": lambda raw: raw.frame(BINARY, b"x", reserved=4),
    "reserved bits of a ping": lambda raw: raw.frame(PING, b"x", reserved=3),
    "reserved data opcode": lambda raw: raw.frame(0x3, b"x"),
    "reserved control opcode": lambda raw: raw.frame(0xB, b"x"),
    "wrong mask": lambda raw: raw.frame(BINARY, b"x", masked=not raw.client),
    "fragmented ping": lambda raw: raw.frame(PING, b"x", final=False),
    "long ping": lambda raw: raw.frame(PING, bytes(126)),
    "fragment out of place": lambda raw: raw.frame(CONTINUATION, b"x"),
    "message amid fragments": lambda raw: (
        raw.frame(BINARY, b"x", final=False) + raw.frame(BINARY, b"y")
    ),
    "close of one byte": lambda raw: raw.frame(CLOSE, b"\x03"),
    "close code nobody may send": lambda raw: raw.frame(CLOSE, struct.pack("!H", 1006)),
    "close code out of range": lambda raw: raw.frame(CLOSE, struct.pack("!H", 999)),
}
