"""The two sides of a connection, without any: what each may say when, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from dialogue_states import (
    CLIENT_SAYS,
    CLIENTS,
    GOOD,
    NONSENSE,
    SERVER_SAYS,
    SERVERS,
    WINDOW,
    err,
    failed,
    out,
    refused,
    running,
    said,
    starting,
    tell,
)

from wsep_sync import Command, ProtocolError
from wsep_sync.protocol.dialogue import CLIENT, SERVER, ClientState, ServerDialogue, ServerState
from wsep_sync.protocol.messages import (
    STDIN_HEADER,
    Attach,
    CloseOutput,
    CloseStdin,
    Pid,
    Resize,
    Signal,
    Stdin,
    Taken,
)

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
