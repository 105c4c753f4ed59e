"""How long others wait while a session is flooded with output that is made to hurt.

    python tests/benchmarks/floods.py [FLOOD …]

A program floods its terminal, and two clients come and go, each of whom is redrawn. Meanwhile the
list of sessions, the health check and an unrelated command are asked for, one after the other.
Prints the median and the longest of each in milliseconds, beside those of a server at rest. 100 ms
are what is wanted.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from programs import server_process
from session_floods import FLOODS, echo, flooded, request

SECONDS = 8.0


def times(asked: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Ask in turns for some seconds; return what each took, in milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in asked}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for name, ask in asked.items():
            started = time.perf_counter()
            ask()
            taken[name].append(1e3 * (time.perf_counter() - started))
    return taken


def main() -> None:
    names = sys.argv[1:] or ["", *FLOODS]
    print(f"{'':22}{'list':>18}{'health':>18}{'echo':>18}{'DELETE':>10}{'redraws/s':>11}")
    for name in names:
        with server_process() as (url, _), contextlib.ExitStack() as stack:
            if name:
                visitors = stack.enter_context(flooded(url, "flood", FLOODS[name]))
                visitors.come(1)
                began, redrawn = time.monotonic(), visitors.redrawn
            asked: dict[str, Callable[[], object]] = {
                "list": lambda url=url: request(url, "GET", "/sessions"),  # type: ignore[misc]
                "health": lambda url=url: request(url, "GET", "/healthz"),  # type: ignore[misc]
                "echo": lambda url=url: echo(url, "x"),  # type: ignore[misc]
            }
            taken = times(asked)
            line = f"{name or 'nothing':22}"
            for column in taken.values():
                line += f"{statistics.median(column):9.1f}/{max(column):8.1f}"
            if name:
                rate = (visitors.redrawn - redrawn) / (time.monotonic() - began)
                visitors.stop()
                started = time.perf_counter()
                request(url, "DELETE", "/sessions/flood")
                line += f"{1e3 * (time.perf_counter() - started):10.1f}{rate:11.1f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
