"""Several clients of one session: whose size the terminal has, and who changes nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from helpers import SECONDS, Task, blocked, eventually, serving
from session_clients import Client, Hub, session

from wsep_sync import Command, LocalExecer, Options, Process, Server
from wsep_sync.jobs.session import Session
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

WATCHING = Options(read_only=True)

# Says each size that it is told, and that it has noticed.
SIZES = (
    "sh",
    "-c",
    "trap 'echo size $(stty size).' WINCH; echo ready; while :; do sleep 0.01; done",
)


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
    one.until(b"ready")
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
    one.until(b"ready")
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


# Who is asked

# Asks what terminals answer, when it is told to, and says what it was answered within a second
# after that: in a test that is as it should be, it is one answer, which has come long before.
ASKER = (
    sys.executable,
    "-c",
    """
import os, select, signal, tty
tty.setraw(0)
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"c"))
os.write(1, b"ready")
while True:
    keys = os.read(0, 1)
    if keys == b"a":
        os.write(1, b"<\\x1b[c>")
    elif keys == b"h":
        os.write(1, b"half\\x1b[")
    elif keys == b"c":
        os.write(1, b"c")
    elif keys == b"q":
        os.write(1, b"asked nobody.")
    else:
        os.write(1, b"got " + keys.hex().encode() + b".")
""",
)

DA1 = b"\x1b[c"


def asked(asker: Client, *others: Client) -> None:
    """Have the program ask by what one client types, and see that only that one is asked."""
    starts = {client: client.size for client in (asker, *others)}
    asker.type(b"a")
    assert b"<" + DA1 + b">" in asker.until(b">", starts[asker])
    for client in others:
        assert b"<>" in client.until(b">", starts[client])


def test_only_the_client_that_typed_last_is_asked(sessions: Hub) -> None:
    one = sessions.attach("x", *ASKER)
    one.until(b"ready")
    asked(one)
    two = sessions.attach("x")
    three = sessions.attach("x")
    for client in (two, three):
        client.until(b"ready")
    # At first the first ...
    starts = [client.size for client in (one, two, three)]
    one.process.stdin.raw.write(b"a")
    one.until(b"<" + DA1 + b">", starts[0])
    two.until(b"<>", starts[1])
    three.until(b"<>", starts[2])
    # ... then whoever typed.
    asked(two, one, three)
    asked(three, one, two)
    asked(one, two, three)
    asked(three, one, two)
    # When that one leaves, the one who typed before.
    three.leave()
    sessions.left(but=2)
    start, other = one.size, two.size
    with watched(sessions.server) as url:
        watcher = sessions.attach("x", url=url)
        watcher.until(b"ready")
        asked(one, two, watcher)
        # Who watches is never asked, whatever it types.
        before = watcher.size
        watcher.type(b"a")
        two.type(b"q")
        assert DA1 not in watcher.until(b"asked nobody.", before)
        watcher.leave()
    assert DA1 not in two.got[other:]
    assert one.got[start:].count(DA1) == 1
    # One alone gets everything as it is.
    one.leave()
    sessions.left(but=1)
    asked(two)


def test_two_terminals_leave_one_answer(sessions: Hub) -> None:
    clients = [sessions.attach("x", *ASKER) for _ in range(2)]
    for client in clients:
        client.until(b"ready")
    clients[0].type(b"a")
    for client in clients:
        client.until(lambda got: b">" in got.partition(b"ready")[2])
    for client in clients:
        client.type(b"\x1b[?1;2" * client.got.count(DA1) + b"q")
    clients[0].until(lambda got: got.count(b"asked nobody.") == 2)
    assert clients[0].got.count(b"got %02x." % 0x1B) == 1


@pytest.mark.parametrize("halves", ["typed", "attached"])
def test_nobody_sees_half_of_a_query(sessions: Hub, halves: str) -> None:
    one = sessions.attach("x", *ASKER)
    one.until(b"ready")
    two = sessions.attach("x") if halves == "typed" else None
    if two is not None:
        two.until(b"ready")
    one.type(b"h")
    one.until(b"half\x1b[")
    if two is None:
        # What its redraw ends with is completed, or not, by what comes then.
        two = sessions.attach("x")
    two.until(b"half")
    # This one is asked from now on, but of what has begun the first one had the beginning.
    start = one.size
    two.type(b"c")
    one.until(b"c", start)
    two.type(b"z")
    got = two.until(b"got 7a.")
    assert b"halfgot 7a." in got.replace(b"\x1b]0;\x1b\\", b"")
    assert one.until(b"got 7a.", start) == b"cgot 7a."
    asked(two, one)


@pytest.mark.parametrize("others", ["one", "two", "one that watches"])
def test_who_stays_is_asked_all_that_who_left_was_half_asked(sessions: Hub, others: str) -> None:
    one = sessions.attach("x", *ASKER)
    one.until(b"ready")
    (info,) = sessions.server.sessions()
    with watched(sessions.server) as url:
        if others == "one that watches":
            watcher = sessions.attach("x", url=url)
            watcher.until(b"ready")
        two = sessions.attach("x")
        two.until(b"ready")
        three = sessions.attach("x") if others == "two" else None
        if three is not None:
            three.until(b"ready")
        one.type(b"h")
        one.until(b"half\x1b[")
        two.until(b"half")
        one.leave()
        sessions.left(but=1 if others == "one" else 2)
        os.kill(info.pid, signal.SIGUSR1)
        two.until(b"half\x1b[c")
        if three is not None:
            three.type(b"q")
            three.until(b"halfasked nobody.")
        two.type(b"z")
        # The server says nothing.
        got = two.until(b"got 7a.")
        assert got.count(b"got ") == 1
        asked(two)
        if others == "one that watches":
            watcher.leave()


@pytest.mark.parametrize("stays", ["nobody", "one that watches"])
def test_a_query_is_answered_when_who_was_half_asked_has_left(stays: str) -> None:
    live = Session(session("x", *ASKER), LocalExecer())
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        client = Client(live.attach())
        client.until(b"ready")
        if stays == "one that watches":
            watcher = Client(live.attach(options=WATCHING))
            stack.callback(watcher.leave)
            watcher.until(b"ready")
        client.type(b"h")
        client.until(b"half\x1b[")
        client.leave()
        before = live.info().last_activity
        os.kill(live.info().pid, signal.SIGUSR1)
        eventually(lambda: live.info().last_activity > before, "the other half")
        client = Client(live.attach())
        stack.callback(client.leave)
        got = client.until(b"got 32.c")
        answer = b"".join(b"got %02x." % byte for byte in b"\x1b[?62;22")
        assert got.count(b"got ") == len(answer) / len(b"got 00.")
        assert answer in got


def test_a_client_that_fell_behind_is_asked_and_then_answers() -> None:
    # It has no queries in what it reads later, and while it does not read the server answers.
    live = Session(session("x", *ASKER), LocalExecer())
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        reader = Client(live.attach())
        stack.callback(reader.leave)
        reader.until(b"ready")
        other = live.attach()  # which never reads, but types
        other.stdin.raw.write(b"a")
        # 1b5b3f36323b323263: what the server says.
        for character in b"\x1b[?62;22c":
            if character != ord("c"):
                reader.until(b"got %02x." % character)
        assert DA1 not in reader.got
        other.close()
        for file in (other.stdin, other.stdout, other.stderr):
            file.close()


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
