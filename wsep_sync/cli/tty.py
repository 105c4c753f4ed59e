"""``wsep-sync tty``: a command on a terminal, shown on this one."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import (
    ConnectError,
    ExitMissing,
    SessionNotFound,
    StartError,
    TransportClosed,
    WsepError,
    copy_error,
)
from ..streams.wakeup import WRITE, wait_for
from ..threads import start_thread
from .client import Target, client_command, exit_status, target
from .console import NO_CONNECTION, PIECE, one_line, read, write
from .signals import Ended, Signals

if TYPE_CHECKING:
    from ..process import Process
    from ..protocol.command import Command

__all__ = ["tty"]

# Sent when a terminal is left while its program runs on, so that what the program has set does
# not stay. ECMA-48, DEC's VT510 manual, xterm's ctlseqs, kitty's keyboard protocol.
_RESET_MODES = (
    b"\x1b[<99u\x1b[>4m"  # the keyboard's ways
    # Not all in one: a sequence that is too long is dropped as a whole. tmux takes 63 bytes of
    # parameters, and others take 16 parameters.
    b"\x1b[?1;5;9;45;66;69l\x1b[?1000;1001;1002;1003l"
    b"\x1b[?1004;1005;1006;1007l\x1b[?1015;1016l"
    b"\x1b[?2004;2026;2031;2048l\x1b[?7;25h\x1b[4;20l\x1b>"
    b"\x1b7\x1b[r\x1b8"  # no margins, which moves the cursor
    b"\x1b[0 q\x1b]8;;\x1b\\\x1b[m\x1b(B\x1b)B\x0f"
)

# Sets or resets few private modes: those of the alternate screen, and of margins that are the
# origin (DECOM), are remembered.
_SWITCH = re.compile(rb"\x1b\[\?(\d{1,5}(?:;\d{1,5}){0,4})([hl])")
_ALT, _ORIGIN = {b"47", b"1047", b"1049"}, b"6"
_LONGEST_SWITCH = 32  # in bytes: whoever sets modes in one sequence sets some few

# Pauses between attempts to connect again, in seconds; the last one is repeated.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

# Answers by which a proxy, or a server that is being started, says: later. Any other is a refusal.
_LATER = (408, 425, 429, 500, 502, 503, 504)

# Likewise close codes (RFC 6455, section 7.4.1, and IANA's registry): going away, none, lost,
# restart, try again later, bad gateway.
_LOST = (1001, 1005, 1006, 1012, 1013, 1014)

# What stands before and behind what is pasted, where a program has asked for it (xterm's ctlseqs,
# bracketed paste). After so many seconds of silence a paste is over that has no end.
_PASTE_START, _PASTE_END = b"\x1b[200~", b"\x1b[201~"
_PASTE_SILENCE = 2.0

_CTRL_Z = b"\x1a"

_ESCAPE_HELP = (
    b"\r\nSupported escape sequences, at the start of a line:\r\n"
    b" ~.   leave; a session goes on and can be attached again by its id\r\n"
    b" ~^Z  suspend wsep-sync\r\n"
    b" ~?   this help\r\n"
    b" ~~   send one tilde\r\n"
)


def tty(arguments: argparse.Namespace, signals: Signals) -> int:
    """Show a command on a terminal; return its exit status."""
    rows, cols = _terminal_size(arguments)
    command = client_command(
        arguments, _terminal_variables(), id=arguments.id, tty=True, rows=rows, cols=cols
    )
    with target(arguments) as server:
        return _TerminalClient(arguments, server, command).run(signals)


def _terminal_size(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return the rows and columns to have: those that are given, or this terminal's."""
    rows, cols = _own_size()
    return arguments.rows or rows, arguments.cols or cols


def _own_size() -> tuple[int, int]:
    """Return the rows and columns of this terminal."""
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.lines and size.columns:
                return size.lines, size.columns
    return 24, 80


def _terminal_variables() -> list[str]:
    """Return what programs have to know of this terminal and of who sits at it.

    It is what ssh sends where ``SendEnv`` is as most systems have it, and how many colours.
    """
    return [
        f"{name}={value}"
        for name, value in os.environ.items()
        if value and (name in ("TERM", "COLORTERM", "LANG") or name.startswith("LC_"))
    ]


class _TerminalClient:
    """Shows a remote terminal on this one, and connects again when a session's connection drops.

    One thread shows, one reads the keyboard, and one passes on the size of this terminal.
    """

    def __init__(self, arguments: argparse.Namespace, server: Target, command: Command) -> None:
        self._arguments = arguments
        self._server = server
        self._command = command
        self._escapes = _Escapes(arguments.escape if os.isatty(0) else b"")
        # What is shown; replaced by the thread that shows, used by the others. None while there
        # is no connection.
        self._process: Process | None = None
        self._leave = threading.Event()  # by ~.
        self._failure: Exception | None = None  # of another of our threads, which ends all
        self._in_alt = False  # the alternate screen is shown
        self._in_origin = False  # the cursor's positions count from the margins
        self._screen = threading.Lock()  # held while something is shown; guards _over
        self._over = False  # nothing more is to be shown
        self._resized = threading.Event()  # this terminal; or it is over

    def run(self, signals: Signals) -> int:
        self._process = signals.wait_for_call(self._start)
        try:
            with _RawTerminal() as terminal:
                # Daemons: the one may be stuck in sending when this command ends, the other is
                # reading from the terminal.
                start_thread(self._resize, name="wsep-resize", died=self._end_with)
                signals.handle(signal.SIGWINCH, self._resized.set)
                signals.handle(signal.SIGTSTP, lambda: self._suspend(signals, terminal))
                self._resized.set()  # perhaps it was, before
                start_thread(self._type, name="wsep-keyboard", died=self._end_with)
                try:
                    return signals.wait_for_call(self._show)
                except BaseException as error:
                    # Not for long: it may be stuck with a terminal that takes nothing.
                    locked = self._screen.acquire(timeout=1.0)
                    self._over = True
                    if locked:
                        self._screen.release()
                    self._leave_modes()
                    if locked and isinstance(error, Ended) and self._leave.is_set():
                        return self._say_left()
                    raise
        finally:
            self._over = True
            self._resized.set()
            if self._process is not None:
                self._process.close()

    def _end_with(self, error: Exception) -> None:
        self._failure = error
        process = self._process
        if process is not None:
            process.close()

    def _start(self) -> Process:
        return self._server.start(self._command)

    def _show(self) -> int:
        while True:
            assert self._process is not None
            try:
                self._copy(self._process)
                if not (self._leave.is_set() or self._failure):
                    return exit_status(self._process)
            except ExitMissing as error:
                lost = copy_error(error)  # without a traceback, which refers to this frame
            if self._failure is not None:
                self._leave_modes()
                raise copy_error(self._failure)
            if self._leave.is_set():
                self._leave_modes()
                return self._say_left()
            if not self._command.id or self._arguments.no_reconnect:
                raise copy_error(lost)
            self._leave_modes()
            process, self._process = self._process, None
            self._escapes.start_line()
            process.close()
            if not _can_attach(process):
                # As the reference. It would start the command once more if it has ended.
                raise ExitMissing(
                    f"{lost}; whether session {self._command.id} goes on is not known: this server "
                    "cannot attach without starting"
                )
            self._process = self._connect_again(lost)
            self._resized.set()  # perhaps, meanwhile

    def _say_left(self) -> int:
        """Say what became of what was left; return the exit status for it."""
        if self._command.id:
            self._say(f"left session {one_line(self._command.id)}")
            return 0
        self._say("the connection was closed, which ends the command")
        return NO_CONNECTION

    def _copy(self, process: Process) -> None:
        raw = process.stdout.raw
        buffer = memoryview(bytearray(PIECE))
        tail = b""
        while count := raw.readinto(buffer):
            self._put(1, buffer[:count])
            shown = tail + buffer[:count]
            for switch in _SWITCH.finditer(shown):
                modes, on = switch[1].split(b";"), switch[2] == b"h"
                if not _ALT.isdisjoint(modes):
                    self._in_alt = on
                if _ORIGIN in modes:
                    self._in_origin = on
            tail = shown[-_LONGEST_SWITCH:]

    def _put(self, descriptor: int, data: memoryview | bytes) -> None:
        with self._screen:
            if not self._over:
                write(descriptor, memoryview(data))

    def _connect_again(self, lost: ExitMissing) -> Process:
        """Try until there is a connection, or a refusal; Ctrl-C ends it, and so does to leave."""
        attempt = 0
        reason = ""
        while True:
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            attempt += 1
            text = f"connection lost, attempt {attempt} in {pause:g} s (Ctrl-C ends){reason}"
            # One row, of which nothing is left then.
            line = f"[wsep-sync: {text}]"[: _own_size()[1] - 1]
            self._put(2, f"\r\x1b[K{line}".encode())
            time.sleep(pause)
            try:
                # Not a start: the session may have ended meanwhile, and no command runs twice.
                # At the size of now: what is shown is drawn for it.
                rows, cols = _terminal_size(self._arguments)
                process = self._server.attach(replace(self._command, rows=rows, cols=cols))
            except SessionNotFound as error:
                self._put(2, b"\r\x1b[K")
                raise ExitMissing(
                    f"session {self._command.id} is gone, and how its command ended is not known"
                ) from error
            except (ConnectError, TransportClosed, StartError) as error:
                if not _may_pass(error):
                    self._put(2, b"\r\x1b[K")
                    raise ExitMissing(f"{lost}; then: {error}") from error
                if isinstance(error, ConnectError) and error.status is not None:
                    reason = f": HTTP {error.status}"
                continue
            self._put(2, b"\r\x1b[K")
            self._escapes.start_line()
            return process

    def _type(self) -> None:
        last = b""
        with contextlib.suppress(OSError):  # the terminal has gone
            while data := read(0):
                last = data[-1:]
                process = self._process
                typed, leave = self._escapes.feed(data)
                if leave:
                    self._leave.set()
                if process is None:
                    # There is nobody to type to, but an interrupt is for us.
                    if leave or b"\x03" in data:
                        os.kill(os.getpid(), signal.SIGINT)
                    continue
                with contextlib.suppress(OSError, ValueError):
                    process.stdin.raw.write(typed)
                if leave:
                    process.close()
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError, ValueError):
                if last not in b"\r\n":
                    # In the midst of a line, the end-of-file character only sends the line off
                    # (POSIX, canonical mode), so it takes two.
                    process.stdin.raw.write(b"\x04")
                process.stdin.close()

    def _resize(self) -> None:
        while self._resized.wait() and not self._over:
            self._resized.clear()
            process = self._process
            if process is not None:
                process.resize(*_terminal_size(self._arguments))

    def _suspend(self, signals: Signals, terminal: _RawTerminal) -> None:
        """Stop this command, as the shell's Ctrl-Z would, until the shell continues it."""
        # What the program has set stays, as with ssh: it won't set it again.
        terminal.leave()
        signals.stop()
        terminal.enter()
        self._resized.set()  # perhaps, meanwhile

    def _leave_modes(self) -> None:
        """Undo what a program that was left has set on this terminal."""
        # Not if the terminal takes nothing: it must not keep us from ending.
        if os.isatty(1) and wait_for(1, WRITE, None, 1.0):
            # Out of any sequence, first.
            left = b"\x18\x1b\\" + (b"\x1b[<99u\x1b[?1049l" if self._in_alt else b"") + _RESET_MODES
            if self._in_origin:
                # It moves the cursor to the top, even if nothing changes, and the saved cursor
                # would bring the mode back: so it goes to the bottom, below what is shown.
                left += b"\x1b[?6l\x1b[999H"
            self._in_alt = self._in_origin = False
            with contextlib.suppress(OSError):
                write(1, memoryview(left + b"\r\n"))

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody else writes any more
            write(2, memoryview(f"[wsep-sync: {text}]\r\n".encode()))


def _can_attach(process: Process) -> bool:
    from ..protocol.messages import FEATURE_ATTACH

    return FEATURE_ATTACH in getattr(process, "features", ())


def _may_pass(error: WsepError) -> bool:
    """Whether it is the connection that failed, and not a server that has refused."""
    if isinstance(error, ConnectError):
        return error.status is None or error.status in _LATER
    if isinstance(error, TransportClosed):
        return error.code in _LOST
    return isinstance(error.__cause__, TimeoutError)


class _Escapes:
    """Finds ssh's escape sequences in what is typed, but not in what is pasted.

    Args:
        character: The escape character, or b"" for none.
        clock: Says what time it is, in seconds.
    """

    def __init__(self, character: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._character = character
        self._clock = clock
        self._last = 0.0  # when something was typed, by the clock
        self._pasting = False  # between the two marks
        self._recent = b""  # the last bytes, in which a mark may have begun
        self._at_start = True  # of a line
        self._pending = False  # the character was typed there, and what follows decides

    def start_line(self) -> None:
        """What is typed next is at the start of a line."""
        self._at_start, self._pending = True, False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to send of what was typed, and whether the user wants to leave."""
        if not self._character:
            return data, False
        typed = bytearray()
        last, self._last = self._last, self._clock()
        # A terminal sends a paste in one go. One whose end is lost must not last for ever.
        if self._pasting and self._last - last > _PASTE_SILENCE:
            self._pasting = False
        while data:
            count = self._pass_paste(data, typed) if self._pasting else 0
            data = data[count:]
            leave, count = self._pass_keys(data, typed)
            if leave:
                return bytes(typed), True
            data = data[count:]
        return bytes(typed), False

    def _pass_paste(self, data: bytes, typed: bytearray) -> int:
        """Pass on what is pasted, up to its end; return how much that is."""
        seen = self._recent + data
        end = seen.find(_PASTE_END)
        self._pasting = end < 0
        count = len(data) if end < 0 else end + len(_PASTE_END) - len(self._recent)
        typed += data[:count]
        self._recent = seen[1 - len(_PASTE_END) :] if end < 0 else b""
        self._at_start = data[count - 1 : count] in (b"\r", b"\n")
        return count

    def _pass_keys(self, data: bytes, typed: bytearray) -> tuple[bool, int]:
        """Act on keys up to a paste; return whether one leaves, and how many there were."""
        for count, code in enumerate(data, 1):
            key = bytes((code,))
            if self._pending:
                self._pending = False
                if key == b".":
                    return True, count
                if key == b"?":
                    write(2, memoryview(_ESCAPE_HELP.replace(b"~", self._character)))
                    continue
                if key == _CTRL_Z:
                    os.kill(os.getpid(), signal.SIGTSTP)
                    continue
                if key != self._character:
                    typed += self._character
            elif self._at_start and key == self._character:
                self._pending = True
                continue
            typed += key
            self._at_start = key in b"\r\n"
            self._recent = (self._recent + key)[-len(_PASTE_START) :]
            if self._recent == _PASTE_START:
                self._pasting, self._recent = True, b""
                return False, count
        return False, len(data)


class _RawTerminal:
    """Puts the terminal into raw mode, and back whatever happens; if stdin is a terminal."""

    def __enter__(self) -> _RawTerminal:
        import termios

        self._former = termios.tcgetattr(0) if os.isatty(0) else None
        try:
            self.enter()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self) -> None:
        import termios
        from tty import setraw

        if self._former is not None:
            setraw(0, termios.TCSADRAIN)

    def leave(self) -> None:
        import termios

        if self._former is not None:
            with contextlib.suppress(termios.error):  # the terminal has gone
                # Not TCSADRAIN, which waits for a terminal that may have stopped its output.
                termios.tcsetattr(0, termios.TCSANOW, self._former)
