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
        self._lock = threading.Lock()  # guards how many hold it, and changes of running
        self._holders = 0
        self.running = False
        # The one queue of the standard library's that a finalizer may put something into. None is
        # for a holder that has let go.
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()

    def hold(self) -> None:
        with self._lock:
            if not self.running:
                # A daemon, as those whose work it is.
                start_thread(self._work, name="wsep-dropped", died=self._died)
                self.running = True
            self._holders += 1

    def _work(self) -> None:
        while True:
            call = self.calls.get()
            if call is None:
                with self._lock:
                    self._holders -= 1
                    if self._holders:
                        continue
                    self.running = False
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
            self.running = False  # who comes next has another


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
        self._calls: queue.SimpleQueue[_Call | None] | None = None
        _worker.hold()
        self._calls = _worker.calls

    def release(self) -> None:
        """Let the thread end. Harmless to call again, and in a finalizer."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.put(None)


def later(call: _Call) -> None:
    """Have something called in another thread, some time soon; for finalizers.

    Starts nothing, waits for nothing and takes no lock. At the end of the interpreter, and in a
    forked child, nothing is called any more: there, the kernel closes what is open.
    """
    if _worker.running:  # else nobody holds it, and what is dropped has ended in another way
        _worker.calls.put(call)


def _forget_in_child() -> None:
    # The thread is the parent's, and so is what was dropped. The locks may be held by others.
    global _worker
    _worker = _Worker()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_in_child)
