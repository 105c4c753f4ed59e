"""What a client gets that comes later, while its redraw takes its time: nobody waits for that."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers import SECONDS, Task, blocked, eventually, gone, read_past
from session_clients import Client, Hub, hub, session

from wsep_sync import Command, LocalExecer
from wsep_sync.jobs.client import Client as SessionClient
from wsep_sync.jobs.options import State
from wsep_sync.jobs.session import Session
from wsep_sync.terminals import Snapshot, replay

RAW_CAT = ("sh", "-c", "stty raw -echo; echo ready; exec cat")


class Slow:
    """A redraw that is made when the test lets it.

    Attributes:
        begun: Set when one is being made.
        go_on: Lets it be made, and all that follow.
        made: How many there were.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.made = 0

    def __call__(self, snapshot: Snapshot) -> bytes:
        self.begun.set()
        assert self.go_on.wait(SECONDS)
        self.made += 1
        return b"<redraw>" + replay(snapshot)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr("wsep_sync.jobs.drawing.redraw", slow)
    yield slow
    slow.go_on.set()


@pytest.fixture
def sessions(slow: Slow) -> Iterator[Hub]:
    with hub() as sessions, contextlib.ExitStack() as stack:
        stack.callback(slow.go_on.set)
        yield sessions


def request(sessions: Hub, method: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(sessions.url)
    with contextlib.closing(
        http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    ) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def test_nobody_waits_for_a_redraw(sessions: Hub, slow: Slow) -> None:
    one = sessions.attach("x", *RAW_CAT)
    one.until(b"ready")
    two = sessions.attach("x", rows=30, cols=100)
    assert slow.begun.wait(SECONDS)
    # The list, the health check, what others read and type, their sizes, and who comes and goes.
    status, body = request(sessions, "GET", "/sessions")
    assert (status, [info["clients"] for info in json.loads(body)]) == (200, [2])
    assert request(sessions, "GET", "/healthz")[0] == 200
    one.type(b"typed meanwhile.")
    one.until(b"typed meanwhile.")
    one.process.resize(31, 101)
    three = sessions.attach("x")
    three.leave()
    sessions.left(but=2)
    assert two.got == b""
    # What came meanwhile follows the redraw, once.
    slow.go_on.set()
    two.until(b"typed meanwhile.")
    one.type(b"the last.")
    got = two.until(b"the last.")
    assert got.startswith(b"<redraw>\x18")
    assert got.count(b"ready") == got.count(b"typed meanwhile.") == got.count(b"the last.") == 1


def test_a_session_ends_while_a_redraw_is_made(sessions: Hub, slow: Slow) -> None:
    one = sessions.attach("x", *RAW_CAT)
    one.until(b"ready")
    two = sessions.attach("x")
    assert slow.begun.wait(SECONDS)
    assert request(sessions, "DELETE", "/sessions/x")[0] == 204
    assert one.exit_code() == -1
    gone(one.process.pid)
    assert sessions.server.session_count() == 0
    slow.go_on.set()
    assert two.exit_code() == -1
    assert b"ready" in two.ended()


def test_a_client_leaves_while_its_redraw_is_made(slow: Slow) -> None:
    live = Session(session("x", *RAW_CAT), LocalExecer())
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        stack.callback(slow.go_on.set)
        one = Client(live.attach())
        stack.callback(one.leave)
        one.until(b"ready")
        two = Client(live.attach())
        assert slow.begun.wait(SECONDS)
        two.process.close()
        assert live.info().clients == 1
        slow.go_on.set()
        assert two.ended() == b""
        two.leave()


def test_a_redraw_that_is_overtaken_is_made_once_more(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsep_sync.jobs.client._CLIENT_LIMIT", 50_000)
    live = Session(session("x", *RAW_CAT), LocalExecer())
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        stack.callback(slow.go_on.set)
        one = Client(live.attach())
        stack.callback(one.leave)
        one.until(b"ready")
        one.type(b"<first>")
        one.until(b"<first>")
        two = live.attach()
        reading = stack.enter_context(Task(read_past, two.stdout, b"<last>"))
        assert slow.begun.wait(SECONDS)
        # More than may wait for it; one after the other, lest the other falls behind.
        for i in range(10):
            one.type(b"\r\n%04d " % i + b"x" * 10_000)
            one.until(b"%04d " % i + b"x" * 10_000)
        slow.go_on.set()
        eventually(lambda: slow.made == 1, "the redraw")
        one.type(b"<last>")
        got = reading.result()
        # By replay, which takes no long time again; and from then on nothing is missing.
        assert b"<redraw>" not in got
        assert got.count(b"\x18\x1b\\") == 1
        assert got.count(b"<first>") == 1
        assert [got.count(b"%04d " % i) for i in range(10)] == [1] * 10
        two.close()
        for file in (two.stdin, two.stdout, two.stderr):
            file.close()


def test_a_redraw_that_is_overtaken_twice_is_made_again_when_it_was_read(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsep_sync.jobs.client._CLIENT_LIMIT", 50_000)
    replayed = Slow()
    monkeypatch.setattr("wsep_sync.jobs.drawing.replay", replayed)
    live = Session(session("x", *RAW_CAT), LocalExecer())
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        stack.callback(slow.go_on.set)
        stack.callback(replayed.go_on.set)
        one = Client(live.attach())
        stack.callback(one.leave)
        one.until(b"ready")
        two = Client(live.attach())
        stack.callback(two.leave)
        for making in (slow, replayed):
            assert making.begun.wait(SECONDS)
            for i in range(10):
                start = one.size
                one.type(b"\r\n%04d " % i + b"x" * 10_000)
                one.until(b"%04d " % i + b"x" * 10_000, start)
            making.go_on.set()
        one.type(b"<last>")
        one.until(b"<last>")
        # The replay, which is out of date as well, and then one of all there was.
        got = two.until(b"<last>")
        newest = got.rpartition(b"<redraw>")[2]
        assert [newest.count(b"%04d " % i) for i in range(10)] == [2] * 10


def test_a_redraw_that_fails_costs_nobody_the_live_output(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Snapshot) -> bytes:
        raise IndexError("secret")

    monkeypatch.setattr("wsep_sync.jobs.drawing.redraw", broken)
    with hub() as sessions, caplog.at_level(logging.ERROR, "wsep_sync"):
        one = sessions.attach("x", *RAW_CAT)
        one.until(b"ready")
        two = sessions.attach("x")
        eventually(lambda: "internal error in a redraw: IndexError" in caplog.text, "the log")
        assert "secret" not in caplog.text
        one.type(b"live.")
        assert two.until(b"live.") == b"live."
        one.process.kill()
        assert one.exit_code() == two.exit_code() == -1
        two.ended()


def test_a_client_that_comes_last_gets_the_last_words_and_the_end(slow: Slow) -> None:
    live = Session(session("x", "sh", "-c", "echo last words; read line"), LocalExecer())
    slow.go_on.set()
    one = live.attach()
    read_past(one.stdout, b"last words")
    two = live.attach()  # which reads when all has ended
    one.kill()
    live.wait_for_state(State.DONE, SECONDS)
    with Task(two.stdout.read) as reading:
        assert reading.result().count(b"last words") == 1
    for client in (one, two):
        client.close()
        for file in (client.stdin, client.stdout, client.stderr):
            file.close()


def test_reading_waits_for_the_redraw(slow: Slow) -> None:
    live = Session(session("x", *RAW_CAT), LocalExecer())
    with contextlib.ExitStack() as stack:
        stack.callback(live.close)
        stack.callback(slow.go_on.set)
        one, two = Client(live.attach()), live.attach()
        stack.callback(one.leave)
        reading = stack.enter_context(Task(two.stdout.read1, 4))
        assert slow.begun.wait(SECONDS)
        blocked(reading)
        slow.go_on.set()
        assert reading.result() == b"<red"
        two.close()
        for file in (two.stdin, two.stdout, two.stderr):
            file.close()


# A client that has left


@pytest.mark.parametrize("use", ["nothing", "read", "write", "kill"])
def test_nothing_of_a_client_that_has_left_is_for_the_collector(use: str) -> None:
    # Which runs wherever it is, perhaps in a thread that has the session's lock.
    live = Session(session("x", *RAW_CAT), LocalExecer())
    with contextlib.closing(live):
        client = live.attach()
        read_past(client.stdout, b"ready")
        if use == "write":
            client.stdin.write(b"text")
            client.stdin.flush()
            assert client.stdout.read(4) == b"text"
        elif use == "kill":
            client.kill()
            live.wait_for_state(State.DONE, SECONDS)
            assert client.stdout.read() == b""
        client.close()
        if use == "read":
            assert client.stdout.read() == b""
        kept = weakref.ref(client)

        def drop() -> None:
            nonlocal client
            del client

        gc.disable()
        try:
            with live._lock, Task(drop) as dropping:
                dropping.result()
            assert kept() is None
        finally:
            gc.enable()


def test_the_files_of_a_client_that_has_left() -> None:
    live = Session(session("x", *RAW_CAT), LocalExecer())
    with contextlib.closing(live):
        client = live.attach()
        raw = client.stdin.raw
        with Task(client.stdout.read) as reading:
            client.close()
            reading.result()
        assert client.stdout.read() == b""
        for write in (raw.write, raw.write_now):  # type: ignore[attr-defined]
            with pytest.raises(BrokenPipeError, match="this client has left"):
                write(b"text")
        client.close()
        for file in (client.stdin, client.stdout):
            file.close()
            file.close()
        with pytest.raises(ValueError, match="closed file"):
            client.stdout.read()
        with pytest.raises(ValueError, match="closed file"):
            client.stdin.write(b"text")
        for write in (raw.write, raw.write_now):  # type: ignore[attr-defined]
            with pytest.raises(ValueError, match="closed file"):
                write(b"text")


def test_a_redraw_that_is_replaced_is_not_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # More than waits for one client comes while it is drawn: it is drawn again, from what is new.
    second, go_on = threading.Event(), threading.Event()

    def first(_snapshot: object) -> bytes:
        typist.stdin.raw.write(b"\n")
        eventually(lambda: late.stale, "the client that comes late cannot keep up")
        return b"first"

    def again(_snapshot: object) -> bytes:
        second.set()
        assert go_on.wait(SECONDS)
        return b"second"

    monkeypatch.setattr("wsep_sync.jobs.drawing.redraw", first)
    monkeypatch.setattr("wsep_sync.jobs.drawing.replay", again)
    script = "stty raw -echo; read x; head -c 4000000 /dev/zero; exec sleep 1000"
    session = Session(Command("sh", ["-c", script], tty=True, id="s"), LocalExecer())
    with contextlib.closing(session), session.attach() as typist, Task(typist.stdout.read):
        late = session.attach()
        assert isinstance(late, SessionClient)
        buffer = memoryview(bytearray(100))
        raw: Any = late.stdout.raw
        assert raw.read_now(buffer) is None
        assert second.wait(SECONDS)
        assert raw.read_now(buffer) is None  # and not the first
        go_on.set()
        got = eventually(lambda: raw.read_now(buffer), "the redraw")
        assert bytes(buffer[:got]) == b"second"
        late.close()
        typist.kill()
