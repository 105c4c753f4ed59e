"""The file objects of a process: what is common to all, and what raw files may offer.

:func:`buffered_reader` and :func:`buffered_writer` put the io module's own buffers on top of a raw
file, of :mod:`.descriptors` or of :mod:`.bounded_pipe`, so that ``read``, ``read1``, ``readline``,
iteration, ``readinto``, ``peek``, ``io.TextIOWrapper`` and ``shutil.copyfileobj`` behave as on any
file.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from ..dropped import later
from ..errors import suppress_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "READ_BUFFER",
    "RawFile",
    "RawInput",
    "RawOutput",
    "Reader",
    "TextFile",
    "Writer",
    "buffered_reader",
    "buffered_writer",
    "close_quietly",
    "empty_reader",
    "no_writer",
    "read_all",
]


# Large enough that reading line by line costs a system call per 64 KiB, and no larger than what a
# pipe gives at once.
READ_BUFFER = 1 << 16


class RawOutput(Protocol):
    """What the raw file of an output may offer, beside what :class:`io.RawIOBase` says.

    Each may be missing, so ask with ``getattr``: the files of an execer from elsewhere may be any.
    """

    def read_now(self, buffer: memoryview, /) -> int | None:
        """Store what there is and return how much; ``None`` if nothing yet, 0 at the end."""

    def poll_fileno(self) -> int:
        """Return a descriptor that is readable when ``read_now`` has something."""

    def when_readable(self, call: Callable[[], None], /) -> None:
        """Where there is no such descriptor: have a function called when it has, and at once.

        It is called by any thread, with a lock held, and must not block.
        """

    def ready(self, timeout: float | None, /) -> bool:
        """Block until ``readinto`` would not, for at most ``timeout`` seconds; return if so."""

    def set_capacity(self, size: int, /) -> None:
        """Ask for so many bytes to be held before the writer has to wait; perhaps in vain.

        Raises:
            ValueError: It is closed.
        """

    def stop(self) -> None:
        """Let a read that blocks in another thread end, and each later one. Waits for nothing."""


class RawInput(Protocol):
    """What the raw file of an input may offer; each may be missing, as of :class:`RawOutput`."""

    def ready(self, timeout: float | None, /) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""

    def write_now(self, data: ReadableBuffer, /) -> int:
        """Write as much as is taken without blocking; return how many bytes, perhaps none."""

    def end_now(self) -> bool:
        """End the input as ``close`` does; False if that cannot be without blocking."""

    def end_of_file(self) -> bytes:
        """Return the character that ends a terminal's input, which goes on; nothing of a pipe."""

    def send_eof(self) -> None:
        """Send that character in another way, where there is none; perhaps block."""

    def poll_fileno(self) -> int:
        """Return a descriptor that is writable when ``write_now`` takes something."""

    def when_writable(self, call: Callable[[], None], /) -> None:
        """Where there is no such descriptor: as :meth:`RawOutput.when_readable`."""

    def is_broken(self) -> bool:
        """Whether nobody reads it any more, as far as that is known."""


class RawFile(io.RawIOBase):
    """What all raw files have in common: how they end when they are dropped without ``close``.

    The io module's finalizer would call ``close``, which may flush, send, wait or lock.
    """

    _dropped = False

    def drop(self) -> None:
        """End the file for a finalizer: start no thread, wait for nothing, take no lock.

        Harmless to call again, and after ``close``.
        """
        if not self._dropped and not self.closed:
            self._dropped = True
            self._drop()

    def _drop(self) -> None:
        later(self.close)

    def __del__(self) -> None:
        # Or else the handler of a signal has raised before it was made. What _drop needs is set
        # first of all, or in the class, for one that raises while it is.
        if self.__dict__:
            self.drop()


class Reader(io.BufferedReader):
    """A buffered reader; dropped, it drops its raw file."""

    def __del__(self) -> None:
        _drop_raw(self)


class Writer(io.BufferedWriter):
    """A buffered writer; dropped, it drops its raw file, and what was not flushed is lost."""

    def __del__(self) -> None:
        _drop_raw(self)


class TextFile(io.TextIOWrapper):
    """A text file over one of the two; dropped, it drops that, and what was not flushed is lost."""

    def __del__(self) -> None:
        pass  # its buffer goes with it


def _drop_raw(file: io.BufferedReader | io.BufferedWriter) -> None:
    raw: Any = file.raw  # None when it was detached
    if isinstance(raw, RawFile):
        raw.drop()


def read_all(raw: io.RawIOBase) -> bytes | None:
    """Read to the end; of a file that does not block, what there is, and ``None`` for nothing."""
    pieces = []
    buffer = memoryview(bytearray(READ_BUFFER))
    while count := raw.readinto(buffer):
        pieces.append(bytes(buffer[:count]))
    return None if count is None and not pieces else b"".join(pieces)


class _Sink(RawFile):
    def writable(self) -> bool:
        return True

    def _drop(self) -> None:
        pass


# Lest two threads open the null device for one file.
_opening = threading.Lock()


class _Empty(RawFile):
    """What is at its end. A pipe would do, and cost some KiB for each terminal that is held."""

    mode = "rb"
    _fd = -1

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: WriteableBuffer, /) -> int:
        self._check_open()
        return 0

    def read_now(self, _buffer: memoryview) -> int:
        return 0

    def when_readable(self, call: Callable[[], None]) -> None:
        call()

    def ready(self, _timeout: float | None) -> bool:
        return True

    def fileno(self) -> int:
        self._check_open()
        with _opening:
            if self._fd < 0:
                self._fd = os.open(os.devnull, os.O_RDONLY)
        return self._fd

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._fd >= 0:
                os.close(self._fd)

    def _drop(self) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class _NoWriter(Writer):
    """The standard input of a command that has none."""

    def write(self, _data: ReadableBuffer, /) -> NoReturn:
        raise io.UnsupportedOperation("the command has no stdin: start it with stdin=True")


def buffered_reader(raw: io.RawIOBase, size: int = READ_BUFFER) -> io.BufferedReader:
    return Reader(raw, size)


def empty_reader() -> io.BufferedReader:
    """Return a file that is at its end: the error output of a command on a terminal."""
    return Reader(_Empty(), 1)


def buffered_writer(raw: io.RawIOBase) -> io.BufferedWriter:
    return Writer(raw)


def no_writer() -> io.BufferedWriter:
    """Return a file on which writing raises ``io.UnsupportedOperation``."""
    return _NoWriter(_Sink())


def close_quietly(file: io.IOBase) -> None:
    """Close a file; a pipe that is broken by then is no news."""
    with suppress_system(OSError, ValueError):
        file.close()
