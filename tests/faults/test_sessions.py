"""A connection that breaks while it is attached to a session: the session goes on.

After each fault there is exactly the session there was, with nobody attached; who attaches again
finds the same command, what was typed before has reached it, and it can be ended.
"""

from __future__ import annotations

import pytest
from faults import Site, Step, cuts, how_ended, rest
from helpers import SECONDS, eventually, gone, read_until
from session_clients import Client, session
from tcp_proxy import AFTER, BODY, CUTS, DOWN, PARTS, UP, Fault

from wsep_sync import Command, Process
from wsep_sync.errors import ConnectError, ExitError, ExitMissing, TransportClosed

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long

ECHO = 'stty -echo; echo ready; while read -r line; do echo "got $line"; done'

# What passes when somebody attaches, types a line, and leaves. How many messages an output is in
# depends on the moment, so only the first counts.
ATTACHING: list[Step] = [
    (UP, "request", 1),
    (DOWN, "answer", 1),
    (UP, "start", 1),
    (DOWN, "pid", 1),
    (DOWN, "stdout", 1),
    (UP, "stdin", 1),
    (UP, "resize", 1),
    (UP, "close", 1),
    (DOWN, "close", 1),
]


def echo(id: str = "s") -> Command:
    return session(id, "sh", "-c", ECHO)


def attach(place: Site, url: str) -> type[Exception] | None:
    """Attach, type a line and leave, as far as it goes; return what went wrong."""
    try:
        with place.connect(url, "s") as execer, execer.start(echo()) as process:
            read_until(process.stdout, b"ready\r\n")
            process.stdin.raw.write(b"one\n")
            read_until(process.stdout, b"got one\r\n")
            process.resize(30, 100)
    except (ConnectError, TransportClosed, BrokenPipeError, ExitMissing) as error:
        return type(error)
    return None


def expected(whole: list[Step]) -> set[type[Exception] | None]:
    """What may go wrong when no more than this has passed."""
    if (DOWN, "answer", 1) not in whole:
        return {ConnectError}
    if (DOWN, "pid", 1) not in whole:
        return {TransportClosed}
    if (UP, "stdin", 1) not in whole:
        # In reading or in writing.
        return {ExitMissing, BrokenPipeError}
    # The first output may have been all of it, and what is sent last nobody misses.
    return {ExitMissing, BrokenPipeError, None}


def end(place: Site, pid: int, *typed: bytes) -> None:
    """Attach to the session again, see that it is the same and has got the lines, and end it."""

    def client() -> None:
        with place.connect(session_id="s") as execer, execer.start(echo()) as process:
            assert process.reattached
            assert process.pid == pid
            client = Client(process)
            for line in (b"ready", *(b"got " + line for line in typed)):
                client.until(line + b"\r\n")
            client.type(b"two\n")
            client.until(b"got two\r\n")
            assert client.got.count(b"ready") == 1
            process.kill()
            with pytest.raises(ExitError):
                process.wait(SECONDS)
            client.leave()

    client()
    place.settled()


@pytest.mark.parametrize("reattached", [False, True])
def test_attaching_uncut(place: Site, reattached: bool) -> None:
    if reattached:
        assert attach(place, place.url) is None
        place.settled(place.execer.pids[0])
    with place.proxy() as proxy:
        assert attach(place, proxy.url) is None
        place.settled(place.execer.pids[0])
        seen = [(unit.direction, unit.name) for unit in proxy.units]
        assert sorted(set(seen), key=seen.index) == [step[:2] for step in ATTACHING]
        end(place, place.execer.pids[0], b"one")


@cuts(ATTACHING)
def test_a_cut_while_the_first_is_attached(place: Site, step: Step, part: str, how: str) -> None:
    whole = ATTACHING[: ATTACHING.index(step) + (part == AFTER)]
    with place.proxy(Fault(how, *step, part)) as proxy:
        assert attach(place, proxy.url) in expected(whole)
        assert proxy.struck.wait(SECONDS)
        if (UP, "start", 1) not in whole:
            place.settled()
            return
        (pid,) = eventually(lambda: place.execer.pids[:], "the session")
        place.settled(pid)
        end(place, pid, *([b"one"] if (UP, "stdin", 1) in whole else []))


@cuts(ATTACHING)
def test_a_cut_while_another_is_attached(place: Site, step: Step, part: str, how: str) -> None:
    whole = ATTACHING[: ATTACHING.index(step) + (part == AFTER)]

    def others() -> None:
        with place.connect(session_id="s") as execer, execer.start(echo()) as process:
            client = Client(process)
            client.until(b"ready\r\n")
            assert attach(place, proxy.url) in expected(whole)
            assert proxy.struck.wait(SECONDS)
            if (UP, "stdin", 1) in whole:
                client.until(b"got one\r\n")
            eventually(lambda: place.server.sessions()[0].clients == 1, "only one to be left")
            client.type(b"still here\n")
            client.until(b"got still here\r\n")
            client.leave()

    with place.proxy(Fault(how, *step, part)) as proxy:
        others()
        pid = place.execer.pids[0]
        place.settled(pid)
        end(place, pid, b"still here")


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("part", PARTS)
def test_a_cut_when_the_session_ends(place: Site, part: str, how: str) -> None:
    def client(url: str) -> type[Exception]:
        command = session("s", "sh", "-c", "stty -echo; echo ready; read line; exit 3")
        with place.connect(url, "s") as execer, execer.start(command) as process:
            assert not process.reattached
            read_until(process.stdout, b"ready\r\n")
            process.stdin.raw.write(b"now\n")
            # The end is told ahead of the rest, which does not come.
            assert rest(process.stdout) == (b"", url == place.url)
            return how_ended(process)

    with place.proxy(Fault(how, DOWN, "ended", part=part)) as proxy:
        assert client(proxy.url) is (ExitError if part == AFTER else ExitMissing)
        place.settled()
        # The name is free again.
        assert client(place.url) is ExitError
        place.settled()


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("part", [BODY, AFTER])
def test_a_cut_in_a_flood(place: Site, part: str, how: str) -> None:
    def client(url: str) -> Process:
        with place.connect(url, "s") as execer:
            return execer.start(session("s", "yes"))

    def lost() -> bytes:
        with client(proxy.url) as process:
            got, ended = rest(process.stdout)
            assert not ended
            assert how_ended(process) is ExitMissing
            return got

    def found() -> None:
        with client(place.url) as process:
            assert (process.reattached, process.pid) == (True, place.execer.pids[0])
            read_until(process.stdout, b"y\r\ny\r\n")
            process.kill()
            gone(process.pid)

    with place.proxy(Fault(how, DOWN, "stdout", 50, part)) as proxy:
        got = lost()
        assert got == proxy.passed(DOWN, "stdout")
        place.settled(place.execer.pids[0])
        found()
        place.settled()


@pytest.mark.parametrize("how", CUTS)
def test_typed_ahead_of_a_cut(place: Site, how: str) -> None:
    # All of it has arrived, so all of it is for the session, though nobody is there any more.
    lines = [b"line %d" % number for number in range(100)]

    def client() -> None:
        with place.connect(proxy.url, "s") as execer, execer.start(echo()) as process:
            read_until(process.stdout, b"ready\r\n")
            for line in lines:
                process.stdin.raw.write(line + b"\n")
            assert proxy.struck.wait(SECONDS)

    with place.proxy(Fault(how, UP, "stdin", len(lines), AFTER)) as proxy:
        client()
        pid = place.execer.pids[0]
        place.settled(pid)
        end(place, pid, *lines)
