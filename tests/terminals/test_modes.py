"""Recordings: what is replayed of sequences that do more than draw, and what must not be."""

from __future__ import annotations

import re

import pytest
from recordings import COLUMNS, MODES, ROWS, check, flood
from terminal_engines import Replayed
from terminal_judges import JUDGES, LEFT_OVER, answers_and_bells, assert_same, too_long_for_some

from wsep_sync.terminals import recording as recording_module

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("helping")]


# Attaching in the midst of a sequence or a character

STREAM = (
    "a\u00e9日本🎉\x1b[1;31mred\x1b[0m\x1b]0;title\x07\x1b]2;other\x1b\\\x1b[?2004h\x1b[2;5r\x1b[3;3H"
    "\x1bP$qm\x1b\\\x1b7\x1b[5;1H\x1b8x\x1b[?1049h\x1b[H\x1b[38;2;1;2;3malt\x1b[?1049l\x1b#8\x1b_apc\x1b\\"
    "\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\\x1b[r\x1b[4;4Hend"
).encode()


@pytest.mark.parametrize("judge", list(JUDGES))
def test_attach_at_every_byte(engine, judge) -> None:
    # pyte's DECALN (ESC # 8) leaves the cursor and the margins alone.
    stream = STREAM.replace(b"\x1b#8", b"") if judge == "pyte" else STREAM
    never_left = JUDGES[judge](stream, ROWS, COLUMNS)
    for cut in range(len(stream) + 1):
        terminal = engine(ROWS, COLUMNS)
        terminal.feed(stream[:cut])
        got = LEFT_OVER + terminal.redraw()
        generation = terminal.alt_generation
        for byte in stream[cut:]:
            terminal.feed(bytes([byte]))
            got += bytes([byte])
            if terminal.alt_generation != generation:
                generation = terminal.alt_generation
                got += terminal.redraw()
        assert_same(JUDGES[judge](got, ROWS, COLUMNS), never_left)


# What must not be replayed

QUERIES = {
    "BEL": b"\x07",
    "ENQ": b"\x05",
    "DA1": b"\x1b[c",
    "DA1 0": b"\x1b[0c",
    "DA2": b"\x1b[>c",
    "DA3": b"\x1b[=c",
    "DECID": b"\x1bZ",
    "DSR": b"\x1b[5n",
    "CPR": b"\x1b[6n",
    "DECXCPR": b"\x1b[?6n",
    "colour scheme": b"\x1b[?996n",
    "DECRQM": b"\x1b[?2026$p",
    "DECRQM ansi": b"\x1b[4$p",
    "XTVERSION": b"\x1b[>q",
    "XTVERSION 0": b"\x1b[>0q",
    "window size": b"\x1b[18t",
    "window pixels": b"\x1b[14t",
    "title report": b"\x1b[21t",
    "minimize": b"\x1b[2t",
    "DECREQTPARM": b"\x1b[x",
    "kitty keyboard": b"\x1b[?u",
    "XTSMGRAPHICS": b"\x1b[?1;1;0S",
    "XTQMODKEYS": b"\x1b[?4m",
    "DECRQCRA": b"\x1b[1;1;1;1;2;2*y",
    "DECRQPSR": b"\x1b[1$w",
    "media copy": b"\x1b[5i",
    "DECRQSS": b"\x1bP$qm\x1b\\",
    "XTGETTCAP": b"\x1bP+q544e\x1b\\",
    "DECUDK": b"\x1bP0;1|17/17\x1b\\",
    "OSC 4": b"\x1b]4;1;?\x07",
    "OSC 4 mixed": b"\x1b]4;1;#123456;2;?\x07",
    "OSC 10": b"\x1b]10;?\x07",
    "OSC 11": b"\x1b]11;?\x1b\\",
    "OSC 12 after others": b"\x1b]10;#111111;#222222;?\x07",
    "OSC 52 copy": b"\x1b]52;c;c2VjcmV0\x07",
    "OSC 52 paste": b"\x1b]52;c;?\x07",
    "OSC 5522": b"\x1b]5522;type=read;Lg==\x1b\\",
    "OSC 9": b"\x1b]9;ding\x07",
    "OSC 777": b"\x1b]777;notify;ding;dong\x1b\\",
    "OSC 99": b"\x1b]99;i=1;ding\x1b\\",
    "OSC 1337": b"\x1b]1337;ReportCellSize\x07",
    "OSC 50": b"\x1b]50;?\x07",
    "OSC 21": b"\x1b]21;foreground=?\x1b\\",
    "kitty graphics": b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    "encoded CSI": b"\xc2\x9b6n",
    "encoded DECID": b"\xc2\x9a",
    "encoded OSC": b"\xc2\x9d9;message\x07",
    "BEL within": b"\x1b[\x076n",
    "C0 after ESC": b"\x1b\x07[6n",
    "joined by removal": b"\x1b\x1b[6n[6n",
    "joined by removal of BEL": b"\x1b[\x076\x07n",
    "aborted and joined": b"\x1b[\x1b[6n6n",
    "joined characters": b"\xc2\x1b[6n\x9b6n",
    "joined by removal of C1": b"\x1b\xc2\x9b[6n",
    "many lead bytes": b"\xc2\xc2\x9b6n",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_nothing_is_answered_or_acted_upon(engine, query) -> None:
    for before in (b"one" + query + b"two", b"one\x1b[?1049h\x1b[Hone" + query + b"two"):
        terminal = engine(ROWS, COLUMNS)
        terminal.feed(before)
        redraw = terminal.redraw()
        assert answers_and_bells(redraw) == []
        assert b"one" in redraw
        assert b"two" in redraw
        # A terminal that is not the judge may know more of them. None is in there, in any form.
        assert (
            re.search(
                rb"\x1b\[[<=>?]?[\d;]*(?:[cntxi]|\$p)|\x1b\[[>?][\d;]*q|\xc2[\x90-\x9f]", redraw
            )
            is None
        )
        assert (
            re.search(rb"\x1b\[\?[\d;]*[uSm]|\x05|52;|\$q|\+q|\?(?:\x07|\x1b)|ding", redraw) is None
        )
        assert b"\x07" not in re.sub(rb"\x1b\][^\x1b\x07]*\x07", b"", redraw)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_cut_in_two_is_live(engine, query) -> None:
    for cut in range(len(query)):
        terminal = engine(ROWS, COLUMNS)
        terminal.feed(b"one" + query[:cut])
        assert answers_and_bells(terminal.redraw()) == []


def test_titles_have_no_controls(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(
        "\x1b]2;Лиж\u009bд \x07\x1b]8;;http://x/\u009a\x07\x1b]11;?".encode() + b"\x9a\x1b\\"
    )
    redraw = terminal.redraw()
    assert answers_and_bells(redraw) == []
    assert "Лижд".encode() in redraw
    assert re.search("[\u0080-\u009f]", redraw.decode()) is None


def test_images_and_colours_are_kept() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    sixel = b"\x1bP0;1q#0;2;0;0;0#0!10~\x1b\\"
    terminal.feed(sixel + b"\x1b]4;1;#123456\x07\x1b]11;#101010\x07\x1b]8;;http://x/\x07x")
    redraw = terminal.redraw()
    for kept in (sixel, b"]4;1;#123456", b"]11;#101010", b"]8;;http://x/"):
        assert kept in redraw


def test_colours_that_are_reset_are_not_kept() -> None:
    terminal = Replayed(ROWS, COLUMNS)

    def forget(colours: bytes) -> bytes:
        flood(terminal, colours, b"0123456\r\n", 2 * recording_module.NORMAL_LIMIT)
        return terminal.redraw()

    redraw = forget(b"\x1b]4;1;#123456;2;#234567\x07\x1b]104;1\x07")
    assert b"#123456" not in redraw
    assert b"#234567" in redraw
    assert b"#234567" not in forget(b"\x1b]104\x07")


# Modes


@pytest.mark.parametrize("modes", MODES.values(), ids=MODES)
def test_modes_are_restored_and_not_left_on(engine, judge, modes) -> None:
    check(engine, judge, b"one\r\n" + modes, b"two")
    check(engine, judge, b"one\r\n\x1b[?1049h" + modes + b"\x1b[H", b"two")
    with_modes, without = engine(ROWS, COLUMNS), engine(ROWS, COLUMNS)
    with_modes.feed(b"one" + modes)
    without.feed(b"one")
    shown = judge(with_modes.redraw() + without.redraw(), ROWS, COLUMNS)
    assert_same(shown, judge(b"one", ROWS, COLUMNS))


@pytest.mark.parametrize("number", [2026, 1048])
def test_modes_that_are_never_left_on(engine, number) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"one\x1b[?%d;1h\x1b[?2004;%dh" % (number, number))
    if number == 2026:
        assert b"2026h" not in terminal.redraw()
        assert b"2026;" not in terminal.redraw()
    shown = JUDGES["ghostty"](LEFT_OVER + terminal.redraw(), ROWS, COLUMNS)
    assert shown.modes == {b"\x1b[?1h", b"\x1b[?2004h"}


# All that a program can set, each in a sequence of its own.
EVERYTHING = b"".join(
    (
        *(
            b"\x1b[?%dh" % mode
            for mode in (1, 5, 6, 9, 45, 66, 69, *range(1000, 1008), 1015, 1016, 2004, 2031, 2048)
        ),
        b"\x1b[4h\x1b[20h\x1b=\x1b[>4;2m\x1b[>1u\x1b[>5u\x1b[4 q\x1b[2;5r\x1b[3;18s",
        *(b"\x1b[%dm" % code for code in (1, 2, 3, 5, 7, 8, 9, 11, 53)),
        b"\x1b[4:3m\x1b[38;2;101;102;103m\x1b[48;2;201;202;203m\x1b[58;2;111;112;113m",
    )
)


@pytest.mark.parametrize("where", ["", "saved", "alternate", "entered", "left", "evicted"])
def test_no_sequence_is_too_long_for_some_terminal(engine, where) -> None:
    terminal = engine(ROWS, COLUMNS)
    if where == "alternate":
        terminal.feed(b"\x1b[?1049h")
    terminal.feed(EVERYTHING + b"x")
    if where == "saved":
        terminal.feed(b"\x1b7\x1b[m")
    elif where == "entered":
        terminal.feed(b"\x1b[?1049h")
    elif where == "left":
        terminal.feed(b"\x1b[?47h" + EVERYTHING + b"\x1b[?47l")
    elif where == "evicted":
        flood(terminal, b"", b"0123456\r\n", 2 * recording_module.NORMAL_LIMIT)
    redraw = terminal.redraw()
    assert b"\x1b[?1003h" in redraw
    assert re.search(rb"[\[;]48[;:]2[;:]+201[;:]202[;:]203m", redraw)
    assert too_long_for_some(redraw) == []
