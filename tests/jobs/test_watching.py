"""Sessions: clients that only watch."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from helpers import SECONDS, Task, blocked, eventually, gone, read_past, serving
from session_clients import Hub, hub, session
from session_commands import (
    WATCHING,
    Gate,
    close_files,
    local_session,
    request,
    timeout_passes,
    tty,
)

from wsep_sync import Command, LocalExecer, Options, Server, StartError
from wsep_sync.errors import SessionClosed
from wsep_sync.jobs.options import State
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

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
