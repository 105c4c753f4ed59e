"""The file objects of a process: raw I/O over descriptors, and over memory.

:class:`DescriptorReader` and :class:`DescriptorWriter` are the ends of a local command's pipes and
terminal. :class:`BoundedPipe` is a pipe in memory, which a thread that receives messages fills and
a :class:`PipeReader` empties. :func:`buffered_reader` and :func:`buffered_writer` put the io
module's own buffers on top, so that ``read``, ``read1``, ``readline``, iteration, ``readinto``,
``peek``, ``io.TextIOWrapper`` and ``shutil.copyfileobj`` behave as on any file.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from .dropped import later
from .errors import WsepError, copy_error, suppress_system
from .threads import start_thread
from .wakeup import READ, WRITE, Pollable, Wakeup, a_while, wait_for

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "DEFAULT_LIMIT",
    "TELL_EVERY",
    "BoundedPipe",
    "DescriptorReader",
    "DescriptorWriter",
    "Handover",
    "PipeReader",
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
    "hung_up",
    "no_writer",
    "wait_a_while",
    "write_to",
]

Buffer: TypeAlias = "bytes | bytearray | memoryview"

#: How many bytes of an output are kept while nobody reads it.
DEFAULT_LIMIT = 1 << 20

# For how long after a reader has gone what arrives may have been on the way before.
_IN_FLIGHT = 0.25

# Large enough that reading line by line costs a system call per 64 KiB, and no larger than what a
# pipe gives at once.
_READ_BUFFER = 1 << 16


# Shorter pieces are put together: to keep one costs some 500 bytes.
_SMALL = 1 << 12

#: After how many bytes it is told how much has been read.
TELL_EVERY = 1 << 18


class RawOutput(Protocol):
    """What the raw file of an output may offer, beside what :class:`io.RawIOBase` says.

    Each may be missing, so ask with ``getattr``: a client of a session has none of them, and the
    files of an execer from elsewhere may be any.
    """

    def ready(self, timeout: float | None, /) -> bool:
        """Block until ``readinto`` would not, for at most ``timeout`` seconds; return if so."""

    def set_capacity(self, size: int, /) -> None:
        """Ask for so many bytes to be held before the writer has to wait; perhaps in vain."""

    def stop(self) -> None:
        """Let a read that blocks in another thread end, and each later one. Waits for nothing."""


class RawInput(Protocol):
    """What the raw file of an input may offer; each may be missing, as of :class:`RawOutput`."""

    def ready(self, timeout: float | None, /) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""

    def write_now(self, data: ReadableBuffer, /) -> int:
        """Write as much as is taken without blocking; return how many bytes, perhaps none."""

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


# Those below replace the io module's finalizers, which flush first: into a pipe that may be full.


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


class Handover:
    """A descriptor on its way to a new owner; whoever takes it first has it, or closes it.

    An exception that a signal's handler raises may come just when a file or a thread has taken a
    descriptor over, and its maker does not know yet. Were both to close it, the second might close
    a stranger's, which has got the number meanwhile.
    """

    def __init__(self, descriptor: int) -> None:
        self._held = [descriptor]  # whose pop() is one step, for signals and threads alike

    def fileno(self) -> int:
        return self._held[0]

    def take(self) -> int:
        """Return the descriptor, which is the caller's from now on.

        Raises:
            IndexError: It has been taken, or closed.
        """
        return self._held.pop()

    def close(self) -> None:
        """Close it, unless somebody has taken it."""
        with contextlib.suppress(IndexError):
            os.close(self._held.pop())


class _Descriptor(RawFile):
    """What reading and writing a pipe or a terminal have in common.

    The descriptor is non-blocking, so that no call can be stuck in the kernel where closing the
    process from another thread could not reach it: what would block polls ``stop`` too. (Closing
    a descriptor that another thread reads wakes nobody, and its number may be reused meanwhile.)

    Args:
        descriptor: Taken over, and closed by ``close``.
        stop: Set when the process is closed.
        terminal: It is the master of a terminal.
    """

    _fd = -1

    def __init__(self, descriptor: Handover, stop: Wakeup, terminal: bool) -> None:
        os.set_blocking(descriptor.fileno(), False)
        self._stop = stop
        self._terminal = terminal
        self._given = False  # to somebody by fileno(), who may want calls not to block
        self._fd = descriptor.take()

    def fileno(self) -> int:
        """Return the descriptor, for ``select`` or as another program's stdio.

        A pipe is made blocking first: the flag belongs to the pipe, not to the process, and
        programs do not expect a standard stream on which reading fails when there is nothing yet.
        After ``os.set_blocking(file.fileno(), False)``, reading and writing here do not block
        either: they return ``None`` where they would.

        A terminal's master stays non-blocking, as its reader and writer share the flag, and
        reading and writing here block whatever it says.
        """
        self._check_open()
        if not self._given and not self._terminal:
            os.set_blocking(self._fd, True)
            self._given = True
        return self._fd

    def _in_kernel(self) -> bool:
        """Whether a call to the kernel could block there, and has to be waited for before."""
        return self._given and os.get_blocking(self._fd)

    def close(self) -> None:
        if not self.closed:
            try:
                super().close()
            finally:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)

    def _drop(self) -> None:
        with suppress_system():
            _Descriptor.close(self)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _wait(self, event: int) -> bool:
        """Block until the descriptor is ready; False when the process was closed instead."""
        return wait_for(self._fd, event, self._stop)


class DescriptorReader(_Descriptor):
    """The raw, readable end of a pipe or the master of a terminal.

    ``readinto`` blocks until there is something, the writers are gone, or the process is closed;
    the last two are the end of the file. For one that does not block, see :meth:`fileno`.

    Args:
        descriptor, stop, terminal: As for what writes.
        end: Readable when the leader of a terminal's session has ended. That, too, is the end of
            the file, once all that is there was read: the kernel has hung up the terminal, and
            takes nothing from those who still hold it.
    """

    mode = "rb"

    def __init__(
        self,
        descriptor: Handover,
        stop: Wakeup,
        terminal: bool = False,
        end: Pollable | None = None,
    ) -> None:
        super().__init__(descriptor, stop, terminal)
        self._end = end

    def _wait(self, event: int) -> bool:
        return wait_for(self._fd, event, self._stop, None, self._end)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._check_open()
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        while True:
            if self._in_kernel() and not self._wait(READ):
                return 0
            try:
                count = os.readv(self._fd, [view])
            except BlockingIOError:
                if self._given:
                    return 0 if self._stop.is_set() else None
                if not self._wait(READ):
                    return 0
                continue
            except OSError as error:
                # EIO: every process that had the terminal open has closed it (Linux's n_tty).
                # EBADF: closed by another thread. Others are raised by the handler of a signal.
                if error.errno not in (errno.EIO, errno.EBADF):
                    raise
                return 0
            break
        if self._terminal:
            # A terminal gives 4 KiB to a read at most, whatever is waiting.
            while 0 < count < len(view):
                try:
                    more = os.readv(self._fd, [view[count:]])
                except OSError as error:
                    # Nothing there, or the end: the next call will see it again.
                    if error.errno not in (errno.EAGAIN, errno.EIO, errno.EBADF):
                        raise
                    break
                if not more:
                    break
                count += more
        return count

    def stop(self) -> None:
        """Let a read that blocks in another thread end, once it has what is there; see close()."""
        self._stop.set()

    def set_capacity(self, size: int) -> None:
        """Ask the kernel to let a pipe hold so many bytes, before the writer has to wait.

        It may refuse, as it does when a user's pipes hold 64 MiB (pipe(7)), or cannot be asked:
        then all stays as it is.
        """
        if not self._terminal and sys.platform == "linux":
            with suppress_system():
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, size)

    def ready(self, timeout: float | None) -> bool:
        """Block until ``readinto`` would not, for at most ``timeout`` seconds; return if so."""
        self._check_open()
        if self._end is None:
            return wait_for(self._fd, READ, self._stop, timeout) or self._stop.is_set()
        return (
            wait_for(self._fd, READ, self._stop, timeout, self._end)
            or self._stop.is_set()
            or wait_for(self._end.fileno(), READ, None, 0)
        )

    def readall(self) -> Any:  # bytes or None; typeshed knows only of bytes
        return _read_all(self)


def _read_all(raw: io.RawIOBase) -> bytes | None:
    """Read to the end; of a file that does not block, what there is, and ``None`` for nothing."""
    pieces = []
    buffer = memoryview(bytearray(_READ_BUFFER))
    while count := raw.readinto(buffer):
        pieces.append(bytes(buffer[:count]))
    return None if count is None and not pieces else b"".join(pieces)


class DescriptorWriter(_Descriptor):
    """The raw, writable end of a pipe or the master of a terminal.

    ``write`` blocks until everything is written, and raises ``BrokenPipeError`` when the command
    has closed its end or the process is closed. For one that does not block, see :meth:`fileno`.

    Args:
        last: Of a terminal, returns what ``close`` is to write before the descriptor goes: the
            end of the file is a character there.
    """

    mode = "wb"
    _last: Callable[[], bytes] | None = None

    def __init__(
        self, descriptor: Handover, stop: Wakeup, last: Callable[[], bytes] | None = None
    ) -> None:
        self._last = last
        self._owner = os.getpid()
        super().__init__(descriptor, stop, last is not None)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int | None:
        self._check_open()
        view = memoryview(data).cast("B")
        if self._terminal and len(view) and hung_up(self._fd):
            _broken("the command has ended")
        written = 0
        while written < len(view):
            rest = view[written:]
            if self._in_kernel():
                # POLLOUT promises PIPE_BUF bytes; a blocking write of more could be stuck.
                rest = rest[: select.PIPE_BUF]
                if not self._wait(WRITE):
                    _broken()
            count = self._write_once(rest)
            if not count:
                if self._given and not self._stop.is_set():
                    return written or None
                if not self._wait(WRITE):
                    _broken()
            written += count
        return written

    def ready(self, timeout: float | None) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""
        self._check_open()
        return wait_for(self._fd, WRITE, self._stop, timeout) or self._stop.is_set()

    def write_now(self, data: ReadableBuffer, /) -> int:
        """Write as much as is taken without blocking; return how many bytes, perhaps none."""
        self._check_open()
        if self._in_kernel():
            return 0
        if self._terminal and hung_up(self._fd):
            _broken("the command has ended")
        return self._write_once(data)

    def is_broken(self) -> bool:
        """Whether nobody has the other end any more."""
        return self.closed or hung_up(self._fd)

    def _write_once(self, data: ReadableBuffer) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise
        except OSError as error:
            # EIO: the terminal has no process any more. Others: as in DescriptorReader.
            if error.errno not in (errno.EIO, errno.EBADF):
                raise
            raise BrokenPipeError(error.errno, "the command has ended") from error

    def send_eof(self) -> None:
        """Write the end-of-file character of a terminal; on a pipe, closing is the only way."""
        if self._last is not None:
            self.write(self._last())

    def close(self) -> None:
        if not self.closed:
            try:
                with suppress_system(BrokenPipeError):  # nobody is left to be told
                    self.send_eof()
            finally:
                super().close()

    def _drop(self) -> None:
        # In a process that was forked, the terminal is the parent's.
        if self._last is not None and self._fd >= 0 and self._owner == os.getpid():
            with suppress_system():  # a terminal that takes no more does without
                os.write(self._fd, self._last())  # non-blocking, as ever
        super()._drop()


def write_to(descriptor: int, data: memoryview) -> int | None:
    """Write to a descriptor; ``None`` if that would block and somebody made it non-blocking."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return None


def wait_a_while(
    waitable: threading.Condition | threading.Event, timeout: float | None = None
) -> bool:
    """Block until there is a notification, or for no particular time; ask again then.

    In the main thread that is a second at most, for the sake of signals (:func:`.wakeup.a_while`).

    Returns:
        What the wait of a condition or an event does.
    """
    return waitable.wait(a_while(timeout))


class BoundedPipe:
    """A pipe in memory with a limit, between a thread that receives and the readers.

    Safe to use from several threads.

    Args:
        limit: How many bytes may wait before :meth:`feed` blocks.
        slack: How many more, of what may come before whoever feeds knows the limit.
        taken: Called by whoever reads, after each quarter of the limit (256 KiB at most), with how
            many bytes have been read since the beginning. Whoever feeds no more than the limit
            beyond that never blocks.
        closed: Called, once, when nobody reads any more. What was dropped by then is not told:
            see :meth:`tell_taken`.
    """

    def __init__(
        self,
        limit: int = DEFAULT_LIMIT,
        taken: Callable[[int], None] | None = None,
        closed: Callable[[], None] | None = None,
        slack: int = 0,
    ) -> None:
        self.limit = limit
        self._most = limit + slack
        # One lock guards everything below; the two conditions share it. Re-entrant, for the handler
        # of a signal may close this pipe while its own thread is in here.
        self._lock = threading.RLock()
        self._readable = threading.Condition(self._lock)
        self._writable = threading.Condition(self._lock)
        self._chunks: deque[memoryview] = deque()
        self._tail = bytearray()  # small pieces that came last, not among the chunks yet
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._reader_gone = False
        self._gone_since = 0.0  # time.monotonic()
        self._unwanted: Callable[[], None] | None = None
        self._ever_read = False
        self._full_since: float | None = None  # time.monotonic() when feed began to block
        self._taken = taken
        self._closed = closed
        self._read = self._told = 0  # bytes since the beginning; and when that was told last
        self._tell_every = max(1, min(TELL_EVERY, limit // 4))

    def feed(self, data: Buffer) -> None:
        """Append bytes, which are kept and not copied; block while the pipe is full.

        A single chunk may exceed the limit when the pipe is empty. Bytes that come after the end,
        or that no reader wants any more, are dropped.
        """
        size = len(data)
        if not size:
            return
        with self._lock:
            while (
                self._size
                and self._size + size > self._most
                and not self._reader_gone
                and not self._ended
            ):
                if self._full_since is None:
                    self._full_since = time.monotonic()
                wait_a_while(self._writable)
            self._full_since = None
            if not (self._reader_gone or self._ended):
                self._append(data)
                self._size += size
                self._readable.notify()
                return
            if self._ended:
                return
            # It is as good as read, lest whoever feeds wait for credit.
            self._size += size
            taken, unwanted = self._count(size), None
            if time.monotonic() - self._gone_since > _IN_FLIGHT:
                unwanted, self._unwanted = self._unwanted, None
        for call in (taken, unwanted):
            if call is not None:
                call()

    def _append(self, data: Buffer) -> None:
        """Requires holding the lock."""
        # A chunk for every byte that a command writes would cost hundreds.
        if len(data) < _SMALL and (self._chunks or self._tail):
            self._tail += data
            if len(self._tail) < _SMALL:
                return
            data = b""
        self._close_tail()
        if len(data):
            self._chunks.append(memoryview(data))

    def _close_tail(self) -> None:
        """Let the small pieces be a chunk; requires holding the lock."""
        if self._tail:
            self._chunks.append(memoryview(self._tail))
            self._tail = bytearray()

    @property
    def reader_gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._reader_gone

    def when_unwanted(self, call: Callable[[], None]) -> None:
        """Have a function called, once, when more comes although the reader has gone.

        What has just been on the way when the reader closed does not count. The function is
        called by the thread that feeds. Nor does what is dropped in silence.
        """
        with self._lock:
            if not self._ended:
                self._unwanted = call

    def feed_eof(self, error: Exception | None = None) -> None:
        """End the stream: after what is in the pipe, readers see the end, or ``error`` raised.

        Only the first call counts.
        """
        with self._lock:
            if not self._ended:
                self._ended = True
                self._error = error
                # They refer to the process or its connection: no cycle may outlive this.
                self._unwanted = self._taken = self._closed = None
                self._readable.notify_all()
                self._writable.notify_all()

    def leave_to_parent(self, error: Exception) -> None:
        """End this with an error, in a process that was forked.

        What is in the pipe is the parent's, and nobody feeds this one any more. The lock may be
        held by a thread that has not come along.
        """
        self._lock = threading.RLock()
        self._readable = threading.Condition(self._lock)
        self._writable = threading.Condition(self._lock)
        self._clear()
        self.feed_eof(error)

    def _clear(self) -> None:
        """Drop what is in the pipe; requires holding the lock."""
        self._chunks.clear()
        self._tail = bytearray()
        self._size = 0

    def close_reader(self, tell: bool = True) -> None:
        """Drop what is in the pipe and all that will come: nobody reads any more.

        Args:
            tell: False drops it in silence: whoever writes is not to learn of it.
        """
        with self._lock:
            closed = None
            if not self._reader_gone:
                if not tell:
                    self._unwanted = self._closed = None
                closed, self._closed = self._closed, None
                self._reader_gone = True
                self._gone_since = time.monotonic()
            self._read += self._size
            self._clear()
            self._readable.notify_all()
            self._writable.notify_all()
        if closed is not None:
            closed()

    def drop_reader(self) -> None:
        """Do the same some time soon; for finalizers, as it takes no lock."""
        if not (self._reader_gone or self._ended):
            later(self.close_reader)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Block until there is something or the end; return how many bytes were stored."""
        view = memoryview(buffer).cast("B")
        room = len(view)
        if not room:
            return 0
        with self._lock:
            self._ever_read = True
            while not self._size:
                if self._reader_gone or self._ended:
                    if self._error is not None and not self._reader_gone:
                        raise copy_error(self._error)
                    return 0
                wait_a_while(self._readable)
            done = 0
            while done < room and self._size > done:
                if not self._chunks:
                    self._close_tail()
                chunk = self._chunks[0]
                size = len(chunk)
                if size <= room - done:
                    view[done : done + size] = chunk
                    self._chunks.popleft()
                    done += size
                else:
                    take = room - done
                    view[done:] = chunk[:take]
                    self._chunks[0] = chunk[take:]
                    done = room
            taken = self._count(done)
        if taken is not None:
            taken()
        return done

    def _count(self, done: int) -> Callable[[], None] | None:
        """Count what has been read; return what tells of it, if it is time. Requires the lock."""
        self._size -= done
        self._read += done
        self._writable.notify()
        if self._taken is None or self._read - self._told < self._tell_every:
            return None
        self._told = self._read
        return functools.partial(self._taken, self._told)

    def tell_taken(self) -> None:
        """Tell how much has been read, or dropped, be it time for that or not."""
        with self._lock:
            taken, position = self._taken, self._read
            self._told = position
        if taken is not None:
            taken(position)

    def take_the_rest(self) -> None:
        """Let :meth:`feed` not block any more: no more comes than is on the way already."""
        with self._lock:
            self._most = sys.maxsize
            self._writable.notify_all()

    def ready(self, timeout: float | None) -> bool:
        """Block until :meth:`readinto` would not, for at most ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._ever_read = True
            while not (self._size or self._reader_gone or self._ended):
                rest = None if deadline is None else deadline - time.monotonic()
                if rest is not None and rest <= 0:
                    return False
                wait_a_while(self._readable, rest)
            return True

    def read_all(self) -> bytes:
        """Block until the end; return all there was."""
        pieces: list[memoryview] = []
        while True:
            with self._lock:
                self._ever_read = True
                self._close_tail()
                pieces += self._chunks
                self._chunks.clear()
                taken = self._count(self._size)
                if self._reader_gone or self._ended:
                    if self._error is not None and not self._reader_gone:
                        raise copy_error(self._error)
                    break
                if taken is None:
                    wait_a_while(self._readable)
            if taken is not None:
                taken()
        return b"".join(pieces)

    def unread_for(self) -> float | None:
        """Return for how many seconds a never-read pipe has been full; ``None`` if it is not."""
        with self._lock:
            if self._full_since is None or self._ever_read:
                return None
            return time.monotonic() - self._full_since


class PipeReader(RawFile):
    """The raw, readable end of a :class:`BoundedPipe`."""

    mode = "rb"
    _fd = -1  # once somebody has asked for it, all reading goes through it

    def __init__(self, pipe: BoundedPipe) -> None:
        self._pipe = pipe

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return a descriptor, for ``select`` or as another program's standard input.

        The first call makes a pipe of the kernel's, and a thread that copies into it; without a
        call, there is neither. What others read from the descriptor is missing here, as with any
        file. The thread ends after the output's end, which is then the pipe's, or when it comes
        to write and finds that every copy of the descriptor is closed. A lost connection is the
        end of the file to the readers of the descriptor; reading here raises ``ExitMissing``.
        After ``os.set_blocking(file.fileno(), False)``, reading here does not block either.
        """
        self._check_open()
        if self._fd < 0:
            reader, descriptor = os.pipe()
            writer = open(descriptor, "wb", buffering=0)  # noqa: SIM115 - the thread's
            pipe = self._pipe  # not self, which is closed when nobody else refers to it

            def died(error: Exception) -> None:
                # Who reads here is told; the descriptor can only end.
                pipe.feed_eof(WsepError(f"internal error: {type(error).__name__}"))
                writer.close()

            try:
                # A daemon: it may have to wait for whoever reads the pipe.
                start_thread(_copy_to_descriptor, pipe, writer, name="wsep-fileno", died=died)
            except RuntimeError:
                os.close(reader)
                writer.close()
                raise
            self._fd = reader
        return self._fd

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._check_open()
        if self._fd < 0:
            return self._pipe.readinto(buffer)
        try:
            # At the end, the other pipe knows whether it is a good one.
            return os.readv(self._fd, [buffer]) or self._pipe.readinto(buffer)
        except BlockingIOError:  # somebody made the descriptor non-blocking
            return None

    def ready(self, timeout: float | None) -> bool:
        """Block until ``readinto`` would not, for at most ``timeout`` seconds; return if so."""
        if self._fd < 0:
            return self._pipe.ready(timeout)
        return wait_for(self._fd, READ, None, timeout)

    def readall(self) -> Any:  # bytes or None; typeshed knows only of bytes
        self._check_open()
        return self._pipe.read_all() if self._fd < 0 else _read_all(self)

    def when_unwanted(self, call: Callable[[], None]) -> None:
        """See :meth:`BoundedPipe.when_unwanted`."""
        self._pipe.when_unwanted(call)

    def discard(self) -> None:
        """Drop all that comes, and let the command write on: to close this would tell it."""
        self._pipe.close_reader(tell=False)

    def stop(self) -> None:
        """End a read that blocks in another thread, and each later one: nobody wants more."""
        self._pipe.close_reader()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._fd < 0:
            self._pipe.close_reader()
        else:
            # Another program may have a copy of it and read on: the thread goes on for that.
            os.close(self._fd)

    def _drop(self) -> None:
        if self._fd >= 0:
            with suppress_system():
                self.close()
        else:
            super().close()
            self._pipe.drop_reader()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def _copy_to_descriptor(pipe: BoundedPipe, file: io.FileIO) -> None:
    buffer = memoryview(bytearray(_READ_BUFFER))
    try:
        while count := pipe.readinto(buffer):
            rest = buffer[:count]
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
    except BrokenPipeError:
        pipe.close_reader()
    except WsepError:
        pass  # a descriptor can only end; PipeReader raises it
    finally:
        file.close()


class _Sink(RawFile):
    def writable(self) -> bool:
        return True

    def _drop(self) -> None:
        pass


class _NoWriter(Writer):
    """The standard input of a command that has none."""

    def write(self, _data: ReadableBuffer, /) -> NoReturn:
        raise io.UnsupportedOperation("the command has no stdin: start it with stdin=True")


def buffered_reader(raw: io.RawIOBase) -> io.BufferedReader:
    return Reader(raw, _READ_BUFFER)


def buffered_writer(raw: io.RawIOBase) -> io.BufferedWriter:
    return Writer(raw)


def empty_reader() -> io.BufferedReader:
    """Return a file that is at its end: the error output of a command on a terminal."""
    pipe = BoundedPipe()
    pipe.feed_eof()
    return buffered_reader(PipeReader(pipe))


def no_writer() -> io.BufferedWriter:
    """Return a file on which writing raises ``io.UnsupportedOperation``."""
    return _NoWriter(_Sink())


def hung_up(master: int) -> bool:
    """Whether every process has left a terminal; its kernel would take what we write then.

    Of a pipe's end for writing: whether nobody has the other.
    """
    poll = select.poll()
    poll.register(master, 0)
    return bool(poll.poll(0))  # POLLHUP or POLLERR, which need not be asked for


def _broken(reason: str = "the process is closed") -> NoReturn:
    raise BrokenPipeError(errno.EPIPE, reason)


def close_quietly(file: io.IOBase) -> None:
    """Close a file; a pipe that is broken by then is no news."""
    with suppress_system(OSError, ValueError):
        file.close()
