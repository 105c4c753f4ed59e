"""Recordings, fed and redrawn."""

from __future__ import annotations

from terminal_engines import Replayed
from terminal_judges import LEFT_OVER, Shown, assert_same

ROWS, COLUMNS = 6, 20


def attached(engine: type[Replayed], before: bytes, after: bytes = b"") -> bytes:
    """Return what a client gets that attaches between two parts of the output."""
    terminal = engine(ROWS, COLUMNS)
    terminal.feed(before)
    return LEFT_OVER + terminal.redraw() + after


def check(engine, judge, before: bytes, after: bytes = b"") -> Shown:
    shown = judge(attached(engine, before, after), ROWS, COLUMNS)
    assert_same(shown, judge(before + after, ROWS, COLUMNS))
    return shown


MODES = {
    "bracketed paste": b"\x1b[?2004h",
    "mouse": b"\x1b[?1000h\x1b[?1002h\x1b[?1006h",
    "mouse off again": b"\x1b[?1003;1006h\x1b[?1003l",
    "application cursor keys": b"\x1b[?1h",
    "application keypad": b"\x1b=",
    "hidden cursor": b"\x1b[?25l",
    "no wrap": b"\x1b[?7l",
    "title": b"\x1b]0;title\x07",
    "line drawing": b"\x1b(0",
    "reverse video": b"\x1b[?5h",
    "insert": b"\x1b[4h",
    "newline": b"\x1b[20h",
    "origin": b"\x1b[2;4r\x1b[?6h",
    "focus": b"\x1b[?1004h",
    "colours": b"\x1b[1;4;38;5;99m",
    "kitty keyboard": b"\x1b[>1u\x1b[>5u",
    "kitty keyboard's flags": b"\x1b[>1u\x1b[=6;2u\x1b[=2;3u",
    "cursor style": b"\x1b[4 q",
}


def flood(terminal: Replayed, before: bytes, line: bytes, total: int) -> bytes:
    terminal.feed(before)
    chunk = line * (8192 // len(line) + 1)
    fed = [before]
    for _ in range(total // len(chunk) + 1):
        terminal.feed(chunk)
        fed.append(chunk)
    return b"".join(fed)
