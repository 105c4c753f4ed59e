"""How every thread of the package is started: none dies in silence, and none leaves a peer waiting.

A thread that ends by an exception which nobody foresaw would take its part of a conversation with
it, and whoever waits for that part would wait for ever. So each is started here, together with what
is to be told then.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .log import log, log_event

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["start_thread"]


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
        _log(name, error)
        # The traceback refers to all that the thread had, descriptors included.
        failure = error.with_traceback(None)
        try:
            died(failure if isinstance(failure, Exception) else RuntimeError(repr(failure)))
        except Exception as another:
            _log(name, another)


def _log(name: str, error: BaseException) -> None:
    # Of the error only its kind, and where: its text may quote what a peer has sent.
    reason = f"internal error in {name}: {type(error).__name__}{_place(error.__traceback__)}"
    log_event(logging.ERROR, "failure", reason=reason)
    log.debug("internal error in %s", name, exc_info=error)


def _place(traceback: TracebackType | None) -> str:
    """Return the innermost place in this package that a traceback tells of."""
    here, place = os.path.dirname(__file__), ""
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        if path.startswith(here) and path != __file__:
            place = f" at {os.path.relpath(path, here)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
