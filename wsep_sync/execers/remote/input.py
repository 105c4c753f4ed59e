"""The input of a remote command: :class:`RemoteInput`."""

from __future__ import annotations

import contextlib
import errno
import threading

from ... import streams
from ...errors import TransportClosed
from ...protocol.messages import MAX_BODY, STDIN_HEADER, CloseStdin
from ...streams.sent_input import SentInput
from ...transports.base import Transport

__all__ = [
    "RemoteInput",
]


# How much input may be on the way to a server that tells how much the command was given.
_STDIN_WINDOW = 1 << 20


class RemoteInput(SentInput):
    """The raw, writable end of a remote command's input.

    It does not refer to its process, so that no cycle keeps a connection's descriptors until the
    garbage collector comes by.

    Args:
        credit: The server tells how much of it the command was given; see :class:`.StdinTaken`.
    """

    _most = MAX_BODY
    _ended = ""  # why nothing more is wanted, once nothing is

    def __init__(self, transport: Transport, credit: bool) -> None:
        self._transport = transport
        self._credit = credit
        # Guards _ended, and how many bytes were sent and have been given to the command.
        self._changed = threading.Condition()
        self._sent = self._taken = 0

    def _send(self, piece: memoryview) -> None:
        with self._changed:
            while self._credit and self._sent - self._taken >= _STDIN_WINDOW and not self._ended:
                streams.wait_a_while(self._changed)
            if self._ended:
                raise BrokenPipeError(errno.EPIPE, self._ended)
            self._sent += len(piece)
        try:
            self._transport.send(STDIN_HEADER, piece)
        except TransportClosed as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from error

    def taken(self, position: int) -> None:
        """The command has been given the input up to there."""
        with self._changed:
            self._taken = max(self._taken, min(position, self._sent))
            self._changed.notify_all()

    def is_broken(self) -> bool:
        """Whether the command is known to have closed its input, or to have ended."""
        return bool(self._ended)

    def _is_over(self) -> bool:
        return bool(self._ended)

    def end(self, reason: str) -> None:
        """Nothing is wanted any more: wake who writes, with ``BrokenPipeError`` and the reason."""
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()
        self._end_thread()

    def _thread_died(self, error: Exception) -> None:
        self.end(f"internal error: {type(error).__name__}")

    def leave_to_parent(self) -> None:
        """End this, in a process that was forked: the lock may be held by a thread left behind."""
        self._changed = threading.Condition()
        self.end("the command is that of the parent process")

    def send_eof(self) -> None:
        """Tell the command that its input has ended; a terminal sends its character for that."""
        if not self._ended:
            with contextlib.suppress(TransportClosed):
                self._transport.send(CloseStdin().encode())
