"""The program that draws for a server: it is sent recordings, and answers with redraws.

It is a process of its own because the emulator that it uses may abort, hang, or take up memory, and
must not do so where everybody's commands are. It keeps nothing from one request to the next, so it
may be ended at any moment; it ends by itself when its input does.

A request is a head of two numbers, then that many bytes of each: the steps, as JSON, and the output
that they are about. A step is ``[rows, columns, count]``: give the terminal that size, then feed it
the next ``count`` bytes. The answer is the redraw, after its length; nothing, if there is none. An
empty answer is also the first thing that is sent, when everything is ready; if it cannot be, what
is wrong stands in its place, and the helper ends.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ghostty import Emulator

__all__ = ["ANSWER", "REQUEST", "main"]

REQUEST = struct.Struct(">II")
ANSWER = struct.Struct(">I")

# More memory than this is never given to the emulator, in bytes: a full recording takes a
# twentieth.
_MEMORY = 512 * 1024 * 1024
# Nor more time of the processor for one request, in seconds. Who asks has long ceased to wait.
_SECONDS = 2


def main(sock: socket.socket) -> None:
    """Serve whoever has the other end, until it is closed."""
    with sock, sock.makefile("rb") as requests:
        try:
            from . import ghostty

            _try_out(ghostty.Emulator)
        except Exception as error:
            text = f"pyghostty: {type(error).__name__}: {error}".encode()
            sock.sendall(ANSWER.pack(len(text)) + text)
            return
        _limit_memory()
        sock.sendall(ANSWER.pack(0))
        while head := requests.read(REQUEST.size):
            steps_size, data_size = REQUEST.unpack(head)
            steps = json.loads(requests.read(steps_size))
            data = requests.read(data_size)
            _limit_time()
            try:
                redraw = draw(ghostty.Emulator, steps, data)
            except Exception:
                redraw = b""
            sock.sendall(ANSWER.pack(len(redraw)) + redraw)


def draw(emulator: type[Emulator], steps: list[tuple[int, int, int]], data: bytes) -> bytes:
    """Return what a terminal shows after output that came at various sizes."""
    rows, columns, _ = steps[0]
    start = 0
    with contextlib.closing(emulator(rows, columns)) as terminal:
        for new_rows, new_columns, count in steps:
            if (new_rows, new_columns) != (rows, columns):
                rows, columns = new_rows, new_columns
                terminal.resize(rows, columns)
            terminal.feed(data[start : start + count])
            start += count
        redraw: bytes = terminal.redraw()
    return redraw


def _try_out(emulator: type[Emulator]) -> None:
    """Raise what is wrong with pyghostty, if anything that is used of it is."""
    before = (
        b"one\r\n\x1b[1;31mtwo\x1b7\x1b[m\r\n\x1b[?2004;1006h\x1b]2;title\x07"
        b"\x1b[2;3r\x1b[3;20Hx\xe2\x94"
    )
    after = b"\x1b[?7l\x1b[?1049hleft over\x1b]0;unfinished"
    redraw = draw(emulator, [(4, 20, len(before))], before)
    twice = draw(emulator, [(4, 20, len(after + redraw))], after + redraw)
    if twice != redraw or b"title" not in redraw or b"two" not in redraw:
        raise RuntimeError("it draws otherwise than expected")


def _limit_memory() -> None:
    # What has been asked for already counts, most of which is never used.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:  # elsewhere there is no telling
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, now + _MEMORY))


def _limit_time() -> None:
    """Have the kernel end this process if the next request takes too long."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + _SECONDS
        resource.setrlimit(
            resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1])
        )
