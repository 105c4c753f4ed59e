"""A connection that breaks, at every message and in the midst of it, while a command runs on pipes.

All of it on real sockets, through a proxy that breaks them. After each fault: the right exception,
what had arrived is there to be read, the command has ended, no thread, process or descriptor is
left, and the server serves the next client.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from faults import (
    DIALOGUE,
    SCRIPT,
    Site,
    Step,
    converse,
    cuts,
    expected,
    how_ended,
    passed,
    rest,
    talk,
)
from helpers import SECONDS, Task, blocked, eventually, gone, sh
from tcp_proxy import AFTER, BODY, CUTS, DOWN, FIN, PARTS, UP, Fault, Proxy

from wsep_sync import Command, connect
from wsep_sync.errors import ExitError, ExitMissing


def test_the_dialogue_uncut(place: Site) -> None:
    with place.proxy() as proxy:
        told = talk(place, proxy.url)
        place.settled()
        assert passed(proxy) == DIALOGUE
    assert told == expected(DIALOGUE)


@cuts(DIALOGUE)
def test_a_cut(place: Site, step: Step, part: str, how: str) -> None:
    whole = DIALOGUE[: DIALOGUE.index(step) + (part == AFTER)]
    with place.proxy(Fault(how, *step, part)) as proxy:
        told = talk(place, proxy.url)
        assert proxy.struck.wait(SECONDS)
        assert passed(proxy) == whole
        assert told == expected(whole)
        place.settled()
    assert len(place.execer.pids) == ((UP, "start", 1) in whole) + 1


@pytest.mark.parametrize("how", CUTS)
def test_a_cut_before_anything_is_asked(place: Site, how: str) -> None:
    with place.proxy(Fault(how, DOWN, "answer", part=AFTER)) as proxy:

        def client() -> None:
            with place.connect(proxy.url) as execer:
                assert proxy.struck.wait(SECONDS)
                with execer.start(sh(SCRIPT, stdin=True)) as process:
                    assert converse(process) == (b"one\nthree\n", b"two\n", True)
                    assert how_ended(process) is ExitError

        client()
        place.settled()


# What flows when it is cut


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("part", PARTS)
def test_a_cut_in_a_flood_of_output(place: Site, part: str, how: str) -> None:
    def client() -> bytes:
        with place.connect(proxy.url) as execer, execer.start(Command("yes")) as process:
            got, ended = rest(process.stdout)
            assert not ended
            assert how_ended(process) is ExitMissing
            return got

    with place.proxy(Fault(how, DOWN, "stdout", 50, part)) as proxy:
        got = client()
        place.settled()
        assert got == proxy.passed(DOWN, "stdout")
    assert got == (b"y\n" * len(got))[: len(got)]


@pytest.mark.parametrize("how", CUTS)
def test_a_cut_while_nobody_reads(place: Site, how: str) -> None:
    def client() -> bytes:
        with place.connect(proxy.url) as execer, execer.start(Command("yes")) as process:
            eventually(lambda: stuck(proxy), "everything on the way to be full")
            proxy.strike(how)
            # The client can't see it while there is something to be read, but the server does.
            gone(process.pid)
            got, ended = rest(process.stdout)
            assert not ended
            assert how_ended(process) is ExitMissing
            return got

    with place.proxy() as proxy:
        got = client()
        place.settled()
        sent = proxy.passed(DOWN, "stdout")
    assert len(got) == 1 << 20  # the window
    assert sent.startswith(got)
    if how == FIN:
        assert got == sent


def stuck(proxy: Proxy) -> bool:
    """Whether nothing passes any more."""
    before = len(proxy.units)
    time.sleep(0.1)
    return before == len(proxy.units) > 10


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("part", PARTS)
def test_a_cut_in_a_flood_of_input(place: Site, part: str, how: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()  # the command may be ended before its shell has come to make it

    def client() -> None:
        command = sh('exec cat > "$1"', str(file), stdin=True)
        with place.connect(proxy.url) as execer, execer.start(command) as process:
            with pytest.raises(BrokenPipeError):
                process.stdin.writelines(itertools.repeat(b"0123456789\n"))
            assert how_ended(process) is ExitMissing
            assert (rest(process.stdout), rest(process.stderr)) == ((b"", False), (b"", False))

    with place.proxy(Fault(how, UP, "stdin", 50, part)) as proxy:
        client()
        place.settled()
        sent = proxy.passed(UP, "stdin")
    assert sent.startswith(file.read_bytes())


@pytest.mark.parametrize("how", CUTS)
def test_a_cut_while_the_command_does_not_read(place: Site, how: str) -> None:
    def client() -> None:
        command = sh("exec sleep 1000", stdin=True)
        with (
            place.connect(proxy.url) as execer,
            execer.start(command) as process,
            Task(process.stdin.raw.write, bytes(10_000_000)) as writing,
        ):
            blocked(writing)
            proxy.strike(how)
            with pytest.raises(BrokenPipeError):
                writing.result()
            assert how_ended(process) is ExitMissing

    with place.proxy() as proxy:
        client()
        place.settled()


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize(("direction", "name"), [(UP, "stdin"), (DOWN, "stdout")])
def test_a_cut_while_both_directions_are_full(
    place: Site, direction: str, name: str, how: str
) -> None:
    data = b"".join(b"%d\n" % number for number in range(700_000))

    def client() -> None:
        with (
            place.connect(proxy.url) as execer,
            execer.start(Command("cat", stdin=True)) as process,
            Task(process.stdin.raw.write, data) as writing,
        ):
            got, ended = rest(process.stdout)
            assert not ended
            assert data.startswith(got)
            with pytest.raises(BrokenPipeError):
                writing.result()
            assert how_ended(process) is ExitMissing

    with place.proxy(Fault(how, direction, name, 30, BODY)) as proxy:
        client()
        place.settled()


# close() sends signals, and waits for the end

CLOSING = [
    (UP, "request", 1),
    (DOWN, "answer", 1),
    (UP, "start", 1),
    (DOWN, "pid", 1),
    (UP, "signal", 1),
    (DOWN, "ended", 1),
    (UP, "close", 1),
    (DOWN, "close", 1),
]


def close_one(url: str) -> None:
    with connect(url, timeout=SECONDS) as execer:
        execer.start(sh("exec sleep 1000")).close()


def test_closing_uncut(place: Site) -> None:
    with place.proxy() as proxy:
        close_one(proxy.url)
        place.settled()
        # The client is content with the end, and may be faster than the rest.
        assert [step for step in passed(proxy) if step[1] != "exit_code"] == CLOSING


@cuts(CLOSING[4:])
def test_a_cut_while_a_command_is_closed(place: Site, step: Step, part: str, how: str) -> None:
    with place.proxy(Fault(how, *step, part)) as proxy:
        close_one(proxy.url)
        assert proxy.struck.wait(SECONDS)
        place.settled()
