"""The sequences that programs print, as far as recording and replay have to know them.

They are those of ECMA-48 (control functions), of DEC's VT510 manual (private modes, charsets, DCS)
and of xterm's "XTerm Control Sequences" (``ctlseqs``: window operations, OSC, alternate screen),
plus kitty's keyboard protocol. Text is taken to be UTF-8, in which a byte of 0x80 to 0x9f is never
a control.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Chunks smaller than this are gathered: a bytes object for each keystroke's echo would cost ten
# times its content.
SMALL = 2048
# The longest title, colour, link or directory that is remembered, in bytes.
LONGEST_OSC = 4096

# Modes that a replay leaves out. 2026 holds back all drawing until it is reset. Terminals report
# something at once when 1004 (focus) or 2048 (size) is set: those two are set once, at the end.
NOT_REPLAYED = frozenset((2026, 1004, 2048))
SET_LAST = (1004, 2048)

# Controls that are executed in the midst of a sequence, which then goes on. CAN and SUB abort it.
C0 = rb"\x00-\x17\x19\x1c-\x1f\x7f"
C0_BYTES = bytes(c for c in (*range(0x20), 0x7F) if c not in (0x18, 0x1A, 0x1B))
_C1_CHARACTERS = re.compile("[\x80-\x9f\udc80-\udc9f]")
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")
NOT_EXECUTED = bytes(c for c in range(256) if c not in b"\b\t\n\v\f\r\x0e\x0f")

# One escape sequence, complete or not. What lacks its end was aborted by the byte that follows,
# or, at the end of the data, is still to be completed.
SEQUENCE_BODY = (
    rb"[%(c0)s]*(?:"
    rb"\[[\x20-\x3f%(c0)s]*[\x40-\x7e]?"  # CSI
    rb"|\][^\x07\x18\x1a\x1b]*(?:[\x07\x18\x1a]|\x1b\\)?"  # OSC; CAN and SUB abort it
    rb"|[PX^_][^\x18\x1a\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    rb"|[\x20-\x2f][\x20-\x2f%(c0)s]*[\x30-\x7e]?"  # an escape with intermediate bytes
    rb"|[\x30-\x7e]?)" % {b"c0": C0}
)
PARTIAL_SEQUENCE = re.compile(
    rb"\x1b[%(c0)s]*(?:\[[\x20-\x3f%(c0)s]*|\][^\x07\x18\x1a\x1b]*|[PX^_][^\x18\x1a\x1b]*"
    rb"|[\x20-\x2f][\x20-\x2f%(c0)s]*)?\Z" % {b"c0": C0}
)
# What makes one of several characters, or of a text an emoji: variation selectors, regional
# indicators, skin tones, vowels and final consonants of Hangul; and emoji that are new.
_JOINING = re.compile(
    "[\u1160-\u11ff\ufe00-\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U0001fa70-\U0001faff"
    "\U000e0100-\U000e01ef]"
)
# Characters of several bytes, but for those of Chinese, Japanese and Korean: of these there are
# very many, and all are wide.
_NOT_ASCII = re.compile(rb"[\xc2-\xe2\xea\xed-\xf4][\x80-\xbf]+")
_PARTIAL_CHARACTER = re.compile(
    rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)
CSI = re.compile(rb"\x1b\[([<=>?]?)([\d;:]*)([\x20-\x2f]*)([\x40-\x7e])")
# All sequences but those that are plain: that need no filtering and change nothing that a fold
# follows, except for SGR, which a fold looks at from the other end. Plain are SGR, movements of the
# cursor and erasing, which are nearly all that most programs print.
SPECIAL = re.compile(rb"\x1b(?!\[[0-9;:]*[mABCDHJKGdXP@LM])" + SEQUENCE_BODY)
SGR = re.compile(rb"\x1b\[([\d;:]*)m")
PRIVATE_MODES = re.compile(rb"\x1b\[\?([\d;]*)([hl])")


def to_number(digits: bytes) -> int:
    """Return the value of a parameter; 0 for a missing one and for what no terminal takes."""
    return int(digits) if digits.isdigit() and len(digits) < 10 else 0


def to_numbers(parameters: bytes) -> list[int]:
    return [to_number(digits) for digits in parameters.split(b";")]


def osc_body(sequence: bytes) -> bytes:
    body = sequence[sequence.index(b"]") + 1 :]
    body = body[:-2] if body.endswith(b"\x1b\\") else body.removesuffix(b"\x07")
    return without_controls(body)


def without_controls(text: bytes) -> bytes:
    """Return `text` without C0, C1 and what is no character: a client must not act on them."""
    return _CONTROL_CHARACTERS.sub("", text.decode(errors="ignore")).encode()


def osc_bytes(body: bytes) -> bytes:
    return b"\x1b]%b\x1b\\" % body


def split_partial(data: bytes) -> tuple[bytes, bytes]:
    """Split off the sequence or the character that the end of `data` leaves unfinished."""
    last = data.rfind(b"\x1b")
    if last >= 0 and PARTIAL_SEQUENCE.match(data, last):
        return data[:last], data[last:]
    return split_character(data)


def split_character(data: bytes) -> tuple[bytes, bytes]:
    match = _PARTIAL_CHARACTER.search(data, max(len(data) - 3, 0))
    if match:
        return data[: match.start()], match[0]
    return data, b""


def without_c1(data: bytes) -> bytes:
    text = data.decode(errors="surrogateescape")
    return _C1_CHARACTERS.sub("", text).encode(errors="surrogateescape")


def widths(text: bytes) -> Iterable[int]:
    if text.isascii():
        return (1,) * len(text)
    return [
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text.decode(errors="replace")
    ]


def unsure_widths(texts: Sequence[bytes]) -> set[int]:
    """Return which of the texts have characters whose width terminals dispute, alone or joined."""
    found = {i: _NOT_ASCII.findall(text) for i, text in enumerate(texts) if not text.isascii()}
    different = set().union(*found.values())
    unsure = {text for text in different if _is_unsure(text.decode(errors="replace"))}
    return {i for i, characters in found.items() if not unsure.isdisjoint(characters)}


def _is_unsure(character: str) -> bool:
    if _JOINING.match(character):
        return True
    # Joiners and other format characters, enclosing marks such as that of a keycap, marks that take
    # space, and what is not known yet.
    return any(unicodedata.category(c) in ("Cf", "Cn", "Mc", "Me") for c in character)
