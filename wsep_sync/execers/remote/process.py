"""A command at the other end of a WebSocket: :class:`RemoteProcess`."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal as signals
import threading
import time
import weakref

from ... import process, streams
from ...errors import (
    ExitError,
    ExitMissing,
    OutputUnread,
    ProtocolError,
    TransportClosed,
)
from ...process import SIGKILL, Awaited
from ...protocol.command import Command
from ...protocol.dialogue import ClientDialogue, has_credit
from ...protocol.messages import (
    FEATURE_CLOSE_OUTPUT,
    FEATURE_ECHO,
    FEATURE_SIGNAL,
    CloseOutput,
    Ended,
    Eof,
    ExitCode,
    Resize,
    Signal,
    Stderr,
    Stdout,
    Taken,
)
from ...transports.base import CLOSE_TIMEOUT, Transport
from .input import RemoteInput
from .receiver import Receiver

__all__ = [
    "RemoteProcess",
]


# How much of an output may come until a server knows the window that learns of it late: what the
# kernels hold on the way, and more. It is not read before the window has been sent.
_LATE_SLACK = 1 << 24


# For how long an output must have been full, and never read, before wait() says so.
_UNREAD_AFTER = 5.0


def _output_pipe(
    transport: Transport, name: str, limit: int, slack: int, features: frozenset[str]
) -> streams.BoundedPipe:
    """Return the pipe of an output, which tells the server what is read, and its closing.

    It refers to the transport alone: no cycle may keep the connection's descriptors.
    """
    taken = closed = None
    credit = has_credit(features)
    if credit:

        def taken(position: int) -> None:
            with contextlib.suppress(TransportClosed):  # reading goes on to what had come
                transport.send(Taken(**{name: position}).encode())

    if credit or FEATURE_CLOSE_OUTPUT in features:
        # Wakes the receiver, which tells the server.
        closed = functools.partial(transport.set_deadline, 0)
    return streams.BoundedPipe(limit, taken, closed, slack)


class RemoteProcess(Awaited):
    """A command at the other end of a WebSocket. Made by :class:`RemoteExecer`."""

    def __init__(
        self,
        transport: Transport,
        command: Command,
        dialogue: ClientDialogue,
        output_limit: int,
        told_window: bool,
        receiver: Receiver,
    ) -> None:
        self.pid = dialogue.pid.pid
        self.reattached = dialogue.pid.reattached
        self.features = dialogue.features
        self._place = f"at {transport.peer}" if transport.peer else ""
        self._transport = transport
        self._dialogue = dialogue
        self._tty = command.tty
        self._session = command.tty and bool(command.id)
        self._input = RemoteInput(transport, dialogue)
        slack = _LATE_SLACK if dialogue.credit and not told_window else 0
        self._out, self._err = (
            _output_pipe(transport, name, output_limit, slack, self.features)
            for name in ("stdout", "stderr")
        )
        self.stdout = streams.buffered_reader(streams.PipeReader(self._out))
        self.stderr = streams.buffered_reader(streams.PipeReader(self._err))
        if command.discard and not self._tty:
            # Where the command does not have the null device, it is dropped here.
            for name, pipe in (("stdout", self._out), ("stderr", self._err)):
                if name in command.discard:
                    pipe.close_reader(tell=False)
        if command.stdin or command.tty:
            self.stdin = streams.buffered_writer(self._input)
        else:
            self.stdin = streams.no_writer()
        # Set when the dialogue knows the exit status, or that it never will.
        self._ended = threading.Event()
        # Set when nothing more will come.
        self._done = threading.Event()
        self._told_closed: set[str] = set()  # by the receiver, of the server
        if dialogue.credit and not told_window:
            # The handshake did not name it. What comes until the server has this may be more than
            # the window.
            with contextlib.suppress(TransportClosed):  # as the receiver is about to see
                transport.send(Taken(window=output_limit).encode())
        # Receives until the exit status or the end of the connection, which close() brings about.
        self._receiver = receiver.thread
        self._receiver.name = f"wsep-receive-{self.pid}"
        receiver.begin(self._receive, self._receiver_died)
        _processes.add(self)

    def _receive(self) -> None:
        code, reason = 1000, "normal closure"
        lost = None
        try:
            self._receive_until_exit()
        except TransportClosed as closed:
            lost = str(closed)
        except ProtocolError as error:
            code, reason = error.close_code, str(error)
            lost = f"the server sent nonsense: {error}"
        self._tell_end(lost)
        self._transport.close(code, reason)

    def _receiver_died(self, error: Exception) -> None:
        self._tell_end(f"internal error: {type(error).__name__}")
        self._transport.abort()
        self._transport.close()

    def _tell_end(self, lost: str | None) -> None:
        """Nothing more will come.

        Args:
            lost: Why not, if it was before its time.
        """
        if lost is not None:
            # Before wait() returns: from then on, writing fails.
            self._input.lose(lost)
        missing = self._dialogue.missing
        error = None if missing is None else ExitMissing(f"no exit status: {missing}")
        if lost is not None and lost != missing:
            error = ExitMissing(f"the command has ended, but not all of its output came: {lost}")
        self._ended.set()
        self._done.set()
        self._out.feed_eof(error)
        self._err.feed_eof(error)

    def _receive_until_exit(self) -> None:
        while True:
            try:
                data = self._transport.receive()
            except TimeoutError:
                # An output was closed. First the deadline goes: of one that is closed from now on,
                # there is another.
                self._transport.set_deadline(None)
                self._tell_closed()
                continue
            message = self._input.receive(data)
            if isinstance(message, Stdout):
                self._out.feed(message.body)
            elif isinstance(message, Stderr):
                self._err.feed(message.body)
            elif isinstance(message, Ended):
                self._ended.set()
            elif isinstance(message, Eof):
                (self._out if message.stream == "stdout" else self._err).feed_eof()
            elif isinstance(message, ExitCode):
                return

    def _tell_closed(self) -> None:
        for name, pipe in (("stdout", self._out), ("stderr", self._err)):
            if pipe.reader_gone and name not in self._told_closed:
                self._told_closed.add(name)
                if FEATURE_CLOSE_OUTPUT in self.features:
                    self._transport.send(CloseOutput(name).encode())
                else:
                    pipe.tell_taken()  # so that it is sent on, to be dropped

    def resize(self, rows: int, cols: int) -> None:
        message = Resize(rows, cols).encode()
        if self._tty and not self._ended.is_set():
            with contextlib.suppress(TransportClosed):
                self._transport.send(message)

    def echo(self, on: bool | None = None) -> bool:
        if FEATURE_ECHO not in self.features:
            return super().echo(on)
        return self._input.ask_echo(on)

    def send_signal(self, signal: int) -> None:
        message = Signal(signal).encode()
        if FEATURE_SIGNAL not in self.features:
            if signal == SIGKILL:
                self.kill()
                return
            raise io.UnsupportedOperation("this server cannot send signals to its commands")
        if not self._ended.is_set():
            with contextlib.suppress(TransportClosed):
                self._transport.send(message)

    def _send_last(self, signal: int) -> None:
        """Send a signal that is to end the command.

        Where the other end takes nothing, another thread may be stuck in sending. After some
        seconds the connection is cut, which ends the command as well.
        """
        if not self._ended.is_set():
            with contextlib.suppress(TransportClosed):
                self._transport.send(Signal(signal).encode(), timeout=CLOSE_TIMEOUT)

    def hang_up(self) -> None:
        if FEATURE_SIGNAL in self.features:
            self._send_last(getattr(signals, "SIGHUP", 1))
        self.close()

    def ended(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended.is_set():
            rest = None if deadline is None else deadline - time.monotonic()
            if rest is not None and rest <= 0:
                return False
            self._ended.wait(1.0 if rest is None else min(rest, 1.0))
            for name, pipe in (("stdout", self._out), ("stderr", self._err)):
                unread = pipe.unread_for()
                if unread is not None and unread > _UNREAD_AFTER and not self._ended.is_set():
                    raise OutputUnread(name, pipe.limit)
        return True

    def _check_status(self) -> None:
        if self._dialogue.missing is not None:
            # Of no name here, for its traceback refers to this frame.
            raise ExitMissing(f"no exit status: {self._dialogue.missing}")
        status = self._dialogue.status
        assert status is not None
        if status.exit_code or status.signal is not None:
            raise ExitError(status.exit_code, status.error, status.signal)

    def close(self) -> None:
        # What comes from now on is dropped: from a server without credit, an output that nobody
        # reads would hold up the status.
        self._out.feed_eof()
        self._err.feed_eof()
        if not self._ended.is_set() and FEATURE_SIGNAL in self.features and not self._session:
            if self._tty:
                self._send_last(getattr(signals, "SIGHUP", 1))
            self._send_last(signals.SIGTERM)
            if not self._ended.wait(process.CLOSE_GRACE):
                self.kill()
                self._ended.wait(process.KILL_GRACE)
        if not self._done.is_set():
            self._transport.close(1000, "closed")
        if threading.current_thread() is not self._receiver:
            self._receiver.join()
        streams.close_quietly(self.stdin)

    def kill(self) -> None:
        if FEATURE_SIGNAL in self.features:
            self._send_last(SIGKILL)
        else:
            self._transport.abort()
            # Or else output that nobody reads would hide that.
            self._out.take_the_rest()
            self._err.take_the_rest()

    def _leave_to_parent(self) -> None:
        """Have no command any more, in a process that was forked: its thread is not there."""
        if self._done.is_set():
            return
        reason = "the command is that of the parent process"
        self._input.leave_to_parent(reason)
        for pipe in (self._out, self._err):
            pipe.leave_to_parent(ExitMissing(f"no exit status: {reason}"))
        self._ended, self._done = threading.Event(), threading.Event()
        self._ended.set()
        self._done.set()


_processes: weakref.WeakSet[RemoteProcess] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for remote in list(_processes):
        remote._leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_all_to_parent)
