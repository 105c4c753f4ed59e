"""One suite over every transport, and what peers made by hand do to each end.

The pairs: memory; websocket-client and simple-websocket over TCP, and over TLS; and a WebSocket
that simple-websocket had accepted with a thread of its own, as Flask-Sock does it.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import simple_websocket
import websocket
from acceptor import Acceptor, drop
from certificates import certificates
from helpers import SECONDS, Task, blocked, eventually, serving
from peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawPeer,
    accept_key,
    accept_raw,
    listening_socket,
    read_head,
)
from websockets.speedups import apply_mask
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage
from wsproto.extensions import PerMessageDeflate

from wsep_sync.errors import ConnectError, ProtocolError, TransportClosed
from wsep_sync.protocol import frames
from wsep_sync.protocol.messages import MAX_MESSAGE
from wsep_sync.transports import liveness, sockets
from wsep_sync.transports.base import Transport, close_reason
from wsep_sync.transports.memory import MemoryTransport, memory_pair
from wsep_sync.transports.simple_websocket import (
    SimpleWebSocketTransport,
    accept_websocket,
    take_over_websocket,
)
from wsep_sync.transports.sockets import SocketTransport, StreamSocket
from wsep_sync.transports.websocket_client import WebSocketClientTransport, connect_websocket
from wsep_sync.web.listener import Listener

# Both ends


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


@pytest.fixture(params=NETWORKS)
def acceptor(request: pytest.FixtureRequest) -> Iterator[Acceptor]:
    with Acceptor(*NETWORKS[request.param]) as acceptor:
        yield acceptor
    forget(acceptor)


def forget(held: object) -> None:
    """Let go of what a fixture gave: pytest keeps it, and with it descriptors, for longer."""
    vars(held).clear()


@pytest.fixture(params=["plain", pytest.param("compiled", marks=pytest.mark.thorough)])
def masking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of masking: in Python, and with the extra `speed`."""
    fast_mask = None if request.param == "plain" else apply_mask
    monkeypatch.setattr(frames, "_patience", 0)
    monkeypatch.setattr(frames, "_fast_mask", fast_mask)


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


@pytest.fixture(params=["memory", *NETWORKS])
def pair(request: pytest.FixtureRequest, masking: None) -> Iterator[Pair]:
    with connected(request.param) as pair:
        yield pair
    forget(pair)


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


@pytest.fixture(params=[*(f"{kind} server" for kind in NETWORKS), "tcp client", "tls client"])
def by_hand(request: pytest.FixtureRequest, masking: None) -> Iterator[ByHand]:
    """A transport, of a server or a client, and a peer made by hand."""
    kind, _, end = request.param.rpartition(" ")
    with (client_by_hand if end == "server" else server_by_hand)(kind) as by_hand:
        yield by_hand
    forget(by_hand)


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


def test_messages_of_every_size_both_ways(pair: Pair) -> None:
    for sender, receiver in pair.ways:
        with Task(lambda: [sender.send(bytes([size % 251]) * size) for size in SIZES]) as sending:  # noqa: B023
            for size in SIZES:
                assert bytes(receiver.receive()) == bytes([size % 251]) * size
            sending.result()


def test_a_message_in_parts_is_one(pair: Pair) -> None:
    parts = bytearray(b"abc"), memoryview(b"xdefx")[1:4], b"", b"g"
    for sender, receiver in pair.ways:
        sender.send(*parts)
        assert bytes(receiver.receive()) == b"abcdefg"


def test_a_stream_is_cut_into_messages(pair: Pair) -> None:
    header = b"header\n"
    room = MAX_MESSAGE - len(header)
    data = bytes(range(251)) * 40_000  # some 10 MB: more than sockets keep

    def send(sender: Transport) -> None:
        sender.send_stream(header, memoryview(b""))  # which is no message
        for size in (1, room - 1, room, room + 1, 2 * room):
            sender.send_stream(header, memoryview(data)[:size])
        for start in range(0, len(data), 4 * room):
            sender.send_stream(header, memoryview(data)[start : start + 4 * room])

    def body(receiver: Transport) -> bytes:
        message = bytes(receiver.receive())
        assert message[: len(header)] == header
        return message[len(header) :]

    for sender, receiver in pair.ways:
        with Task(send, sender) as sending:
            sizes = (1, room - 1, room, room, 1, room, room)
            assert [len(body(receiver)) for _ in sizes] == list(sizes)
            got = bytearray()
            while len(got) < len(data):
                got += body(receiver)
            assert got == data
            sending.result()


def test_the_parts_may_be_reused(pair: Pair) -> None:
    buffer = bytearray(b"one")
    for sender, receiver in pair.ways:
        buffer[:] = b"one"
        sender.send(b">", buffer)
        buffer[:] = b"two"
        sender.send(b">", buffer)
        assert bytes(receiver.receive()) == b">one"
        assert bytes(receiver.receive()) == b">two"


def test_a_message_that_was_received_stays_as_it_is(pair: Pair) -> None:
    for sender, receiver in pair.ways:
        sender.send(b"a" * 1000)
        first = receiver.receive()
        sender.send(b"b" * 1000)
        receiver.receive()
        assert bytes(first) == b"a" * 1000


def test_the_limit(pair: Pair) -> None:
    pair.client.send(bytes(MAX_MESSAGE))
    assert len(pair.server.receive()) == MAX_MESSAGE
    for sender, receiver in pair.ways:
        sender.send(bytes(MAX_MESSAGE + 1))
        with pytest.raises(ProtocolError) as caught:
            receiver.receive()
        assert caught.value.close_code == 1009
        if sender is pair.client:
            # The other way still works, and the refusal can be told.
            with Task(pair.client.receive) as receiving:
                receiver.close(1009, str(caught.value))
                assert closed(receiving.result) == (1009, str(caught.value))
            return


def test_the_limit_at_the_client(pair: Pair) -> None:
    pair.server.send(bytes(MAX_MESSAGE + 1))
    assert refused(pair.client).close_code == 1009


def test_several_threads_send_whole_messages_in_their_order(pair: Pair) -> None:
    threads, count = 4, 100

    def send(sender: Transport, number: int) -> None:
        for i in range(count):
            size = (i * 7919 + number) % 20_000
            sender.send(struct.pack("!III", number, i, size), bytes([number]) * size)

    def receive(receiver: Transport) -> None:
        following = [0] * threads
        for _ in range(threads * count):
            message = bytes(receiver.receive())
            number, i, size = struct.unpack("!III", message[:12])
            assert message[12:] == bytes([number]) * size
            assert following[number] == i
            following[number] += 1

    tasks = [Task(receive, receiver) for _, receiver in pair.ways]
    tasks += [Task(send, sender, number) for sender, _ in pair.ways for number in range(threads)]
    for task in tasks:
        task.result()


def test_both_ends_send_and_receive_at_once(pair: Pair) -> None:
    count = 2000

    def send(sender: Transport) -> None:
        for i in range(count):
            sender.send(struct.pack("!I", i), bytes(i * 37 % 16_000))

    def receive(receiver: Transport) -> None:
        for i in range(count):
            message = receiver.receive()
            assert struct.unpack("!I", message[:4]) == (i,)
            assert len(message) == 4 + i * 37 % 16_000

    tasks = [Task(receive, receiver) for _, receiver in pair.ways]
    tasks += [Task(send, sender) for sender, _ in pair.ways]
    for task in tasks:
        task.result(50)


CLOSES = [
    (1000, ""),
    (1000, "normal closure"),
    (1011, "start command: x: no such file or directory"),
    (1009, "größer als 64 kB"),
    (1011, "x" * 123),
    (3000, "an application's own"),
]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
@pytest.mark.parametrize("end", ["client", "server"])
def test_the_peer_learns_the_code_and_the_reason(
    pair: Pair, end: str, code: int, reason: str
) -> None:
    closer, peer = pair.ways[0] if end == "client" else pair.ways[1]
    with Task(closer.close, code, reason) as closing:
        assert closed(peer.receive) == (code, reason)
        closing.result()
    # It stays that way.
    assert closed(peer.receive) == (code, reason)
    assert closed(peer.send, b"x") == (code, reason)
    with pytest.raises(TransportClosed):
        closer.receive()
    with pytest.raises(TransportClosed):
        closer.send(b"x")
    assert closer.hung_up()
    assert peer.hung_up()
    peer.close()


@pytest.mark.parametrize("reason", ["x" * 200, "ü" * 100, "😀" * 50, "\udcff" * 200])
def test_a_long_reason_is_cut_to_what_fits(pair: Pair, reason: str) -> None:
    with Task(pair.server.close, 1011, reason) as closing:
        code, told = closed(pair.client.receive)
        closing.result()
    assert code == 1011
    assert len(told.encode()) <= 123
    assert told == close_reason(reason)
    assert told.endswith("...")


def test_what_was_sent_before_the_close_arrives(pair: Pair) -> None:
    for i in range(10):
        pair.server.send(b"%d" % i)
    with Task(pair.server.close, 1000) as closing:
        for i in range(10):
            assert bytes(pair.client.receive()) == b"%d" % i
        assert closed(pair.client.receive)[0] == 1000
        closing.result()


def test_closing_wakes_who_receives_here(pair: Pair) -> None:
    with Task(pair.client.receive) as receiving, Task(pair.server.receive) as peer:
        blocked(receiving)
        pair.client.close(1000)
        with pytest.raises(TransportClosed):
            receiving.result()
        assert closed(peer.result)[0] == 1000


def test_closing_again_is_harmless(pair: Pair) -> None:
    with Task(pair.server.receive) as receiving:
        pair.client.close(1000, "first")
        pair.client.close(1011, "second")
        assert closed(receiving.result) == (1000, "first")
    for _ in range(2):
        pair.server.close()
        pair.server.abort()
        pair.client.abort()


def test_both_ends_close_at_once(pair: Pair) -> None:
    tasks = [Task(end.close, 1000) for end, _ in pair.ways for _ in range(3)]
    for task in tasks:
        task.result()
    for end, _ in pair.ways:
        with pytest.raises(TransportClosed):
            end.receive()


def test_closing_while_the_peer_sends(pair: Pair) -> None:
    started = threading.Event()

    def send() -> None:
        while True:
            pair.server.send(bytes(1000))
            started.set()

    with Task(send) as sending, Task(pair.server.receive) as receiving:
        assert started.wait(SECONDS)
        pair.client.close(1000)
        assert closed(receiving.result)[0] == 1000
        with pytest.raises(TransportClosed):
            sending.result()


def test_abort_wakes_who_receives_at_both_ends(pair: Pair) -> None:
    with Task(pair.client.receive) as here, Task(pair.server.receive) as there:
        blocked(here)
        blocked(there)
        pair.client.abort()
        assert closed(here.result)[0] == 1006
        assert closed(there.result)[0] == 1006
    with pytest.raises(TransportClosed):
        pair.client.send(b"x")


@pytest.mark.parametrize("end", ["client", "server"])
def test_abort_wakes_who_sends_to_a_peer_that_does_not_read(pair: Pair, end: str) -> None:
    sender, _ = pair.ways[0] if end == "client" else pair.ways[1]

    def send() -> None:
        while True:
            sender.send(bytes(MAX_MESSAGE))

    with Task(send) as sending, Task(send) as waiting:
        blocked(sending)
        blocked(waiting)
        sender.abort()
        with pytest.raises(TransportClosed):
            sending.result()
        with pytest.raises(TransportClosed):
            waiting.result()


def test_the_peers_end_wakes_who_sends(pair: Pair) -> None:
    def send() -> None:
        while True:
            pair.server.send(bytes(MAX_MESSAGE))

    with Task(send) as sending:
        blocked(sending)
        pair.client.abort()
        with pytest.raises(TransportClosed):
            sending.result()


def test_a_deadline(pair: Pair) -> None:
    for sender, receiver in pair.ways:
        receiver.set_deadline(0.01)
        with pytest.raises(TimeoutError):
            receiver.receive()
        with pytest.raises(TimeoutError):
            receiver.receive()
        receiver.set_deadline(SECONDS)
        sender.send(b"x")
        assert bytes(receiver.receive()) == b"x"


def test_a_deadline_that_is_past_takes_what_has_arrived(pair: Pair) -> None:
    pair.client.send(b"x")
    pair.server.set_deadline(0)
    assert eventually(lambda: receive_now(pair.server), "the message") == b"x"
    assert receive_now(pair.server) is None


def receive_now(transport: Transport) -> bytes | None:
    try:
        return bytes(transport.receive())
    except TimeoutError:
        return None


def test_a_deadline_can_be_moved_under_a_blocked_receive(pair: Pair) -> None:
    for sender, receiver in pair.ways:
        # From none to now.
        with Task(receiver.receive) as receiving:
            blocked(receiving)
            receiver.set_deadline(0)
            with pytest.raises(TimeoutError):
                receiving.result()
        # From soon to never: what was to end does not.
        receiver.set_deadline(10)
        with Task(receiver.receive) as receiving:
            receiver.set_deadline(None)
            blocked(receiving)
            receiver.set_deadline(SECONDS)
            blocked(receiving)
            sender.send(b"x")
            assert bytes(receiving.result()) == b"x"
        receiver.set_deadline(None)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_hung_up_shows_without_receiving(pair: Pair, how: str) -> None:
    for end, _ in pair.ways:
        assert not end.hung_up()
    if how == "close":
        with Task(pair.client.close) as closing:
            closed(pair.server.receive)
            closing.result()
    else:
        pair.client.abort()
    eventually(pair.server.hung_up, "the end of the connection")
    assert pair.client.hung_up()


def test_the_peers_address(pair: Pair) -> None:
    for end, other in pair.ways:
        if isinstance(end, MemoryTransport):
            assert end.peer == ""
            continue
        assert isinstance(other, SocketTransport)
        host, port = other._stream.socket.getsockname()
        assert end.peer == f"{host}:{port}"
        end.abort()
        assert end.peer == f"{host}:{port}"


def test_the_peers_address_when_it_is_ipv6() -> None:
    with Acceptor(accept_websocket, tls=False, host="::1") as acceptor:
        client, server = acceptor.connect(), acceptor.accepted()
        assert client.peer == acceptor.listener.url.removeprefix("ws://")
        assert re.fullmatch(r"\[::1\]:[0-9]+", server.peer)
        drop(client, server)


def test_a_unix_socket_has_no_address() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert StreamSocket(ours, bytes).peer == ""


def test_an_end_without_a_close_frame(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.send(BINARY, b"last")
    raw.socket.shutdown(socket.SHUT_RDWR)
    assert bytes(transport.receive()) == b"last"
    assert closed(transport.receive)[0] == 1006
    assert closed(transport.receive)[0] == 1006
    transport.close()
    assert transport.hung_up()


def test_a_reset(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Task(transport.receive) as receiving:
        blocked(receiving)
        raw.socket.close()
        assert closed(receiving.result)[0] == 1006
    with pytest.raises(TransportClosed):
        transport.send(b"x")


# Frames


def test_frames_are_masked_by_clients_alone(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    for size in SIZES:
        with Task(transport.send, bytes(size)) as sending:
            assert raw.receive() == Frame(BINARY, bytes(size), masked=not raw.client)
            sending.result()


def test_text_is_taken_too(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.send(TEXT, "grüße €😀".encode())
    assert bytes(transport.receive()) == "grüße €😀".encode()


def test_fragments(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.send(BINARY, b"one ", final=False)
    raw.send(CONTINUATION, b"", final=False)
    raw.send(PING, b"in between")
    raw.send(CONTINUATION, b"two ", final=False)
    raw.send(CONTINUATION, b"three")
    raw.send(BINARY, b"next")
    assert bytes(transport.receive()) == b"one two three"
    assert bytes(transport.receive()) == b"next"
    assert raw.receive() == Frame(PONG, b"in between", masked=not raw.client)


def test_fragments_that_split_a_character(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    euro = "€".encode()
    raw.send(TEXT, euro[:1], final=False)
    raw.send(CONTINUATION, euro[1:2], final=False)
    raw.send(CONTINUATION, euro[2:])
    assert bytes(transport.receive()) == euro


@pytest.mark.parametrize("last", [1000, 1001])
def test_fragments_count_together(by_hand: ByHand, last: int) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.send(BINARY, bytes(1000), final=False)
    for _ in range(62):
        raw.send(CONTINUATION, bytes(1000), final=False)
    raw.send(CONTINUATION, bytes(last))
    if last == 1000:
        assert len(transport.receive()) == MAX_MESSAGE
    else:
        assert refused(transport).close_code == 1009


def test_endless_empty_fragments_are_no_message(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.send(BINARY, b"x", final=False)
    for _ in range(1000):
        raw.send(CONTINUATION, b"", final=False)
    raw.send(CONTINUATION, b"y")
    assert bytes(transport.receive()) == b"xy"


def test_a_ping_is_answered_while_receiving(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    with Task(transport.receive) as receiving:
        for payload in (b"", b"hello", bytes(125)):
            raw.send(PING, payload)
            assert raw.receive() == Frame(PONG, payload, masked=not raw.client)
        raw.send(PONG, b"that nobody asked for")
        raw.send(BINARY, b"x")
        assert bytes(receiving.result()) == b"x"


def test_a_pong_that_had_to_wait_comes_before_the_close(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", SECONDS)  # it is long until the close can go
    raw, transport = by_hand.raw, by_hand.transport
    receive_one(by_hand)
    with Task(transport.send, bytes(12_000_000)) as sending, contextlib.ExitStack() as stack:
        blocked(sending)
        receiving = stack.enter_context(Task(transport.receive))
        raw.send(PING, b"are you there")
        raw.send_close(1000)
        blocked(receiving)
        frames, _ = raw.receive_until_close()
        assert [frame.opcode for frame in frames] == [BINARY, PONG]
        assert closed(receiving.result)[0] == 1000
        sending.result()


@pytest.fixture
def many_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be asked for before there is a transport."""
    monkeypatch.setattr(liveness, "TICK", 0.02)
    monkeypatch.setattr(liveness, "PING_INTERVAL", 0.05)


def test_pings_are_sent_while_receiving(many_pings: None, by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    with Task(transport.receive) as receiving:
        for _ in range(5):  # though none is answered
            assert raw.receive() == Frame(PING, b"", masked=not raw.client)
        raw.send(PONG)
        assert raw.receive().opcode == PING
        raw.send(BINARY, b"x")
        assert bytes(receiving.result()) == b"x"


def test_a_ping_does_not_take_the_place_of_a_pong(many_pings: None, by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    receive_one(by_hand)
    with Task(transport.send, bytes(12_000_000)) as sending, Task(transport.receive) as receiving:
        blocked(sending)
        raw.send(PING, b"are you there")
        raw.send(BINARY, b"x")
        assert bytes(receiving.result()) == b"x"
        with Task(transport.receive) as receiving:
            time.sleep(0.2)  # for some pings
            frames = [raw.receive()]
            while frames[-1] != Frame(PONG, b"are you there", masked=not raw.client):
                frames.append(raw.receive())
            assert {frame.opcode for frame in frames} <= {BINARY, PING, PONG}
            raw.send(BINARY, b"y")
            assert bytes(receiving.result()) == b"y"
        sending.result()


# Over plain sockets: how much a kernel holds is another matter under TLS.
@pytest.mark.parametrize("by_hand", ["tcp server", "tcp client"], indirect=True)
def test_pings_of_a_peer_that_never_reads(many_pings: None, by_hand: ByHand) -> None:
    # Of several pings only the last needs an answer (RFC 6455, section 5.5.3), and no memory may
    # be taken up by the others.
    raw, transport = by_hand.raw, by_hand.transport
    assert isinstance(transport, SocketTransport)
    transport._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    count, size = 20_000, 125
    pings = [raw.frame(PING, b"%0*d" % (size, number)) for number in range(count)]
    with Task(transport.receive) as receiving:
        raw.socket.sendall(b"".join(pings))
        raw.send(BINARY, b"x")
        assert bytes(receiving.result()) == b"x"
    with Task(transport.receive) as receiving:
        frames = []
        while not frames or frames[-1].payload != b"%0*d" % (size, count - 1):
            frames.append(raw.receive())
        pongs = [frame for frame in frames if frame.opcode == PONG]
        assert len(pongs) < count
        raw.send(BINARY, b"y")
        assert bytes(receiving.result()) == b"y"


def test_byte_by_byte(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    frames = raw.frame(TEXT, b"first") + raw.frame(PING, b"p") + raw.frame(BINARY, b"x" * 300)
    with Task(lambda: [bytes(transport.receive()) for _ in range(2)]) as receiving:
        for i in range(len(frames)):
            raw.socket.sendall(frames[i : i + 1])
        assert receiving.result() == [b"first", b"x" * 300]


def test_many_messages_in_one_piece(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    frames = b"".join(raw.frame(BINARY, b"%d" % i) for i in range(5000))
    with Task(raw.socket.sendall, frames) as sending:
        for i in range(5000):
            assert bytes(transport.receive()) == b"%d" % i
        sending.result()


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


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_bad_frame_is_refused(by_hand: ByHand, kind: str) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    receive_one(by_hand)
    raw.socket.sendall(BAD_FRAMES[kind](raw))
    assert refused(transport).close_code == 1002
    error = refused(transport)  # it stays that way
    with Task(transport.close, error.close_code, str(error)) as closing:
        _, close = raw.receive_until_close()
        assert close.code == 1002
        raw.close()
        closing.result()


def test_a_refusal_reaches_a_peer_that_is_still_sending(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", SECONDS)
    raw, transport = by_hand.raw, by_hand.transport
    receive_one(by_hand)
    with Task(raw.send, BINARY, bytes(10_000_000)) as sending:
        error = refused(transport)
        with Task(transport.close, error.close_code, str(error)) as closing:
            sending.result()
            _, close = raw.receive_until_close()
            assert (close.code, close.reason) == (1009, str(error))
            raw.close()
            closing.result()


def receive_one(by_hand: ByHand) -> None:
    """Let a message through: the first bytes are for the thread of who had accepted before."""
    by_hand.raw.send(BINARY, b"first")
    assert bytes(by_hand.transport.receive()) == b"first"


def test_text_that_is_none_is_refused(by_hand: ByHand) -> None:
    receive_one(by_hand)
    by_hand.raw.send(TEXT, b"\xff\xfe")
    assert refused(by_hand.transport).close_code == 1007


def test_a_close_reason_that_is_no_text(by_hand: ByHand) -> None:
    by_hand.raw.send_close(1000, b"\xff\xfe")
    # The connection ends either way.
    with pytest.raises((TransportClosed, ProtocolError)) as caught:
        by_hand.transport.receive()
    if isinstance(caught.value, ProtocolError):
        assert caught.value.close_code in (1002, 1007)
    else:
        assert caught.value.code in (1000, 1007)


@pytest.mark.parametrize("length", [MAX_MESSAGE + 1, 1 << 32, (1 << 63) - 1])
def test_a_giant_frame_is_refused_before_it_comes(by_hand: ByHand, length: int) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    tracemalloc.start()
    try:
        raw.socket.sendall(raw.frame(BINARY, b"", length=length))
        raw.socket.sendall(bytes(1000))
        if raw.client:
            # wsproto, of who had accepted before, tells what has come: it is refused then.
            with contextlib.suppress(TransportClosed, OSError):
                raw.socket.sendall(bytes(MAX_MESSAGE))
        assert refused(transport).close_code in (1002, 1009)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


# How connections end


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (b"\x03\xe8", 1000, ""),
        (b"\x03\xe9going away", 1001, "going away"),
        (struct.pack("!H", 4999) + "größer".encode(), 4999, "größer"),
    ],
)
def test_a_close_frame_is_answered_with_one(
    by_hand: ByHand, payload: bytes, code: int, reason: str
) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.send(CLOSE, payload)
    assert closed(transport.receive) == (code, reason)
    answer = raw.receive()
    assert answer.code in ((1000, None) if code == 1005 else (code,))
    assert answer.masked is not raw.client
    transport.close(1011, "too late to be said")
    assert raw.at_end()


def test_a_client_waits_for_the_servers_answer(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    with Task(transport.close, 1000, "bye") as closing:
        close = raw.receive()
        assert (close.code, close.reason) == (1000, "bye")
        blocked(closing)
        raw.send(BINARY, b"on its way before the close came")
        raw.send(PING)
        raw.send(CLOSE, close.payload)
        closing.result()
    with contextlib.suppress(EOFError, ConnectionResetError):
        while raw.receive().opcode != CLOSE:  # a pong at most
            pass
        pytest.fail("a second close frame")


def test_no_message_follows_a_close_frame_that_was_faster(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    assert isinstance(transport, sockets.SocketTransport)
    make_frame = transport._message_frame
    with contextlib.ExitStack() as stack:

        def make_frame_late(parts: Any) -> Any:
            closing = stack.enter_context(Task(transport.close, 1000))
            assert raw.receive().opcode == CLOSE
            stack.callback(closing.result)
            return make_frame(parts)

        monkeypatch.setattr(transport, "_message_frame", make_frame_late)
        with pytest.raises(TransportClosed):
            transport.send(b"late")
        raw.send_close()
    assert raw.at_end()


def test_a_peer_that_never_answers_a_close(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.1)
    raw, transport = by_hand.raw, by_hand.transport
    with Task(transport.receive) as receiving:
        blocked(receiving)
        transport.close(1000)
        with pytest.raises(TransportClosed):
            receiving.result()
    assert raw.receive().code == 1000
    assert raw.at_end()


def test_a_peer_that_never_reads_is_closed_all_the_same(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.1)
    transport = by_hand.transport

    def send() -> None:
        while True:
            transport.send(bytes(MAX_MESSAGE))

    with Task(send) as sending:
        blocked(sending)
        transport.close(1011, "no room for this")
        with pytest.raises(TransportClosed):
            sending.result()


def test_a_peer_that_sends_on_instead_of_answering(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.1)
    raw, transport = by_hand.raw, by_hand.transport
    frames = raw.frame(BINARY, bytes(1000)) * 50

    def send() -> None:
        while True:
            raw.socket.sendall(frames)

    with Task(send) as sending:
        transport.receive()
        transport.close(1011, "enough")
        with contextlib.suppress(OSError):  # it knows already
            raw.socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError):  # noqa: PT011 - a reset, a broken pipe, or TLS's word for it
            sending.result()


def test_a_message_that_is_cut_off(by_hand: ByHand) -> None:
    raw, transport = by_hand.raw, by_hand.transport
    raw.socket.sendall(raw.frame(BINARY, bytes(1000))[:500])
    with Task(transport.receive) as receiving:
        blocked(receiving)
        raw.socket.shutdown(socket.SHUT_RDWR)
        assert closed(receiving.result)[0] == 1006


def test_no_delay_at_both_ends(acceptor: Acceptor) -> None:
    client = acceptor.connect()
    server = acceptor.accepted()
    for end in (client, server):
        sock: socket.socket = end._stream.socket
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    drop(client, server)


def test_nothing_is_compressed_between_our_own(acceptor: Acceptor) -> None:
    with acceptor.dial() as raw:
        assert "sec-websocket-extensions" not in raw.headers
        drop(acceptor.accepted())


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


# Connecting


@contextlib.contextmanager
def answering(answer: bytes, host: str = "127.0.0.1") -> Iterator[tuple[str, list[str]]]:
    """A server that gives every request one answer: its URL, and the requests."""
    requests: list[str] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return  # shut down below
            with sock:
                sock.settimeout(SECONDS)
                requests.append(read_head(sock)[0])
                sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    sock.recv(1)

    with listening_socket(host) as listening, Task(serve, listening):
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/path", requests
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def connect_error(url: str, **options: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        connect_websocket(url, **{"timeout": SECONDS, **options})
    assert isinstance(caught.value, ConnectionError)
    assert url in str(caught.value)
    return caught.value


def test_a_port_that_nobody_listens_on() -> None:
    with listening_socket() as listening:
        port = listening.getsockname()[1]
    error = connect_error(f"ws://127.0.0.1:{port}")
    assert error.status is None
    assert "refused" in str(error)


def test_a_server_that_never_answers() -> None:
    with listening_socket() as listening:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        error = connect_error(url, timeout=0.2)
    assert "0.2 seconds" in str(error)


def test_a_server_that_never_speaks_tls() -> None:
    with listening_socket() as listening:
        url = f"wss://127.0.0.1:{listening.getsockname()[1]}"
        error = connect_error(url, timeout=0.2)
    assert "0.2 seconds" in str(error)


def test_a_server_that_answers_slowly_has_the_timeout_for_all_of_it() -> None:
    stop = threading.Event()

    def dribble(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
            while not stop.wait(0.02):
                sock.sendall(b"x")

    with listening_socket() as listening, Task(dribble, listening):
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        error = connect_error(url, timeout=0.3)
        stop.set()
    assert "0.3 seconds" in str(error)


def test_a_refusal_says_why() -> None:
    body = b"you may not\n"
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with answering(answer) as (url, _):
        error = connect_error(url)
    assert error.status == 403
    assert "403" in str(error)
    assert "you may not" in str(error)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 12])
def test_a_refusal_whose_body_is_of_another_length(length: int) -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\nno\n" % length) as (
        url,
        _,
    ):
        error = connect_error(url)
    assert error.status == 403  # though the end may come too early


def test_an_answer_that_comes_byte_by_byte() -> None:
    def answer(listening: socket.socket) -> RawPeer:
        sock, _ = listening.accept()
        head, rest = read_head(sock)
        peer = RawPeer(sock, False, head, rest)
        key = accept_key(peer.headers["sec-websocket-key"])
        for byte in UPGRADE + f"Sec-WebSocket-Accept: {key}\r\n\r\n".encode():
            sock.sendall(bytes([byte]))
        peer.send(BINARY, b"first")
        return peer

    with listening_socket() as listening, Task(answer, listening) as answering:
        transport = connect_websocket(
            f"ws://127.0.0.1:{listening.getsockname()[1]}", timeout=SECONDS
        )
        with answering.result():
            assert bytes(transport.receive()) == b"first"
            drop(transport)


def test_a_refusal_without_a_body() -> None:
    with answering(b"HTTP/1.1 503 Busy\r\n\r\n") as (url, _):
        assert connect_error(url).status == 503


def test_a_redirect_is_not_followed() -> None:
    # The headers may hold a secret that is meant for this server alone.
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (elsewhere, requests):
        head = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"
        with answering(head.encode()) as (url, _):
            assert connect_error(url, headers={"Authorization": "secret"}).status == 302
        assert requests == []


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\xff" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        UPGRADE,
        UPGRADE + b"\r\n",
        UPGRADE + b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        UPGRADE + b"no colon\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a,b=c\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:30]),
)
def test_a_server_that_answers_something_else(answer: bytes) -> None:
    with answering(answer) as (url, _):
        assert connect_error(url).status in (None, 101, 200, 302)


def test_a_port_that_speaks_no_tls() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (url, _):
        # The server never finds the end of a request's head.
        connect_error(url.replace("ws:", "wss:"), timeout=0.3)


def test_a_certificate_that_is_not_trusted() -> None:
    with Acceptor(accept_websocket, tls=True) as acceptor:
        error = connect_error(acceptor.listener.url)
        assert "certificate" in str(error)


def test_a_certificate_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with Acceptor(accept_websocket, tls=True) as acceptor:
        url = acceptor.listener.url.replace("127.0.0.1", "127.0.0.2")
        listening = Listener(acceptor.app, "127.0.0.2", ssl_context=certificates().server)
        with serving(listening):
            url = listening.url
            error = connect_error(url, ssl_context=certificates().client)
        assert "certificate" in str(error)


def test_the_systems_trust_store_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "ca.pem").write_text(certificates().authority)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Acceptor(accept_websocket, tls=True) as acceptor:
        client = connect_websocket(acceptor.listener.url, timeout=SECONDS)
        drop(client, acceptor.accepted())


def test_headers_are_sent() -> None:
    with listening_socket() as listening, Task(accept_raw, listening) as accepting:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}/a/b?c=d&e"
        transport = connect_websocket(url, timeout=SECONDS, headers={"Authorization": "Bearer x"})
        with accepting.result() as raw:
            assert raw.request_line == "GET /a/b?c=d&e HTTP/1.1"
            assert raw.headers["authorization"] == "Bearer x"
            assert raw.headers["host"] == f"127.0.0.1:{listening.getsockname()[1]}"
            drop(transport)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_reached_through_a_proxy(
    name: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as (proxy, requests):
        monkeypatch.setenv(name, proxy.replace("ws:", "http:"))
        monkeypatch.delenv("no_proxy", raising=False)
        with Acceptor(accept_websocket, tls=False) as acceptor:
            url = acceptor.listener.url.replace("127.0.0.1", host)
            drop(connect_websocket(url, timeout=SECONDS), acceptor.accepted())
        assert requests == []


class Tunnel:
    """A proxy that answers a CONNECT, and connects to a port of this machine."""

    def __init__(self, listening: socket.socket, answer: bytes, port: int = 0) -> None:
        self.head = ""
        self._listening, self._answer, self._port = listening, answer, port

    def __call__(self) -> None:
        near, _ = self._listening.accept()
        with contextlib.ExitStack() as stack:
            stack.enter_context(near)
            near.settimeout(SECONDS)
            self.head, _ = read_head(near)
            near.sendall(self._answer)
            if not self._port:
                with contextlib.suppress(OSError):
                    near.recv(1)
                return
            far = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
            back = Task(_copy_all, far, near)
            _copy_all(near, far)
            back.result()


def _copy_all(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("tls", [False, True])
def test_through_a_proxy(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening_socket() as listening, Acceptor(accept_websocket, tls=tls) as acceptor:
        tunnel = Tunnel(listening, b"HTTP/1.1 200 OK\r\n\r\n", acceptor.listener.server_port)
        where = f"http://me:pa%20ss@127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", where)
        monkeypatch.delenv("no_proxy", raising=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with Task(tunnel):
            url = f"{'wss' if tls else 'ws'}://server.invalid/path"
            transport = connect_websocket(url, timeout=SECONDS, ssl_context=context)
            drop(transport, acceptor.accepted())
    port = 443 if tls else 80
    assert tunnel.head.splitlines()[:2] == [
        f"CONNECT server.invalid:{port} HTTP/1.1",
        f"Host: server.invalid:{port}",
    ]
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:pa ss').decode()}" in tunnel.head


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered HTTP 407"),
        (b"nonsense\r\n\r\n", "the proxy answered in no HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "no answer within 0.3 seconds"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n", "something came before TLS"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20), "too long"),
    ],
)
def test_a_proxy_that_does_not_connect(
    answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening_socket() as listening:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        with Task(Tunnel(listening, answer)), pytest.raises(ConnectError, match=words):
            connect_websocket("wss://server.invalid", timeout=0.3 if "0.3" in words else SECONDS)


@contextlib.contextmanager
def hanging_address() -> Iterator[tuple[str, int]]:
    """An address that does not answer: it listens, and has no room for another connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock, contextlib.ExitStack() as stack:
        address = sock.getsockname()
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(address)
        yield address


def test_all_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with hanging_address() as hanging, listening_socket() as listening:
        addresses = [hanging] * 5

        def look_up(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        began = time.monotonic()
        with pytest.raises(ConnectError, match="no answer within 1 seconds"):
            connect_websocket("ws://many.invalid", timeout=1.0)
        assert time.monotonic() - began < 4.0  # and not five times as long
        # One that hangs leaves some of it to the next.
        addresses = [hanging, listening.getsockname()]
        with Task(accept_raw, listening) as accepting:
            transport = connect_websocket("ws://many.invalid", timeout=2.0)
            with accepting.result() as raw:
                drop(transport)
                del raw


def test_ipv6() -> None:
    with listening_socket("::1") as listening, Task(accept_raw, listening) as accepting:
        port = listening.getsockname()[1]
        transport = connect_websocket(f"ws://[::1]:{port}/", timeout=SECONDS)
        with accepting.result() as raw:
            assert raw.headers["host"] == f"[::1]:{port}"
            transport.send(b"x")
            assert raw.receive().payload == b"x"
            drop(transport)


def test_a_context_is_for_tls_alone() -> None:
    with Acceptor(accept_websocket, tls=False) as acceptor:
        client = connect_websocket(
            acceptor.listener.url, timeout=SECONDS, ssl_context=certificates().client
        )
        drop(client, acceptor.accepted())


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "http://host", "ws://", "ws:///path", "ws://host:port", "ws://h:70000"],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words of some are urllib's
        connect_websocket(url, timeout=1)


@pytest.mark.parametrize("header", [{"A": "b\r\nC: d"}, {"A\n": "b"}, {"A": "b\0"}])
def test_a_header_that_would_be_two(header: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        connect_websocket("ws://127.0.0.1:1", timeout=1, headers=header)


# Accepting


UPGRADE_REQUEST = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Sec-WebSocket-Version: 13\r\n",
        "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAA-AAAAAAAAAA==\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ÄAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ],
)
def test_a_request_that_is_no_handshake(headers: str) -> None:
    with Acceptor(accept_websocket, tls=False) as acceptor:
        address = acceptor.listener.server_address
        with socket.create_connection(address[:2], SECONDS) as sock:  # type: ignore[arg-type]
            sock.sendall(f"{UPGRADE_REQUEST}{headers}\r\n".encode())
            with pytest.raises(ProtocolError, match="handshake"):
                acceptor.accepted()


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ((), None),
        (("wsep",), "wsep"),
        (("wsep, bearer.secret",), "wsep"),
        (("bearer.secret,wsep",), "wsep"),
        (("bearer.secret", "wsep"), "wsep"),
        (("bearer.secret",), None),
        (("chat, WSEP, wsep2",), None),
        (("",), None),
    ],
)
def test_the_subprotocol(offered: tuple[str, ...], selected: str | None) -> None:
    headers = [f"Sec-WebSocket-Protocol: {value}" for value in offered]
    with Acceptor(accept_websocket, tls=False) as acceptor, acceptor.dial(*headers) as raw:
        assert raw.headers.get("sec-websocket-protocol") == selected
        assert "secret" not in raw.head
        drop(acceptor.accepted())


def test_a_client_that_does_not_wait_for_the_answer() -> None:
    with Acceptor(accept_websocket, tls=False) as acceptor, acceptor.dial() as raw:
        raw.send(BINARY, b"at once")
        server = acceptor.accepted()
        assert bytes(server.receive()) == b"at once"
        drop(server)
