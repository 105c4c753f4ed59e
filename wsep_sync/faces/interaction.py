"""A person at our terminal who types at a command on another: :class:`Interaction`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..lazy import importing
from ..process import Process
from ..streams.wakeup import READ, Wakeup, wait_for
from ..threads import start_thread

__all__ = [
    "Filter",
    "Interaction",
    "write_all",
]

Filter: TypeAlias = "Callable[[bytes], bytes]"

# How much is read at once.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Interaction:
    """What is typed goes to the command and what it shows comes here, until one of them leaves.

    Args:
        process: The command.
        keyboard, screen: The descriptors of our terminal.
        receive: Takes a number of bytes and of seconds; returns at most so many bytes of output,
            none at its end, and ``None`` if there were none in time.
        log: Called with text, and ``"read"`` or ``"send"``.
        new_decoder: Returns what makes bytes into the text that is logged, one piece after the
            other.
    """

    process: Process
    keyboard: int
    screen: int
    receive: Callable[[int, float], bytes | None]
    log: Callable[[Any, str], None]
    new_decoder: Callable[[], Any]

    def run(
        self,
        unseen: Callable[[], bytes],
        decoder: Any,
        escape_character: str | None,
        input_filter: Filter | None,
        output_filter: Filter | None,
    ) -> None:
        """Block until it is over; as :meth:`.spawn.interact`.

        Args:
            unseen: Returns what is shown before all else.
            decoder: Of the output, whose last character may be split.
        """
        with importing:
            import termios
            import tty

        mode = termios.tcgetattr(self.keyboard)
        sys.stdout.flush()
        self._show(unseen())
        try:
            tty.setraw(self.keyboard)
            self._run(decoder, escape_character, input_filter, output_filter)
        finally:
            with contextlib.suppress(termios.error):  # it was hung up
                termios.tcsetattr(self.keyboard, termios.TCSAFLUSH, mode)

    def _show(self, data: bytes) -> None:
        write_all(lambda piece: os.write(self.screen, piece), data)

    def _run(
        self,
        decoder: Any,
        escape_character: str | None,
        input_filter: Filter | None,
        output_filter: Filter | None,
    ) -> None:
        ended = Wakeup()  # set when the output has
        left = threading.Event()  # set when the person has
        failures: list[BaseException] = []
        filtered = self.new_decoder()

        def show_output() -> None:
            try:
                while not left.is_set():
                    data = self.receive(_CHUNK, 0.1)
                    if data is None:
                        continue
                    if not data:
                        return
                    text = decoder.decode(data)
                    if output_filter is not None:
                        data = output_filter(data)
                        text = filtered.decode(data)
                    self.log(text, "read")
                    self._show(data)
            except BaseException as error:
                failures.append(error)
            finally:
                ended.set()

        def died(error: Exception) -> None:
            failures.append(error)
            ended.set()

        # Shows the output while this thread waits for the keyboard, so that a command that does
        # not read cannot keep what it shows from being seen. This thread ends it, below.
        output = start_thread(show_output, name=f"wsep-show-{self.process.pid}", died=died)
        try:
            try:
                self._send_keys(escape_character, input_filter, ended)
            finally:
                left.set()
                output.join()
            if failures:
                raise failures.pop()
        finally:
            failures.clear()  # whose traceback refers to all of this

    def _send_keys(
        self, escape_character: str | None, input_filter: Filter | None, ended: Wakeup
    ) -> None:
        decoder = self.new_decoder()
        escape = None if escape_character is None else escape_character.encode("latin-1")
        write = self.process.stdin.raw.write
        escaped = False
        while not escaped and wait_for(self.keyboard, READ, ended):
            data = os.read(self.keyboard, _CHUNK)
            if not data:
                return
            if input_filter is not None:
                data = input_filter(data)
            if escape is not None:
                data, found, _ = data.partition(escape)
                escaped = bool(found)
            self.log(decoder.decode(data), "send")
            try:
                write_all(write, data)
            except BrokenPipeError:  # the command has ended: the last of its output is on its way
                wait_for(ended.fileno(), READ, None)
                return


def write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) or 0 :]
