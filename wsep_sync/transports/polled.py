"""Transports that block in nothing, for a loop that polls: :class:`PolledTransport`.

Those over sockets and in memory are such. Any other gets two threads that block in its place:
:func:`polled`.
"""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from ..errors import ProtocolError, TransportClosed, WsepError, copy_error
from ..streams.wakeup import Wakeup
from ..threads import start_thread
from .base import Buffer, Transport

__all__ = ["PolledTransport", "polled"]

# How many messages may wait for the loop, of those that a thread has received.
_QUEUE = 16


class PolledTransport(ABC):
    """A transport that says what to wait for, and then does what it can without waiting.

    One thread, the loop's, calls these; but ``wakeup`` may be set from any.

    Attributes:
        polls: False if this one cannot do it after all.
    """

    polls = True

    @property
    @abstractmethod
    def wakeup(self) -> Wakeup:
        """Set when there is something that polling the descriptor does not tell.

        The loop polls it too, and clears it before it looks.
        """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll, for input and for :meth:`wanted`; -1 if there is none."""

    @abstractmethod
    def wanted(self) -> int:
        """Return what to poll it for besides input: ``WRITE``, or 0."""

    @abstractmethod
    def receive_now(self) -> Buffer | None:
        """Return the next message if all of it is here; as :meth:`.Transport.receive` in all else.

        It does a bounded amount of work, whatever the peer sends: ``None`` may mean that there is
        more to look at, which :meth:`has_more` tells.
        """

    @abstractmethod
    def has_more(self) -> bool:
        """Whether :meth:`receive_now` may have something without the descriptor being readable."""

    @abstractmethod
    def send_now(self, *messages: Buffer) -> bool:
        """Send these as far as they go; keep the rest, which must not change meanwhile.

        Returns:
            Whether all of it has gone. If not, :meth:`flush_now` goes on with it.

        Raises:
            TransportClosed: As of :meth:`.Transport.send`.
        """

    @abstractmethod
    def stream_now(self, header: bytes, data: memoryview) -> bool:
        """The same for bytes as messages, as :meth:`.Transport.send_stream` has them."""

    @abstractmethod
    def flush_now(self) -> bool:
        """Send on what was kept; return whether nothing is any more. Raises the same."""

    def unsent(self) -> int:
        """Return how many bytes the peer's machine has not acknowledged, as far as is known."""
        return 0

    @abstractmethod
    def hung_up(self) -> bool:
        """As :meth:`.Transport.hung_up`."""

    @abstractmethod
    def tick(self) -> None:
        """Send a ping if it is time, and look whether the peer is gone: every few seconds.

        Raises:
            TransportClosed: It is gone.
        """

    def leave(self) -> None:  # noqa: B027 - there may be nothing to do
        """The loop has ended: nothing here is called any more."""


def polled(transport: Transport) -> PolledTransport:
    """Return a transport as a loop needs it: itself, or one whose threads block in its place.

    Raises:
        ProtocolError: No more threads can be had.
    """
    if isinstance(transport, PolledTransport) and transport.polls:
        return transport
    try:
        return _Threaded(transport)
    except RuntimeError as error:  # to the kernel threads are processes, of which it has enough
        raise ProtocolError(f"serve: {error}") from error


class _Threaded(PolledTransport):
    """A transport that can only block, with a thread that receives and one that sends.

    Both end with the connection, which its owner closes once the loop has ended.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._wakeup = Wakeup()
        # Guards what follows, and is waited on by the two threads.
        self._changed = threading.Condition()
        self._received: deque[Buffer] = deque()
        self._unsent: deque[Callable[[], None]] = deque()
        self._error: WsepError | None = None  # after what was received
        self._left = False
        self._sends = False  # there is a thread for it
        start_thread(self._receive_all, name="wsep-transport-in", died=self._died)

    @property
    def wakeup(self) -> Wakeup:
        return self._wakeup

    def fileno(self) -> int:
        return -1

    def wanted(self) -> int:
        return 0

    def _died(self, error: Exception) -> None:
        self._end(TransportClosed(1006, f"internal error: {type(error).__name__}"))
        self._transport.abort()

    def _end(self, error: WsepError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
        self.wakeup.set()

    def _receive_all(self) -> None:
        while True:
            try:
                message = self._transport.receive()
            except TimeoutError:  # of a deadline that somebody has left
                self._transport.set_deadline(None)
                continue
            except (TransportClosed, ProtocolError) as error:
                self._end(copy_error(error))
                return
            with self._changed:
                while len(self._received) >= _QUEUE and not self._left:
                    self._changed.wait()
                if not self._left:
                    self._received.append(message)
            self.wakeup.set()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                while not (self._unsent or self._left):
                    self._changed.wait()
                if not self._unsent:
                    return
                send = self._unsent[0]
            try:
                send()
            except TransportClosed as error:
                self._end(copy_error(error))
                return
            with self._changed:
                self._unsent.popleft()
            self.wakeup.set()

    def receive_now(self) -> Buffer | None:
        with self._changed:
            if self._received:
                message = self._received.popleft()
                self._changed.notify_all()
                return message
            if self._error is not None:
                raise copy_error(self._error)
        return None

    def has_more(self) -> bool:
        return bool(self._received) or self._error is not None

    def _queue(self, send: Callable[[], None]) -> bool:
        with self._changed:
            if isinstance(self._error, TransportClosed):
                raise copy_error(self._error)
            self._unsent.append(send)
            self._changed.notify_all()
            start, self._sends = not self._sends, True
        if start:
            try:
                start_thread(self._send_all, name="wsep-transport-out", died=self._died)
            except RuntimeError as error:  # no more can be had
                self._died(error)
                raise TransportClosed(1006, str(error)) from error
        return False

    def send_now(self, *messages: Buffer) -> bool:
        for message in messages:
            self._queue(functools.partial(self._transport.send, message))
        return self.flush_now()

    def stream_now(self, header: bytes, data: memoryview) -> bool:
        return self._queue(functools.partial(self._transport.send_stream, header, data))

    def flush_now(self) -> bool:
        with self._changed:
            if self._unsent and isinstance(self._error, TransportClosed):
                raise copy_error(self._error)
            return not self._unsent

    def hung_up(self) -> bool:
        return self._transport.hung_up()

    def tick(self) -> None:
        pass  # who receives does it

    def leave(self) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
