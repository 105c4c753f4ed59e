"""Recordings: what their redraws make other emulators show."""

from __future__ import annotations

import re

import pyte.screens
import pytest
from recordings import COLUMNS, ROWS, attached, check
from terminal_engines import Emulated, Replayed
from terminal_judges import JUDGES, LEFT_OVER, assert_same, ghostty

from wsep_sync.terminals import recording as recording_module

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("helping")]


# What is on the screen

SCREENS = {
    "nothing": b"",
    "a line": b"one\r\n",
    "no newline": b"$ ls",
    "blank last rows": b"one\r\n\r\ntwo\r\n\r\n\r\n",
    "full": b"\r\n".join(b"line %d" % i for i in range(ROWS)),
    "full and blank": b"".join(b"line %d\r\n" % i for i in range(ROWS)),
    "scrolled": b"".join(b"line %d\r\n" % i for i in range(3 * ROWS)),
    "scrolled blanks": b"x\r\n" + b"\r\n" * 3 * ROWS,
    "exactly full row": b"0123456789" * 2,
    "exactly full screen": b"0123456789" * (COLUMNS * ROWS // 10),
    "wrapped": b"0123456789" * 3,
    "full row and newline": b"0123456789" * 2 + b"\r\nx",
    "coloured": b"\x1b[1;31mred\x1b[0m \x1b[38;5;200;48;2;1;2;3mmany\x1b[7mreverse",
    "coloured blanks": b"\x1b[44m   \r\n\x1b[K\r\nx",
    "scrolled colour": b"\x1b[41m" + b"a\r\n" * 3 * ROWS + b"\x1b[0m",
    "coloured clear": b"\x1b[42m\x1b[2J\x1b[Hx",
    "cursor in the midst": b"one\r\ntwo\r\nthree\x1b[2;2H",
    "cursor below": b"one\x1b[5;7H",
    "erased": b"one two\x1b[4D\x1b[K\r\nfour\x1b[1K",
    "tabs": b"a\tb\tc\r\n",
    "wide": "日本語 ｱ ö e\u0301\r\n".encode(),
    "wide wraps": b"0123456789012345678" + "日本".encode(),
    "margins": b"top\x1b[2;4r\x1b[4;1Ha\r\nb\r\nc\r\nd",
    "margins and origin": b"top\x1b[2;4r\x1b[?6h\x1b[2;3Hin",
    "insert mode": b"abc\x1b[4h\x1b[2G",
    "no wrap": b"\x1b[?7labc",
    "hidden cursor": b"abc\x1b[?25l",
    "line drawing": b"\x1b(0lqqk",
    "shifted line drawing": b"\x1b)0\x0elqq",
    "shifted back": b"\x1b)0\x0elqq\x0fab",
    "title": b"\x1b]0;first\x07\x1b]2;second\x1b\\text",
    "lines inserted": b"1\r\n2\r\n3\x1b[2;1H\x1b[L\x1b[P",
    "alignment": b"\x1b#8\x1b[3;3H\x1b[J",
    "cleared": b"one\r\ntwo\x1b[H\x1b[2Jthree",
    "cleared with scrollback": b"one\r\ntwo\x1b[H\x1b[2J\x1b[3Jthree",
    "full reset": b"one\x1b[31m\x1b[2;3r\x1b[?1h\x1b]0;x\x07\x1bc" + b"two",
    "index at the bottom": b"\x1b[6;1Habc\x1bD\x1bM",
    "progress": b"10%\r20%\r30%",
    "control in a sequence": b"one\x1b[\r3\n1mtwo",
    "styled gaps": b"\x1b[7;4mab\x1b[m\x1b[1;9Hcd\r\n\x1b[41mef\x1b[m\tgh\x1b[42m\x1b[K\x1b[m",
    "styled spaces": b"\x1b[4ma b  \x1b[mc\r\n\x1b[9m\xe6\x97\xa5 e\xcc\x81 \x1b[m\x1b[2;15Hx",
    "aborted": b"one\x1b[3\x18two\x1b]0;x\x18three",
}

AFTER = [
    b"",
    b"next",
    b"\r\nnext\r\n",
    b"\x1b[A+\x1b[2B-\x1b[G*\x08",
    b"0123456789" * 5,
    b"\x1b[6;1H\n\nnext",
]


@pytest.mark.parametrize("before", SCREENS.values(), ids=SCREENS)
def test_screen_and_next_bytes(engine, judge, before) -> None:
    if judge is JUDGES["pyte"] and before in NOT_FOR_PYTE:
        judge = JUDGES["ghostty"]
    for after in AFTER:
        check(engine, judge, before, after)


# pyte has no charsets in UTF-8, and no wide characters that wrap; it goes on with a string after
# CAN, and erases and scrolls whole screens without colour.
NOT_FOR_PYTE = {
    SCREENS[name]
    for name in (
        "line drawing",
        "shifted line drawing",
        "shifted back",
        "wide wraps",
        "aborted",
        "coloured clear",
        "scrolled colour",
    )
}


@pytest.mark.parametrize("screen", ["", "\x1b[?1049h\x1b[H"], ids=["normal", "alternate"])
@pytest.mark.parametrize("columns", [7, COLUMNS])
def test_a_full_row_without_autowrap(engine, judge, columns, screen) -> None:
    for end in ("qq", "漢"):
        before = f"one\r\n{screen}\x1b[?7l{'q' * (columns - 2)}{end}".encode()
        for after in (b"", b"\bZ", b"Z", b"\x1b[?7hZ", b"\x1b[KZ", b"\r\nZ"):
            terminal = engine(ROWS, columns)
            terminal.feed(before)
            shown = judge(LEFT_OVER + terminal.redraw() + after, ROWS, columns)
            assert_same(shown, judge(before + after, ROWS, columns))


@pytest.mark.parametrize("before", SCREENS.values(), ids=SCREENS)
def test_in_alternate_screen_and_after(engine, judge, before) -> None:
    if before == SCREENS["full reset"]:
        before = before.replace(b"\x1bc", b"\x1b[m")
    if judge is JUDGES["pyte"] and before in NOT_FOR_PYTE:
        judge = JUDGES["ghostty"]
    vi = b"$ vi\r\n\x1b[?1049h\x1b[H" + before
    assert check(engine, judge, vi).in_alt
    assert b"$ vi" not in attached(engine, vi)
    check(engine, judge, vi, b"\x1b[H\x1b[Jagain")
    check(engine, judge, vi + b"\x1b[r\x1b[?6l\x1b[?1049l", b"$ ")


def test_lines_end_in_newlines(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"$ seq 3\r\n1\r\n2\r\n3\r\n$ ")
    assert re.search(rb"1\r?\n2\r?\n3\r?\n\$ ", terminal.redraw())


def test_long_lines_stay_in_one_piece(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    line = bytes(range(0x30, 0x70))
    terminal.feed(
        b"\r\n" + line + b"\r\n" + line[:COLUMNS] + b"\r\n\x1b[32m" + line + b"\x1b[m\r\n$ "
    )
    redraw = re.sub(rb"\x1b\[[\d;]*m", b"", terminal.redraw())
    assert b"\n" + b"\r\n".join((line, line[:COLUMNS], line, b"$ ")) in redraw


def test_scrollback_is_replayed(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"".join(b"line %d\r\n" % i for i in range(500)))
    contents = ghostty(LEFT_OVER + terminal.redraw(), ROWS, COLUMNS).contents()
    # What the prior state left in the scrollback of this one comes first.
    assert contents.split("\n")[-500:] == [f"line {i}" for i in range(500)]


DISPUTED = {
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flag": "\U0001f1e9\U0001f1ea",
    "keycap": "1\ufe0f\u20e3",
    "emoji by selector": "\u263a\ufe0f",
    "skin tone": "\U0001f44d\U0001f3fd",
    "new emoji": "\U0001fae9",
    "hangul in parts": "\u1112\u1161\u11ab",
}


@pytest.mark.parametrize("disputed", DISPUTED.values(), ids=DISPUTED)
@pytest.mark.parametrize("width", [0, 1, 2, 4])
def test_rows_stay_rows_where_widths_are_disputed(disputed, width, monkeypatch) -> None:
    # The user's terminal has another table of widths than the emulator.
    usual = pyte.screens.wcwidth
    for room in range(6):
        before = ("x" * (COLUMNS - room) + disputed + "|\r\nnext\r\n").encode()
        for repeated in (1, ROWS):
            terminal = Emulated(ROWS, COLUMNS)
            terminal.feed(before * repeated + b"$ ")
            redraw = terminal.redraw()
            # A row must not join what another begins with.
            assert "\u200d\x1b[?7h\r".encode() not in redraw
            at = [int(n) for n in re.findall(rb"\x1b\[(\d+);3H", redraw)]
            assert at
            odd = set(disputed[disputed[0] == "1" :])
            with monkeypatch.context() as patch:
                patch.setattr(
                    pyte.screens,
                    "wcwidth",
                    lambda c, odd=odd: (width, 0)[c in "\u200d\ufe0f"] if c in odd else usual(c),
                )
                shown = JUDGES["pyte"](LEFT_OVER + redraw, ROWS, COLUMNS)
            rows = ["".join(cell[0] for cell in row).rstrip() for row in shown.cells]
            assert shown.cursor[:2] == (at[-1] - 1, 2)
            assert rows[at[-1] - 2 : at[-1]] == ["next", "$"]
            assert rows[at[-1] :] == [""] * (ROWS - at[-1])


def test_only_a_row_of_disputed_width_is_not_joined() -> None:
    line = "a" * 2 * COLUMNS + DISPUTED["flag"] + "b" * 3 * COLUMNS + "日本e\u0301" * 20
    terminal = Emulated(20, COLUMNS)
    terminal.feed(line.encode() + b"\r\n$ ")
    redraw = terminal.redraw()
    assert b"a" * 2 * COLUMNS + b"\r\n" in redraw
    assert b"\r\n" + b"b" * (2 * COLUMNS + 4) + ("日本e\u0301" * 20).encode() + b"\r\n$" in redraw


@pytest.mark.parametrize("after", ["", "Z", "\r\nZ", "\bZ"])
def test_a_mark_in_the_last_cell_stays_there(after) -> None:
    full = DISPUTED["flag"] + "x" * (COLUMNS - 5) + "e\u0301"
    for before in (full, f"\x1b[31m{full}\x1b[m\r\n", full + "x"):
        check(Emulated, JUDGES["ghostty"], before.encode(), after.encode())


def test_a_mark_that_has_no_room_is_not_another_cells() -> None:
    keycap = DISPUTED["keycap"]
    for after in (b"", b"\r\n", b"x"):
        terminal = Emulated(ROWS, COLUMNS)
        terminal.feed((keycap + "x" * (COLUMNS - 2) + keycap).encode() + after)
        redraw = terminal.redraw()
        shown = ghostty(LEFT_OVER + redraw, ROWS, COLUMNS).contents().split("\n")
        assert "1\u20e3" + "x" * (COLUMNS - 2) + "1" in shown


def test_what_follows_an_emoji_in_parts_is_still_joined() -> None:
    terminal = Emulated(ROWS, COLUMNS)
    terminal.feed("next\r\n\U0001f468\u200d\r\n\r\n\U0001f468\u200d".encode())
    assert re.findall("\U0001f468.?", terminal.redraw().decode()) == [
        "\U0001f468\x1b",
        "\U0001f468\u200d",
    ]


# The alternate screen

SWITCHES = [
    pytest.param(b"\x1b[?1049h", b"\x1b[?1049l", id="1049"),
    pytest.param(b"\x1b7\x1b[?47h", b"\x1b[2J\x1b[?47l\x1b8", id="47"),
    pytest.param(b"\x1b7\x1b[?1047h", b"\x1b[?1047l\x1b8", id="1047"),
    pytest.param(b"\x1b[?1006;1049h", b"\x1b[?1049;1006l", id="1006 too"),
    pytest.param(b"\x1b[?1049;1006h", b"\x1b[?1006;1049l", id="1006 too, after"),
    pytest.param(b"\x1b[?1048h\x1b[?1047h", b"\x1b[?1047l\x1b[?1048l", id="1047 and 1048"),
    pytest.param(b"\x1b[?1049h\x1b[?1049h", b"\x1b[?1049l", id="1049 twice"),
]


@pytest.mark.parametrize(("enter", "leave"), SWITCHES)
def test_switches_split_at_every_byte(engine, enter, leave) -> None:
    whole = b"$ vi\r\n" + enter + b"\x1b[Hvi\x1b[?25l" + leave + b"\x1b[?25h$ "
    entered, left = whole.index(enter) + len(enter), whole.index(leave)
    for cut in range(len(whole) + 1):
        terminal = engine(ROWS, COLUMNS)
        terminal.feed(whole[:cut])
        if entered <= cut <= left:
            assert terminal.in_alt
            assert not terminal.lost
        terminal.feed(whole[cut:])
        assert not terminal.in_alt
        if entered <= cut <= left:
            assert terminal.alt_generation == 1
    for name in JUDGES:
        for cut in (0, 3, entered - 3, entered, entered + 4, left, left + 3, len(whole)):
            check(engine, JUDGES[name], whole[:cut], whole[cut:] if cut >= left + 9 else b"")
        check(engine, JUDGES[name], whole)


@pytest.mark.parametrize(("enter", "leave"), SWITCHES)
def test_redraw_in_alternate_screen_shows_that_alone(engine, judge, enter, leave) -> None:
    before = b"secret\r\n\x1b[32m$ vi\r\n" + enter + b"\x1b[H\x1b[mtext"
    assert b"secret" not in attached(engine, before)
    assert check(engine, judge, before, b" and more").in_alt
    # A redraw after it was left shows the normal screen, whatever was shown before.
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(before)
    first = terminal.redraw()
    terminal.feed(leave)
    shown = judge(LEFT_OVER + first + leave + terminal.redraw(), ROWS, COLUMNS)
    assert_same(shown, judge(before + leave, ROWS, COLUMNS))
    assert not shown.in_alt


@pytest.mark.parametrize("mode", [47, 1047])
@pytest.mark.parametrize(
    "text",
    ["\x1b[4;4Halt", "alt", "alt\r\n\x1b[31malt", "", "\x1b[2;2H" + "a" * 10000 + "\x1b[5;5Halt"],
    ids=["placed", "where it was", "below", "nothing", "long"],
)
def test_modes_that_leave_the_cursor_where_it_is(engine, judge, mode, text) -> None:
    inside = f"one\r\nnorm\x1b[?{mode}h{text}".encode()
    leave = b"\x1b[?%dl" % mode
    check(engine, judge, inside, b" and more")
    check(engine, judge, inside + leave, b"AFTER")
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(inside)
    got = LEFT_OVER + terminal.redraw() + leave
    terminal.feed(leave)
    shown = judge(got + terminal.redraw() + b"AFTER", ROWS, COLUMNS)
    assert_same(shown, judge(inside + leave + b"AFTER", ROWS, COLUMNS))


def test_modes_set_in_the_alternate_screen_outlive_it(engine, judge) -> None:
    before = b"$ \x1b[?1049h\x1b[?2004h\x1b[?1h\x1b=\x1b[31m\x1b(0\x1b]2;vi\x07\x1b[4h"
    check(engine, judge, before + b"\x1b[?1049l", b"ls")
    if judge is JUDGES["ghostty"]:  # pyte moves the restored cursor into the margins
        check(engine, judge, before + b"\x1b[2;4r\x1b[?1049l", b"ls")


def test_reset_without_alternate_screen(engine, judge) -> None:
    before = b"one\r\n\x1b[31mtwo"
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(before + b"\x1b[?1049l")
    assert terminal.alt_generation == 0
    if judge is JUDGES["ghostty"]:  # pyte goes home at an unsaved restore, with 1049 or without
        check(engine, judge, before + b"\x1b[?1049l", b"three")


def test_full_reset_leaves_the_alternate_screen(engine, judge) -> None:
    before = b"secret\x1b[?1049h\x1b[31m\x1b[?1h\x1b]0;secret\x07vi\x1bc"
    terminal = engine(ROWS, COLUMNS)
    for byte in before:
        terminal.feed(bytes([byte]))
    assert not terminal.in_alt
    assert terminal.alt_generation == 1
    assert b"secret" not in attached(engine, before)
    check(engine, judge, before, b"$ ")


def test_erased_scrollback_is_forgotten(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"secret\r\n" * 100 + b"\x1b[H\x1b[2J\x1b[3J$ ls\r\n")
    assert b"secret" not in terminal.redraw()
    assert b"$ ls" in terminal.redraw()


def test_alternate_overflow_is_lost() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"$ vi\x1b[?1049h")
    line = b"\x1b[2;2H\x1b[35mtext\x1b[?1h"
    for _ in range(recording_module.ALTERNATE_LIMIT // len(line * 100) + 2):
        terminal.feed(line * 100)
    assert terminal.lost
    # What remains known is known: the modes, and what is pending.
    terminal.feed(b"\x1b[?2004h\x1b]2;title\x07\x1b[3")
    shown = JUDGES["pyte"](LEFT_OVER + terminal.redraw() + b"m", ROWS, COLUMNS)
    assert shown.in_alt
    assert shown.modes == {1, 2004, 7, 25}
    assert shown.title == "title"
    # A program that paints anew makes the screen right again.
    paint = b"\x1b[m\x1b[H\x1b[2J" + b"painted"
    terminal.feed(b"m")
    shown = JUDGES["pyte"](LEFT_OVER + terminal.redraw() + paint, ROWS, COLUMNS)
    assert_same(
        shown,
        JUDGES["pyte"](b"\x1b[?1049h\x1b[?1;2004h\x1b]2;title\x07" + paint, ROWS, COLUMNS),
    )
    terminal.feed(b"\x1b[?1049l")
    assert not terminal.lost
    terminal.feed(b"\x1b[?1049hx")
    assert not terminal.lost


CLEARS = [b"\x1b[H\x1b[2J", b"\x1b[2J\x1b[H", b"\x1b[1;1H\x1b[2J", b"\x1b[2J\x1b[1;1H"]


@pytest.mark.parametrize("clear", CLEARS)
@pytest.mark.parametrize("cause", ["overflow", "resize"])
def test_a_cleared_screen_is_known_again(judge, cause, clear) -> None:
    before = b"$ vi\x1b[?1049h\x1b[?1;1004h\x1b[2;5r\x1b]2;title\x07"
    before += b"\x1b[Hold" + b"\x1b[2;2H\x1b[35mtext" * 10
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(before)
    if cause == "resize":
        terminal.resize(ROWS - 1, COLUMNS)
        terminal.resize(ROWS, COLUMNS)
    else:
        before += b"\x1b[2;2H\x1b[35mtext" * 100
        for _ in range(recording_module.ALTERNATE_LIMIT // 1000):
            terminal.feed(b"\x1b[2;2H\x1b[35mtext" * 100)
    assert terminal.lost
    paint = clear + b"\x1b[3;3Hpainted\x1b[?25l"
    terminal.feed(paint)
    assert not terminal.lost
    shown = judge(LEFT_OVER + terminal.redraw() + b"more", ROWS, COLUMNS)
    assert_same(shown, judge(before + paint + b"more", ROWS, COLUMNS))
    leave = b"\x1b[r\x1b[?1049l$ "
    terminal.feed(leave)
    shown = judge(LEFT_OVER + terminal.redraw(), ROWS, COLUMNS)
    assert_same(shown, judge(before + paint + leave, ROWS, COLUMNS))


@pytest.mark.parametrize(
    "paint",
    [
        b"\x1b[2Jpainted",
        b"\x1b[2;3H\x1b[2Jpainted",
        b"\x1b[H\x1b[Jpainted",  # in origin mode something is left above
        b"\x1b7\x1b[H\x1b[2J\x1b8painted",
    ],
    ids=["cursor", "not home", "below", "saved cursor"],
)
def test_a_screen_that_is_not_all_known(paint) -> None:
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"$ vi\x1b[?1049htext")
    terminal.resize(ROWS - 1, COLUMNS)
    terminal.feed(paint)
    assert terminal.lost


def test_a_program_that_clears_is_never_lost() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"$ watch\x1b[?1049h")
    frame = b"\x1b[H\x1b[2J" + b"\x1b[35mtext\r\n" * 5
    for _ in range(3 * recording_module.ALTERNATE_LIMIT // len(frame * 100)):
        terminal.feed(frame * 100)
        assert not terminal.lost
    assert len(terminal.redraw()) < 2 * recording_module.ALTERNATE_LIMIT


def test_links_and_keypad_mode_as_they_were(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(
        b"\x1b=one \x1b]8;id=7;http://x/\x1b\\\xe6\x97\xa5 link\x1b]8;;\x07 two\r\n"
        b"\x1b]8;;http://y/\x1b\\on"
    )
    redraw = terminal.redraw()
    assert b"\x1b=" in redraw
    assert b"\x1b[?66h" not in redraw
    links = r"\x1b\]8;[^;]*;(.*?)\x1b\\(.*?)(?=\x1b|\r|$)"
    found = re.findall(links, redraw[redraw.index(b"one") :].decode())
    assert ("http://x/", "日 link") in found
    assert ("http://y/", "on") in found


def test_saved_cursor(engine) -> None:
    # pyte keeps a stack of saved cursors, and doesn't wait for the restored one's wrap.
    before = b"one\r\n\x1b[31mtwo\x1b7\x1b[m\r\nthree"
    check(engine, JUDGES["ghostty"], before, b"\x1b8more")
    check(engine, JUDGES["ghostty"], b"one\x1b7\x1b[?1049h\x1b[2;2H\x1b7\x1b[5;5H", b"\x1b8x")
