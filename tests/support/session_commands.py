"""Commands of sessions, and sessions without a server."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from helpers import SECONDS, eventually, gone, sh
from session_clients import Hub

from wsep_sync import Command, LocalExecer, Options, Process
from wsep_sync.jobs.session import Session

WATCHING = Options(read_only=True)

STUBBORN = "trap '' HUP TERM; echo ready; while :; do sleep 0.1; done"


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


def timeout_passes(sessions: Hub) -> None:
    """Wait until a session with the short timeout, begun and left only now, is over."""
    clock = sessions.attach("clock")
    clock.leave()
    eventually(lambda: "clock" not in [s.id for s in sessions.server.sessions()], "the timeout")
    gone(clock.process.pid)


def request(sessions: Hub, method: str, path: str, url: str = "") -> tuple[int, bytes]:
    parts = urlsplit(url or sessions.url)
    with contextlib.closing(
        http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    ) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
