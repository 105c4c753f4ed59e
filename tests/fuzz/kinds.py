"""Each kind of case, run with all that it needs, and what has to hold afterwards."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Sequence

from helpers import eventually
from watched import Stock, WatchedServer, resident, watched_server

from fuzz import clients, dialogues, frames, heads, messages
from fuzz.campaign import Check, run_cases

__all__ = ["KINDS", "run_kind"]

#: Each kind, with how many of a hundred cases are of it.
KINDS = {"messages": 20, "frames": 27, "heads": 26, "dialogues": 10, "clients": 17}

_AGAINST_SERVER: dict[str, Callable[[WatchedServer], Check]] = {
    "frames": frames.check,
    "heads": heads.check,
    "dialogues": dialogues.check,
}

# Between two looks at what the server holds.
_BATCH = 2000

# How much more memory a process may hold after the last case than after the first quarter of
# them, in bytes. The allocator takes that much in its moods; a kilobyte that every case left
# behind would be several times as much in a long run.
_SERVER_MAY_GROW = 8 << 20

# The same of a client, in bytes and blocks that are in use, which are exact.
_CLIENT_MAY_GROW = 1 << 20
_CLIENT_MAY_GROW_BLOCKS = 1000


def run_kind(kind: str, seed: int, numbers: Sequence[int]) -> int:
    """Run cases of a kind; return how many there were.

    Raises:
        AssertionError: Something was found.
    """
    if kind == "messages":
        return messages.run(len(numbers), seed)
    if kind == "clients":
        return _run_clients(seed, numbers)
    return _run_against_server(kind, seed, numbers)


def _quarter(numbers: Sequence[int]) -> int:
    return max(1, len(numbers) // 4)


def _run_against_server(kind: str, seed: int, numbers: Sequence[int]) -> int:
    done = 0
    # Sessions that are left have to go while somebody waits for it.
    with watched_server("--session-timeout", "1") as server:
        check = _AGAINST_SERVER[kind](server)
        idle = server.stock()

        def run(batch: Sequence[int]) -> None:
            nonlocal done
            done += run_cases(kind, seed, batch, check, on_hang=server.dump_stacks)
            server.probe()
            server.settled(idle)

        first = _quarter(numbers)
        run(numbers[:first])
        before = resident(server.pid)
        for start in range(first, len(numbers), _BATCH):
            run(numbers[start : start + _BATCH])
        grown = resident(server.pid) - before
        assert grown < _SERVER_MAY_GROW, f"the server's memory has grown by {grown} bytes"
    return done


def _run_clients(seed: int, numbers: Sequence[int]) -> int:
    idle = Stock.of(os.getpid())
    first = _quarter(numbers)
    done = run_cases("clients", seed, numbers[:first], clients.check)
    before = _in_use()
    done += run_cases("clients", seed, numbers[first:], clients.check)
    eventually(
        lambda: Stock.of(os.getpid()) == idle,
        f"the client to hold {idle} again",
    )
    for grown, limit, what in zip(
        (now - then for now, then in zip(_in_use(), before, strict=True)),
        (_CLIENT_MAY_GROW, _CLIENT_MAY_GROW_BLOCKS),
        ("bytes", "blocks"),
        strict=True,
    ):
        assert grown < limit, f"{grown} more {what} of memory are in use"
    return done


class _Mallinfo2(ctypes.Structure):
    """See mallinfo2(3), of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _in_use() -> tuple[int, int]:
    """Memory of this process that is in use: bytes from malloc, and blocks of Python's own.

    What is resident says less here: the many threads that come and go are given one arena of
    glibc's after the other, and each keeps what it once had.
    """
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return info.uordblks + info.hblkhd, sys.getallocatedblocks()
