"""What terminal sessions cost a server: to start, to hold, and with a client that is stalled.

    python tests/benchmarks/sessions.py

Starting is timed as the median of many: the session alone, in this process, and over a WebSocket
from connecting to the pid. Memory is what a server process has more (Pss) for each of 300 sessions
that nobody is attached to. Then a program floods a client, in turns with and without another
client that reads nothing: the program's speed is by its own clock, the client's is from its key to
the last byte. Of these it is the best of several rounds: what else runs can only slow them down.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from held_sessions import ANSWERING, ENGINES, ask, memory, server_process
from helpers import RawClient
from session_clients import Client, attach_message
from session_clients import session as session_command

from wsep_sync import LocalExecer, connect
from wsep_sync.jobs import client as client_module
from wsep_sync.jobs.session import Session

STARTS = 100
HELD = 300
ROUNDS = 7
LINES = 1_000_000
FLOOD = (
    "stty -opost; echo ready; while read line; do start=$(date +%s%N);"
    f" seq {LINES}; echo took $(($(date +%s%N) - start)) ns; done"
)
BYTES = sum(len(str(i)) + 1 for i in range(1, LINES + 1))


def start_alone() -> float:
    session = Session(session_command("x", *ANSWERING), LocalExecer())
    started = time.perf_counter()
    client = session.attach()
    elapsed = time.perf_counter() - started
    session.close()
    client.close()
    return elapsed


def start_over_websocket(url: str, id: str) -> float:
    started = time.perf_counter()
    with connect(url) as execer:
        process = execer.start(session_command(id, *ANSWERING))
    elapsed = time.perf_counter() - started
    process.close()
    return elapsed


def flood(client: Client) -> tuple[float, float]:
    """Return how fast the program was, and how fast its client, in MB/s."""
    size = client.size
    started = time.perf_counter()
    client.type(b"\r")
    got = client.until(b" ns\n", size)
    elapsed = time.perf_counter() - started
    took = int(got.rpartition(b"took ")[2].split()[0]) / 1e9
    return BYTES / took / 1e6, BYTES / elapsed / 1e6


def stalled_or_not(url: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the speeds without, and with, a client that has stopped reading."""
    with connect(url) as execer:
        client = Client(execer.start(session_command("flood", "sh", "-c", FLOOD)))
    client.until(b"ready")
    flood(client)
    without = flood(client)
    other = RawClient(url)
    other.send(attach_message("flood"))
    other.receive_until("pid")
    for _ in range(3):
        flood(client)  # until the buffers of its sockets are full
    with_stalled = flood(client)
    client.leave()
    other.reset()
    return without, with_stalled


def main() -> None:
    for engine, redraw in ENGINES.items():
        client_module.redraw = redraw  # type: ignore[attr-defined]
        start_alone()
        alone = statistics.median(start_alone() for _ in range(STARTS))
        with server_process(engine) as (pid, url):
            for i in range(10):
                ask(url, f"warm {i}", "0")
            starts = [start_over_websocket(url, f"start {i}") for i in range(STARTS)]
            before = memory(pid)
            for i in range(HELD):
                ask(url, str(i), "1")
            time.sleep(2)  # until threads that linger have ended
            each = (memory(pid) - before) / HELD
        rounds = []
        for _ in range(ROUNDS):
            with server_process(engine) as (_, url):
                rounds.append(stalled_or_not(url))
        print(f"{engine}:")
        print(
            f"  start: {alone * 1e3:.2f} ms; {statistics.median(starts) * 1e3:.2f} ms by WebSocket"
        )
        print(f"  held: {each / 1024:.1f} KiB")
        for i, who in enumerate(("program", "client")):
            free, held = (
                max(speeds[i] for speeds in column) for column in zip(*rounds, strict=True)
            )
            print(f"  {who}: {free:.1f} MB/s; with a stalled client {held:.1f} ({held / free:.0%})")


if __name__ == "__main__":
    main()
