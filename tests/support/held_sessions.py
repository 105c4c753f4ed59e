"""A server of sessions in a process of its own, measured from outside, for tests and benchmarks.

Run with the name of an engine, it prints its URL, and serves until its input ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from helpers import SECONDS
from measured import unmeasured
from session_clients import Client, session

import wsep_sync
from wsep_sync import LocalExecer, Server, connect
from wsep_sync.jobs import client as session_module
from wsep_sync.terminals import replay
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

ENGINES = {"replay": replay}

# What it shows is little, so that what is measured is not what it shows.
ANSWERING = ("sh", "-c", "while read line; do echo answer to $line; done")


def serve() -> None:
    session_module.redraw = ENGINES[sys.argv[1]]  # type: ignore[attr-defined]
    server = Server()
    listener = Listener(application(server, LocalExecer()))
    # Ends with shutdown().
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    print(listener.url, flush=True)
    sys.stdin.read()
    listener.shutdown()
    thread.join()
    listener.server_close()
    server.close()


@contextlib.contextmanager
def server_process(engine: str) -> Iterator[tuple[int, str]]:
    """Start such a server; yields its pid and URL."""
    # Where this one has the package from, installed or not.
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(wsep_sync.__file__).parents[1])])
    with subprocess.Popen(
        [sys.executable, __file__, engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**unmeasured(), "PYTHONPATH": path},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
            process.stdin.close()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def ask(url: str, id: str, question: str) -> int:
    """Attach to an answering session, have it answer, and leave; return its pid."""
    with connect(url, timeout=SECONDS) as execer:
        client = Client(execer.start(session(id, *ANSWERING)))
    try:
        client.type(question.encode() + b"\r")
        client.until(f"answer to {question}\r\n".encode())
        return client.process.pid
    finally:
        client.leave()


def memory(pid: int) -> int:
    """A process's memory in bytes, its share of what it shares included."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(rollup.partition("\nPss:")[2].split()[0])


def children(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


if __name__ == "__main__":
    serve()
