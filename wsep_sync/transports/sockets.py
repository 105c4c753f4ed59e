"""What both libraries' WebSockets share: messages over a socket, and how a connection ends.

The libraries do the handshakes. Sending and receiving is done here, over :class:`.StreamSocket`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import threading
import weakref

from ..errors import ProtocolError, TransportClosed, copy_error, suppress_system
from ..protocol.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    MessageReader,
    close_payload,
    frame,
    parse_close,
)
from ..protocol.messages import MAX_MESSAGE
from ..streams.wakeup import Wakeup
from . import liveness
from .base import CLOSE_TIMEOUT, Buffer, Transport, close_reason
from .polled import PolledTransport
from .stream_socket import StreamSocket

__all__ = ["SocketTransport"]


def _frame(opcode: int, *parts: Buffer, masked: bool) -> bytes:
    """Return a frame in one piece."""
    return b"".join(frame(opcode, *parts, masked=masked))


# How many reads of the socket receiving takes at once, where it is not to block.
_READS_AT_ONCE = 64


class SocketTransport(Transport, PolledTransport):
    """A WebSocket over a socket that is connected and has done its handshake.

    Args:
        sock: The socket.
        client: This end is the client, and owns the socket. A server's is for its HTTP server to
            close: gunicorn, for one, counts its connections wrong if it finds it closed.
        received: Bytes that were read from the socket already.
        wakeup: As of :class:`.StreamSocket`.

    Raises:
        OSError: There are no more descriptors; the socket is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        client: bool,
        received: bytes = b"",
        wakeup: Wakeup | None = None,
    ) -> None:
        self._client = client
        self._stream = StreamSocket(sock, functools.partial(_frame, PING, masked=client), wakeup)
        self._messages = MessageReader(self._stream.receive_into, not client, received)
        self._more = bool(received)
        # Held by whoever receives: a thread in receive(), or close() while it awaits the peer's
        # close frame.
        self._receive_lock = threading.Lock()
        # Guards the three below.
        self._state_lock = threading.Lock()
        self._ended: TransportClosed | ProtocolError | None = None
        self._close_sent = False
        self._closing = False
        _transports.add(self)

    @property
    def peer(self) -> str:
        return self._stream.peer

    def _next_message(self) -> Buffer:
        """Read frames until a message is whole, and answer pings.

        Raises:
            TransportClosed: A close frame came; or the end, or an error of the connection.
            ProtocolError: What came is not allowed.
            TimeoutError: The deadline passed.
        """
        while True:
            opcode, payload = self._messages.read()
            if opcode < CLOSE:
                return payload
            if opcode == PING:
                self._answer_ping(payload)
            elif opcode == CLOSE:
                raise TransportClosed(*parse_close(payload))

    def _answer_ping(self, payload: Buffer) -> None:
        self._stream.send_control(_frame(PONG, payload, masked=self._client))

    def _message_frame(self, parts: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """Return the frame of a binary message, in pieces to be sent in one go."""
        return frame(BINARY, *parts, masked=self._client)

    def send(self, *parts: Buffer, timeout: float | None = None) -> None:
        if self._close_sent or self._ended is not None:
            raise self._closed_error()
        self._stream.send(*self._message_frame(parts), timeout=timeout)

    def send_stream(self, header: bytes, data: memoryview) -> None:
        if self._close_sent or self._ended is not None:
            raise self._closed_error()
        self._stream.send(*self._stream_frames(header, data))

    def _stream_frames(self, header: bytes, data: memoryview) -> list[Buffer]:
        # To be sent in one go: each system call costs, and may be a change of threads.
        room = MAX_MESSAGE - len(header)
        frames: list[Buffer] = []
        for start in range(0, len(data), room):
            frames += self._message_frame((header, data[start : start + room]))
        return frames

    # For a loop

    @property
    def wakeup(self) -> Wakeup:
        return self._stream.wakeup

    def fileno(self) -> int:
        return self._stream.socket.fileno()

    def wanted(self) -> int:
        return self._stream.wanted()

    def receive_now(self) -> Buffer | None:
        with self._receive_lock:
            self._stream.reads_left = _READS_AT_ONCE
            try:
                message = self._receive()
            except BlockingIOError:
                self._more = not self._stream.reads_left
                return None
            finally:
                self._stream.reads_left = None
            # What TLS holds, no poll tells of.
            self._more = self._messages.has_bytes or self._stream.is_tls
            return message

    def has_more(self) -> bool:
        return self._more

    def send_now(self, *messages: Buffer) -> bool:
        if self._close_sent or self._ended is not None:
            raise self._closed_error()
        frames = [self._message_frame((message,)) for message in messages]
        return self._stream.send_now(*itertools.chain.from_iterable(frames))

    def stream_now(self, header: bytes, data: memoryview) -> bool:
        if self._close_sent or self._ended is not None:
            raise self._closed_error()
        return self._stream.send_now(*self._stream_frames(header, data))

    def flush_now(self) -> bool:
        return self._stream.send_now()

    def unsent(self) -> int:
        return liveness.unsent(self._stream.socket)

    def tick(self) -> None:
        self._stream.tick()

    # For threads

    def receive(self) -> Buffer:
        with self._receive_lock:
            try:
                return self._receive()
            except TimeoutError as error:
                if not self._closing:
                    raise
                # The deadline was that of close(), which the peer has not answered.
                raise TransportClosed(1006, "closed here") from error

    def _receive(self) -> Buffer:
        """Receive, and remember how it ended; requires holding the receive lock."""
        assert self._receive_lock.locked()
        if self._ended is not None:
            raise copy_error(self._ended)
        try:
            return self._next_message()
        except (TransportClosed, ProtocolError) as error:
            with self._state_lock:
                self._ended = copy_error(error)
            if isinstance(error, TransportClosed):
                if error.code == 1006:
                    self._stream.shutdown()  # wakes who sends: nobody will take it
                else:
                    # RFC 6455, section 5.5.1: answer a close frame with one, once.
                    self._send_close(1000 if error.code == 1005 else error.code, "")
            raise

    def _closed_error(self) -> TransportClosed:
        ended = self._ended
        if isinstance(ended, TransportClosed):
            return copy_error(ended)
        return TransportClosed(1006, "the connection is closed")

    def set_deadline(self, seconds: float | None) -> None:
        if not self._closing:
            self._stream.set_deadline(seconds)

    def _send_close(self, code: int, reason: str) -> None:
        with self._state_lock:
            if self._close_sent:
                return
            self._close_sent = True
        with contextlib.suppress(TransportClosed):
            payload = close_payload(code, close_reason(reason))
            closing = frame(CLOSE, payload, masked=self._client)
            self._stream.send(*closing, timeout=CLOSE_TIMEOUT, last=True)

    def close(self, code: int = 1000, reason: str = "") -> None:
        with self._state_lock:
            if self._closing:
                return
            self._closing = True
        self._send_close(code, reason)
        self._stream.set_deadline(CLOSE_TIMEOUT)
        # A thread that is receiving gets the peer's close frame, or runs into the deadline.
        if not self._receive_lock.acquire(timeout=CLOSE_TIMEOUT):
            self._stream.shutdown()
            self._receive_lock.acquire()
        try:
            # What the peer still sends is read, lest the kernel answer it with a reset, which
            # would make the peer lose what it has not read yet (RFC 9293, section 3.10.4).
            with suppress_system(TimeoutError):
                while self._ended is None:
                    with contextlib.suppress(TransportClosed, ProtocolError):
                        self._receive()
                if isinstance(self._ended, ProtocolError):
                    self._stream.linger()
        finally:
            with self._state_lock:
                if self._ended is None:
                    self._ended = TransportClosed(1006, "closed here")
            self._stream.shutdown()
            if self._client:
                self._stream.close()
            self._receive_lock.release()

    def ping_every(self, seconds: float) -> None:
        self._stream.ping_every(seconds)

    def hung_up(self) -> bool:
        return self._closing or self._ended is not None or self._stream.hung_up()

    def abort(self) -> None:
        self._stream.shutdown()

    def _leave_to_parent(self) -> None:
        """Let go of the connection, in a process that was forked."""
        self._receive_lock, self._state_lock = threading.Lock(), threading.Lock()
        self._closing = self._close_sent = True
        self._ended = TransportClosed(1006, "it belongs to the process that this was forked from")
        self._stream.leave_to_parent()


_transports: weakref.WeakSet[SocketTransport] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for transport in list(_transports):
        transport._leave_to_parent()


# A forked child has all of its parent's connections, too, and what closes files when it ends would
# end the input of the parent's commands, or hang up.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_all_to_parent)
