"""A command on an SSH host, from its start to its end: :class:`SSHProcess`."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ... import process, streams
from ...dropped import Hold
from ...errors import ExitError, OutputUnread, copy_error
from ...process import Awaited
from ...protocol.command import Command
from ...protocol.messages import Resize, Signal
from ...threads import start_thread
from .answers import Answers
from .input import SSHInput
from .library import PIECE, close_quietly, lost
from .status import SIGNALS, Status

if TYPE_CHECKING:
    from .connection import Connection

__all__ = [
    "SSHProcess",
]


# For how long an output must have been full, and never read, before wait() says so.
_UNREAD_AFTER = 5.0


class SSHProcess(Awaited):
    """A command on an SSH host. Made by :class:`SSHExecer`."""

    def __init__(
        self,
        connection: Connection,
        channel: Any,
        command: Command,
        pid: int,
        terminal: str,
        answers: Answers,
        status: Status,
        finished: Callable[[], None],
    ) -> None:
        self.pid = pid
        self._place = f"at {connection.url}"
        self._connection = connection
        self._channel = channel
        self._tty = command.tty
        self._status = status
        self._finished = finished
        end_of_file = functools.partial(connection.end_of_file, terminal) if command.tty else None
        self._input = SSHInput(channel, status, end_of_file)
        if command.stdin or command.tty:
            self.stdin = streams.buffered_writer(self._input)
        else:
            self.stdin = streams.no_writer()
        self._out = streams.BoundedPipe()
        self._out.feed(answers.rest)
        self.stdout = streams.buffered_reader(streams.PipeReader(self._out))
        self._err = streams.BoundedPipe()
        self.stderr = streams.buffered_reader(streams.PipeReader(self._err))
        self._lock = threading.Lock()  # guards _open
        self._open = 1 if command.tty else 2  # how many outputs have not ended
        # One for each output, which ends with it: at the latest when the channel or the connection
        # is closed. The last sees to the command's end. Daemons, so that a script that forgot a
        # process can end.
        self._readers: list[threading.Thread] = []
        if command.tty:
            self._err.feed_eof()
        else:
            self._start_reader(self._read_err, "err", answers.mark)
        self._start_reader(self._read_out, "out")

    def _start_reader(self, read: Callable[..., None], name: str, *args: object) -> None:
        hold = Hold()  # for the files, until nothing more will come

        def run() -> None:
            try:
                read(*args)
            finally:
                hold.release()

        def died(error: Exception) -> None:
            hold.release()
            self._reader_died(error)

        try:
            thread = start_thread(run, name=f"wsep-ssh-{name}-{self.pid}", died=died)
        except BaseException:
            hold.release()
            raise
        self._readers.append(thread)

    def _reader_died(self, error: Exception) -> None:
        self._status.set(None, f"internal error: {type(error).__name__}")
        for pipe in (self._out, self._err):
            pipe.feed_eof(self._status.missing)
        self._input.end()
        close_quietly(self._channel)
        self._finished()

    def _read_out(self) -> None:
        self._read(self._channel.recv, self._out)

    def _read_err(self, mark: bytes) -> None:
        # What comes before the mark was said by the login shell.
        said = b""
        with contextlib.suppress(*lost()):
            while (mark + b"\n") not in said and (piece := self._channel.recv_stderr(PIECE)):
                said = (said + piece)[-(PIECE + len(mark)) :]
        self._err.feed(said.partition(mark + b"\n")[2])
        self._read(self._channel.recv_stderr, self._err)

    def _read(self, receive: Callable[[int], bytes], pipe: streams.BoundedPipe) -> None:
        with contextlib.suppress(*lost()):
            while data := receive(PIECE):
                pipe.feed(data)
        self._look_for_loss()
        pipe.feed_eof(self._status.missing)
        with self._lock:
            self._open -= 1
            if self._open:
                return
        # The status, if it has not come yet, or the end of the channel.
        self._channel.recv_exit_status()
        self._look_for_loss()
        self._input.end()
        close_quietly(self._channel)
        self._finished()

    def _look_for_loss(self) -> None:
        """If the channel has ended without a status, there will be none."""
        if self._channel.closed:
            self._status.set(None, "the connection ended")

    def resize(self, rows: int, cols: int) -> None:
        Resize(rows, cols)  # raises what is wrong with them
        if self._tty and not self._status.known.is_set():
            with contextlib.suppress(*lost()):
                self._channel.resize_pty(cols, rows)

    def send_signal(self, signal: int) -> None:
        Signal(signal)  # raises what is wrong with it
        if signal and not self._status.known.is_set():
            self._connection.signal(self.pid, signal)

    def ended(self, timeout: float | None) -> bool:
        known = self._status.known
        deadline = None if timeout is None else time.monotonic() + timeout
        while not known.is_set():
            rest = None if deadline is None else deadline - time.monotonic()
            if rest is not None and rest <= 0:
                return False
            known.wait(1.0 if rest is None else min(rest, 1.0))
            self._look_for_loss()
            for name, pipe in (("stdout", self._out), ("stderr", self._err)):
                unread = pipe.unread_for()
                if not known.is_set() and unread is not None and unread > _UNREAD_AFTER:
                    raise OutputUnread(name, pipe.limit)
        return True

    def _check_status(self) -> None:
        if self._status.missing is not None:
            raise copy_error(self._status.missing)
        exit = self._status.exit
        assert exit is not None
        if exit.exit_code:
            raise ExitError(exit.exit_code, exit.error, exit.signal)

    def close(self) -> None:
        # What comes from now on is dropped: an output that nobody reads would hold up the rest.
        self._out.feed_eof()
        self._err.feed_eof()
        if not self._status.known.is_set():
            with contextlib.suppress(io.UnsupportedOperation):
                self._connection.end(self.pid, hang_up=self._tty)
                self._status.known.wait(process.CLOSE_GRACE + process.KILL_GRACE)
            self._status.set(None, "the process was closed")
        close_quietly(self._channel)
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join()
        streams.close_quietly(self.stdin)

    def kill(self) -> None:
        self.send_signal(SIGNALS["KILL"])
