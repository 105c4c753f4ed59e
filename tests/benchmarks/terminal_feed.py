"""How fast the engines of terminal.py are fed, beside a bare ring (chunks, dropped past a bound).

    python tests/benchmarks/terminal_feed.py

The first table feeds from memory. There a bare ring, which never looks at a byte, has no bound but
the interpreter. The second reads a pseudo-terminal, as a session does, and feeds what it read: its
ratios are what an engine costs a session. It counts the reading thread's CPU time, since who waits
for whom is the scheduler's choice. Each figure is a median of several rounds.
"""

from __future__ import annotations

import os
import pty
import statistics
import subprocess
import threading
import time
import tty
from collections import deque
from collections.abc import Callable

from wsep_sync.terminal import NORMAL_LIMIT, GhosttyTerminal, RingTerminal

READ = 4096  # what a Linux pseudo-terminal gives at once
SIZE = 4 * 1024 * 1024
ROUNDS = 9


class BareRing:
    def __init__(self, rows: int, columns: int) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0

    def feed(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)
        while self.size > NORMAL_LIMIT:
            self.size -= len(self.chunks.popleft())


def text() -> bytes:
    line = b"%06d Is this text, which wraps nowhere and asks nothing, quick to feed? It is.\r\n"
    return b"".join(line % i for i in range(SIZE // 80))


def ls() -> bytes:
    command = ["ls", "-l", "--color=always", "/usr/bin", "/etc"]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return output.replace(b"\n", b"\r\n") * (SIZE // len(output))


def vim() -> bytes:
    page = b"".join(
        b"\x1b[%d;1H\x1b[38;5;%dm%3d \x1b[m\x1b[1mdef\x1b[m name_%d(\x1b[32m'text'\x1b[m):\x1b[K"
        % (row, row + 20, row, row)
        for row in range(1, 24)
    )
    page = b"\x1b[?25l" + page + b"\x1b[24;1H\x1b[7m file.py \x1b[m\x1b[12;20H\x1b[?25h"
    return b"\x1b[?1049h\x1b[H\x1b[2J" + page * (SIZE // len(page))


def from_memory(engine: Callable[[int, int], object], data: bytes) -> float:
    chunks = [data[i : i + READ] for i in range(0, len(data), READ)]
    feed = engine(24, 80).feed  # type: ignore[attr-defined]
    start = time.perf_counter()
    for chunk in chunks:
        feed(chunk)
    return len(data) / (time.perf_counter() - start) / 1e6


def from_terminal(engine: Callable[[int, int], object], data: bytes) -> float:
    master, slave = pty.openpty()
    tty.setraw(slave)
    # cat in a process of its own: a thread here would take turns with the reader.
    source, sink = os.pipe()
    program = subprocess.Popen(["cat"], stdin=source, stdout=slave)
    os.close(source)
    os.close(slave)

    def write() -> None:
        with open(sink, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    feed = engine(24, 80).feed  # type: ignore[attr-defined]
    writer.start()
    start = time.thread_time()
    left = len(data)
    while left:
        chunk = os.read(master, 65536)
        feed(chunk)
        left -= len(chunk)
    elapsed = time.thread_time() - start
    writer.join()
    program.wait()
    os.close(master)
    return len(data) / elapsed / 1e6


def main() -> None:
    engines = {"bare ring": BareRing, "ring": RingTerminal, "ghostty": GhosttyTerminal}
    for title, measure in (("from memory", from_memory), ("from a terminal", from_terminal)):
        print(f"{title + ', MB/s':28}" + "".join(f"{name:>18}" for name in engines))
        for source in (text, ls, vim):
            data = source()
            rates: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(ROUNDS):  # in turns, so that a busy machine slows all alike
                for name, engine in engines.items():
                    rates[name].append(measure(engine, data))
            bare = statistics.median(rates["bare ring"])
            row = ""
            for name in engines:
                median = statistics.median(rates[name])
                row += f"{median:>10.0f} ({median / bare:4.0%})"
            print(f"  {source.__name__:26}{row}")


if __name__ == "__main__":
    main()
