"""What a session remembers of its program's output: :class:`Recording`.

No I/O, no threads, no clock: bytes are fed, and kept in two rings, one for each screen, with the
sizes that the terminal had when they came and with what the bytes that were dropped had changed.
That costs next to nothing for each byte. What the bytes show is found out when somebody asks, from
a :class:`Snapshot`, and never here: so no output can make recording fail.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property

from .cursor import cursor_after
from .modes import State
from .sequences import SET_LAST, SMALL, SPECIAL, osc_bytes, split_partial, to_numbers

__all__ = ["Recording", "Screen", "Snapshot"]

# What a ring keeps of the normal screen, and of one visit to the alternate screen, in bytes.
NORMAL_LIMIT = 256 * 1024
ALTERNATE_LIMIT = 1024 * 1024
# Both are cut back to their limits only when they are this much over, so that the work of cutting
# is done once for many chunks.
SLACK = 64 * 1024

# How many changes of the size are remembered; each is work for who makes a redraw of it.
MOST_SIZES = 16

# How many switches of the screen are followed in one chunk.
MOST_SWITCHES = 50

# The same attributes in the ways in which a terminal is asked to switch to the alternate screen.
_ALTERNATE = frozenset((47, 1047, 1049))

# What a chunk is searched for. The literal prefix lets the regex engine run at memory speed. The
# end is looked for first: else each number of what has none would be tried with all that follow.
_SWITCH_BODY = rb"\[\?(?=[0-9;]*[hl])((?:[0-9;]*;)?0*(?:47|1047|1049)(?:;[0-9;]*)?)([hl])"
_SWITCH = re.compile(rb"\x1b" + _SWITCH_BODY)
_SWITCH_OR_RIS = re.compile(rb"\x1b(?:" + _SWITCH_BODY + rb"|c)")
# Sequences that put the cursor somewhere, wherever it was.
_PLACES = re.compile(rb"\x1b\[[\d;]*[Hf]")
# How far back the cursor is looked for when the alternate screen is left, in bytes: less than where
# a program waits for the answer, for this is done while output is recorded.
_LOOKS_BACK = 4096
_HELD_BACK = re.compile(rb"\x1b(?:\[\??[\d;:]{0,200})?\Z")


class Chunks:
    """Output in the order in which it came."""

    __slots__ = ("_chunks", "_tail", "size")

    def __init__(self) -> None:
        self.size = 0  # in bytes
        self._chunks: deque[bytes] = deque()
        self._tail = bytearray()  # small chunks, newer than all of _chunks

    def append(self, data: bytes) -> None:
        size = len(data)
        if size < SMALL:
            self._tail += data
            if len(self._tail) >= 2 * SMALL:
                self._flush()
        else:
            if self._tail:
                self._flush()
            self._chunks.append(data)
        self.size += size

    def _flush(self) -> None:
        self._chunks.append(bytes(self._tail))
        self._tail.clear()

    def pieces(self) -> tuple[bytes, ...]:
        """Return all there is; what is large in it is shared, not copied."""
        return (*self._chunks, bytes(self._tail))

    def data(self) -> bytes:
        return b"".join((*self._chunks, self._tail))

    def take(self) -> bytes:
        """Remove all, and return it."""
        data = self.data()
        self._chunks.clear()
        self._tail.clear()
        self.size = 0
        return data

    def cut(self, limit: int) -> bytes:
        """Remove the oldest bytes down to `limit`, and return them.

        They go up to the end of a line where there is one, so up to 32 KiB more may be left.
        """
        target = self.size - limit
        block = self._pop(target)
        end = block.rfind(b"\n", max(target - SLACK // 2, 0), target) + 1 or target
        self._put_back(block[end:])
        return block[:end]

    def _pop(self, size: int) -> bytes:
        """Remove the oldest chunks, of so many bytes or more, and return them."""
        if self._tail:
            self._flush()
        removed: list[bytes] = []
        while size > 0:
            removed.append(self._chunks.popleft())
            size -= len(removed[-1])
        block = b"".join(removed)
        self.size -= len(block)
        return block

    def _put_back(self, data: bytes) -> None:
        """Make `data` the oldest of all."""
        if data:
            self._chunks.appendleft(data)
            self.size += len(data)


class _Ring(Chunks):
    """The newest bytes of one screen's output, and what the earlier ones had changed."""

    __slots__ = ("_dropped", "_sizes", "_special", "start")

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        # A snapshot may share it, so it is replaced, never changed.
        self.start = State()
        self._special = 0  # how many bytes lie before the end of the last sequence that isn't plain
        # From which byte on the terminal had which rows and columns, counted from the very first
        # byte. The first of these holds for all that is before, too.
        self._sizes: deque[tuple[int, int, int]] = deque([(0, rows, columns)], MOST_SIZES)
        self._dropped = 0  # bytes before the first that is there

    def append(self, data: bytes, plain: bool = False) -> None:
        """Add `data`; if `plain`, it has plain sequences only."""
        super().append(data)
        if not plain:
            self._special = self.size

    def resize(self, rows: int, columns: int) -> None:
        position = self._dropped + self.size
        if self._sizes[-1][0] == position:
            self._sizes.pop()
        if not self._sizes or self._sizes[-1][1:] != (rows, columns):
            self._sizes.append((position, rows, columns))

    def screen(self) -> Screen:
        sizes = tuple((max(at - self._dropped, 0), r, c) for at, r, c in self._sizes)
        return Screen(self.start, self.pieces(), sizes)

    def end(self) -> State:
        """Return the state after the last byte."""
        return self.screen().end

    def evict(self, limit: int) -> None:
        """Drop the oldest bytes down to `limit`, up to the end of a line where there is one."""
        before = self.size
        block = self.cut(limit)
        kept, partial = split_partial(block)
        if not kept:
            # A string (an image, most likely) longer than all of this, and yet to end: its
            # beginning must stay, or the rest would be taken for text.
            partial = partial[:32]
        self.start = self.start.copy()
        if self._special:
            self.start.fold(kept)
        else:
            self.start.fold_pens(kept, 0, len(kept))
        self._put_back(partial)
        self._special = max(self._special - len(block), 0) + len(partial)
        self._drop(before - self.size)

    def forget(self, start: State, end: int) -> None:
        """Drop all bytes before `end`, after which the state is `start`."""
        self.start = start
        rest = self.take()[end:]
        self.append(rest)
        self._drop(end)

    def _drop(self, count: int) -> None:
        """Note that so many bytes were dropped."""
        self._dropped += count
        while len(self._sizes) > 1 and self._sizes[1][0] <= self._dropped:
            self._sizes.popleft()


@dataclass(frozen=True)
class Screen:
    """One screen's newest output, at one moment.

    Attributes:
        start: What the output before had changed.
        pieces: The bytes.
        sizes: From which byte on the terminal had which rows and columns; the first is of the
            first byte, and there is always one.
    """

    start: State
    pieces: tuple[bytes, ...]
    sizes: tuple[tuple[int, int, int], ...]

    @cached_property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @cached_property
    def end(self) -> State:
        """The state after the last byte; not to be changed."""
        state = self.start.copy()
        state.fold(split_partial(self.data)[0])
        return state

    def cleared(self, since: int) -> tuple[State, int] | None:
        """Return where the screen was last cleared, from byte `since` on, and the state there.

        None, if it was not; or if a cursor was saved before, whose position is not known.
        """
        at = last_clear(self.data, since)
        if at < 0:
            return None
        state = self.start.copy()
        state.fold(self.data[:at])
        return None if state.saved_cursor is not None else (state, at)


@dataclass(frozen=True)
class Snapshot:
    """What a redraw is made from: a recording at one moment, which it does not refer to.

    Making it is quick; asking it takes as long as looking at up to a megabyte does.

    Attributes:
        rows: The height of the terminal, in rows.
        columns: Its width, in columns.
        normal: What was recorded of the normal screen.
        alternate: Of the alternate screen, if that is shown.
        alternate_mode: The mode that entered it: 47, 1047 or 1049.
        alt_generation: How often the alternate screen had been left.
        held: The beginning of a sequence, which follows the recorded output of the screen.
        lost_at: Up to which byte of the alternate output it cannot tell what is shown: the size
            was changed there, or what was before is dropped. None, if it can.
    """

    rows: int
    columns: int
    normal: Screen
    alternate: Screen | None
    alternate_mode: int
    alt_generation: int
    held: bytes
    lost_at: int | None

    @property
    def in_alt(self) -> bool:
        """Whether the alternate screen is shown."""
        return self.alternate is not None

    def last(self, count: int) -> bytes:
        """Return the newest bytes of the screen that is shown: so many, if there are, or more."""
        pieces = [self.held]
        for piece in reversed((self.alternate or self.normal).pieces):
            if count <= 0:
                break
            pieces.append(piece)
            count -= len(piece)
        return b"".join(reversed(pieces))

    def without_last(self, count: int) -> Snapshot:
        """Return what it was before the newest bytes came: so many, of one sequence."""
        screen = self.alternate or self.normal
        data = screen.data + self.held
        screen = replace(screen, pieces=(data[: len(data) - count],))
        if self.alternate is None:
            return replace(self, held=b"", normal=screen)
        return replace(self, held=b"", alternate=screen)

    @cached_property
    def known_alternate(self) -> tuple[State, bytes] | None:
        """From which state on which bytes make the alternate screen; None, if that is lost."""
        if self.alternate is None:
            return None
        if self.lost_at is None:
            return self.alternate.start, self.alternate.data
        cleared = self.alternate.cleared(self.lost_at)
        return None if cleared is None else (cleared[0], self.alternate.data[cleared[1] :])

    @property
    def lost(self) -> bool:
        """Whether what the alternate screen shows is unknown: the program must paint it again.

        Programs do when their terminal is made one row smaller, and, a moment later, larger again.
        Never while the normal screen is shown.
        """
        return self.in_alt and self.known_alternate is None


class Recording:
    """The newest output of a terminal's program, as a terminal would have to see it.

    It keeps 256 KiB of the normal screen's output. Of what was dropped before it keeps the modes
    and attributes, but not the cursor's position: after that much text it is at the bottom. The
    alternate screen's output is kept apart, up to 1 MiB, and dropped when that screen is left;
    beyond that, or when the size changes meanwhile, :attr:`lost` is set until the program clears
    the screen.

    A size is in rows and columns of characters; 0 is taken as 1. Not thread-safe, and never blocks.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._rows = max(rows, 1)
        self._columns = max(columns, 1)
        self._alt_generation = 0
        self._held = b""  # the end of the last chunk, when it is the beginning of a sequence
        self._normal = _Ring(self._rows, self._columns)
        self._alternate: _Ring | None = None
        self._alternate_mode = 1049  # the one that entered it
        self._lost_at: int | None = None  # see Snapshot

    @property
    def in_alt(self) -> bool:
        """Whether the alternate screen is shown."""
        return self._alternate is not None

    @property
    def alt_generation(self) -> int:
        """How often the alternate screen was left.

        A client that attached while the alternate screen was shown has never seen the normal one:
        when this has grown since, it needs another redraw.
        """
        return self._alt_generation

    @property
    def lost(self) -> bool:
        """As of a snapshot; that is the one to be asked where time matters."""
        return self.snapshot().lost

    def snapshot(self) -> Snapshot:
        """Return what a redraw is made from. Quick: what is large is shared, not copied."""
        return Snapshot(
            rows=self._rows,
            columns=self._columns,
            normal=self._normal.screen(),
            alternate=None if self._alternate is None else self._alternate.screen(),
            alternate_mode=self._alternate_mode,
            alt_generation=self._alt_generation,
            held=self._held,
            lost_at=self._lost_at,
        )

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the program's output, cut anywhere."""
        if type(data) is not bytes:
            data = bytes(data)
        if self._held:
            data = self._held + data
            self._held = b""
        special = SPECIAL.search(data) if b"\x1b" in data else None
        if special:
            last = data.rfind(b"\x1b")
            if _HELD_BACK.match(data, last):
                self._held = data[last:]
                data = data[:last]
        # Whether all sequences are plain, as they are in most output: that is looked for once, for
        # it costs more than all else that is done with such output.
        if not special or special.start() >= len(data):
            self._record(data, plain=True)
        else:
            self._scan(data)

    def _scan(self, data: bytes) -> None:
        """Record `data`, and follow the switches of screens in it."""
        if data.count(b"\x1b[?") > MOST_SWITCHES:
            data = self._without_flicker(data)
        start = 0
        # The prefix that both share is short, so looking for both is slow.
        pattern = _SWITCH_OR_RIS if b"\x1bc" in data else _SWITCH
        match = pattern.search(data)
        while match:
            position = match.end()
            if match[0] != b"\x1bc":
                start = self._switch(data, start, match)
            elif self._alternate is not None:
                # A full reset leaves the alternate screen, and nothing of before can be seen.
                self._normal = _Ring(self._rows, self._columns)
                self._left()
                start = position
            match = pattern.search(data, position)
        self._record(data[start:] if start else data)

    def _without_flicker(self, data: bytes) -> bytes:
        """Return `data` from so many switches before its end on, if it has more than that.

        Nobody can have seen what was shown before, and following each switch takes long.
        """
        switches = deque((m.start() for m in _SWITCH.finditer(data)), MOST_SWITCHES + 1)
        if len(switches) <= MOST_SWITCHES:
            return data
        if self._alternate is not None:
            self._lost_at = self._alternate.size
        return data[switches[1] :]

    def _switch(self, data: bytes, start: int, match: re.Match[bytes]) -> int:
        """Follow one setting or resetting of modes; return up to where `data` is recorded."""
        numbers = to_numbers(match[1])
        modes = [n for n in numbers if n in _ALTERNATE]
        entering = match[2] == b"h"
        if entering == (self._alternate is not None):
            # The screen that is shown already: terminals differ in what they make of that, so it
            # is left to them.
            return start
        others = b";".join(b"%d" % n for n in numbers if n not in _ALTERNATE)
        rest = b"\x1b[?%b%b" % (others, match[2]) if others else b""
        self._record(data[start : match.start()] + rest)
        if entering:
            self._alternate_mode = modes[-1]
            if 1049 in modes:
                self._record(b"\x1b7")
            self._alternate = _Ring(self._rows, self._columns)
            self._lost_at = None
        else:
            assert self._alternate is not None
            changes = self._alternate.end()
            place = b"" if 1049 in modes else self._place()
            self._left()
            # What it changed of both screens is recorded in its place; 1049 saved the cursor
            # before, and restores it; the others leave it where it is.
            self._record(changes.shared_bytes())
            for titles in changes.title_stack:
                self._record(_changed_titles(titles) + b"\x1b[22;0t")
            self._record(_changed_titles(changes.titles))
            self._record(
                b"".join(
                    b"\x1b[?%d%c" % (n, b"lh"[changes.modes[n]])
                    for n in SET_LAST
                    if n in changes.modes
                )
            )
            self._record(
                b"\x1b8" if 1049 in modes else changes.origin_bytes() + place + changes.pen_bytes()
            )
        return match.end()

    def _place(self) -> bytes:
        """Return what brings the cursor to where it is, in the alternate screen: an estimate."""
        assert self._alternate is not None
        data = self._alternate.data()
        if not _PLACES.search(data, max(len(data) - _LOOKS_BACK, 0)):
            # It began where it was in the normal screen.
            before = self._normal.data()[-_LOOKS_BACK:]
            last = deque(_PLACES.finditer(before), maxlen=1)
            data = (before[last[0].start() :] if last else self._normal.data()) + data
        return b"\x1b[%d;%dH" % cursor_after(data, self._rows, self._columns, _LOOKS_BACK)

    def _left(self) -> None:
        self._alternate = None
        self._normal.resize(self._rows, self._columns)
        self._lost_at = None
        self._alt_generation += 1

    def _record(self, data: bytes, plain: bool = False) -> None:
        if self._alternate is None:
            self._normal.append(data, plain)
            if self._normal.size > NORMAL_LIMIT + SLACK:
                self._normal.evict(NORMAL_LIMIT)
        else:
            self._alternate.append(data, plain)
            if self._alternate.size > ALTERNATE_LIMIT:
                self._shorten(self._alternate)

    def _shorten(self, alternate: _Ring) -> None:
        """Drop what the program has cleared from the alternate screen, or else the oldest."""
        # Only if that makes room for long, for looking takes long.
        since = max(self._lost_at or 0, alternate.size - ALTERNATE_LIMIT // 2)
        cleared = alternate.screen().cleared(since)
        if cleared:
            alternate.forget(*cleared)
            self._lost_at = None
        else:
            alternate.evict(ALTERNATE_LIMIT * 3 // 4)
            self._lost_at = 0

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as the program is told it."""
        rows, columns = max(rows, 1), max(columns, 1)
        if (rows, columns) == (self._rows, self._columns):
            return
        self._rows, self._columns = rows, columns
        if self._alternate is None:
            self._normal.resize(rows, columns)
        else:
            # The normal one follows when this is left.
            self._alternate.resize(rows, columns)
            self._lost_at = self._alternate.size


def last_clear(data: bytes, since: int = 0) -> int:
    """Return where `data` last clears the screen and brings the cursor home, or -1.

    ED 0 from home is not looked for: in origin mode it leaves what is above the margins.
    """
    clear = b"\x1b[2J"
    at = data.rfind(clear, since)
    while at >= 0:
        for home in (b"\x1b[H", b"\x1b[1;1H"):
            if data.startswith(home, at + len(clear)):
                return at
            if data.endswith(home, since, at):
                return at - len(home)
        at = data.rfind(clear, since, at)
    return at


def _changed_titles(titles: dict[bytes, bytes]) -> bytes:
    return b"".join(osc_bytes(b"%b;%b" % item) for item in titles.items())
