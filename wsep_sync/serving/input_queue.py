"""Input on its way to a command that does not read: :class:`InputQueue`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ..errors import (
    TransportClosed,
)
from ..process import Process
from ..protocol.messages import (
    MAX_MESSAGE,
    StdinTaken,
)
from ..streams.bounded_pipe import TELL_EVERY
from ..transports.base import Buffer, Transport

if TYPE_CHECKING:
    pass

__all__ = [
    "Input",
    "InputQueue",
]


# How much input may wait for a command that does not read it. Clients that are told how much of it
# has been taken never send more than this beyond that.
_STDIN_LIMIT = 1 << 20


Input: TypeAlias = "bytes | bytearray | memoryview | None"


# Bytes; shorter input than this is put together.
_SMALL = 4096


class InputQueue:
    """Input on its way to a command: what the command does not take at once waits here, bounded.

    Args:
        process: Gets it.
        transport: How much the command has been given is told over it.

    Attributes:
        ended: The client has sent the end of it.
        tell: Whether the client is to be told, by :meth:`write_all`: the thread that receives must
            not wait for a client that does not read.
    """

    def __init__(self, process: Process, transport: Transport) -> None:
        self._file = process.stdin
        self._write_now: Callable[[Buffer], int] | None = getattr(self._file.raw, "write_now", None)
        self._transport = transport
        self.tell = False
        # Guards everything below.
        self._changed = threading.Condition()
        self._items: deque[Input | StdinTaken] = deque()
        self._size = 0  # of what has not been written
        self._taken = self._told = 0  # bytes since the beginning; and when that was told last
        self.ended = False  # the end is among the items, or was
        self._broken = False  # the command has closed its input: what still comes is dropped
        self._told_broken = False
        self._closed = False

    def put(self, item: Input) -> bool:
        """Write input, or append it, or ``None`` for the end.

        Returns:
            False if there was no room for 0.5 s.
        """
        with self._changed:
            if item is None:
                if self.ended:
                    return True
                self.ended = True
                self._items.append(None)
            else:
                rest = self._without_written(item)
                size = len(rest)
                self._count(len(item) - size)
                if not size:
                    return True
                while self._size + size > _STDIN_LIMIT + MAX_MESSAGE and not self._closed:
                    if not self._changed.wait(0.5):
                        return False
                self._size += size
                last = self._items[-1] if self._items else None
                if size >= _SMALL:
                    self._items.append(rest)
                elif isinstance(last, bytearray) and len(last) < _SMALL:
                    last += rest  # an item for every byte that is typed would cost hundreds
                else:
                    self._items.append(bytearray(rest))
            self._changed.notify_all()
        return True

    def _count(self, taken: int) -> None:
        """Count what is written, or dropped; have it told from time to time.

        Requires holding the lock.
        """
        self._taken += taken
        if self.tell and (
            self._taken - self._told >= TELL_EVERY or self._broken > self._told_broken
        ):
            self._told, self._told_broken = self._taken, self._broken
            self._items.append(StdinTaken(self._taken, self._broken))
            self._changed.notify_all()

    @property
    def waits(self) -> bool:
        """Whether there is something for :meth:`write_all` to do."""
        return bool(self._items)

    def _without_written(self, data: Buffer) -> Buffer:
        """Write what the command takes at once; return the rest. Requires holding the lock."""
        if self._broken:
            return b""
        if self._write_now is None or self._size or self.ended:
            return data
        try:
            return memoryview(data)[self._write_now(data) :]
        except (OSError, ValueError):
            self._broken = True
            return b""

    def drain(self, timeout: float) -> None:
        """Block until all is written, for ``timeout`` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._items and not self._size, timeout)

    def close(self) -> None:
        """Let the thread end; the process must have been closed, lest it be stuck in writing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def write_all(self) -> None:
        """Write what is put in, until the queue is closed."""
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                item = self._items.popleft()
            size = 0
            try:
                if item is None:
                    if not self._broken:
                        self._file.close()
                elif isinstance(item, StdinTaken):
                    self._transport.send(item.encode())
                else:
                    size = len(item)
                    if not self._broken:
                        self._file.raw.write(item)
            except TransportClosed:
                pass  # for the thread that receives to see; what has come is still to be written
            except (OSError, ValueError):
                self._broken = True
            with self._changed:
                if item is None:
                    self._broken = self._told_broken = True
                self._size -= size
                self._count(size)
                self._changed.notify_all()
