"""A WebSocket in memory: what tests, and programs that embed a server, use without a network."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from ..errors import ProtocolError, TransportClosed, copy_error
from ..protocol.messages import FEATURES, MAX_MESSAGE
from ..streams.wakeup import Wakeup
from .base import Buffer, Transport, close_reason
from .polled import PolledTransport

__all__ = ["MemoryTransport", "memory_pair"]

# How many messages may be on the way before send blocks, as it does on a full socket.
_QUEUE = 16


def memory_pair(
    features: Iterable[str] = FEATURES,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return the two ends of a connection in memory.

    Args:
        features: What the server is to have named in a handshake: what :class:`.Server` does.
    """
    # Re-entrant: a finaliser that runs anywhere in here may set a deadline.
    lock = threading.RLock()
    one, other = MemoryTransport(lock), MemoryTransport(lock)
    one.peer_features = other.peer_features = frozenset(features)
    one._peer, other._peer = other, one
    return one, other


class MemoryTransport(Transport, PolledTransport):
    """One end of a connection in memory. Made by :func:`memory_pair`."""

    def __init__(self, lock: threading.RLock) -> None:
        # One lock guards both ends, so that neither has to be asked while the other is held.
        self._changed = threading.Condition(lock)
        self._peer = self
        self._inbox: deque[bytes] = deque()
        self._receive_error: Exception | None = None  # after what is in the inbox
        self._send_error: TransportClosed | None = None
        self._deadline: float | None = None
        self._late = 0  # messages that were received past it
        # Of a loop that polls this, until that has ended: the two ends are a cycle, which must not
        # keep a descriptor.
        self._wakeup: Wakeup | None = None
        self._unsent: deque[bytes] = deque()  # by a loop, which waits for room

    def send(self, *parts: Buffer, timeout: float | None = None) -> None:
        message = b"".join(parts)
        peer = self._peer
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._send_error is not None or len(peer._inbox) < _QUEUE, timeout
            ):
                self._cut()
            if self._send_error is not None:
                raise copy_error(self._send_error)
            peer._put(message)

    def _put(self, message: bytes) -> None:
        """Give this end a message; requires holding the lock."""
        self._inbox.append(message)
        self._notify()

    def _notify(self) -> None:
        """Wake who receives or sends here; requires holding the lock."""
        self._changed.notify_all()
        if self._wakeup is not None:
            self._wakeup.set()

    def receive(self) -> bytes:
        with self._changed:
            while True:
                rest = None if self._deadline is None else self._deadline - time.monotonic()
                late = rest is not None and rest <= 0
                if self._inbox and not (late and self._late >= _QUEUE):
                    break
                if not self._inbox and self._receive_error is not None:
                    raise copy_error(self._receive_error)
                if late:
                    raise TimeoutError("no message in time")
                self._changed.wait(rest)
            self._late += late
            return self._take()

    def _take(self) -> bytes:
        """Return the next message; requires holding the lock, with one there."""
        message = self._inbox.popleft()
        self._peer._notify()
        if len(message) > MAX_MESSAGE:
            raise ProtocolError(f"a message of more than {MAX_MESSAGE} bytes", 1009)
        return message

    # For a loop

    @property
    def wakeup(self) -> Wakeup:
        with self._changed:
            if self._wakeup is None:
                self._wakeup = Wakeup()
            return self._wakeup

    def leave(self) -> None:
        with self._changed:
            self._wakeup = None

    def fileno(self) -> int:
        return -1

    def wanted(self) -> int:
        return 0

    def receive_now(self) -> bytes | None:
        with self._changed:
            if self._inbox:
                return self._take()
            if self._receive_error is not None:
                raise copy_error(self._receive_error)
        return None

    def has_more(self) -> bool:
        return bool(self._inbox) or self._receive_error is not None

    def send_now(self, *messages: Buffer) -> bool:
        self._unsent += map(bytes, messages)
        return self.flush_now()

    def stream_now(self, header: bytes, data: memoryview) -> bool:
        room = MAX_MESSAGE - len(header)
        for start in range(0, len(data), room):
            self._unsent.append(b"".join((header, data[start : start + room])))
        return self.flush_now()

    def flush_now(self) -> bool:
        with self._changed:
            if self._unsent and self._send_error is not None:
                raise copy_error(self._send_error)
            while self._unsent and len(self._peer._inbox) < _QUEUE:
                self._peer._put(self._unsent.popleft())
            return not self._unsent

    def tick(self) -> None:
        pass  # memory does not vanish

    # For threads

    def set_deadline(self, seconds: float | None) -> None:
        with self._changed:
            self._deadline = None if seconds is None else time.monotonic() + seconds
            self._late = 0
            self._notify()

    def close(self, code: int = 1000, reason: str = "") -> None:
        with self._changed:
            if self._receive_error is not None:
                return
            self._peer._end(TransportClosed(code, close_reason(reason)), drop=False)
            self._end(TransportClosed(code, close_reason(reason)), drop=True)

    def hung_up(self) -> bool:
        with self._changed:
            return self._receive_error is not None

    def abort(self) -> None:
        with self._changed:
            self._cut()

    def _cut(self) -> None:
        if self._receive_error is None:
            error = TransportClosed(1006, "the connection was cut")
            self._peer._end(error, drop=False)
            self._end(error, drop=True)

    def _end(self, error: TransportClosed, drop: bool) -> None:
        """End this side's sending and receiving; requires holding the lock."""
        if self._receive_error is None:
            self._receive_error = error
            self._send_error = error
            if drop:
                self._inbox.clear()
        self._notify()
