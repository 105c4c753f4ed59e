"""Each kind of case, run with all that it needs, and what has to hold afterwards."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence

from helpers import eventually
from watched import Stock, WatchedServer, watched_server

from fuzz import clients, dialogue, dialogues, frames, heads, messages, terminals
from fuzz.campaign import Check, run_cases, say

__all__ = ["KINDS", "run_kind"]

#: Each kind, with how many of a hundred cases are of it. Schedules of `dialogue` come besides: they
#: take so little time that there are a million of them in a run.
KINDS = {
    "messages": 20,
    "dialogue": 667,
    "frames": 27,
    "heads": 26,
    "dialogues": 10,
    "clients": 15,
    "terminals": 2,
}

_AGAINST_SERVER: dict[str, Callable[[WatchedServer], Check]] = {
    "frames": frames.check,
    "heads": heads.check,
    "dialogues": dialogues.check,
}

# Between two looks at what the server holds.
_BATCH = 2000

# How much more memory the server may hold after the last case than after the first half of them,
# in bytes: a hundred for each of 20,000 cases. It comes and goes by a quarter of that.
_SERVER_MAY_GROW = 2 << 20

# The same of a client: bytes from malloc and blocks of Python's own that are in use, which are
# exact.
_CLIENT_MAY_GROW = 1 << 20
_CLIENT_MAY_GROW_BLOCKS = 1000


def run_kind(kind: str, seed: int, numbers: Sequence[int]) -> int:
    """Run cases of a kind; return how many there were.

    Raises:
        AssertionError: Something was found.
    """
    if kind == "messages":
        return messages.run(len(numbers), seed)
    if kind == "dialogue":
        return dialogue.run(seed, numbers)
    if kind == "terminals":
        return terminals.run(seed, numbers)
    if kind == "clients":
        return _run_clients(seed, numbers)
    return _run_against_server(kind, seed, numbers)


def _half(numbers: Sequence[int]) -> int:
    return max(1, len(numbers) // 2)


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

        first = _half(numbers)
        run(numbers[:first])
        before = server.resident()
        for start in range(first, len(numbers), _BATCH):
            run(numbers[start : start + _BATCH])
        after = server.resident()
        say(f"{kind}: the server's resident bytes: {before} after half, {after} at the end")
        assert after - before < _SERVER_MAY_GROW, "the server's memory has grown"
    return done


def _run_clients(seed: int, numbers: Sequence[int]) -> int:
    idle = Stock.of(os.getpid())
    first = _half(numbers)
    done = run_cases("clients", seed, numbers[:first], clients.check)
    before = _in_use()
    done += run_cases("clients", seed, numbers[first:], clients.check)
    eventually(
        lambda: Stock.of(os.getpid()) == idle,
        f"the client to hold {idle} again",
    )
    after = _in_use()
    say(f"clients: bytes and blocks in use: {before} after half of the cases, {after} at the end")
    assert after[0] - before[0] < _CLIENT_MAY_GROW, "more bytes are in use"
    assert after[1] - before[1] < _CLIENT_MAY_GROW_BLOCKS, "more blocks are in use"
    return done


def _in_use() -> tuple[int, int]:
    """Memory of this process that is in use: bytes from malloc, and blocks of Python's own.

    What is resident says less here: the many threads that come and go are given one arena of
    glibc's after the other, and each keeps what it once had.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    with tempfile.TemporaryFile() as file:
        stream = ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w"))
        assert libc.malloc_info(0, stream) == 0
        libc.fclose(stream)
        # Of all arenas, which are not of interest each.
        totals = os.pread(file.fileno(), 1 << 20, 0).decode().rpartition("</heap>")[2]
    sizes = dict(re.findall(r'type="(\w+)".* size="(\d+)"', totals))
    free = int(sizes["fast"]) + int(sizes["rest"])
    return int(sizes["current"]) + int(sizes["mmap"]) - free, sys.getallocatedblocks()
