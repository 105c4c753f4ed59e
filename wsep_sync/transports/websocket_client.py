"""Clients' WebSockets: the one door to websocket-client."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Mapping
from http.cookies import CookieError
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import websocket

from ..errors import ConnectError, ProtocolError, TransportClosed
from ..messages import MAX_MESSAGE
from .base import Buffer
from .sockets import SocketTransport, StreamSocket, start_tls

if TYPE_CHECKING:
    import ssl

__all__ = ["WebSocketClientTransport", "connect_websocket"]

# What is asked of the socket at once: two messages.
_RECEIVE_BUFFER = 1 << 17

# RFC 6455, section 5.2, opcodes.
_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_CLOSE, _PING, _PONG = 0x8, 0x9, 0xA


def connect_websocket(
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> WebSocketClientTransport:
    """Open a WebSocket.

    No compression is offered, no redirect is followed (the headers may hold a secret), and a
    loopback address is never reached through a proxy. Other hosts are, if ``http_proxy`` or
    ``https_proxy`` is in the environment and ``no_proxy`` does not name them.

    Args:
        url: ``ws://`` or ``wss://``.
        timeout: Seconds for all of it: TCP, TLS and the HTTP answer. Through a proxy, for each.
        headers: More HTTP headers to send.
        ssl_context: For ``wss://``; by default the system's trust store, and the host's name is
            checked.

    Raises:
        ConnectError: It could not be opened.
        ValueError: The URL is not one of a WebSocket, or a header cannot be sent.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"not a WebSocket URL (ws://HOST:PORT or wss://HOST:PORT): {url!r}")
    port = parts.port or (443 if parts.scheme == "wss" else 80)  # ValueError if it is no port
    lines = []
    for name, value in (headers or {}).items():
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"header {name!r} has a line break or a NUL in it")
        lines.append(f"{name}: {value}")
    options: dict[str, Any] = {}
    if parts.scheme == "wss":
        if ssl_context is None:
            import ssl

            ssl_context = ssl.create_default_context()
        options["sslopt"] = {"context": ssl_context}
    else:
        ssl_context = None
    ws = websocket.WebSocket(**options)
    handshake = None
    try:
        if not _proxied(parts.scheme, parts.hostname):
            handshake = _Handshake(parts.hostname, port, timeout, ssl_context)
        ws.connect(  # type: ignore[no-untyped-call]
            url,
            timeout=timeout,
            header=lines,
            suppress_origin=True,  # it is what browsers send, and what servers refuse them by
            redirect_limit=0,
            socket=handshake,
        )
    except websocket.WebSocketBadStatusException as error:
        body = getattr(error, "resp_body", None) or b""
        raise ConnectError(url, _refusal(error.status_code, body), error.status_code) from error
    except (TimeoutError, websocket.WebSocketTimeoutException) as error:
        raise ConnectError(url, f"no answer within {timeout:g} seconds") from error
    except (websocket.WebSocketException, CookieError, OSError, ValueError) as error:
        answer = ws.handshake_response
        if answer is not None and answer.status != 101:  # a redirect
            raise ConnectError(url, _refusal(answer.status), answer.status) from error
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConnectError(url, words) from error
    received = b""
    if handshake is not None:
        ws.sock, received = handshake.socket, handshake.received
    try:
        return WebSocketClientTransport(ws, received)
    except OSError as error:  # no more descriptors can be had
        raise ConnectError(url, str(error.strerror)) from error


def _proxied(scheme: str, hostname: str) -> bool:
    """Whether to let the library look for a proxy in the environment."""
    if hostname == "localhost":
        return False
    try:
        if ipaddress.ip_address(hostname).is_loopback:
            return False
    except ValueError:
        pass
    name = "https_proxy" if scheme == "wss" else "http_proxy"
    return bool(os.environ.get(name) or os.environ.get(name.upper()))


def _refusal(status: int, body: bytes = b"") -> str:
    text = f"the server answered HTTP {status}"
    if body:
        text += f": {body[:200].decode(errors='replace').strip()}"
    return text


class _Handshake:
    """The socket, as the library sees it while it shakes hands.

    The library reads the answer's head one byte at a time, each with a timeout of its own. Here
    they come out of a buffer, and one deadline holds for all.
    """

    def __init__(
        self, host: str, port: int, timeout: float, context: ssl.SSLContext | None
    ) -> None:
        self._deadline = time.monotonic() + timeout
        self.received = b""
        self.socket = socket.create_connection((host, port), timeout)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._hurry()
                self.socket = tls = start_tls(self.socket, context, server_hostname=host)
                tls.do_handshake()
        except BaseException:
            self.socket.close()
            raise

    def _hurry(self) -> None:
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(rest)

    def recv(self, size: int) -> bytes:
        if not self.received:
            self._hurry()
            self.received = self.socket.recv(_RECEIVE_BUFFER)
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def send(self, data: bytes) -> int:
        self._hurry()
        self.socket.sendall(data)
        return len(data)

    def gettimeout(self) -> float | None:
        return self.socket.gettimeout()

    def close(self) -> None:
        self.socket.close()


class WebSocketClientTransport(SocketTransport):
    """A WebSocket of websocket-client that is connected. It is taken over: do not use it beside.

    Args:
        ws: The WebSocket.
        received: Bytes that were read from its socket already.
    """

    def __init__(self, ws: websocket.WebSocket, received: bytes = b"") -> None:
        if ws.sock is None:
            raise ValueError("the WebSocket is not connected")
        stream = StreamSocket(ws.sock, _ping)
        super().__init__(stream)
        self._ws = ws  # keeps its socket from being closed by a finalizer
        self._frames = _FrameReader(stream, received)
        self._fragments: bytearray | None = None

    def _message_frame(self, parts: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        return (_frame(_BINARY, *parts),)

    def _close_frame(self, code: int, reason: str) -> bytes:
        return bytes(_frame(_CLOSE, struct.pack("!H", code), reason.encode()))

    def _next_message(self) -> Buffer:
        while True:
            try:
                frame = self._frames.recv_frame()
            except (websocket.WebSocketException, ValueError) as error:
                raise ProtocolError(f"not a WebSocket frame: {error}", 1002) from error
            data = frame.data
            assert isinstance(data, bytes)
            if frame.opcode in (_BINARY, _TEXT) and frame.fin and self._fragments is None:
                return data
            if frame.opcode == _PING:
                self._stream.send_control(bytes(_frame(_PONG, data)))
            elif frame.opcode == _CLOSE:
                code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
                raise TransportClosed(code, data[2:].decode(errors="replace"))
            elif frame.opcode != _PONG:
                message = self._join(frame.opcode, data, bool(frame.fin))
                if message is not None:
                    return message

    def _join(self, opcode: int, data: bytes, final: bool) -> bytearray | None:
        if (opcode == _CONTINUATION) == (self._fragments is None):
            raise ProtocolError("a fragment out of place", 1002)
        if self._fragments is None:
            self._fragments = bytearray()
        if len(self._fragments) + len(data) > MAX_MESSAGE:
            raise ProtocolError(f"a message of more than {MAX_MESSAGE} bytes", 1009)
        self._fragments += data
        if not final:
            return None
        message, self._fragments = self._fragments, None
        return message


class _FrameReader(websocket.frame_buffer):
    """The library's frame parser over a buffer of ours, and with a limit to what it accepts."""

    def __init__(self, stream: StreamSocket, received: bytes) -> None:
        super().__init__(lambda _: b"", skip_utf8_validation=True)
        self._stream = stream
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._start = 0
        self._end = len(received)
        self._buffer[: self._end] = received

    def recv_header(self) -> None:
        super().recv_header()
        if self.has_mask():  # the library would take it; RFC 6455, section 5.1
            raise ProtocolError("not a WebSocket frame: a server masked it", 1002)

    def recv_length(self) -> None:
        super().recv_length()
        assert self.header is not None
        assert self.length is not None
        if self.header[4] >= _CLOSE and self.length > 125:  # RFC 6455, section 5.5
            raise ProtocolError("not a WebSocket frame: a long control frame", 1002)
        if self.length > MAX_MESSAGE:
            raise ProtocolError(f"a message of more than {MAX_MESSAGE} bytes", 1009)

    def recv_strict(self, bufsize: int) -> bytes:
        while self._end - self._start < bufsize:
            if len(self._buffer) - self._start < bufsize:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start : self._end]
                self._start, self._end = 0, rest
            count = self._stream.receive_into(self._buffer[self._end :])
            if not count:
                raise TransportClosed(1006, "the connection ended without a close frame")
            self._end += count
        start = self._start
        if start + bufsize == self._end:
            self._start = self._end = 0
        else:
            self._start += bufsize
        return bytes(self._buffer[start : start + bufsize])


def _ping() -> bytes:
    return bytes(_frame(_PING))


def _frame(opcode: int, *parts: Buffer) -> bytearray:
    """Return a client's frame, whole and masked (RFC 6455, sections 5.2 and 5.3).

    The library's own way of masking, one operation on a number as long as the message, takes
    eight times as long.
    """
    length = sum(len(part) for part in parts)
    key = os.urandom(4)
    if length < 126:
        frame = bytearray(struct.pack("!BB4s", 0x80 | opcode, 0x80 | length, key))
    elif length < 1 << 16:
        frame = bytearray(struct.pack("!BBH4s", 0x80 | opcode, 0x80 | 126, length, key))
    else:
        frame = bytearray(struct.pack("!BBQ4s", 0x80 | opcode, 0x80 | 127, length, key))
    start = len(frame)
    for part in parts:
        frame += part
    for i, byte in enumerate(key):
        lane = slice(start + i, None, 4)
        frame[lane] = frame[lane].translate(_xor_table(byte))
    return frame


@functools.cache
def _xor_table(key: int) -> bytes:
    return bytes(byte ^ key for byte in range(256))
