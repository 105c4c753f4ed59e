"""What each side of a connection may say when: :class:`ServerDialogue`, :class:`ClientDialogue`.

Neither does any I/O, has a clock or a thread. Each is fed with what the other side has sent and
with what happens on its own, says what that asks for, and has messages to be sent. Whoever has the
sockets reads, writes and does what is asked for, and decides nothing.

The states, and what leads from each to the next, are in the two tables :data:`SERVER` and
:data:`CLIENT`. A name in small letters is a message, by its type; one in capitals is something that
happens on this side. What is not in a state's row cannot happen there, and as a message is refused.
An empty row is the end: what still comes is ignored, and may be anything.

Positions count bytes from the beginning of a stream. A window is how many may be on the way, and
wait at the reader, beyond what that has taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from ..errors import ProtocolError, copy_error
from .command import Command
from .messages import (
    FEATURE_ATTACH,
    FEATURE_CLOSE_OUTPUT,
    FEATURE_ECHO,
    FEATURE_ENDED,
    FEATURE_SIGNAL,
    FEATURE_TAKEN,
    FEATURES,
    Attach,
    Buffer,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Echo,
    EchoIs,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    ServerMessage,
    Signal,
    Start,
    Stderr,
    Stdin,
    StdinTaken,
    Stdout,
    Taken,
    decode_client_message,
    decode_server_message,
)

__all__ = [
    "CLIENT",
    "EVERYTHING",
    "INPUT_WINDOW",
    "SERVER",
    "TELL_EVERY",
    "ClientDialogue",
    "ClientState",
    "Output",
    "ServerDialogue",
    "ServerState",
    "has_credit",
]

#: How much of an output may be read while nothing bounds it.
EVERYTHING: Final = 1 << 62

#: How much input may be on the way to a server that tells how much the command was given.
INPUT_WINDOW: Final = 1 << 20

#: After how many bytes the other side is told how much was taken.
TELL_EVERY: Final = 1 << 18

# What a server does itself, whatever process it has: it holds back what there is no credit for, and
# tells of an end as soon as the process does.
_OWN_FEATURES = frozenset((FEATURE_TAKEN, FEATURE_ENDED, FEATURE_ATTACH))


class ServerState(Enum):
    """Where a server's side of a connection is; each says what is known there."""

    OPEN = "nothing was asked for"
    STARTING = "a command is being started, or a session attached to"
    RUNNING = "the command runs"
    ENDED = "the command has ended, and its outputs go on"
    FINISHED = "the exit status was sent"
    CLOSED = "over"


class ClientState(Enum):
    """Where a client's side of a connection is; likewise."""

    ASKED = "the command was asked for"
    RUNNING = "the command runs"
    ENDED = "the command has ended, and its outputs go on"
    FINISHED = "the exit status has come"
    LOST = "the connection ended before that"


_S, _C = ServerState, ClientState

# What a client may say while its command runs, or has run.
_SAID = ("stdin", "close_stdin", "resize", "signal", "taken", "close_output", "echo")

#: How a server's state follows from the one before.
SERVER: Final[dict[ServerState, dict[str, ServerState]]] = {
    _S.OPEN: {
        "start": _S.STARTING,
        "attach": _S.STARTING,
        "GONE": _S.CLOSED,
        "FAILED": _S.CLOSED,
    },
    _S.STARTING: {
        **dict.fromkeys(_SAID, _S.STARTING),  # early: it waits for the command
        "STARTED": _S.RUNNING,
        "GONE": _S.CLOSED,
        "FAILED": _S.CLOSED,
    },
    _S.RUNNING: {
        **dict.fromkeys(_SAID, _S.RUNNING),
        "ENDED": _S.ENDED,
        "GONE": _S.CLOSED,
        "FAILED": _S.CLOSED,
    },
    _S.ENDED: {
        **dict.fromkeys(_SAID, _S.ENDED),
        "OUTPUTS OVER": _S.FINISHED,
        "GONE": _S.CLOSED,
        "FAILED": _S.CLOSED,
    },
    _S.FINISHED: {
        **dict.fromkeys(_SAID, _S.FINISHED),  # sent before the client knew
        "GONE": _S.CLOSED,
        "FAILED": _S.CLOSED,
    },
    _S.CLOSED: {},
}

#: How a client's state follows from the one before.
CLIENT: Final[dict[ClientState, dict[str, ClientState]]] = {
    _C.ASKED: {"pid": _C.RUNNING, "LOST": _C.LOST},
    _C.RUNNING: {
        **dict.fromkeys(("pid", "stdout", "stderr", "taken", "echo", "eof"), _C.RUNNING),
        "ended": _C.ENDED,
        "exit_code": _C.FINISHED,
        "LOST": _C.LOST,
    },
    _C.ENDED: {
        **dict.fromkeys(("pid", "stdout", "stderr", "taken", "echo", "eof", "ended"), _C.ENDED),
        "exit_code": _C.FINISHED,
        "LOST": _C.LOST,
    },
    _C.FINISHED: {},
    _C.LOST: {},
}


def has_credit(features: frozenset[str]) -> bool:
    """Whether a side that names these tells what it has taken, and heeds what it is told.

    The two go together: an end that waits behind output would wait for credit, too.
    """
    return features >= {FEATURE_TAKEN, FEATURE_ENDED}


class Output:
    """One output of a command, as the server's side counts it.

    Attributes:
        name: ``stdout`` or ``stderr``.
        sent: Bytes that were handed on to be sent, since the beginning.
        taken: Bytes that the client has read, as far as it has told.
        closed: The client does not want it any more.
        ended: Nothing more comes of it.
        error: Why not, if that was before its end; ``None`` is a good end.
    """

    __slots__ = ("closed", "ended", "error", "name", "sent", "taken", "told")

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = self.taken = 0
        self.closed = self.ended = False
        self.error: str | None = None
        self.told = False  # the client was told that it has ended


class ServerDialogue:
    """The server's side of a connection: one command, from the first message to the last.

    Attributes:
        state: Where it is.
        outputs: The command's outputs by name, once it runs.
        received: Bytes of input that came, since the beginning.
        status: How the command ended, once it has and the client is to be told.
        failure: What the connection is to be closed with, instead of a good end.
    """

    def __init__(self) -> None:
        self.state = ServerState.OPEN
        self.outputs: dict[str, Output] = {}
        self.received = 0
        self.status: ExitCode | None = None
        self.failure: ProtocolError | None = None
        self._command = Command("")
        # How many bytes of an output may be on the way; None if the client does not say.
        self._window: int | None = None
        self._early: list[bytes] = []
        self._messages: list[bytes] = []
        # Of the input: bytes that the command was given, when that was told last, and whether the
        # command has closed it, and the client been told.
        self._given = self._told = 0
        self._deaf = self._told_deaf = False
        self._input_end: int | None = None  # where the client has ended it
        # Once it has ended: whether nobody reads its input, and the client been told.
        self._left_deaf = self._told_ended = False
        self._asked = 0  # for the echo, so often
        self._echo: EchoIs | None = None  # to be told

    def _step(self, event: str) -> None:
        self.state = SERVER[self.state][event]

    # What the client says

    def receive(self, data: Buffer) -> ClientMessage | None:
        """Take a message of the client's.

        Returns:
            What is to be done about it, if anything is: start the command, give it input, end
            that, resize its terminal, signal it, or close an output.

        Raises:
            ProtocolError: The message is none, or not for now: close with what that says.
        """
        if self.state is ServerState.STARTING:
            self._early.append(bytes(data))  # to be refused, if it is, once the pid has been sent
            return None
        if self.state is ServerState.CLOSED:
            return None
        try:
            message = decode_client_message(data)
            return None if message is None else self._take(message)
        except ProtocolError as error:
            self._refuse(error)
            raise

    def _take(self, message: ClientMessage) -> ClientMessage | None:
        """Do what the tables say of a message; return it if there is more to be done."""
        kind = _CLIENT_KINDS[type(message)]
        if kind not in SERVER[self.state]:
            if kind in ("start", "attach"):
                raise ProtocolError("command already started")
            raise ProtocolError(f"{kind} sent before command started")
        self._step(kind)
        return self._note(message)

    def _refuse(self, error: ProtocolError) -> None:
        """Fail with an error that is about to be raised; even if the exit status was told."""
        failure = copy_error(error)  # one without a traceback, which refers to us
        self.fail(failure)
        self.failure = failure

    def _note(self, message: ClientMessage) -> ClientMessage | None:
        """Note what a message says; return it if there is something to be done."""
        if isinstance(message, Stdin):
            if not self.takes_input:
                raise ProtocolError("read stdin: stdin is not enabled for this command")
            if self.state is ServerState.FINISHED or not len(message.body):
                return None
            self.received += len(message.body)
        elif isinstance(message, CloseStdin):
            if self._input_end is None:
                self._input_end = self.received
        elif isinstance(message, Taken):
            self._take_credit(message)
            self._settle()  # it may be the first that we hear of a window
            return None
        elif isinstance(message, CloseOutput):
            output = self.outputs.get(message.stream)
            if output is None or output.closed:
                return None
            output.closed = True
            self._settle()
        elif isinstance(message, Echo):
            self._asked += 1
        elif isinstance(message, (Start, Attach)):
            self._window = message.window
        return message

    def _take_credit(self, message: Taken) -> None:
        """Note what the client has read. A position that goes back says nothing new."""
        if message.window is not None:
            self._window = message.window
        for name, output in self.outputs.items():
            taken: int | None = getattr(message, name)
            if taken is not None:
                if taken > output.sent:
                    raise ProtocolError(f"taken: {name} has not come as far as {taken}")
                output.taken = max(output.taken, taken)

    # What happens here

    def started(
        self, pid: int, command: Command, features: frozenset[str], reattached: bool
    ) -> None:
        """The command runs, or the session is attached to: have the client told.

        Args:
            pid: The command's process id.
            command: What runs.
            features: What its process can do.
            reattached: It is a session that was there.
        """
        self._step("STARTED")
        self._command = command
        can = _OWN_FEATURES | features
        if command.tty:
            can |= {FEATURE_CLOSE_OUTPUT}  # what it shows is read and dropped, here
        names = ("stdout",) if command.tty else ("stdout", "stderr")
        self.outputs = {name: Output(name) for name in names}
        told = tuple(name for name in (FEATURE_SIGNAL, *FEATURES, FEATURE_ECHO) if name in can)
        self._messages.append(Pid(pid, told, reattached).encode())

    def early(self) -> Iterator[ClientMessage]:
        """Yield what is to be done of that which the client had said before the command ran.

        To be asked once the pid is on its way: whoever is refused then has had a command.

        Raises:
            ProtocolError: As of :meth:`receive`.
        """
        early, self._early = self._early, []
        for data in early:
            try:
                message = decode_client_message(data)
                # Additions: whoever sent one can't have known yet that this server has them.
                if message is None or isinstance(message, (Signal, Echo)):
                    continue
                wanted = self._take(message)
            except ProtocolError as error:
                self._refuse(error)
                raise
            if wanted is not None:
                yield wanted

    @property
    def takes_input(self) -> bool:
        """Whether the command has an input."""
        return self._command.stdin or self._command.tty

    def room(self, output: Output) -> int:
        """Return how many bytes of an output may be read now.

        0 is none, until the client has taken some; or ever again, if the output is closed. That of
        a terminal is read all the same, and dropped: the program goes on, and shows it to nobody.
        """
        if output.ended:
            return 0
        if output.closed:
            return EVERYTHING if self._command.tty else 0
        if self._window is None:
            return EVERYTHING
        return max(0, output.taken + self._window - output.sent)

    def output_ended(self, output: Output, error: str | None = None) -> None:
        """Nothing more comes of an output; because of an error, if there is one."""
        output.ended = True
        if not output.closed:
            output.error = error
        self._settle()

    def given(self, count: int) -> None:
        """The command was given so many bytes more of the input, or they were dropped."""
        self._given += count

    def input_broken(self) -> None:
        """The command has closed its input: what still comes is dropped."""
        self._deaf = True

    def echo_is(self, on: bool) -> None:
        """Answer all questions so far: whether the terminal shows what is typed."""
        self._echo = EchoIs(self._asked, on)

    def ended(self, status: ExitCode, deaf: bool) -> None:
        """The command has ended; what it has left behind may hold its outputs open.

        Args:
            status: How.
            deaf: Nobody reads its input any more.
        """
        self._step("ENDED")
        self.status = status
        self._left_deaf = deaf
        self._settle()

    def _settle(self) -> None:
        """Say what follows once the command has ended, and its outputs do."""
        if self.state is not ServerState.ENDED:
            return
        assert self.status is not None
        if self._window is not None and not self._told_ended:
            self._told_ended = True
            self._tell_ended(self.status)
        outputs = self.outputs.values()
        if all(output.ended or output.closed for output in outputs):
            for output in outputs:
                if output.error is not None:
                    # What is known of the end is still told.
                    self.failure = ProtocolError(f"read {output.name}: {output.error}")
                    self._step("FAILED")
                    return
            # The end of the last one shows by the exit status.
            self._step("OUTPUTS OVER")
            self._messages.append(self.status.encode())
        elif self._told_ended:
            for output in outputs:
                if output.ended and output.error is None and not output.told:
                    output.told = True
                    self._messages.append(Eof(output.name).encode())

    def _tell_ended(self, status: ExitCode) -> None:
        ended_by_client = self._input_end is not None and not self._command.tty
        deaf = self._left_deaf or self._deaf
        if self.takes_input and deaf and not ended_by_client:
            # First: whoever hears of the end may count on it that writing fails.
            self._deaf = True
            self._tell_taken(self.received)
        self._messages.append(Ended(status).encode())

    def _tell_taken(self, position: int) -> None:
        # Behind the end that the client has sent, all is dropped.
        closed = self._deaf or (self._input_end is not None and position > self._input_end)
        self._told, self._told_deaf = position, self._deaf
        self._messages.append(StdinTaken(position, closed).encode())

    def fail(self, error: ProtocolError | None) -> None:
        """Say nothing more: the connection has ended, or is to be closed with this error.

        The first counts. A client that was told the exit status has had all, and no error; and if
        that still waits to be sent, it does.
        """
        if self.state is ServerState.CLOSED:
            return
        if self.state is not ServerState.FINISHED:
            self.failure = error
            self._messages.clear()
        self._step("GONE" if error is None else "FAILED")

    @property
    def owes_credit(self) -> bool:
        """Whether the client is to be told what was taken of its input."""
        if self._window is None or self.state not in (ServerState.RUNNING, ServerState.ENDED):
            return False
        return self._given - self._told >= TELL_EVERY or self._deaf > self._told_deaf

    def messages(self) -> list[bytes]:
        """Return what is to be sent, in this order, and forget it.

        To be asked when the last of it, and of the outputs, is on its way: what was taken of the
        input, and the echo, are told once for all, so what waits here is bounded.
        """
        if self.owes_credit:
            self._tell_taken(self._given)
        if self._echo is not None and self.state in (ServerState.RUNNING, ServerState.ENDED):
            self._messages.append(self._echo.encode())
        self._echo = None
        messages, self._messages = self._messages, []
        return messages


_CLIENT_KINDS: dict[type, str] = {
    Start: "start",
    Attach: "attach",
    Stdin: "stdin",
    CloseStdin: "close_stdin",
    Resize: "resize",
    Signal: "signal",
    Taken: "taken",
    CloseOutput: "close_output",
    Echo: "echo",
}

_SERVER_KINDS: dict[type, str] = {
    Pid: "pid",
    Stdout: "stdout",
    Stderr: "stderr",
    StdinTaken: "taken",
    EchoIs: "echo",
    Ended: "ended",
    Eof: "eof",
    ExitCode: "exit_code",
}


class ClientDialogue:
    """The client's side of a connection.

    Not thread-safe; but of the input's positions, one thread may count what it sends while another
    receives what was taken, if both hold one lock of theirs.

    Attributes:
        state: Where it is.
        pid: What the server said of the command, once that runs.
        features: The server's additions that hold of this command, once that runs.
        status: How the command ended, once that is known.
        missing: Why that is not known, once it never will be.
        input_over: Why no more input is wanted, once none is.
        echo: What the server has answered last of the terminal's.
    """

    def __init__(self) -> None:
        self.state = ClientState.ASKED
        self.pid = Pid(0)
        self.features: frozenset[str] = frozenset()
        self.status: ExitCode | None = None
        self.missing: str | None = None
        self.input_over = ""
        self.echo = EchoIs(0, False)
        self._sent = self._taken = 0  # bytes of input

    def receive(self, data: Buffer) -> ServerMessage | None:
        """Take a message of the server's.

        Returns:
            What is to be done about it, if anything is.

        Raises:
            ProtocolError: It is none, or not for now.
        """
        row = CLIENT[self.state]
        if not row:
            return None
        message = decode_server_message(data)
        if message is None:
            return None
        following = row.get(_SERVER_KINDS[type(message)])
        if following is None:  # of all but the first state, the rows have every message
            raise ProtocolError(f"{type(message).__name__} came before the pid")
        if isinstance(message, Pid):
            if self.state is not ClientState.ASKED:
                return None
            self.pid = message
            # Not what the handshake names besides, when it was not known what would run it.
            self.features = frozenset(message.features)
        elif isinstance(message, ExitCode):
            self._set_status(message)
            self.end_input("the command has ended")
        elif isinstance(message, Ended):
            self._set_status(message.status)
        elif isinstance(message, EchoIs):
            self.echo = message
        elif isinstance(message, StdinTaken):
            self._taken = max(self._taken, min(message.stdin, self._sent))
            if message.closed:
                self.end_input("the command has closed its input")
        self.state = following
        return message

    def _set_status(self, status: ExitCode) -> None:
        if self.status not in (None, status):
            self.status, self.missing = None, "the server has told two"
            raise ProtocolError("exit_code message: another status than the one of ended")
        if not status.exit_code and status.error:
            # The reference says so of a server further on that it has lost.
            self.missing = self.missing or status.error
        elif self.missing is None:
            self.status = status

    def lost(self, reason: str) -> None:
        """The connection has ended, by itself or by us. Harmless once the status has come."""
        following = CLIENT[self.state].get("LOST")
        if following is not None:
            self.state = following
            self.end_input("the command has ended")
            if self.status is None and self.missing is None:
                self.missing = reason

    @property
    def credit(self) -> bool:
        """Whether the server tells how much of the input was taken, and heeds what we tell."""
        return has_credit(self.features)

    def input_room(self) -> bool:
        """Whether input may be sent now."""
        return not self.credit or self._sent - self._taken < INPUT_WINDOW

    def sent(self, count: int) -> None:
        """So many bytes of input are being sent."""
        self._sent += count

    def end_input(self, reason: str) -> None:
        """No more input is wanted; the first reason counts."""
        self.input_over = self.input_over or reason
