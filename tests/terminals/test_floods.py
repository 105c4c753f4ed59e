"""What a recording keeps is bounded, whatever a program prints in masses."""

from __future__ import annotations

import pickle
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsep_sync.terminals import Recording, replay
from wsep_sync.terminals.recording import ALTERNATE_LIMIT, NORMAL_LIMIT

pytestmark = pytest.mark.thorough

MOST_KEPT = 2 * (NORMAL_LIMIT + ALTERNATE_LIMIT)  # in bytes
MOST_REDRAWN = 2 * 1024 * 1024

# A sequence of each kind that is remembered; `%d` is another number each time.
KINDS = [
    *(b"\x1b[?%dh", b"\x1b[?%dl", b"\x1b[%dh", b"\x1b[?%ds", b"\x1b[?%d;1049s", b"\x1b[?%dr"),
    *(b"\x1b[>%d;1m", b"\x1b[>%du", b"\x1b[=%du", b"\x1b[<%du", b"\x1b[%d;5r", b"\x1b[%d;5s"),
    *(b"\x1b[38;5;%dm", b"\x1b[1:%dm", b"\x1b[58:2::%dm", b"\x1b[%d q", b'\x1b[%d"q'),
    *(b"\x1b[22;%dt", b"\x1b[23;%dt"),
    *(b"\x1b]0;%d\x07", b"\x1b]1;%d\x07\x1b[22t", b"\x1b]4;%d;red\x07", b"\x1b]4;1;%d\x07"),
    *(b"\x1b]104;%d\x07", b"\x1b]10;%d;%d\x07", b"\x1b]7;%d\x07", b"\x1b]8;id=%d;x\x07"),
    *(b"\x1b]%d;x\x07", b"\x1b]110;%d\x07"),
    *(b"\x1b(%d", b"\x1b7%d", b"\x1b[?1048h%d\x1b[?1048l", b"\x1b[!p%d"),
    *(b"\x1b[?1049h%d\x1b[?1049l", b"\x1b[?1047h%d\x1b[?1047l"),
    *(b"\x1b[?1049h%d", b"\x1b[?47h%d\x1b[?47l", b"\x1bc%d", b"\x1bP%dq", b"\x1b_%d", b"\xc2%d"),
    *(b"\x1b[%d", b"\x1b[2J\x1b[H%d", b"\x1b[H\x1b[3J%d", b"\x0e%d\x0f", b"\x1b[%dm\r\n", b"%d\n"),
]  # fmt: skip

numbered = st.sampled_from(KINDS)
ends = st.sampled_from([b"", b"", b"\x1b\\", b"\x18", b"\r\n", b"\x1b[?1049h", b"\x1b[?1049l"])
paddings = st.sampled_from([b"", b"", b"1" * 300, b";1" * 300, b"x" * 5000])


@settings(max_examples=20, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(numbered, paddings, ends), min_size=1, max_size=3),
    st.sampled_from([500, 4096, 65536]),
    st.booleans(),
)
def test_floods_are_forgotten(kinds, size, in_alt) -> None:
    """A flood of a few kinds of sequences, with ever new numbers, some of them far too long."""
    numbers = count(100)

    def chunk() -> bytes:
        parts: list[bytes] = []
        length = 0
        while length < size:
            for kind, padding, end in kinds:
                parts.append(kind.replace(b"%d", b"%d" % next(numbers) + padding) + end)
                length += len(parts[-1])
        return b"".join(parts)

    recording = Recording(24, 80)
    recording.feed(b"\x1b[?1049h" if in_alt else b"")
    for _ in range(max(500_000 // size, 1)):
        recording.feed(chunk())
    snapshot = recording.snapshot()
    # Whatever a recording refers to is in there.
    assert len(pickle.dumps(snapshot)) < MOST_KEPT
    assert len(replay(snapshot)) < MOST_REDRAWN
    # Nor is what has been dropped longer in another form.
    for screen in (snapshot.normal, snapshot.alternate):
        if screen is not None:
            state = screen.end
            assert len(state.shared_bytes() + state.pen_bytes()) < 64 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_a_redraw_of_a_flood_of_one_kind(kind) -> None:
    recording = Recording(24, 80)
    for i in range(0, 40_000, 2000):
        recording.feed(b"".join(kind.replace(b"%d", b"%d" % n) for n in range(i, i + 2000)))
    assert len(replay(recording.snapshot())) < MOST_REDRAWN
