"""Expecting in an executor while an event loop goes on: :class:`Awaiting`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = [
    "Awaiting",
]

_Value = TypeVar("_Value")

# After how many seconds a thread that waits looks whether it is still awaited.
_LOOK = 0.1


class _Left(Exception):
    """Nobody awaits it any more."""


class Awaiting:
    """Lets a call that waits for output run in a thread, and end when nobody awaits it any more."""

    def __init__(self) -> None:
        # Of the call that runs in an executor, if one does: set when it is not awaited any more.
        self._left: threading.Event | None = None

    @property
    def left(self) -> bool:
        """Whether the call that runs in an executor is not awaited any more."""
        return self._left is not None and self._left.is_set()

    async def run(self, call: Callable[[], _Value]) -> _Value:
        """Make a call in the loop's default executor.

        Cancelled, it ends within a tenth of a second or so, before anybody else can read: so no
        output is taken behind the back of who expects next.
        """
        import asyncio  # which takes its time, and few use it

        self._left = left = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(None, call)
        try:
            return await asyncio.shield(future)
        finally:
            left.set()
            await asyncio.gather(future, return_exceptions=True)
            self._left = None

    def wait(
        self, wait: Callable[[float | None], _Value | None], timeout: float | None
    ) -> _Value | None:
        """Wait for something, ``None`` if it did not come in time.

        Args:
            wait: Waits for so many seconds, or for ever.
            timeout: For how many in all.
        """
        left = self._left
        if left is None:
            return wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not left.is_set():
            rest = _LOOK if deadline is None else max(0.0, deadline - time.monotonic())
            value = wait(min(rest, _LOOK))
            if value is not None or not rest:
                return value
        raise _Left
