"""One connection and its command, in a loop that waits for everything at once: :class:`Connection`.

What may be said when is decided by :class:`.ServerDialogue`; here it is received, sent and done.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import (
    ProtocolError,
    SessionNotFound,
    StartError,
    TransportClosed,
    WsepError,
    copy_error,
)
from ..jobs.options import LATE_LIMIT, Options
from ..jobs.polled import PolledOutput, PolledProcess, offered
from ..jobs.poller import Poller
from ..log import log_event
from ..process import SIGKILL, Process
from ..protocol.command import Command
from ..protocol.dialogue import Output, ServerDialogue, ServerState
from ..protocol.messages import (
    FEATURE_ECHO,
    MAX_MESSAGE,
    STDERR_HEADER,
    STDOUT_HEADER,
    Attach,
    Buffer,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Echo,
    Resize,
    Signal,
    Start,
    Stdin,
)
from ..protocol.words import NO_SESSION, start_failure
from ..streams import DescriptorReader
from ..streams.wakeup import READ, WRITE
from ..transports.base import POLICY_VIOLATION, Transport
from ..transports.liveness import TICK
from ..transports.polled import polled
from .metrics import Metrics

__all__ = ["GOING_AWAY", "Connection", "Starter", "server_ending"]

# How many seconds a client has to close after it was told the exit status. They count from the last
# sign that it takes what came before that, for a slow link, and the proxies on it, hold much; were
# it closed here, what the client still says would be answered with a reset, which drops all that.
_CLOSE_WAIT = 60.0

#: RFC 6455, section 7.4.1: going away.
GOING_AWAY = 1001

# How many seconds what a client had typed when it left its session may take to be written.
_LAST_INPUT_WAIT = 0.5

# How many messages are taken before the pid is sent, and before it is the outputs' turn: a client
# that sends without end must not hold them up.
_MOST_AT_ONCE = 16

# Bytes of memory that outputs which say little are read into, and what a pipe holds; then what
# those have that say much, and the messages that these fill. After so many seconds of silence all
# is given back.
_IDLE_BUFFER, _IDLE_PIPE = 1 << 11, 1 << 16
_BUSY_MESSAGES, _BUSY_PIPE = 2, 1 << 18
_IDLE_AFTER = 1.0

# To poll for an end alone, which Linux can tell apart from data (poll(2), POLLRDHUP).
_END: int = getattr(select, "POLLRDHUP", 0)

_HEADERS = {"stdout": STDOUT_HEADER, "stderr": STDERR_HEADER}


def server_ending() -> ProtocolError:
    """Return what connections are closed with when the server ends."""
    return ProtocolError("the server is ending", GOING_AWAY)


#: Does what a client's first message asks for; returns the command, too.
Starter: TypeAlias = "Callable[[Start | Attach], tuple[Process, Command]]"


class Connection:
    """One connection and its command, from the first message to the last.

    One thread does all of it, that of :meth:`run`'s caller, and blocks in nothing but its wait for
    all there is: the socket, the command's outputs, its input while it does not take it, and its
    end. Only starting the command, and ending it, take the time that they take; and so does telling
    a server further on of a signal or a size, if that does not read.
    """

    def __init__(self, transport: Transport, start: Starter, options: Options) -> None:
        self._peer = transport.peer
        if options.ping_interval is not None:
            transport.ping_every(options.ping_interval)
        self._transport = polled(transport)
        self._wakeup = self._transport.wakeup
        self._start_process = start
        self._options = options
        self._dialogue = ServerDialogue()
        self._process: Process | None = None
        self._polled: PolledProcess | None = None
        self._command: Command | None = None
        self._poller = Poller(self._wakeup)
        self._ended = False  # the command has: nothing is left to be ended
        self._going_away = False  # set by another thread
        self._flushed = True  # nothing waits to be sent
        # Nothing can be sent any more. What the client has said before is still done: to end what
        # runs, perhaps.
        self._mute = False
        self._buffer = memoryview(bytearray(_IDLE_BUFFER))
        self._busy = False
        self._late = 0  # bytes of a terminal's output since the command has ended
        # time.monotonic(), by which the client has to have said what to run, or closed.
        self._deadline: float | None = None
        self._taken_before = 0  # when that was set
        self._now = time.monotonic()  # when this turn of the loop began
        self._next_tick = self._now + TICK
        # For the log.
        self._began = 0.0  # time.monotonic()
        self._failure: ProtocolError | None = None

    def run(self) -> None:
        """Serve until the connection is to be closed: with 1000, if this raises nothing.

        Raises:
            ProtocolError: It is to be closed with the code and the reason of this.
        """
        try:
            self._serve()
            self._failure = self._dialogue.failure
        except TransportClosed:  # the client has gone, or is content
            self._dialogue.fail(None)
        except ProtocolError as error:
            self._failure = copy_error(error)  # without a traceback, which refers to us
            raise
        finally:
            self._transport.leave()
            self._end()
            self._log_end()
        if self._failure is not None:
            raise copy_error(self._failure)

    def go_away(self) -> None:
        """Let :meth:`run`, which another thread is in, end the command and raise 1001."""
        self._going_away = True
        self._wakeup.set()

    # The loop

    def _serve(self) -> None:
        transport, poller, dialogue = self._transport, self._poller, self._dialogue
        self._deadline = time.monotonic() + self._options.start_timeout
        again = True  # there may be something that no poll tells of
        while True:
            self._send_messages()
            if dialogue.failure is not None:
                self._send_last()
                return
            again |= transport.has_more() and not self._is_full()
            # The answer to a ping may have taken the rest of a message along.
            again |= not self._flushed and transport.fileno() >= 0 and not transport.wanted()
            poller.wait(self._wanted(), 0.0 if again else self._timeout())
            poller.woken |= again
            if self._going_away:
                dialogue.fail(server_ending())
                self._send_last()
                return
            self._look_at_clock()
            if not self._flushed or transport.wanted():  # the answer to a ping, say
                self._send(transport.flush_now)
                poller.woken |= self._flushed  # an output may have waited for that
            if transport.has_more() or self._mute or poller.is_ready(transport.fileno()):
                poller.woken |= self._receive()  # or for what the client has taken
            again = self._polled is not None and self._attend(self._polled)
            again |= self._mute

    def _timeout(self) -> float:
        """Return for how many seconds to wait at most."""
        until = self._next_tick
        if self._deadline is not None and self._deadline < until:
            until = self._deadline
        rest = max(0.0, until - self._now)
        return min(rest, _IDLE_AFTER) if self._busy else rest

    def _look_at_clock(self) -> None:
        self._now = time.monotonic()
        if self._deadline is not None and self._now >= self._deadline:
            self._too_late()
        if self._busy and self._poller.idle:
            self._give_back()
        if self._now >= self._next_tick:
            self._next_tick = self._now + TICK
            self._transport.tick()

    def _too_late(self) -> None:
        if self._dialogue.state is ServerState.OPEN:
            text = f"no start within {self._options.start_timeout:g} seconds"
            raise ProtocolError(text, POLICY_VIOLATION)
        if self._transport.unsent() or self._taken() > self._taken_before:
            self._let_client_close()
            return
        # It has been told the exit status, and had its time to close.
        raise TransportClosed(1000, "the client has not closed")

    def _let_client_close(self) -> None:
        """Give the client its time to close, from now on."""
        self._deadline = time.monotonic() + _CLOSE_WAIT
        self._taken_before = self._taken()

    def _taken(self) -> int:
        """Return how much of the outputs the client has said it has read."""
        return sum(output.taken for output in self._dialogue.outputs.values())

    def _wanted(self) -> dict[int, int]:
        """Return the descriptors there are to be waited for, and for what."""
        transport, process = self._transport, self._polled
        wanted = {}
        if events := transport.wanted() | (_END if self._is_full() else READ):
            wanted[transport.fileno()] = events
        if process is not None:
            if self._flushed and not self._mute:
                dialogue = self._dialogue
                for name, output in process.outputs.items():
                    if dialogue.room(dialogue.outputs[name]):
                        wanted[output.fileno()] = READ
            if process.input is not None and process.input.waits:
                wanted[process.input.fileno()] = WRITE
            if not self._ended:
                wanted[process.end.fileno()] = READ
        return wanted

    # The client

    def _is_full(self) -> bool:
        """Whether the command does not read, and the client sends on all the same.

        Nothing more is received then until it does; but the end of the connection is seen, unless
        it is behind so much that the kernel does not take it any more.
        """
        process = self._polled
        if process is None or process.input is None or not process.input.full:
            return False
        return self._dialogue.state is not ServerState.FINISHED

    def _receive(self) -> bool:
        """Do what the client has said; return whether it has said anything."""
        transport = self._transport
        for i in range(_MOST_AT_ONCE):
            if self._is_full():
                if transport.hung_up():
                    raise TransportClosed(1006, "the client has gone")
                return i > 0
            data = transport.receive_now()
            if data is None:
                return i > 0
            message = self._dialogue.receive(data)
            if message is not None:
                self._act(message)
            if not transport.has_more():
                break
        return True

    def _act(self, message: ClientMessage) -> None:
        """Do what a message asks for."""
        process = self._process
        if isinstance(message, (Start, Attach)):
            self._start(message)
            return
        assert process is not None
        assert self._polled is not None
        if isinstance(message, Stdin):
            assert self._polled.input is not None
            self._put(message.body)
        elif isinstance(message, CloseStdin):
            self._put(None)
        elif isinstance(message, CloseOutput):
            output = self._polled.outputs.get(message.stream)
            if output is not None and not self._is_terminal():
                output.close()
        elif isinstance(message, Resize):
            process.resize(message.rows, message.cols)
        elif isinstance(message, Signal):
            _signal(process, message.signal)
        elif isinstance(message, Echo) and FEATURE_ECHO in offered(process):
            with contextlib.suppress(OSError, ValueError):  # there is no terminal, or no more
                self._dialogue.echo_is(process.echo(message.on))

    def _put(self, data: Buffer | None) -> None:
        assert self._polled is not None
        if self._polled.input is not None:
            self._polled.input.put(data)
            self._dialogue.given(self._polled.input.given())
            if self._dialogue.owes_credit:
                self._send_messages()

    def _start(self, message: Start | Attach) -> None:
        try:
            process, command = self._start_process(message)
        except SessionNotFound as error:
            raise ProtocolError(NO_SESSION) from error
        except StartError as error:
            asked = message.command if isinstance(message, Start) else Command("")
            raise ProtocolError(start_failure(error, asked)) from error
        except (WsepError, RuntimeError) as error:  # of a server further on, or for want of threads
            raise ProtocolError(f"start command: {error}") from error
        self._process = process
        self._command = command
        self._began = time.monotonic()
        self._deadline = None
        # The client cannot know yet that this server has additions, in what has arrived by now.
        with contextlib.suppress(TransportClosed, ProtocolError):  # that is met again, behind this
            for _ in range(_MOST_AT_ONCE):
                data = self._transport.receive_now()
                if data is None:
                    break
                self._dialogue.receive(data)
        self._dialogue.started(process.pid, command, offered(process), process.reattached)
        self._send_messages()
        self._log("attach" if process.reattached else "start")  # while the client is told
        try:
            self._polled = PolledProcess(
                process,
                self._wakeup,
                tuple(self._dialogue.outputs),
                self._dialogue.takes_input,
            )
        except RuntimeError as error:  # to the kernel threads are processes, of which it has enough
            raise ProtocolError(f"serve command: {error}") from error
        for said in self._dialogue.early():
            self._act(said)

    def _send_messages(self) -> None:
        """Send what the dialogue has to say, and no more than goes at once."""
        process = self._polled
        if process is not None and process.input is not None:
            self._dialogue.given(process.input.given())
            if process.input.broken:
                self._dialogue.input_broken()
            if process.input.failed:
                self._dialogue.fail(ProtocolError("internal error"))
        if self._flushed and (messages := self._dialogue.messages()):
            self._send(self._transport.send_now, *messages)
        if self._deadline is None and self._dialogue.state is ServerState.FINISHED:
            self._let_client_close()

    def _send_last(self) -> None:
        """Hand over what is still to be told: it goes ahead of the close frame."""
        self._send(self._transport.send_now, *self._dialogue.messages())

    def _send(self, send: Callable[..., bool], *what: Any) -> None:
        """Send what goes; note whether that was all."""
        if self._mute:
            return
        try:
            self._flushed = send(*what)
        except TransportClosed:  # receiving tells of it too, after what has come before
            self._flushed = self._mute = True

    # The command

    def _attend(self, process: PolledProcess) -> bool:
        """Do what the command gives cause for.

        Returns:
            Whether there is more to do at once.
        """
        poller, input = self._poller, process.input
        again = False
        if input is not None and input.waits and poller.is_ready(input.fileno()):
            again = input.write() and input.fileno() < 0  # which no poll tells of
        for name, output in process.outputs.items():
            if not self._flushed or self._mute:
                break
            descriptor = output.fileno()
            late = self._ended and self._is_terminal()
            if late or poller.is_ready(descriptor):
                state = self._dialogue.outputs[name]
                read = self._send_output(state, output)
                if read and descriptor < 0 and self._flushed:  # of which no poll tells
                    read = self._send_output(state, output)
                again |= read and (late or descriptor < 0)
        # Behind the outputs: where they have ended with the command, all is told at once.
        if not self._ended and poller.is_ready(process.end.fileno()):
            self._look_at_end(process)
            again |= self._ended  # what a terminal still shows ends with what is there
        return again

    def _send_output(self, state: Output, output: PolledOutput) -> bool:
        """Read once of an output, and send that; return whether there was anything."""
        room = self._dialogue.room(state)
        if not room:
            return False
        buffer = self._buffer
        try:
            count = output.read_now(buffer[:room] if room < len(buffer) else buffer)
        except (WsepError, OSError) as error:
            # Of a server further on. The end may have been told already, but not that of this.
            self._dialogue.output_ended(state, str(error))
            return False
        # Whoever the command has left in the background may go on writing to its terminal for ever.
        # What comes through a server further on is bounded there, and may be long on its way: the
        # end has overtaken it.
        late = self._ended and self._is_terminal() and isinstance(output.raw, DescriptorReader)
        if count is None and not late:
            return False
        if not count:
            self._dialogue.output_ended(state)
            return False
        if late:
            self._late += count
            if self._late > LATE_LIMIT:
                self._dialogue.output_ended(state)
                return False
        if state.closed:
            return True  # of a terminal: the command goes on, and shows it to nobody
        state.sent += count
        self._send(self._transport.stream_now, _HEADERS[state.name], buffer[:count])
        if count == len(buffer) and not self._busy:
            self._take_more(output, _HEADERS[state.name])
        return True

    def _take_more(self, output: PolledOutput, header: bytes) -> None:
        """Read more at once, of an output that says much: each system call costs."""
        self._busy = True
        # A terminal's output is for somebody who is waiting, and so is sent as it comes.
        messages = 1 if self._is_terminal() else _BUSY_MESSAGES
        self._buffer = memoryview(bytearray(messages * (MAX_MESSAGE - len(header))))
        output.set_capacity(_BUSY_PIPE)

    def _give_back(self) -> None:
        if self._flushed:  # or it is still being sent
            self._busy = False
            self._buffer = memoryview(bytearray(_IDLE_BUFFER))
            if self._polled is not None:
                for output in self._polled.outputs.values():
                    with contextlib.suppress(ValueError):  # it is closed
                        output.set_capacity(_IDLE_PIPE)

    def _look_at_end(self, process: PolledProcess) -> None:
        try:
            status = process.end.status()
        except WsepError as error:
            self._dialogue.fail(ProtocolError(f"wait for command: {error}"))
            return
        if status is None or self._going_away:  # then how it ends does not matter
            return
        self._ended = True
        process.process.finish()
        self._dialogue.ended(status, self._is_deaf(process))
        self._send_messages()  # an output that fails now must not hide that

    def _is_deaf(self, process: PolledProcess) -> bool:
        """Whether nobody reads the input of the command, which has ended.

        Whoever it left in the background may.
        """
        is_broken = getattr(process.process.stdin.raw, "is_broken", None)
        try:
            return self._is_terminal() or is_broken is None or bool(is_broken())
        except (OSError, ValueError):  # it is closed
            return True

    def _is_terminal(self) -> bool:
        """Whether the command has a terminal, its own or that of a session."""
        return self._command is not None and self._command.tty

    def _end(self) -> None:
        """End what still runs: the command with its group, and what was waited for in threads."""
        process, command = self._process, self._command
        if process is None:
            return
        try:
            if self._ended:
                process.close()  # what it left in the background was left there on purpose
            else:
                if command is not None and command.tty and command.id:
                    # The session goes on, and what was typed last, "make" and Enter say, is for it.
                    self._write_last_input()
                process.hang_up()
        finally:
            if self._polled is not None:
                self._polled.close()

    def _write_last_input(self) -> None:
        input = None if self._polled is None else self._polled.input
        deadline = time.monotonic() + _LAST_INPUT_WAIT
        while input is not None and input.waits and (rest := deadline - time.monotonic()) > 0:
            if not input.write():
                self._poller.wait({input.fileno(): WRITE}, rest)

    # For others

    def add_bytes(self, metrics: Metrics) -> None:
        """Add what has gone each way so far; from any thread."""
        metrics.received += self._dialogue.received
        metrics.sent += sum(output.sent for output in self._dialogue.outputs.values())

    def _log_end(self) -> None:
        """Log how the command ended, or that there was none."""
        failure = None if self._failure is None else str(self._failure)
        command = self._command
        if command is None:
            if failure is not None:
                log_event(logging.WARNING, "refusal", peer=self._peer, reason=failure)
            return
        status = self._dialogue.status
        ended = status is not None or not (command.tty and command.id)
        self._log(
            "exit" if ended else "leave",
            seconds=time.monotonic() - self._began,
            stdin=self._dialogue.received,
            **{output.name: output.sent for output in self._dialogue.outputs.values()},
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
            peer=self._peer,
            id=command.id,
            pid=process.pid,
            command=command.command,
            args=list(command.args) if self._options.log_arguments else None,
            **fields,
        )


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
