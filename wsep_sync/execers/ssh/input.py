"""The input of a command on an SSH host: :class:`SSHInput`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import Any

from ...streams.sent_input import SentInput
from .library import PIECE, lost, send_all
from .status import Status

__all__ = [
    "SSHInput",
]


class SSHInput(SentInput):
    """The raw, writable end of the input of a command on an SSH host.

    Args:
        end_of_file: Of a terminal, returns the character that ends its input.
    """

    _most = PIECE

    def __init__(
        self, channel: Any, status: Status, end_of_file: Callable[[], bytes] | None
    ) -> None:
        self._channel = channel
        self._status = status
        self._end_of_file = end_of_file

    def _send(self, piece: memoryview) -> None:
        # Looked at each time: sshd takes, and drops, what comes for a command that has ended.
        if self._is_over():
            raise BrokenPipeError(errno.EPIPE, "the command has ended")
        try:
            send_all(self._channel, piece)
        except lost() as error:
            raise BrokenPipeError(errno.EPIPE, "the command has ended") from error

    def send_eof(self) -> None:
        """Tell the command that its input has ended; a terminal is sent its character for that."""
        if self._is_over():
            return
        with contextlib.suppress(*lost()):
            if self._end_of_file is not None:
                self._send(memoryview(self._end_of_file()))
            else:
                self._channel.shutdown_write()

    def _is_over(self) -> bool:
        return self._status.known.is_set()

    def end(self) -> None:
        """The command has ended, and its outputs: let the thread of :meth:`fileno` end."""
        self._end_thread()
