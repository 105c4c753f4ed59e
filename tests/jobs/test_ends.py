"""Sessions: their timeouts, how they end, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from held_sessions import memory
from helpers import (
    SECONDS,
    RawClient,
    Task,
    alive,
    ends_processes,
    eventually,
    gone,
    read_past,
    serving,
)
from measured import unmeasured_code
from session_clients import Client, Hub, attach_message, hub, plain, session
from session_commands import STUBBORN, close_files, local_session, timeout_passes, tty

from wsep_sync import Command, ConnectError, ExitError, ExitMissing, LocalExecer, Options, Server
from wsep_sync.jobs.options import State
from wsep_sync.jobs.session import Session
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


@pytest.fixture
def few_objects() -> Iterator[None]:
    with unmeasured_code():
        yield


# Timeouts


@contextlib.contextmanager
def two_timeouts(short: float, long: float) -> Iterator[tuple[Hub, str]]:
    """One server whose clients get the short timeout, and the URL where they get the long one."""
    with hub(options=Options(session_timeout=short)) as sessions:
        app = application(sessions.server, LocalExecer(), Options(session_timeout=long))
        with serving(Listener(app)) as other:
            yield sessions, other.url


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


@pytest.mark.usefixtures("short_grace")
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


@pytest.mark.usefixtures("short_grace")
def test_closing_the_server_takes_no_longer_with_many_sessions() -> None:
    with hub() as sessions:
        for i in range(10):
            sessions.attach(str(i), "sh", "-c", STUBBORN).until(b"ready")
        with Task(sessions.server.close) as closing:
            # They are all being ended, and none has ended before.
            states = sessions.server._sessions.values()
            eventually(lambda: all(s.state >= State.CLOSING for s in states), "all are closing")
            closing.result()


# Nothing is left of a client


@pytest.mark.thorough
@pytest.mark.usefixtures("few_objects")
def test_a_thousand_clients_leave_nothing(sessions: Hub) -> None:
    first = sessions.attach("x")
    first.run(b"echo a$((1 + 1))", b"a2")

    def come_and_go(count: int) -> None:
        for _ in range(count):
            process = sessions.start(session("x"))
            read_past(process.stdout, b"a2")
            close_files(process)
        eventually(lambda: sessions.server.sessions()[0].clients == 1, "they have left")
        eventually(
            lambda: len([t for t in threading.enumerate() if t.name == "wsep-connection"]) <= 1,
            "and ended",
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
