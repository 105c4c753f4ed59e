"""Servers of others, run as the programs they are: gunicorn, Werkzeug, Flask; and HAProxy."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO

from helpers import SECONDS, eventually
from parts import need
from programs import environment, server_process

EXAMPLES = Path(__file__).parents[2] / "examples" / "wsgi"

PYTHON = [sys.executable, "-W", "error"]

# Werkzeug's server with the application of examples/wsgi/app.py.
_WERKZEUG = """
import time
from werkzeug.serving import run_simple
from app import app, server
try:
    run_simple("127.0.0.1", 0, app, threaded=True)
finally:
    server.close()
    while server.connection_count():
        time.sleep(0.05)
"""

_HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend front
    bind fd@{listening}
    default_backend back
backend back
    server one {address}
"""


class Program:
    """A server that runs beside the tests.

    Attributes:
        process: It.
        url: Where clients connect.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self.url = ""
        self._log = log

    def log(self) -> str:
        """What it has said so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    def find(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something, and return the match."""

        def said() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            match = re.search(pattern, self.log())
            assert match or not ended, self.log()
            return match

        match = eventually(said, f"{pattern!r} in the log")
        assert match
        return match

    def end(self, number: int = signal.SIGTERM) -> None:
        """Tell it to end, and wait until it has, and well."""
        self.process.send_signal(number)
        self.process.wait(SECONDS)
        assert "Traceback" not in self.log(), self.log()


@contextlib.contextmanager
def program(
    command: list[str], end: int = signal.SIGTERM, pass_fds: tuple[int, ...] = ()
) -> Iterator[Program]:
    """Run a program in examples/wsgi, and see it end well."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            cwd=EXAMPLES,
            env=environment(PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=pass_fds,
        ) as process,
    ):
        server = Program(process, log)
        try:
            yield server
            if process.poll() is None:
                server.end(end)
        finally:
            process.kill()


@contextlib.contextmanager
def gunicorn(*options: str, app: str = "app:app", path: str = "") -> Iterator[Program]:
    """gunicorn with threads; it logs how requests end."""
    command = [*PYTHON, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "64"]
    # A control socket would be the user's, and the same for all.
    command += ["--no-control-socket", "--log-level", "debug"]
    with program([*command, *options, app]) as server:
        port = server.find(r"Listening at: http://127.0.0.1:(\d+) ")[1]
        server.find(r"Booting worker with pid")
        server.url = f"ws://127.0.0.1:{port}{path}"
        yield server


@contextlib.contextmanager
def werkzeug() -> Iterator[Program]:
    with program([*PYTHON, "-c", _WERKZEUG], signal.SIGINT) as server:
        server.url = "ws://" + server.find(r"Running on http://(\S+:\d+)")[1]
        yield server


@contextlib.contextmanager
def flask_sock() -> Iterator[Program]:
    with program([*PYTHON, "flask_app.py", "0"], signal.SIGINT) as server:
        server.url = "ws://" + server.find(r"Running on http://(\S+:\d+)")[1] + "/exec"
        yield server


@contextlib.contextmanager
def haproxy() -> Iterator[Program]:
    """`wsep-sync serve` behind HAProxy."""
    with (
        tempfile.TemporaryDirectory(prefix="wsep-haproxy-") as directory,
        server_process(seconds=3600) as (url, _),
        # A port that HAProxy looked for could be somebody else's by then.
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        address = url.removeprefix("ws://")
        file = Path(directory, "haproxy.cfg")
        file.write_text(_HAPROXY.format(listening=listening.fileno(), address=address))
        command = [need("haproxy"), "-db", "-f", str(file)]
        with program(command, pass_fds=(listening.fileno(),)) as server:
            server.url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
            listening.close()  # or clients would wait for one that has ended
            yield server


_PROGRAMS: dict[str, Callable[[], AbstractContextManager[Program]]] = {
    "gunicorn": gunicorn,
    "werkzeug": werkzeug,
    "flask-sock": flask_sock,
    "haproxy": haproxy,
}


class Programs:
    """Those servers, each started when it is asked for first, and run until the end.

    Attributes:
        names: What there is.
    """

    names = tuple(_PROGRAMS)

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        self._running: dict[str, Program] = {}

    def start(self, name: str) -> None:
        """Start it, if there is one of this name, and it does not run yet."""
        if name in _PROGRAMS and name not in self._running:
            self._running[name] = self._cleanup.enter_context(_PROGRAMS[name]())

    def url(self, name: str) -> str:
        return self._running[name].url

    def close(self) -> None:
        self._running.clear()
        self._cleanup.close()
