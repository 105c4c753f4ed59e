"""Commands that do not survive what runs them, and are started in time: :func:`ending`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from subprocess import TimeoutExpired
from typing import Any, cast

from ..errors import ConnectError, StartError
from ..execers.dial import CONNECT_TIMEOUT
from .popen import Popen

__all__ = [
    "ending",
]

# A connection cannot be given no time at all.
_LEAST = 0.001


@contextlib.contextmanager
def ending(*popenargs: Any, within: float | None, **kwargs: Any) -> Iterator[Popen[Any]]:
    """A process that does not survive what is raised in the block.

    Args:
        within: Seconds that its start may take, too, of those that it has.

    Raises:
        TimeoutExpired: No connection was made in that time, or nothing started over it. One that
            the block raises has as its timeout what was given here, and not what was left of it.
    """
    began = time.monotonic()
    if within is not None:
        kwargs["timeout"] = max(min(within, CONNECT_TIMEOUT), _LEAST)
    try:
        process: Popen[Any] = cast("Any", Popen)(*popenargs, **kwargs)
    except (ConnectError, StartError) as error:
        if within is None or time.monotonic() - began < within:
            raise
        args = popenargs[0] if popenargs else kwargs["args"]
        raise TimeoutExpired(args, within) from error
    with process:
        process._forward_interrupt = True
        try:
            yield process
        except BaseException as error:  # Ctrl-C, too
            if isinstance(error, TimeoutExpired) and error.cmd is process.args:
                error.timeout = within  # type: ignore[assignment]
            process._abandon()
            raise
