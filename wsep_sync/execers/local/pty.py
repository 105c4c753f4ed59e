"""The terminal of a local command: the one place that opens a pseudo-terminal.

The command has to become the leader of a session whose controlling terminal this is: then job
control works, ``/dev/tty`` opens, and a typed Ctrl-C interrupts. ``pty.fork`` (and with it
``pexpect.spawn``) would run Python in the forked child of a process full of threads, which can
hang in any lock that another thread held. So no Python runs in the child: it is spawned as
``setsid -c`` on the terminal, which takes the terminal over and executes the command in the same
process. A ``ptyprocess.PtyProcess`` made around that child was tried and rejected: its finalizer
signals and reaps, with pauses, a child that belongs to the process's owner.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import termios
import time
from collections.abc import Mapping, Sequence

from ...errors import suppress_system
from ...streams.descriptors import hung_up

__all__ = [
    "LocalTerminal",
]

# Where there is no setsid(1), as on macOS: a session leader without a controlling terminal gets
# one by opening it. setsid is preferred because dash does not pass on environment variables whose
# names are no shell identifiers.
_SHELL_SCRIPT = 'exec "$@" <>"$0" >&0 2>&0'

# Seconds that a command may take to take its terminal over.
_TAKING_TIMEOUT = 1.0


class LocalTerminal:
    """A pseudo-terminal: the master end here, the slave end for a command.

    Not safe to use from several threads.

    Args:
        rows: Height in rows.
        cols: Width in columns.
        uid: Who is to own the terminal, or 0 to leave it: a command that runs as another user
            must be able to open ``/dev/tty``.

    Attributes:
        slave: The end for the command, until :meth:`close_slave`.
    """

    def __init__(self, rows: int, cols: int, uid: int) -> None:
        self._master, self.slave = os.openpty()
        self._name = os.ttyname(self.slave)
        try:
            self.resize(rows, cols)
            if uid:
                os.fchown(self.slave, uid, -1)
        except BaseException:
            self.close_slave()
            self.close()
            raise

    def wrap(self, argv: Sequence[str]) -> tuple[list[str], bool]:
        """Return the command that runs ``argv`` with this as its controlling terminal.

        Returns:
            The command line, and whether it must be spawned as the leader of a new session:
            setsid(1) makes itself one, and would fork if it were one already.
        """
        setsid = shutil.which("setsid")
        if setsid is not None:
            return [setsid, "-c", "--", *argv], False
        return ["/bin/sh", "-c", _SHELL_SCRIPT, self._name, *argv], True

    def duplicate_master(self) -> int:
        """Return a new descriptor of the master, for a file object to own."""
        return os.dup(self._master)

    def resize(self, rows: int, cols: int) -> None:
        """Set the size; the foreground process group is told by SIGWINCH if it changed."""
        with suppress_system():  # EIO: every process has left the terminal
            # struct winsize: rows, columns, and two sizes in pixels that nobody knows here.
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def echo(self, on: bool | None) -> bool:
        """Return whether it shows what is typed; let it do so, or not, first if that is given."""
        try:
            attributes = termios.tcgetattr(self._master)
            if on is not None:
                attributes[3] = attributes[3] & ~termios.ECHO | (termios.ECHO if on else 0)
                termios.tcsetattr(self._master, termios.TCSANOW, attributes)
        except termios.error as error:  # which is no OSError
            raise OSError(*error.args) from error
        return bool(attributes[3] & termios.ECHO)

    def end_of_file(self) -> bytes:
        """Return the character that ends the input now (VEOF), which a program may have set."""
        try:
            character: bytes = termios.tcgetattr(self._master)[6][termios.VEOF]
        except (termios.error, ValueError):  # it was closed, perhaps just now
            return b""
        return character

    def foreground_group(self) -> int | None:
        """Return the process group that a typed Ctrl-C would reach, if there is one."""
        with suppress_system():
            group = os.tcgetpgrp(self._master)
            if group > 1:
                return group
        return None

    def wait_until_taken(self) -> None:
        """Block until the command has taken the terminal over, or has left it; 1 second at most.

        A Ctrl-C that is typed sooner would reach nobody, and be lost. Nothing tells of it; it
        takes setsid(1) about a millisecond. The slave end must have been closed here.
        """
        deadline = time.monotonic() + _TAKING_TIMEOUT
        pause = 0.0002
        while self.foreground_group() is None and not hung_up(self._master):
            if time.monotonic() > deadline:
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.01)

    def close_slave(self) -> None:
        """Let go of the command's end: with it open here, the output would never end."""
        # First it is forgotten: a signal's handler may raise before the next line.
        slave, self.slave = self.slave, -1
        if slave >= 0:
            os.close(slave)

    def close(self) -> None:
        """Close this descriptor of the master. Harmless to call again."""
        master, self._master = self._master, -1
        if master >= 0:
            os.close(master)

    def __del__(self) -> None:
        if hasattr(self, "slave"):
            self.close_slave()
            self.close()


def find_program(name: str, environment: Mapping[str, str], working_dir: str) -> None:
    """Raise the error that executing ``name`` would fail with, as far as that can be known.

    A command on a terminal is executed by setsid(1), too late for a missing program to be an
    error of starting it.

    Raises:
        FileNotFoundError: No such program, or its ``#!`` interpreter is missing.
        PermissionError: It may not be executed.
        OSError: It is a text without ``#!`` (ENOEXEC).
    """
    if os.sep in name:
        candidates = [os.path.join(working_dir, name)]
    else:
        candidates = [
            os.path.join(working_dir, directory, name)
            for directory in os.get_exec_path(dict(environment))
        ]
    found = errno.ENOENT
    for path in candidates:
        try:
            os.stat(path)
        except OSError as error:
            if error.errno is None:
                raise  # none of the system's: that of a signal's handler
            if error.errno == errno.EACCES:
                found = errno.EACCES
            continue
        if os.path.isfile(path) and os.access(path, os.X_OK):
            _check_interpreter(path)
            return
        found = errno.EACCES
    raise OSError(found, os.strerror(found), name)


def _check_interpreter(path: str) -> None:
    start = b""
    with suppress_system(), open(path, "rb") as program:  # it may be executable but not readable
        start = program.read(256)
    if start.startswith(b"#!"):
        words = start[2:].split(b"\n", 1)[0].split()
        if words and not os.path.exists(words[0]):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    elif start and b"\0" not in start:
        # A text without "#!": the kernel refuses it, but execvp (POSIX) would give it to a shell.
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC), path)
