"""What a script types at a command: :class:`Keyboard`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..process import Process
from ..streams.bounded_pipe import wait_a_while
from ..threads import start_thread
from .interaction import write_all

__all__ = [
    "Keyboard",
]


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
