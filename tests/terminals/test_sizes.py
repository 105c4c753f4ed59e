"""Recordings: redraws after a change of size, and what stays of lines at another width."""

from __future__ import annotations

import importlib
import re

import pytest
from recordings import COLUMNS, ROWS, check
from terminal_engines import Emulated, Replayed
from terminal_judges import JUDGES, LEFT_OVER, assert_same

from wsep_sync.terminals import redraw

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("helping")]


def test_size_changed_in_the_alternate_screen() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"$ vi\x1b[?1049htext\x1b[?1h")
    terminal.resize(ROWS, COLUMNS)
    assert not terminal.lost
    terminal.resize(ROWS - 1, COLUMNS)
    terminal.resize(ROWS, COLUMNS)
    assert terminal.lost
    shown = JUDGES["pyte"](LEFT_OVER + terminal.redraw(), ROWS, COLUMNS)
    assert_same(shown, JUDGES["pyte"](b"\x1b[?1049h\x1b[H\x1b[?1h", ROWS, COLUMNS))


@pytest.mark.parametrize("size", [(10, 30), (3, 10), (1, 1), (0, 0), (65535, 65535)])
def test_redraw_after_a_change_of_size(engine, size) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"one\r\ntwo\r\n$ ")
    terminal.resize(*size)
    terminal.feed(b"ls\r\nthree\r\n$ ")
    rows, columns = 10, 30
    if size == (10, 30):
        shown = JUDGES["pyte"](LEFT_OVER + terminal.redraw(), rows, columns)
        plain = JUDGES["pyte"](b"one\r\ntwo\r\n$ ls\r\nthree\r\n$ ", rows, columns)
        assert_same(shown, plain)
    else:
        # No helper is asked about the largest.
        assert redraw(terminal.snapshot())


@pytest.mark.parametrize("columns", [COLUMNS // 2 - 1, COLUMNS * 2])
def test_lines_that_were_overwritten_at_another_width(engine, columns) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"$ get\r\n\x1b[31m")
    for i in range(50):
        terminal.feed(b"\r[" + b"#" * (i // 3) + b"." * (17 - i // 3) + b"]")
    terminal.resize(20, columns)
    shown = JUDGES["pyte"](LEFT_OVER + terminal.redraw(), 20, columns)
    text = "".join("".join(cell[0] for cell in row).rstrip() for row in shown.cells)
    assert text == "$ get[" + "#" * 16 + ".]"
    assert shown.cells[1][0][1] != "default"


def test_a_link_does_not_make_a_row_longer() -> None:
    # Found by generated output: a row that was wrapped, and ends before the last column.
    terminal, again = Emulated(200, 2), Emulated(7, 80)
    terminal.feed(
        b"c\x1b(01004hhello worldhe"
        b"llo worl\xa7\x91\xa8\xe2\xf0\x9f\x91\xa7\x91\xa8\x91\xa9\x91\xa7"
        b"\x91\xa8\x91\xa9\x91\xa7\x91\xa8\x91\xa9\x91\xa7\x91\xa8\x91\xa9\x91\xa7\x91\xa8\x91\xa9"
        b"\x91\xa7\x91\xa8\x91\xa9\x91\xa7\x91\xa8\x91\xa9\x91\xa7\xf0\x9f\x91\xa8\x91\xa9(0"
        b"\x1b8\x1b]8;;t\x07\x89"
    )
    terminal.resize(7, 80)
    redraw = terminal.redraw()
    again.feed(redraw)
    assert again.redraw() == redraw


def test_an_unfinished_character_does_not_move_what_was_saved(engine, judge) -> None:
    full = b"a" * (COLUMNS - 1)
    before = full + b"b\x1b7\r\n" + full + b"c" + b"\r\n" * (ROWS - 2) + full + b"d\xe2\x94"
    check(engine, judge, before)


# Of each line, what is gone from the screen, if that is certain; with no more columns than 40.
REWRITTEN = [
    ("name\r\x1b[20Cvalue", ""),
    ("Password for root:\r\x1b[18C", ""),
    ("long text\rab", ""),
    ("long text\rab\x1b[1K", ""),
    ("long text\r\x1b[10Gab", ""),
    ("long text\r\tab", ""),
    ("one\ntwo\rab", ""),
    ("日本語\rabc", ""),
    ("\x1b[4hlong text\rlonger text", ""),
    # docker pull
    ("layer a: x\r\nlayer b: x\r\n\x1b[2A\x1b[2K\rlayer a: done\r\x1b[2B", ""),
    ("b: x\r\n\x1b[1A\x1b[2K\rb: done\r\x1b[1B", ""),
    ("one\r\ntwo\r\nold\rnew\x1b[2A\r\n12\r3", ""),
    ("one\r\x1b[Btwo\rthree", ""),
    ("one\r\x1b7two\r\x1b8three", ""),
    # zsh
    ("%" + " " * 39 + "\r \r\r\x1b[0m\x1b[27m\x1b[24m\x1b[J$ ls", "%  "),
    ("x" * 40 + "\rab\x1b[K", "x"),
    ("\x1b[1mlong\r\x1b[2K\x1b[mab", "long"),
    ("long\rab\x1b[K\rxyz", "long"),
    ("one\r\x1b[3Clong\rab\x1b[K\rxyz", "ab"),
    ("\x1b[31mlong\r\x1b[?25lgone", "long"),
    ("日本語\r漢字漢字", "日本語"),
]


@pytest.mark.parametrize(("printed", "gone"), REWRITTEN)
@pytest.mark.parametrize("columns", [45, 60])
def test_what_stays_of_a_line_at_another_width(printed, gone, columns) -> None:
    terminal = Replayed(10, 40)
    printed = b"$ \r\n" + printed.encode()
    terminal.feed(printed)
    terminal.resize(10, columns)
    redraw = terminal.redraw()
    shown = JUDGES["pyte"](LEFT_OVER + redraw, 10, columns)
    assert_same(shown, JUDGES["pyte"](printed, 10, columns))
    assert not gone or gone.encode() not in redraw


@pytest.mark.parametrize("kind", [b"\x1b", b"\x1b=", b"\x1b[6n\x1b[c", b"\x1b]8;;http://x\x1b\\"])
def test_what_comes_very_often_is_looked_at_once(kind, monkeypatch) -> None:
    looked = []
    replay_module = importlib.import_module("wsep_sync.terminals.replay")
    look = replay_module._filter_sequence
    monkeypatch.setattr(
        replay_module, "_filter_sequence", lambda raw: looked.append(raw) or look(raw)
    )
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"a" + kind * 10_000 + b"[1mb")
    terminal.redraw()
    assert 0 < len(looked) < 10


def test_many_esc_are_as_good_as_two() -> None:
    redraws = []
    for count in range(1, 6):
        terminal = Replayed(ROWS, COLUMNS)
        more = b"\x1b" * count
        terminal.feed(
            b"one" + more + b"[31mtwo\x1b]8;;http://x" + more + b"\\three" + more + b"[mend"
        )
        redraws.append(terminal.redraw())
    # One ends the link's string, two have aborted it: it is shown, or left out.
    assert redraws[0] != redraws[1]
    assert redraws[1:] == [redraws[1]] * 4


def test_what_wraps_hides_nothing_at_another_width() -> None:
    terminal = Replayed(10, 40)
    terminal.feed(b"\r\n" + b"x" * 45 + b"\r" + b"y" * 45)
    terminal.resize(10, 45)
    assert b"x" * 45 in terminal.redraw()


@pytest.mark.parametrize("before", ["\x1b[?1049h\x1b[H", "\x1b[?7l"], ids=["alternate", "no-wrap"])
@pytest.mark.parametrize(
    ("lines", "widths", "after", "plain"),
    [
        (
            "\x1b[31m漢字漢字\x1b[m\r\nab🎉🎉🎉\r\nend",
            (8, 7),
            "",
            "\x1b[31m漢字漢\x1b[m\r\nab🎉🎉\r\nend",
        ),
        ("漢字漢字\r\nend", (8, 7, 10), "\x1b[1;10Hx", "漢字漢   x\r\nend\x1b[1;10Hx"),
        ("漢字漢字\r\nend\x1b7\x1b[1;8H", (8, 7), "", "漢字漢\r\nend\x1b7\x1b[1;7H"),
        ("\r\n漢字漢字", (8, 7), "", "\r\n漢字漢 "),
        ("\r\n漢字漢字\x1b7\r\n", (8, 7), "", "\r\n漢字漢 \x1b7\r\n"),
    ],
    ids=["smaller", "and larger again", "cursor there", "cursor after", "saved cursor after"],
)
def test_half_of_a_wide_character_is_blank(judge, before, lines, widths, after, plain) -> None:
    terminal = Emulated(ROWS, widths[0])
    terminal.feed((before + lines).encode())
    for columns in widths[1:]:
        terminal.resize(ROWS, columns)
        terminal.feed(b"\x1b[m")  # sizes between which nothing comes are not recorded
    terminal.feed(after.encode())
    shown = judge(LEFT_OVER + terminal.redraw(), ROWS, widths[-1])
    assert_same(shown, judge((before + plain).encode(), ROWS, widths[-1]))


def test_switching_the_width_leaves_the_size_of_a_redraw_alone() -> None:
    terminal = Emulated(ROWS, COLUMNS)
    terminal.feed(b"\x1b[?40h\x1b[?3h\x1b[?3l\x1b[1;60H")
    cursors = re.findall(rb"\x1b\[\d+;(\d+)H", terminal.redraw())
    assert max(map(int, cursors)) <= COLUMNS


def test_switching_the_width_cuts_characters(judge) -> None:
    terminal = Emulated(ROWS, COLUMNS - 1)
    before = "\x1b[?1049h\x1b[?40h\x1b[?3h\x1b[H"
    terminal.feed((before + "漢字" * 20 + "\r\nend").encode())
    shown = judge(LEFT_OVER + terminal.redraw(), ROWS, COLUMNS - 1)
    plain = "\x1b[?1049h\x1b[H" + "漢字" * 4 + "漢\r\nend"
    assert_same(shown, judge(plain.encode(), ROWS, COLUMNS - 1))
