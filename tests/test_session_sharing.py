"""Several clients of one session: whose size the terminal has, and who changes nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

import pytest
from helpers import SECONDS, Task, blocked, eventually, serving
from session_clients import Client, Hub, hub, session

from wsep_sync import Command, LocalExecer, Options, Process, Server
from wsep_sync.listener import Listener
from wsep_sync.session import Session
from wsep_sync.wsgi import application

WATCHING = Options(read_only=True)

# Says each size that it is told, and that it has noticed.
SIZES = (
    "sh",
    "-c",
    "trap 'echo size $(stty size).' WINCH; echo ready; while :; do sleep 0.01; done",
)


@pytest.fixture
def sessions() -> Iterator[Hub]:
    with hub() as sessions:
        yield sessions


@contextlib.contextmanager
def watched(server: Server) -> Iterator[str]:
    """The URL where clients of a server can only watch."""
    with serving(Listener(application(server, LocalExecer(), WATCHING))) as listener:
        yield listener.url


# The size


def size(sessions: Hub) -> tuple[int, int]:
    (info,) = sessions.server.sessions()
    return info.rows, info.cols


def test_the_size_goes_back_to_that_of_those_who_stay(sessions: Hub) -> None:
    one = sessions.attach("x", *SIZES, rows=24, cols=80)
    one.until(b"ready")
    two = sessions.attach("x", rows=30, cols=100)
    one.until(b"size 30 100.")
    three = sessions.attach("x", rows=40, cols=120)
    one.until(b"size 40 120.")
    # Who says a size again is the latest, whoever came last.
    two.process.resize(31, 101)
    one.until(b"size 31 101.")
    start = one.size
    two.leave()
    one.until(b"size 40 120.", start)
    three.leave()
    one.until(b"size 24 80.", start)
    assert size(sessions) == (24, 80)


def test_who_leaves_and_was_not_the_latest_changes_nothing(sessions: Hub) -> None:
    one = sessions.attach("x", *SIZES, rows=24, cols=80)
    two = sessions.attach("x", rows=30, cols=100)
    three = sessions.attach("x", rows=0, cols=0)
    two.until(b"size 30 100.")
    one.leave()
    three.leave()
    sessions.left(but=1)
    assert size(sessions) == (30, 100)
    # Nor does the last one: its size is as good as any for a program that nobody looks at.
    two.leave()
    sessions.left()
    assert size(sessions) == (30, 100)


def test_one_that_does_not_know_its_size_has_none_to_go_back_to(sessions: Hub) -> None:
    one = sessions.attach("x", *SIZES, rows=0, cols=0)
    two = sessions.attach("x", rows=30, cols=100)
    one.until(b"size 30 100.")
    two.leave()
    sessions.left(but=1)
    assert size(sessions) == (30, 100)


class SlowToTell(LocalExecer):
    """Its commands are told their size by something that may not take it, as a server further on.

    Attributes:
        told: The sizes that they were told.
        stuck: Set while one is being told, and nothing goes on.
        go_on: To be set by the test.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, int]] = []
        self.stuck = threading.Event()
        self.go_on = threading.Event()

    def start(self, command: Command) -> Process:
        process = super().start(command)
        resize = process.resize

        def slowly(rows: int, cols: int) -> None:
            self.told.append((rows, cols))
            self.stuck.set()
            assert self.go_on.wait(SECONDS)
            resize(rows, cols)

        process.resize = slowly  # type: ignore[method-assign]
        return process


def test_nobody_waits_for_a_size_that_somebody_else_tells() -> None:
    execer = SlowToTell()
    live = Session(session("x", "sh", "-c", "echo ready; exec cat"), execer)
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        stack.callback(execer.go_on.set)
        one = Client(live.attach(24, 80))
        stack.callback(one.leave)
        one.until(b"ready")
        with Task(live.resize, 30, 100) as resizing:
            assert execer.stuck.wait(SECONDS)
            blocked(resizing)
            two = Client(live.attach(40, 120))
            two.until(b"ready")
            two.process.resize(41, 121)
            assert (live.info().rows, live.info().cols) == (41, 121)
            two.leave()
            assert (live.info().rows, live.info().cols) == (24, 80)
            execer.go_on.set()
            resizing.result()
        # Those between are no size of it any more.
        eventually(lambda: execer.told == [(30, 100), (24, 80)], "the last size is the last told")


@pytest.fixture(autouse=True)
def _ring(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsep_sync.terminals import replay

    monkeypatch.setattr("wsep_sync.session.redraw", replay)


# Watching

# A full-screen program that paints anew when it is told another size, and says so; on Enter it
# has painted more than is kept of it.
PAINTER = (
    sys.executable,
    "-c",
    """
import os, signal, sys, tty
tty.setraw(0)
def paint(*_):
    size = os.get_terminal_size(0)
    os.write(1, b"\\x1b[H\\x1b[2Jpainted at %d %d." % (size.lines, size.columns))
signal.signal(signal.SIGWINCH, paint)
os.write(1, b"\\x1b[?1049h")
paint()
while True:
    keys = os.read(0, 100)
    os.write(1, b"\\x1b[3;1H%s" % (b"x" * 70 + b"\\x1b[3;1H") * 20000 if b"\\r" in keys else keys)
    os.write(1, b"got " + keys + b".")
""",
)


def painted(client: Client) -> int:
    return client.got.count(b"painted at")


def test_a_reattached_client_has_a_lost_screen_painted_and_one_that_watches_has_not(
    sessions: Hub,
) -> None:
    one = sessions.attach("x", *PAINTER)
    one.until(b"painted at 24 80.")
    one.type(b"\r")
    one.until(b"got \r.")
    before = painted(one)
    with watched(sessions.server) as url:
        watcher = sessions.attach("x", rows=10, cols=20, url=url)
        watcher.until(b"\x1b[?1049h")  # its redraw, after which nothing changes ...
        one.type(b"a")
        watcher.until(b"got a.")
        watcher.process.resize(11, 21)
        watcher.leave()
        one.type(b"b")
        one.until(b"got b.")
        assert painted(one) == before
        # ... while one that may do something has it painted.
        start = one.size
        two = sessions.attach("x")
        one.until(b"painted at 23 80.", start)
        one.until(b"painted at 24 80.", start)
        two.until(b"painted at 24 80.")


def test_repaints_for_many_at_once_leave_the_right_size(
    sessions: Hub,
) -> None:
    one = sessions.attach("x", *PAINTER)
    one.until(b"painted at 24 80.")
    one.type(b"\r")
    one.until(b"got \r.")
    others = [sessions.attach("x") for _ in range(5)]
    for client in others:
        client.until(b"painted at 24 80.")
    start = one.size
    one.process.resize(30, 100)
    one.until(b"painted at 30 100.", start)
    assert size(sessions) == (30, 100)
