"""What is still to be done for what was dropped: for files and commands nobody refers to any more.

The garbage collector calls a finalizer wherever it happens to run: in a thread that holds the very
lock that an orderly end needs, or at the end of the interpreter, when no thread can be had. So a
finalizer of this package starts no thread, waits for nothing and takes no lock. It closes
descriptors that are its own, and leaves what else there is to do to a thread that was started
before.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from .threads import start_thread

__all__ = [
    "Hold",
    "later",
]

_Call: TypeAlias = "Callable[[], object]"


class _Worker:
    """The thread that does what finalizers leave. It is there while anybody holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards changes of the two
        self.holders: set[Hold] = set()
        self._running = False
        # The one queue of the standard library's that a finalizer may put something into. A holder
        # is one that has let go.
        self.calls: queue.SimpleQueue[_Call | Hold] = queue.SimpleQueue()

    # The handler of a signal may raise anywhere in here, in the thread of somebody who comes to
    # hold this: so whether there is a thread is said by that, and letting go is harmless for who
    # has not come to hold it.

    def hold(self, holder: Hold) -> None:
        with self._lock:
            self.holders.add(holder)
            if not self._running:
                try:
                    # A daemon, as those whose work it is.
                    start_thread(self._work, name="wsep-dropped", died=self._died)
                except RuntimeError:
                    self.holders.discard(holder)  # or what is dropped would wait for nobody
                    raise

    def _work(self) -> None:
        with self._lock:
            if self._running or not self.holders:
                return
            self._running = True
        while True:
            call = self.calls.get()
            if isinstance(call, Hold):
                with self._lock:
                    self.holders.discard(call)
                    if self.holders:
                        continue
                    self._running = False
                    # What came in between is of nobody who holds this. Nor is it to be kept: it
                    # refers to connections.
                    while not self.calls.empty():
                        self.calls.get()
                    return
            try:
                # In a thread of its own, which ends with it: one may have to wait for its peer.
                start_thread(call, name="wsep-drop", died=_already_logged)
            except RuntimeError:  # no more can be had
                with contextlib.suppress(Exception):
                    call()
            del call  # what it refers to may be the last there is

    def _died(self, _: Exception) -> None:
        with self._lock:
            self._running = False  # who comes next has another


def _already_logged(_: Exception) -> None:
    pass


_worker = _Worker()


class Hold:
    """Sees to it that there is the thread that :func:`later` needs, until it is released.

    To be made before what may be dropped.

    Raises:
        RuntimeError: No more threads can be had.
    """

    def __init__(self) -> None:
        self._worker = _worker
        try:
            _worker.hold(self)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the thread end. Harmless to call again, and in a finalizer."""
        if self in self._worker.holders:
            self._worker.calls.put(self)


def later(call: _Call) -> None:
    """Have something called in another thread, some time soon; for finalizers.

    Starts nothing, waits for nothing and takes no lock. At the end of the interpreter, and in a
    forked child, nothing is called any more: there, the kernel closes what is open.
    """
    if _worker.holders:  # else nobody holds it, and what is dropped has ended in another way
        _worker.calls.put(call)


def _forget_in_child() -> None:
    # The thread is the parent's, and so is what was dropped. The locks may be held by others.
    global _worker
    _worker = _Worker()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_in_child)
