"""What a script types at a command: :class:`Typing`, by a :class:`Keyboard`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ..process import Process
from ..streams.bounded_pipe import wait_a_while
from ..threads import start_thread
from .interaction import write_all

__all__ = [
    "Keyboard",
    "Typing",
]

Text: TypeAlias = "str | bytes"

# The characters that a new terminal has for them (POSIX leaves it open; every system has these).
_INTERRUPT = b"\x03"
_END_OF_FILE = b"\x04"


class Keyboard:
    """Writes to a process, which may want to be read from before it reads on."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # Set once all that was typed is written. (Not Thread.join, after which a thread that a
        # Ctrl-C ran past counts as ended in Python 3.10 to 3.12, though it runs.)
        self._written = threading.Event()
        self._written.set()

    def write(self, data: bytes, keep_output: Callable[[float], bool]) -> None:
        """Block until all is written.

        Args:
            data: What is typed.
            keep_output: Reads once what the command puts out, within so many seconds, and returns
                False when all is read.

        Raises:
            OSError, ValueError: It could not be.
        """
        self._wait(keep_output)  # what an interrupted call left
        self._written = written = threading.Event()
        raw = self._process.stdin.raw
        failures: list[Exception] = []

        def write() -> None:
            try:
                write_all(raw.write, data)
            except (OSError, ValueError) as error:
                # Without the traceback, which refers to all of this: who waits may be interrupted,
                # and then nobody takes it out again.
                failures.append(error.with_traceback(None))
            written.set()

        def died(error: Exception) -> None:
            failures.append(error)
            written.set()

        # Blocks where the command does not read, while this thread reads what it puts out. It
        # ends when all is written, or when the command ends or is closed. A daemon, so that a
        # script that was interrupted can end.
        try:
            start_thread(write, name=f"wsep-send-{self._process.pid}", died=died)
        except RuntimeError:  # there are too many
            written.set()
            raise
        self._wait(keep_output)
        if failures:
            raise failures.pop()

    def _wait(self, keep_output: Callable[[float], bool]) -> None:
        written = self._written
        reading = not written.wait(0.01)  # nearly always long enough: then nothing is read
        while not written.is_set():
            if reading:
                reading = keep_output(0.01)
            else:
                wait_a_while(written)

    def released(self, timeout: float) -> bool:
        """Block until nothing is being written; False if the timeout passed."""
        return self._written.wait(timeout)


class Typing:
    """What :class:`.spawn` sends; it sets the attributes, some of which are pexpect's."""

    closed: bool
    encoding: str | None
    linesep: Any
    delaybeforesend: float | None
    _keyboard: Keyboard
    _encoder: Any
    _keep_output: Callable[[float], bool]
    _log: Callable[[Any, str], None]
    _coerce_send_string: Callable[[Text], Any]

    def send(self, s: Text) -> int:
        """Type a string, all of it, and return how many bytes that were.

        Blocks while the command does not read, after the pause that ``delaybeforesend`` is. What
        it puts out meanwhile is read and kept for ``expect``, so that a command that answers
        before it reads on is not stuck. Ctrl-C ends the waiting; the rest is then typed while the
        script goes on.

        A terminal in its ordinary (canonical) mode takes lines of 4095 bytes at most on Linux,
        and drops what is longer.

        Raises:
            BrokenPipeError: The command has ended, or the connection.
            ValueError: It is closed.
        """
        if self.delaybeforesend is not None:
            time.sleep(self.delaybeforesend)
        s = self._coerce_send_string(s)
        self._log(s, "send")
        return self._write(self._encoder.encode(s, final=False))

    def _write(self, data: bytes) -> int:
        if self.closed:
            raise ValueError("write to closed file")
        self._keyboard.write(data, self._keep_output)
        return len(data)

    def sendline(self, s: Text = "") -> int:
        """Type a string and a newline; return how many bytes were sent."""
        return self.send(self._coerce_send_string(s) + self.linesep)

    def write(self, s: Text) -> None:
        """Type a string, as :meth:`send`."""
        self.send(s)

    def writelines(self, sequence: Iterable[Text]) -> None:
        """Type the strings one after the other, with nothing in between."""
        for s in sequence:
            self.write(s)

    def sendcontrol(self, char: str) -> int:
        """Type a control character: ``"c"`` for Ctrl-C, ``"["`` for Escape, ``"?"`` for Delete.

        Returns:
            How many bytes were sent: 0 if there is no such control character, as in pexpect.
        """
        code = ord(char)
        # ECMA-48 and ECMA-6: the columns of letters, folded onto the column of controls.
        if not (0x40 <= code < 0x7F or char == "?"):
            return 0
        return self._send_control(bytes([0x7F if char == "?" else code & 0x1F]))

    def sendintr(self) -> None:
        """Type the interrupt character, Ctrl-C."""
        self._send_control(_INTERRUPT)

    def sendeof(self) -> None:
        """Type the end-of-file character, Ctrl-D: the end of the input, at the start of a line."""
        self._send_control(_END_OF_FILE)

    def _send_control(self, character: bytes) -> int:
        self._log(character if self.encoding is None else character.decode("ascii"), "send")
        return self._write(character)
