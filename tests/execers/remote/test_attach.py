"""Attaching to a session without ever starting anything."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from helpers import SECONDS, listening, read_past, scripted, serving

from wsep_sync import (
    Command,
    LocalExecer,
    Options,
    RemoteExecer,
    Server,
    SessionNotFound,
    StartError,
    TransportClosed,
    connect,
)
from wsep_sync.transports.base import Transport
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

CAT = Command("sh", ["-c", "stty -echo; echo ready; exec cat"], tty=True, id="s")


@pytest.fixture
def table() -> Iterator[Server]:
    table = Server()
    yield table
    table.close()


def test_what_is_there(table: Server) -> None:
    with (
        listening(server=table) as listener,
        connect(listener.url) as execer,
        execer.start(CAT) as first,
    ):
        read_past(first.stdout, b"ready\r\n")
        with execer.attach("s", 30, 90) as second:
            assert (second.pid, second.reattached) == (first.pid, True)
            assert "attach" in second.features
            read_past(second.stdout, b"ready\r\n")
            second.stdin.write(b"typed\n")
            second.stdin.flush()
            read_past(first.stdout, b"typed\r\n")
            (info,) = table.sessions()
            assert (info.rows, info.cols, info.clients) == (30, 90, 2)
        metrics = table.metrics()
        assert (metrics.started, metrics.failed) == (1, {})


def test_what_is_not_there_or_has_ended(table: Server) -> None:
    with listening(server=table) as listener, connect(listener.url) as execer:
        for id in ("", "s", "nobody", "s" * 1024):
            with pytest.raises(SessionNotFound):
                execer.attach(id)
        with execer.start(CAT) as process:
            process.kill()
            with pytest.raises(Exception, match="killed"):
                process.wait(SECONDS)
        with pytest.raises(SessionNotFound, match=r"^s$"):
            execer.attach("s")
        assert table.session_count() == 0
        assert table.metrics().started == 1


def test_a_client_that_watches_may_attach(table: Server) -> None:
    with listening(server=table) as listener, connect(listener.url) as execer:
        watched = application(table, LocalExecer(), Options(read_only=True))
        with (
            execer.start(CAT),
            serving(Listener(watched)) as watching,
            connect(watching.url) as watcher,
        ):
            with watcher.attach("s") as process:
                assert process.reattached
            with pytest.raises(SessionNotFound):
                watcher.attach("t")


def test_a_server_that_does_not_know_it_starts_nothing() -> None:
    # It ignores what it does not know, as the reference.
    asked = []

    def serve(conn: Transport) -> None:
        asked.append(json.loads(bytes(conn.receive())))
        with pytest.raises(TransportClosed):
            conn.receive()

    with scripted(serve) as url, connect(url, timeout=0.3, session_id="s") as execer:
        assert isinstance(execer, RemoteExecer)
        with pytest.raises(StartError, match=r"no answer from the server in 0\.3 seconds"):
            execer.attach("s", 1, 2)
    assert asked == [{"type": "attach", "id": "s", "rows": 1, "cols": 2}]
