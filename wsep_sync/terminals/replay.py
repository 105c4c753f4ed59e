"""Redraws of recorded output by writing it again: :func:`replay`.

What would be answered, or acted upon, is left out of it. It needs the standard library only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque

from .cursor import cursor_after
from .modes import State, title_bytes
from .recording import Screen, Snapshot
from .sequences import (
    C0_BYTES,
    NOT_EXECUTED,
    NOT_REPLAYED,
    PARTIAL_SEQUENCE,
    PRIVATE_MODES,
    SEQUENCE_BODY,
    SPECIAL,
    osc_body,
    osc_bytes,
    split_character,
    split_partial,
    to_number,
    widths,
    without_c1,
)

__all__ = ["replay"]


# CSI that a terminal answers, or that acts on more than the screen. In ctlseqs' order: DA1-3, DSR,
# DECRQM, XTVERSION, kitty keyboard query, XTSMGRAPHICS, XTQMODKEYS, XTQFMTKEYS, window operations
# and reports, DECREQTPARM, DECTST and checksums, media copy (which prints), DECRQPSR, DECRQTSR,
# DECRQUPSS, DECRQDE, XTREPORTCOLORS, XTREPORTSGR, the locator, and what resizes the page.
_ANSWERED = re.compile(
    rb"\x1b\[(?:[<=>?]?[\d;:]*[ct]|\??[\d;:]*n|\??[\d;:]*\$p|>[\d;:]*q|\?[\d;:]*[uSmg]|[\d;:]*x"
    rb"|[\d;:]*\*?y|\??[\d;:]*i|[\d;:]*\$[wu|]|[\d;:]*&u|[\d;:]*\"v|[\d;:]*\#[R|]|[\d;:]*'[|z{]"
    rb"|[\d;:]*\*\|)"
)
# OSC that show something: palette and colours (set or reset), directory, link, prompt marks, sized
# text. All others are left out: titles (set once, at the end), clipboard (52, 5522), notifications
# (9, 99, 777), iTerm2's commands (1337), fonts (50), and what is yet to be invented.
_SHOWN_OSC = re.compile(rb"(?:4|5|7|8|1\d|66|104|105|11\d|133)(?:;|\Z)")
_COLOUR_QUERY = re.compile(rb"(?:4|5|1\d);(?:.*;)?\?(?:;|\Z)", re.DOTALL)
# Of device control strings only sixel images are shown: DECRQSS, XTGETTCAP, user-defined keys
# and all others answer or act.
_SIXEL = re.compile(rb"\x1bP[\d;]*q[\x00-\x06\x08-\x17\x19\x1c-\x7e]*\x1b\\")
# A terminal that decodes UTF-8 before it looks for controls (xterm, VTE) takes U+0090 for DCS,
# U+009A for DECID, U+009B for CSI and so on. Without its first byte such a character is an error.
_ENCODED_C1 = re.compile(rb"(?<!\xc2)\xc2+(?=[\x90\x98\x9a\x9b\x9d-\x9f])")

# The beginning of what stands between two returns of the cursor, as far as that stays in its row
# and all of it is known: text, attributes, a few modes, titles and links, and erasing to the end.
_ERASES = re.compile(rb"\x1b\[(?:[02]?K|0?J)")
_FLAT = re.compile(
    rb"[^\x00-\x1f\x7f]*(?:(?:\x07+|\x1b\[[\d;:]*m|\x1b\[\?(?:1|12|25|2004|2026)[hl]"
    rb"|\x1b\[(?:[02]?K|0?J)|\x1b\][^\x07\x18\x1a\x1b]*(?:\x07|\x1b\\))[^\x00-\x1f\x7f]*)*"
)
_MANY_ESC = re.compile(rb"\x1b{3,}")
_SEQUENCE = re.compile(rb"\x1b" + SEQUENCE_BODY)
# With these, text does not overwrite (insert mode), or a line does not begin at its first column.
_ODD_LINES = re.compile(rb"\x1b\[\??(?=[\d;]*h)(?:[\d;]*;)?0*(?:4|69)(?:;[\d;]*)?h")

# The last of these makes all that came before invisible: a full reset, or an erased screen
# together with its erased scrollback, in the ways in which clear(1), ncurses and shells write it.
_FORGETS = re.compile(
    rb"\x1bc|\x1b\[H\x1b\[2?J\x1b\[3J|\x1b\[3J\x1b\[H\x1b\[2?J|\x1b\[H\x1b\[3J\x1b\[2?J"
    rb"|\x1b\[2J\x1b\[3J\x1b\[H|\x1b\[3J\x1b\[2J\x1b\[H"
)


def reset_bytes(columns: int) -> bytes:
    """Return what brings a terminal in any state to its defaults, clear, with the cursor at home.

    Not a full reset (RIS): that also empties scrollback that is not ours, and resizes some.
    """
    return b"".join(
        (
            b"\x18\x1b\\",  # out of any sequence or string
            b"\x1b[?2026l",
            b"\x1b[<99u\x1b[?1049l\x1b[<99u",  # each screen has its own keyboard flags
            # Not all in one: a sequence that is too long is dropped as a whole. tmux takes 63 bytes
            # of parameters, and others take 16 parameters.
            b"\x1b[?1;5;6;9;45;66;69l\x1b[?1000;1001;1002;1003l",
            b"\x1b[?1004;1005;1006;1007l\x1b[?1015;1016l",
            b"\x1b[?2004;2031;2048l\x1b[?7;25h\x1b[4;20l\x1b>",
            b"\x1b[r\x1b%G\x1b(B\x1b)B\x1b*B\x1b+B\x0f",
            b'\x1b[>4m\x1b[0 q\x1b[0"q\x1b[0m',
            *(osc_bytes(body) for body in (b"8;;", b"104", b"110", b"111", b"112")),
            b"\x1b[3g",
            *(b"\x1b[%dG\x1bH" % column for column in range(9, columns + 1, 8)),
            CLEAR,
        )
    )


CLEAR = b"\x1b[H\x1b[2J\x1b7"


def _without_effects(data: bytes) -> bytes:
    """Return `data` without what a terminal answers, copies, prints, rings at or is named by.

    `data` begins and ends outside of any sequence. Sequences that were aborted are left out too:
    their remains and those of what follows must not become a sequence together.
    """
    if b"\x1b\x1b\x1b" in data:
        # The first may end a string, and the last begins something.
        data = _MANY_ESC.sub(b"\x1b\x1b", data)
    filtered: dict[bytes, bytes] = {}  # there may be very many, and mostly of few kinds

    def once(match: re.Match[bytes]) -> bytes:
        raw: bytes = match[0]
        kept = filtered.get(raw)
        if kept is None:
            kept = filtered[raw] = _filter_sequence(raw)
        return kept

    data = SPECIAL.sub(once, data)
    return _ENCODED_C1.sub(b"", data.translate(None, b"\x05\x07"))


def _filter_sequence(raw: bytes) -> bytes:
    introducer = raw[1:].lstrip(C0_BYTES)[:1]
    if introducer == b"]":
        if raw[-1:] in b"\x18\x1a":
            return b""
        body = osc_body(raw)
        if _SHOWN_OSC.match(body) and not _COLOUR_QUERY.match(body):
            return osc_bytes(body)
        return b""
    if introducer in (b"P", b"X", b"^", b"_"):
        return raw if _SIXEL.fullmatch(raw) else b""
    sequence = raw.translate(None, C0_BYTES)
    executed = raw.translate(None, NOT_EXECUTED)
    if introducer != b"[":
        if PARTIAL_SEQUENCE.match(sequence) or sequence == b"\x1bZ":
            return executed
        return executed + sequence
    modes = PRIVATE_MODES.fullmatch(sequence)
    if modes:
        numbers = [n for n in modes[1].split(b";") if to_number(n) not in NOT_REPLAYED]
        sequence = b"\x1b[?%b%b" % (b";".join(numbers), modes[2]) if numbers else b""
    elif PARTIAL_SEQUENCE.match(sequence) or _ANSWERED.fullmatch(sequence):
        sequence = b""
    return executed + sequence


def replay(snapshot: Snapshot) -> bytes:
    """Return bytes that make a terminal show what this one shows, by writing it all again.

    They work on a terminal of the snapshot's size in any state. Afterwards its screen, cursor,
    modes, margins, charsets, attributes and title are those of this one, and it waits for the
    rest of the same sequence or character. They contain nothing that it would answer, copy to
    a clipboard, print or ring at; but a program that asked for reports of focus (mode 1004) or
    size (2048) has these switched on, and some terminals then report at once.

    Where it can't know, being no emulator:

    * After a change of size the normal screen is what the recorded output looks like at the new
      size, as if it had been that size from the start; but text that was overwritten at another
      width, in the same line, is left out where that is certain.
    * The alternate screen starts with the cursor where it is estimated to have been, and is always
      clear (47 would show again what it held when it was last left). If it is lost, it is left
      clear, for the program to paint.
    * Modes 47 and 1047, when they are reset, leave the cursor in the normal screen where it is
      estimated to have been in the alternate one. Programs save and restore it around them.
    * Once the output that set them is dropped, tab stops and the position of the saved cursor
      are those of a fresh terminal.

    Safe from any thread.
    """
    parts = [reset_bytes(snapshot.columns)]
    if snapshot.alternate is None:
        start, data = _without_erased(snapshot.normal, snapshot.columns)
        body, partial = split_partial(data + snapshot.held)
        end = start.copy()
        end.fold(body)
        parts += [start_bytes(start), _without_effects(body)]
    else:
        known = snapshot.known_alternate
        changes, data = known or (snapshot.alternate.start, snapshot.alternate.data)
        end = snapshot.normal.end.copy()
        parts += [b"\x1b[?%dh\x1b[<99u" % snapshot.alternate_mode, CLEAR]
        parts += [end.shared_bytes(), end.origin_bytes(), end.pen_bytes()]
        body, partial = split_partial(data + snapshot.held)
        changes = changes.copy()
        if known:
            # Nearly all programs go home first; the others start where the cursor was.
            before = split_partial(snapshot.normal.data)[0]
            parts.append(b"\x1b[%d;%dH" % cursor_after(before, snapshot.rows, snapshot.columns))
        else:
            changes.fold(body)
        parts += [changes.shared_bytes(), changes.origin_bytes(), changes.pen_bytes()]
        parts.append(changes.kitty_keyboard_bytes())
        parts.append(osc_bytes(changes.link) if changes.link else b"")
        end.modes.update(changes.modes)
        end.titles.update(changes.titles)
        if known:
            end.fold(body)
            parts.append(_without_effects(body))
    # A title after the content doesn't move the cursor, nor end a pending wrap.
    parts += [title_bytes(end.titles), end.last_modes_bytes()]
    parts.append(quiet_partial(partial))
    return b"".join(parts)


def start_bytes(start: State) -> bytes:
    """Return what brings a fresh terminal to a state from which the normal screen goes on."""
    parts = [start.shared_bytes(), start.origin_bytes()]
    if start.saved_cursor:
        saved = start.saved_cursor
        parts += [saved.origin_bytes(), saved.pen_bytes(), b"\x1b7", start.origin_bytes()]
        parts.append(RESET_PEN)
    parts += [start.pen_bytes(), start.kitty_keyboard_bytes()]
    parts.append(osc_bytes(start.link) if start.link else b"")
    return b"".join(parts)


def _without_overwritten(normal: Screen, columns: int) -> bytes:
    """Return the output, and of lines that were written at another width what was left of them.

    A progress bar that goes back to the start of its line again and again would, where it does not
    fit any more, leave a line each time.
    """
    starts = [start for start, _, _ in normal.sizes] + [len(normal.data)]
    if _ODD_LINES.search(normal.data) or normal.start.modes.get(69):
        return normal.data
    parts = []
    for (start, _, width), end in zip(normal.sizes, starts[1:], strict=True):
        data = normal.data[start:end]
        if width != columns and b"\r" in data:
            lines = data.split(b"\n")
            before = [b"", *lines]  # what a line begins after: its first column, or who knows
            data = b"\n".join(
                _last_written(line, width, last.endswith(b"\r"))
                for line, last in zip(lines, before, strict=False)
            )
        parts.append(data)
    return b"".join(parts)


def _last_written(line: bytes, columns: int, from_start: bool) -> bytes:
    """Return a line without the text in it that was overwritten, or erased, for sure.

    Args:
        line: What stands between two line feeds.
        columns: The width at which it was written.
        from_start: It begins in the first column.
    """
    text = line.rstrip(b"\r")
    if b"\r" not in text:
        return line
    pieces = text.split(b"\r")
    kept = []
    covered = 0  # how many cells, from the first, what comes later in the same row overwrites
    for index in range(len(pieces) - 1, -1, -1):
        piece = pieces[index]
        match = _FLAT.match(piece)
        flat = piece if match is None else match[0]
        most, least = _cells(flat)
        stays = most <= columns  # in its row
        if len(flat) < len(piece) or not stays:
            kept.append(piece)
            covered = 0
        elif most <= covered and (index or from_start):
            # What it set, colours and modes, stays in force, and what it erased is gone.
            kept += [b"".join(_SEQUENCE.findall(piece))] if b"\x1b" in piece else []
        else:
            kept.append(piece)
        covered = max(covered, columns if stays and _ERASES.search(flat) else least)
    return b"\r".join(reversed(kept)) + line[len(text) :]


def _cells(flat: bytes) -> tuple[int, int]:
    """Return how many columns text takes, at most and at least: terminals differ."""
    text = _SEQUENCE.sub(b"", flat) if b"\x1b" in flat else flat
    text = text.replace(b"\x07", b"")
    if text.isascii():
        return len(text), len(text)
    certain = "".join(
        c
        for c in text.decode(errors="ignore")
        if c < "\U0001f000" and unicodedata.category(c) not in ("Mn", "Me", "Mc", "Cf", "Cc")
    )
    return sum(widths(text)), sum(widths(certain.encode()))


def _without_erased(normal: Screen, columns: int) -> tuple[State, bytes]:
    """Return the screen without what a full reset, or an erased scrollback, has made invisible."""
    start, data = normal.start, _without_overwritten(normal, columns)
    if b"\x1bc" not in data and b"\x1b[3J" not in data:
        return start, data
    found = deque(_FORGETS.finditer(data), maxlen=1)
    if not found:
        return start, data
    last = found[0]
    # The sequence itself is kept, except for the reset: a redraw resets already.
    end = last.end() if last[0] == b"\x1bc" else last.start()
    start = start.copy()
    start.fold(data[:end])
    return start, data[end:]


def quiet_partial(partial: bytes) -> bytes:
    """Return an unfinished sequence without the controls in it that ring or answer."""
    partial = partial.translate(None, b"\x05\x07")
    if len(partial) < 4 and not partial.startswith(b"\x1b"):
        return partial  # a character
    # Some take C1 controls inside of strings for what they are.
    complete, character = split_character(partial)
    return without_c1(complete) + character


RESET_PEN = b"\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[0m"
