"""Recordings: what is kept when output is beyond the limit of the ring, and replies."""

from __future__ import annotations

import re

import pytest
from recordings import COLUMNS, MODES, ROWS, flood
from terminal_engines import Replayed
from terminal_judges import JUDGES, LEFT_OVER, assert_same, ghostty

from wsep_sync.terminals import recording as recording_module

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("helping")]


@pytest.mark.parametrize("modes", MODES.values(), ids=MODES)
def test_modes_of_evicted_output(modes) -> None:
    terminal = Replayed(ROWS, COLUMNS)
    fed = flood(terminal, modes, b"0123456\r\n", 2 * recording_module.NORMAL_LIMIT)
    redraw = terminal.redraw()
    assert len(redraw) < len(fed) * 0.8
    # pyte takes seconds for as much.
    assert_same(
        JUDGES["ghostty"](LEFT_OVER + redraw, ROWS, COLUMNS), JUDGES["ghostty"](fed, ROWS, COLUMNS)
    )


@pytest.mark.parametrize(
    "line",
    [
        b"\x1b[01;34mdirectory\x1b[0m\r\n",
        b"\x1b[32mgreen \x1b[1mbold\r\n",
        b"no newline ",
        "äöü日本".encode(),
        b"\x1b[5;5H\x1b[7mstatus\x1b[m\x1b[1;1H\x1b[2K12:34:56",
    ],
    ids=["ls", "colours stay", "no newline", "characters", "status"],
)
def test_evicted_lines(line) -> None:
    terminal = Replayed(ROWS, 22)
    fed = flood(terminal, b"", line, 2 * recording_module.NORMAL_LIMIT)
    redraw = terminal.redraw()
    assert len(redraw) < len(fed) * 0.8
    shown = JUDGES["pyte"](LEFT_OVER + redraw, ROWS, 22)
    plain = JUDGES["pyte"](fed, ROWS, 22)
    if b"\n" in line or b"H" in line:
        assert_same(shown, plain)
    else:  # where in a line the ring begins is not known
        assert shown.cursor[0] == plain.cursor[0]
        assert "\ufffd" not in str(shown.cells)


def test_an_image_longer_than_the_ring_never_becomes_text() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"one\r\n\x1bP0;1q")
    for _ in range(100):
        terminal.feed(b"#0!10~\n" * 1000)
    assert terminal._normal.size < 2 * recording_module.NORMAL_LIMIT
    terminal.feed(b"\x1b\\two")
    assert "#" not in ghostty(terminal.redraw(), ROWS, COLUMNS).contents()
    assert "two" in ghostty(terminal.redraw(), ROWS, COLUMNS).contents()


def test_one_chunk_larger_than_the_ring() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    terminal.feed(b"".join(b"line %d\r\n" % i for i in range(100_000)))
    redraw = terminal.redraw()
    assert b"line 99999\r\n" in redraw
    lines = re.findall(rb"line \d+\r\n", redraw)
    assert (
        recording_module.NORMAL_LIMIT <= sum(map(len, lines)) < recording_module.NORMAL_LIMIT * 1.3
    )
    assert re.search(rb"\x1b7line \d", redraw), "it begins with a whole line"


def test_many_small_chunks_take_little_memory() -> None:
    terminal = Replayed(ROWS, COLUMNS)
    for _ in range(100_000):
        terminal.feed(b"x")
    assert len(terminal._normal._chunks) < 100


def test_endless_parameters_are_no_error(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    for sequence in (
        b"\x1b[?%bh",
        b"\x1b[%bm",
        b"\x1b[%b;1H",
        b"\x1b[?%bl",
        b"\x1b[%bt",
        b"\x1b]%b;x\x07",
    ):
        for parameters in (b"9" * 10_000, b";" * 10_000, b"1:" * 5000):
            terminal.feed(sequence % parameters)
            terminal.feed(b"\x1b[?1049h" + sequence % parameters + b"\x1b[?1049l")
            terminal.replies(sequence % parameters)
    assert terminal.redraw()


# Replies


@pytest.mark.parametrize(
    ("query", "reply"),
    [
        (b"\x1b[c", b"\x1b[?62;22c"),
        (b"\x1b[0c", b"\x1b[?62;22c"),
        (b"\x1b[5n", b"\x1b[0n"),
        (b"\x1b[6n", b"\x1b[2;4R"),
        (b"\x1b[999;999H\x1b[6n", b"\x1b[6;20R"),
        (b"\x1b7\x1b[999;999H\x1b[6n\x1b8", b"\x1b[6;20R"),
        (b"\x1b[3;5H\x1b[6n\x1b[c", b"\x1b[3;5R\x1b[?62;22c"),
        (b"\x1b[?1049h\x1b[2;2Hab\x1b[6n", b"\x1b[2;4R"),
        (b"\r\n" * 10 + "日本\t\b\b".encode() + b"\x1b[6n", b"\x1b[6;7R"),
        (b"\x1b[2;3r\x1b[3;1H\n\nxy\x1b[6n", b"\x1b[3;3R"),
        (b"\x1b[1;19Habcd\x1b[A\x1b[6n", b"\x1b[1;3R"),
        (b"plain text", b""),
        (b"\x1b]11;?\x07\x1b[>q\x1b[18t", b""),
    ],
)
def test_replies(engine, query, reply) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"one\r\ntwo")
    terminal.feed(query)
    assert terminal.replies(query) == reply


def test_reply_to_secondary_attributes(engine) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(b"\x1b[>c")
    assert re.fullmatch(rb"\x1b\[>1;\d+;0c", terminal.replies(b"\x1b[>c"))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_feed_takes_any_buffer(engine, kind) -> None:
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(kind(b"one\x1b[?10"))
    terminal.feed(kind(b"49htwo"))
    assert terminal.in_alt
