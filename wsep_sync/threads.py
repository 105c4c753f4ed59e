"""How every thread of the package is started: none dies in silence, and none leaves a peer waiting.

A thread that ends by an exception which nobody foresaw would take its part of a conversation with
it, and whoever waits for that part would wait for ever. So each is started here, together with what
is to be told then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from .log import log_bug

__all__ = [
    "start_thread",
]


def start_thread(
    target: Callable[..., object],
    *args: object,
    name: str,
    died: Callable[[Exception], object],
    daemon: bool = True,
) -> threading.Thread:
    """Start a thread and return it.

    Args:
        target: What it does.
        args: What that is called with.
        name: For the log and for debuggers.
        died: Called in the thread, with the exception, if the target raises one: it ends what the
            thread had a part in, so that whoever waits for that part learns of it. Before, one
            line is logged; the traceback follows at the level of debugging.
        daemon: Whether the interpreter may end without it.

    Raises:
        RuntimeError: No more threads can be had.
    """
    thread = threading.Thread(
        target=_run, args=(target, args, name, died), name=name, daemon=daemon
    )
    thread.start()
    return thread


def _run(
    target: Callable[..., object],
    args: tuple[object, ...],
    name: str,
    died: Callable[[Exception], object],
) -> None:
    try:
        target(*args)
    except SystemExit:
        pass  # as in any thread: the interpreter ends, or somebody has asked for this end
    except BaseException as error:
        # Whatever becomes of the line: a program's handler or filter may raise.
        with contextlib.suppress(Exception):
            log_bug(f"internal error in {name}", error)
        # The traceback refers to all that the thread had, descriptors included.
        failure = error.with_traceback(None)
        try:
            died(failure if isinstance(failure, Exception) else RuntimeError(repr(failure)))
        except Exception as another:
            with contextlib.suppress(Exception):
                log_bug(f"internal error in {name}", another)
