"""A server's side of the dialogue: input, output, and its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dialogue_states import (
    BAD,
    GOOD,
    KILLED,
    NONSENSE,
    SERVERS,
    WINDOW,
    ended,
    err,
    finished,
    out,
    put,
    refused,
    running,
    said,
    tell,
)

from wsep_sync import Command, ProtocolError
from wsep_sync.protocol.dialogue import EVERYTHING, TELL_EVERY, ServerDialogue, ServerState
from wsep_sync.protocol.messages import (
    STDIN_HEADER,
    CloseOutput,
    CloseStdin,
    Echo,
    EchoIs,
    Ended,
    Eof,
    Resize,
    Signal,
    Stdin,
    StdinTaken,
    Taken,
)

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


def test_one_answer_for_many_questions() -> None:
    server = running(Command("x", tty=True))
    for on in (None, False, None):
        assert tell(server, Echo(on)) == Echo(on)
        server.echo_is(False)
    # However many came: what waits for a client that does not read is bounded.
    assert server.messages() == [EchoIs(3, False).encode()]
    assert server.messages() == []
