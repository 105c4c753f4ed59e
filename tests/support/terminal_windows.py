"""A terminal with a program on it, `wsep-sync` most of all, typed at by pexpect."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Sequence

import pexpect
from helpers import SECONDS, eventually
from pexpect.fdpexpect import fdspawn
from programs import WSEP_SYNC, environment
from terminal_judges import Shown, shown_by_pyte

ROWS, COLUMNS = 24, 80
BASH = ["env", "PS1=$ ", "bash", "--noprofile", "--norc"]
# Shows the bytes that it gets as they come.
ECHO = ["sh", "-c", "stty -icanon -echo; echo ready; exec cat"]


def text(shown: Shown) -> list[str]:
    """The rows of a screen, without the blanks at their ends."""
    return ["".join(cell[0] for cell in row).rstrip() for row in shown.cells]


class Outer(fdspawn):  # type: ignore[misc]
    """A terminal with the program on it; `wsep-sync`, if it is not another.

    The program leads a session of its own on it, as it does in a terminal's window. pexpect's own
    `spawn` forks, which Python warns of in a process with threads.
    """

    def __init__(
        self, *arguments: str, program: Sequence[str] = WSEP_SYNC, **variables: str
    ) -> None:
        master, self.slave = pty.openpty()
        self.output = io.BytesIO()
        super().__init__(master, timeout=SECONDS, use_poll=True)
        self.logfile_read = self.output
        self.set_size(ROWS, COLUMNS)
        self.modes = self.termios()
        self.process = subprocess.Popen(
            ["setsid", "-c", *program, *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment(TERM="xterm-256color", **variables),
        )

    def termios(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.child_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, key: str) -> None:
        """Type a key with Ctrl held."""
        self.send(bytes([ord(key.upper()) & 0x1F]))

    def read_now(self) -> None:
        """Read what is there, or comes soon."""
        with contextlib.suppress(pexpect.TIMEOUT):
            # Into pexpect's buffer: what is waited for may come in pieces.
            self.expect(r"(?!)", timeout=0.02)

    def shown(self) -> Shown:
        return shown_by_pyte(self.output.getvalue(), ROWS, COLUMNS)

    def wait_until_shown(self, condition: Callable[[list[str]], bool], what: str) -> Shown:
        def condition_met() -> Shown | None:
            self.read_now()
            shown = self.shown()
            return shown if condition(text(shown)) else None

        shown = eventually(condition_met, what)
        assert shown is not None
        return shown

    def end(self) -> int:
        """Wait for the end of the program, and look whether the terminal is as it was."""

        def ended() -> bool:
            self.read_now()
            return self.process.poll() is not None

        eventually(ended, "the end of the program")
        self.read_now()
        assert self.termios() == self.modes
        return self.process.returncode

    def __enter__(self) -> Outer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        self.close()


@contextlib.contextmanager
def bash(*options: str, **variables: str) -> Iterator[Outer]:
    with Outer("tty", *options, "--", *BASH, **variables) as outer:
        outer.expect_exact("$ ")
        yield outer


def typed(outer: Outer, command: str, answer: str) -> None:
    """Give a command to the shell; the answer must not be in the command itself."""
    outer.sendline(command)
    outer.expect_exact(answer)
    outer.expect_exact("$ ")
