"""Reading frames, beside wsproto; and masking."""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, mask_bytes
from websockets.speedups import apply_mask
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from wsep_sync.errors import ProtocolError, TransportClosed
from wsep_sync.protocol import frames
from wsep_sync.protocol.frames import MessageReader, frame, mask, parse_close
from wsep_sync.protocol.messages import MAX_MESSAGE

KEY = b"\x01\x20\xf0\x7f"


def frame_bytes(
    opcode: int,
    payload: bytes = b"",
    final: bool = True,
    reserved: int = 0,
    masked: bool = True,
    form: int = 0,
) -> bytes:
    """Return a frame; its length takes `form` bytes, or as few as can be."""
    length = len(payload)
    form = form or (1 if length < 126 else 3 if length < 1 << 16 else 9)
    lengths = {
        1: struct.pack("!B", length & 0x7F),
        3: struct.pack("!BH", 126, length & 0xFFFF),
        9: struct.pack("!BQ", 127, length),
    }[form]
    first = bytes([final << 7 | reserved << 4 | opcode, lengths[0] | masked << 7])
    return first + lengths[1:] + (KEY + mask_bytes(payload, KEY) if masked else payload)


class Source:
    """Gives bytes in pieces of the sizes given, again and again.

    Args:
        late: A deadline passes before each piece.
    """

    def __init__(self, data: bytes, sizes: list[int], late: bool = False) -> None:
        self._rest = data
        self._sizes = itertools.cycle(sizes)
        self._late = self._next_is_late = late

    def receive_into(self, *views: memoryview) -> int:
        if self._next_is_late:
            self._next_is_late = False
            raise TimeoutError
        self._next_is_late = self._late
        received = self.take(min(next(self._sizes), sum(map(len, views))))
        rest = received
        for view in views:
            view[: len(rest)] = rest[: len(view)]
            rest = rest[len(view) :]
        return len(received)

    def take(self, size: int) -> bytes:
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def read_all(reader: MessageReader) -> Iterator[tuple[Any, ...]]:
    """Yield what a reader reads, and at last what it ended with."""
    while True:
        try:
            opcode, payload = reader.read()
            if opcode == CLOSE:
                yield ("close", *parse_close(payload))
                return
            yield opcode, bytes(payload)
        except TimeoutError:
            continue
        except ProtocolError as error:
            yield "refused", error.close_code
            return
        except TransportClosed:
            yield ("end",)
            return


def read_with_wsproto(data: bytes, masked: bool) -> Iterator[tuple[Any, ...]]:
    protocol = FrameProtocol(client=not masked, extensions=[])
    protocol.receive_bytes(data)
    fragments = b""
    try:
        for read in protocol.received_frames():
            if read.opcode is Opcode.CLOSE:
                assert isinstance(read.payload, tuple)
                yield ("close", int(read.payload[0]), read.payload[1])
                return
            payload = read.payload
            if isinstance(payload, str):
                payload = payload.encode()
            assert isinstance(payload, (bytes, bytearray))
            if read.opcode.iscontrol():
                yield int(read.opcode), bytes(payload)
                continue
            fragments += payload
            if len(fragments) > MAX_MESSAGE:
                yield "refused", 1009
                return
            if read.message_finished:
                yield int(read.opcode), fragments
                fragments = b""
    except ParseFailed as error:
        yield "refused", int(error.code)
        return
    yield ("end",)


# ASCII, so that every text is one: what is none is refused by wsproto as soon as it can tell.
payloads = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [124, 125, 126, 127, 4094, 4096, 4097, 63_999, 64_000, 64_001, 65_535, 65_536]
    ).map(bytes),
).map(lambda payload: payload.translate(bytes(i & 0x7F for i in range(256))))

close_payloads = st.one_of(
    st.just(b""),
    st.just(b"\x03"),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason,
        # wsproto does not know 1014, which came later.
        st.one_of(
            st.integers(990, 1013), st.integers(1015, 1020), st.sampled_from([0, 2999, 3000, 4999])
        ),
        st.sampled_from([b"", b"why", "größer".encode(), b"\xff", bytes(123)]),
    ),
)

sensible = st.one_of(
    st.tuples(st.sampled_from([TEXT, BINARY, CONTINUATION]), payloads, st.booleans()),
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125), st.just(True)),
)


@st.composite
def streams(draw: st.DrawFn, masked: bool) -> bytes:
    """Frames of a peer: messages with what may come between, and perhaps one that may not."""
    data = b""
    open_message = False
    for opcode, payload, final in draw(st.lists(sensible, max_size=12)):
        if opcode < CLOSE:
            opcode = CONTINUATION if open_message else opcode or BINARY
            open_message = not final
        data += frame_bytes(opcode, payload, final, masked=masked)
    end = draw(st.sampled_from(["nothing", "close", "anything"]))
    if end == "close":
        data += frame_bytes(CLOSE, draw(close_payloads), masked=masked)
    elif end == "anything":
        data += frame_bytes(
            draw(st.integers(0, 15)),
            draw(payloads),
            draw(st.booleans()),
            draw(st.sampled_from([0, 0, 0, 1, 2, 4])),
            draw(st.sampled_from([masked, masked, not masked])),
            draw(st.sampled_from([0, 0, 0, 3, 9])),
        )
        data += frame_bytes(BINARY, b"after it", masked=masked)
    return data


sizes = st.lists(st.integers(1, 70_000) | st.integers(1, 20), min_size=1, max_size=8)


@pytest.mark.thorough
@pytest.mark.parametrize("masked", [True, False])
@given(data=st.data())
def test_what_wsproto_reads(masked: bool, data: st.DataObject) -> None:
    stream = data.draw(streams(masked))
    source = Source(stream, data.draw(sizes), data.draw(st.booleans()))
    before = data.draw(st.sampled_from([0, 1, 100, 5000]))
    reader = MessageReader(source.receive_into, masked, source.take(before))
    assert list(read_all(reader)) == list(read_with_wsproto(stream, masked))


@pytest.mark.parametrize("size", [1, 3, 1000, 70_000])
def test_every_cut_of_a_stream_is_an_end(size: int) -> None:
    frames = [
        frame_bytes(PING, b"ping"),
        frame_bytes(BINARY, b"abc", final=False),
        frame_bytes(CONTINUATION, bytes(200), form=3),
    ]
    stream = b"".join(frames)
    for cut in range(len(stream)):
        reader = MessageReader(Source(stream[:cut], [size]).receive_into, masked=True)
        pinged = [(PING, b"ping")] if cut >= len(frames[0]) else []
        assert list(read_all(reader)) == [*pinged, ("end",)]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [1, 4000, 4096, 65_000, 70_000, 200_000])
def test_long_messages_one_after_the_other(size: int, masked: bool) -> None:
    lengths = (5000, 64_000, 4096, 4097, 0, 63_999, 64_000, 1, 30_000)
    payloads = [bytes([i]) * length for i, length in enumerate(lengths)]
    stream = b"".join(frame_bytes(BINARY, payload, masked=masked) for payload in payloads)
    reader = MessageReader(Source(stream, [size]).receive_into, masked)
    assert list(read_all(reader)) == [*((BINARY, payload) for payload in payloads), ("end",)]


def test_a_long_payload_that_ends_early() -> None:
    stream = frame_bytes(BINARY, bytes(60_000))
    for cut in (9, 5000, 59_999):
        reader = MessageReader(Source(stream[:cut], [4000]).receive_into, masked=True)
        assert list(read_all(reader)) == [("end",)]


@pytest.mark.parametrize(
    "fragments",
    [[b"\xff"], [b"x", b"\xe2\x82"], [b"\xe2", b"\x82", b"x"], [bytes(60_000), b"\x80"]],
)
def test_text_that_is_none(fragments: list[bytes]) -> None:
    stream = b"".join(
        frame_bytes(CONTINUATION if i else TEXT, fragment, i == len(fragments) - 1)
        for i, fragment in enumerate(fragments)
    )
    reader = MessageReader(Source(stream, [70_000]).receive_into, masked=True)
    assert list(read_all(reader)) == [("refused", 1007)]


def test_a_close_code_that_was_registered_later() -> None:
    assert parse_close(struct.pack("!H", 1014) + b"bad gateway") == (1014, "bad gateway")


def test_a_message_that_is_too_long_is_refused_by_its_header() -> None:
    stream = frame_bytes(BINARY, bytes(MAX_MESSAGE + 1))[:8]
    reader = MessageReader(Source(stream, [8]).receive_into, masked=True)
    assert list(read_all(reader)) == [("refused", 1009)]


MASKS = {"plain": None, "compiled": apply_mask}


@pytest.mark.parametrize("kind", MASKS)
def test_masking(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_patience", 0)
    monkeypatch.setattr(frames, "_fast_mask", MASKS[kind])

    @given(st.binary(max_size=100), st.binary(min_size=4, max_size=4), st.integers(0, 3000))
    def masks(data: bytes, key: bytes, repeat: int) -> None:
        data *= repeat
        masked = mask(data, key)
        assert bytes(masked) == mask_bytes(data, key)
        assert bytes(mask(bytearray(masked), key)) == data

    masks()


def test_the_extra_is_imported_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_fast_mask", None)
    monkeypatch.setattr(frames, "_patience", 1000)
    for size in (0, 998, 1):
        assert bytes(mask(bytes(size), KEY)) == mask_bytes(bytes(size), KEY)
        assert frames._fast_mask is None
    assert bytes(mask(b"x", KEY)) == mask_bytes(b"x", KEY)
    assert frames._fast_mask is apply_mask


@pytest.mark.parametrize("missing", ["websockets", "websockets.speedups"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_fast_mask", None)
    monkeypatch.setattr(frames, "_patience", 1)
    monkeypatch.delitem(sys.modules, "websockets.speedups")
    monkeypatch.setitem(sys.modules, missing, None)
    for _ in range(2):
        assert bytes(mask(b"text", KEY)) == mask_bytes(b"text", KEY)
    assert frames._fast_mask is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("masked", [True, False])
def test_what_is_made_is_read(size: int, masked: bool) -> None:
    payload = bytes(i % 251 for i in range(size))
    parts = payload[: size // 3], memoryview(payload)[size // 3 :]
    made = b"".join(frame(PING if size < 126 else BINARY, *parts, masked=masked))
    protocol = FrameProtocol(client=not masked, extensions=[])
    protocol.receive_bytes(made)
    (read,) = protocol.received_frames()
    assert read.payload == payload
    assert read.message_finished
