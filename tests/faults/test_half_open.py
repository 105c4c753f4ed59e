"""Connections of which one direction has ended, or that have gone silent, or are very slow."""

from __future__ import annotations

import pytest
from faults import DIALOGUE, REPLACED, Site, Step, expected, how_ended, name, passed, rest, talk
from helpers import SECONDS, Task, read_until, sh
from tcp_proxy import (
    AFTER,
    BEFORE,
    BODY,
    DOWN,
    FIN_TO_CLIENT,
    FIN_TO_SERVER,
    HEADER,
    PARTS,
    SILENCE,
    SILENCE_DOWN,
    SILENCE_UP,
    UP,
    Fault,
)

from wsep_sync import Command, connect
from wsep_sync import process as process_module
from wsep_sync.errors import ConnectError, ExitError, ExitMissing, StartError
from wsep_sync.serving import connection as server
from wsep_sync.transports import sockets

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


# One direction ends, and the other goes on


@pytest.mark.parametrize("how", [FIN_TO_CLIENT, FIN_TO_SERVER])
@pytest.mark.parametrize("part", [BODY, AFTER])
@pytest.mark.parametrize("step", DIALOGUE, ids=name)
def test_one_direction_ends(place: Site, step: Step, part: str, how: str) -> None:
    done = DIALOGUE.index(step) + (part == AFTER)
    # What a server has sent, or is about to send, when its client's end comes still arrives.
    possible = [expected(DIALOGUE[:done])]
    if how == FIN_TO_SERVER:
        possible += [expected(DIALOGUE[: done + more]) for more in (1, 2)]
    if (*step, part) in REPLACED or (how == FIN_TO_SERVER and done in (1, 2)):
        possible += [expected(DIALOGUE)]
    with place.proxy(Fault(how, *step, part)) as proxy:
        told = talk(place, proxy.url)
        assert proxy.struck.wait(SECONDS)
        assert told in possible
        place.settled()


# Half-open: nothing passes any more, and nobody is told


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what has a bound run into it soon."""
    monkeypatch.setattr(process_module, "CLOSE_GRACE", 0.1)
    monkeypatch.setattr(process_module, "KILL_GRACE", 0.1)
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr(server, "_CLOSE_WAIT", 0.1)


@pytest.mark.parametrize(
    ("how", "part"),
    [(SILENCE, part) for part in PARTS] + [(SILENCE_UP, part) for part in (BEFORE, HEADER, BODY)],
)
def test_silence_before_the_answer(place: Site, part: str, how: str) -> None:
    with (
        place.proxy(Fault(how, UP, "request", part=part)) as proxy,
        pytest.raises(ConnectError, match=r"no answer within 0\.2 seconds"),
    ):
        connect(proxy.url, timeout=0.2)
    place.settled()


@pytest.mark.parametrize("how", [SILENCE, SILENCE_DOWN])
@pytest.mark.parametrize("part", [BEFORE, HEADER, BODY])
@pytest.mark.parametrize("name", ["answer", "pid"])
def test_silence_instead_of_an_answer(
    place: Site, name: str, part: str, how: str, impatient: None
) -> None:
    # On a slow machine, even the answer may take too long.
    error = ConnectError if name == "answer" else (ConnectError, StartError)

    def client() -> None:
        with (
            pytest.raises(error, match="no answer"),
            connect(proxy.url, timeout=0.2) as execer,
        ):
            execer.start(sh("exec sleep 1000"))

    with place.proxy(Fault(how, DOWN, name, part=part)) as proxy:
        client()
        if how == SILENCE_DOWN:
            place.settled()  # the client's end is not held back
    place.settled()


@pytest.mark.parametrize("how", [SILENCE, SILENCE_UP, SILENCE_DOWN])
def test_silence_while_a_command_runs(place: Site, how: str, impatient: None) -> None:
    def client() -> None:
        with (
            place.connect(proxy.url) as execer,
            execer.start(sh("echo ready; exec cat", stdin=True)) as process,
        ):
            assert process.stdout.readline() == b"ready\n"
            proxy.strike(how)
            process.stdin.raw.write(b"anybody there?")
            with pytest.raises(TimeoutError):
                process.wait(0.1)
            process.kill()
            process.close()
            assert how_ended(process) is ExitMissing
            assert (rest(process.stdout), rest(process.stderr)) == ((b"", True), (b"", True))

    with place.proxy() as proxy:
        client()
        if how == SILENCE_DOWN:
            place.settled()
    place.settled()


# Slow


@pytest.mark.parametrize("pause", [0.0, 0.0002])
def test_one_byte_at_a_time(place: Site, pause: float) -> None:
    with place.proxy(piece=1, pause=pause) as proxy:
        assert talk(place, proxy.url) == expected(DIALOGUE)
        place.settled()
        assert passed(proxy) == DIALOGUE


def test_one_byte_at_a_time_on_a_terminal(place: Site) -> None:
    def client() -> None:
        command = sh("stty size; read -r line; echo $line; exit 3", tty=True, rows=33, cols=77)
        with place.connect(proxy.url) as execer, execer.start(command) as process:
            read_until(process.stdout, b"33 77\r\n")
            process.stdin.raw.write(b"typed\r")
            assert rest(process.stdout) == (b"typed\r\ntyped\r\n", True)
            assert how_ended(process) is ExitError

    with place.proxy(piece=1) as proxy:
        client()
        place.settled()


def test_a_large_output_in_small_pieces(place: Site) -> None:
    data = bytes(range(256)) * 1000

    def client() -> None:
        with (
            place.connect(proxy.url) as execer,
            execer.start(Command("cat", stdin=True)) as process,
            Task(process.stdin.write, data) as writing,
        ):
            got = process.stdout.read(len(data) - 8192)
            writing.result()
            process.stdin.close()
            assert got + process.stdout.read() == data
            process.wait(SECONDS)

    with place.proxy(piece=97) as proxy:
        client()
        place.settled()
