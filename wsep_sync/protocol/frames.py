"""What a WebSocket's frames are (RFC 6455, section 5): reading a peer's, and making our own.

The libraries do the handshakes. Frames are what every byte goes through, and here it costs a
third of what it costs there: a long payload is received where it stays, and nothing is copied
to take a header off.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from collections.abc import Callable

from ..errors import ProtocolError, TransportClosed
from ..lazy import importing
from .messages import MAX_MESSAGE, Buffer

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "MessageReader",
    "close_payload",
    "frame",
    "frame_header",
    "mask",
    "parse_close",
]

# Section 5.2, opcodes.
CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA

# Frames that are no longer than this are received together, and longer ones' payloads by
# themselves. It is kept while a connection is idle, so it is not large.
_RECEIVE_BUFFER = 1 << 11

# Section 7.4.1, and what IANA has registered since: what may stand in a close frame, besides what
# is for libraries and applications.
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


class MessageReader:
    """Puts messages together from the frames that a peer sends.

    A call that is interrupted, as by a deadline, may be repeated: nothing is lost. After an error,
    nothing more can be read.

    Args:
        receive_into: Blocks until there are bytes, stores them in the buffers that it is given,
            one after the other or in the first alone, and returns how many; 0 at the end.
        masked: The peer is a client, and has to mask its frames; a server must not.
        received: Bytes that were received already.
    """

    def __init__(
        self, receive_into: Callable[..., int], masked: bool, received: bytes = b""
    ) -> None:
        self._receive_into = receive_into
        self._masked = masked
        self._buffer = memoryview(bytearray(received.ljust(_RECEIVE_BUFFER, b"\0")))
        self._start, self._end = 0, len(received)
        # Of a frame whose header was read: opcode, whether it is the last of its message, length
        # of the payload, key.
        self._header: tuple[int, bool, int, bytes] | None = None
        # A long payload, and how much of it has been received.
        self._payload: bytearray | None = None
        self._filled = 0
        # A message whose last fragment has not come, and its opcode.
        self._fragments: bytearray | None = None
        self._opcode = 0

    @property
    def has_bytes(self) -> bool:
        """Whether bytes were received that have not been read: of a further frame."""
        return self._end > self._start

    def read(self) -> tuple[int, Buffer]:
        """Return the opcode and the payload of the next message, or control frame.

        Raises:
            ProtocolError: A frame that the RFC does not allow, or a message over the limit, which
                is known before it has come.
            TransportClosed: The connection ended without a close frame.
        """
        while True:
            if self._header is None:
                self._header = self._read_header()
            opcode, final, length, key = self._header
            payload = self._read_payload(length)
            self._header = None
            if key:
                payload = mask(payload, key)
            if opcode >= CLOSE:
                return opcode, payload
            if self._fragments is not None:
                self._fragments += payload
                if not final:
                    continue
                opcode, payload, self._fragments = self._opcode, self._fragments, None
            elif not final:
                self._opcode, self._fragments = opcode, bytearray(payload)
                continue
            if opcode == TEXT:
                _check_text(payload)
            return opcode, payload

    def _read_header(self) -> tuple[int, bool, int, bytes]:
        self._receive(2)
        first, second = self._buffer[self._start : self._start + 2]
        opcode, final = first & 0xF, first >= 0x80
        masked, length = second >= 0x80, second & 0x7F
        if first & 0x70:
            raise _refusal("a reserved bit is set")
        if masked is not self._masked:
            raise _refusal("no mask" if self._masked else "a server masked it")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise _refusal(f"unknown opcode {opcode}")
            if not final:
                raise _refusal("a fragment of a control frame")
            if length > 125:
                raise _refusal("a long control frame")
        elif opcode > BINARY:
            raise _refusal(f"unknown opcode {opcode}")
        elif (opcode == CONTINUATION) is (self._fragments is None):
            raise _refusal("a fragment out of place")
        size = 2
        if length == 126:
            self._receive(4)
            (length,) = struct.unpack_from("!H", self._buffer, self._start + 2)
            size, shorter = 4, 125
        elif length == 127:
            self._receive(10)
            (length,) = struct.unpack_from("!Q", self._buffer, self._start + 2)
            size, shorter = 10, 0xFFFF
        if size > 2 and (length <= shorter or length >> 63):
            raise _refusal("a length in a form that is not its own")
        if opcode < CLOSE and len(self._fragments or b"") + length > MAX_MESSAGE:
            raise ProtocolError(f"a message of more than {MAX_MESSAGE} bytes", 1009)
        key = b""
        if masked:
            self._receive(size + 4)
            key = bytes(self._buffer[self._start + size : self._start + size + 4])
        self._start += size + len(key)
        return opcode, final, length, key

    def _read_payload(self, length: int) -> bytes | bytearray:
        if length <= len(self._buffer):
            self._receive(length)
            start, self._start = self._start, self._start + length
            return bytes(self._buffer[start : self._start])
        if self._payload is None:
            self._payload = bytearray(length)
            self._filled = self._end - self._start
            self._payload[: self._filled] = self._buffer[self._start : self._end]
            self._start = self._end = 0
        with memoryview(self._payload) as view:
            while self._filled < length:
                # What comes behind it too, the next header: that spares a call for each message.
                self._filled += self._receive_some(view[self._filled :], self._buffer)
        self._end = self._filled - length
        payload, self._payload = self._payload, None
        return payload

    def _receive(self, size: int) -> None:
        """Have so many bytes in the buffer, from its start on."""
        while self._end - self._start < size:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
            self._end += self._receive_some(self._buffer[rest:])

    def _receive_some(self, *buffers: memoryview) -> int:
        count = self._receive_into(*buffers)
        if not count:
            raise TransportClosed(1006, "the connection ended without a close frame")
        return count


def _refusal(text: str, code: int = 1002) -> ProtocolError:
    return ProtocolError(f"not a WebSocket frame: {text}", code)


def _check_text(payload: Buffer) -> None:
    """Refuse a text that is not UTF-8 (section 8.1)."""
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise _refusal("a text that is not UTF-8", 1007) from error


def parse_close(payload: Buffer) -> tuple[int, str]:
    """Return the code and the reason of a close frame; 1005 if it has none.

    Raises:
        ProtocolError: A payload that may not be there.
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise _refusal("half a close code")
    (code,) = struct.unpack_from("!H", payload)
    if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
        raise _refusal(f"close code {code}")
    try:
        return code, str(payload[2:], "utf-8")
    except UnicodeDecodeError as error:
        raise _refusal("a reason that is not UTF-8", 1007) from error


def close_payload(code: int, reason: str) -> bytes:
    """Return the payload of a close frame; the reason has to fit."""
    return struct.pack("!H", code) + reason.encode()


def frame_header(opcode: int, length: int) -> bytes:
    """Return the header of a frame that is a whole message, without a mask."""
    if length < 126:
        return bytes((0x80 | opcode, length))
    if length < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, 127, length)


def frame(opcode: int, *parts: Buffer, masked: bool) -> tuple[Buffer, ...]:
    """Return a frame that is a whole message, in pieces that are to be sent in one go."""
    header = frame_header(opcode, sum(len(part) for part in parts))
    if not masked:
        return (header, *parts)
    key = os.urandom(4)
    header = bytes((header[0], header[1] | 0x80)) + header[2:] + key
    return header, mask(bytearray().join(parts), key)


def mask(data: bytes | bytearray, key: bytes) -> bytes | bytearray:
    """Mask or unmask a payload (section 5.3). ``data`` is not to be used any more.

    In Python it takes 50 us for a full message, which is most of what input costs. Where there is
    the extra ``speed``, it takes 1 us from the time on when importing that has paid.
    """
    global _patience
    if _patience > 0:
        _patience -= len(data)
        if _patience <= 0:
            _import_fast_mask()
    if _fast_mask is not None:
        return _fast_mask(data, key)
    if len(data) <= _SHORT:
        keys = (key * (len(data) // 4 + 1))[: len(data)]
        number = int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")
        return number.to_bytes(len(data), "big")
    masked = data if isinstance(data, bytearray) else bytearray(data)
    for i, byte in enumerate(key):
        lane = slice(i, None, 4)
        masked[lane] = masked[lane].translate(_xor_table(byte))
    return masked


@functools.cache
def _xor_table(key: int) -> bytes:
    return bytes(byte ^ key for byte in range(256))


# Up to so many bytes, one operation on a number as long as the payload is the faster way; for a
# full message it takes three times as long as the other.
_SHORT = 512

# How many bytes this process masks in Python before it imports the extra, which takes as long as
# to mask some 20 MB; most programs never come to that. Threads may count at once, and miscount.
_patience = 8_000_000
_fast_mask: Callable[[Buffer, bytes], bytes] | None = None


def _import_fast_mask() -> None:
    global _fast_mask
    # There may be no compiled part of it for this platform.
    with contextlib.suppress(ImportError):
        with importing:
            from websockets.speedups import apply_mask

        _fast_mask = apply_mask
