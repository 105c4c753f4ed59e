"""A server in a process of its own, looked at from outside, in /proc."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from helpers import SECONDS
from measured import unmeasured
from programs import environment

from wsep_sync import Command, connect

# What a server's log must not say, whatever its clients do.
_ALARMS = re.compile(
    r"Traceback|Exception (in|ignored)|Fatal |internal error|^\w*(Error|Warning): "
    r"|^\S+ (ERROR|CRITICAL) ",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Stock:
    """What a process holds, in numbers."""

    threads: int
    descriptors: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Stock:
        process = Path("/proc", str(pid))
        children = 0
        for task in (process / "task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                children += len((task / "children").read_text().split())
        return cls(
            threads=len(os.listdir(process / "task")),
            descriptors=len(os.listdir(process / "fd")),
            children=children,
        )

    def within(self, other: Stock) -> bool:
        """Whether it is no more of anything."""
        return (
            self.threads <= other.threads
            and self.descriptors <= other.descriptors
            and self.children <= other.children
        )


def settled(pid: int, than: Stock, seconds: float = SECONDS) -> Stock:
    """Wait until a process holds no more than that; return what it holds."""
    deadline = time.monotonic() + seconds
    while not (stock := Stock.of(pid)).within(than):
        if time.monotonic() > deadline:
            raise AssertionError(f"process {pid} still holds {stock}, before it held {than}")
        time.sleep(0.05)
    return stock


# `wsep-sync`, with a thread that gives back to the kernel what has been freed, when it is asked to
# (malloc_trim(3)). The allocator keeps most of that, as much as the busiest moment has needed: by
# tens of megabytes more or less, as threads happen to meet. How much the server holds is seen only
# without it.
_PROGRAM = """\
import ctypes, os, sys, threading

def give_back():
    while os.read(asked, 1):
        ctypes.CDLL(None).malloc_trim(0)
        os.write(asked, b".")

asked = int(sys.argv.pop(1))
threading.Thread(target=give_back, daemon=True).start()

from wsep_sync.cli import main

sys.exit(main())
"""

# And one arena for all threads: each keeps pages for the sake of a few bytes, of which there would
# be some in every arena.
_ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}


class WatchedServer:
    """A `wsep-sync serve` that runs.

    Attributes:
        pid: Of the server.
        url: Where it listens.
        address: The same, as a host and a port.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], url: str, log: Path, memory: socket.socket
    ) -> None:
        self.process = process
        self.pid = process.pid
        self.url = url
        host, _, port = url.removeprefix("ws://").rpartition(":")
        self.address = (host, int(port))
        self._log_path = log
        self._memory = memory  # has the server give back what it can
        self._lock = threading.Lock()  # guards _read
        self._read = 0  # bytes of the log

    def check(self) -> None:
        """See that it runs, and that its log has nothing in it to be alarmed about."""
        status = self.process.poll()
        with self._lock, self._log_path.open("rb") as log:
            log.seek(self._read)
            news = log.read()
            self._read += len(news)
        if status is not None:
            raise AssertionError(f"the server ended with {status}; its log:\n{_tail(news)}")
        text = news.decode()
        # What is not printable, a terminal may obey.
        if _ALARMS.search(text) or not all(line.isprintable() for line in text.split("\n")):
            raise AssertionError(f"the server's log has:\n{_tail(news)}")

    def probe(self) -> None:
        """See that it serves a client, whatever the others do."""
        text = os.urandom(8).hex().encode()
        with (
            connect(self.url, timeout=SECONDS) as execer,
            execer.start(Command("cat", stdin=True)) as process,
        ):
            process.stdin.write(text)
            process.stdin.close()
            assert process.stdout.read() == text
            process.wait(SECONDS)

    def stock(self) -> Stock:
        return Stock.of(self.pid)

    def settled(self, than: Stock, seconds: float = SECONDS) -> Stock:
        """Wait until it holds no more than that; return what it holds."""
        return settled(self.pid, than, seconds)

    def resident(self) -> int:
        """Return its resident memory in bytes: Rss of proc_pid_smaps(5), which is exact."""
        self._memory.send(b".")
        assert self._memory.recv(1)
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return 1024 * int(rollup.partition("\nRss:")[2].split()[0])

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Make an HTTP request; return the status and the body."""
        connection = http.client.HTTPConnection(*self.address, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()

    def sessions(self) -> list[dict[str, Any]]:
        status, body = self.request("GET", "/sessions")
        assert status == 200, (status, body)
        infos: list[dict[str, Any]] = json.loads(body)
        return infos

    def end_session(self, id: str) -> int:
        """Ask for a session's end; return the HTTP status."""
        return self.request("DELETE", f"/sessions/{quote(id, safe='')}")[0]

    def dump_stacks(self) -> str:
        """End the server, and return what it said then: the stack of each thread."""
        self.process.send_signal(signal.SIGABRT)
        self.process.wait(SECONDS)
        return _tail(self._log_path.read_bytes(), 20_000)


@contextlib.contextmanager
def watched_server(*options: str) -> Iterator[WatchedServer]:
    """Run `wsep-sync serve` on a free port, and see it end well."""
    memory, asked = socket.socketpair()
    # Warnings are errors in there, too.
    program = [sys.executable, "-W", "error", "-c", _PROGRAM, str(asked.fileno())]
    with memory, asked, tempfile.TemporaryDirectory(prefix="wsep-") as directory:
        memory.settimeout(SECONDS)
        path = Path(directory, "log")
        with (
            path.open("wb") as log,
            subprocess.Popen(
                [*program, "serve", "--port", "0", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[asked.fileno()],
                # With the first, SIGABRT, and a crash, show the stacks.
                env=unmeasured(environment(PYTHONFAULTHANDLER="1", **_ALLOCATOR)),
            ) as process,
        ):
            asked.close()
            assert process.stdout is not None
            try:
                line = process.stdout.readline().decode()
                match = re.fullmatch(r"listening on (ws://\S+:\d+)\n", line)
                assert match, (line, path.read_text())
                server = WatchedServer(process, match[1], path, memory)
                idle = server.stock()
                server.probe()  # what it needs for its first client, it keeps
                server.settled(replace(idle, descriptors=sys.maxsize))
                yield server
                server.check()
                process.send_signal(signal.SIGTERM)
                assert process.wait(SECONDS) == 0, path.read_text()
            finally:
                process.kill()


def _tail(text: bytes, size: int = 8000) -> str:
    return text[-size:].decode(errors="backslashreplace") or "(nothing)"
