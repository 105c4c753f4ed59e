"""Waiting for a descriptor in a way that another thread can end.

Closing a descriptor on which another thread blocks does not wake that thread, and lets the number
become another file's under its hands. So nobody here blocks in ``read`` or ``recv``: descriptors
are non-blocking, and what would block polls a :class:`Wakeup` too.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import sys
import threading
import time
from typing import Protocol

__all__ = [
    "READ",
    "WRITE",
    "Pollable",
    "Wakeup",
    "a_while",
    "check_timeout",
    "wait_for",
]

#: What :func:`wait_for` waits for; poll(2)'s POLLIN and POLLOUT, which Windows has not.
READ = 0x1
WRITE = 0x4

# Seconds until a signal is acted on that came at the worst moment.
_SIGNALS_WAIT = 1.0


class Wakeup:
    """A descriptor that is readable while it is set: it wakes the threads that poll it.

    Safe to use from several threads. Closed when nobody refers to it any more, so that nobody can
    be polling a number that has become another file's.
    """

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, ...] = ()
        if sys.platform == "linux":
            self._read = self._write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:  # pragma: no cover - not Linux
            # Sockets rather than a pipe, because Windows can select nothing else.
            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)
            self._read, self._write = (end.fileno() for end in self._sockets)

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        """Wake every thread that polls the descriptor, now and until :meth:`clear`."""
        with contextlib.suppress(BlockingIOError):  # it is set so often that it is full
            if self._sockets:  # pragma: no cover - not Linux
                self._sockets[1].send(b"\1")
            else:
                os.write(self._write, (1).to_bytes(8, sys.byteorder))

    def is_set(self) -> bool:
        return wait_for(self._read, READ, None, 0)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if self._sockets:  # pragma: no cover - not Linux
                self._sockets[0].recv(4096)
            else:
                os.read(self._read, 8)

    def __del__(self) -> None:
        if getattr(self, "_sockets", ()):  # pragma: no cover - not Linux
            for end in self._sockets:
                end.close()
        elif hasattr(self, "_read"):
            os.close(self._read)


def check_timeout(timeout: float) -> None:
    """Raise what is wrong with seconds that something may take, before there is anything to undo.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0, or longer than the system can wait.
    """
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout}")


def a_while(timeout: float | None = None) -> float | None:
    """For how many of these seconds to block before looking again: in the main thread, not long.

    Python acts on signals there. One that comes when it is just about to block, in poll(2) or for
    a lock, has to wait until that is over: a Ctrl-C might be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        return timeout
    return _SIGNALS_WAIT if timeout is None else min(timeout, _SIGNALS_WAIT)


class Pollable(Protocol):
    """What is readable when something has happened."""

    def fileno(self) -> int: ...


def wait_for(
    descriptor: int,
    event: int,
    wakeup: Wakeup | None,
    timeout: float | None = None,
    end: Pollable | None = None,
) -> bool:
    """Block until the descriptor is ready, or ended; False when woken or after the timeout.

    A descriptor that is at its end counts as ready for reading. One that hung up, as a terminal
    does when its processes have left it, never becomes ready for writing: that is False too.

    Args:
        event: :data:`READ` or :data:`WRITE`.
        timeout: Seconds; ``None`` waits for ever.
        end: Wakes, too. What happened before it did is seen all the same: a descriptor that was
            ready by then is.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        rest = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = _poll(descriptor, event, wakeup, a_while(rest), end)
        if ready and end is not None and descriptor not in ready:
            ready |= _poll(descriptor, event, None, 0)
        if ready:
            events = ready.get(descriptor, 0)
            return bool(events & event) or (event == READ and bool(events))
        if deadline is not None and time.monotonic() >= deadline:
            return False


def _poll(
    descriptor: int,
    event: int,
    wakeup: Wakeup | None,
    timeout: float | None,
    end: Pollable | None = None,
) -> dict[int, int]:
    """Which descriptors are ready, and for what; nothing is after the timeout."""
    if not hasattr(select, "poll"):  # Windows
        reads = [descriptor] if event == READ else []
        writes = [descriptor] if event == WRITE else []
        if wakeup is not None:
            reads.append(wakeup.fileno())
        readable, writable, _ = select.select(reads, writes, [], timeout)
        return dict.fromkeys(readable, READ) | dict.fromkeys(writable, WRITE)
    poll = select.poll()
    poll.register(descriptor, event)
    if wakeup is not None:
        poll.register(wakeup, READ)
    if end is not None:
        poll.register(end, READ)
    # Rounded up, lest a caller spin through the last millisecond.
    return dict(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))
