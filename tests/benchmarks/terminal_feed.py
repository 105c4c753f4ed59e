"""How fast a recording is fed, beside a bare ring (chunks, dropped past a bound).

    python tests/benchmarks/terminal_feed.py

The recording reads a pseudo-terminal, as a session does, and is fed what it read; before each time
the bare ring reads the same, so that a busy machine slows both alike. What is told is how much of
the bare ring's throughput is left, by the clock and by the CPU time of the thread that reads: the
median over all rounds, and in brackets the quartiles. By the clock feeding overlaps with the work
of the program that prints and of the kernel. CPU time has no part of theirs, but is the higher the
more of it there is to share caches with, so that it exaggerates what feeding costs.

The last table feeds from memory. There a bare ring, which never looks at a byte, has no bound but
the interpreter, so that the figures are for comparing the recording with itself.

The exit status is 1 when a replay does not show the end of what it was fed, or the memory grows
with what it is fed; never because of time.
"""

from __future__ import annotations

import os
import pty
import re
import statistics
import subprocess
import sys
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from wsep_sync.terminals import Recording, replay
from wsep_sync.terminals.recording import NORMAL_LIMIT

ROWS, COLUMNS = 24, 80
READ = 4096  # what a Linux pseudo-terminal gives at once
SIZE = 4 * 1024 * 1024
ROUNDS = 15
FLOOD = 128 * 1024 * 1024
GROWTH = 16 * 1024 * 1024  # what a flood may add to the memory in use, in bytes


class Engine(Protocol):
    def feed(self, data: bytes, /) -> None: ...


class BareRing:
    def __init__(self, rows: int, columns: int) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0

    def feed(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)
        while self.size > NORMAL_LIMIT:
            self.size -= len(self.chunks.popleft())


ENGINES: dict[str, Callable[[int, int], Recording]] = {"recording": Recording}


def text() -> bytes:
    line = b"%06d Is this text, which wraps nowhere and asks nothing, quick to feed? It is.\r\n"
    return b"".join(line % i for i in range(SIZE // 80))


def listing(*options: str) -> bytes:
    command = ["ls", "--color=always", *options, "/usr/bin", "/etc"]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return output.replace(b"\n", b"\r\n") * (SIZE // len(output))


def full_screen() -> bytes:
    page = b"".join(
        b"\x1b[%d;1H\x1b[38;5;%dm%3d \x1b[m\x1b[1mdef\x1b[m name_%d(\x1b[32m'text'\x1b[m):\x1b[K"
        % (row, row + 20, row, row)
        for row in range(1, ROWS)
    )
    page = b"\x1b[?25l" + page + b"\x1b[24;1H\x1b[7m file.py \x1b[m\x1b[12;20H\x1b[?25h"
    return b"\x1b[?1049h\x1b[H\x1b[2J" + page * (SIZE // len(page))


def chunks(data: bytes) -> list[bytes]:
    return [data[i : i + READ] for i in range(0, len(data), READ)]


class Speed(NamedTuple):
    """What feeding took, in MB/s of the data."""

    by_clock: float
    by_cpu: float


def measured(engine: Engine, size: int, source: Iterator[bytes]) -> Speed:
    feed = engine.feed
    clock, cpu = time.perf_counter(), time.thread_time()
    for chunk in source:
        feed(chunk)
    cpu, clock = time.thread_time() - cpu, time.perf_counter() - clock
    return Speed(size / clock / 1e6, size / cpu / 1e6)


def from_memory(engine: Engine, data: bytes) -> Speed:
    return measured(engine, len(data), iter(chunks(data)))


def from_terminal(engine: Engine, data: bytes) -> Speed:
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

    def read() -> Iterator[bytes]:
        left = len(data)
        while left:
            chunk = os.read(master, 65536)
            left -= len(chunk)
            yield chunk

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return measured(engine, len(data), read())
    finally:
        os.close(master)
        writer.join()
        program.wait()


def shows_the_end(terminal: Recording, data: bytes) -> bool:
    """Whether a redraw has the last word of `data`, or the terminal says that it does not know."""
    words = re.sub(rb"\x1b\[[^@-~]*[@-~]", b" ", data).split()
    snapshot = terminal.snapshot()
    return snapshot.lost or words[-1] in replay(snapshot)


def resident() -> int:
    """Return how many bytes of memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:4.0%} ({low:3.0%}-{high:4.0%})"


def main() -> int:
    sources = {
        "text": text(),
        "ls -l --color": listing("-l"),
        "ls -C --color": listing("-C", f"--width={COLUMNS}"),
        "a full screen": full_screen(),
    }
    broken = []
    print(f"{'read from a terminal':22}{'bare ring':>10}" + "".join(f"{e:>40}" for e in ENGINES))
    print(f"{'':22}{'MB/s':>10}" + f"{'by the clock':>22}{'by CPU time':>18}" * len(ENGINES))
    for title, data in sources.items():
        bare: list[Speed] = []
        left: dict[str, list[Speed]] = {name: [] for name in ENGINES}
        for _ in range(ROUNDS):
            for name, make in ENGINES.items():
                bare.append(from_terminal(BareRing(ROWS, COLUMNS), data))
                engine = make(ROWS, COLUMNS)
                speed = from_terminal(engine, data)
                left[name].append(Speed(*(a / b for a, b in zip(speed, bare[-1], strict=True))))
                if not shows_the_end(engine, data):
                    broken.append(f"{name} does not show the end of {title}")
        row = f"{title:22}{statistics.median(s.by_clock for s in bare):10.0f}"
        for name in ENGINES:
            for column in zip(*left[name], strict=True):
                row += f"{spread(list(column)):>20}"
        print(row)
    print(f"\n{'from memory, MB/s':22}{'bare ring':>10}" + "".join(f"{e:>10}" for e in ENGINES))
    for title, data in sources.items():
        rates: dict[str, list[float]] = {"bare ring": [], **{name: [] for name in ENGINES}}
        for _ in range(ROUNDS):
            for name, make in {"bare ring": BareRing, **ENGINES}.items():
                rates[name].append(from_memory(make(ROWS, COLUMNS), data).by_cpu)
        print(f"{title:22}" + "".join(f"{statistics.median(r):10.0f}" for r in rates.values()))
    for name, make in ENGINES.items():
        engine = make(ROWS, COLUMNS)
        for data in sources.values():
            from_memory(engine, data)
        before = resident()
        for i in range(FLOOD // SIZE):
            from_memory(engine, list(sources.values())[i % len(sources)])
        grown = resident() - before
        print(f"\n{name} fed {FLOOD >> 20} MiB: {grown / 2**20:+.1f} MiB of memory", end="")
        if grown > GROWTH:
            broken.append(f"{name} grows with what it is fed")
    print("", *broken, sep="\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
