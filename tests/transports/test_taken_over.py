"""WebSockets that somebody else accepted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import simple_websocket
import websocket
from acceptor import Acceptor, drop
from helpers import SECONDS, Task, blocked, eventually
from peers import BINARY, CLOSE, CONTINUATION, TEXT, Frame, RawPeer, accept_raw, listening_socket
from transport_pairs import BAD_FRAMES, closed, refused
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage
from wsproto.extensions import PerMessageDeflate

from wsep_sync.transports.simple_websocket import take_over_websocket
from wsep_sync.transports.websocket_client import WebSocketClientTransport

# WebSockets that somebody else accepted

OFFER = "Sec-WebSocket-Extensions: permessage-deflate"


@contextlib.contextmanager
def accepted_elsewhere(*headers: str) -> Iterator[tuple[RawPeer, simple_websocket.Server]]:
    """A client made by hand, and a WebSocket with the library's own thread, as in Flask-Sock."""
    with Acceptor(simple_websocket.Server, tls=False) as acceptor, acceptor.dial(*headers) as raw:
        yield raw, acceptor.accepted()


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_bad_frame_that_the_librarys_thread_reads(kind: str) -> None:
    with accepted_elsewhere() as (raw, server):
        blocked(server.thread)  # in recv
        transport = take_over_websocket(server)
        raw.socket.sendall(BAD_FRAMES[kind](raw))
        assert closed(transport.receive)[0] == 1002
        with contextlib.suppress(EOFError):
            assert raw.receive().code == 1002
        drop(transport)


def test_what_the_librarys_thread_had_read_is_not_lost() -> None:
    with accepted_elsewhere() as (raw, server):
        raw.send(BINARY, b"one")
        raw.send(TEXT, b"two")
        raw.send(BINARY, b"thr", final=False)
        eventually(lambda: server.incoming_message, "the fragment")
        transport = take_over_websocket(server)
        raw.send(CONTINUATION, b"ee")
        raw.send(BINARY, b"four")
        messages = [bytes(transport.receive()) for _ in range(4)]
        assert messages == [b"one", b"two", b"three", b"four"]
        transport.send(b"back")
        assert raw.receive() == Frame(BINARY, b"back")
        drop(transport)


def test_all_that_comes_had_been_read_before_the_take_over() -> None:
    with accepted_elsewhere() as (raw, server):
        raw.send(BINARY, b"one")
        eventually(lambda: server.input_buffer, "the message")
        blocked(server.thread)  # in recv, for more
        transport = take_over_websocket(server)
        assert bytes(transport.receive()) == b"one"
        transport.set_deadline(0)
        with pytest.raises(TimeoutError):
            transport.receive()
        transport.set_deadline(None)
        raw.send(BINARY, b"two")
        assert bytes(transport.receive()) == b"two"
        drop(transport)


def test_a_close_that_came_before_the_take_over() -> None:
    with accepted_elsewhere() as (raw, server):
        raw.send(BINARY, b"one")
        raw.send_close(4000, b"gone")
        eventually(lambda: not server.connected, "the library to see the close")
        assert raw.receive().code == 4000
        transport = take_over_websocket(server)
        assert bytes(transport.receive()) == b"one"
        assert closed(transport.receive) == (4000, "gone")
        drop(transport)


def test_an_end_that_came_before_the_take_over() -> None:
    with accepted_elsewhere() as (raw, server):
        raw.close()
        eventually(lambda: not server.connected, "the library to see the end")
        transport = take_over_websocket(server)
        assert closed(transport.receive)[0] == 1006
        drop(transport)


def test_a_taken_over_websocket_that_is_never_received_from() -> None:
    with accepted_elsewhere() as (raw, server):
        transport = take_over_websocket(server)
        transport.send(b"hello")
        assert raw.receive() == Frame(BINARY, b"hello")
        with Task(transport.close, 1011, "why") as closing:
            close = raw.receive()
            assert (close.code, close.reason) == (1011, "why")
            raw.send(CLOSE, close.payload)
            closing.result()
        assert raw.at_end()


def test_the_librarys_thread_ends_though_nothing_comes() -> None:
    with accepted_elsewhere() as (raw, server):
        transport = take_over_websocket(server)
        with Task(transport.receive) as receiving:
            blocked(receiving)
            transport.abort()
            assert closed(receiving.result)[0] == 1006
        server.thread.join(SECONDS)
        assert not server.thread.is_alive()
        transport.close()
        assert raw.at_end()


def test_compression_that_was_agreed_on_elsewhere() -> None:
    with accepted_elsewhere(OFFER) as (raw, server):
        agreed = raw.headers["sec-websocket-extensions"]
        assert agreed.startswith("permessage-deflate")
        deflate = PerMessageDeflate()
        deflate.finalize(agreed)
        wire = Connection(ConnectionType.CLIENT, [deflate])
        transport = take_over_websocket(server)
        sent = [b"text that is said again " * 1000, bytes(60_000), b"", b"x"]
        for message in sent:
            frame = wire.send(BytesMessage(message))
            assert len(frame) < max(1000, len(message))
            raw.socket.sendall(frame)
        assert [bytes(transport.receive()) for _ in sent] == sent
        transport.send(sent[0])
        assert raw.receive() == Frame(BINARY, sent[0])
        drop(transport)


def test_a_message_that_inflates_beyond_the_limit() -> None:
    with accepted_elsewhere(OFFER) as (raw, server):
        deflate = PerMessageDeflate()
        deflate.finalize(raw.headers["sec-websocket-extensions"])
        wire = Connection(ConnectionType.CLIENT, [deflate])
        transport = take_over_websocket(server)
        raw.socket.sendall(wire.send(BytesMessage(bytes(10_000_000))))
        assert refused(transport).close_code == 1009
        drop(transport)


def test_a_websocket_of_the_users_own() -> None:
    with listening_socket() as listening, Task(accept_raw, listening) as accepting:
        ws = websocket.create_connection(
            f"ws://127.0.0.1:{listening.getsockname()[1]}", http_no_proxy=["*"]
        )
        with accepting.result() as raw:
            transport = WebSocketClientTransport(ws)
            raw.send(BINARY, b"x")
            assert bytes(transport.receive()) == b"x"
            transport.send(b"y")
            assert raw.receive().payload == b"y"
            drop(transport)


def test_a_websocket_that_is_not_connected() -> None:
    with pytest.raises(ValueError, match="not connected"):
        WebSocketClientTransport(websocket.WebSocket())
