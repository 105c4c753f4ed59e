"""Random output, in random chunks, with clients that attach anywhere."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal_engines import Emulated, Replayed
from terminal_judges import JUDGES, LEFT_OVER, answers_and_bells, assert_same

from wsep_sync.terminals import recording as recording_module

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("helping")]

ROWS, COLUMNS = 6, 20


row, column = st.integers(1, ROWS), st.integers(1, COLUMNS)
count = st.integers(1, 7)
words = st.sampled_from(
    ["a", "total 0", "drwxr-xr-x", "0123456789", "0123456789" * 3, " ", "  x  ", "-" * 20, "$ "]
)
# What all three emulators agree upon the width of.
narrow_characters = st.sampled_from(["é", "ß", "→", "░"])
characters = st.one_of(narrow_characters, st.sampled_from(["日", "本語", "🎉"]))
newlines = st.sampled_from(["\r\n", "\r\n", "\r\n\r\n", "\r", "\n", "\b", "\t"])
attributes = st.one_of(
    st.sampled_from(["", "0", "1", "3", "4", "7", "9", "22", "24", "27", "39", "1;31", "0;32"]),
    st.integers(30, 37).map(str),
    st.integers(0, 255).map("38;5;{}".format),
).map("\x1b[{}m".format)
# pyte scrolls and erases without them.
backgrounds = st.one_of(
    st.sampled_from(["49", "7;41"]),
    st.integers(40, 47).map(str),
    st.tuples(count, count, count).map(lambda rgb: "48;2;{};{};{}".format(*rgb)),
).map("\x1b[{}m".format)
movements = st.one_of(
    st.tuples(row, column).map(lambda p: "\x1b[{};{}H".format(*p)),
    st.tuples(count, st.sampled_from("ABCD")).map(lambda p: "\x1b[{}{}".format(*p)),
    column.map("\x1b[{}G".format),
    row.map("\x1b[{}d".format),
    st.sampled_from(["\x1b[H", "\x1bM", "\x1bD"]),
)
edits = st.one_of(
    st.sampled_from(["\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[J", "\x1b[H\x1b[2J", "\x1b[2J"]),
    st.tuples(count, st.sampled_from("PX@")).map(lambda p: "\x1b[{}{}".format(*p)),
    st.tuples(st.integers(1, 3), st.sampled_from("LM")).map(lambda p: "\x1b[{}{}".format(*p)),
)
margins = st.sampled_from(["\x1b[r", "\x1b[2;4r", "\x1b[1;5r", "\x1b[3;6r"])
modes = st.sampled_from(
    [
        *("\x1b[?1h", "\x1b[?1l", "\x1b[?25l", "\x1b[?25h", "\x1b[?2004h", "\x1b[?2004l", "\x1b="),
        *("\x1b[?1000;1006h", "\x1b[?1002h", "\x1b[?1000;1002;1006l", "\x1b>", "\x1b[?1004h"),
        *("\x1b[?7l", "\x1b[?7h", "\x1b[4h", "\x1b[4l", "\x1b[?5h", "\x1b[?5l"),
        *("\x1b[?2026h", "\x1b[?2026l", "\x1b[?12l"),
    ]
)
titles = st.sampled_from(["\x1b]0;one\x07", "\x1b]2;two\x1b\\", "\x1b]0;\x07"])
ignored = st.sampled_from(
    [
        *("\x1b[c", "\x1b[>c", "\x1b[6n", "\x1b[?u", "\x1b[18t", "\x1b]11;?\x07", "\x07"),
        *("\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\", "\x1b]52;c;YQ==\x07", "\x1b]9;x\x07", "\x1b[?4m"),
        *("\x1b_Ga=q\x1b\\", "\x1b]133;C\x07", "\x1b]7;file:///tmp\x07", "\x1b[>4;1m"),
    ]
)
line_drawing = st.sampled_from(["\x1b(0lqk\x1b(B", "\x1b(0x\x1b(B", "\x1b)0", "\x0eqq\x0f", "\x0f"])

plain = [words, words, newlines, newlines, attributes, movements, edits, modes, titles, ignored]
# pyte moves a cursor below the margins into them when a line wraps, and leaves the half of a wide
# character whose other half was printed over.
screen = st.lists(st.one_of(*plain, narrow_characters), max_size=25).map("".join)
screen_for_ghostty = st.lists(
    st.one_of(*plain, characters, margins, line_drawing, backgrounds), max_size=25
).map("".join)


def visits(shown: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Visits to the alternate screen, as full-screen programs make them."""
    return st.tuples(
        st.sampled_from(
            [
                ("\x1b[?1049h", "\x1b[?1049l"),
                ("\x1b[?1006;1049h", "\x1b[?1006;1049l"),
                ("\x1b7\x1b[?47h", "\x1b[?47l\x1b8"),
                ("\x1b7\x1b[?1047h", "\x1b[?1047l\x1b8"),
            ]
        ),
        shown,
    ).map(
        # They home the cursor and clear, and put right the margins and modes that move it.
        lambda visit: (
            f"{visit[0][0]}\x1b[H\x1b[2J{visit[1]}\x1b[r\x1b[m\x1b(B\x1b)B\x0f{visit[0][1]}"
        )
    )


def streams(shown: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(shown, shown, visits(shown)), min_size=1, max_size=4).map(
        lambda parts: "".join(parts).encode()
    )


cuts = st.lists(st.floats(0, 1), max_size=12)


def chunks(stream: bytes, fractions: list[float]) -> list[bytes]:
    at = sorted({0, len(stream), *(int(f * len(stream)) for f in fractions)})
    return [stream[a:b] for a, b in pairwise(at)]


def attach_after(engine, parts: list[bytes], attach: int) -> tuple[bytes, bytes]:
    """Return the redraw after some chunks, and all that the client gets."""
    terminal = engine(ROWS, COLUMNS)
    for part in parts[:attach]:
        terminal.feed(part)
    redraw = got = terminal.redraw()
    generation = terminal.alt_generation
    for part in parts[attach:]:
        terminal.feed(part)
        got += part
        if terminal.alt_generation != generation:
            generation = terminal.alt_generation
            got += terminal.redraw()
    return redraw, got


def compare(engine, judge: str, stream: bytes, fractions: list[float], where: float) -> None:
    parts = chunks(stream, fractions)
    redraw, got = attach_after(engine, parts, int(where * len(parts)))
    assert_same(JUDGES[judge](LEFT_OVER + got, ROWS, COLUMNS), JUDGES[judge](stream, ROWS, COLUMNS))
    assert answers_and_bells(redraw, ROWS, COLUMNS) == []


bounded = settings(max_examples=150, derandomize=True, deadline=None)


@bounded
@given(streams(screen_for_ghostty), cuts, st.floats(0, 1))
def test_replay_judged_by_ghostty(stream, fractions, where) -> None:
    compare(Replayed, "ghostty", stream, fractions, where)


@bounded
@given(streams(screen), cuts, st.floats(0, 1))
def test_replay_judged_by_pyte(stream, fractions, where) -> None:
    compare(Replayed, "pyte", stream, fractions, where)


@bounded
@given(streams(screen_for_ghostty), cuts, st.floats(0, 1))
def test_emulated_judged_by_ghostty(stream, fractions, where) -> None:
    compare(Emulated, "ghostty", stream, fractions, where)


@bounded
@given(streams(screen), cuts, st.floats(0, 1))
def test_emulated_judged_by_pyte(stream, fractions, where) -> None:
    compare(Emulated, "pyte", stream, fractions, where)


openings = [b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_", b"\xc2", b"\xe2\x94", b"[", b"]"]
whole = [b"\x1b[6n", b"\x1b[c", b"\x1bZ", b"\xc2\x9b", b"\xc2\x9a", b"\x1b[?1049h"]
rests = [
    b"6n",
    b"c",
    b"?",
    b">",
    b"52;c;YQ==",
    b"11;?",
    b"$p",
    b"q",
    b"$q",
    b"0",
    b";",
    b"t",
    b"\x9b",
]
controls = [b"\x1b\\", b"\x07", b"\x05", b"\x18", b"\n", b"\x00"]
pieces = st.sampled_from([*openings, *whole, *rests, *controls])


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.lists(pieces, max_size=12).map(b"".join))
def test_no_remains_become_a_query(data) -> None:
    """However sequences are nested and cut, what is left of them is never one that is answered."""
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(data)
    redraw = terminal.redraw()
    assert answers_and_bells(redraw, ROWS, COLUMNS) == []
    # As a terminal reads it that decodes UTF-8 first.
    decoded = redraw.replace(b"\xc2\x9b", b"\x1b[").replace(b"\xc2\x9a", b"\x1bZ")
    body = decoded[decoded.index(b"\x1b[2J") :]
    assert answers_and_bells(body, ROWS, COLUMNS) == []


@contextlib.contextmanager
def limits(limit: int, slack: int) -> Iterator[None]:
    """Limits that a few lines reach. (A fixture would be one for all examples.)"""
    names = ("NORMAL_LIMIT", "ALTERNATE_LIMIT", "SLACK")
    old = [getattr(recording_module, name) for name in names]
    try:
        for name, value in zip(names, (limit, limit, slack), strict=True):
            setattr(recording_module, name, value)
        yield
    finally:
        for name, value in zip(names, old, strict=True):
            setattr(recording_module, name, value)


clears = st.sampled_from(["\x1b[H\x1b[2J", "\x1b[2J\x1b[H", "\x1b[1;1H\x1b[2J", "\x1b7", "\x1b8"])


@bounded
@given(
    st.lists(st.one_of(screen_for_ghostty, clears), max_size=8).map("".join),
    cuts,
    st.integers(60, 200),
)
def test_replay_after_a_clear(shown, fractions, limit) -> None:
    """What is not lost is right, whatever was dropped before it was cleared."""
    stream = b"\x1b[?1049h" + shown.encode()
    terminal = Replayed(ROWS, COLUMNS)
    with limits(limit, 40):
        for part in chunks(stream, fractions):
            terminal.feed(part)
        if terminal.lost:
            return
        got = LEFT_OVER + terminal.redraw()
    for after in (b"", b"x\x1b8y\r\nz"):
        plain = JUDGES["ghostty"](stream + after, ROWS, COLUMNS)
        assert_same(JUDGES["ghostty"](got + after, ROWS, COLUMNS), plain)


@pytest.mark.parametrize("judge", list(JUDGES))
@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.lists(screen, min_size=3, max_size=10), st.integers(0, 50))
def test_replay_that_overflows(judge, screens, lines) -> None:
    """What a fold keeps of dropped output is right: the screen after it is the same."""
    fed = b"".join(s.encode() for s in screens)
    # The last screen of the output is complete, so that nothing shown is of what was dropped.
    fed += b"\x1b[?7h\x1b[4l\x1b[m\x1b[r\x1b[6;1H" + b"0123456\r\n" * (ROWS + lines)
    with limits(80, 20):
        terminal = Replayed(ROWS, COLUMNS)
        for part in chunks(fed, [i / 20 for i in range(20)]):
            terminal.feed(part)
        redraw = terminal.redraw()
    shown = JUDGES[judge](LEFT_OVER + redraw, ROWS, COLUMNS)
    plain = JUDGES[judge](fed, ROWS, COLUMNS)
    assert_same(shown, plain)
    assert len(re.findall(rb"0123456\r\n", redraw)) >= ROWS
