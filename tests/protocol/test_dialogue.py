"""The two sides of a connection, without any: what each may say when, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wsep_sync import Command, ProtocolError
from wsep_sync.protocol.dialogue import (
    CLIENT,
    EVERYTHING,
    INPUT_WINDOW,
    SERVER,
    TELL_EVERY,
    ClientDialogue,
    ClientState,
    Output,
    ServerDialogue,
    ServerState,
    has_credit,
)
from wsep_sync.protocol.messages import (
    FEATURES,
    STDIN_HEADER,
    STDOUT_HEADER,
    Attach,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    ServerMessage,
    Signal,
    Start,
    Stdin,
    StdinTaken,
    Stdout,
    Taken,
    decode_server_message,
)

WINDOW = 1000
GOOD = ExitCode(0)
BAD = ExitCode(2, "exit status 2")
KILLED = ExitCode(-1, "signal: killed", 9)

# What each side may get, by the names of the tables.
CLIENT_SAYS: dict[str, bytes] = {
    "start": Start(Command("x")).encode(),
    "attach": Attach("x").encode(),
    "stdin": STDIN_HEADER + b"x",
    "close_stdin": CloseStdin().encode(),
    "resize": Resize(24, 80).encode(),
    "signal": Signal(15).encode(),
    "taken": Taken(stdout=0).encode(),
    "close_output": CloseOutput("stdout").encode(),
}
SERVER_SAYS: dict[str, bytes] = {
    "pid": Pid(1).encode(),
    "stdout": STDOUT_HEADER + b"x",
    "stderr": b'{"type":"stderr"}\nx',
    "taken": StdinTaken(1).encode(),
    "ended": Ended(GOOD).encode(),
    "eof": Eof("stdout").encode(),
    "exit_code": GOOD.encode(),
}
NONSENSE = (b"no JSON", b"[]\n", b'{"type":7}\n')


def starting(command: Command | None = None, window: int | None = WINDOW) -> ServerDialogue:
    server = ServerDialogue()
    start = Start(command or Command("x", stdin=True), window=window)
    assert server.receive(start.encode()) == start
    return server


def running(command: Command | None = None, window: int | None = WINDOW) -> ServerDialogue:
    command = command or Command("x", stdin=True)
    server = starting(command, window)
    server.started(7, command, frozenset(), False)
    server.messages()
    return server


def ended(
    command: Command | None = None, window: int | None = WINDOW, status: ExitCode = GOOD
) -> ServerDialogue:
    server = running(command, window)
    server.ended(status, deaf=False)
    server.messages()
    return server


def finished(command: Command | None = None) -> ServerDialogue:
    server = ended(command)
    for output in server.outputs.values():
        server.output_ended(output)
    assert said(server) == [Eof("stdout"), GOOD] or server.outputs.keys() == {"stdout"}
    return server


def closed() -> ServerDialogue:
    server = running()
    server.fail(None)
    return server


SERVERS: dict[ServerState, Callable[[], ServerDialogue]] = {
    ServerState.OPEN: ServerDialogue,
    ServerState.STARTING: starting,
    ServerState.RUNNING: running,
    ServerState.ENDED: ended,
    ServerState.FINISHED: finished,
    ServerState.CLOSED: closed,
}


def said(server: ServerDialogue) -> list[ServerMessage | None]:
    return [decode_server_message(message) for message in server.messages()]


def tell(server: ServerDialogue, message: Any) -> ClientMessage | None:
    return server.receive(message.encode())


def put(server: ServerDialogue, size: int) -> None:
    """Send so much input, which the command is given at once."""
    wanted = server.receive(STDIN_HEADER + bytes(size))
    assert isinstance(wanted, Stdin)
    assert len(wanted.body) == size
    server.given(size)


def out(server: ServerDialogue) -> Output:
    return server.outputs["stdout"]


def err(server: ServerDialogue) -> Output:
    return server.outputs["stderr"]


def refused(server: ServerDialogue, data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        server.receive(data)
    return failed(server, caught.value)


def failed(server: ServerDialogue, error: ProtocolError) -> str:
    assert server.state is ServerState.CLOSED
    assert server.failure is not None
    assert server.failure is not error
    assert server.failure.__traceback__ is None
    assert str(server.failure) == str(error)
    assert error.close_code == server.failure.close_code == 1011
    return str(error)


# The tables


@pytest.mark.parametrize("table", [SERVER, CLIENT])
def test_the_tables_are_of_every_state_and_lead_to_the_end(table: dict[Any, Any]) -> None:
    states = type(next(iter(table)))
    assert list(table) == list(states)
    first = next(iter(states))
    reached, ends = {first}, {state for state in states if not table[state]}
    for _ in states:
        reached |= {following for state in reached for following in table[state].values()}
    assert reached == set(states)
    for state in states:
        beyond = {state}
        for _ in states:
            beyond |= {following for each in beyond for following in table[each].values()}
        assert beyond & ends, state


def test_the_tables_know_every_message() -> None:
    words = {word for row in SERVER.values() for word in row if word.islower()}
    assert words == set(CLIENT_SAYS)
    words = {word for row in CLIENT.values() for word in row if word.islower()}
    assert words == set(SERVER_SAYS)


@pytest.mark.parametrize("kind", CLIENT_SAYS)
@pytest.mark.parametrize("state", ServerState)
def test_what_a_client_may_say_when(state: ServerState, kind: str) -> None:
    server = SERVERS[state]()
    assert server.state is state
    following = SERVER[state].get(kind)
    if state is ServerState.STARTING:
        # Refused or not, it is so once the pid is on its way.
        assert server.receive(CLIENT_SAYS[kind]) is None
        assert server.state is state
        return
    if state is ServerState.CLOSED:
        assert server.receive(CLIENT_SAYS[kind]) is None
        assert server.failure is None
    elif following is None:
        refused(server, CLIENT_SAYS[kind])
    else:
        server.receive(CLIENT_SAYS[kind])
        assert server.state is following
        assert server.failure is None


@pytest.mark.parametrize("kind", SERVER_SAYS)
@pytest.mark.parametrize("state", ClientState)
def test_what_a_server_may_say_when(state: ClientState, kind: str) -> None:
    client = CLIENTS[state]()
    assert client.state is state
    following = CLIENT[state].get(kind)
    if not CLIENT[state]:
        assert client.receive(SERVER_SAYS[kind]) is None
        assert client.state is state
    elif following is None:
        with pytest.raises(ProtocolError, match="came before the pid"):
            client.receive(SERVER_SAYS[kind])
        assert client.state is state
    else:
        client.receive(SERVER_SAYS[kind])
        assert client.state is following


@pytest.mark.parametrize("state", ServerState)
def test_a_client_that_goes_and_an_error_of_ours_end_each_state(state: ServerState) -> None:
    for error in (None, ProtocolError("no", 1001)):
        server = SERVERS[state]()
        server.fail(error)
        assert server.state is ServerState.CLOSED
        told = state in (ServerState.FINISHED, ServerState.CLOSED)
        assert server.failure is (None if told else error)
        server.fail(ProtocolError("the first counts"))
        assert server.failure is (None if told else error)


@pytest.mark.parametrize("state", ServerState)
@pytest.mark.parametrize("data", [*NONSENSE, b'{"type":"resize","rows":-1}\n'], ids=repr)
def test_what_is_no_message_is_refused(state: ServerState, data: bytes) -> None:
    server = SERVERS[state]()
    if state in (ServerState.STARTING, ServerState.CLOSED):
        assert server.receive(data) is None
        assert server.failure is None
    else:
        refused(server, data)


@pytest.mark.parametrize("state", ServerState)
def test_a_type_that_is_not_known_is_ignored(state: ServerState) -> None:
    server = SERVERS[state]()
    assert server.receive(b'{"type":"news"}\n') is None
    assert server.receive(b"{}") is None
    assert server.state is state
    assert server.failure is None


@pytest.mark.parametrize("state", ServerState)
def test_what_cannot_happen_does_not(state: ServerState) -> None:
    if state is not ServerState.STARTING:
        with pytest.raises(KeyError):
            SERVERS[state]().started(1, Command("x"), frozenset(), False)
    if state is not ServerState.RUNNING:
        with pytest.raises(KeyError):
            SERVERS[state]().ended(GOOD, deaf=False)


# A server's beginning


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (kind, f"{kind} sent before command started")
        for kind in CLIENT_SAYS
        if kind not in ("start", "attach")
    ],
)
def test_the_words_for_what_comes_before_a_start(kind: str, words: str) -> None:
    assert refused(ServerDialogue(), CLIENT_SAYS[kind]) == words


@pytest.mark.parametrize("state", [ServerState.RUNNING, ServerState.ENDED, ServerState.FINISHED])
@pytest.mark.parametrize("kind", ["start", "attach"])
def test_the_words_for_a_second_start(state: ServerState, kind: str) -> None:
    assert refused(SERVERS[state](), CLIENT_SAYS[kind]) == "command already started"


def test_the_pid_names_what_there_is() -> None:
    command = Command("x")
    server = starting(command)
    server.started(7, command, frozenset(("signal", "discard", "unheard of")), True)
    assert server.state is ServerState.RUNNING
    features = ("signal", "taken", "ended", "discard", "attach")
    assert said(server) == [Pid(7, features, reattached=True)]
    assert said(server) == []


def test_what_a_terminal_shows_can_always_be_closed() -> None:
    command = Command("x", tty=True)
    server = starting(command)
    server.started(7, command, frozenset(), False)
    assert said(server) == [Pid(7, ("taken", "ended", "close_output", "attach"))]
    assert list(server.outputs) == ["stdout"]
    assert list(running().outputs) == ["stdout", "stderr"]


def test_an_attach_names_the_window_too() -> None:
    server = ServerDialogue()
    attach = Attach("build", 24, 80, WINDOW)
    assert tell(server, attach) == attach
    server.started(7, Command("x", id="build", tty=True), frozenset(), True)
    assert server.room(out(server)) == WINDOW


def test_what_comes_early_waits_for_the_command() -> None:
    command = Command("x", stdin=True)
    server = starting(command)
    buffer = bytearray(STDIN_HEADER + b"early")
    assert server.receive(buffer) is None
    buffer[:] = bytes(len(buffer))  # as of a transport that receives into one of its own
    for message in (CloseStdin(), Resize(1, 2), Taken(window=5), CloseOutput("stderr")):
        assert tell(server, message) is None
    assert server.receive(b'{"type":"news"}\n') is None
    assert server.messages() == []
    server.started(7, command, frozenset(), False)
    assert [type(message) for message in said(server)] == [Pid]
    assert server.received == 0
    early = list(server.early())
    assert early == [Stdin(b"early"), CloseStdin(), Resize(1, 2), CloseOutput("stderr")]
    assert server.received == 5
    assert server.room(out(server)) == 5
    assert server.room(err(server)) == 0
    assert list(server.early()) == []


def test_an_early_signal_is_of_a_type_that_nobody_knows() -> None:
    command = Command("x")
    server = starting(command)
    assert tell(server, Signal(9)) is None
    server.started(7, command, frozenset(), False)
    server.messages()
    assert list(server.early()) == []
    assert tell(server, Signal(9)) == Signal(9)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (CLIENT_SAYS["start"], "command already started"),
        (CLIENT_SAYS["attach"], "command already started"),
        (CLIENT_SAYS["stdin"], "read stdin: stdin is not enabled for this command"),
        (NONSENSE[0], "the header is not JSON, at byte 0"),
        (b'{"type":"signal","signal":65}\n', "signal message: signal must be 0 to 64"),
        (Taken(stdout=1).encode(), "taken: stdout has not come as far as 1"),
    ],
)
def test_who_is_refused_early_has_had_a_command(data: bytes, words: str) -> None:
    command = Command("x")
    server = starting(command)
    for early in (CLIENT_SAYS["resize"], data, CLIENT_SAYS["close_stdin"]):
        assert server.receive(early) is None
    server.started(7, command, frozenset(), False)
    assert [type(message) for message in said(server)] == [Pid]
    early = server.early()
    assert next(early) == Resize(24, 80)
    with pytest.raises(ProtocolError) as caught:
        next(early)
    assert failed(server, caught.value) == words
    assert list(early) == []


def test_a_command_that_cannot_be_started() -> None:
    server = starting()
    error = ProtocolError("start command: no such file")
    server.fail(error)
    assert server.failure is error
    assert server.messages() == []


# Input


def test_input_is_counted() -> None:
    server = running()
    put(server, 3)
    put(server, 4)
    assert server.received == 7
    assert server.receive(STDIN_HEADER) is None  # nothing
    assert tell(server, CloseStdin()) == CloseStdin()
    assert said(server) == []


@pytest.mark.parametrize("body", [b"x", b""])
@pytest.mark.parametrize("state", [running, ended, finished])
def test_input_of_a_command_without_one_is_refused(
    state: Callable[[Command], ServerDialogue], body: bytes
) -> None:
    server = state(Command("x"))
    words = "read stdin: stdin is not enabled for this command"
    assert refused(server, STDIN_HEADER + body) == words
    assert tell(running(Command("x")), CloseStdin()) == CloseStdin()
    assert isinstance(running(Command("x", tty=True)).receive(STDIN_HEADER + b"x"), Stdin)


def test_what_was_taken_is_told_from_time_to_time() -> None:
    server = running()
    put(server, TELL_EVERY - 1)
    assert said(server) == []
    put(server, 1)
    assert said(server) == [StdinTaken(TELL_EVERY)]
    for _ in range(5):
        put(server, TELL_EVERY)
    put(server, 5)
    assert said(server) == [StdinTaken(6 * TELL_EVERY + 5)]  # once for all of it
    assert said(server) == []
    put(server, TELL_EVERY)
    server.ended(GOOD, deaf=False)
    assert said(server) == [Ended(GOOD), StdinTaken(7 * TELL_EVERY + 5)]
    put(server, TELL_EVERY)
    assert said(server) == [StdinTaken(8 * TELL_EVERY + 5)]  # to whom it has left behind


def test_that_a_command_has_closed_its_input_is_told_once() -> None:
    server = running()
    put(server, 5)
    server.input_broken()
    assert said(server) == [StdinTaken(5, closed=True)]
    server.input_broken()
    assert said(server) == []
    put(server, TELL_EVERY)  # dropped
    assert said(server) == [StdinTaken(TELL_EVERY + 5, closed=True)]


def test_who_tells_of_no_window_is_told_nothing_of_the_input() -> None:
    server = running(window=None)
    put(server, 3 * TELL_EVERY)
    server.input_broken()
    assert said(server) == []
    tell(server, Taken(window=WINDOW))
    assert said(server) == [StdinTaken(3 * TELL_EVERY, closed=True)]


def test_input_behind_its_end_is_dropped() -> None:
    server = running()
    put(server, TELL_EVERY)
    tell(server, CloseStdin())
    assert said(server) == [StdinTaken(TELL_EVERY)]
    for number in (2, 3):
        put(server, TELL_EVERY)
        tell(server, CloseStdin())
        assert said(server) == [StdinTaken(number * TELL_EVERY, closed=True)]


@pytest.mark.parametrize("state", [ServerState.FINISHED, ServerState.CLOSED])
def test_nothing_of_the_input_is_told_behind_the_end(state: ServerState) -> None:
    server = SERVERS[state]()
    server.given(TELL_EVERY)
    server.input_broken()
    assert said(server) == []


def test_input_that_comes_after_the_status_is_dropped() -> None:
    server = finished()
    assert server.receive(STDIN_HEADER + b"late") is None
    assert server.received == 0
    for message in (CloseStdin(), Resize(1, 2), Signal(9), CloseOutput("stdout")):
        assert tell(server, message) == message
    assert server.state is ServerState.FINISHED


# Output


def test_a_window_is_what_may_be_on_the_way() -> None:
    server = running()
    assert server.room(out(server)) == WINDOW
    out(server).sent += 400
    assert (server.room(out(server)), server.room(err(server))) == (600, WINDOW)
    out(server).sent += 600
    assert server.room(out(server)) == 0
    assert tell(server, Taken(stdout=300)) is None
    assert server.room(out(server)) == 300
    tell(server, Taken(stdout=100, stderr=0))  # says nothing new
    tell(server, Taken())
    assert server.room(out(server)) == 300
    tell(server, Taken(stdout=1000))
    assert server.room(out(server)) == WINDOW
    assert server.state is ServerState.RUNNING


def test_a_window_that_shrinks() -> None:
    server = running()
    out(server).sent += 900
    tell(server, Taken(stdout=100, window=50))
    assert server.room(out(server)) == 0
    tell(server, Taken(stdout=900))
    assert server.room(out(server)) == 50


def test_without_a_window_nothing_is_held_up() -> None:
    server = running(window=None)
    out(server).sent += 1 << 40
    assert server.room(out(server)) == EVERYTHING
    tell(server, Taken(window=WINDOW))
    assert server.room(out(server)) == 0
    tell(server, Taken(stdout=1 << 40))
    assert server.room(out(server)) == WINDOW


@pytest.mark.parametrize("state", [ServerState.RUNNING, ServerState.ENDED, ServerState.FINISHED])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_no_more_is_taken_than_was_sent(state: ServerState, name: str) -> None:
    server = SERVERS[state]()
    server.outputs[name].sent += 5
    tell(server, Taken(**{name: 5}))
    words = f"taken: {name} has not come as far as 6"
    assert refused(server, Taken(**{name: 6}).encode()) == words


def test_what_a_terminal_does_not_have_is_not_looked_at() -> None:
    server = running(Command("x", tty=True))
    assert tell(server, Taken(stderr=6)) is None
    assert tell(server, CloseOutput("stderr")) is None
    assert server.failure is None


def test_an_output_that_is_closed_is_not_read() -> None:
    server = running()
    assert tell(server, CloseOutput("stdout")) == CloseOutput("stdout")
    assert tell(server, CloseOutput("stdout")) is None
    assert (server.room(out(server)), server.room(err(server))) == (0, WINDOW)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_that_of_a_terminal_is_read_on(window: int | None) -> None:
    server = running(Command("x", tty=True), window)
    assert tell(server, CloseOutput("stdout")) == CloseOutput("stdout")
    assert server.room(out(server)) == EVERYTHING
    server.ended(GOOD, deaf=True)
    assert server.state is ServerState.FINISHED
    assert server.room(out(server)) == EVERYTHING
    server.output_ended(out(server))
    assert server.room(out(server)) == 0


def test_an_output_that_has_ended_is_not_read() -> None:
    server = running(window=None)
    server.output_ended(out(server))
    assert server.room(out(server)) == 0
    assert said(server) == []


# A server's end


def test_the_end_overtakes_the_outputs() -> None:
    server = running()
    server.ended(BAD, deaf=False)
    assert server.state is ServerState.ENDED
    assert server.status == BAD
    assert said(server) == [Ended(BAD)]
    server.output_ended(err(server))
    assert said(server) == [Eof("stderr")]
    server.output_ended(out(server))
    assert said(server) == [BAD]
    assert server.state is ServerState.FINISHED


def test_an_output_that_ends_before_the_command() -> None:
    server = running()
    server.output_ended(out(server))
    assert said(server) == []
    server.ended(KILLED, deaf=False)
    assert said(server) == [Ended(KILLED), Eof("stdout")]
    tell(server, Taken())
    assert said(server) == []
    server.output_ended(err(server))
    assert said(server) == [KILLED]


def test_outputs_that_have_ended_before() -> None:
    server = running()
    for output in server.outputs.values():
        server.output_ended(output)
    assert said(server) == []
    server.ended(GOOD, deaf=False)
    assert said(server) == [Ended(GOOD), GOOD]


def test_who_tells_of_no_window_gets_the_status_alone() -> None:
    server = running(window=None)
    server.output_ended(out(server))
    server.ended(GOOD, deaf=True)
    assert server.status == GOOD
    assert said(server) == []
    server.output_ended(err(server))
    assert said(server) == [GOOD]


def test_a_window_that_is_told_after_the_end() -> None:
    server = running(window=None)
    put(server, 5)
    server.output_ended(err(server))
    server.ended(GOOD, deaf=True)
    assert said(server) == []
    tell(server, Taken(window=WINDOW))
    assert said(server) == [StdinTaken(5, closed=True), Ended(GOOD), Eof("stderr")]
    tell(server, Taken(window=WINDOW + 1))
    assert said(server) == []
    server.output_ended(out(server))
    assert said(server) == [GOOD]


def test_that_nobody_reads_the_input_is_told_ahead_of_the_end() -> None:
    server = running()
    put(server, 5)
    assert isinstance(server.receive(STDIN_HEADER + b"nobody's"), Stdin)
    server.ended(GOOD, deaf=True)
    assert said(server) == [StdinTaken(13, closed=True), Ended(GOOD)]
    # What is dropped from now on takes nothing back.
    server.given(8)
    server.input_broken()
    assert said(server) == []
    put(server, TELL_EVERY)
    assert said(server) == [StdinTaken(TELL_EVERY + 13, closed=True)]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (Command("x"), []),
        (Command("x", stdin=True), []),
        (Command("x", tty=True), [StdinTaken(0, closed=True)]),
    ],
)
def test_who_has_ended_the_input_need_not_be_told(command: Command, told: list[Any]) -> None:
    server = running(command)
    tell(server, CloseStdin())
    server.ended(GOOD, deaf=True)
    assert said(server) == [*told, Ended(GOOD)]


def test_an_output_that_is_closed_is_not_waited_for() -> None:
    server = ended()
    assert tell(server, CloseOutput("stdout")) == CloseOutput("stdout")
    assert said(server) == []
    server.output_ended(out(server))  # as it is closed here, too
    assert said(server) == [Eof("stdout")]
    assert tell(server, CloseOutput("stderr")) == CloseOutput("stderr")
    assert said(server) == [GOOD]
    assert server.state is ServerState.FINISHED
    server.output_ended(err(server))
    assert said(server) == []


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("error", ["lost", ""])
def test_an_output_that_ends_by_an_error_is_no_end(
    window: int | None, first: bool, error: str
) -> None:
    server = running(window=window)
    if first:
        server.output_ended(out(server), error)
    server.ended(GOOD, deaf=False)
    told = [] if window is None else [Ended(GOOD)]
    assert said(server) == told
    if not first:
        server.output_ended(out(server), error)
    tell(server, CloseOutput("stdout"))  # too late to make it good
    assert said(server) == []
    assert server.failure is None
    server.output_ended(err(server), "the first is told")
    assert str(server.failure) == f"read stdout: {error}"
    assert server.state is ServerState.CLOSED
    assert said(server) == []


def test_an_error_of_an_output_that_is_closed_is_none() -> None:
    server = ended()
    tell(server, CloseOutput("stdout"))
    server.output_ended(out(server), "closed")
    server.output_ended(err(server))
    assert server.state is ServerState.FINISHED
    assert said(server) == [Eof("stdout"), GOOD]


def test_whoever_fails_says_nothing_more() -> None:
    server = running()
    server.ended(GOOD, deaf=False)
    server.fail(ProtocolError("the server is ending", 1001))
    assert said(server) == []
    for output in server.outputs.values():
        server.output_ended(output)
    assert said(server) == []
    assert server.state is ServerState.CLOSED


def test_a_status_that_waits_to_be_sent_is_sent() -> None:
    server = running()
    server.ended(GOOD, deaf=False)
    for output in server.outputs.values():
        server.output_ended(output)
    server.fail(ProtocolError("the server is ending", 1001))
    assert server.failure is None
    assert said(server) == [Ended(GOOD), Eof("stdout"), GOOD]


def test_nonsense_is_refused_after_the_status_too() -> None:
    server = finished()
    refused(server, NONSENSE[0])


# A client


def asked(features: tuple[str, ...] = FEATURES) -> ClientDialogue:
    client = ClientDialogue()
    client.receive(Pid(7, features).encode())
    return client


def client_ended(status: ExitCode = GOOD) -> ClientDialogue:
    client = asked()
    client.receive(Ended(status).encode())
    return client


def client_finished(status: ExitCode = GOOD) -> ClientDialogue:
    client = client_ended(status)
    client.receive(status.encode())
    return client


def client_lost() -> ClientDialogue:
    client = asked()
    client.lost("gone")
    return client


CLIENTS: dict[ClientState, Callable[[], ClientDialogue]] = {
    ClientState.ASKED: ClientDialogue,
    ClientState.RUNNING: asked,
    ClientState.ENDED: client_ended,
    ClientState.FINISHED: client_finished,
    ClientState.LOST: client_lost,
}


def test_a_client_hears_of_its_command() -> None:
    client = ClientDialogue()
    assert not client.credit
    assert client.receive(b'{"type":"news"}\n') is None
    pid = Pid(7, ("taken", "ended"), reattached=True)
    assert client.receive(pid.encode()) == pid
    assert client.pid == pid
    assert client.credit
    assert client.receive(Pid(8).encode()) is None
    assert client.pid == pid
    assert client.receive(STDOUT_HEADER + b"out") == Stdout(b"out")
    assert client.receive(Eof("stdout").encode()) == Eof("stdout")
    assert client.receive(Ended(BAD).encode()) == Ended(BAD)
    assert client.status == BAD
    assert client.receive(BAD.encode()) == BAD
    assert client.state is ClientState.FINISHED
    client.lost("after the end")
    assert (client.state, client.status, client.missing) == (ClientState.FINISHED, BAD, None)


@pytest.mark.parametrize("state", ClientState)
@pytest.mark.parametrize("data", NONSENSE, ids=repr)
def test_nonsense_of_a_servers_is_refused(state: ClientState, data: bytes) -> None:
    client = CLIENTS[state]()
    if CLIENT[state]:
        with pytest.raises(ProtocolError, match="header"):
            client.receive(data)
    else:
        assert client.receive(data) is None
    assert client.state is state


@pytest.mark.parametrize("features", [(), ("taken",), ("ended",), ("signal", "taken", "ended")])
def test_credit_is_both(features: tuple[str, ...]) -> None:
    assert asked(features).credit is has_credit(frozenset(features)) is (len(features) == 3)


def test_two_statuses_are_none() -> None:
    for first, other in ((GOOD, BAD), (BAD, GOOD), (KILLED, ExitCode(-1, "signal: killed", 15))):
        for message in (Ended(other), other):
            client = client_ended(first)
            with pytest.raises(ProtocolError, match="another status than the one of ended"):
                client.receive(message.encode())
            client.lost("the server sent nonsense")
            assert client.status is None
            assert client.missing == "the server has told two"
            assert client.state is ClientState.LOST


@pytest.mark.parametrize("then", [ExitCode(0, "lost"), GOOD, BAD])
def test_no_status_is_made_good_by_another(then: ExitCode) -> None:
    client = client_ended(ExitCode(0, "lost"))
    assert (client.status, client.missing) == (None, "lost")
    client.receive(then.encode())
    assert client.state is ClientState.FINISHED
    assert (client.status, client.missing) == (None, "lost")


def test_a_good_status_is_not_good_with_an_error() -> None:
    client = client_ended(GOOD)
    with pytest.raises(ProtocolError):
        client.receive(ExitCode(0, "lost").encode())
    assert client.status is None


@pytest.mark.parametrize("state", [ClientState.ASKED, ClientState.RUNNING, ClientState.ENDED])
def test_a_connection_that_ends_before_its_time(state: ClientState) -> None:
    client = CLIENTS[state]()
    client.lost("reset")
    client.lost("the first counts")
    assert client.state is ClientState.LOST
    if state is ClientState.ENDED:
        assert (client.status, client.missing) == (GOOD, None)  # but there is output missing
    else:
        assert (client.status, client.missing) == (None, "reset")
    client.receive(BAD.encode())
    assert client.status in (None, GOOD)


def test_input_waits_for_credit() -> None:
    client = asked()
    client.sent(INPUT_WINDOW - 1)
    assert client.input_room()
    client.sent(60_000)
    assert not client.input_room()
    client.receive(StdinTaken(59_999).encode())
    assert not client.input_room()
    client.receive(StdinTaken(60_000).encode())
    assert client.input_room()
    client.receive(StdinTaken(0).encode())  # says nothing new
    assert client.input_room()
    # More than was sent is no credit for later.
    client.receive(StdinTaken(1 << 40).encode())
    client.sent(INPUT_WINDOW)
    assert not client.input_room()


def test_without_credit_input_does_not_wait() -> None:
    client = asked(())
    client.sent(1 << 40)
    assert client.input_room()


def test_why_no_more_input_is_wanted() -> None:
    client = asked()
    assert client.input_over == ""
    client.receive(Ended(GOOD).encode())
    assert client.input_over == ""  # whoever it has left behind may read
    client.receive(StdinTaken(0, closed=True).encode())
    assert client.input_over == "the command has closed its input"
    client.receive(GOOD.encode())
    assert client.input_over == "the command has closed its input"
    for state in (client_finished, client_lost):
        assert state().input_over == "the command has ended"
    client = asked()
    client.end_input("the command is that of the parent process")
    client.lost("closed")
    assert client.input_over == "the command is that of the parent process"
