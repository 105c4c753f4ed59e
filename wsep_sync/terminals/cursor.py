"""Where the cursor is, as far as a recording tells."""

from __future__ import annotations

import re

from .sequences import CSI, SEQUENCE_BODY, to_numbers, widths

# How far back the cursor's position is looked for, in bytes.
CURSOR_LOOKS_BACK = 16 * 1024
_CURSOR_TOKENS = re.compile(rb"\x1b" + SEQUENCE_BODY + rb"|[^\x00-\x1f\x7f]+|[\b\t\n\v\f\r]")


def cursor_after(
    data: bytes, rows: int, columns: int, looks_back: int = CURSOR_LOOKS_BACK
) -> tuple[int, int]:
    """Return where the cursor is, from 1, after `data` on a clear screen.

    An estimate: it follows text, wrapping, margins and movements, but no tab stops and no insert
    mode. Programs that ask for the position mostly have just set it (to find the size, say).
    """
    row = column = 0  # column == columns: the next character wraps
    if len(data) > looks_back:
        row = rows - 1
        # Not in the midst of a sequence. Full-screen programs may go without newlines for long.
        starts = (data.find(first, -looks_back) for first in (b"\n", b"\x1b"))
        data = data[next((start for start in starts if start >= 0), -looks_back) :]
    top, bottom = 0, rows - 1
    saved = (0, 0)
    for match in _CURSOR_TOKENS.finditer(data):
        token = match[0]
        if token[0] >= 0x20 and token[0] != 0x1B:
            for width in widths(token):
                if column + width > columns:
                    row = row if row == bottom else min(row + 1, rows - 1)
                    column = 0
                column += width
            continue
        if token == b"\r":
            column = 0
        elif token == b"\b":
            column = max(min(column, columns - 1) - 1, 0)
        elif token == b"\t":
            column = min((column // 8 + 1) * 8, columns - 1)
        elif token in (b"\n", b"\v", b"\f", b"\x1bD", b"\x1bE"):
            row = row if row == bottom else min(row + 1, rows - 1)
            column = 0 if token == b"\x1bE" else column
        elif token == b"\x1bM":
            row = row if row == top else max(row - 1, 0)
        elif token == b"\x1bc":
            row = column = top = 0
            bottom = rows - 1
        elif token in (b"\x1b7", b"\x1b[s"):
            saved = (row, column)
        elif token in (b"\x1b8", b"\x1b[u"):
            row, column = saved
        csi = CSI.fullmatch(token)
        if csi is None or csi[1] or csi[3]:
            continue
        numbers = to_numbers(csi[2])
        first, second = max(numbers[0], 1), max([*numbers, 0][1], 1)
        final = csi[4]
        if final in b"Hf":
            row, column = first - 1, second - 1
        elif final in b"AF":
            row = max(row - first, top if row >= top else 0)
        elif final in b"BEe":
            row = min(row + first, bottom if row <= bottom else rows - 1)
        elif final in b"Ca":
            column += first
        elif final == b"D":
            column = min(column, columns - 1) - first
        elif final in b"G`":
            column = first - 1
        elif final == b"d":
            row = first - 1
        elif final == b"r":
            top, bottom = first - 1, (numbers[1:] or [0])[0] - 1
            if not top < bottom < rows:
                bottom = rows - 1
            row = column = 0
        else:
            continue
        column = 0 if final in b"EF" else column
        row, column = max(min(row, rows - 1), 0), max(min(column, columns - 1), 0)
    return row + 1, min(column + 1, columns)
