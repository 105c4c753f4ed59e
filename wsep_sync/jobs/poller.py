"""Waiting for several descriptors at once: :class:`Poller`."""

from __future__ import annotations

import math
import select

from ..streams.wakeup import READ, WRITE, Wakeup

__all__ = ["Poller"]


class Poller:
    """What a loop waits for, said anew in each turn; the kernel is told only what has changed.

    poll(2) tells of an end even where nothing is asked for: so what is not wanted in a turn is not
    polled at all.

    Args:
        wakeup: To be waited for in every turn.

    Attributes:
        woken: The wakeup was set. To be set by a loop that has a reason of its own to look.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._poll = select.poll() if hasattr(select, "poll") else None  # not on Windows
        self._polled: dict[int, int] = {}
        self._wakeup = wakeup
        self._woken_by = wakeup.fileno()
        self._ready: dict[int, int] = {}
        self.woken = False

    def _register(self, wanted: dict[int, int]) -> None:
        if self._poll is not None:
            for descriptor in self._polled:
                if descriptor not in wanted:
                    self._poll.unregister(descriptor)
            for descriptor, events in wanted.items():
                if self._polled.get(descriptor) != events:
                    self._poll.register(descriptor, events)
        self._polled = wanted

    def wait(self, wanted: dict[int, int], timeout: float) -> None:
        """Block for at most ``timeout`` seconds; see what is ready, and clear the wakeup.

        Args:
            wanted: The descriptors to wait for besides, and the events of each; it is kept. What is
                below 0 is none.
            timeout: Seconds.
        """
        wanted[self._woken_by] = READ
        wanted.pop(-1, None)
        if wanted != self._polled:
            self._register(wanted)
        if self._poll is not None:
            # Rounded up, lest a loop spin through the last millisecond.
            self._ready = dict(self._poll.poll(math.ceil(timeout * 1000)))
        else:
            readable, writable, _ = select.select(
                [d for d, events in wanted.items() if events & READ],
                [d for d, events in wanted.items() if events & WRITE],
                [],
                timeout,
            )
            self._ready = dict.fromkeys([*readable, *writable], 0)
        self.woken = self._woken_by in self._ready
        if self.woken:
            self._wakeup.clear()

    @property
    def idle(self) -> bool:
        """Whether nothing was ready in time."""
        return not self._ready

    def is_ready(self, descriptor: int) -> bool:
        """Whether to look after this descriptor; after what has none, if the loop was woken."""
        return descriptor in self._ready if descriptor >= 0 else self.woken
