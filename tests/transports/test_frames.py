"""What peers made by hand do to each end: frames, and how connections end."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import tracemalloc
from typing import Any

import pytest
from acceptor import Acceptor, drop
from helpers import SECONDS, Task, blocked
from peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame
from transport_pairs import BAD_FRAMES, SIZES, ByHand, closed, refused

from wsep_sync.errors import ProtocolError, TransportClosed
from wsep_sync.protocol.messages import MAX_MESSAGE
from wsep_sync.transports import liveness, sockets
from wsep_sync.transports.sockets import SocketTransport

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
