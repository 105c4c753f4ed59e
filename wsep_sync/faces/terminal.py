"""The terminal of a command, its size and its echo, in pexpect's words: :class:`Terminal`."""

from __future__ import annotations

import io
import time

from ..lazy import importing
from ..process import Process
from ..streams.descriptors import DescriptorWriter

__all__ = [
    "Terminal",
]


class Terminal:
    """What :class:`.spawn` can do with its terminal; it sets the attributes."""

    process: Process
    timeout: float | None
    echo: bool
    _size: tuple[int, int]

    def setwinsize(self, rows: int, cols: int) -> None:
        """Give the terminal a new size, of which SIGWINCH tells the command."""
        self.process.resize(rows, cols)
        self._size = (rows, cols)

    def getwinsize(self) -> tuple[int, int]:
        """Return the size that the terminal was given last, as (rows, columns)."""
        return self._size

    def getecho(self) -> bool:
        """Return whether the terminal of a local command echoes.

        Raises:
            io.UnsupportedOperation: The terminal is on another machine.
        """
        with importing:
            import termios  # not on Windows

        return bool(termios.tcgetattr(self._terminal())[3] & termios.ECHO)

    def setecho(self, state: bool) -> None:
        """Turn the echo of a local command's terminal on or off.

        Raises:
            io.UnsupportedOperation: The terminal is on another machine: ``echo=False`` turns it
                off from the start, and the command ``stty`` at any time.
        """
        with importing:
            import termios

        terminal = self._terminal()
        attributes = termios.tcgetattr(terminal)
        if state:
            attributes[3] |= termios.ECHO
        else:
            attributes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        self.echo = state

    def waitnoecho(self, timeout: float | None = -1) -> bool:
        """Wait until a local command has turned the echo off, as for a password.

        Args:
            timeout: Seconds; -1 is ``self.timeout``, ``None`` is for ever.

        Returns:
            False if it has not in time.

        Raises:
            io.UnsupportedOperation: The terminal is on another machine.
        """
        if timeout == -1:
            timeout = self.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.getecho():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.02)  # nobody tells
        return True

    def _terminal(self) -> int:
        raw = self.process.stdin.raw
        if isinstance(raw, DescriptorWriter):
            return raw.fileno()
        raise io.UnsupportedOperation(
            "the echo of a terminal on another machine can be neither seen nor set; "
            "spawn(..., echo=False) turns it off from the start"
        )
