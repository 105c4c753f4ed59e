"""WebSocket peers made by hand.

A :class:`RawPeer` sends and shows single WebSocket frames (RFC 6455, section 5.2). It is no
library, so that it can break every rule and sees every bit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from helpers import SECONDS

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    final: bool = True
    reserved: int = 0
    masked: bool = False

    @property
    def code(self) -> int | None:
        """The code of a close frame; ``None`` if it has none."""
        assert self.opcode == CLOSE, self
        return int(struct.unpack("!H", self.payload[:2])[0]) if self.payload else None

    @property
    def reason(self) -> str:
        assert self.opcode == CLOSE, self
        return self.payload[2:].decode()


def mask_bytes(payload: bytes, key: bytes) -> bytes:
    """Mask, or unmask: the payload is XORed with the key, repeated (RFC 6455, section 5.3)."""
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return number.to_bytes(len(payload), "big")


class RawPeer:
    """One end of a WebSocket, frame by frame.

    Args:
        sock: Connected, and owned.
        client: Frames are masked, as a client has to.
        head: The request or the answer that came from the other end.
        received: What had come after it.
    """

    def __init__(self, sock: socket.socket, client: bool, head: str, received: bytes) -> None:
        sock.settimeout(SECONDS)
        self.socket = sock
        self.client = client
        self.head = head
        self._received = bytearray(received)

    @property
    def request_line(self) -> str:
        return self.head.split("\r\n")[0]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the head, by names in lower case."""
        lines = self.head.split("\r\n")[1:]
        pairs = (line.split(":", 1) for line in lines if line)
        return {name.strip().lower(): value.strip() for name, value in pairs}

    def frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        final: bool = True,
        reserved: int = 0,
        masked: bool | None = None,
        length: int | None = None,
    ) -> bytes:
        """Return a frame as it goes over the wire; ``length`` may lie."""
        length = len(payload) if length is None else length
        mask = self.client if masked is None else masked
        first = (0x80 if final else 0) | reserved << 4 | opcode
        second = 0x80 if mask else 0
        if length < 126:
            header = struct.pack("!BB", first, second | length)
        elif length < 1 << 16:
            header = struct.pack("!BBH", first, second | 126, length)
        else:
            header = struct.pack("!BBQ", first, second | 127, length)
        if not mask:
            return header + payload
        key = os.urandom(4)
        return header + key + mask_bytes(payload, key)

    def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        self.socket.sendall(self.frame(opcode, payload, **options))

    def send_close(self, code: int = 1000, reason: bytes = b"") -> None:
        self.send(CLOSE, struct.pack("!H", code) + reason)

    def receive(self) -> Frame:
        """Return the next frame.

        Raises:
            EOFError: The connection ended.
        """
        first, second = self._read(2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack("!H", self._read(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self._read(8))[0]
        masked = bool(second & 0x80)
        key = self._read(4) if masked else bytes(4)
        payload = mask_bytes(self._read(length), key)
        return Frame(first & 0xF, payload, bool(first & 0x80), first >> 4 & 7, masked)

    def receive_until_close(self) -> tuple[list[Frame], Frame]:
        """Return the frames before the close frame, and the close frame."""
        frames = []
        while (frame := self.receive()).opcode != CLOSE:
            frames.append(frame)
        return frames, frame

    def at_end(self) -> bool:
        """Return whether the connection ends here; block until that is clear."""
        try:
            return not self._received and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            more = self.socket.recv(1 << 16)
            if not more:
                raise EOFError("the connection ended")
            self._received += more
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_head(sock: socket.socket) -> tuple[str, bytes]:
    """Read the head of an HTTP request or answer: it, and what came after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1 << 16)
        if not more:
            raise EOFError(f"the connection ended after {data!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode(), rest


def dial_raw(
    address: tuple[Any, ...],
    path: str = "/",
    headers: tuple[str, ...] = (),
    context: ssl.SSLContext | None = None,
) -> RawPeer:
    """Open a WebSocket by hand, as a client."""
    sock = socket.create_connection(address[:2], SECONDS)
    try:
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(),
            *headers,
        ]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        head, rest = read_head(sock)
        assert head.startswith("HTTP/1.1 101 "), head
        return RawPeer(sock, True, head, rest)
    except BaseException:
        sock.close()
        raise


def accept_raw(listening: socket.socket, after: bytes = b"") -> RawPeer:
    """Accept a WebSocket by hand, as a server; ``after`` is sent in one go with the answer."""
    sock, _ = listening.accept()
    try:
        sock.settimeout(SECONDS)
        head, rest = read_head(sock)
        peer = RawPeer(sock, False, head, rest)
        answer = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: " + accept_key(peer.headers["sec-websocket-key"]),
        ]
        sock.sendall("\r\n".join([*answer, "", ""]).encode() + after)
        return peer
    except BaseException:
        sock.close()
        raise


def accept_key(key: str) -> str:
    """Return what a server answers to a client's key (RFC 6455, section 4.2.2)."""
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


@contextlib.contextmanager
def listening_socket(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A socket that listens on a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock:
        sock.settimeout(SECONDS)
        yield sock
