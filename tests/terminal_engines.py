"""The ways in which a recording becomes a redraw, with one face, for tests of what they show."""

from __future__ import annotations

from wsep_sync.terminals import Recording, replay
from wsep_sync.terminals.answers import replies


class Replayed(Recording):
    """A recording that is replayed."""

    def redraw(self) -> bytes:
        return replay(self.snapshot())

    def replies(self, data: bytes) -> bytes:
        return replies(self.snapshot(), data)


ENGINES = {"replay": Replayed}
