"""The terminal of a command, its size and its echo, in pexpect's words: :class:`Terminal`."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..process import Process

__all__ = [
    "Terminal",
]


class Terminal:
    """What :class:`.spawn` can do with its terminal; it sets the attributes."""

    process: Process
    timeout: float | None
    echo: bool
    _size: tuple[int, int]
    isalive: Callable[[], bool]

    def setwinsize(self, rows: int, cols: int) -> None:
        """Give the terminal a new size, of which SIGWINCH tells the command."""
        self.process.resize(rows, cols)
        self._size = (rows, cols)

    def getwinsize(self) -> tuple[int, int]:
        """Return the size that the terminal was given last, as (rows, columns)."""
        return self._size

    def getecho(self) -> bool:
        """Return whether the terminal shows what is typed.

        Raises:
            io.UnsupportedOperation: The server has no way to tell (the reference has none), nor has
                SSH.
            BrokenPipeError: The command has ended, or the connection.
        """
        return self.process.echo()

    def setecho(self, state: bool) -> None:
        """Let the terminal show what is typed, or let it not.

        Raises:
            io.UnsupportedOperation: As of :meth:`getecho`: ``echo=False`` turns it off from the
                start, and the command ``stty`` at any time.
            BrokenPipeError: As of :meth:`getecho`.
        """
        self.process.echo(bool(state))  # scripts say 0 and 1
        self.echo = state

    def waitnoecho(self, timeout: float | None = -1) -> bool:
        """Wait until the command has turned the echo off, as for a password.

        Args:
            timeout: Seconds; -1 is ``self.timeout``, ``None`` is for ever.

        Returns:
            False if it has not in time, or has ended.

        Raises:
            io.UnsupportedOperation: As of :meth:`getecho`.
        """
        if timeout == -1:
            timeout = self.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while self.getecho():
                if not self.isalive() or (deadline is not None and time.monotonic() >= deadline):
                    return False
                time.sleep(0.02)  # nobody tells
        except BrokenPipeError:
            return False
        return True
