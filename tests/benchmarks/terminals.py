"""Rows of terminals: how fast their output is, how soon a key is echoed, and what many cost."""

from __future__ import annotations

import contextlib
import errno
import http.client
import importlib.util
import itertools
import json
import os
import pty
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import LINE, REFERENCE, Bench
from harness import LIMIT, OTHER, OURS, Broken, Contender, Figure, Row, Target
from processes import Variant, Worker, hides, relay, server
from transfers import RELAY, stream, stream_from_relay

from wsep_sync import Command, Process, connect

__all__ = ["ROWS"]

BARE = "bare PTY"

# What is done by hand where there is no server: the sizes are the same.
ROWS_COLS = {"rows": 24, "cols": 80}

# Reads nothing, so that no process but the kernel takes part in an echo. The kernel echoes some
# 4,000 keys that nobody reads, and then no more.
ECHOING = ["sh", "-c", "stty raw echo; echo ready; exec sleep 1000"]
MOST_KEYS = 4000

# What waits at a terminal that is only held.
WAITING = ["cat"]


# Jobs: what the processes of workers do.


@contextlib.contextmanager
def bare_terminal(argv: list[str]) -> Iterator[int]:
    """Run a program on a pseudo-terminal; yield the master."""
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        ) as process:
            os.close(slave)
            try:
                yield master
            finally:
                process.kill()
    finally:
        os.close(master)


def read_master(master: int) -> bytes:
    """Read what there is; b"" when every process has left the terminal."""
    try:
        return os.read(master, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def flood_bare_terminal(path: str) -> dict[str, float]:
    """Read what a program prints on a terminal."""
    started = time.perf_counter()
    size = 0
    with bare_terminal(["cat", path]) as master:
        while data := read_master(master):
            size += len(data)
        rate = size / (time.perf_counter() - started) / 1e6
    check(size, path)
    return {"rate": rate}


def check(size: int, path: str) -> None:
    # The terminal puts a carriage return before each newline.
    expected = os.path.getsize(path) // LINE * (LINE + 1)
    if size != expected:
        raise Broken(f"{size} bytes came of {expected}")


_ids = itertools.count()


def flood(url: str, path: str, session: bool) -> dict[str, float]:
    """Receive what a program prints on a terminal.

    A session drops what a client does not take in time, and draws its terminal anew in the end.
    So of a session it is what the program printed, and until when its end was seen.
    """
    lines = os.path.getsize(path) // LINE
    id = f"{os.getpid()} {next(_ids)}" if session else ""
    buffer = memoryview(bytearray(1 << 17))
    size = 0
    tail = b""
    with connect(url) as execer:
        started = time.perf_counter()
        with execer.start(Command("cat", [path], tty=True, id=id, **ROWS_COLS)) as process:
            while count := process.stdout.readinto1(buffer):
                size += count
                tail = tail[-4096:] + buffer[max(0, count - 4096) : count]
            process.wait()
            elapsed = time.perf_counter() - started
    if session:
        if b"%08d" % lines not in tail:
            raise Broken(f"the last line is missing in {tail[-200:]!r}")
        return {"rate": lines * (LINE + 1) / elapsed / 1e6}
    check(size, path)
    return {"rate": size / elapsed / 1e6}


def type_keys(
    keys: int, write: Callable[[bytes], object], read: Callable[[], bytes]
) -> dict[str, float]:
    """Type keys one after the other, each when the one before it was seen."""
    shown = b""
    while not shown.endswith(b"ready\n"):
        piece = read()
        if not piece:
            raise Broken(f"the terminal ended after {shown!r}")
        shown += piece
    times = []
    for _ in range(keys):
        started = time.perf_counter()
        write(b"x")
        echo = read()
        times.append(time.perf_counter() - started)
        if echo != b"x":
            raise Broken(f"{echo!r} came for a key")
    return {
        "median": statistics.median(times) * 1e6,
        "p99": statistics.quantiles(times, n=100, method="inclusive")[98] * 1e6,
    }


def echo_bare(keys: int) -> dict[str, float]:
    with bare_terminal(ECHOING) as master:
        return type_keys(keys, lambda key: os.write(master, key), lambda: read_master(master))


def echo(url: str, keys: int) -> dict[str, float]:
    command = Command(ECHOING[0], ECHOING[1:], tty=True, **ROWS_COLS)
    with connect(url) as execer, execer.start(command) as process:

        def write(key: bytes) -> None:
            process.stdin.write(key)
            process.stdin.flush()

        return type_keys(keys, write, lambda: process.stdout.read1(1 << 16))


def start_bare(count: int) -> dict[str, float]:
    """Start a program on each of many pseudo-terminals, and hold them."""
    times = []
    with ExitStack() as stack:
        for _ in range(count):
            started = time.perf_counter()
            stack.enter_context(bare_terminal(WAITING))
            times.append(time.perf_counter() - started)
    return {"start": statistics.median(times) * 1e3}


def hold(url: str, pid: int, count: int, sessions: bool) -> dict[str, float]:
    """Start a program on each of many terminals and hold them: connected, or as sessions, left.

    Returns:
        What one took to start, and what the server has more for each of them.
    """

    def start(id: str) -> Process:
        command = Command(WAITING[0], WAITING[1:], tty=True, id=id, **ROWS_COLS)
        with connect(url) as execer:
            return execer.start(command)

    # The first ones make what all share.
    warm = [f"warm-{i}" if sessions else "" for i in range(5)]
    for process in [start(id) for id in warm]:
        process.close()
    if sessions:
        end_sessions(url, warm)
    come_to_rest(url, pid, 0)
    before = resident(pid), threads(pid)
    times = []
    ids = [f"held-{i}" if sessions else "" for i in range(count)]
    processes = []
    for id in ids:
        started = time.perf_counter()
        processes.append(start(id))
        times.append(time.perf_counter() - started)
        if sessions:
            processes[-1].close()
    come_to_rest(url, pid, count if sessions else 0)
    after = resident(pid), threads(pid)
    for process in processes:
        process.close()
    if sessions:
        end_sessions(url, ids)
    return {
        "memory": (after[0] - before[0]) / count / 1e3,
        "threads": (after[1] - before[1]) / count,
        "start": statistics.median(times) * 1e3,
    }


def come_to_rest(url: str, pid: int, sessions: int) -> None:
    """Wait until a server has so many sessions, nobody is attached to them, and no thread ends."""
    deadline = time.monotonic() + 20
    before = -1
    while True:
        infos = json.loads(request(url, "GET", "/sessions"))
        now = threads(pid)
        if now == before and len(infos) == sessions and not any(i["clients"] for i in infos):
            return
        if time.monotonic() > deadline:
            raise Broken(f"the server did not come to rest: {infos}")
        before = now
        time.sleep(0.2)


def end_sessions(url: str, ids: list[str]) -> None:
    for id in ids:
        request(url, "DELETE", f"/sessions/{id}")


def request(url: str, method: str, path: str) -> bytes:
    with contextlib.closing(http.client.HTTPConnection(url.removeprefix("ws://"))) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        if answer.status not in (200, 204):
            raise Broken(f"{method} {path}: HTTP {answer.status}")
        return answer.read()


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


# Rows


def set_up_output(bench: Bench, stack: ExitStack) -> list[Contender]:
    path = bench.text()
    contenders = [
        bench.limit(stack, flood_bare_terminal, BARE, path=path),
        *bench.ours(stack, flood, {"rate": Target(0.85)}, path=path, session=False),
    ]
    targets = {"rate": Target(0.7)}
    for variant in engines(bench, "a session"):
        url = stack.enter_context(server(variant)).url
        worker = bench.worker(stack, flood, variant, url=url, path=path, session=True)
        contenders.append(Contender(variant.name, worker.call, targets=targets))
    return contenders


def engines(bench: Bench, what: str) -> list[Variant]:
    """Return each installation with the standard library's engine, and with the other if it is."""
    found = []
    for variant in bench.variants:
        found.append(hides(variant, f"{variant.name}, {what}", "pyghostty"))
        if importlib.util.find_spec("pyghostty"):
            found.append(hides(variant, f"{variant.name}[vt], {what}"))
    return found


def set_up_echo(bench: Bench, stack: ExitStack) -> list[Contender]:
    keys = min(bench.scale.keys, MOST_KEYS)
    targets = {"median": Target(100, "value")}
    return [
        bench.limit(stack, echo_bare, BARE, keys=keys),
        *bench.ours(stack, echo, targets, keys=keys),
    ]


def set_up_busy_echo(bench: Bench, stack: ExitStack) -> list[Contender]:
    keys = min(bench.scale.keys, MOST_KEYS)
    data = bench.data()
    port = stack.enter_context(relay())
    bare = bench.worker(stack, echo_bare, keys=keys)
    flow = partial(bench.worker, job=stream_from_relay, port=port, path=data)
    contenders = [Contender(f"{BARE}, {RELAY}", partial(beside, flow, bare), LIMIT)]
    targets = {"median": Target(400, "value"), "p99": Target(3000, "value")}
    servers = [
        (variant, stack.enter_context(server(variant)).url, OURS) for variant in bench.variants
    ]
    if bench.reference is not None:
        servers.append((Variant(REFERENCE), bench.reference, OTHER))
    for variant, url, role in servers:
        worker = bench.worker(stack, echo, variant, url=url, keys=keys)
        flow = partial(bench.worker, job=stream, variant=variant, url=url, path=data)
        contenders.append(Contender(variant.name, partial(beside, flow, worker), role, targets))
    return contenders


def beside(flow: Callable[[ExitStack], Worker], worker: Worker) -> dict[str, float]:
    """Have a worker do its job while another process's output flows."""
    with ExitStack() as stack:
        flow(stack).call()
        return worker.call()


def set_up_held(bench: Bench, stack: ExitStack) -> list[Contender]:
    count = bench.scale.terminals
    targets = {"memory": Target(100, "value"), "start": Target(5, "value")}
    contenders = [bench.limit(stack, start_bare, BARE, count=count)]
    ways = [(hides(variant, f"{variant.name}, connected"), False) for variant in bench.variants]
    ways += [(variant, True) for variant in engines(bench, "sessions, left")]
    for variant, sessions in ways:
        measure = partial(held, bench, variant, count, sessions)
        contenders.append(Contender(variant.name, measure, targets=targets))
    return contenders


def held(bench: Bench, variant: Variant, count: int, sessions: bool) -> Mapping[str, float]:
    # A server of its own each time: memory that was freed is used again.
    with ExitStack() as stack:
        one = stack.enter_context(server(variant))
        return bench.worker(
            stack, hold, variant, url=one.url, pid=one.pid, count=count, sessions=sessions
        ).call()


KEY = (Figure("median", "µs", "median"), Figure("p99", "µs", "99 of 100 within"))

ROWS = [
    Row(
        "terminal",
        "Terminal output: cat file on a terminal → server → client",
        (Figure("rate", "MB/s", higher_is_better=True),),
        set_up_output,
    ),
    Row("echo", "A key's echo", KEY, set_up_echo),
    Row("busy-echo", "A key's echo, while another client's output flows", KEY, set_up_busy_echo),
    Row(
        "held",
        "Terminals held at once",
        (
            Figure("memory", "KB", "the server's memory for each", compare=""),
            Figure("threads", "", "the server's threads for each", compare=""),
            Figure("start", "ms", "to start one"),
        ),
        set_up_held,
    ),
]
