"""Servers' WebSockets: the one door to simple-websocket, and to the wsproto it is made of.

simple-websocket does the handshake, and wsproto reads the frames of what another program has
accepted. Reading all frames with it takes twice as long: it copies each payload three times.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import simple_websocket
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from ..errors import ProtocolError, TransportClosed, copy_error
from ..protocol.messages import MAX_MESSAGE
from ..streams.wakeup import READ, Wakeup
from .base import CLOSE_TIMEOUT, FEATURES_HEADER, Buffer
from .sockets import SocketTransport
from .stream_socket import StreamSocket

__all__ = ["SUBPROTOCOL", "SimpleWebSocketTransport", "accept_websocket", "take_over_websocket"]

#: The name of the protocol, for ``Sec-WebSocket-Protocol``.
SUBPROTOCOL = "wsep"

# What is asked of the socket at once: two messages.
_RECEIVE_BUFFER = 1 << 17

_TOO_LONG = f"a message of more than {MAX_MESSAGE} bytes"


def accept_websocket(
    environ: dict[str, Any], features: Iterable[str] = ()
) -> SimpleWebSocketTransport:
    """Answer a WSGI request with an upgrade to a WebSocket, without compression.

    The subprotocol :data:`SUBPROTOCOL` is selected when the client offers it, and no other. It is
    for browsers: they can send a token in no header but the list of subprotocols, and some give up
    when none of it is selected; and the answer must not repeat the token.

    Args:
        environ: The request; the server's own socket must be in it as ``werkzeug.socket`` or
            ``gunicorn.socket``.
        features: What to name as :attr:`.Transport.peer_features`.

    Raises:
        ProtocolError: The request is no valid WebSocket handshake.
        RuntimeError: The socket is not there.
        OSError: There are no more descriptors; nothing was answered.
    """
    wakeup = Wakeup()  # before the answer, which cannot be taken back
    _check_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""))
    # Every browser and the reference offer compression, and it costs most of the throughput.
    environ = {k: v for k, v in environ.items() if k != "HTTP_SEC_WEBSOCKET_EXTENSIONS"}
    try:
        server = _Accepting(environ, " ".join(features))
    except (simple_websocket.ConnectionError, RemoteProtocolError, ValueError) as error:
        raise ProtocolError(f"no WebSocket handshake: {error}", 1002) from error
    return SimpleWebSocketTransport(server.sock, client=False, wakeup=wakeup)


class _Accepting(simple_websocket.Server):  # type: ignore[misc] # it has no types
    """The library's server, with one header more in its answer, for which it has no way."""

    ws: Any

    def __init__(self, environ: dict[str, Any], features: str) -> None:
        self._features = features
        super().__init__(environ, [SUBPROTOCOL], thread_class=_NoThread)

    def handshake(self) -> None:
        # It sends what the connection makes of the event, over the socket that it took from the
        # environment.
        ws = self.ws
        if self._features:
            self.ws = _Answer(ws, self._features)
        try:
            super().handshake()
        finally:
            self.ws = ws


class _Answer:
    """A connection of wsproto whose answer to the handshake names features."""

    def __init__(self, ws: Any, features: str) -> None:
        self._ws = ws
        self._features = features

    def send(self, event: Any) -> bytes:
        if isinstance(event, AcceptConnection):
            event.extra_headers.append((FEATURES_HEADER.encode(), self._features.encode()))
        return bytes(self._ws.send(event))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ws, name)


def _check_key(key: str) -> None:
    """Refuse a key that is not 16 bytes in base64 (RFC 6455, section 4.2.1); wsproto takes any."""
    try:
        nonce = base64.b64decode(key, validate=True)
    except ValueError:
        nonce = b""
    if len(nonce) != 16:
        raise ProtocolError(
            "no WebSocket handshake: Sec-WebSocket-Key is not 16 bytes in base64", 1002
        )


def take_over_websocket(server: simple_websocket.Server) -> SimpleWebSocketTransport:
    """Take over a WebSocket that another program has accepted, as Flask-Sock does.

    Its own thread, which reads without a bound, ends at the next bytes it reads. Should it have
    agreed on compression, messages are sent uncompressed all the same (RFC 7692, section 6).
    """
    handover = _Handover(server.sock)
    server.sock = handover  # before the socket is made non-blocking, which its thread can't handle
    transport = _TakenOver(server, handover)
    handover.stream = transport._stream
    return transport


class _NoThread:
    """Given to simple-websocket as its thread: whoever receives reads the socket itself.

    That spares a thread and a change of threads per message, and what is not received stays in
    the socket, whose bound holds the peer up, instead of in an unbounded list.
    """

    name = ""

    def __init__(self, target: Callable[[], None]) -> None:
        pass

    def start(self) -> None:
        pass


class _Handover:
    """Stands in for the socket of a WebSocket whose thread is to go.

    The thread is blocked in ``recv`` on the real socket, and cannot be woken without closing it.
    What it reads there it handles once more; then it comes here, is told of an end, and ends.
    """

    def __init__(self, sock: Any) -> None:
        self.socket = sock
        self.stream: StreamSocket | None = None
        self.silent = False  # after a close frame nothing may follow
        self.done = Wakeup()  # set when the thread is about to end

    def recv(self, _size: int) -> bytes:
        return b""

    def send(self, data: bytes) -> int:
        # Its answer to a ping or to a close frame.
        if self.stream is not None and not self.silent:
            try:
                self.stream.send(data, timeout=CLOSE_TIMEOUT)
            except TransportClosed as error:
                raise OSError(str(error)) from error  # what the thread knows how to end with
        return len(data)

    def fileno(self) -> int:
        return int(self.socket.fileno())

    def close(self) -> None:
        self.done.set()


class SimpleWebSocketTransport(SocketTransport):
    """The server's end. Made by :func:`accept_websocket` and :func:`take_over_websocket`."""


class _TakenOver(SimpleWebSocketTransport):
    """A WebSocket that the library has read from, and whose parser goes on where it was.

    It may be amid a frame, and may have agreed on compression. It is waited for, by a thread: the
    library's own has to go first.
    """

    polls = False

    def __init__(self, server: simple_websocket.Server, handover: _Handover) -> None:
        super().__init__(handover.socket, client=False)
        self._server = server
        self._handover: _Handover | None = handover
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._events: Iterator[Event] = iter(())
        self._early_end: TransportClosed | None = None  # what the library's thread met
        self._fragments: bytearray | None = None

    def _next_message(self) -> Buffer:
        # What the library's thread has read. It may be all that the peer says until it is answered,
        # and that thread ends only when there is more.
        early = self._server.input_buffer
        while not early and self._handover is not None:
            self._await_handover(self._handover)
        if early:
            message = early.pop(0)
            return message.encode() if isinstance(message, str) else bytes(message)
        if self._early_end is not None:
            raise copy_error(self._early_end)
        while True:
            for event in self._events:
                message = self._handle(event)
                if message is not None:
                    return message
            count = self._stream.receive_into(self._buffer)
            if not count:
                raise TransportClosed(1006, "the connection ended without a close frame")
            self._server.ws.receive_data(bytes(self._buffer[:count]))
            self._events = self._server.ws.events()

    def _handle(self, event: Event) -> Buffer | None:
        """Return the message that an event completes."""
        if isinstance(event, (BytesMessage, TextMessage)):
            data = event.data if isinstance(event, BytesMessage) else event.data.encode()
            if self._fragments is None:
                if len(data) > MAX_MESSAGE:
                    raise ProtocolError(_TOO_LONG, 1009)
                if event.message_finished:
                    return data
                self._fragments = bytearray(data)
            elif len(self._fragments) + len(data) > MAX_MESSAGE:
                raise ProtocolError(_TOO_LONG, 1009)
            else:
                self._fragments += data
            if event.message_finished:
                message, self._fragments = self._fragments, None
                return message
        elif isinstance(event, Ping):
            self._answer_ping(event.payload)
        elif isinstance(event, CloseConnection):
            if self._server.ws.state is ConnectionState.OPEN:
                # Not the peer's close frame, but wsproto's verdict on what the peer sent.
                raise ProtocolError(f"not a WebSocket frame: {event.reason}", int(event.code))
            raise TransportClosed(int(event.code), event.reason or "")
        return None

    def _await_handover(self, handover: _Handover) -> None:
        """Wait a while for the library's thread to go; when it has, take what it leaves."""
        server = self._server
        if server.thread.is_alive() and not handover.done.is_set():
            # A thread that was about to end when its socket was replaced ends without a word.
            self._stream.wait_to_receive(handover.done.fileno(), READ, at_most=1.0)
            return
        self._handover = None
        partial = server.incoming_message
        if partial is not None:
            self._fragments = bytearray(partial.encode() if isinstance(partial, str) else partial)
        if server.ws.state is not ConnectionState.OPEN:
            self._close_sent = True  # the library has answered
            code, reason = int(server.close_reason), server.close_message or ""
            self._early_end = TransportClosed(code, reason)
        # Any other end that it met is met again by whoever receives here.

    def _send_close(self, code: int, reason: str) -> None:
        if self._handover is not None:
            self._handover.silent = True
        super()._send_close(code, reason)
