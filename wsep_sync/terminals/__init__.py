"""What a terminal shows now, as the bytes that make another terminal show it.

A session feeds everything that its program prints to a :class:`Recording`. A client that attaches
later gets a :func:`redraw` of a :class:`Snapshot` of it first, and live output from then on, and
its screen is the one of a terminal that was there all the time.
"""

from __future__ import annotations

from .emulated import ask, hold, prepare
from .recording import Recording, Snapshot
from .replay import replay

__all__ = ["Recording", "Snapshot", "hold", "prepare", "redraw", "replay"]


def redraw(snapshot: Snapshot) -> bytes:
    """Return bytes that make a terminal of the snapshot's size, in any state, show what it shows.

    By the emulator, if there is one and it answers in time, or else by replay. Blocks for 0.2
    seconds at most for the one, and as long as it takes to look at a megabyte for the other. Safe
    from any thread; what a program wrote never makes it raise.
    """
    drawn = ask(snapshot)
    return replay(snapshot) if drawn is None else drawn
