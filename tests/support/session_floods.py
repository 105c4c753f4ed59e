"""Programs whose output is made to hurt, and clients that attach to them again and again."""

from __future__ import annotations

import contextlib
import http.client
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from helpers import SECONDS, Task
from session_clients import session

from wsep_sync import Command, Process, connect
from wsep_sync.errors import WsepError

# Writes what its argument evaluates to, over and over; `i` is how often it has.
_PROGRAM = """
import os, sys, tty
tty.setraw(0)
make = eval("lambda i: " + sys.argv[1])
i = 0
while True:
    data = memoryview(make(i))
    while data:
        data = data[os.write(1, data):]
    i += 1
"""


@dataclass(frozen=True)
class Flood:
    """A program that prints without end.

    Attributes:
        output: What it prints in its turn `i`, as an expression.
        rows: The height of its terminal.
        cols: The width of its terminal.
    """

    output: str
    rows: int = 24
    cols: int = 80

    def command(self, id: str) -> Command:
        return session(
            id, sys.executable, "-c", _PROGRAM, self.output, rows=self.rows, cols=self.cols
        )


# What made an emulator abort; that needed 64 s and 499 MiB; wide characters cut by a new width.
_LINKS = Flood(r"b'\33[?1049h\33]8;;u\33\\T\33[65535b\33[65535b'", 600, 80)
_COMBINING = Flood(r"b'\33[?1049h\33[H' + b'e\314\201\314\202' * 60000", 600, 600)
_WIDE = Flood(r"b'\33[?1049h\33[H' + '漢字🎉'.encode() * 2000", 24, 8)
_STRING = Flood(r"b'\33]52;c;' * (i == 0) + b'A' * 60000")
# What a quadratic pattern took for ever over.
_C1 = Flood(r"b'\302' * 65536")
_SEQUENCES = Flood(
    r"(b'\33[', b'\33[?', b'\33]4;', b'\33P$q', b'\33[0;', b'\33\33')[i % 6] * 20000"
)
# What was remembered without a bound.
_MODES = Flood(r"b''.join(b'\33[?%dh\33[%dh' % (n, n) for n in range(i * 3000, i * 3000 + 3000))")
_COLOURS = Flood(r"b''.join(b'\33]4;%d;red\7' % n for n in range(i * 3000, i * 3000 + 3000))")
_TITLES = Flood(r"b'\33]2;' + b'%d' % i * 3000 + b'\7\33[22;0t\33[?%ds\33[>%d;1m' % (i, i)")
# What was answered without a bound.
_QUERIES = Flood(r"b'\33[c\33[6n' * 8000")

FLOODS = {
    "links": _LINKS,
    "combining characters": _COMBINING,
    "wide characters": _WIDE,
    "a string": _STRING,
    "encoded controls": _C1,
    "sequences": _SEQUENCES,
    "modes": _MODES,
    "colours": _COLOURS,
    "titles": _TITLES,
    "queries": _QUERIES,
}


def _close(process: Process) -> None:
    process.close()
    for file in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.close()


class Visitors:
    """Clients that attach to a session one after the other, at different sizes, and leave.

    Attributes:
        redrawn: How many of them have been redrawn.
    """

    def __init__(self, url: str, id: str, flood: Flood) -> None:
        self._url = url
        self._id = id
        self._flood = flood
        self._changed = threading.Condition()  # guards the two below
        self.redrawn = 0
        self._over = False

    def visit(self) -> None:
        """Come and go until it is over; in a thread of the test's."""
        turn = 0
        while not self._over:
            turn += 1
            cols = max(1, self._flood.cols - turn % 3)
            try:
                with connect(self._url, timeout=SECONDS) as execer:
                    process = execer.start(session(self._id, "true", rows=24, cols=cols))
            except WsepError:
                if self._over:
                    return
                raise
            try:
                got = 0
                while got < 200_000 and (data := process.stdout.read1(1 << 16)):
                    if not got:
                        assert data.startswith(b"\x18"), data[:100]
                        with self._changed:
                            self.redrawn += 1
                            self._changed.notify_all()
                    got += len(data)
            except WsepError:
                assert self._over
            finally:
                _close(process)

    def come(self, more: int) -> None:
        """Wait until so many more have been redrawn."""
        with self._changed:
            enough = self.redrawn + more
            assert self._changed.wait_for(lambda: self.redrawn >= enough, SECONDS), "no redraw"

    def stop(self) -> None:
        self._over = True


@contextlib.contextmanager
def flooded(url: str, id: str, flood: Flood, visitors: int = 2) -> Iterator[Visitors]:
    """Have a program flood a session, with nobody attached but those who come and go."""
    with connect(url, timeout=SECONDS) as execer:
        process = execer.start(flood.command(id))
    assert process.stdout.read(1)
    _close(process)
    coming = Visitors(url, id, flood)
    with contextlib.ExitStack() as stack:
        tasks = [stack.enter_context(Task(coming.visit)) for _ in range(visitors)]
        stack.callback(coming.stop)
        yield coming
        coming.stop()
        for task in tasks:
            task.result()


def request(url: str, method: str, path: str) -> tuple[int, bytes]:
    """Ask a server something over plain HTTP; return status and body."""
    parts = urlsplit(url)
    with contextlib.closing(
        http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    ) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def echo(url: str, word: str) -> bytes:
    """Run an unrelated command; return what it says."""
    with connect(url, timeout=SECONDS) as execer:
        process = execer.start(Command("echo", [word]))
    try:
        said = process.stdout.read()
        process.wait(SECONDS)
        return said
    finally:
        _close(process)
