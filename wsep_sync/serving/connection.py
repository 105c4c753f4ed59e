"""One connection and its command: :class:`Connection`."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import (
    ExitError,
    ProtocolError,
    SessionClosed,
    SessionNotFound,
    StartError,
    TransportClosed,
    WsepError,
    copy_error,
)
from ..jobs.options import Options
from ..jobs.session import LATE_LIMIT
from ..log import log_event
from ..process import SIGKILL, Process
from ..protocol.command import Command
from ..protocol.messages import (
    FEATURE_ATTACH,
    FEATURE_CLOSE_OUTPUT,
    FEATURE_ENDED,
    FEATURE_SIGNAL,
    FEATURE_TAKEN,
    FEATURES,
    MAX_MESSAGE,
    STDERR_HEADER,
    STDOUT_HEADER,
    Attach,
    CloseOutput,
    CloseStdin,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    Signal,
    Start,
    Stdin,
    StdinTaken,
    Taken,
    decode_client_message,
)
from ..protocol.words import NO_SESSION, start_failure
from ..streams.descriptors import DescriptorReader
from ..streams.files import close_quietly
from ..threads import start_thread
from ..transports.base import CLOSE_TIMEOUT, POLICY_VIOLATION, Buffer, Transport
from .metrics import Metrics

if TYPE_CHECKING:
    pass
from .input_queue import Input, InputQueue

__all__ = ["GOING_AWAY", "Connection", "Starter", "server_ending"]


# How many seconds a client has to close after it was told the exit status.
_CLOSE_WAIT = 5.0


# RFC 6455, section 7.4.1: going away.
GOING_AWAY = 1001


# How many seconds what a client had typed when it left its session may take to be written.
_LAST_INPUT_WAIT = 0.5


# How many messages are taken before the pid is sent: a client that sends without end must not hold
# it up.
_MOST_EARLY = 16


# Bytes of memory that an output which says little is read into, and what a pipe holds; then what
# one that says much has, and the messages that it fills: where many say much, what costs most is
# that their threads take turns. After so many seconds of silence all is given back.
_IDLE_BUFFER, _IDLE_PIPE = 1 << 12, 1 << 16


_BUSY_MESSAGES, _BUSY_PIPE = 2, 1 << 18


_IDLE_AFTER = 1.0


# What a server does itself, whatever process it has: it holds back what there is no credit for, and
# tells of an end as soon as the process does.
_OWN_FEATURES = frozenset((FEATURE_TAKEN, FEATURE_ENDED, FEATURE_ATTACH))


# More than any buffer has: an output that nothing holds up.
_MUCH = 1 << 30


def server_ending() -> ProtocolError:
    return ProtocolError("the server is ending", GOING_AWAY)


# Does what a client's first message asks for; returns the command, too.
Starter: TypeAlias = "Callable[[Start | Attach], tuple[Process, Command]]"


class _Output:
    """One output of a command, on its way to the client."""

    def __init__(self, name: str, header: bytes, file: io.BufferedReader) -> None:
        self.name = name
        self.header = header
        self.file = file
        self.raw: Any = file.raw  # offers what streams.RawOutput says, or a part of it
        # Positions in bytes since the beginning. The first is written by the thread that sends,
        # the second by that which receives.
        self.sent = 0
        self.taken = 0  # what the client has read
        self.closed = False  # the client does not want it any more
        self.ended = False
        self.error: Exception | None = None  # why it ended before its end


class Connection:
    """One connection and its command, from the first message to the last.

    The thread that serves receives and dispatches. Each output has a thread that sends it, as far
    as the client's window allows. One waits for the command, tells of its end, and sends the exit
    status when the outputs have ended, too. Input has a thread once the command does not take it
    at once, so that one that does not read cannot hide what else the client says. All of them end
    before :meth:`run` returns.
    """

    def __init__(self, transport: Transport, start: Starter, options: Options) -> None:
        self._transport = transport
        self._start_process = start
        self._options = options
        self._process: Process | None = None
        self._command: Command | None = None
        self._stdin: InputQueue | None = None
        self._stdin_has_thread = False
        self._threads: list[threading.Thread] = []
        self._outputs: dict[str, _Output] = {}
        # Guards the outputs' states but for what is said there, and _window. Waited on by those
        # who send the outputs, and for their end.
        self._changed = threading.Condition()
        # How many bytes of an output the client lets be on the way; None if it does not say.
        self._window: int | None = None
        self._ended = False  # the command has: nothing is left to be ended
        self._finished = False  # and the client has been told everything
        self._ending = False  # how the command ends does not matter any more
        # What another thread wants this one to raise; a deadline makes it look.
        self._failure: ProtocolError | None = None
        # For the log.
        self._began = 0.0  # time.monotonic()
        self._status: ExitCode | None = None
        self._received = 0  # bytes of input

    def run(self) -> None:
        try:
            self._receive_all()
        except ProtocolError as error:
            self._failure = copy_error(error)  # without a traceback, which refers to us
            raise
        finally:
            self._end()
            self._log_end()
        if self._failure is not None:
            raise copy_error(self._failure)

    def _receive_all(self) -> None:
        self._set_deadline(self._options.start_timeout)
        try:
            while True:
                self._dispatch(self._transport.receive())
        except TransportClosed:
            pass  # the client has gone, or is content
        except TimeoutError:
            # Else it has been told the exit status, and had its time to close.
            if self._process is None and self._failure is None:
                text = f"no start within {self._options.start_timeout:g} seconds"
                raise ProtocolError(text, POLICY_VIOLATION) from None

    def _set_deadline(self, seconds: float | None) -> None:
        self._transport.set_deadline(seconds)
        if self._failure is not None:
            # Another thread has set one meanwhile, and that one holds.
            self._transport.set_deadline(0)

    def go_away(self) -> None:
        """Let :meth:`run`, which another thread is in, end the command and raise 1001."""
        if not self._finished:
            self._failure = self._failure or server_ending()
        self._transport.set_deadline(0)

    def _dispatch(self, data: Buffer, early: bool = False) -> None:
        message = decode_client_message(data)
        if message is None:
            return
        process = self._process
        if isinstance(message, (Start, Attach)):
            if process is not None:
                raise ProtocolError("command already started")
            self._start(message)
        elif process is None:
            raise ProtocolError(f"{_type(message)} sent before command started")
        elif isinstance(message, Stdin):
            self._write_stdin(message.body)
        elif isinstance(message, CloseStdin):
            self._queue_input(None)
        elif isinstance(message, Taken):
            self._take_credit(message)
        elif isinstance(message, CloseOutput):
            self._close_output(message.stream)
        elif isinstance(message, Resize):
            process.resize(message.rows, message.cols)
        elif isinstance(message, Signal):
            if early:
                return
            self._signal(process, message.signal)

    def _start(self, message: Start | Attach) -> None:
        try:
            process, command = self._start_process(message)
        except SessionNotFound as error:
            raise ProtocolError(NO_SESSION) from error
        except StartError as error:
            asked = message.command if isinstance(message, Start) else Command("")
            raise ProtocolError(start_failure(error, asked)) from error
        except WsepError as error:  # of a server further on
            raise ProtocolError(f"start command: {error}") from error
        self._process = process
        self._command = command
        self._began = time.monotonic()
        self._log("attach" if process.reattached else "start")
        early = self._receive_early()
        can = _OWN_FEATURES | process.features
        if command.tty:
            can |= {FEATURE_CLOSE_OUTPUT}  # what it shows is read and dropped, here
        features = tuple(name for name in (FEATURE_SIGNAL, *FEATURES) if name in can)
        self._transport.send(Pid(process.pid, features, process.reattached).encode())
        self._window = message.window
        outputs = [_Output("stdout", STDOUT_HEADER, process.stdout)]
        if not command.tty:
            outputs.append(_Output("stderr", STDERR_HEADER, process.stderr))
        self._outputs = {output.name: output for output in outputs}
        for output in outputs:
            # Ends with its output, which close() of the process ends in any case.
            self._run(self._send_output, output, name="wsep-output")
        # Ends when the command and its outputs have, or the connection.
        self._run(self._send_end, name="wsep-end")
        for data in early:
            self._dispatch(data, early=True)

    def _receive_early(self) -> list[Buffer]:
        """Return the messages that have arrived before the pid names the additions.

        Whoever sent them can't have known that this server has additions: to the reference, and
        so to its clients, a signal is a message of an unknown type.
        """
        early: list[Buffer] = []
        self._transport.set_deadline(0)
        with contextlib.suppress(TimeoutError):
            while len(early) < _MOST_EARLY:
                early.append(self._transport.receive())
        self._set_deadline(None)
        return early

    def _run(self, target: Callable[..., None], *args: object, name: str) -> None:
        try:
            # No daemon: it has a part in ending the command.
            thread = start_thread(target, *args, name=name, died=self._fail, daemon=False)
        except RuntimeError as error:  # to the kernel threads are processes, of which it has enough
            raise ProtocolError(f"serve command: {error}") from error
        self._threads.append(thread)

    def _fail(self, _error: Exception) -> None:
        """Let :meth:`run` end the command, and tell the client that this side has failed."""
        self._fail_with("internal error")

    def _send_output(self, output: _Output) -> None:
        header, raw = output.header, output.raw
        ready: Callable[[float], bool] = getattr(raw, "ready", lambda _: False)
        set_capacity: Callable[[int], None] = getattr(raw, "set_capacity", lambda _: None)
        buffer = small = memoryview(bytearray(_IDLE_BUFFER))
        local_terminal = self._is_terminal() and isinstance(raw, DescriptorReader)
        late = 0
        try:
            while room := self._room(output):
                count = raw.readinto(buffer[:room] if room < len(buffer) else buffer)
                if not count:
                    break
                if output.closed:
                    continue  # of a terminal: the command goes on, and shows it to nobody
                if self._ended and local_terminal:
                    # Whoever the command left in the background may go on writing for ever. What
                    # comes through a server further on is bounded there, and may be long on its
                    # way: the end has overtaken it.
                    late += count
                    if late > LATE_LIMIT:
                        break
                output.sent += count  # first: the client may have read it before send returns
                self._transport.send_stream(header, buffer[:count])
                if count == len(buffer):
                    if buffer is small:
                        buffer = memoryview(bytearray(self._busy_size(header)))
                        set_capacity(_BUSY_PIPE)
                elif buffer is not small and room >= len(buffer) and not ready(_IDLE_AFTER):
                    buffer = small
                    set_capacity(_IDLE_PIPE)
        except TransportClosed:
            return  # the receiving thread sees it too, and ends the command
        except (WsepError, OSError) as error:
            if not output.closed:
                # Of a server further on. The end may have been told already, but not that of this.
                output.error = copy_error(error)
        if output.closed:
            close_quietly(output.file)
        with self._changed:
            output.ended = True
            self._changed.notify_all()

    def _room(self, output: _Output) -> int:
        """Block until something may be sent; return how many bytes, 0 if nothing more ever.

        Only the thread that sends this output calls it, and nobody else counts what is sent: so
        while there is room, there is nothing to lock.
        """
        while True:
            if output.closed:
                return _MUCH if self._is_terminal() else 0
            window = self._window
            if window is None:
                return _MUCH
            room = output.taken + window - output.sent
            if room > 0:
                return room
            with self._changed:
                if output.taken + window <= output.sent and not output.closed:
                    if self._ending:
                        return 0
                    self._changed.wait()

    def _is_terminal(self) -> bool:
        """Whether the command has a terminal, its own or that of a session."""
        return self._command is not None and self._command.tty

    def _take_credit(self, message: Taken) -> None:
        """Note what the client has read. A position that goes back says nothing new."""
        if message.window is not None:
            self._window = message.window
            if self._stdin is not None:
                self._stdin.tell = True
        with self._changed:
            for name, output in self._outputs.items():
                taken = getattr(message, name)
                if taken is not None:
                    if taken > output.sent:
                        raise ProtocolError(f"taken: {name} has not come as far as {taken}")
                    output.taken = max(output.taken, taken)
            self._changed.notify_all()

    def _close_output(self, name: str) -> None:
        """Close an output for the command, as the client has. A terminal's is read and dropped."""
        output = self._outputs.get(name)
        if output is None:
            return
        with self._changed:
            output.closed = True
            self._changed.notify_all()
        stop: Callable[[], None] | None = getattr(output.raw, "stop", None)
        if stop is not None and not self._is_terminal():
            stop()  # whoever reads it closes it then

    def _busy_size(self, header: bytes) -> int:
        # A terminal's output is for somebody who is waiting, and so is sent as it comes.
        assert self._command is not None
        messages = 1 if self._command.tty else _BUSY_MESSAGES
        return messages * (MAX_MESSAGE - len(header))

    def _send_end(self) -> None:
        assert self._process is not None
        try:
            self._process.wait()
            status = ExitCode(0)
        except ExitError as error:
            status = ExitCode(error.exit_code, error.message, error.signal)
        except SessionClosed:
            return  # this client has left its session, which goes on: nothing has failed
        except WsepError as error:
            self._fail_with(f"wait for command: {error}")
            return
        self._ended = True
        if self._is_over():
            return
        self._status = status
        with contextlib.suppress(TransportClosed):
            self._process.finish()
            ended_told = False
            told: set[str] = set()
            while True:
                if self._window is not None and not ended_told:
                    ended_told = True
                    self._tell_ended(status)
                names = self._wait_for_outputs(told, ended_told)
                if names is None:
                    break
                for name in names:
                    self._transport.send(Eof(name).encode())
                told.update(names)
            for output in self._outputs.values():
                if output.error is not None:
                    self._fail_with(f"read {output.name}: {output.error}")
            if self._is_over():
                return
            self._finished = True
            self._transport.send(status.encode())
            self._set_deadline(_CLOSE_WAIT)

    def _tell_ended(self, status: ExitCode) -> None:
        if self._takes_input() and self._is_deaf():
            # First: whoever hears of the end may count on it that writing fails.
            self._transport.send(StdinTaken(self._received, True).encode())
        self._transport.send(Ended(status).encode())

    def _wait_for_outputs(self, told: set[str], ended_told: bool) -> list[str] | None:
        """Block until no output is waited for, or there is something to tell the client.

        Returns:
            The outputs whose end it is to be told of: that of the last one shows by the exit
            status. ``None`` when no output is waited for.
        """
        with self._changed:
            while not self._ending and not self._outputs_over():
                if self._window is not None:
                    ended = [o.name for o in self._outputs.values() if o.ended and not o.error]
                    names = [name for name in ended if name not in told]
                    if names or not ended_told:
                        return names
                self._changed.wait()
        return None

    def _takes_input(self) -> bool:
        return self._command is not None and (self._command.stdin or self._command.tty)

    def _is_deaf(self) -> bool:
        """Whether nobody reads the input of the command, which has ended.

        Whoever it left in the background may.
        """
        assert self._process is not None
        if self._stdin is not None and self._stdin.ended and not self._is_terminal():
            return False  # the client has ended it itself
        is_broken = getattr(self._process.stdin.raw, "is_broken", None)
        try:
            return self._is_terminal() or is_broken is None or bool(is_broken())
        except (OSError, ValueError):  # it is being closed
            return True

    def _is_over(self) -> bool:
        # It was ended because of a refusal, or with the server, and the close says all. A session
        # may have ended before this connection's thread has noticed.
        return self._ending or self._failure is not None

    def _outputs_over(self) -> bool:
        """Whether each output has ended, or is not wanted. Requires holding the lock."""
        return all(output.ended or output.closed for output in self._outputs.values())

    def _fail_with(self, reason: str) -> None:
        """Let :meth:`run` end the command, and close with this."""
        self._failure = self._failure or ProtocolError(reason)
        self._transport.set_deadline(0)

    def _write_stdin(self, body: memoryview | bytes | bytearray) -> None:
        if not self._takes_input():
            raise ProtocolError("read stdin: stdin is not enabled for this command")
        if len(body) and not self._finished:
            self._received += len(body)
            self._queue_input(body)

    def _queue_input(self, item: Input) -> None:
        if self._stdin is None:
            assert self._process is not None
            self._stdin = InputQueue(self._process, self._transport)
            self._stdin.tell = self._window is not None
        while not self._stdin.put(item):
            # The command does not read, and this client sends on. Nothing more is received until
            # it does; but the end of the connection must not wait for that.
            if self._finished:
                return  # something that it has left behind holds its input
            if self._failure is not None or self._transport.hung_up():
                raise TransportClosed(1006, "the client has gone")
        if self._stdin.waits and not self._stdin_has_thread:
            self._stdin_has_thread = True
            # Ends when the queue is closed, after the process is.
            self._run(self._stdin.write_all, name="wsep-stdin")

    @staticmethod
    def _signal(process: Process, number: int) -> None:
        try:
            if number == SIGKILL:
                process.kill()  # which a server further on may have another way to do
            else:
                process.send_signal(number)
        except io.UnsupportedOperation:
            pass  # of a server further on that is the reference
        except ValueError as error:
            raise ProtocolError(f"signal: {error}") from error
        except PermissionError:
            pass  # the command changed its user: as for kill(2), it is not ours to end

    def _end(self) -> None:
        """End what still runs: the command with its group, and this connection's threads."""
        process = self._process
        if process is None:
            return
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._ended:
            process.close()  # what it left in the background was left there on purpose
        else:
            command = self._command
            if self._stdin is not None and command is not None and command.tty and command.id:
                # The session goes on, and what was typed last, "make" and Enter say, is for it.
                self._stdin.drain(_LAST_INPUT_WAIT)
            process.hang_up()
        if self._stdin is not None:
            self._stdin.close()
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT)
            if thread.is_alive():  # it is stuck in sending to a client that does not read
                self._transport.abort()
                thread.join()
        for file in (process.stdin, process.stdout, process.stderr):
            close_quietly(file)

    def add_bytes(self, metrics: Metrics) -> None:
        """Add what has gone each way so far; from any thread."""
        metrics.received += self._received
        metrics.sent += sum(output.sent for output in self._outputs.values())

    def _log_end(self) -> None:
        """Log how the command ended, or that there was none."""
        failure = None if self._failure is None else str(self._failure)
        command = self._command
        if command is None:
            if failure is not None:
                log_event(logging.WARNING, "refusal", peer=self._transport.peer, reason=failure)
            return
        status = self._status
        ended = status is not None or not (command.tty and command.id)
        self._log(
            "exit" if ended else "leave",
            seconds=time.monotonic() - self._began,
            stdin=self._received,
            **{output.name: output.sent for output in self._outputs.values()},
            exit=None if status is None else status.exit_code,
            signal=None if status is None else status.signal,
            reason=failure or ("" if status or not ended else "the connection ended"),
        )

    def _log(self, event: str, **fields: object) -> None:
        command, process = self._command, self._process
        assert command is not None
        assert process is not None
        log_event(
            logging.INFO,
            event,
            peer=self._transport.peer,
            id=command.id,
            pid=process.pid,
            command=command.command,
            args=list(command.args) if self._options.log_arguments else None,
            **fields,
        )


def _type(message: object) -> str:
    names = {"CloseStdin": "close_stdin", "CloseOutput": "close_output"}
    name = type(message).__name__
    return names.get(name, name.lower())
