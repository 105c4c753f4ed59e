"""A pipe in memory, that a thread fills and a :class:`PipeReader` empties: :class:`BoundedPipe`."""

from __future__ import annotations

import functools
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ..dropped import later
from ..errors import WsepError, copy_error, suppress_system
from ..threads import start_thread
from .wakeup import READ, a_while, wait_for

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
from .files import READ_BUFFER, RawFile, read_all

__all__ = [
    "DEFAULT_LIMIT",
    "TELL_EVERY",
    "BoundedPipe",
    "Buffer",
    "PipeReader",
    "wait_a_while",
]


Buffer: TypeAlias = "bytes | bytearray | memoryview"


#: How many bytes of an output are kept while nobody reads it.
DEFAULT_LIMIT = 1 << 20


# For how long after a reader has gone what arrives may have been on the way before.
_IN_FLIGHT = 0.25


# Shorter pieces are put together: to keep one costs some 500 bytes.
_SMALL = 1 << 12


#: After how many bytes it is told how much has been read.
TELL_EVERY = 1 << 18


def wait_a_while(
    waitable: threading.Condition | threading.Event, timeout: float | None = None
) -> bool:
    """Block until there is a notification, or for no particular time; ask again then.

    In the main thread that is a second at most, for the sake of signals (:func:`.a_while`).

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
        self._readable_call: Callable[[], None] | None = None
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
                if self._readable_call is not None:
                    self._readable_call()
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
                call, self._readable_call = self._readable_call, None
                if call is not None:
                    call()

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

    def when_readable(self, call: Callable[[], None]) -> None:
        """Have a function called whenever there is more to read, and at the end.

        It is called with a lock held, and must not block.
        """
        with self._lock:
            self._readable_call = call
        call()

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Block until there is something or the end; return how many bytes were stored."""
        return self._read_into(buffer, wait=True) or 0

    def read_now(self, buffer: WriteableBuffer) -> int | None:
        """Store what there is and return how much; ``None`` if nothing yet, 0 at the end."""
        return self._read_into(buffer, wait=False)

    def _read_into(self, buffer: WriteableBuffer, wait: bool) -> int | None:
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
                if not wait:
                    return None
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

    def read_now(self, buffer: WriteableBuffer) -> int | None:
        """See :meth:`BoundedPipe.read_now`. Not once somebody has asked for a descriptor."""
        return self._pipe.read_now(buffer)

    def when_readable(self, call: Callable[[], None]) -> None:
        """See :meth:`BoundedPipe.when_readable`."""
        self._pipe.when_readable(call)

    def ready(self, timeout: float | None) -> bool:
        """Block until ``readinto`` would not, for at most ``timeout`` seconds; return if so."""
        if self._fd < 0:
            return self._pipe.ready(timeout)
        return wait_for(self._fd, READ, None, timeout)

    def readall(self) -> Any:  # bytes or None; typeshed knows only of bytes
        self._check_open()
        return self._pipe.read_all() if self._fd < 0 else read_all(self)

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
    buffer = memoryview(bytearray(READ_BUFFER))
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
