"""Generated output of programs, and what becomes of it: recorded, replayed, and emulated.

The grammar is that of terminals: text of all widths, sequences of every kind with numbers of every
size, strings that end or do not, cut anywhere, with changes of the size in between. A redraw is
judged by the helper's emulator, which no output can make this process's own: of what was redrawn it
has to make the same screen again. And it may contain nothing that is answered, take no longer than
in proportion, and keep no more than its bounds.
"""

from __future__ import annotations

import importlib.util
import pickle
import random
import re
import time
from collections.abc import Sequence

from helpers import SECONDS, eventually

from fuzz.campaign import Case, run_cases, say
from wsep_sync.terminals import Recording, emulated, replay
from wsep_sync.terminals.recording import ALTERNATE_LIMIT, NORMAL_LIMIT
from wsep_sync.terminals.sequences import split_partial

__all__ = ["run"]

_MOST_CELLS = 1_000_000
_MOST_REDRAWN = 2 << 20
# Rows that an emulator keeps of what has scrolled away, times columns, at the very least: it bounds
# the bytes, drops many rows at once, and only when it adds one. So a terminal whose width has
# changed may have more rows than any that has had that width from the start.
_SURELY_KEPT = 20_000
_MOST_KEPT = 2 * (NORMAL_LIMIT + ALTERNATE_LIMIT)
# Of the processor's time, for a redraw of the largest recording: a hundred times what it takes.
_MOST_SECONDS = 10.0

_TEXTS = [
    *("a", "hello world", " ", "0123456789" * 9, "\u00e9", "e\u0301", "\u200d"),
    "a" + "\u0301" * 30,
    *("\u6f22\u5b57", "\U0001f389", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    *("\ufe0f", "\u0600", "\ufffd"),
]
_BYTES = [b"\xc2", b"\xe2\x94", b"\xf0\x9f", b"\x9b", b"\x80", b"\xff", b"\xc2\x9b", b"\x00"]
_C0 = [b"\r", b"\n", b"\r\n", b"\b", b"\t", b"\x07", b"\x05", b"\x0e", b"\x0f", b"\x18", b"\x1a"]
_FINALS = b"@ABCDEFGHIJKLMPSTXZ`abcdefghilmnpqrstuxyz{|}~"
_NUMBERS = ["", "0", "1", "2", "3", "4", "5", "7", "24", "25", "80", "65535", "99999999999", "1000"]
_MODES = ["1", "5", "6", "7", "12", "25", "47", "66", "69", "1000", "1004", "1006", "1047", "1048"]
_MODES += ["1049", "2004", "2026", "2048", "3", "40", "1016", "9999"]
_OSC = ["0;t", "1;t", "2;t", "4;1;red", "4;1;?", "7;file:///", "8;;http://x", "8;id=1;u", "8;;"]
_OSC += [
    "10;?",
    "11;blue",
    "52;c;YQ==",
    "52;c;?",
    "9;n",
    "104",
    "133;A",
    "777;notify;a",
    "66;s=2;x",
]
_STRINGS = ["P", "_", "^", "X", "Pq", "P+q544e", "P$qm", "_Ga=q"]

# What a terminal answers, or acts upon beyond the screen, in whatever form.
_ANSWERED = re.compile(
    rb"\x1b\[(?:[<=>?]?[\d;:]*c|\??[\d;:]*n|\??[\d;:]*\$p|>[\d;:]*q|[\d;:]*x|\?[\d;:]*u)"
    rb"|\x1b\]52;|\x1b\](?:4|1\d);(?:[^\x07\x1b]*;)?\?[;\x07\x1b]|\x1bZ|\x05|\x1bP[+$]q[^\x1b]*\x1b\\"
)


_SEQUENCES = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x1b\\|\x07)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
)


def run(seed: int, numbers: Sequence[int]) -> int:
    """Run cases; return how many there were."""
    old = emulated.PATIENCE, emulated._BETWEEN_STARTS
    emulated.PATIENCE, emulated._BETWEEN_STARTS = 1.0, 0.0
    try:
        with emulated.hold():
            if importlib.util.find_spec("pyghostty") is not None:  # else all is replayed
                emulated.prepare()
                eventually(lambda: emulated.ask(_EMPTY) is not None, "the helper is ready")
            return run_cases("terminals", seed, numbers, _check, workers=1)
    finally:
        emulated.PATIENCE, emulated._BETWEEN_STARTS = old
        say(f"terminals: {_drawn} drawn by the helper, {_not_drawn} not")


_drawn = _not_drawn = 0
_EMPTY = Recording(2, 2).snapshot()


def _check(case: Case) -> None:
    global _drawn, _not_drawn
    chance = case.chance
    rows, columns = _size(chance)
    recording = Recording(rows, columns)
    case.note("size", (rows, columns))
    # Of odd characters at odd widths emulators make this or that.
    simple = chance.random() < 0.5 and columns >= 7
    for _ in range(chance.randint(1, 6)):
        data = _output(chance, simple)
        case.note("output", data)
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(5)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            recording.feed(data[start:end])
        if chance.random() < 0.3 and not simple:
            rows, columns = _size(chance)
            case.note("new size", (rows, columns))
            recording.resize(rows, columns)
    snapshot = recording.snapshot()
    assert len(pickle.dumps(snapshot)) < _MOST_KEPT
    began = time.thread_time()
    replayed = replay(snapshot)
    assert time.thread_time() - began < _MOST_SECONDS, "a replay that takes long"
    _check_redraw(replayed)
    drawn = _ask(recording)
    if drawn is None:
        _not_drawn += 1
        return
    _drawn += 1
    _check_redraw(drawn)
    if not simple:
        return
    # Whoever gets it shows the same.
    again = Recording(rows, columns)
    again.feed(drawn)
    twice = _ask(again)
    if twice is not None:
        check_twice(drawn, twice, rows, columns)


def _ask(recording: Recording) -> bytes | None:
    drawn = emulated.ask(recording.snapshot())
    if drawn is None and emulated._helper._child is None:
        return None  # it is to be started by the next
    if drawn is None and not emulated._helper._child._ready:  # type: ignore[union-attr]
        eventually(lambda: emulated.ask(_EMPTY), "the helper is back", SECONDS)
    return drawn


def _check_redraw(redraw: bytes) -> None:
    assert redraw.startswith(b"\x18\x1b\\")
    assert len(redraw) < _MOST_REDRAWN
    # What is unfinished at the end may be anything.
    found = _ANSWERED.search(split_partial(redraw)[0])
    assert found is None, (
        f"answered: {found and redraw[max(found.start() - 60, 0) : found.end() + 60]!r}"
    )


def check_twice(drawn: bytes, twice: bytes, rows: int, columns: int) -> None:
    """See that a redraw, fed to a terminal and redrawn, is the same, but for scrollback far back.

    Raises:
        AssertionError: It is not.
    """
    expected, lines = _text(drawn), _text(twice)
    if lines == expected:
        return
    assert len(lines) <= len(expected), "more lines"
    kept = sum(max(-(-len(line) // columns), 1) for line in lines)
    assert kept >= rows + _SURELY_KEPT // columns, "too few lines"
    # The first may be the end of one that was wrapped.
    first, *rest = expected[-len(lines) :]
    assert lines[1:] == rest, "another screen"
    assert first.endswith(lines[0]), "another screen"


def _text(redraw: bytes) -> list[bytes]:
    """The text of the screen, without attributes, and blanks at the ends of lines."""
    body = redraw[redraw.rindex(b"\x1b[3g") :]
    body = re.sub(
        rb"\x1b\][^\x07\x1b]*(?:\x1b\\|\x07)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]", b"", body
    )
    return [line.rstrip() for line in body.split(b"\r\n")]


def _size(chance: random.Random) -> tuple[int, int]:
    while True:
        sides = [chance.choice([1, 2, 7, 24, 80, 200, chance.randint(1, 1000)]) for _ in range(2)]
        if sides[0] * sides[1] <= _MOST_CELLS:
            return sides[0], sides[1]


def _output(chance: random.Random, simple: bool) -> bytes:
    parts: list[bytes] = []
    for _ in range(chance.randint(1, chance.choice([5, 50, 300]))):
        part = _part(chance)
        if simple and not part.isascii():
            continue
        parts.append(part * chance.choice([1, 1, 1, 1, 1, 1, 2, 10, 500]))
    data = b"".join(parts)
    return data[: chance.randint(0, len(data))] if chance.random() < 0.3 else data


def _part(chance: random.Random) -> bytes:
    kind = chance.randrange(10)
    if kind < 4:
        return chance.choice(_TEXTS).encode()
    if kind == 4:
        return chance.choice(_C0)
    if kind == 5:
        return chance.choice(_BYTES)
    if kind == 6:
        mode = ";".join(chance.choice(_MODES) for _ in range(chance.choice([1, 1, 1, 2, 40])))
        return b"\x1b[?%b%c" % (mode.encode(), chance.choice(b"hlsr"))
    if kind == 7:
        number = ";".join(chance.choice(_NUMBERS) for _ in range(chance.choice([1, 1, 2, 3, 50])))
        before = chance.choice([b"", b"", b"", b"", b"?", b">", b"<", b"="])
        between = chance.choice([b"", b"", b"", b"", b" ", b"!", b"$", b'"', b"*", b"\x07"])
        return b"\x1b[%b%b%b%c" % (before, number.encode(), between, chance.choice(_FINALS))
    if kind == 8:
        end = chance.choice([b"\x1b\\", b"\x07", b"\x18", b"", b"\x1b"])
        if chance.random() < 0.6:
            return b"\x1b]%b%b" % (chance.choice(_OSC).encode(), end)
        text = chance.choice([b"", b"1", b"abc" * 50, b"\xc2\x9b6n"])
        return b"\x1b%b%b%b" % (chance.choice(_STRINGS).encode(), text, end)
    return b"\x1b" + chance.choice(
        [b"7", b"8", b"c", b"D", b"E", b"M", b"H", b"=", b">", b"(0", b"#8"]
    )
