"""The input of a remote command: :class:`RemoteInput`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
from typing import TYPE_CHECKING

from ... import streams
from ...errors import (
    TransportClosed,
    suppress_system,
)
from ...protocol.messages import (
    MAX_BODY,
    STDIN_HEADER,
    CloseStdin,
)
from ...streams.wakeup import READ, WRITE, Wakeup, wait_for
from ...threads import start_thread
from ...transports.base import Transport

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "RemoteInput",
]


# How much input may be on the way to a server that tells how much the command was given.
_STDIN_WINDOW = 1 << 20


class RemoteInput(streams.RawFile):
    """The raw, writable end of a remote command's input.

    It does not refer to its process, so that no cycle keeps a connection's descriptors until the
    garbage collector comes by.

    Args:
        credit: The server tells how much of it the command was given; see :class:`.StdinTaken`.
    """

    mode = "wb"
    _fd = -1  # once somebody has asked for it, all writing goes through it
    _ended = ""  # why nothing more is wanted, once nothing is

    def __init__(self, transport: Transport, credit: bool) -> None:
        self._transport = transport
        self._credit = credit
        # Guards _ended, and how many bytes were sent and have been given to the command.
        self._changed = threading.Condition()
        self._sent = self._taken = 0
        self._wakeup: Wakeup | None = None  # of the thread that fileno() started

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return a descriptor, for ``select`` or as another program's standard output.

        The first call makes a pipe of the kernel's, and a thread that sends what comes out of it;
        without a call, there is neither. The thread ends when every copy of the descriptor is
        closed, this file's included, which is the end of the command's input; or when the command
        ends: then writing to the pipe fails with ``EPIPE``. After
        ``os.set_blocking(file.fileno(), False)``, writing here does not block either.
        """
        self._check_open()
        if self._fd < 0:
            descriptor, writer = os.pipe()
            reader = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - the thread's
            wakeup = Wakeup()

            def died(error: Exception) -> None:
                self.end(f"internal error: {type(error).__name__}")
                reader.close()

            with self._changed:
                self._wakeup = wakeup
                if self._ended:
                    wakeup.set()
            try:
                # A daemon, as the thread that receives is.
                start_thread(
                    self._copy_from_descriptor, reader, wakeup, name="wsep-fileno", died=died
                )
            except RuntimeError:
                reader.close()
                os.close(writer)
                raise
            self._fd = writer
        return self._fd

    def _copy_from_descriptor(self, file: io.FileIO, wakeup: Wakeup) -> None:
        try:
            while wait_for(file.fileno(), READ, wakeup):
                data = os.read(file.fileno(), MAX_BODY)
                if not data:
                    self.send_eof()
                    return
                self._send(memoryview(data))
        except BrokenPipeError:
            pass  # those who write get it, too
        finally:
            file.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def write(self, data: ReadableBuffer, /) -> int | None:
        self._check_open()
        view = memoryview(data).cast("B")
        if self._fd >= 0:
            return streams.write_to(self._fd, view)
        for start in range(0, len(view), MAX_BODY):
            self._send(view[start : start + MAX_BODY])
        return len(view)

    def ready(self, timeout: float | None) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""
        return self._fd < 0 or wait_for(self._fd, WRITE, None, timeout)

    def _send(self, piece: memoryview) -> None:
        with self._changed:
            while self._credit and self._sent - self._taken >= _STDIN_WINDOW and not self._ended:
                streams.wait_a_while(self._changed)
            if self._ended:
                raise BrokenPipeError(errno.EPIPE, self._ended)
            self._sent += len(piece)
        try:
            self._transport.send(STDIN_HEADER, piece)
        except TransportClosed as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from error

    def taken(self, position: int) -> None:
        """The command has been given the input up to there."""
        with self._changed:
            self._taken = max(self._taken, min(position, self._sent))
            self._changed.notify_all()

    def is_broken(self) -> bool:
        """Whether the command is known to have closed its input, or to have ended."""
        return bool(self._ended)

    def end(self, reason: str) -> None:
        """Nothing is wanted any more: wake who writes, with ``BrokenPipeError`` and the reason."""
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()
            if self._wakeup is not None:
                self._wakeup.set()

    def leave_to_parent(self) -> None:
        """End this, in a process that was forked: the lock may be held by a thread left behind."""
        self._changed = threading.Condition()
        self.end("the command is that of the parent process")

    def send_eof(self) -> None:
        """Tell the command that its input has ended; a terminal sends its character for that."""
        if not self._ended:
            with contextlib.suppress(TransportClosed):
                self._transport.send(CloseStdin().encode())

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
        if self._fd >= 0 or self._ended:  # then there is nothing to send
            with suppress_system():
                self.close()
        else:
            super()._drop()
