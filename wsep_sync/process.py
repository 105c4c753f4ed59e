"""The two interfaces that make local, remote and chained execution interchangeable."""

from __future__ import annotations

import io
import signal as signals
import time
from abc import ABC, abstractmethod
from types import TracebackType

from .errors import ExitError, ExitMissing, OutputUnread, StartError, WsepError, suppress_system
from .protocol.command import Command
from .protocol.messages import FEATURE_SIGNAL

__all__ = [
    "CLOSE_GRACE",
    "KILL_GRACE",
    "SIGKILL",
    "Awaited",
    "Execer",
    "Process",
    "ended",
    "is_running",
]

#: Its number, which Windows has no name for.
SIGKILL: int = getattr(signals, "SIGKILL", 9)

#: How many seconds a command has between SIGTERM and SIGKILL when its process is closed.
CLOSE_GRACE = 2.0

#: How many seconds may pass from SIGKILL until the end is known. What cannot even be killed waits
#: for a disk or a file server, or is somebody else's; but a busy machine takes its time, too.
KILL_GRACE = 5.0


class Process(ABC):
    """A command that runs, or has run.

    All methods may be called from any thread. ``stdin``, ``stdout`` and ``stderr`` are the io
    module's own buffered files, with its rules: one thread at a time reads a file, and what is
    written to ``stdin`` is sent when its buffer is full, on ``flush()`` and on ``close()``.

    Used as a context manager, the process is closed at the end of the block.

    A file that is dropped without ``close()`` is closed some time soon, but what was written to it
    and not flushed is lost: the garbage collector, which may run in the midst of anything, waits
    for no command and no connection.

    Attributes:
        pid: The command's process id, on the machine where it runs.
        stdin: The command's input. Closing it is the end of the file to the command; on a
            terminal it sends the terminal's end-of-file character. ``write`` blocks while the
            command does not read, raises ``BrokenPipeError`` once the command has closed its
            input or has ended, ``ValueError`` after ``close()``, and ``io.UnsupportedOperation``
            if the command was started without ``stdin`` (and has no terminal).
        stdout: The command's output; on a terminal, everything it shows. Reading blocks, and
            ends with ``b""`` when the command and all who share its output have closed it, or
            when the process is closed. A lost connection raises :exc:`~.errors.ExitMissing`
            after what had arrived; a ``read()`` to the end then returns nothing of it, so read
            piece by piece what must not be lost.
        stderr: The command's error output; on a terminal, empty.
        reattached: Whether this is a terminal session that was running already.
        features: What it can, of the protocol's additions: ``signal``, if it is not to be hung up
            on instead; ``close_output``, if an output that is closed here is closed for the
            command; ``discard``, if it has the null device for what is to be discarded; ``echo``,
            if its terminal's can be told and set. Of a remote command, whatever its server has
            named in the pid.

    An output that nobody reads holds the command up: a local command once its pipe is full, a
    remote one once the limit of its execer is reached (1 MiB for each output by default). The
    other output, signals and the end are not held up by it; unless the server is one that has no
    ``taken`` among its features, such as the reference: there everything of that command waits,
    too. Read both, or close the one you do not want, which is closed for the command as well: it
    gets SIGPIPE, or EPIPE, as of any pipe that nobody reads any more. (A terminal is no pipe: what
    it shows is dropped then; and so is what comes from a process without ``close_output``.)
    """

    pid: int
    stdin: io.BufferedWriter
    stdout: io.BufferedReader
    stderr: io.BufferedReader
    reattached: bool = False
    features: frozenset[str] = frozenset((FEATURE_SIGNAL,))

    #: Where it runs, in words; "" where nobody has any.
    _place: str = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: pid {self.pid}{self._place and ' '}{self._place}>"

    @abstractmethod
    def resize(self, rows: int, cols: int) -> None:
        """Give the terminal a new size; without a terminal, do nothing.

        Args:
            rows: Height in rows, 0 to 65535.
            cols: Width in columns, 0 to 65535.

        Raises:
            ValueError: A number out of range.
        """

    @abstractmethod
    def send_signal(self, signal: int) -> None:
        """Send a signal to the command's process group; do nothing if it has ended.

        Raises:
            ValueError: No such signal.
            io.UnsupportedOperation: The server has no way to do it (the reference has none).
            PermissionError: The command runs as somebody else who may not be signalled.
        """

    def echo(self, on: bool | None = None) -> bool:  # noqa: ARG002 - for those who can
        """Return whether the terminal shows what is typed.

        Blocks until the answer of a server has come.

        Args:
            on: Let it, or let it not, first; ``None`` leaves it.

        Raises:
            io.UnsupportedOperation: There is no terminal; or neither can be done where it is, as at
                a server without ``echo`` among its features.
            BrokenPipeError: The command has ended, or the connection.
            ValueError: It is closed.
        """
        raise io.UnsupportedOperation(
            "the echo of this terminal can be neither seen nor set from here; "
            "spawn(..., echo=False) turns it off from the start"
        )

    @abstractmethod
    def wait(self, timeout: float | None = None) -> None:
        """Block until the command has ended; return if it ended with status 0.

        The outputs need not have been read, nor have ended: whoever the command left behind may
        have them, too. A server without ``ended`` among its features, such as the reference, tells
        of the end only when all output has been read up to it. Ctrl-C interrupts the wait and
        nothing else: the command runs on.

        A connection that is lost after the end was told leaves the status as it is; reading the
        rest of an output then raises ``ExitMissing``.

        Args:
            timeout: Seconds to wait at most; ``None`` waits for ever.

        Raises:
            ExitError: It ended with another status, or by a signal. Every call raises it.
            ExitMissing: The connection ended before the exit status came.
            OutputUnread: The wait would never end: an output that has never been read is full, and
                the server is one without ``taken`` or ``ended``.
            TimeoutError: It had not ended in time.
        """

    def finish(self) -> None:  # noqa: B027 - most outputs have an end of their own
        """Let what a terminal shows end with what is there, once the command has ended.

        Whoever the command has left in the background may hold the terminal for ever.
        """

    @abstractmethod
    def close(self) -> None:
        """End the command with SIGTERM, and with SIGKILL if it has not ended 2 seconds later.

        A terminal is hung up besides, with SIGHUP, for interactive shells ignore SIGTERM. One
        that has an id, at the end of a connection, is a session: it is left, not ended, and can
        be attached again; :meth:`kill` ends it.

        Then release everything: threads, descriptors, the connection. Readers and writers that
        block in other threads are woken. A server without signals (the reference) is hung up on,
        which ends the command as well, but no exit status can arrive then.

        Blocks some 2 seconds at most; 5 more for a command that cannot be killed, 2 more for what
        it has left in its session and cannot be, and 6 more for a connection whose other end is
        silent. Calling it again, or after the command has ended, is
        harmless.
        """

    @abstractmethod
    def kill(self) -> None:
        """End the command with SIGKILL, without waiting for it.

        A server without signals is hung up on instead.
        """

    def hang_up(self) -> None:
        """End the command because the one it ran for has gone: SIGHUP, then :meth:`close`."""
        with suppress_system(OSError, ValueError):  # no signals, or none on Windows
            self.send_signal(getattr(signals, "SIGHUP", 1))
        self.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Awaited(Process):
    """A process that waits in two steps, of which the first says by its value how it went.

    For those of this package. Whoever writes one of their own need not know of it.
    """

    def wait(self, timeout: float | None = None) -> None:
        if not self.ended(timeout):
            raise TimeoutError(f"the command has not ended within {timeout} seconds")
        self._check_status()

    @abstractmethod
    def ended(self, timeout: float | None) -> bool:
        """Block until the command has ended; False if it has not in time.

        Raises:
            OutputUnread: As :meth:`wait`.
        """

    @abstractmethod
    def _check_status(self) -> None:
        """Raise what :meth:`wait` raises of a command that has ended."""


def ended(process: Process, timeout: float | None) -> bool:
    """Block until a command has ended; False if it has not in time.

    An exception of :meth:`Process.wait` is not known by its type: a handler of a signal, which
    Python calls in the midst of a wait, may raise a ``TimeoutError`` of its own, or the exit status
    of another command. Those are raised here. For the status, wait with a timeout of 0 afterwards.

    Raises:
        OutputUnread: As :meth:`Process.wait`.
    """
    if isinstance(process, Awaited):
        return process.ended(timeout)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        process.wait(timeout)
    except TimeoutError:
        if deadline is None or time.monotonic() < deadline:
            raise
        return False
    except (ExitError, ExitMissing):
        if is_running(process):
            raise
    return True


def is_running(process: Process) -> bool:
    """Whether a command has not ended yet, as far as is known without waiting."""
    try:
        if isinstance(process, Awaited):
            return not process.ended(0)
        process.wait(0)
    except (TimeoutError, OutputUnread):
        return True
    except WsepError:
        pass
    return False


def check_additions(command: Command, features: frozenset[str]) -> None:
    """Raise ``StartError`` if the command asks for an addition that is not among the features."""
    missing = command.additions - features
    if missing:
        raise StartError(f"{' and '.join(sorted(missing))} cannot be done there")


class Execer(ABC):
    """Something that can start commands: here, or at the other end of a connection.

    Safe to use from several threads. A context manager that closes it at the end of the block.

    Attributes:
        features: The additions that a command may ask for here, as of :attr:`.Command.additions`.
            An execer that wraps another has those of it that it knows how to treat.
    """

    @property
    def features(self) -> frozenset[str]:
        return frozenset()

    @abstractmethod
    def start(self, command: Command) -> Process:
        """Start a command and return as soon as it runs.

        Raises:
            StartError: It could not be started; also the matching subclass of ``OSError`` where
                the cause is known.
            ConnectError: A connection for it could not be made.
            TransportClosed: The connection ended before the command ran.
            RuntimeError: No more threads can be had here. A remote command may have begun then, and
                is ended.
        """

    def close(self) -> None:  # noqa: B027 - most execers hold nothing
        """Release what the execer holds for commands to come; running ones are left alone."""

    def __enter__(self) -> Execer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
