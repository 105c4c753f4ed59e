"""The size of a terminal that several clients share: :class:`SharedSize`.

It is the latest that anybody has asked for who is still there. The command is told it without the
lock, for it may be on a server further on.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..process import Process
from ..terminals import Recording

if TYPE_CHECKING:
    from .client import Client

__all__ = ["SharedSize"]

# How long a terminal stays one row smaller to make a program paint its screen again, in seconds.
# With no pause between, none of the full-screen programs that were tried noticed.
_REPAINT_PAUSE = 0.05


class SharedSize:
    """What size a session's terminal has, and what its command was told of it.

    Args:
        lock: The session's, which guards all of this.

    Attributes:
        current: In rows and columns; replaced as a whole.
        repaint_ends_at: When the command is told its right size again, in ``time.monotonic()``,
            while it was told one row less; or else ``None``.
    """

    def __init__(self, lock: threading.Lock, rows: int, cols: int) -> None:
        self._lock = lock
        # Both while the command runs, and no longer: they hold descriptors and memory.
        self._process: Process | None = None
        self._recording: Recording | None = None
        self.current = rows, cols
        # What each client has asked for, the latest last; not those who do not know their size.
        self._asked: dict[Client, tuple[int, int]] = {}
        self._told = (0, 0)  # what the command was told last
        self._telling = False  # a thread is at it
        self.repaint_ends_at: float | None = None

    def begin(self, process: Process, recording: Recording, rows: int, cols: int) -> None:
        """The command has been started, with this size; requires holding the lock."""
        assert self._lock.locked()
        self._process, self._recording = process, recording
        self.current = self._told = rows, cols

    def end(self) -> None:
        """The command has ended; requires holding the lock."""
        assert self._lock.locked()
        self._process = self._recording = None

    def set(self, rows: int, cols: int) -> bool:
        """Set the size, and return whether it is another; requires holding the lock.

        The command is yet to be told. 0 by 0 leaves the size.
        """
        assert self._lock.locked()
        if (rows, cols) in ((0, 0), self.current) or self._recording is None:
            return False
        self.current = rows, cols
        self._recording.resize(rows, cols)
        return True

    def set_for(self, client: Client, rows: int, cols: int) -> bool:
        """Set the size that a client asks for; as :meth:`set` in all else."""
        assert self._lock.locked()
        if client.attached:
            self.note(client, rows, cols)
        return self.set(rows, cols)

    def note(self, client: Client, rows: int, cols: int) -> None:
        """Remember what a client has asked for; requires holding the lock."""
        assert self._lock.locked()
        if rows or cols:
            self._asked.pop(client, None)
            self._asked[client] = rows, cols

    def drop(self, client: Client) -> None:
        """Go back to the latest size of those who stay; requires holding the lock."""
        assert self._lock.locked()
        latest = next(reversed(self._asked), None) is client
        self._asked.pop(client, None)
        if latest and self._asked:
            self.set(*self._asked[next(reversed(self._asked))])

    def tell(self) -> None:
        """Tell the command its size, if it has changed.

        A server further on may be slow to take it. So one thread tells, until the last size is
        told; whoever comes with another meanwhile leaves it to that thread, and goes on.
        """
        with self._lock:
            if self._telling:
                return
            self._telling = True
        try:
            while process := self._to_be_told():
                process.resize(*self._told)
        except BaseException:
            with self._lock:
                self._telling = False
                self._told = (0, 0)  # it may not have been, and is told again
            raise

    def _to_be_told(self) -> Process | None:
        """Return the command, if it is to be told ``_told``; else say that nobody tells it."""
        with self._lock:
            rows, cols = self.current
            size = max(1, rows - (self.repaint_ends_at is not None)), cols
            if self._process is None or size == self._told:
                self._telling = False
                return None
            self._told = size
            return self._process

    def repaint(self) -> None:
        """Make a full-screen program paint its screen anew, by a size that is not quite right.

        Blocks for nothing but telling it: :meth:`end_repaint` tells the right one, when it is time
        (:attr:`repaint_ends_at`).
        """
        with self._lock:
            if self.repaint_ends_at is not None:
                return  # it is about to, and all that it paints comes after now
            self.repaint_ends_at = time.monotonic() + _REPAINT_PAUSE
        self.tell()

    def end_repaint(self) -> None:
        with self._lock:
            self.repaint_ends_at = None
        # Whatever the size is by now: another client may have changed it meanwhile.
        self.tell()
