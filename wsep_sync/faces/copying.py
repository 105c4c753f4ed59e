"""Threads that move bytes between a process's files and our descriptors or our memory.

A local child that inherits a descriptor writes to it by itself; the output of a process here comes
as a file that somebody has to read. Each class is one direction of one file, with one thread at
most, a daemon each: what a command does must not keep a script from ending.
"""

from __future__ import annotations

import errno
import io
import os
import signal as signals
import stat
import sys
import threading
import time
from typing import IO, Any, Protocol, cast

from ..errors import WsepError, suppress_system
from ..lazy import importing
from ..process import Process, is_running
from ..protocol.messages import MAX_BODY
from ..streams.bounded_pipe import wait_a_while
from ..streams.descriptors import Handover
from ..streams.files import Reader, close_quietly
from ..streams.wakeup import READ, WRITE, Wakeup, wait_for
from ..threads import start_thread

__all__ = [
    "Collector",
    "Feeder",
    "InputCopier",
    "OutputCopier",
    "check_readable",
    "deadline_in",
    "is_null_device",
    "remaining",
    "same_open_file",
]

_READ_SIZE = 1 << 16

#: How long to wait for the thread that reads our input to let go of it.
_RELEASE = 1.0


class _RawReader(Protocol):
    """The raw files of this package; see :class:`.PipeReader`."""

    def ready(self, timeout: float | None) -> bool: ...

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def close(self) -> None: ...


def deadline_in(timeout: float | None) -> float | None:
    """Return the time of ``time.monotonic`` in so many seconds."""
    return None if timeout is None else time.monotonic() + timeout


def remaining(deadline: float | None) -> float | None:
    """Return the seconds until a time of ``time.monotonic``, 0 if it has passed."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def is_null_device(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev


# Linux 6.10: whether another descriptor is a copy of this one, F_LINUX_SPECIFIC_BASE + 3.
_F_DUPFD_QUERY = 1027


def same_open_file(one: int, other: int) -> bool:
    """Whether what is written to two descriptors comes in the order in which it is written.

    Of a pipe or a terminal any two do. Of a file, those that are copies of each other, as after
    ``2>&1``; where the kernel cannot be asked, those with the same position and flags are taken for
    copies.
    """
    here, there = os.fstat(one), os.fstat(other)
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
        return False
    if not stat.S_ISREG(here.st_mode):
        return True
    if sys.platform == "win32":
        return False
    with importing:
        import fcntl

    with suppress_system():
        return bool(fcntl.fcntl(one, _F_DUPFD_QUERY, other))

    def traits(descriptor: int) -> tuple[int, int]:
        return (
            os.lseek(descriptor, 0, os.SEEK_CUR),
            fcntl.fcntl(descriptor, fcntl.F_GETFL),
        )

    return traits(one) == traits(other)


def check_readable(descriptor: int) -> None:
    """Raise the ``OSError`` of reading from a descriptor that is open for writing only.

    Of a pipe's end for writing, poll(2) would not say that there is nothing to wait for.
    """
    if sys.platform == "win32":
        return
    with importing:
        import fcntl

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class OutputCopier:
    """Copies an output to a descriptor until it ends.

    Args:
        file: The output, which nobody else reads. Closed at the end.
        descriptor: Where to; taken over, and closed at the end. ``None`` drops everything.
        whole: It is delivered when it has ended, and not before.

    Attributes:
        error: Why the descriptor took no more, if it did not, or why no more came. A pipe that
            nobody reads any more is not among the reasons: it is the command that has to learn of
            that, as it does when its output is closed.
    """

    def __init__(
        self, file: io.BufferedReader, descriptor: Handover | None, whole: bool = False
    ) -> None:
        # Kept, too: it would close the raw file when it is collected, and the process with it.
        self._file = file
        self._raw = cast("_RawReader", file.raw)
        self._handover = descriptor
        self._descriptor: int | None = None  # once the thread has taken it
        self._whole = whole
        self.error: Exception | None = None
        # Guards the two below.
        self._changed = threading.Condition()
        self._busy = False  # holds bytes that have not been written yet
        self._ended = False
        # Ends with the output, which it does at the latest when the process is closed.
        start_thread(self._copy, name="wsep-copy-output", died=self._died)

    def delivered(self, timeout: float | None) -> bool:
        """Block until all that can be read has been written, for at most ``timeout`` seconds.

        An output may live on after its command: whoever the command left behind has it too.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._ended and (self._whole or self._busy or self._raw.ready(0)):
                if remaining(deadline) == 0:
                    return False
                wait_a_while(self._changed, remaining(deadline))
            return True

    def _died(self, error: Exception) -> None:
        self.error = OSError(f"internal error: {type(error).__name__}")
        self._end()

    def _copy(self) -> None:
        if self._handover is not None:
            self._descriptor = self._handover.take()
        buffer = memoryview(bytearray(_READ_SIZE))
        try:
            while True:
                self._raw.ready(None)
                # Before a byte is taken out: it must always be seen in one place or the other.
                with self._changed:
                    self._busy = True
                count = self._raw.readinto(buffer)
                if not count:
                    break
                if self._descriptor is not None:
                    _write_all(self._descriptor, buffer[:count])
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        except (BrokenPipeError, ValueError):
            pass  # ValueError: somebody has closed the process and its files
        except (OSError, WsepError) as error:
            # WsepError: the connection was lost. So tells waiting for the command, unless it has
            # ended before. Without the traceback, which refers to us.
            self.error = error.with_traceback(None)
        self._end()

    def _end(self) -> None:
        self._file.close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        elif self._handover is not None:
            self._handover.close()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # a terminal that somebody made non-blocking for all of us
            wait_for(descriptor, WRITE, None)


class InputCopier:
    """Copies a descriptor to a command's input, and closes the input at the end of the file.

    It reads ahead: what the command has not read when it ends is gone from a pipe or terminal.

    Args:
        descriptor: Where from; taken over, and closed at the end.
        process: The command. It is sent SIGTERM if the descriptor cannot be read: the end of its
            input alone would let it take what it got for the whole.

    Attributes:
        error: Why the descriptor could not be read, if so. A terminal that has hung up is at its
            end.
    """

    def __init__(self, descriptor: Handover, process: Process) -> None:
        self._handover = descriptor
        self._descriptor = -1  # until the thread has taken it
        self._process = process
        self.error: OSError | None = None
        self._stop = Wakeup()
        # Ends with the file, when the command has ended or no longer reads, or by stop().
        self._thread = start_thread(self._copy, name="wsep-copy-input", died=self._copier_died)

    def stop(self) -> None:
        """Leave the descriptor alone: the command has ended."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            # Bounded: it may be stuck in writing to somebody whom the command left behind.
            self._thread.join(_RELEASE)

    def _copy(self) -> None:
        stdin = self._process.stdin
        self._descriptor = self._handover.take()
        # Asked beforehand: one that has hung up does not know any more that it is a terminal.
        terminal = os.isatty(self._descriptor)
        try:
            readable = self._is_readable()
            # Nobody may have waited for the command: what is read then must not be taken away
            # from whoever reads our input next.
            while (
                readable
                and wait_for(self._descriptor, READ, self._stop)
                and is_running(self._process)
            ):
                data = self._read(terminal)
                if data is None:
                    continue
                if not data:
                    break
                stdin.raw.write(data)
        except (OSError, ValueError):
            pass  # the command has closed its input
        self._end()

    def _end(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._handover.close()
        close_quietly(self._process.stdin)

    def _is_readable(self) -> bool:
        try:
            check_readable(self._descriptor)
        except OSError as error:
            self._fail(error)
            return False
        return True

    def _read(self, terminal: bool) -> bytes | None:
        """Return what is there, ``b""`` at the end, ``None`` if there was nothing after all."""
        try:
            return os.read(self._descriptor, MAX_BODY)
        except BlockingIOError:  # somebody else who has it too was faster
            return None
        except OSError as error:
            if not (terminal and error.errno == errno.EIO):
                self._fail(error)
            return b""

    def _copier_died(self, error: Exception) -> None:
        self._fail(OSError(f"internal error: {type(error).__name__}"))
        self._end()

    def _fail(self, error: OSError) -> None:
        # Without the traceback, which refers to us.
        self.error = error.with_traceback(None)
        with suppress_system(OSError, ValueError, WsepError):  # no signals there, or lost
            self._process.send_signal(signals.SIGTERM)


class _Job:
    """One file's part in ``communicate``: run in a thread of its own, or in the caller's.

    Attributes:
        file: The file, which is closed at the end.
        done: Set when all is read or written, or cannot be.
        error: What went wrong.
    """

    def __init__(self, file: IO[Any]) -> None:
        self.file = file
        self.done = threading.Event()
        self.error: Exception | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        # Ends with the file, which it does at the latest when the process is closed.
        self.thread = start_thread(self._run_to_the_end, name="wsep-communicate", died=self.fail)

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        # Without the traceback, which refers to us and would keep the connection's descriptors.
        self.error = error.with_traceback(None)
        self._end()

    def _end(self) -> None:
        close_quietly(cast("io.IOBase", self.file))
        self.done.set()

    def _run_to_the_end(self) -> None:
        try:
            self.run(None)
        except Exception as error:
            self.fail(error)

    def run(self, deadline: float | None) -> None:
        """Do it all, or as much as can be done until the deadline.

        In the caller's thread what is raised may come from the handler of a signal. So nothing is
        done about it here, and it can be called again to go on.
        """
        if self._run(deadline):
            self._end()

    def _run(self, deadline: float | None) -> bool:
        raise NotImplementedError


class Feeder(_Job):
    """Writes all the input, then closes the file."""

    def __init__(self, file: IO[Any], data: memoryview) -> None:
        super().__init__(file)
        self._data = data

    def _run(self, _deadline: float | None) -> bool:
        binary: Any = getattr(self.file, "buffer", self.file)
        raw = getattr(binary, "raw", binary)
        rest = self._data
        # A command may have had enough before the end of its input.
        with suppress_system(BrokenPipeError):
            while True:
                try:
                    self.file.flush()
                    break
                except BlockingIOError:  # it was made so, and takes what is left another time
                    raw.ready(None)
            while rest:
                count = raw.write(rest)
                if not count:
                    raw.ready(None)
                rest = rest[count or 0 :]
        self._data = memoryview(b"")
        return True


class WatchedReader(Reader):
    """What lies under a text file, and knows whether that has read anything: it reads ahead."""

    touched = False

    def read1(self, size: int = -1, /) -> bytes:
        self.touched = True
        return super().read1(size)

    def read(self, size: int | None = -1, /) -> bytes:
        self.touched = True
        return super().read(size)


class Collector(_Job):
    """Reads a file to its end.

    Bytes are kept as they come, so that they are there when a timeout passes. A text file from
    which somebody has read before has bytes and characters of its own that cannot be had in any
    other way than to read it: then there is nothing before the end.
    """

    def __init__(self, file: IO[Any]) -> None:
        super().__init__(file)
        binary: Any = file
        self._text: io.TextIOWrapper | None = None
        if isinstance(file, io.TextIOWrapper):
            self._text = file
            binary = file.buffer
        self._binary = binary
        self._raw = getattr(binary, "raw", binary)
        # Not a list to be joined: what getvalue() returns is the buffer itself, not a copy.
        # Written by whoever runs this, read by whoever calls communicate().
        self._data = io.BytesIO()
        self._read_text: str | None = None
        self._discard = False

    def timed(self) -> bool:
        """Return whether :meth:`run` can keep to a deadline."""
        return hasattr(self._raw, "ready") and not self._touched()

    def discard(self) -> None:
        """Keep nothing from now on; the output is still read, lest it hold the command up."""
        self._discard = True
        self._data.truncate(0)

    def so_far(self) -> bytes | None:
        """Return the bytes that have been read, or ``None``, as ``TimeoutExpired`` has them."""
        return self._data.getvalue() or None

    def result(self) -> bytes | str:
        """Return all there was. To be called once :attr:`done` is set."""
        if self._read_text is not None:
            return self._read_text
        data = self._data.getvalue()
        if self._text is None:
            return data
        text = data.decode(self._text.encoding, self._text.errors or "strict")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _touched(self) -> bool:
        return isinstance(self._binary, WatchedReader) and self._binary.touched

    def _run(self, deadline: float | None) -> bool:
        if self._text is not None and self._touched():
            self._read_text = self._text.read()
            return True
        # The base's: to read it here does not make it touched.
        if isinstance(self._binary, io.BufferedReader):
            reader: Any = io.BufferedReader.read1
        else:
            reader = io.RawIOBase.read
        while True:
            if deadline is not None and not self._raw.ready(remaining(deadline)):
                return False
            data = reader(self._binary, _READ_SIZE)
            if not data:
                # The end, or nothing yet of a file that does not block: the raw file tells.
                data = self._raw.read(_READ_SIZE)
                if data is None:
                    self._raw.ready(remaining(deadline))
                    continue
                if not data:
                    return True
            if not self._discard:
                self._data.write(data)
