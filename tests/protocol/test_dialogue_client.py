"""A client's side of the dialogue."""

from __future__ import annotations

import pytest
from dialogue_states import (
    BAD,
    CLIENTS,
    GOOD,
    KILLED,
    NONSENSE,
    asked,
    client_ended,
    client_finished,
    client_lost,
)

from wsep_sync import ProtocolError
from wsep_sync.protocol.dialogue import (
    CLIENT,
    INPUT_WINDOW,
    ClientDialogue,
    ClientState,
    has_credit,
)
from wsep_sync.protocol.messages import STDOUT_HEADER, Ended, Eof, ExitCode, Pid, StdinTaken, Stdout


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
