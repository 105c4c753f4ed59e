"""What a terminal answers, and who is asked: :func:`replies` and :class:`QueryFilter`.

A program that asks its terminal something waits for the answer, so there has to be one, and only
one. Where no terminal sees the question, :func:`replies` says what one would answer; where several
do, all but one of them get the output without it.
"""

from __future__ import annotations

import re

from .cursor import cursor_after
from .recording import Snapshot
from .sequences import C0, C0_BYTES, NOT_EXECUTED

__all__ = ["QueryFilter", "asks", "replies", "unfinished"]

_QUERIES = re.compile(rb"\x1b(?:Z|\[(?:(>)?0*c|(\??)0*([56])n))")
_UNFINISHED = re.compile(rb"\x1b(?:\[[>?]?0*[56]?)?\Z")

# How many bytes of what may become one of these are remembered. None is written with that many.
_LONGEST_UNFINISHED = 64

# How many queries in one piece of output are answered, and how many of those for the cursor's
# position, each of which takes a millisecond or more to find. A program that asks more does not
# wait for the answers.
_MOST_REPLIES = 64
_MOST_POSITIONS = 4


def asks(data: bytes) -> bool:
    """Return whether there is anything in output that :func:`replies` answers. Quick."""
    return b"\x1b" in data and _QUERIES.search(data) is not None


def unfinished(data: bytes) -> bytes:
    """Return the end of output that may be the beginning of what :func:`asks` looks for. Quick."""
    last = data.rfind(b"\x1b", max(len(data) - _LONGEST_UNFINISHED, 0))
    return data[last:] if last >= 0 and _UNFINISHED.match(data, last) else b""


def replies(snapshot: Snapshot, data: bytes) -> bytes:
    """Return what a terminal answers to the queries in `data`, the last that was recorded.

    For a program that runs with no client attached and would wait for ever: primary and
    secondary device attributes, operating status, and the cursor's position. To see a query that
    came in two pieces, what was :func:`unfinished` has to be there again before the second. Of very
    many, only the first are answered.
    """
    out = []
    positions = 0
    for number, match in enumerate(_QUERIES.finditer(data)):
        if number == _MOST_REPLIES:
            break
        if match[3] != b"6":
            out.append(_reply(match))
        elif positions < _MOST_POSITIONS:
            positions += 1
            row, column = _cursor(snapshot, data[match.start() :])
            out.append(b"\x1b[%b%d;%dR" % (match[2], row, column))
    return b"".join(out)


def _cursor(snapshot: Snapshot, after: bytes) -> tuple[int, int]:
    """Return the row and column, from 1, where the cursor was before the last bytes `after`."""
    screen = snapshot.alternate or snapshot.normal
    data = (screen.data + snapshot.held).removesuffix(after)
    return cursor_after(data, snapshot.rows, snapshot.columns)


def _reply(query: re.Match[bytes]) -> bytes:
    if query[3] == b"5":
        return b"\x1b[0n" if not query[2] else b""
    # A VT220 with colour, as xterm-likes say; and no version that a program could know bugs of.
    return b"\x1b[>1;10;0c" if query[1] else b"\x1b[?62;22c"


# CSI that a terminal answers. In ctlseqs' order: DA1-3, DSR, DECRQM, XTVERSION, window reports,
# kitty keyboard query, XTSMGRAPHICS, XTQMODKEYS, XTQFMTKEYS, DECREQTPARM, DECRQCRA, DECRQPSR,
# DECRQTSR, DECRQUPSS, DECRQDE, XTREPORTCOLORS, XTREPORTSGR, DECRQLP.
_ASKING_CSI = re.compile(
    rb"\x1b\[(?:[<=>]?[\d;:]*c|\??[\d;:]*n|\??[\d;:]*\$p|>[\d;:]*q|0*(?:1[1-689]|2[01])(?:;[\d;:]*)?t"
    rb"|\?[\d;:]*[uSmg]|[\d;:]*x|[\d;:]*\*y|[\d;:]*\$[wu]|[\d;:]*&u|[\d;:]*\"v|[\d;:]*\#[R|]"
    rb"|[\d;:]*'\|)"
)
# OSC that may ask. In the order of their numbers: X properties, colours, pointer shapes, kitty's
# colours, fonts, clipboard, what is allowed, notifications, application id, iTerm2's, kitty's
# clipboard.
_OSC_NUMBERS = rb"0*(?:[345]|1\d|2[12]|50|52|6[01]|99|176|1337|5522)"

# What has to be looked at: all that asks is among these. Complete, or aborted by what follows.
_CANDIDATE = re.compile(
    rb"\x1b[%(c0)s]*(?:Z"
    rb"|\[(?![\d;:]*m)[\x20-\x3f%(c0)s]*[cgmnpqtuvwxySR|]"
    rb"|\]%(osc)s(?=[;\x07\x18\x1a\x1b])[^\x07\x18\x1a\x1b]*(?:\x07|\x1b\\)?"
    rb"|P[\d;]*[$+]q[^\x18\x1a\x1b]*(?:\x1b\\)?"  # DECRQSS, XTGETTCAP
    rb"|_G[^;\x18\x1a\x1b]*)"  # kitty's graphics, but for their data
    % {b"c0": C0, b"osc": _OSC_NUMBERS}
)
# The beginning of what may become one of those, at the end of the data.
_UNDECIDED = re.compile(
    rb"\x1b[%(c0)s]*(?:\[[\x20-\x3f%(c0)s]*"
    rb"|\](?:\d*|0*52;[^;\x07\x18\x1a\x1b]*(?:;(?:\?[^\x07\x18\x1a\x1b]*)?)?"
    rb"|0*1337;(?:[CR][^\x07\x18\x1a\x1b]*)?|(?!0*(?:52|1337);)%(osc)s;[^\x07\x18\x1a\x1b]*)"
    rb"|P[\d;]*(?:[$+](?:q[^\x18\x1a\x1b]*)?)?|_(?:G[^;\x18\x1a\x1b]*)?)?\Z"
    % {b"c0": C0, b"osc": _OSC_NUMBERS}
)
# Terminals that decode UTF-8 first take U+009B for CSI, and so on.
_ENCODED_C1 = re.compile(rb"\xc2[\x90\x98\x9a\x9b\x9d-\x9f]")

# How much is held back to see whether it asks, in bytes; what is longer is passed on.
_LONGEST_QUERY = 8192


class QueryFilter:
    """Takes out of a program's output what a terminal would answer, for those who are not asked.

    All else is passed on as it came, in order; only what may yet become a query is held back. Text
    costs next to nothing; the work is in proportion to the output, and what is kept is bounded. Not
    thread-safe, and never blocks.

    Args:
        snapshot: The recording of what came before.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        before = b"" if snapshot is None else snapshot.last(_LONGEST_QUERY)
        held = before[_decided(before) :]
        self._held = held if len(held) <= _LONGEST_QUERY else b""

    @property
    def held(self) -> bytes:
        """The last bytes it was fed, if they are held back: others have had them."""
        return self._held

    def feed(self, data: bytes) -> bytes:
        """Take the next output, cut anywhere; return what is to be passed on."""
        if self._held:
            data = self._held + data
        elif b"\x1b" not in data and b"\xc2" not in data and b"\x05" not in data:
            return data
        end = _decided(data)
        if len(data) - end > _LONGEST_QUERY:
            self._held = b""
            return _without_queries(data[:end]) + data[end:]
        self._held = data[end:]
        return _without_queries(data[:end])


def _decided(data: bytes) -> int:
    """Return up to where it is known what asks and what does not."""
    last = data.rfind(b"\x1b")
    if last >= 0:
        # A lone ESC may be one half of the end of a string.
        before = data.rfind(b"\x1b", 0, last) if last == len(data) - 1 else -1
        if before >= 0 and _UNDECIDED.match(data, before, last):
            return before
        if _UNDECIDED.match(data, last):
            return last
    return len(data) - data.endswith(b"\xc2")


def _without_queries(data: bytes) -> bytes:
    data = data.replace(b"\x05", b"")  # ENQ, which asks for the answerback
    # Not just without its first byte: another of those may come before it.
    return _ENCODED_C1.sub("\ufffd".encode(), _CANDIDATE.sub(_unless_asking, data))


def _unless_asking(match: re.Match[bytes]) -> bytes:
    raw: bytes = match[0]
    body = raw[1:].lstrip(C0_BYTES)
    introducer = body[:1]
    if introducer == b"]":
        return b"" if _osc_asks(body[1:].removesuffix(b"\x07").removesuffix(b"\x1b\\")) else raw
    if introducer == b"P":
        return b""
    if introducer == b"_":
        # Shown, but neither its success nor its failure is to be reported; the last one counts.
        return raw + (b"q=2" if body == b"_G" else b",q=2")
    sequence = raw.translate(None, C0_BYTES)
    if sequence == b"\x1bZ" or _ASKING_CSI.fullmatch(sequence):
        return raw.translate(None, NOT_EXECUTED)
    return raw


def _osc_asks(body: bytes) -> bool:
    number, _, value = body.lstrip(b"0").partition(b";")
    if number == b"52":
        return value.partition(b";")[2].startswith(b"?")
    if number == b"99":
        return not {b"p=?", b"p=alive"}.isdisjoint(value.partition(b";")[0].split(b":"))
    if number == b"1337":
        return value.startswith((b"Report", b"Request", b"Capabilities"))
    if number in (b"60", b"61", b"5522"):
        return True
    return any(field.rpartition(b"=")[2].startswith(b"?") for field in value.split(b";"))
