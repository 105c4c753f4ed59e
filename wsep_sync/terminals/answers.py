"""What a terminal answers to queries: :func:`replies`."""

from __future__ import annotations

import re

from .cursor import cursor_after
from .recording import Recording

__all__ = ["replies"]

_QUERIES = re.compile(rb"\x1b(?:Z|\[(?:(>)?0*c|(\??)0*([56])n))")


def replies(recording: Recording, data: bytes | bytearray | memoryview) -> bytes:
    """Return what a terminal answers to the queries in `data`, which was fed just before.

    For a program that runs with no client attached and would wait for ever: primary and
    secondary device attributes, operating status, and the cursor's position. A query that is
    cut in two by the bounds of `data` is not seen.
    """
    data = bytes(data)
    out = []
    for match in _QUERIES.finditer(data):
        if match[3] == b"6":
            row, column = _cursor(recording, data[match.start() :])
            out.append(b"\x1b[%b%d;%dR" % (match[2], row, column))
        else:
            out.append(_reply(match))
    return b"".join(out)


def _cursor(recording: Recording, after: bytes) -> tuple[int, int]:
    """Return the row and column, from 1, where the cursor was before the last bytes `after`."""
    snapshot = recording.snapshot()
    screen = snapshot.alternate or snapshot.normal
    data = (screen.data + snapshot.held).removesuffix(after)
    return cursor_after(data, snapshot.rows, snapshot.columns)


def _reply(query: re.Match[bytes]) -> bytes:
    if query[3] == b"5":
        return b"\x1b[0n" if not query[2] else b""
    # A VT220 with colour, as xterm-likes say; and no version that a program could know bugs of.
    return b"\x1b[>1;10;0c" if query[1] else b"\x1b[?62;22c"
