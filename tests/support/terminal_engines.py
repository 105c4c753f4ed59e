"""Both ways in which a recording becomes a redraw, with one face, for tests of what they show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from helpers import SECONDS, eventually

from wsep_sync.terminals import Recording, Snapshot, emulated, replay
from wsep_sync.terminals.answers import replies


class Replayed(Recording):
    """A recording that is replayed."""

    def redraw(self) -> bytes:
        return replay(self.snapshot())

    def replies(self, data: bytes) -> bytes:
        return replies(self.snapshot(), data)


class Emulated(Replayed):
    """A recording that the helper draws. There must be one: see :func:`helper`."""

    def redraw(self) -> bytes:
        return emulate(self.snapshot())


def emulate(snapshot: Snapshot) -> bytes:
    redraw = emulated.ask(snapshot)
    assert redraw is not None, "the helper has not answered"
    return redraw


@contextlib.contextmanager
def helper() -> Iterator[None]:
    """Have a helper that is ready, and is waited for as long as a loaded machine may take."""
    patience, emulated.PATIENCE = emulated.PATIENCE, SECONDS
    try:
        with emulated.hold():
            emulated.prepare()
            empty = Recording(2, 2).snapshot()
            eventually(lambda: emulated.ask(empty) is not None, "the helper is ready")
            yield
    finally:
        emulated.PATIENCE = patience


ENGINES = {"replay": Replayed, "emulated": Emulated}
