"""The thread that receives for a remote command: :class:`Receiver`."""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable
from typing import TypeAlias

from ...dropped import Hold
from ...threads import start_thread

__all__ = [
    "Receiver",
]

_Died: TypeAlias = "Callable[[Exception], object]"
_Work: TypeAlias = "tuple[Callable[[], object], _Died]"


class Receiver:
    """A thread that is started while the server is at work, and told later what to receive for.

    As long as it lives, what is dropped of the command's files is seen to: see :mod:`.dropped`. It
    ends with what it is told to do, or when nobody refers to this any more.

    Raises:
        RuntimeError: No more threads can be had.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        hold = Hold()
        died: list[_Died] = []
        try:
            # A daemon, so that a script that forgot a process can end.
            self.thread = start_thread(
                _work_when_told,
                self._work,
                died,
                hold,
                name="wsep-receive",
                died=functools.partial(_die, self._work, died, hold),
            )
        except BaseException:
            hold.release()
            raise

    def begin(self, receive: Callable[[], object], died: _Died) -> None:
        """Let the thread receive, until the exit status or the end of the connection.

        Args:
            receive: Does it.
            died: As of :func:`.start_thread`.
        """
        self._work.put((receive, died))

    def cancel(self) -> None:
        """Let the thread end, unless it has begun to receive."""
        self._work.put(None)

    def __del__(self) -> None:
        if self.__dict__:  # or else the handler of a signal has raised before there was anything
            self._work.put(None)


def _work_when_told(work: queue.SimpleQueue[_Work | None], died: list[_Died], hold: Hold) -> None:
    try:
        wanted = work.get()
        if wanted is not None:
            died.append(wanted[1])
            wanted[0]()
    finally:
        hold.release()


def _die(
    work: queue.SimpleQueue[_Work | None], died: list[_Died], hold: Hold, error: Exception
) -> None:
    hold.release()
    if not died:
        wanted = work.get()  # whoever is to learn of it comes with the work
        if wanted is not None:
            died.append(wanted[1])
    for call in died:
        call(error)
