"""The other end of a case's connection: a plain socket, and what a server may say to it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from collections.abc import Iterable, Iterator

from helpers import SECONDS
from peers import BINARY, CLOSE, PONG, Frame, mask_bytes

#: The close codes that a server may choose (RFC 6455, section 7.4.1), besides echoing ours.
CLOSE_CODES = {1000, 1001, 1002, 1007, 1008, 1009, 1011}

_SERVER_TYPES = {"pid", "stdout", "stderr", "taken", "ended", "eof", "exit_code"}


class Peer:
    """A socket that is talked to without any library.

    Attributes:
        socket: Connected; it gives up when it has had to wait for too long.
        broken: The connection was reset, so that what was received may lack its end.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.broken = False
        self._received = bytearray()

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send; it is all right if the other end has closed."""
        try:
            for piece in pieces:
                self.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            self.broken = True

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_to_end(self) -> bytes:
        """Return all that comes."""
        while self._more():
            pass
        return self.take(len(self._received))

    def read_head(self) -> bytes:
        """Return the head of an HTTP answer, or what there is if none comes."""
        while b"\r\n\r\n" not in self._received and self._more():
            pass
        end = self._received.find(b"\r\n\r\n")
        return self.take(len(self._received) if end < 0 else end + 4)

    def read_frame(self) -> Frame | None:
        """Return the next frame; ``None`` at the end."""
        while True:
            got = next(parse_frames(bytes(self._received)), None)
            if got is not None:
                self.take(got[1])
                return got[0]
            if not self._more():
                return None

    def take(self, size: int) -> bytes:
        """Return that much of what has come."""
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            self.broken = True
            return False
        self._received += data
        return bool(data)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def parse_frames(data: bytes) -> Iterator[tuple[Frame, int]]:
    """Parse frames, as long as they are whole; yields each with the number of its bytes."""
    at = 0
    while len(data) - at >= 2:
        start = at
        first, second = data[at : at + 2]
        at += 2
        length = second & 0x7F
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(data) - at < size:
                return
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        key = b""
        if second & 0x80:
            key = data[at : at + 4]
            at += 4
        if len(data) - at < length:
            return
        payload = data[at : at + length]
        at += length
        if key:
            payload = mask_bytes(payload, key)
        yield Frame(first & 0xF, payload, bool(first & 0x80), first >> 4 & 7, bool(key)), at - start


def check_server_frames(data: bytes, broken: bool = False) -> list[Frame]:
    """See that a server said nothing but right frames with right messages; return them."""
    frames = []
    for frame, size in parse_frames(data):
        data = data[size:]
        frames.append(frame)
    # What was under way when a connection is reset is lost.
    assert broken or not data, f"half a frame at the end: {data[:200]!r}"
    closed = False
    for frame in frames:
        assert not frame.masked, frame
        assert not frame.reserved, frame
        assert frame.final, frame
        if frame.opcode == CLOSE:
            assert not closed, frames
            closed = True
            assert 2 <= len(frame.payload) <= 125, frame
            frame.payload[2:].decode()
        elif frame.opcode == BINARY:
            assert not closed, frames  # RFC 6455, section 5.5.1; pongs may follow
            header, newline, body = frame.payload.partition(b"\n")
            assert newline, frame
            kind = json.loads(header)["type"]
            assert kind in _SERVER_TYPES, frame
            assert not body or kind in ("stdout", "stderr"), frame
            assert len(frame.payload) <= 64_000
        else:
            assert frame.opcode == PONG, frame
            assert len(frame.payload) <= 125, frame
    return frames


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) [\x20-\x7e\x80-\xff]*")  # RFC 9112, section 4
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\x20-\x7e]*")


def check_answer(data: bytes) -> int:
    """See that an HTTP answer is a right one; return its status, 0 if there is none.

    What follows a head that says 101 is not looked at.
    """
    if not data:
        return 0
    head, end, body = data.partition(b"\r\n\r\n")
    assert end, f"half an answer: {data[:500]!r}"
    first, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    assert match, f"not a status line: {first!r}"
    status = int(match[1])
    headers = {}
    for line in lines:
        assert _HEADER_LINE.fullmatch(line), f"not a header: {line!r}"
        name, _, value = line.partition(b":")
        assert name.lower() not in headers, f"twice: {line!r}"
        headers[name.lower()] = value.strip()
    if status != 101 and b"content-length" in headers:
        assert len(body) in (0, int(headers[b"content-length"])), data
    return status
