"""One suite over every transport: messages, closing, deadlines."""

from __future__ import annotations

import re
import socket
import struct
import threading

import pytest
from acceptor import Acceptor, drop
from helpers import SECONDS, Task, blocked, eventually
from peers import BINARY
from transport_pairs import SIZES, ByHand, Pair, closed, refused

from wsep_sync.errors import ProtocolError, TransportClosed
from wsep_sync.protocol.messages import MAX_MESSAGE
from wsep_sync.transports.base import Transport, close_reason
from wsep_sync.transports.memory import MemoryTransport
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.transports.sockets import SocketTransport
from wsep_sync.transports.stream_socket import StreamSocket


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
