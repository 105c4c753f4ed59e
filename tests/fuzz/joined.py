"""Both sides of a connection, joined in memory: nothing is between them but what is on its way.

A `Joined` has the two dialogues, a command, and of a server's loop and a client's threads what they
do, as they decide nothing. Each of its methods is something that may happen next; one that cannot
happen now does nothing. So any sequence of calls is a schedule, and what has to hold of every one
is looked at on the way. After `run_on` both sides have to be at an end.

It is long, and yet one thing: what holds is said of both sides at once (what one has sent against
what the other was given, read or told), so that each of them needs all that is kept here.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from wsep_sync.errors import ProtocolError
from wsep_sync.protocol.command import Command
from wsep_sync.protocol.dialogue import (
    EVERYTHING,
    INPUT_WINDOW,
    TELL_EVERY,
    ClientDialogue,
    ClientState,
    Output,
    ServerDialogue,
    ServerState,
)
from wsep_sync.protocol.messages import (
    FEATURE_CLOSE_OUTPUT,
    FEATURE_DISCARD,
    FEATURE_SIGNAL,
    MAX_BODY,
    STDERR_HEADER,
    STDIN_HEADER,
    STDOUT_HEADER,
    Attach,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Eof,
    ExitCode,
    Pid,
    Resize,
    Signal,
    Start,
    Stderr,
    Stdin,
    StdinTaken,
    Stdout,
    Taken,
    decode_server_message,
)

__all__ = ["CLIENTS", "FEATURE_SETS", "NONSENSE", "STATUSES", "Joined", "Setup"]

#: Who the client is: this package's, told of the server's additions in the handshake or only by the
#: pid; this package's before a server that is the reference; or the reference.
CLIENTS = ("told", "late", "before the reference", "the reference")

#: What the command's process can do, of what there is.
FEATURE_SETS = (
    frozenset((FEATURE_SIGNAL, FEATURE_CLOSE_OUTPUT, FEATURE_DISCARD)),
    frozenset((FEATURE_SIGNAL,)),
    frozenset[str](),
)

#: How a command may end. The last is what the reference says of a server further on that it lost.
STATUSES = (
    ExitCode(0),
    ExitCode(2, "exit status 2"),
    ExitCode(-1, "signal: killed", 9),
    ExitCode(0, "lost"),
)

#: What makes no sense after a start, in words for `Joined.client_errs`.
NONSENSE = ("no message", "a second start", "more than was sent", "input for nobody")

# How much input a server takes that the command has not: then it receives nothing more.
_INPUT_LIMIT = INPUT_WINDOW + MAX_BODY

# How many messages a server takes before the command runs.
_MOST_EARLY = 16

# How much input a client has that still waits to be sent.
_MOST_INPUT = 3 * INPUT_WINDOW

# What may come before a server knows the window of a client that tells of it late.
_LATE_SLACK = 1 << 24

# How many messages a server may have waiting to be sent: taken, ended, an eof, taken, exit_code.
_MOST_MESSAGES = 5

# What each stream consists of: by their position, pieces that were swapped, lost, doubled or put
# into another stream are found.
_PERIOD = 262_147
_BYTES = random.Random(0).randbytes(_PERIOD)
_BYTES += _BYTES[:MAX_BODY]
_SHIFTS = {"stdin": 0, "stdout": 87_000, "stderr": 174_000}
_ENDED, _SIGNAL = b'{"type":"ended"', b'{"type":"signal"'
_WINDOW = b'{"type":"taken","window"'
_HEADERS = {"stdout": STDOUT_HEADER, "stderr": STDERR_HEADER}

_SERVER_ORDER = {state: number for number, state in enumerate(ServerState)}
_CLIENT_ORDER = {state: number for number, state in enumerate(ClientState)}


def _content(name: str, position: int, size: int) -> bytes:
    start = (position + _SHIFTS[name]) % _PERIOD
    return _BYTES[start : start + size]


@dataclass(frozen=True)
class Setup:
    """What a schedule runs over.

    Attributes:
        client: One of `CLIENTS`.
        window: The client's, and what it lets wait of an output that it does not read.
        features: What the command's process can do.
        eager: The client does not wait for the pid before it says more.
        greedy: Nor for credit.
        capacity: How many bytes on its way make a sender wait.
    """

    client: str = CLIENTS[0]
    window: int = 100
    features: frozenset[str] = FEATURE_SETS[0]
    stdin: bool = True
    tty: bool = False
    attach: bool = False
    eager: bool = False
    greedy: bool = False
    capacity: int = 1 << 18


class _Way:
    """What is on its way in one direction."""

    __slots__ = ("frames", "over", "size")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.size = 0
        self.over = ""  # why nothing comes behind what there is, once nothing does

    def put(self, frame: bytes) -> None:
        if not self.over:
            self.frames.append(frame)
            self.size += len(frame)

    def take(self) -> bytes:
        frame = self.frames.popleft()
        self.size -= len(frame)
        return frame

    def end(self, why: str, kept: int | None = None) -> None:
        """Let nothing come any more, behind all there is, or behind so many messages of it."""
        if kept is not None:
            while len(self.frames) > kept:
                self.size -= len(self.frames.pop())
        self.over = self.over or why


class _Stream:
    """An output of the command, on all of its way; in bytes since the beginning."""

    __slots__ = ("closed", "dropped", "eof", "error", "got", "made", "over", "read", "told")

    def __init__(self) -> None:
        self.made = 0  # by the command
        self.dropped = 0  # of that, by the server
        self.over = False  # the command has closed it
        self.error: str | None = None  # or it broke, and why
        self.got = self.read = self.told = 0  # received, read, and said to be read by the client
        self.closed = False  # the client reads no more
        self.eof = False  # it was told that nothing more comes


class Joined:
    """Two dialogues, joined.

    Attributes:
        disturbed: What has happened that the exit status need not come after.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.server = ServerDialogue()
        self.client = ClientDialogue()
        self.disturbed = ""
        self._to_server, self._to_client = _Way(), _Way()
        self._has_input = setup.stdin or setup.tty
        self._command = Command("x", stdin=setup.stdin, tty=setup.tty)
        names = ("stdout",) if setup.tty else ("stdout", "stderr")
        self.streams = {name: _Stream() for name in names}
        self._credit = setup.client in CLIENTS[:2]
        self._tell_every = max(1, min(TELL_EVERY, setup.window // 4))
        # The client.
        self._started = False
        self._sent = self._sent_unknown = 0  # bytes of input; and before it knew of credit
        self._events: list[ClientMessage] = []  # that are to be acted on
        self._early_events = 0  # how many of them it had said before it had the pid
        self._unwritten = 0  # of input
        self._input_ended = False
        self._heard: list[str] = []  # messages that come once
        self._taken = StdinTaken(0)
        # The server.
        self._server_over = False
        self._acted: list[ClientMessage] = []
        self._early = 0  # messages that came before the command ran
        self._given = 0  # bytes of input
        self._input_end: int | None = None
        self._input_broken = self._nobody_reads = False
        self._true_status: ExitCode | None = None
        self._states = (0, 0)
        self._was_finished = False
        self._received_at_end: int | None = None  # input, if nobody reads it then
        self._window_known = setup.client == "told"
        self._ended_said = False
        self._closed: set[str] = set()  # outputs, on the server
        # What is to be refused, and whether that came before the command ran; and likewise what
        # means nothing then.
        self._wrong: list[bytes] = []
        self._wrong_early = False
        self._unknown: list[bytes] = []

    # The connection

    def cut(self, kept_by_server: int, kept_by_client: int) -> None:
        """Cut it, behind so many of the messages that are on their way to each."""
        if not self._server_over or not self._client_over():
            self._disturb("cut")
        self._to_server.end("cut", kept_by_server)
        self._to_client.end("cut", kept_by_client)

    def _disturb(self, by: str) -> None:
        if self.client.state is not ClientState.FINISHED:
            self.disturbed = self.disturbed or by

    # The client

    def _client_over(self) -> bool:
        return self.client.state in (ClientState.FINISHED, ClientState.LOST)

    def _may_say(self) -> bool:
        """Whether the client can send, and says anything of that sort now."""
        if self._to_server.over or self._to_server.size >= self.setup.capacity:
            return False
        return self._started and (self.setup.eager or self.client.state is not ClientState.ASKED)

    def client_starts(self) -> None:
        if self._started or self._to_server.over:
            return
        self._started = True
        window = self.setup.window if self.setup.client == "told" else None
        if self.setup.attach:
            self._to_server.put(Attach("x", window=window).encode())
        else:
            self._to_server.put(Start(self._command, window=window).encode())

    def client_writes(self, size: int) -> None:
        """Have so much more input to be sent, and send of it what there is room for."""
        self._unwritten = min(self._unwritten + size, _MOST_INPUT)
        self._write()

    def _write(self) -> None:
        client, setup = self.client, self.setup
        while self._unwritten and self._may_say() and self._may_write():
            if not setup.greedy and not client.input_room():
                return
            count = min(self._unwritten, MAX_BODY)
            client.sent(count)
            self._to_server.put(STDIN_HEADER + _content("stdin", self._sent, count))
            self._sent += count
            self._unwritten -= count
            if client.state is ClientState.ASKED:
                self._sent_unknown = self._sent
            if self._credit and not setup.greedy and not self._sent_unknown:
                assert self._sent - self._given < INPUT_WINDOW + MAX_BODY, "too much input"

    def _may_write(self) -> bool:
        """Whether anybody takes input, as far as the client cares."""
        wanted = self.setup.greedy or not (self._input_ended or self.client.input_over)
        return self._has_input and wanted

    def client_ends_input(self) -> None:
        if self._may_say() and (not self._input_ended or self.setup.greedy):
            self._input_ended = True
            self._say(CloseStdin())

    def client_resizes(self) -> None:
        if self._may_say():
            self._say(Resize(len(self._events), 1))

    def client_signals(self) -> None:
        number = len(self._events) + 1  # so that no two are the same
        if self._may_say() and number < 65:
            self._say(Signal(number))

    def _say(self, message: CloseStdin | Resize | Signal) -> None:
        self._to_server.put(message.encode())
        self._events.append(message)
        if self.client.state is ClientState.ASKED:
            self._early_events = len(self._events)

    def client_reads(self, name: str, size: int) -> None:
        stream = self.streams.get(name)
        if stream is not None:
            self._count(name, stream, min(size, stream.got - stream.read))

    def _count(self, name: str, stream: _Stream, size: int, tell: bool = False) -> None:
        """The client has read so much more, or dropped it."""
        stream.read += size
        if not self.client.credit or self.client.state is ClientState.FINISHED:
            return
        if stream.read - stream.told >= self._tell_every or tell:
            stream.told = stream.read
            self._to_server.put(Taken(**{name: stream.read}).encode())

    def client_says_nothing_new(self) -> None:
        if self.client.credit and not self._client_over():
            self._to_server.put(Taken(stdout=0).encode())

    def client_closes_output(self, name: str) -> None:
        stream = self.streams.get(name)
        if stream is None or self.client.state is ClientState.ASKED or self._client_over():
            return
        if stream.closed and not self.setup.greedy:
            return
        stream.closed = True
        unread = stream.got - stream.read
        if FEATURE_CLOSE_OUTPUT in self.client.features:
            stream.read = stream.got
            self._to_server.put(CloseOutput(name).encode())
        else:
            self._count(name, stream, unread, tell=True)

    def client_errs(self, how: str) -> None:
        """Say something that is to be refused."""
        if self._to_server.over:
            return
        if how == "a second start" and self._started:
            frame = Start(self._command).encode()
        elif how == "more than was sent" and self._started:
            frame = Taken(stdout=1 << 40).encode()
        elif how == "input for nobody" and not (self._started and self._has_input):
            frame = STDIN_HEADER
        elif how == "no message":
            frame = b"{"
        else:
            return
        self._to_server.put(frame)
        self._wrong.append(frame)
        self._disturb(how)

    def client_leaves(self) -> None:
        """Close the connection, once all is there or before."""
        self._disturb("the client has left")
        self._to_server.end("closed")
        self.client.lost("closed")

    def client_receives(self, count: int) -> None:
        """Receive so many messages, as far as there is room for them."""
        way = self._to_client
        for _ in range(count):
            if self._client_over():
                return
            if not way.frames:
                if way.over:
                    self.client.lost(way.over)
                    self._to_server.end(way.over)
                return
            if self._is_blocked(way.frames[0]):
                return
            self._client_receives(way.take())
            self._look()

    def _is_blocked(self, frame: bytes) -> bool:
        """Whether an output that nobody reads holds the client up."""
        for name, stream in self.streams.items():
            if frame.startswith(_HEADERS[name]):
                size = stream.got - stream.read + len(frame) - len(_HEADERS[name])
                full = size > self.setup.window and not stream.closed
                if full and self.client.credit:
                    assert self.setup.client == "late", "more of an output than its window"
                    assert size <= _LATE_SLACK, "more of an output than comes late"
                    return False
                return full and stream.got > stream.read
        return False

    def _client_receives(self, frame: bytes) -> None:
        if self.setup.client == "the reference":
            self._reference_receives(frame)
        else:
            message = self.client.receive(frame)
            assert message is not None, "what was sent is of no use"
            self._client_got(message)

    def _reference_receives(self, frame: bytes) -> None:
        """Take no notice of anything that the reference does not know."""
        message = decode_server_message(frame)
        assert isinstance(message, (Pid, Stdout, Stderr, ExitCode)), "an addition unasked for"
        if isinstance(message, Pid):
            frame = Pid(message.pid).encode()
        self._client_got(self.client.receive(frame))

    def _client_got(self, message: object) -> None:
        heard = self._heard
        if isinstance(message, (Stdout, Stderr)):
            name = "stdout" if isinstance(message, Stdout) else "stderr"
            stream = self.streams[name]
            assert not stream.eof, "output behind its end"
            body = bytes(message.body)
            assert body == _content(name, stream.got, len(body)), "other bytes than were sent"
            stream.got += len(body)
            if stream.closed:
                self._count(name, stream, len(body))
            return
        if isinstance(message, StdinTaken):
            assert self._credit
            assert self._taken.stdin <= message.stdin <= self._sent, "a position out of order"
            assert message.closed >= self._taken.closed, "an input that is open again"
            assert message != self._taken or message.closed, "what says nothing new"
            assert self.client.input_over or not message.closed
            self._taken = message
            return
        kind = type(message).__name__
        assert self._credit or kind in ("Pid", "ExitCode"), "an addition unasked for"
        if isinstance(message, Eof):
            assert "Ended" in heard, "eof ahead of ended"
            assert not self.streams[message.stream].eof
            self.streams[message.stream].eof = True
        else:
            assert kind not in heard, f"{kind} twice"
            heard.append(kind)
        deaf_at = self._received_at_end
        ended = kind == "Ended" and (self.setup.tty or self._input_end is None)
        if ended and deaf_at is not None:
            assert self.client.input_over, "not told that nobody reads"
            assert self._taken.stdin >= deaf_at, "not told how much was for nobody"
        if isinstance(message, Pid) and self.setup.client == "late":
            self._to_server.put(Taken(window=self.setup.window).encode())

    # The server

    def server_receives(self, count: int) -> None:
        """Receive so many messages, and do what they ask for."""
        way = self._to_server
        for _ in range(count):
            if self._server_over:
                return
            full = self.server.received - self._given > _INPUT_LIMIT
            if full and self.server.state is not ServerState.FINISHED:
                if way.over == "cut":
                    self._end_server(None)
                return
            if not way.frames:
                if way.over:
                    self._end_server(None)
                return
            if self.server.state is ServerState.STARTING:
                if self._early == _MOST_EARLY:
                    return
                self._early += 1
            self._server_receives(way.take())
            self._look()

    def _server_receives(self, frame: bytes) -> None:
        server, wrong = self.server, any(frame is each for each in self._wrong)
        if server.state is ServerState.STARTING:
            self._wrong_early |= wrong
            if frame.startswith(_SIGNAL):
                self._unknown.append(frame)
        if frame.startswith(_WINDOW):
            self._window_known = True
        try:
            message = server.receive(frame)
            if server.state is not ServerState.STARTING:
                assert not wrong, "not refused"
            if message is not None:
                self._act(message)
        except ProtocolError as error:
            self._refuse(error)

    def _refuse(self, error: ProtocolError) -> None:
        assert self._wrong, f"refused: {error}"
        assert str(self.server.failure) == str(error)
        self._end_server(error)

    def _end_server(self, error: ProtocolError | None) -> None:
        """End the connection, as the loop does once it knows why."""
        if self._server_over:
            return
        self._server_over = True
        told = self.server.state in (ServerState.FINISHED, ServerState.CLOSED)
        self.server.fail(error)
        assert told or self.server.failure is error
        assert self.server.state is ServerState.CLOSED
        self._send_messages()  # the exit status, if there was no more to come but that
        self._to_client.end("closed")
        self._look()

    def _send_messages(self) -> None:
        messages = self.server.messages()
        assert len(messages) <= _MOST_MESSAGES, "too many messages at once"
        for message in messages:
            self._ended_said |= message.startswith(_ENDED)
            if self.setup.client == "before the reference" and b'"pid"' in message[:14]:
                message = Pid(1).encode()
            self._to_client.put(message)

    def _act(self, message: ClientMessage) -> None:
        if isinstance(message, Stdin):
            assert self.server.state is not ServerState.FINISHED
            size = len(message.body)
            start = self.server.received - size
            assert bytes(message.body) == _content("stdin", start, size), "other input"
            if self._input_end is not None or self._nobody_reads or self._input_broken:
                self._drop_input()
        elif isinstance(message, CloseStdin):
            self._acted.append(message)
            if self._input_end is None:
                self._input_end = self.server.received
        elif isinstance(message, (Resize, Signal)):
            assert message.encode() not in self._unknown, "a signal ahead of the command"
            self._acted.append(message)
        elif isinstance(message, CloseOutput):
            assert self.streams[message.stream].closed
            assert message.stream not in self._closed, "closed twice"
            self._closed.add(message.stream)

    def _drop_input(self) -> None:
        """Drop what nobody reads, of that which waits."""
        if self._input_end is not None and not (self._input_broken or self._nobody_reads):
            size = self.server.received - max(self._given, self._input_end)
            if self._given < self._input_end:
                return  # first comes what is ahead of the end
        else:
            size = self.server.received - self._given
        if size and self._input_broken:
            self.server.input_broken()
        self._given += size
        self.server.given(size)

    def server_starts(self) -> None:
        """Have the command running."""
        if self.server.state is not ServerState.STARTING:
            return
        self.server.started(1, self._command, self.setup.features, False)
        self._send_messages()
        try:
            for message in self.server.early():
                self._act(message)
            assert not self._wrong_early, "not refused"
        except ProtocolError as error:
            self._refuse(error)
        self._look()

    def server_cannot_start(self) -> None:
        if self.server.state is ServerState.STARTING:
            self._disturb("no such command")
            self._end_server(ProtocolError("start command: no such file"))

    def server_goes_away(self) -> None:
        if not self._server_over:
            if self.server.state is not ServerState.FINISHED:
                self._disturb("the server has gone away")
            self._end_server(ProtocolError("the server is ending", 1001))

    def server_has_waited(self) -> None:
        """The client was told all, and has had its time to close."""
        if self.server.state is ServerState.FINISHED:
            self._end_server(None)

    def _flushed(self) -> bool:
        return not self._server_over and self._to_client.size < self.setup.capacity

    def server_says(self) -> None:
        """Send what there is to be said."""
        if self._flushed():
            self._send_messages()
            if self._window_known and self.server.state is ServerState.ENDED:
                assert self._ended_said, "the end waits behind the outputs"

    def server_prints(self, name: str, size: int) -> None:
        """Send so much of an output, as far as there is that, and room."""
        output = self.server.outputs.get(name)
        if output is None or not self._flushed():
            return
        stream = self.streams[name]
        room = self.server.room(output)
        if output.closed and not output.ended:
            assert room == (EVERYTHING if self.setup.tty else 0)
        count = min(size, room, stream.made - output.sent - stream.dropped, MAX_BODY)
        if count > 0 and not output.closed:
            output.sent += count
            body = _content(name, output.sent - count, count)
            self._to_client.put(_HEADERS[name] + body)
            self._look_at_window(output, stream, room)
        elif count > 0:
            assert self.setup.tty, "read although it is closed"
            stream.dropped += count
        elif size and room and stream.over and not output.ended:
            self._end_output(output, stream)

    def _end_output(self, output: Output, stream: _Stream) -> None:
        if stream.error is not None and not output.closed:
            self._disturb("an output broke")
        if stream.error is not None or output.sent + stream.dropped == stream.made:
            self.server.output_ended(output, stream.error)
            self._look()

    def _look_at_window(self, output: Output, stream: _Stream, room: int) -> None:
        window = self.setup.window
        if self.setup.client == "told":
            assert output.sent - stream.read <= window, "more than the window"
        elif self.setup.client == "late":
            bounded = room < EVERYTHING
            assert output.sent - output.taken <= window or not bounded, "more than the window"
        else:
            assert room == EVERYTHING, "held up by a window that there is not"

    def server_notes_closing(self, name: str) -> None:
        """See the end of an output that the client has closed, and so the server."""
        output = self.server.outputs.get(name)
        if output is not None and output.closed and not self.setup.tty and not self._server_over:
            self.server.output_ended(output, "closed")
            self._look()

    # The command

    def command_prints(self, name: str, size: int) -> None:
        stream = self.streams.get(name)
        if stream is not None and not stream.over and self._is_up():
            stream.made += size

    def command_ends_output(self, name: str, error: str | None = None) -> None:
        stream = self.streams.get(name)
        if stream is not None and not stream.over and self._is_up():
            stream.over, stream.error = True, error

    def command_reads(self, size: int) -> None:
        """Take so much of what waits of the input."""
        if not self._is_up() or self._nobody_reads or self._input_broken:
            return
        end = self.server.received if self._input_end is None else self._input_end
        count = min(size, max(0, end - self._given))
        self._given += count
        self.server.given(count)
        if self._given == self._input_end:
            self._drop_input()

    def command_closes_input(self) -> None:
        if self._is_up() and self._has_input:
            self._input_broken = True
            self._drop_input()

    def command_ends(self, status: ExitCode, deaf: bool) -> None:
        """End, and leave the input to nobody, or to somebody who was left behind."""
        if self.server.state is ServerState.RUNNING:
            self._true_status = status
            self._nobody_reads = deaf
            if deaf and self._has_input and (self.setup.tty or self._input_end is None):
                self._received_at_end = self.server.received
            self.server.ended(status, deaf)
            if deaf:
                self._drop_input()
            self._look()

    def _is_up(self) -> bool:
        return bool(self.server.outputs) and not self._server_over

    # What has to hold

    def _look(self) -> None:
        """See that neither side has gone back, and that nobody is told what is not so."""
        server, client = self.server, self.client
        states = (_SERVER_ORDER[server.state], _CLIENT_ORDER[client.state])
        assert states >= (self._states[0], 0), "the server has gone back"
        assert states[1] >= self._states[1], "the client has gone back"
        self._states = states
        assert server.received - self._given <= _INPUT_LIMIT + MAX_BODY, "too much input waits"
        if client.status is not None:
            assert client.status == self._true_status, "another status than the command's"
            assert client.missing is None
        self._was_finished |= server.state is ServerState.FINISHED
        if server.state is ServerState.CLOSED and not self._server_over:
            assert server.failure is not None  # it has found a reason itself
            self._end_server(None)

    def run_on(self) -> None:
        """Let all go on as well as it can, and see that it comes to an end on both sides."""
        for _ in range(20_000):
            if self._server_over and self._client_over():
                break
            self._go_on()
        else:
            raise AssertionError("there is no way out")
        self._look_at_end()

    def _go_on(self) -> None:
        self.client_starts()
        self._write()
        self.server_receives(1000)
        self.server_starts()
        self.command_reads(1 << 30)
        waits = self._unwritten and self._may_write() and not self._to_server.over
        if not self._to_server.frames and not waits:
            if self.server.state is ServerState.RUNNING and not self.disturbed:
                assert self.server.received == self._given == self._sent, "input is lost"
            self.command_ends(ExitCode(0), True)
        for name in self.streams:
            self.command_ends_output(name)
            self.server_prints(name, MAX_BODY)
        self.server_says()
        self.client_receives(1000)
        for name in self.streams:
            self.client_reads(name, 1 << 30)
        if self.client.state is ClientState.FINISHED:
            self.client_leaves()

    def _look_at_end(self) -> None:
        server, client = self.server, self.client
        assert server.state is ServerState.CLOSED
        assert server.messages() == []
        assert client.input_over
        if client.state is ClientState.FINISHED:
            self._look_at_good_end()
        else:
            assert self.disturbed, "lost without a reason"
            assert client.status is None or "Ended" in self._heard
            assert client.status is not None or client.missing
        # What the client has said was done once, and in its order, as far as it came. To a server
        # that has just begun, a signal means nothing.
        left = deque(self._acted)
        for number, message in enumerate(self._events):
            if left and left[0] == message:
                left.popleft()
            elif left:
                early = isinstance(message, Signal) and number < self._early_events
                assert early, "lost on its way"
        assert not left, "done twice, or out of order"

    def _look_at_good_end(self) -> None:
        server, client = self.server, self.client
        assert self._was_finished
        assert not self._to_client.frames, "something behind the exit status"
        assert server.failure is None or self._wrong, "good in spite of a failure"
        assert server.status == self._true_status is not None
        if self._true_status == STATUSES[3]:
            assert (client.status, client.missing) == (None, "lost")
        else:
            assert (client.status, client.missing) == (self._true_status, None)
        for name, stream in self.streams.items():
            if not stream.closed:
                assert stream.over
                assert stream.error is None, "good in spite of an error"
                assert stream.made == server.outputs[name].sent == stream.got, "not all of it"
