"""The input of a command on another machine: :class:`SentInput`."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from ..errors import suppress_system
from ..threads import start_thread
from .descriptors import write_to
from .files import RawFile
from .wakeup import READ, WRITE, Wakeup, wait_for

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "SentInput",
]


class SentInput(RawFile):
    """The raw, writable end of an input that is sent to where its command runs.

    How a piece is sent is said by :meth:`_send`, and how the end is by :meth:`send_eof`.
    """

    mode = "wb"
    _most: int  # how many bytes are sent at once
    _fd = -1  # once somebody has asked for it, all writing goes through it
    _stop: Wakeup | None = None  # of the thread that fileno() started

    def _send(self, piece: memoryview) -> None:
        """Block until a piece is sent.

        Raises:
            BrokenPipeError: Nothing is wanted any more.
        """
        raise NotImplementedError

    def send_eof(self) -> None:
        """Tell the command that its input has ended, or nobody if nothing is wanted any more."""
        raise NotImplementedError

    def _is_over(self) -> bool:
        """Whether nothing is wanted any more; set before :meth:`_end_thread` is called."""
        raise NotImplementedError

    def _thread_died(self, error: Exception) -> None:
        """The thread of :meth:`fileno` has; those who write to the pipe are told so by itself."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return a descriptor, for ``select`` or as another program's standard output.

        The first call makes a pipe of the kernel's, and a thread that sends what comes out of it;
        without a call, there is neither. The thread ends when every copy of the descriptor is
        closed, this file's included, which is the end of the command's input; or when nothing is
        wanted any more: then writing to the pipe fails with ``EPIPE``. After
        ``os.set_blocking(file.fileno(), False)``, writing here does not block either.
        """
        self._check_open()
        if self._fd < 0:
            descriptor, writer = os.pipe()
            reader = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - the thread's
            stop = Wakeup()

            def died(error: Exception) -> None:
                self._thread_died(error)
                reader.close()

            self._stop = stop
            if self._is_over():
                stop.set()
            try:
                # A daemon, as the threads that receive are.
                start_thread(self._send_all, reader, stop, name="wsep-fileno", died=died)
            except RuntimeError:
                reader.close()
                os.close(writer)
                raise
            self._fd = writer
        return self._fd

    def _send_all(self, file: io.FileIO, stop: Wakeup) -> None:
        try:
            while wait_for(file.fileno(), READ, stop):
                data = os.read(file.fileno(), self._most)
                if not data:
                    self.send_eof()
                    return
                self._send(memoryview(data))
        except BrokenPipeError:
            pass  # those who write get it, too
        finally:
            file.close()

    def _end_thread(self) -> None:
        """Let the thread of :meth:`fileno` end."""
        if self._stop is not None:
            self._stop.set()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def write(self, data: ReadableBuffer, /) -> int | None:
        self._check_open()
        view = memoryview(data).cast("B")
        if self._fd >= 0:
            return write_to(self._fd, view)
        for start in range(0, len(view), self._most):
            self._send(view[start : start + self._most])
        return len(view)

    def ready(self, timeout: float | None) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""
        return self._fd < 0 or wait_for(self._fd, WRITE, None, timeout)

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._fd < 0:
                self.send_eof()
            else:
                # Another program may have a copy of it: the last to close it ends the input.
                os.close(self._fd)
        finally:
            super().close()

    def _drop(self) -> None:
        if self._fd >= 0 or self._is_over():  # then there is nothing to send
            with suppress_system():
                self.close()
        else:
            super()._drop()
