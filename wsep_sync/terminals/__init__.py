"""What a terminal shows now, as the bytes that make another terminal show it.

A session feeds everything that its program prints to a :class:`Recording`. A client that attaches
later gets a :func:`redraw` of a :class:`Snapshot` of it first, and live output from then on, and
its screen is the one of a terminal that was there all the time.
"""

from __future__ import annotations

from .recording import Recording, Snapshot
from .replay import replay

__all__ = ["Recording", "Snapshot", "redraw", "replay"]


def redraw(snapshot: Snapshot) -> bytes:
    """Return bytes that make a terminal of the snapshot's size, in any state, show what it shows.

    Safe from any thread; what a program wrote never makes it raise.
    """
    return replay(snapshot)
