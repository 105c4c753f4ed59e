"""The signals that this command acts on: :class:`Signals`."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from ..streams.wakeup import READ, Wakeup, wait_for
from ..threads import start_thread

__all__ = ["Ended", "Signals"]

_Result = TypeVar("_Result")

# What asks this command to end; Windows has not all of them.
_ENDING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]


class Ended(BaseException):
    """A signal has asked this command to end; a BaseException, as KeyboardInterrupt is one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Signals:
    """The signals that this command acts on, and how the main thread waits for other threads.

    All that takes its time is done by other threads, while the main thread waits here: only here
    does a signal raise :exc:`Ended`, and only one. What was begun is then undone, which takes
    some seconds at most; cut short, it would leave commands behind, or a terminal in raw mode.

    Handlers that raise were tried and rejected. They may do so at any point, and a signal that
    comes just before a thread blocks for a lock is not noticed until the thread has got it. What
    Python writes to the wakeup descriptor ends poll(2) in any case.

    Attributes:
        handlers: What a signal does instead of ending this command, by its number.
    """

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[], None]] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Signals:
        with contextlib.ExitStack() as cleanup:
            self._reader, writer = socket.socketpair()
            for end in (self._reader, writer):
                cleanup.enter_context(end)
                end.setblocking(False)
            former = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            cleanup.callback(signal.set_wakeup_fd, former)
            _await_children(cleanup)
            for number in _ENDING:
                _catch(number, cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def handle(self, number: int, handler: Callable[[], None]) -> None:
        """Let a signal call ``handler``, in :meth:`wait`. For the main thread."""
        self.handlers[number] = handler
        _catch(number, self._cleanup)

    def ignore_alone(self) -> None:
        """Ignore what is ignored from the start, but let no command inherit that.

        Nohup, and a shell that starts a server with ``&``, mean the server. Its commands are
        those of clients, whose signals have to reach them: what is handled is at its default
        again in a program that is executed (POSIX, execve), what is ignored stays ignored. For the
        main thread.
        """
        for number in _ENDING:
            if signal.getsignal(number) == signal.SIG_IGN:
                self.handlers[number] = lambda: None
                former = signal.signal(number, _do_nothing)
                self._cleanup.callback(signal.signal, number, former)

    def stop(self) -> None:
        """Stop this process as SIGTSTP does, until it is continued. For the main thread."""
        former = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # To this very thread, so that it has been acted on when the call is over.
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, former)

    def wait(self, done: Wakeup) -> None:
        """Block until ``done`` is set; raise :exc:`Ended` at a signal. For the main thread."""
        while wait_for(self._reader.fileno(), READ, done):
            for number in self._reader.recv(4096):
                handler = self.handlers.get(number)
                if handler is None:
                    raise Ended(number)
                handler()

    def wait_for_call(self, call: Callable[[], _Result]) -> _Result:
        """Do a call in another thread; return or raise what it does, or :exc:`Ended`."""
        done = Wakeup()
        results: list[_Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(call())
            except BaseException as error:
                errors.append(error)
            done.set()

        def died(error: Exception) -> None:
            errors.append(error)
            done.set()

        # A daemon: when a signal ends this command, it may be connecting to a server that does
        # not answer, or writing to somebody who does not read.
        start_thread(run, name="wsep-work", died=died)
        self.wait(done)
        if errors:
            raise errors.pop()  # and keep it in no name, for its traceback refers to this frame
        return results[0]


def _catch(number: int, cleanup: contextlib.ExitStack) -> None:
    """Let a signal do no more than end waiting. One that is ignored, as nohup does it, stays so."""
    if signal.getsignal(number) != signal.SIG_IGN:
        cleanup.callback(signal.signal, number, signal.signal(number, _do_nothing))


def _await_children(cleanup: contextlib.ExitStack) -> None:
    """Let this process learn how its children end, and let them learn it of theirs.

    Where SIGCHLD is ignored, as some programs leave it to what they start, the kernel forgets a
    child's status when it ends (POSIX, exec and wait); and the commands would inherit that.
    """
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    if number is not None and signal.getsignal(number) == signal.SIG_IGN:
        cleanup.callback(signal.signal, number, signal.signal(number, signal.SIG_DFL))


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass
