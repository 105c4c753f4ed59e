"""The ends of a pipe or a terminal: :class:`DescriptorReader`, :class:`DescriptorWriter`."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import suppress_system
from .wakeup import READ, WRITE, Pollable, Wakeup, wait_for

if sys.platform == "linux":
    import fcntl
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
from .files import RawFile, read_all

__all__ = [
    "Descriptor",
    "DescriptorReader",
    "DescriptorWriter",
    "Handover",
    "broken",
    "hung_up",
    "write_to",
]


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


# So many bytes are what a key is answered with: behind them, a terminal has no more for now. Where
# much is waiting, it gives 4 KiB to a read.
_LITTLE = 256


class Descriptor(RawFile):
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
            Descriptor.close(self)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _wait(self, event: int) -> bool:
        """Block until the descriptor is ready; False when the process was closed instead."""
        return wait_for(self._fd, event, self._stop)


class DescriptorReader(Descriptor):
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

    def poll_fileno(self) -> int:
        """Return the descriptor, for whoever polls it: it stays as it is, unlike by fileno()."""
        return self._fd

    def read_now(self, buffer: memoryview) -> int | None:
        """Store what there is and return how much; ``None`` if nothing yet, 0 at the end."""
        done = 0
        while done < len(buffer):
            try:
                count = os.readv(self._fd, [buffer[done:]])
            except OSError as error:
                if done:  # the next call will see it again
                    break
                if error.errno == errno.EAGAIN:
                    return 0 if self._stop.is_set() else None
                if error.errno not in (errno.EIO, errno.EBADF):  # as in readinto
                    raise
                return 0
            done += count
            if count < _LITTLE or not self._terminal:
                break  # of a terminal, more may be waiting
        return done

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
        return read_all(self)


class DescriptorWriter(Descriptor):
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
            broken("the command has ended")
        written = 0
        while written < len(view):
            rest = view[written:]
            if self._in_kernel():
                # POLLOUT promises PIPE_BUF bytes; a blocking write of more could be stuck.
                rest = rest[: select.PIPE_BUF]
                if not self._wait(WRITE):
                    broken()
            count = self._write_once(rest)
            if not count:
                if self._given and not self._stop.is_set():
                    return written or None
                if not self._wait(WRITE):
                    broken()
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
            broken("the command has ended")
        return self._write_once(data)

    def poll_fileno(self) -> int:
        """Return the descriptor, for whoever polls it: it stays as it is, unlike by fileno()."""
        return self._fd

    def end_of_file(self) -> bytes:
        """Return the character that ends a terminal's input; nothing of a pipe."""
        return b"" if self._last is None else self._last()

    def end_now(self) -> bool:
        """End the input as ``close`` does; False if that cannot be without blocking."""
        if self._last is not None:
            if (character := self._last()) and not self.write_now(character):
                return False
            self._last = None
        self.close()
        return True

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


def hung_up(master: int) -> bool:
    """Whether every process has left a terminal; its kernel would take what we write then.

    Of a pipe's end for writing: whether nobody has the other.
    """
    poll = select.poll()
    poll.register(master, 0)
    return bool(poll.poll(0))  # POLLHUP or POLLERR, which need not be asked for


def broken(reason: str = "the process is closed") -> NoReturn:
    raise BrokenPipeError(errno.EPIPE, reason)
