"""Sessions: their states, their timeouts, and what many clients of one see."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from held_sessions import memory
from helpers import (
    SECONDS,
    RawClient,
    Task,
    alive,
    blocked,
    ends_processes,
    eventually,
    gone,
    read_past,
    serving,
    sh,
)
from session_clients import Client, Hub, attach_message, hub, plain, session

from wsep_sync import (
    Command,
    ConnectError,
    ExitError,
    ExitMissing,
    LocalExecer,
    Options,
    Process,
    Server,
    StartError,
    connect,
)
from wsep_sync import process as process_module
from wsep_sync.errors import SessionClosed
from wsep_sync.jobs.options import State
from wsep_sync.jobs.session import Session
from wsep_sync.terminals import replay
from wsep_sync.transports.memory import memory_pair
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

WATCHING = Options(read_only=True)

STUBBORN = "trap '' HUP TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def sessions() -> Iterator[Hub]:
    with hub() as sessions:
        yield sessions


@pytest.fixture(params=[replay], ids=["replay"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.jobs.client.redraw", request.param)


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ignores SIGTERM is killed sooner."""
    monkeypatch.setattr(process_module, "CLOSE_GRACE", 0.3)


def tty(script: str, **fields: object) -> Command:
    return sh(script, id="x", tty=True, rows=24, cols=80, **fields)


def close_files(process: Process) -> None:
    process.close()
    for file in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.close()


@contextlib.contextmanager
def local_session(
    command: Command, options: Options | None = None, execer: LocalExecer | None = None
) -> Iterator[Session]:
    session = Session(command, execer or LocalExecer(), options)
    try:
        yield session
    finally:
        session.close()


class Gate(LocalExecer):
    """Starts a command when it is let: until then, everybody else waits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.opened = threading.Event()

    def start(self, command: Command) -> Process:
        self.asked.set()
        assert self.opened.wait(SECONDS)
        return super().start(command)


# States


def test_a_session_needs_a_terminal() -> None:
    with pytest.raises(ValueError, match="terminal"):
        Session(Command("true", id="x"), LocalExecer())


@pytest.mark.usefixtures("_short_grace")
def test_states_only_move_forward() -> None:
    with local_session(tty(STUBBORN)) as session:
        seen = [session.state]
        with pytest.raises(TimeoutError, match="STARTING"):
            session.wait_for_state(State.READY, 0.01)
        client = session.attach()
        seen.append(session.state)
        read_past(client.stdout, b"ready")
        with Task(session.close, "test") as closing:
            seen.append(session.wait_for_state(State.CLOSING, SECONDS))
            with pytest.raises(SessionClosed):
                session.attach()
            # It is as far as any state before; and waits for one to come.
            assert session.wait_for_state(State.STARTING) is State.CLOSING
            seen.append(session.wait_for_state(State.DONE, SECONDS))
            closing.result()
        assert seen == [State.STARTING, State.READY, State.CLOSING, State.DONE]
        session.close()
        assert session.state is State.DONE
        with pytest.raises(SessionClosed):
            session.attach()
        with pytest.raises(ExitError, match="killed") as caught:
            session.wait()
        assert caught.value.signal == signal.SIGKILL
        with pytest.raises(ExitError):
            client.wait()
        close_files(client)


def test_a_session_that_ends_by_itself_is_done() -> None:
    with local_session(tty("exit 3")) as session:
        client = session.attach()
        assert session.wait_for_state(State.DONE, SECONDS) is State.DONE
        with pytest.raises(ExitError) as caught:
            session.wait()
        assert caught.value.exit_code == 3
        client.resize(10, 10)
        client.send_signal(signal.SIGTERM)
        client.kill()
        with pytest.raises(BrokenPipeError):
            client.stdin.raw.write(b"x")
        close_files(client)


def test_closed_before_it_began() -> None:
    session = Session(tty("exit 3"), LocalExecer())
    session.close()
    assert session.state is State.DONE
    with pytest.raises(SessionClosed):
        session.attach()


def test_closed_while_it_starts() -> None:
    execer = Gate()
    with local_session(tty("echo ready; exec sleep 1000"), execer=execer) as session:
        with Task(session.attach) as attaching:
            assert execer.asked.wait(SECONDS)
            with Task(session.close) as closing:
                blocked(closing)
                execer.opened.set()
                closing.result()
            client = attaching.result()
        assert session.state is State.DONE
        gone(client.pid)
        close_files(client)


def test_a_start_that_fails_is_told_to_everybody_who_waits() -> None:
    execer = Gate()
    with hub(execer) as sessions, contextlib.ExitStack() as stack:
        command = session("x", "/no/such/program")
        first = stack.enter_context(Task(sessions.start, command))
        assert execer.asked.wait(SECONDS)
        waiting = [stack.enter_context(Task(sessions.start, command)) for _ in range(5)]
        execer.opened.set()
        for task in [first, *waiting]:
            with pytest.raises(StartError) as caught:
                task.result()
            assert isinstance(caught.value, FileNotFoundError)
        assert sessions.server.session_count() == 0
        client = sessions.attach("x")
        assert not client.process.reattached


def test_without_an_id_or_a_terminal_it_is_a_plain_process(sessions: Hub) -> None:
    for command in (
        Command("sh", ["-c", "echo ready; exec sleep 1000"], tty=True, rows=24, cols=80),
        Command("sh", ["-c", "echo ready; exec sleep 1000"], id="x"),
    ):
        process = sessions.start(command)
        read_past(process.stdout, b"ready")
        assert sessions.server.session_count() == 0
        process.close()
        gone(process.pid)
        close_files(process)


# Attaching


def test_coming_back_finds_the_same_shell(sessions: Hub) -> None:
    first = sessions.attach("x")
    assert not first.process.reattached
    first.run(b"word=here; echo set$((1 + 1))", b"set2")
    first.leave()
    sessions.left()
    again = sessions.attach("x", "another", "command")
    assert again.process.reattached
    assert again.process.pid == first.process.pid
    again.run(b"echo $word$((1 + 1))", b"here2")
    assert sessions.server.session_count() == 1


def test_all_clients_see_and_type(sessions: Hub) -> None:
    clients = [sessions.attach("x") for _ in range(4)]
    for i, client in enumerate(clients):
        client.type(b"echo from$((%d + 0))\r" % i)
        for other in clients:
            other.until(b"from%d" % i)


@pytest.mark.parametrize("count", [2, 20])
def test_many_that_create_the_same_id_at_once_get_one_process(sessions: Hub, count: int) -> None:
    together = threading.Barrier(count)

    def attach() -> Client:
        together.wait(SECONDS)
        return sessions.attach("x")

    with contextlib.ExitStack() as stack:
        tasks = [stack.enter_context(Task(attach)) for _ in range(count)]
        clients = [task.result() for task in tasks]
    assert len({client.process.pid for client in clients}) == 1
    assert sorted(client.process.reattached for client in clients) == [False] + [True] * (count - 1)
    assert sessions.server.session_count() == 1
    clients[0].type(b"echo all$((1 + 1))\r")
    for client in clients:
        client.until(b"all2")


@pytest.mark.usefixtures("_short_grace")
def test_an_id_whose_session_is_closing_waits_and_starts_anew(sessions: Hub) -> None:
    old = sessions.attach("x", "sh", "-c", STUBBORN)
    old.until(b"ready")
    with Task(sessions.server.close_session, "x") as closing:
        eventually(
            lambda: sessions.server._sessions["x"].state is State.CLOSING, "the session is closing"
        )
        new = sessions.attach("x")
        assert not alive(old.process.pid)
        assert closing.result()
    assert not new.process.reattached
    assert new.process.pid != old.process.pid
    assert old.exit_code() == -1
    new.run(b"echo new$((1 + 1))", b"new2")


def test_attaching_to_one_that_is_just_exiting_never_hangs(sessions: Hub) -> None:
    for round in range(20):
        first = sessions.attach("x", "sh", "-c", "echo ready; read line; exit 3")
        first.until(b"ready")
        together = threading.Barrier(2)

        def attach(together: threading.Barrier = together) -> Client:
            together.wait(SECONDS)
            return sessions.attach("x", "sh", "-c", "exit 4")

        with Task(attach) as attaching:
            together.wait(SECONDS)
            if round % 2:
                first.process.kill()
            else:
                first.type(b"\r")
            second = attaching.result()
        same = second.process.pid == first.process.pid
        assert second.process.reattached == same
        assert first.exit_code() == (-1 if round % 2 else 3)
        assert second.exit_code() == (first.exit_code() if same else 4)
        second.ended()
        assert sessions.server.session_count() == 0


@pytest.mark.parametrize("how", ["hang_up", "reset", "finish"])
def test_attach_and_leave_at_once(sessions: Hub, how: str) -> None:
    client = sessions.attach("x")
    for _ in range(20):
        raw = RawClient(sessions.url)
        raw.send(attach_message("x"))
        getattr(raw, how)()
    sessions.left(but=1)
    client.run(b"echo still$((1 + 1))", b"still2")
    # The same for the first client of a session, if it got as far as to begin one.
    raw = RawClient(sessions.url)
    raw.send(attach_message("y"))
    getattr(raw, how)()
    other = sessions.attach("y")
    other.run(b"echo still$((1 + 1))", b"still2")


def test_a_client_that_leaves_is_no_error() -> None:
    server = Server()
    client, conn = memory_pair()
    with Task(server.serve, conn, LocalExecer()) as serving:
        client.send(json.dumps(attach_message("x")).encode())
        while b"$ " not in bytes(client.receive()):
            pass
        client.close(1000)
        assert serving.result() is None
    assert server.session_count() == 1
    conn.abort()
    conn.close()
    server.close()


def test_what_a_client_that_has_left_can_do() -> None:
    with local_session(tty("echo ready; exec sleep 1000")) as session:
        client, other = session.attach(), session.attach()
        with Task(client.wait) as waiting, Task(client.stdout.read) as reading:
            blocked(waiting)
            client.close()
            with pytest.raises(SessionClosed):
                waiting.result()
            assert b"ready" in reading.result() + b"ready"
        with pytest.raises(BrokenPipeError):
            client.stdin.raw.write(b"x")
        # A shell would take the end of its input for the end of everything.
        client.stdin.close()
        assert session.state is State.READY
        with pytest.raises(TimeoutError):
            other.wait(0.01)
        close_files(client)
        close_files(other)


# Timeouts


@contextlib.contextmanager
def two_timeouts(short: float, long: float) -> Iterator[tuple[Hub, str]]:
    """One server whose clients get the short timeout, and the URL where they get the long one."""
    with hub(options=Options(session_timeout=short)) as sessions:
        app = application(sessions.server, LocalExecer(), Options(session_timeout=long))
        with serving(Listener(app)) as other:
            yield sessions, other.url


def timeout_passes(sessions: Hub) -> None:
    """Wait until a session with the short timeout, begun and left only now, is over."""
    clock = sessions.attach("clock")
    clock.leave()
    eventually(lambda: "clock" not in [s.id for s in sessions.server.sessions()], "the timeout")
    gone(clock.process.pid)


def test_reconnecting_within_the_timeout_and_after_it() -> None:
    with hub(options=Options(session_timeout=1.0)) as sessions:
        first = sessions.attach("x")
        first.leave()
        within = sessions.attach("x")
        assert within.process.pid == first.process.pid
        within.leave()
        sessions.left()
        started = time.monotonic()
        eventually(lambda: not sessions.server.session_count(), "the session is over")
        assert time.monotonic() - started < SECONDS
        gone(first.process.pid)
        after = sessions.attach("x")
        assert not after.process.reattached
        assert after.process.pid != first.process.pid


def test_a_second_client_keeps_it_when_the_first_leaves() -> None:
    with hub(options=Options(session_timeout=1.0)) as sessions:
        first, second = sessions.attach("x"), sessions.attach("x")
        first.leave()
        timeout_passes(sessions)
        second.run(b"echo still$((1 + 1))", b"still2")
        assert sessions.attach("x").process.pid == first.process.pid


def test_connected_clients_keep_it_alive_idle_or_not() -> None:
    with hub(options=Options(session_timeout=0.3)) as sessions:
        idle = sessions.attach("idle", "sh", "-c", "echo ready; exec sleep 1000")
        busy = sessions.attach("busy", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
        for _ in range(3):
            timeout_passes(sessions)
        assert {s.id for s in sessions.server.sessions()} == {"idle", "busy"}
        for client in (idle, busy):
            assert alive(client.process.pid)
            client.leave()
        eventually(lambda: not sessions.server.session_count(), "the sessions are over")
        gone(idle.process.pid, busy.process.pid)


def test_the_time_counts_from_the_last_client_that_left() -> None:
    with hub(options=Options(session_timeout=1.0)) as sessions:
        first = sessions.attach("x")
        for _ in range(3):
            # A client that comes when half of the time is over; the halves are more than the whole.
            again = sessions.attach("x")
            assert again.process.pid == first.process.pid
            for client in (first, again):
                client.leave()
            sessions.left()
            left = time.monotonic()
            eventually(lambda left=left: time.monotonic() - left > 0.5, "half of the timeout")
        assert sessions.server.session_count() == 1


def test_a_shorter_timeout_does_not_cut_anothers() -> None:
    with two_timeouts(0.3, 1000.0) as (sessions, long):
        first_long = sessions.attach("a", url=long)
        first_long.leave()
        sessions.attach("a").leave()
        sessions.attach("b").leave()
        sessions.attach("b", url=long).leave()
        sessions.attach("b").leave()
        timeout_passes(sessions)
        assert {s.id for s in sessions.server.sessions()} == {"a", "b"}
        assert sessions.attach("a").process.pid == first_long.process.pid


def test_the_timeout_counts_of_whoever_comes_to_start_the_command() -> None:
    # The table's session is of the one who came first, but another may be faster to attach.
    short, long = Options(session_timeout=0.1), Options(session_timeout=1000.0)
    command = tty("echo ready; exec sleep 1000")
    with local_session(command, short) as session, local_session(command, short) as clock:
        close_files(session.attach(options=long))
        close_files(clock.attach(options=short))
        clock.wait_for_state(State.DONE, SECONDS)
        assert session.state is State.READY


def test_a_timeout_beyond_what_the_kernel_can_wait_for() -> None:
    with hub(options=Options(session_timeout=1e9)) as sessions:
        sessions.attach("x").leave()
        sessions.left()
        client = sessions.attach("x")
        client.run(b"echo still$((1 + 1))", b"still2")
        client.type(b"exit 3\r")
        assert client.exit_code() == 3


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_impossible_timeouts(timeout: float) -> None:
    with pytest.raises(ValueError, match="session_timeout"):
        Options(session_timeout=timeout)


@pytest.mark.usefixtures("_short_grace")
@pytest.mark.parametrize(
    "script",
    [
        STUBBORN,
        # One that has left its terminal, so that its output has ended.
        "echo ready; exec sleep 1000 </dev/null >/dev/null 2>&1",
        "trap '' HUP; echo ready; while :; do echo flood; done",
    ],
    ids=["ignores signals", "left the terminal", "floods"],
)
def test_nothing_outlives_the_timeout(script: str) -> None:
    with hub(options=Options(session_timeout=0.3)) as sessions:
        client = sessions.attach("x", "sh", "-c", script)
        client.until(b"ready")
        client.leave()
        eventually(lambda: not sessions.server.session_count(), "the session is over")
        gone(client.process.pid)


# The end


def test_the_exit_code_reaches_every_client(sessions: Hub) -> None:
    clients = [sessions.attach("x") for _ in range(5)]
    late = RawClient(sessions.url)
    late.send(attach_message("x"))
    assert late.receive_until("pid")["reattached"] is True
    clients[0].type(b"exit 7\r")
    assert [client.exit_code() for client in clients] == [7] * 5
    for client in clients:
        # What was typed, and what bash says; a client that was slow has got both in a redraw.
        assert client.ended().count(b"exit") >= 2
    status = late.receive_until("exit_code")
    assert status == {"type": "exit_code", "exit_code": 7, "error": "exit status 7"}
    late.hang_up()
    assert sessions.server.session_count() == 0
    new = sessions.attach("x")
    assert not new.process.reattached


def test_one_client_kills_it_for_all(sessions: Hub) -> None:
    clients = [sessions.attach("x") for _ in range(3)]
    clients[0].until(b"$ ")
    clients[1].process.kill()
    for client in clients:
        with pytest.raises(ExitError) as caught:
            client.process.wait(SECONDS)
        assert caught.value.signal == signal.SIGKILL
    assert sessions.server.session_count() == 0


def test_a_signal_of_one_client_reaches_the_command(sessions: Hub) -> None:
    one = sessions.attach(
        "x", "sh", "-c", "trap 'echo caught' USR1; echo ready; while :; do sleep 0.1; done"
    )
    two = sessions.attach("x")
    two.until(b"ready")
    two.process.send_signal(signal.SIGUSR1)
    one.until(b"caught")


@pytest.mark.parametrize(
    "job", ["sleep 1000", "while :; do echo flood; done"], ids=["quiet", "floods"]
)
def test_a_job_that_holds_the_terminal_does_not_keep_the_session(
    sessions: Hub, job: str, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' HUP; ({job}) & echo $! > {pids}; echo ready; read line; exit 3"
    client = sessions.attach("x", "sh", "-c", script)
    client.until(b"ready")
    with ends_processes(int(pids.read_text())):
        client.type(b"\r")
        assert client.exit_code() == 3
        client.ended()
        assert sessions.server.session_count() == 0
    gone(int(pids.read_text()))


def test_the_last_output_is_not_cut_off(sessions: Hub) -> None:
    # A terminal holds some 64 KiB that its program has written before it ended.
    for _ in range(10):
        client = sessions.attach("x", "sh", "-c", "stty -opost; seq 5000; printf last; exit 3")
        assert client.exit_code() == 3
        assert client.ended().endswith(b"4999\n5000\nlast")


def test_a_client_that_is_behind_gets_the_last_words() -> None:
    script = "echo ready; read line; seq 300000; read line; seq 300000; echo last words; exit 3"
    with local_session(tty(script)) as session:
        reader, slow = Client(session.attach()), session.attach()
        read_past(slow.stdout, b"ready")
        reader.type(b"\r")
        reader.until(b"300000\r\n")
        # Beyond its bound it is to be redrawn, and has read but the beginning of that ...
        assert slow.stdout.raw.read(10)
        reader.type(b"\r")
        # ... when it falls behind again, and there is no more output.
        reader.exit_code()
        reader.ended()
        rest = slow.stdout.read()
        assert plain(rest).rstrip().endswith(b"last words")
        assert len(rest) < 3 << 20
        close_files(slow)
        reader.leave()


def test_closing_the_server_ends_everything() -> None:
    server = Server()
    before = {thread.ident for thread in threading.enumerate()}
    with hub(server=server) as sessions:
        attached = sessions.attach("attached")
        left = sessions.attach("left", "sh", "-c", "echo ready; exec sleep 1000")
        left.until(b"ready")
        left.leave()
        flood = sessions.attach("flood", "sh", "-c", "while :; do echo flood; done")
        typed = sessions.attach("typed", "sh", "-c", "stty raw; echo ready; exec sleep 1000")
        typed.until(b"ready")
        with Task(typed.process.stdin.raw.write, b"x" * 300_000):
            assert sessions.server.session_count() == 4
            server.close()
        assert server.sessions() == []
        for client in (attached, left, flood, typed):
            gone(client.process.pid)
        for client in (attached, flood):
            # Whichever comes first: the end of the command, or that of the connection.
            with pytest.raises((ExitError, ExitMissing), match=r"signal: |the server is ending"):
                client.process.wait(SECONDS)
        with pytest.raises(ConnectError) as caught:
            sessions.attach("new")
        assert caught.value.status == 503
        server.close()
    eventually(
        lambda: {thread.ident for thread in threading.enumerate()} == before, "no thread is left"
    )


@pytest.mark.usefixtures("_short_grace")
def test_closing_the_server_takes_no_longer_with_many_sessions() -> None:
    with hub() as sessions:
        for i in range(10):
            sessions.attach(str(i), "sh", "-c", STUBBORN).until(b"ready")
        with Task(sessions.server.close) as closing:
            # They are all being ended, and none has ended before.
            states = sessions.server._sessions.values()
            eventually(lambda: all(s.state >= State.CLOSING for s in states), "all are closing")
            closing.result()


# What is told about sessions


def test_snapshot(sessions: Hub) -> None:
    assert sessions.server.sessions() == []
    before = time.time()
    one = sessions.attach("one", rows=30, cols=100)
    one.until(b"$ ")
    sessions.attach("two", "sh", "-c", "echo ready; exec sleep 1000").until(b"ready")
    sessions.attach("one")
    first, second = sessions.server.sessions()
    assert (first.id, second.id) == ("one", "two")
    assert first.pid == one.process.pid
    assert first.command == ("bash", "--norc", "--noprofile", "-i")
    assert (first.rows, first.cols) == (24, 80)
    assert (first.clients, second.clients) == (2, 1)
    assert before <= first.created <= first.last_activity <= time.time()
    # The snapshot does not change; the next one does.
    one.run(b"echo more$((1 + 1))", b"more2")
    assert sessions.server.sessions()[0].last_activity > first.last_activity
    assert sessions.server.session_count() == 2
    one.type(b"exit\r")
    one.exit_code()
    assert sessions.server.session_count() == 1


def request(sessions: Hub, method: str, path: str, url: str = "") -> tuple[int, bytes]:
    parts = urlsplit(url or sessions.url)
    with contextlib.closing(
        http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    ) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


ODD = [
    "plain",
    "a/b",
    "/",
    "ünï 日本",
    "50%",
    "%2F",
    "a?b=c",
    "#",
    "../x",
    "/x",
    "a b+c",
    "\n",
    "ID",
]


def test_sessions_over_http(sessions: Hub) -> None:
    status, body = request(sessions, "GET", "/sessions")
    assert (status, json.loads(body)) == (200, [])
    clients = {}
    for id in ODD:
        clients[id] = sessions.attach(id, "sh", "-c", "echo ready; exec sleep 1000")
    status, body = request(sessions, "GET", "/sessions")
    infos = json.loads(body)
    assert status == 200
    assert [info["id"] for info in infos] == ODD
    assert infos[0] == {
        "id": "plain",
        "pid": clients["plain"].process.pid,
        "command": ["sh", "-c", "echo ready; exec sleep 1000"],
        "rows": 24,
        "cols": 80,
        "clients": 1,
        "created": infos[0]["created"],
        "last_activity": infos[0]["last_activity"],
    }
    for path in ("/sessions/", "/sessions/no", "/sessions/" + quote("%", safe="")):
        assert request(sessions, "DELETE", path)[0] == 404
    for left, id in reversed(list(enumerate(ODD))):
        assert request(sessions, "DELETE", "/sessions/" + quote(id, safe="")) == (204, b"")
        assert [s.id for s in sessions.server.sessions()] == ODD[:left]
        assert request(sessions, "DELETE", "/sessions/" + quote(id, safe=""))[0] == 404
        assert clients[id].exit_code() == -1
        gone(clients[id].process.pid)


# Watching


@contextlib.contextmanager
def watching(options: Options | None = None) -> Iterator[tuple[Hub, str]]:
    """A server, and the URL where its clients can only watch."""
    server = Server()
    with (
        serving(Listener(application(server, LocalExecer(), WATCHING))) as other,
        hub(options=options, server=server) as sessions,
    ):
        yield sessions, other.url


def test_who_watches_sees_everything_and_does_nothing() -> None:
    with watching() as (sessions, url):
        client = sessions.attach("x")
        client.run(b"echo set$((1 + 1))", b"set2")
        first = sessions.attach("x", rows=10, cols=20, url=url)
        assert first.process.reattached
        assert first.process.pid == client.process.pid
        first.until(b"set2")
        first.type(b"echo typed\r")
        first.process.resize(11, 21)
        first.process.send_signal(signal.SIGTERM)
        first.process.send_signal(signal.SIGHUP)
        first.process.kill()
        first.process.stdin.close()
        second = sessions.attach("x", rows=12, cols=22, url=url)
        second.until(b"set2")
        assert [s.clients for s in sessions.server.sessions()] == [3]
        first.leave()
        sessions.left(but=2)  # and all that the first had sent has arrived
        client.run(b"stty size", b"24 80\r\n")
        client.run(b"echo still$((1 + 1))", b"still2")
        second.until(b"24 80\r\n")
        second.until(b"still2")
        assert b"typed" not in client.got + second.got
        client.type(b"exit 3\r")
        assert client.exit_code() == second.exit_code() == 3


def test_who_watches_starts_nothing() -> None:
    with watching() as (sessions, url):
        for command, words in [
            (session("x"), "there is no session 'x'"),
            (replace(session("x"), id=""), "nothing to watch but sessions"),
            (Command("echo"), "nothing to watch but sessions"),
            (Command("echo", id="x"), "nothing to watch but sessions"),
        ]:
            with pytest.raises(StartError, match=f"read-only: .*{words}"):
                sessions.start(command, url)
        assert sessions.server.session_count() == 0
        client = sessions.attach("x")
        sessions.attach("x", url=url).leave()
        client.type(b"exit\r")
        client.exit_code()
        eventually(lambda: not sessions.server.session_count(), "the end of the session")
        with pytest.raises(StartError, match="there is no session 'x'"):
            sessions.start(session("x"), url)


def test_who_watches_ends_nothing() -> None:
    with watching() as (sessions, url):
        client = sessions.attach("x")
        for id in ("x", "y"):
            status, body = request(sessions, "DELETE", f"/sessions/{id}", url)
            assert (status, body.startswith(b"read-only")) == (403, True)
        status, body = request(sessions, "GET", "/sessions", url)
        assert (status, [info["id"] for info in json.loads(body)]) == (200, ["x"])
        client.run(b"echo still$((1 + 1))", b"still2")


def test_who_watches_keeps_a_session_alive_but_not_longer() -> None:
    # The timeout of those who watch, 300 s, is not that of the session.
    with watching(Options(session_timeout=0.3)) as (sessions, url):
        client = sessions.attach("x")
        watcher = sessions.attach("x", url=url)
        client.leave()
        for _ in range(3):
            timeout_passes(sessions)
        assert [s.id for s in sessions.server.sessions()] == ["x"]
        watcher.leave()
        eventually(lambda: not sessions.server.session_count(), "the session is over")
        gone(client.process.pid)


def test_to_watch_what_is_not_there_yet_or_any_more() -> None:
    with local_session(tty("exit 3")) as session:
        with pytest.raises(StartError, match="'x'"):
            session.attach(options=WATCHING)
        assert session.state is State.STARTING
        client = session.attach()
        session.wait_for_state(State.DONE, SECONDS)
        with pytest.raises(SessionClosed):
            session.attach(options=WATCHING)
        close_files(client)


def test_to_watch_what_is_being_started() -> None:
    execer = Gate()
    with (
        local_session(tty("echo ready; exec sleep 1000"), execer=execer) as session,
        Task(session.attach) as starting,
    ):
        assert execer.asked.wait(SECONDS)
        with Task(lambda: session.attach(options=WATCHING)) as attaching:
            blocked(attaching)
            execer.opened.set()
            watcher = attaching.result()
        read_past(watcher.stdout, b"ready")
        assert watcher.reattached
        with pytest.raises(ValueError, match="rows"):
            watcher.resize(70000, 1)
        close_files(watcher)
        close_files(starting.result())


# Size and environment


def test_the_latest_size_wins(sessions: Hub) -> None:
    def size() -> tuple[int, int]:
        (info,) = sessions.server.sessions()
        return info.rows, info.cols

    one = sessions.attach("x", rows=24, cols=80)
    one.run(b"stty size", b"24 80\r\n")
    two = sessions.attach("x", rows=30, cols=100)
    one.run(b"stty size", b"30 100\r\n")
    one.process.resize(40, 90)
    eventually(lambda: size() == (40, 90), "the size")
    two.run(b"stty size", b"40 90\r\n")
    # One that does not know its size leaves it.
    three = sessions.attach("x", rows=0, cols=0)
    three.run(b"stty size", b"40 90\r\n")
    two.process.resize(0, 0)
    two.process.resize(50, 60)
    eventually(lambda: size() == (50, 60), "the size")
    three.run(b"stty size", b"50 60\r\n")


def test_sizes_of_many_clients_at_once(sessions: Hub) -> None:
    clients = [sessions.attach("x") for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for i, client in enumerate(clients):

            def resize(client: Client = client, first: int = 10 * (i + 1)) -> None:
                for rows in range(first, first + 10):
                    client.process.resize(rows, 80)

            stack.enter_context(Task(resize))
    for i, client in enumerate(clients):
        # By now, what this one sent before has arrived.
        client.run(b"echo seen$((%d + 0))" % i, b"seen%d" % i)
    clients[0].process.resize(33, 44)
    clients[0].run(b"stty size", b"33 44\r\n")
    (info,) = sessions.server.sessions()
    assert (info.rows, info.cols) == (33, 44)


def test_no_size_is_the_references(sessions: Hub) -> None:
    client = sessions.attach("x", rows=0, cols=0)
    client.run(b"stty size", b"80 24\r\n")
    (info,) = sessions.server.sessions()
    assert (info.rows, info.cols) == (80, 24)


def test_term_is_that_of_the_client_who_began(sessions: Hub) -> None:
    one = sessions.attach("x", env=("TERM=vt220",))
    two = sessions.attach("x", env=("TERM=linux",))
    two.run(b"echo $TERM,$WSEP_TTY", b"vt220,true\r\n")
    one.until(b"vt220,true\r\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TERM", raising=False)
        process = sessions.start(Command("sh", ["-c", "echo $TERM"], id="y", tty=True))
        read_past(process.stdout, b"xterm-256color")
        close_files(process)


# Programs that nobody attends to


@pytest.mark.usefixtures("engine")
def test_a_flood_with_nobody_attached(sessions: Hub, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    line = "0123456789 " * 7
    script = (
        "stty -opost; read line; for i in 1 2 3 4 5 6 7 8;"
        f" do yes '{line}' | head -c 4000000; echo $i >> {progress}; done;"
        " printf '\\nall done'; read line"
    )
    client = sessions.attach("x", "sh", "-c", f"echo ready; {script}")
    client.until(b"ready")
    client.type(b"\r")
    client.leave()

    def passed() -> int:
        return progress.read_text().count("\n") if progress.exists() else 0

    eventually(lambda: passed() >= 2, "the program goes on")
    before = memory(os.getpid())
    eventually(lambda: passed() >= 8, "the program goes on to its end")
    assert memory(os.getpid()) - before < 16_000_000  # of 24 that were printed
    again = sessions.attach("x")
    again.until(b"all done")
    assert len(again.got) < 4_000_000


ASK = """
import os, select, sys, tty
tty.setraw(0)
os.write(1, b"ready")
with open(sys.argv[1]) as fifo:
    fifo.read()
for question in (b"\\x1b[c", b"\\x1b[>c", b"\\x1b[5n", b"\\x1b[H\\x1b[3;5Habc\\x1b[6n"):
    os.write(1, question)
    answer = b""
    while not answer.endswith((b"c", b"n", b"R")):
        if not select.select([0], [], [], 20)[0]:
            answer = b"nothing"
            break
        answer += os.read(0, 100)
    with open(sys.argv[2], "a") as answers:
        answers.write(repr(answer) + "\\n")
os.read(0, 1)
"""


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("who", ["nobody", "one who reads nothing", "one who only watches"])
def test_questions_that_no_terminal_is_there_to_answer(tmp_path: Path, who: str) -> None:
    fifo, answers = tmp_path / "fifo", tmp_path / "answers"
    os.mkfifo(fifo)
    command = Command(
        sys.executable, ["-c", ASK, str(fifo), str(answers)], id="x", tty=True, rows=24, cols=80
    )
    with local_session(command) as session:
        client = session.attach()
        read_past(client.stdout, b"ready")
        close_files(client)
        other = None
        if who == "one who reads nothing":
            # It will be given a redraw, which has no questions in it.
            other = session.attach()
        elif who == "one who only watches":
            # Its terminal would answer, but nobody would listen.
            other = session.attach(options=WATCHING)
            read_past(other.stdout, b"ready")
        fifo.write_text("go")
        eventually(
            lambda: answers.exists() and answers.read_text().count("\n") == 4, "four answers"
        )
        da, da2, status, position = answers.read_text().splitlines()
        assert da.startswith(r"b'\x1b[?6")
        assert da2.startswith(r"b'\x1b[>")
        assert status == r"b'\x1b[0n'"
        assert position == r"b'\x1b[3;8R'"
        if other:
            close_files(other)


def test_an_attached_terminal_answers_for_itself(sessions: Hub, tmp_path: Path) -> None:
    fifo, answers = tmp_path / "fifo", tmp_path / "answers"
    os.mkfifo(fifo)
    client = sessions.attach("x", sys.executable, "-c", ASK, str(fifo), str(answers))
    client.until(b"ready")
    fifo.write_text("go")
    client.until(b"\x1b[c")
    client.type(b"\x1b[?1;2c")
    client.until(b"\x1b[>c")
    client.type(b"\x1b[>0;0c")
    eventually(lambda: answers.exists() and answers.read_text().count("\n") == 2, "two answers")
    assert answers.read_text().splitlines() == [r"b'\x1b[?1;2c'", r"b'\x1b[>0;0c'"]


DEAF = "stty raw -echo; echo ready; exec sleep 1000"


def test_a_client_leaves_while_it_types_what_nobody_reads(sessions: Hub) -> None:
    typist, other = (sessions.attach("x", "sh", "-c", DEAF) for _ in range(2))
    typist.until(b"ready")
    other.until(b"ready")
    with Task(typist.process.stdin.raw.write, b"x" * 4_000_000) as typing:
        blocked(typing)
        other.leave()
        eventually(lambda: sessions.server.sessions()[0].clients == 1, "the other has left")
        third = sessions.attach("x")
        third.until(b"ready")
        typist.leave()
        with pytest.raises(BrokenPipeError):
            typing.result()
        eventually(lambda: sessions.server.sessions()[0].clients == 1, "the typist has left")
        third.leave()
        sessions.left()
    assert sessions.server.session_count() == 1
    # The connections' threads are gone, not only their clients.
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name in ("wsep-stdin", "wsep-output")],
        "the threads of the connections have ended",
    )


def test_leaving_wakes_a_write() -> None:
    with local_session(tty(DEAF)) as session:
        one, two = session.attach(), session.attach()
        read_past(one.stdout, b"ready")
        for client in (one, two):
            with Task(client.stdin.raw.write, b"x" * 1_000_000) as typing:
                blocked(typing)
                client.close()
                with pytest.raises(BrokenPipeError):
                    typing.result()
        with Task(two.stdin.close) as closing:
            closing.result()
        three = session.attach()
        with Task(three.stdin.raw.write, b"x") as typing:
            blocked(typing)
            three.kill()
            with pytest.raises(BrokenPipeError):
                typing.result()
        for client in (one, two, three):
            close_files(client)


def test_what_was_typed_last_arrives(sessions: Hub, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    for i in range(20):
        client = sessions.attach("x")
        client.type(b"echo %d >> %b\r" % (i, bytes(lines)))
        client.leave()
    # In any order: they come over different connections, one of which may be slow to end.
    eventually(lambda: lines.exists() and lines.read_text().count("\n") == 20, "all the lines")
    assert sorted(lines.read_text().split(), key=int) == [str(i) for i in range(20)]


def test_what_is_typed_arrives_whole_and_in_order(sessions: Hub) -> None:
    typed = b"".join(b"%06d\n" % i for i in range(20_000))
    script = f"stty raw -echo; echo ready; head -c {len(typed)} | md5sum"
    client = sessions.attach("x", "sh", "-c", script)
    client.until(b"ready")
    client.type(typed)
    client.until(hashlib.md5(typed).hexdigest().encode())


def test_what_one_client_types_stays_together(sessions: Hub) -> None:
    script = f"stty raw -echo; echo ready; exec head -c {3 * 100 * 1000}"
    clients = [sessions.attach("x", "sh", "-c", script) for _ in range(3)]
    for client in clients:
        client.until(b"ready")
    with contextlib.ExitStack() as stack:
        for name, client in zip(b"abc", clients, strict=True):

            def paste(client: Client = client, line: bytes = bytes([name]) * 999 + b"\n") -> None:
                for _ in range(100):
                    client.type(line)

            stack.enter_context(Task(paste))
    # The first, for the others begin with a redraw.
    lines = clients[0].ended().partition(b"ready")[2].split(b"\n")
    assert sorted(lines) == [b"", b"", *(bytes([c]) * 999 for c in b"abc" for _ in range(100))]


def test_end_of_file_is_sent_as_a_character(sessions: Hub) -> None:
    one, two = sessions.attach("x", "cat"), sessions.attach("x")
    two.type(b"line\r")
    one.until(b"line\r\nline\r\n")
    two.process.stdin.close()
    assert one.exit_code() == 0
    assert two.exit_code() == 0


# Sessions further on


@pytest.mark.parametrize("kind", ["fixed", "factory"])
def test_through_a_chained_execer(kind: str) -> None:
    with hub() as back, contextlib.ExitStack() as stack:
        execer = connect(back.url) if kind == "fixed" else lambda: connect(back.url)
        if kind == "fixed":
            stack.enter_context(execer)
        with hub(execer) as front:
            one = front.attach("x", rows=30, cols=100)
            one.run(b"word=here; stty size", b"30 100\r\n")
            two = front.attach("x", rows=24, cols=80)
            two.run(b"stty size", b"24 80\r\n")
            one.leave()
            two.leave()
            front.left()
            again = front.attach("x")
            assert again.process.reattached
            assert again.process.pid == one.process.pid
            again.run(b"echo $word$((1 + 1))", b"here2")
            # The session is the front's; to the back it is a plain process.
            assert front.server.session_count() == 1
            assert back.server.session_count() == 0
            again.type(b"exit 3\r")
            assert again.exit_code() == 3
            closed, left = (front.attach(id).process.pid for id in "yz")
            front.server.close_session("y")
            assert not alive(closed)
            assert alive(left)
        # The front has ended, and with it what it ran further on.
        gone(left)


FRONT = """
import sys
from wsep_sync import Server, connect
from wsep_sync.listener import Listener
from wsep_sync.wsgi import application
url = sys.argv[1]
listener = Listener(application(Server(), lambda: connect(url)))
print(listener.url, flush=True)
listener.serve_forever()
"""


def test_when_the_front_dies_the_command_further_on_ends() -> None:
    with (
        hub() as back,
        subprocess.Popen(
            [sys.executable, "-c", FRONT, back.url], stdout=subprocess.PIPE, text=True
        ) as front,
    ):
        try:
            url = front.stdout.readline().strip()
            attached, left = back.attach("x", url=url), back.attach("y", url=url)
            for client in (attached, left):
                client.until(b"$ ")
            left.leave()
        finally:
            front.kill()
        gone(attached.process.pid, left.process.pid)
        with pytest.raises(ExitMissing):
            attached.process.wait(SECONDS)


def test_when_the_back_dies_the_clients_are_told() -> None:
    with (
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                FRONT.replace("lambda: connect(url)", "LocalExecer()").replace(
                    "connect\n", "LocalExecer\n"
                ),
                "-",
            ],
            stdout=subprocess.PIPE,
            text=True,
        ) as back,
    ):
        try:
            url = back.stdout.readline().strip()
            with hub(lambda: connect(url)) as front:
                client = front.attach("x", "sh", "-c", "echo ready; exec sleep 1000")
                client.until(b"ready")
                with ends_processes(client.process.pid):
                    back.kill()
                    with pytest.raises(ExitMissing):
                        client.process.wait(SECONDS)
                    eventually(lambda: not front.server.session_count(), "the session has ended")
                gone(client.process.pid)
        finally:
            back.kill()


# Nothing is left of a client


@pytest.mark.thorough
def test_a_thousand_clients_leave_nothing(sessions: Hub) -> None:
    first = sessions.attach("x")
    first.run(b"echo a$((1 + 1))", b"a2")

    def come_and_go(count: int) -> None:
        for _ in range(count):
            process = sessions.start(session("x"))
            read_past(process.stdout, b"a2")
            close_files(process)
        eventually(lambda: sessions.server.sessions()[0].clients == 1, "they have left")
        threads = ("wsep-stdin", "wsep-output")
        eventually(
            lambda: len([t for t in threading.enumerate() if t.name in threads]) <= 2, "and ended"
        )

    come_and_go(50)
    gc.collect()
    objects, descriptors = len(gc.get_objects()), len(os.listdir("/proc/self/fd"))
    before = memory(os.getpid())
    come_and_go(1000)
    gc.collect()
    assert len(gc.get_objects()) - objects < 500
    # One more may be of the helper that emulates terminals, if that had to be started anew.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 1, "and closed")
    # One of its buffers kept for each client would be 64 MB; the allocator's moods are some.
    assert memory(os.getpid()) - before < 32_000_000


def test_ended_sessions_hold_no_descriptors(sessions: Hub) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for i in range(20):
            client = sessions.attach(str(i), "true")
            client.exit_code()
            client.leave()
        sessions.clients.clear()
        del client
        eventually(
            lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2,
            "descriptors are closed without the garbage collector",
        )
    finally:
        gc.enable()


def test_a_client_that_has_left_is_dropped_at_once() -> None:
    session = Session(tty("cat"), LocalExecer())
    gc.disable()
    try:
        client = session.attach()
        dropped = weakref.ref(client)
        close_files(client)
        for use in (client.stdin.raw.write, client.stdout.raw.readinto):
            with pytest.raises(ValueError, match="closed file"):
                use(bytearray(1))
        del client, use
        assert dropped() is None  # without the garbage collector
    finally:
        gc.enable()
        session.close()


def test_starts_that_fail_hold_no_descriptors(sessions: Hub) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for i in range(20):
            with RawClient(sessions.url) as raw:
                raw.send(attach_message(str(i), "/no/such/program"))
                raw.receive_all()
                assert raw.code == 1011
        eventually(
            lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2,
            "descriptors are closed without the garbage collector",
        )
    finally:
        gc.enable()


def test_output_in_tiny_pieces_is_bounded_too() -> None:
    session = Session(Command("cat", tty=True, id="x"), LocalExecer())
    client = session.attach()
    try:
        with session._lock:
            for _ in range(20_000):  # what a program that writes byte by byte comes as
                client.put(b"x", 0)  # type: ignore[attr-defined]
            assert len(client.queue) < 5_000  # type: ignore[attr-defined]
    finally:
        session.close()
