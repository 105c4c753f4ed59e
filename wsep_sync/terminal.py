"""What a terminal shows now, as the bytes that make another terminal show it.

A session feeds everything that its program prints to a :class:`Terminal`. A client that attaches
later gets :meth:`Terminal.redraw` first and live output from then on, and its screen is the one of
a terminal that was there all the time. :func:`new_terminal` chooses between two engines:

* :class:`RingTerminal` records the output and replays it. It needs the standard library only.
* :class:`GhosttyTerminal` emulates a terminal with pyghostty, and writes down what it shows.

No I/O, no threads, no clock. A terminal belongs to one thread at a time: its owner locks.

The sequences are those of ECMA-48 (control functions), of DEC's VT510 manual (private modes,
charsets, DCS) and of xterm's "XTerm Control Sequences" (``ctlseqs``: window operations, OSC,
alternate screen), plus kitty's keyboard protocol. Text is taken to be UTF-8, in which a byte of
0x80 to 0x9f is never a control.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["GhosttyTerminal", "RingTerminal", "Terminal", "new_terminal"]

logger = logging.getLogger(__name__)

# What a ring keeps of the normal screen, and of one visit to the alternate screen, in bytes. The
# first is also how much of a flood waits for somebody to look before Ghostty is fed with it.
NORMAL_LIMIT = 256 * 1024
ALTERNATE_LIMIT = 1024 * 1024
# Both are cut back to their limits only when they are this much over, so that the work of cutting
# is done once for many chunks.
SLACK = 64 * 1024
# Chunks smaller than this are gathered: a bytes object for each keystroke's echo would cost ten
# times its content.
SMALL = 2048
# How far back the cursor's position is looked for, in bytes.
CURSOR_LOOKS_BACK = 16 * 1024
# The longest title, colour, link or directory that is remembered, in bytes.
LONGEST_OSC = 4096

# The same attributes in the ways in which a terminal is asked to switch to the alternate screen.
_ALTERNATE = frozenset((47, 1047, 1049))
# Modes that a replay leaves out. 2026 holds back all drawing until it is reset. Terminals report
# something at once when 1004 (focus) or 2048 (size) is set: those two are set once, at the end.
_NOT_REPLAYED = frozenset((2026, 1004, 2048))
_SET_LAST = (1004, 2048)

# Controls that are executed in the midst of a sequence, which then goes on. CAN and SUB abort it.
_C0 = rb"\x00-\x17\x19\x1c-\x1f\x7f"
_C0_BYTES = bytes(c for c in (*range(0x20), 0x7F) if c not in (0x18, 0x1A, 0x1B))
_C1_CHARACTERS = re.compile("[\x80-\x9f\udc80-\udc9f]")
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOT_EXECUTED = bytes(c for c in range(256) if c not in b"\b\t\n\v\f\r\x0e\x0f")

# One escape sequence, complete or not. What lacks its end was aborted by the byte that follows,
# or, at the end of the data, is still to be completed.
_SEQUENCE_BODY = (
    rb"[%(c0)s]*(?:"
    rb"\[[\x20-\x3f%(c0)s]*[\x40-\x7e]?"  # CSI
    rb"|\][^\x07\x18\x1a\x1b]*(?:\x07|\x1b\\)?"  # OSC
    rb"|[PX^_][^\x18\x1a\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    rb"|[\x20-\x2f][\x20-\x2f%(c0)s]*[\x30-\x7e]?"  # an escape with intermediate bytes
    rb"|[\x30-\x7e]?)" % {b"c0": _C0}
)
_PARTIAL_SEQUENCE = re.compile(
    rb"\x1b[%(c0)s]*(?:\[[\x20-\x3f%(c0)s]*|\][^\x07\x18\x1a\x1b]*|[PX^_][^\x18\x1a\x1b]*"
    rb"|[\x20-\x2f][\x20-\x2f%(c0)s]*)?\Z" % {b"c0": _C0}
)
_PARTIAL_CHARACTER = re.compile(
    rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)
_CSI = re.compile(rb"\x1b\[([<=>?]?)([\d;:]*)([\x20-\x2f]*)([\x40-\x7e])")
# All sequences but those that are plain: that need no filtering and change nothing that a fold
# follows, except for SGR, which a fold looks at from the other end. Plain are SGR, movements of the
# cursor and erasing, which are nearly all that most programs print.
_SPECIAL = re.compile(rb"\x1b(?!\[[0-9;:]*[mABCDHJKGdXP@LM])" + _SEQUENCE_BODY)
_SGR = re.compile(rb"\x1b\[([\d;:]*)m")

# All sequences but SGR and EL: the others might bring the cursor, or what is shown, up.
_MOVES = re.compile(rb"\x1b(?!\[[0-9;:]*[mK])")

# What a chunk is searched for. The literal prefix lets the regex engine run at memory speed.
_SWITCH_BODY = rb"\[\?((?:[0-9;]*;)?0*(?:47|1047|1049)(?:;[0-9;]*)?)([hl])"
_SWITCH = re.compile(rb"\x1b" + _SWITCH_BODY)
_SWITCH_OR_RIS = re.compile(rb"\x1b(?:" + _SWITCH_BODY + rb"|c)")
_PRIVATE_MODES = re.compile(rb"\x1b\[\?([\d;]*)([hl])")
_HELD_BACK = re.compile(rb"\x1b(?:\[\??[\d;:]{0,200})?\Z")

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
_ENCODED_C1 = re.compile(rb"\xc2+(?=[\x90\x98\x9a\x9b\x9d-\x9f])")

# The last of these makes all that came before invisible: a full reset, or an erased screen
# together with its erased scrollback, in the ways in which clear(1), ncurses and shells write it.
_FORGETS = re.compile(
    rb"\x1bc|\x1b\[H\x1b\[2?J\x1b\[3J|\x1b\[3J\x1b\[H\x1b\[2?J|\x1b\[H\x1b\[3J\x1b\[2?J"
    rb"|\x1b\[2J\x1b\[3J\x1b\[H|\x1b\[3J\x1b\[2J\x1b\[H"
)

_QUERIES = re.compile(rb"\x1b(?:Z|\[(?:(>)?0*c|(\??)0*([56])n))")


class Terminal(ABC):
    """A terminal without a display: the interface of both engines.

    A size is in rows and columns of characters; 0 is taken as 1. Not thread-safe, and never blocks.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._rows = max(rows, 1)
        self._columns = max(columns, 1)
        self._alt_generation = 0
        self._held = b""  # the end of the last chunk, when it is the beginning of a sequence
        self._plain = True  # nothing but plain sequences ended in the last chunk

    @abstractmethod
    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the program's output, cut anywhere."""

    @abstractmethod
    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as the program is told it."""

    @property
    @abstractmethod
    def in_alt(self) -> bool:
        """Whether the alternate screen is shown."""

    @property
    def alt_generation(self) -> int:
        """How often the alternate screen was left; visits within one `feed` may not count.

        A client that attached while the alternate screen was shown has never seen the normal one:
        when this has grown since, it needs another redraw.
        """
        return self._alt_generation

    @property
    @abstractmethod
    def lost(self) -> bool:
        """Whether what the alternate screen shows is unknown: the program must paint it again.

        Programs do when their terminal is made one row smaller, and, a moment later, larger again.
        Without meaning while the normal screen is shown.
        """

    def _complete(self, data: bytes) -> bytes:
        """Return `data` with what was held back, but for the beginning of a sequence at its end.

        Says in `_plain` whether all sequences are plain, as they are in most output. That is looked
        for once, for all who ask: it costs more than all else that is done with such output.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        special = _SPECIAL.search(data) if b"\x1b" in data else None
        if special:
            last = data.rfind(b"\x1b")
            if _HELD_BACK.match(data, last):
                self._held = data[last:]
                data = data[:last]
        self._plain = not special or special.start() >= len(data)
        return data

    @abstractmethod
    def redraw(self) -> bytes:
        """Return bytes that make a terminal show what this one shows.

        They work on a terminal of the current size in any state. Afterwards its screen, cursor,
        modes, margins, charsets, attributes and title are those of this one, and it waits for the
        rest of the same sequence or character. They contain nothing that it would answer, copy to
        a clipboard, print or ring at; but a program that asked for reports of focus (mode 1004) or
        size (2048) has these switched on, and some terminals then report at once.
        """

    @abstractmethod
    def replies(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return what a terminal answers to the queries in `data`, which was fed just before.

        For a program that runs with no client attached and would wait for ever: primary and
        secondary device attributes, operating status, and the cursor's position. A query that is
        cut in two by the bounds of `data` is not seen.
        """


@dataclass
class _State:
    """What a stream of output has changed outside the screen's cells and the cursor's position.

    Everything is kept as the change it makes: what was not touched isn't mentioned, so the same
    class describes a stream that starts at a reset terminal, and one that starts at an unknown one.

    The positions of tab stops and of the saved cursor are not followed.
    """

    modes: dict[int, bool] = field(default_factory=dict)  # private ones, in the order of setting
    saved_modes: dict[int, bool] = field(default_factory=dict)
    ansi_modes: dict[int, bool] = field(default_factory=dict)
    sgr: dict[str, bytes] = field(default_factory=dict)  # by group, see _sgr_groups
    sgr_reset: bool = False  # whether `sgr` begins with a reset
    charsets: dict[bytes, bytes] = field(default_factory=dict)  # by what is designated: ( ) * + ...
    shift: bytes = b""  # SO, SI, LS2 or LS3
    protection: bytes = b""
    link: bytes = b""
    keypad: bytes = b""
    margins: bytes = b""
    side_margins: bytes = b""
    cursor_style: bytes = b""
    key_options: dict[bytes, bytes] = field(default_factory=dict)  # XTMODKEYS, by resource
    kitty_keyboard: list[int] = field(default_factory=lambda: [0])  # a stack; one per screen
    titles: dict[bytes, bytes] = field(default_factory=dict)  # 1: icon, 2: window
    title_stack: list[dict[bytes, bytes]] = field(default_factory=list)
    colours: dict[bytes, bytes] = field(default_factory=dict)  # OSC bodies, by what they colour
    directory: bytes = b""
    saved_cursor: _State | None = None  # attributes and charsets only

    def copy(self) -> _State:
        return copy.deepcopy(self)

    def fold(self, data: bytes) -> None:
        """Follow `data`, which begins and ends outside of any sequence."""
        if b"\x1b" not in data and b"\x0e" not in data and b"\x0f" not in data:
            return
        start = 0
        for match in _SPECIAL.finditer(data):
            sequence = match[0]
            introducer = sequence[1:].lstrip(_C0_BYTES)[:1]
            if introducer == b"]":
                aborted = data[match.end() : match.end() + 1] in (b"\x18", b"\x1a")
                if len(sequence) <= LONGEST_OSC and not aborted:
                    self._osc(_osc_body(sequence))
                continue
            if introducer in (b"P", b"X", b"^", b"_"):
                continue
            sequence = sequence.translate(None, _C0_BYTES)
            if sequence in (b"\x1b7", b"\x1b8", b"\x1bc") or sequence[-1:] in b"suphlm":
                # All that depends on the order of pens and the rest.
                self.fold_pens(data, start, match.start())
                start = match.end()
            csi = _CSI.fullmatch(sequence)
            if csi:
                self._csi(sequence, *csi.groups())
            else:
                self._escape(sequence)
        self.fold_pens(data, start, len(data))

    def fold_pens(self, data: bytes, start: int, end: int) -> None:
        """Follow SGR, SO and SI, in a stretch of `data` with no other change of them."""
        shift, renditions = _pens(data, start, end)
        self.shift = shift or self.shift
        for parameters in renditions:
            self._select_graphic_rendition(parameters)

    def _select_graphic_rendition(self, parameters: bytes) -> None:
        codes = parameters.split(b";")
        i = 0
        while i < len(codes):
            code, colon, _ = codes[i].partition(b":")
            n = _number(code)
            if n == 0 and not colon:
                self.sgr.clear()
                self.sgr_reset = True
                i += 1
                continue
            length = 1
            if n in (38, 48, 58) and not colon:
                length = {b"5": 3, b"2": 5}.get(b"".join(codes[i + 1 : i + 2]), len(codes))
            if i + length <= len(codes):
                for group in _sgr_groups(n):
                    self.sgr[group] = b";".join(codes[i : i + length])
            i += length

    def _csi(
        self, sequence: bytes, private: bytes, parameters: bytes, intermediate: bytes, final: bytes
    ) -> None:
        name = private + intermediate + final
        numbers = _numbers(parameters)
        if name in (b"?h", b"?l"):
            for n in numbers:
                self._private_mode(n, final == b"h")
        elif name in (b"h", b"l"):
            for n in numbers:
                self.ansi_modes[n] = final == b"h"
        elif name == b"m":
            self._select_graphic_rendition(parameters)
        elif name == b"r":
            self.margins = sequence
        elif name == b"s":
            if self.modes.get(69):
                self.side_margins = sequence
            else:
                self._save_cursor()
        elif name == b"u":
            self._restore_cursor()
        elif name == b"?s":
            self.saved_modes.update({n: self.modes.get(n, n in (7, 25)) for n in numbers})
        elif name == b"?r":
            for n in numbers:
                if n in self.saved_modes:
                    self._private_mode(n, self.saved_modes[n])
        elif name == b" q":
            self.cursor_style = sequence
        elif name == b'"q':
            self.protection = sequence
        elif name in (b">m", b">n"):
            self.key_options.pop(parameters.split(b";")[0], None)
            self.key_options[parameters.split(b";")[0]] = sequence
        elif name in (b"=u", b">u", b"<u"):
            self._kitty_keyboard(private, numbers)
        elif name == b"t" and numbers[0] == 22:
            self.title_stack.append(dict(self.titles))
            del self.title_stack[:-10]  # as many as xterm keeps
        elif name == b"t" and numbers[0] == 23 and self.title_stack:
            self.titles = self.title_stack.pop()
        elif name == b"!p":
            self._soft_reset()

    def _private_mode(self, n: int, on: bool) -> None:
        if n in (1048, 1049):
            # Inside the alternate screen 1049 is set again, or in the normal one reset again.
            if on:
                self._save_cursor()
            else:
                self._restore_cursor()
        if n in (3, 47, 1047, 1048, 1049, 2026):
            return
        # The newest comes last: mouse modes replace each other.
        self.modes.pop(n, None)
        self.modes[n] = on

    def _kitty_keyboard(self, private: bytes, numbers: list[int]) -> None:
        stack = self.kitty_keyboard
        if private == b">":
            stack.append(numbers[0])
            del stack[:-16]
        elif private == b"<":
            del stack[max(len(stack) - max(numbers[0], 1), 0) :]
            if not stack:
                stack.append(0)
        else:
            how = numbers[1] if len(numbers) > 1 else 1
            if how == 2:
                stack[-1] |= numbers[0]
            elif how == 3:
                stack[-1] &= ~numbers[0]
            else:
                stack[-1] = numbers[0]

    def _escape(self, sequence: bytes) -> None:
        code = sequence[1:2]
        if len(sequence) == 3 and code in b"()*+-./":
            self.charsets[code] = sequence
        elif sequence == b"\x1b7":
            self._save_cursor()
        elif sequence == b"\x1b8":
            self._restore_cursor()
        elif sequence in (b"\x1b=", b"\x1b>"):
            self.keypad = sequence
        elif sequence in (b"\x1bn", b"\x1bo"):
            self.shift = sequence
        elif sequence == b"\x1bc":
            vars(self).update(vars(_State()))

    def _osc(self, body: bytes) -> None:
        number, _, value = body.partition(b";")
        if number in (b"0", b"1", b"2"):
            for which in (b"1", b"2") if number == b"0" else (number,):
                self.titles[which] = value
        elif number == b"7":
            self.directory = body
        elif number == b"8":
            self.link = body
        elif number == b"4":
            fields = value.split(b";")
            for index, colour in zip(fields[::2], fields[1::2], strict=False):
                if colour != b"?":
                    self._colour(b"4;" + index, b"4;%b;%b" % (index, colour))
        elif re.fullmatch(rb"1\d", number):
            for n, colour in enumerate(value.split(b";"), int(number)):
                if colour != b"?" and n < 20:
                    self._colour(b"%d" % n, b"%d;%b" % (n, colour))
        elif re.fullmatch(rb"11\d", number):
            self._colour(number[1:], number)
        elif number == b"104" and value:
            for index in value.split(b";"):
                self._colour(b"4;" + index, b"104;" + index)
        elif number == b"104":
            for key in [key for key in self.colours if key.startswith(b"4;")]:
                del self.colours[key]
            self._colour(b"104", b"104")

    def _colour(self, what: bytes, body: bytes) -> None:
        self.colours.pop(what, None)
        self.colours[what] = body

    def _save_cursor(self) -> None:
        self.saved_cursor = _State(
            sgr=dict(self.sgr),
            sgr_reset=self.sgr_reset,
            charsets=dict(self.charsets),
            shift=self.shift,
            protection=self.protection,
            modes={6: self.modes.get(6, False)},
        )

    def _restore_cursor(self) -> None:
        saved = self.saved_cursor
        if saved is None:
            self._default_pen()
            self.modes[6] = False
        else:
            self.sgr = dict(saved.sgr)
            self.sgr_reset = saved.sgr_reset
            self.charsets = dict(saved.charsets)
            self.shift = saved.shift
            self.protection = saved.protection
            self.modes.update(saved.modes)

    def _default_pen(self) -> None:
        self.sgr.clear()
        self.sgr_reset = True
        self.charsets = {code: b"\x1b%bB" % code for code in (b"(", b")", b"*", b"+")}
        self.shift = b"\x0f"
        self.protection = b'\x1b[0"q'

    def _soft_reset(self) -> None:
        """DECSTR, as in xterm."""
        self._default_pen()
        self.modes.update({1: False, 6: False, 25: True, 66: False})
        self.ansi_modes.update({2: False, 4: False})
        self.keypad = b"\x1b>"
        self.margins = b"\x1b[r"
        self.saved_cursor = None

    def pen_bytes(self) -> bytes:
        """Return what brings about the attributes and charsets of what is printed next."""
        # What switches off comes first: 22 ends both bold (1) and faint (2).
        codes = sorted(dict.fromkeys(self.sgr.values()), key=lambda code: code not in _SGR_OFF)
        if self.sgr_reset:
            codes.insert(0, b"0")
        return (
            b"".join(self.charsets.values())
            + self.shift
            + self.protection
            # One by one, for together they may be more than a terminal takes, see `_reset`.
            + b"".join(b"\x1b[%bm" % code for code in codes)
        )

    def shared_bytes(self) -> bytes:
        """Return what brings about all that both screens share. The cursor goes anywhere."""
        parts = [_osc_bytes(body) for body in (*self.colours.values(), self.directory) if body]
        parts += self.key_options.values()
        parts.append(self.keypad)
        parts += [b"\x1b[%d%c" % (n, b"lh"[on]) for n, on in self.ansi_modes.items()]
        parts += [
            b"\x1b[?%d%c" % (n, b"lh"[on])
            for n, on in self.modes.items()
            if n != 6 and n not in _NOT_REPLAYED
        ]
        parts += [self.cursor_style, self.side_margins, self.margins]
        return b"".join(parts)

    def origin_bytes(self) -> bytes:
        return b"\x1b[?6%c" % b"lh"[self.modes[6]] if 6 in self.modes else b""

    def last_modes_bytes(self) -> bytes:
        return b"".join(b"\x1b[?%dh" % n for n in _SET_LAST if self.modes.get(n))

    def kitty_keyboard_bytes(self) -> bytes:
        if self.kitty_keyboard == [0]:
            return b""
        first, *others = self.kitty_keyboard
        return b"\x1b[=%du" % first + b"".join(b"\x1b[>%du" % flags for flags in others)


def _pens(data: bytes, start: int, end: int) -> tuple[bytes, Iterable[bytes]]:
    """Return the last SO or SI in a stretch of `data`, and the parameters of SGR that count."""
    shifted_out = data.rfind(b"\x0e", start, end)
    shifted_in = data.rfind(b"\x0f", start, end)
    shift = b"" if shifted_out == shifted_in else b"\x0e" if shifted_out > shifted_in else b"\x0f"
    if data.find(b"\x1b", start, end) < 0:
        return shift, ()
    # Only what follows the last reset counts; it mostly is near, and then nothing else need be
    # looked at.
    for since in (max(start, end - SMALL), start):
        reset = max(data.rfind(b"\x1b[0m", since, end), data.rfind(b"\x1b[m", since, end))
        if reset >= 0:
            start = reset
            break
    # And of those that are the same, only the last.
    return shift, reversed(dict.fromkeys(reversed(_SGR.findall(data, start, end))))


@functools.lru_cache(maxsize=256)
def _sgr_groups(code: int) -> tuple[str, ...]:
    """Return which of the attributes that are independent of each other an SGR code changes."""
    if 30 <= code <= 39 or 90 <= code <= 97:
        return ("foreground",)
    if 40 <= code <= 49 or 100 <= code <= 107:
        return ("background",)
    if 10 <= code <= 19:
        return ("font",)
    for codes, groups in (
        ((22,), ("bold", "faint")),
        ((1,), ("bold",)),
        ((2,), ("faint",)),
        ((3, 23), ("italic",)),
        ((4, 21, 24), ("underline",)),
        ((5, 6, 25), ("blink",)),
        ((7, 27), ("inverse",)),
        ((8, 28), ("hidden",)),
        ((9, 29), ("strike",)),
        ((53, 55), ("overline",)),
        ((58, 59), ("underline colour",)),
    ):
        if code in codes:
            return groups
    return ()


_SGR_OFF = frozenset(b"22 23 24 25 27 28 29 39 49 55 59".split())


def _number(digits: bytes) -> int:
    """Return the value of a parameter; 0 for a missing one and for what no terminal takes."""
    return int(digits) if digits.isdigit() and len(digits) < 10 else 0


def _numbers(parameters: bytes) -> list[int]:
    return [_number(digits) for digits in parameters.split(b";")]


def _osc_body(sequence: bytes) -> bytes:
    body = sequence[sequence.index(b"]") + 1 :]
    body = body[:-2] if body.endswith(b"\x1b\\") else body.removesuffix(b"\x07")
    return _without_controls(body)


def _without_controls(text: bytes) -> bytes:
    """Return `text` without C0, C1 and what is no character: a client must not act on them."""
    return _CONTROL_CHARACTERS.sub("", text.decode(errors="ignore")).encode()


def _osc_bytes(body: bytes) -> bytes:
    return b"\x1b]%b\x1b\\" % body


def _title_bytes(titles: dict[bytes, bytes]) -> bytes:
    icon, window = titles.get(b"1", b""), titles.get(b"2", b"")
    if icon == window:
        return _osc_bytes(b"0;" + window)
    return _osc_bytes(b"1;" + icon) + _osc_bytes(b"2;" + window)


def _reset(columns: int) -> bytes:
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
            *(_osc_bytes(body) for body in (b"8;;", b"104", b"110", b"111", b"112")),
            b"\x1b[3g",
            *(b"\x1b[%dG\x1bH" % column for column in range(9, columns + 1, 8)),
            _CLEAR,
        )
    )


_CLEAR = b"\x1b[H\x1b[2J\x1b7"


def _split_partial(data: bytes) -> tuple[bytes, bytes]:
    """Split off the sequence or the character that the end of `data` leaves unfinished."""
    last = data.rfind(b"\x1b")
    if last >= 0 and _PARTIAL_SEQUENCE.match(data, last):
        return data[:last], data[last:]
    return _split_character(data)


def _split_character(data: bytes) -> tuple[bytes, bytes]:
    match = _PARTIAL_CHARACTER.search(data, max(len(data) - 3, 0))
    if match:
        return data[: match.start()], match[0]
    return data, b""


def _without_effects(data: bytes) -> bytes:
    """Return `data` without what a terminal answers, copies, prints, rings at or is named by.

    `data` begins and ends outside of any sequence. Sequences that were aborted are left out too:
    their remains and those of what follows must not become a sequence together.
    """
    data = _SPECIAL.sub(_filter_sequence, data)
    return _ENCODED_C1.sub(b"", data.translate(None, b"\x05\x07"))


def _filter_sequence(match: re.Match[bytes]) -> bytes:
    raw: bytes = match[0]
    introducer = raw[1:].lstrip(_C0_BYTES)[:1]
    if introducer == b"]":
        body = _osc_body(raw)
        if _SHOWN_OSC.match(body) and not _COLOUR_QUERY.match(body):
            return _osc_bytes(body)
        return b""
    if introducer in (b"P", b"X", b"^", b"_"):
        return raw if _SIXEL.fullmatch(raw) else b""
    sequence = raw.translate(None, _C0_BYTES)
    executed = raw.translate(None, _NOT_EXECUTED)
    if introducer != b"[":
        if _PARTIAL_SEQUENCE.match(sequence) or sequence == b"\x1bZ":
            return executed
        return executed + sequence
    modes = _PRIVATE_MODES.fullmatch(sequence)
    if modes:
        numbers = [n for n in modes[1].split(b";") if _number(n) not in _NOT_REPLAYED]
        sequence = b"\x1b[?%b%b" % (b";".join(numbers), modes[2]) if numbers else b""
    elif _PARTIAL_SEQUENCE.match(sequence) or _ANSWERED.fullmatch(sequence):
        sequence = b""
    return executed + sequence


class _Chunks:
    """Output in the order in which it came."""

    __slots__ = ("_chunks", "_tail", "size")

    def __init__(self) -> None:
        self.size = 0  # in bytes
        self._chunks: deque[bytes] = deque()
        self._tail = bytearray()  # small chunks, newer than all of _chunks

    def append(self, data: bytes) -> None:
        size = len(data)
        if size < SMALL:
            self._tail += data
            if len(self._tail) >= 2 * SMALL:
                self._flush()
        else:
            if self._tail:
                self._flush()
            self._chunks.append(data)
        self.size += size

    def _flush(self) -> None:
        self._chunks.append(bytes(self._tail))
        self._tail.clear()

    def data(self) -> bytes:
        return b"".join((*self._chunks, self._tail))

    def take(self) -> bytes:
        """Remove all, and return it."""
        data = self.data()
        self._chunks.clear()
        self._tail.clear()
        self.size = 0
        return data

    def cut(self, limit: int) -> bytes:
        """Remove the oldest bytes down to `limit`, and return them.

        They go up to the end of a line where there is one, so up to 32 KiB more may be left.
        """
        target = self.size - limit
        block = self._pop(target)
        end = block.rfind(b"\n", max(target - SLACK // 2, 0), target) + 1 or target
        self._put_back(block[end:])
        return block[:end]

    def cut_lines(self, count: int) -> bytes:
        """Remove so many lines from the start, and return them.

        None, if there are fewer, or if the cursor goes back to an earlier line in them.
        """
        size = 0
        for chunk in self._chunks:
            end = 0
            while count and (newline := chunk.find(b"\n", end)) >= 0:
                end = newline + 1
                count -= 1
            if count:
                end = len(chunk)
            if chunk.find(b"\b", 0, end) >= 0 or _MOVES.search(chunk, 0, end):
                break
            size += end
            if not count:
                block = self._pop(size)
                self._put_back(block[size:])
                return block[:size]
        return b""

    def _pop(self, size: int) -> bytes:
        """Remove the oldest chunks, of so many bytes or more, and return them."""
        if self._tail:
            self._flush()
        removed: list[bytes] = []
        while size > 0:
            removed.append(self._chunks.popleft())
            size -= len(removed[-1])
        block = b"".join(removed)
        self.size -= len(block)
        return block

    def _put_back(self, data: bytes) -> None:
        """Make `data` the oldest of all."""
        if data:
            self._chunks.appendleft(data)
            self.size += len(data)


class _Recording(_Chunks):
    """The newest bytes of one screen's output, and what the earlier ones had changed."""

    __slots__ = ("_special", "start")

    def __init__(self) -> None:
        super().__init__()
        self.start = _State()
        self._special = 0  # how many bytes lie before the end of the last sequence that isn't plain

    def append(self, data: bytes, plain: bool = False) -> None:
        """Add `data`; if `plain`, it has plain sequences only."""
        super().append(data)
        if not plain:
            self._special = self.size

    def replace(self, data: bytes) -> None:
        self.take()
        self.append(data)

    def end(self) -> _State:
        """Return the state after the last byte."""
        state = self.start.copy()
        state.fold(_split_partial(self.data())[0])
        return state

    def forget(self) -> None:
        """Drop all that is complete; keep its effects."""
        data, partial = _split_partial(self.data())
        self.start.fold(data)
        self.replace(partial[:LONGEST_OSC])

    def evict(self, limit: int) -> None:
        """Drop the oldest bytes down to `limit`, up to the end of a line where there is one."""
        block = self.cut(limit)
        kept, partial = _split_partial(block)
        if not kept:
            # A string (an image, most likely) longer than all of this, and yet to end: its
            # beginning must stay, or the rest would be taken for text.
            partial = partial[:32]
        if self._special:
            self.start.fold(kept)
        else:
            self.start.fold_pens(kept, 0, len(kept))
        self._put_back(partial)
        self._special = max(self._special - len(block), 0) + len(partial)


class RingTerminal(Terminal):
    """A terminal that remembers the newest output, and replays it.

    It keeps 256 KiB of the normal screen's output. Of what was dropped before it keeps the modes
    and attributes, but not the cursor's position: after that much text it is at the bottom. The
    alternate screen's output is kept apart, up to 1 MiB, and dropped when that screen is left;
    beyond that, or when the size changes meanwhile, :attr:`lost` is set until the program clears
    the screen.

    Where it can't know, being no emulator:

    * After a change of size the normal screen is what the recorded output looks like at the new
      size, as if it had been that size from the start.
    * The alternate screen starts with the cursor where it is estimated to have been, and is always
      clear (47 would show again what it held when it was last left).
    * Modes 47 and 1047 leave the cursor in the normal screen where it was before; a terminal leaves
      it where the program had put it. Programs save and restore it around them.
    * Once the output that set them is dropped, tab stops and the position of the saved cursor
      are those of a fresh terminal.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self._normal = _Recording()
        self._alternate: _Recording | None = None
        self._alternate_mode = 1049  # the one that entered it
        self._lost = False

    @property
    def in_alt(self) -> bool:
        return self._alternate is not None

    @property
    def lost(self) -> bool:
        if self._lost:
            self._lost = not self._forget_cleared()
        return self._lost

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes:
            data = bytes(data)
        data = self._complete(data)
        if self._plain:
            self._record(data, plain=True)
        else:
            self._scan(data)

    def _scan(self, data: bytes) -> None:
        """Record `data`, and follow the switches of screens in it."""
        start = 0
        # The prefix that both share is short, so looking for both is slow.
        pattern = _SWITCH_OR_RIS if b"\x1bc" in data else _SWITCH
        match = pattern.search(data)
        while match:
            position = match.end()
            if match[0] != b"\x1bc":
                start = self._switch(data, start, match)
            elif self._alternate is not None:
                # A full reset leaves the alternate screen, and nothing of before can be seen.
                self._normal = _Recording()
                self._left()
                start = position
            match = pattern.search(data, position)
        self._record(data[start:] if start else data)

    def _switch(self, data: bytes, start: int, match: re.Match[bytes]) -> int:
        """Follow one setting or resetting of modes; return up to where `data` is recorded."""
        numbers = _numbers(match[1])
        modes = [n for n in numbers if n in _ALTERNATE]
        entering = match[2] == b"h"
        if entering == (self._alternate is not None):
            # The screen that is shown already: terminals differ in what they make of that, so it
            # is left to them.
            return start
        others = b";".join(b"%d" % n for n in numbers if n not in _ALTERNATE)
        rest = b"\x1b[?%b%b" % (others, match[2]) if others else b""
        self._record(data[start : match.start()] + rest)
        if entering:
            self._alternate_mode = modes[-1]
            if 1049 in modes:
                self._record(b"\x1b7")
            self._alternate = _Recording()
            self._lost = False
        else:
            assert self._alternate is not None
            changes = self._alternate.end()
            self._left()
            # What it changed of both screens is recorded in its place; 1049 saved the cursor
            # before, and restores it.
            self._record(changes.shared_bytes())
            for titles in changes.title_stack:
                self._record(_changed_titles(titles) + b"\x1b[22;0t")
            self._record(_changed_titles(changes.titles))
            self._record(
                b"".join(
                    b"\x1b[?%d%c" % (n, b"lh"[changes.modes[n]])
                    for n in _SET_LAST
                    if n in changes.modes
                )
            )
            self._record(
                b"\x1b8" if 1049 in modes else changes.origin_bytes() + changes.pen_bytes()
            )
        return match.end()

    def _left(self) -> None:
        self._alternate = None
        self._lost = False
        self._alt_generation += 1

    def _record(self, data: bytes, plain: bool = False) -> None:
        if self._alternate is None:
            self._normal.append(data, plain)
            if self._normal.size > NORMAL_LIMIT + SLACK:
                self._normal.evict(NORMAL_LIMIT)
        else:
            self._alternate.append(data, plain)
            if self._alternate.size > (SLACK if self._lost else ALTERNATE_LIMIT):
                # Only if it makes room for long, for looking takes long.
                known = self._forget_cleared() and self._alternate.size < ALTERNATE_LIMIT // 2
                self._lost = not known
                if self._lost:
                    self._alternate.forget()

    def _forget_cleared(self) -> bool:
        """Drop what the program has cleared from the alternate screen; return whether it has.

        From then on its screen is known again, even if it was lost. Not so the position of a cursor
        that it saved before.
        """
        assert self._alternate is not None
        data = self._alternate.data()
        cleared = _last_clear(data)
        if cleared < 0:
            return False
        start = self._alternate.start.copy()
        start.fold(data[:cleared])
        if start.saved_cursor is not None:
            return False
        self._alternate.start = start
        self._alternate.replace(data[cleared:])
        return True

    def resize(self, rows: int, columns: int) -> None:
        rows, columns = max(rows, 1), max(columns, 1)
        if (rows, columns) == (self._rows, self._columns):
            return
        self._rows, self._columns = rows, columns
        if self._alternate is not None:
            self._lost = True
            self._alternate.forget()

    def _forget_erased(self) -> None:
        """Drop what a full reset, or an erased scrollback, has made invisible."""
        data = self._normal.data()
        if b"\x1bc" not in data and b"\x1b[3J" not in data:
            return
        all_forgotten = list(_FORGETS.finditer(data))
        if not all_forgotten:
            return
        last = all_forgotten[-1]
        # The sequence itself is kept, except for the reset: a redraw resets already.
        start = last.end() if last[0] == b"\x1bc" else last.start()
        self._normal.start.fold(data[:start])
        self._normal.replace(data[start:])

    def redraw(self) -> bytes:
        self._forget_erased()
        parts = [_reset(self._columns)]
        if self._alternate is None:
            start = self._normal.start
            body, partial = _split_partial(self._normal.data() + self._held)
            end = start.copy()
            end.fold(body)
            parts += [start.shared_bytes(), start.origin_bytes()]
            if start.saved_cursor:
                saved = start.saved_cursor
                parts += [saved.origin_bytes(), saved.pen_bytes(), b"\x1b7", start.origin_bytes()]
            parts += [_RESET_PEN if start.saved_cursor else b"", start.pen_bytes()]
            parts += [start.kitty_keyboard_bytes(), _osc_bytes(start.link) if start.link else b""]
            parts.append(_without_effects(body))
        else:
            lost = self.lost
            end = self._normal.end()
            parts += [b"\x1b[?%dh\x1b[<99u" % self._alternate_mode, _CLEAR]
            parts += [end.shared_bytes(), end.origin_bytes(), end.pen_bytes()]
            body, partial = _split_partial(self._alternate.data() + self._held)
            changes = self._alternate.start.copy()
            if lost:
                changes.fold(body)
            else:
                # Nearly all programs go home first; the others start where the cursor was.
                before = _split_partial(self._normal.data())[0]
                parts.append(b"\x1b[%d;%dH" % _cursor_after(before, self._rows, self._columns))
            parts += [changes.shared_bytes(), changes.origin_bytes(), changes.pen_bytes()]
            parts.append(changes.kitty_keyboard_bytes())
            parts.append(_osc_bytes(changes.link) if changes.link else b"")
            end.modes.update(changes.modes)
            end.titles.update(changes.titles)
            if not lost:
                end.fold(body)
                parts.append(_without_effects(body))
        # A title after the content doesn't move the cursor, nor end a pending wrap.
        parts += [_title_bytes(end.titles), end.last_modes_bytes()]
        parts.append(_quiet_partial(partial))
        return b"".join(parts)

    def replies(self, data: bytes | bytearray | memoryview) -> bytes:
        if self._plain:
            return b""
        data = bytes(data)
        out = []
        for match in _QUERIES.finditer(data):
            if match[3] == b"6":
                row, column = self._cursor(data[match.start() :])
                out.append(b"\x1b[%b%d;%dR" % (match[2], row, column))
            else:
                out.append(_reply(match))
        return b"".join(out)

    def _cursor(self, after: bytes) -> tuple[int, int]:
        """Return the row and column, from 1, where the cursor was before the last bytes `after`."""
        recording = self._alternate if self._alternate is not None else self._normal
        data = recording.data() + self._held
        return _cursor_after(data.removesuffix(after), self._rows, self._columns)


def _last_clear(data: bytes) -> int:
    """Return where `data` last clears the screen and brings the cursor home, or -1.

    ED 0 from home is not looked for: in origin mode it leaves what is above the margins.
    """
    clear = b"\x1b[2J"
    at = data.rfind(clear)
    while at >= 0:
        for home in (b"\x1b[H", b"\x1b[1;1H"):
            if data.startswith(home, at + len(clear)):
                return at
            if data.endswith(home, 0, at):
                return at - len(home)
        at = data.rfind(clear, 0, at)
    return at


def _changed_titles(titles: dict[bytes, bytes]) -> bytes:
    return b"".join(_osc_bytes(b"%b;%b" % item) for item in titles.items())


def _quiet_partial(partial: bytes) -> bytes:
    """Return an unfinished sequence without the controls in it that ring or answer."""
    partial = partial.translate(None, b"\x05\x07")
    if len(partial) < 4 and not partial.startswith(b"\x1b"):
        return partial  # a character
    # Some take C1 controls inside of strings for what they are.
    complete, character = _split_character(partial)
    return _without_c1(complete) + character


def _without_c1(data: bytes) -> bytes:
    text = data.decode(errors="surrogateescape")
    return _C1_CHARACTERS.sub("", text).encode(errors="surrogateescape")


_RESET_PEN = b"\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[0m"


def _reply(query: re.Match[bytes]) -> bytes:
    if query[3] == b"5":
        return b"\x1b[0n" if not query[2] else b""
    # A VT220 with colour, as xterm-likes say; and no version that a program could know bugs of.
    return b"\x1b[>1;10;0c" if query[1] else b"\x1b[?62;22c"


_CURSOR_TOKENS = re.compile(rb"\x1b" + _SEQUENCE_BODY + rb"|[^\x00-\x1f\x7f]+|[\b\t\n\v\f\r]")


def _cursor_after(data: bytes, rows: int, columns: int) -> tuple[int, int]:
    """Return where the cursor is, from 1, after `data` on a clear screen.

    An estimate: it follows text, wrapping, margins and movements, but no tab stops and no insert
    mode. Programs that ask for the position mostly have just set it (to find the size, say).
    """
    row = column = 0  # column == columns: the next character wraps
    if len(data) > CURSOR_LOOKS_BACK:
        row = rows - 1
        data = data[data.find(b"\n", -CURSOR_LOOKS_BACK) :]
    top, bottom = 0, rows - 1
    saved = (0, 0)
    for match in _CURSOR_TOKENS.finditer(data):
        token = match[0]
        if token[0] >= 0x20 and token[0] != 0x1B:
            for width in _widths(token):
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
        csi = _CSI.fullmatch(token)
        if csi is None or csi[1] or csi[3]:
            continue
        numbers = _numbers(csi[2])
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


def _widths(text: bytes) -> Iterable[int]:
    if text.isascii():
        return (1,) * len(text)
    return [
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text.decode(errors="replace")
    ]


# Ghostty reads sizes as 16 bits and allocates what they ask for, so they are bounded; a real
# terminal is far smaller.
GHOSTTY_LARGEST = 1000
# How many of the last rows are looked at cell by cell, which takes up to 0.3 ms for each.
MENDED_ROWS = 300
GHOSTTY_SCROLLBACK = 2 * 1024 * 1024  # bytes in its own cells; about 2,000 lines of 80 columns
# Modes which Ghostty has on from the start and xterm has off.
_GHOSTTY_UNUSUAL_DEFAULTS = (1007,)
# The screen, the cursor and drawing are cared for apart from other modes; 3 and 40 belong to
# switching the width, which clears the screen.
_GHOSTTY_SKIPPED_MODES = frozenset((3, 6, 12, 40, 47, 69, 1047, 1048, 1049, 2026, *_SET_LAST))
_GHOSTTY_PREFIX = re.compile(
    rb"(?P<modes>(?:\x1b\[\??\d+[hl])*)(?P<tabs>\x1b\[3g(?:\x1b\[\d+G\x1bH)*)\x1b\[H"
)
# A style that shows on a blank, and a blank after it.
_GHOSTTY_BLEEDS = re.compile(rb"\x1b\[(?:4(?:m|:|8[;:])|[79]m|21m|53m)[^ ]* ")
_GHOSTTY_TOKENS = re.compile("\x1b\\[[0-9;:]*m|.", re.DOTALL)
_GHOSTTY_MODE = re.compile(rb"\x1b\[(\??)(\d+)([hl])")
_GHOSTTY_MARGINS = re.compile(rb"\x1b\[(\d+);(\d+)([rs])")
_GHOSTTY_CURSOR = re.compile(rb"\x1b\[(\d+);(\d+)H")
_GHOSTTY_ASCII = re.compile(rb"\x1b[()*+]B")
_GHOSTTY_ANSWERS = re.compile(rb"\x1b\[(?:[?>][\d;]*c|0n|\??[\d;]*R)")


class _Dump(NamedTuple):
    """What Ghostty's formatter writes about a terminal, taken apart."""

    modes: bytes
    tabs: bytes
    content: bytes
    keyboard: bytes  # modifyOtherKeys
    margins: bytes
    cursor: bytes  # position, attributes, charsets, link


class GhosttyTerminal(Terminal):
    """A terminal emulated by pyghostty (the extra ``vt``).

    It knows every cell, so the alternate screen is never lost and a new size reflows the text.
    About 2 MiB of cells are kept as scrollback, or, of a flood of plain lines, the last 256 KiB:
    what has scrolled out of those unseen is never emulated. Sizes beyond 1,000 rows or columns are
    taken for 1,000.

    What Ghostty doesn't tell or do: links of cells that are already printed, images, the protected
    attribute (DECSCA) of cells; DECSTR doesn't reset modes. The attributes of a cell that a wide
    character left free at the end of a row are not restored. In scrollback far back a background or
    an underline may go on over blanks after it.

    Raises whatever importing pyghostty raises.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(min(rows, GHOSTTY_LARGEST), min(columns, GHOSTTY_LARGEST))
        import pyghostty  # here, because it is optional and takes a tenth of a second

        self._ffi = ffi = pyghostty.ffi
        self._lib = pyghostty.lib
        # pyghostty's own limit on lines makes Ghostty eight times slower: bound the bytes instead.
        self._terminal = pyghostty.Terminal(self._columns, self._rows, scrollback=10**9)
        self._handle = self._terminal._t[0]
        self._set("SCROLLBACK_MAX_BYTES", ffi.new("size_t *", GHOSTTY_SCROLLBACK))
        self._set("CONTINUATION_MAX_BYTES", ffi.new("size_t *", ALTERNATE_LIMIT))
        for mode in _GHOSTTY_UNUSUAL_DEFAULTS:
            default = ffi.new("GhosttyTerminalModeConfig *")
            default.mode, default.value = mode, False
            self._set("MODE_DEFAULT", default)
        # Not pyghostty's own `on_reply`: it makes a cycle that only the collector ends, and until
        # then the terminal's memory stays.
        self._answers: list[bytes] = []
        answers = self._answers
        self._callback = ffi.callback(
            "GhosttyTerminalWritePtyFn",
            lambda _terminal, _userdata, data, size: answers.append(bytes(ffi.buffer(data, size))),
        )
        self._set("WRITE_PTY", self._callback)
        self._screen = ffi.new("GhosttyTerminalScreen *")
        self._in_alt = False
        # What Ghostty has yet to be fed. It has plain sequences only, so nobody needs to know now.
        self._waiting = _Chunks()
        self._ground = ffi.new("bool *", True)  # not amid a sequence, string or character
        self._margins: bool | None = None  # whether a part of the screen scrolls alone, if known

    def _set(self, option: str, value: Any) -> None:
        lib = self._lib
        key = getattr(lib, f"GHOSTTY_TERMINAL_OPT_{option}")
        self._check(lib.ghostty_terminal_set(self._handle, key, value))

    def _get(self, terminal: Any, data: str, ctype: str) -> Any:
        # Ghostty writes as many bytes as its own type has: a wrong `ctype` corrupts memory.
        value = self._ffi.new(f"{ctype} *")
        key = getattr(self._lib, f"GHOSTTY_TERMINAL_DATA_{data}")
        self._check(self._lib.ghostty_terminal_get(terminal, key, value))
        return value[0]

    def _check(self, result: int) -> None:
        if result != self._lib.GHOSTTY_SUCCESS:
            raise RuntimeError(f"libghostty-vt failed with {result}")

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes:
            data = bytes(data)
        if self._answers:
            self._answers.clear()
        data = self._complete(data)
        if not (self._plain and self._ground[0]):
            self._write(self._waiting.take() + data)
            self._margins = None
            return
        self._waiting.append(data)
        if self._waiting.size > NORMAL_LIMIT + SLACK:
            self._skip()

    def _write(self, data: bytes) -> None:
        """Feed Ghostty, which takes several times as long as looking for plain sequences."""
        lib = self._lib
        lib.ghostty_terminal_vt_write(self._handle, data, len(data))
        lib.ghostty_terminal_get(
            self._handle, lib.GHOSTTY_TERMINAL_DATA_ACTIVE_SCREEN, self._screen
        )
        lib.ghostty_terminal_get(self._handle, lib.GHOSTTY_TERMINAL_DATA_VT_GROUND, self._ground)
        # Leaving and entering again within one chunk passes unseen; nobody needs the redraw that
        # it would lead to, until the alternate screen is left for good.
        in_alt = self._screen[0] != lib.GHOSTTY_TERMINAL_SCREEN_PRIMARY
        if self._in_alt and not in_alt:
            self._alt_generation += 1
        self._in_alt = in_alt

    def _write_all(self) -> None:
        """Feed Ghostty all that it has yet to be fed."""
        data = self._waiting.take() + self._held
        self._held = b""
        if data:
            self._write(data)

    def _skip(self) -> None:
        """Spare Ghostty the oldest of what waits, if nothing can be seen of it.

        Once more lines than fit on the screen have come after it, whole lines leave nothing behind
        but the attributes of what is printed next. (And scrollback, which is begun anew, so that it
        has no gap; about as much of it is kept as the other engine keeps.)
        """
        block, lines = self._waiting.cut(NORMAL_LIMIT), b""
        if self._margins is None:
            self._margins = self._has_margins()
        if not self._margins and block.endswith(b"\r\n"):
            # Half of them may do no more than overwrite what was there.
            lines = self._waiting.cut_lines(2 * self._rows)
        if not lines:
            self._write(block)
            return
        shift, renditions = _pens(block, 0, len(block))
        pens = b"".join(b"\x1b[%bm" % parameters for parameters in renditions)
        self._write(b"\r%b%b%b\x1b[3J" % (shift, pens, lines))

    def resize(self, rows: int, columns: int) -> None:
        self._write_all()
        self._rows = min(max(rows, 1), GHOSTTY_LARGEST)
        self._columns = min(max(columns, 1), GHOSTTY_LARGEST)
        self._terminal.resize(self._columns, self._rows)

    @property
    def in_alt(self) -> bool:
        return self._in_alt

    @property
    def lost(self) -> bool:
        return False

    def redraw(self) -> bytes:
        self._write_all()
        dump = self._dump(self._handle)
        parts = [_reset(self._columns)]
        if self._in_alt:
            entered = next((n for n in (1049, 1047, 47) if self._mode(self._handle, n)), 1049)
            parts += [b"\x1b[?%dh\x1b[<99u" % entered, _CLEAR]
        parts += [self._colours(), dump.tabs, b"\x1b[H", self._rows_bytes(dump.content)]
        parts.append(b"\x1b[?69h" if self._mode(self._handle, 69) else b"")
        parts += [dump.margins, dump.keyboard, *self._from_copy(dump.margins)]
        parts.append(_cursor_bytes(dump, self._mode(self._handle, 6)))
        modes = _GHOSTTY_MODE.finditer(dump.modes)
        parts += [m[0] for m in modes if not m[1] or int(m[2]) not in _GHOSTTY_SKIPPED_MODES]
        parts += [self._cursor_style(), *self._texts()]
        parts += [b"\x1b[?%dh" % n for n in _SET_LAST if self._mode(self._handle, n)]
        parts.append(_quiet_partial(self._continuation()))
        return b"".join(parts)

    def _dump(self, terminal: Any) -> _Dump:
        options = self._format_options()
        content = self._format(terminal, options)
        for extra in ("modes", "scrolling_region", "tabstops", "keyboard"):
            setattr(options.extra, extra, True)
        for extra in ("cursor", "style", "hyperlink", "protection", "charsets"):
            setattr(options.extra.screen, extra, True)
        everything = self._format(terminal, options)
        prefix = _GHOSTTY_PREFIX.match(everything)
        if prefix is None or not everything.startswith(content, prefix.end()):
            raise RuntimeError("libghostty-vt's formatter writes in another order than expected")
        suffix = everything[prefix.end() + len(content) :]
        cursor = _GHOSTTY_CURSOR.search(suffix)
        if cursor is None:
            raise RuntimeError("libghostty-vt's formatter writes no cursor")
        between = suffix[: cursor.start()]
        return _Dump(
            modes=prefix["modes"],
            tabs=prefix["tabs"],
            content=content,
            keyboard=_GHOSTTY_MARGINS.sub(b"", between),
            margins=b"".join(m[0] for m in _GHOSTTY_MARGINS.finditer(between)),
            # ASCII is what the charsets are already: whether it was designated makes no difference.
            cursor=_GHOSTTY_ASCII.sub(b"", _without_c1(suffix[cursor.start() :])),
        )

    def _has_margins(self) -> bool:
        ffi = self._ffi
        options = self._format_options()
        options.extra.scrolling_region = True
        # One cell, for what they are written beside.
        cell = ffi.new("GhosttySelection *")
        cell.size = ffi.sizeof("GhosttySelection")
        cell.start = cell.end = self._terminal.ref(0, 0)[0]
        options.selection = cell
        return _GHOSTTY_MARGINS.search(self._format(self._handle, options)) is not None

    def _format_options(self) -> Any:
        ffi = self._ffi
        options = ffi.new("GhosttyFormatterTerminalOptions *")
        options.size = ffi.sizeof("GhosttyFormatterTerminalOptions")
        options.extra.size = ffi.sizeof("GhosttyFormatterTerminalExtra")
        options.extra.screen.size = ffi.sizeof("GhosttyFormatterScreenExtra")
        options.emit = self._lib.GHOSTTY_FORMATTER_FORMAT_VT
        return options

    def _format(self, terminal: Any, options: Any) -> bytes:
        ffi, lib = self._ffi, self._lib
        formatter = ffi.new("GhosttyFormatter *")
        self._check(lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, terminal, options[0]))
        try:
            return self._allocated(
                lambda text, size: lib.ghostty_formatter_format_alloc(
                    formatter[0], ffi.NULL, text, size
                )
            )
        finally:
            lib.ghostty_formatter_free(formatter[0])

    def _allocated(self, call: Callable[[Any, Any], int]) -> bytes:
        """Return what `call` has Ghostty allocate."""
        text, size = self._ffi.new("uint8_t **"), self._ffi.new("size_t *")
        self._check(call(text, size))
        try:
            return bytes(self._ffi.buffer(text[0], size[0])) if size[0] else b""
        finally:
            self._lib.ghostty_free(self._ffi.NULL, text[0], size[0])

    def _rows_bytes(self, content: bytes) -> bytes:
        """Return scrollback and screen as the formatter wrote it, with its omissions mended.

        It leaves out blank rows at the end, which keep the others in their places; the background
        of rows without text; and the end of a style before cells in which nothing was printed.
        """
        total = self._get(self._handle, "TOTAL_ROWS", "size_t")
        rows = content.split(b"\r\n")
        rows += [b""] * (total - len(rows))
        for y in range(max(total - max(MENDED_ROWS, self._rows), 0), total):
            if not rows[y] or _GHOSTTY_BLEEDS.search(rows[y]):
                rows[y] = self._mended(y, rows[y])
        parts = []
        for y, row in enumerate(rows[:-1]):
            parts.append(row)
            # Lines that were wrapped are in one piece again, and wrapped by the client.
            # (A row without text can't be wrapped into.)
            if len(row) < self._columns or not rows[y + 1] or not self._wraps(y, row):
                parts.append(b"\r\n")
        return _without_c1(b"".join([*parts, rows[-1]]))

    def _mended(self, y: int, row: bytes) -> bytes:
        """Return a row with the right style in cells in which nothing was printed."""
        ffi, lib = self._ffi, self._lib
        ref = self._terminal.ref(0, y, "screen")
        cell = ffi.new("GhosttyCell *")
        tag, wide = ffi.new("GhosttyCellContentTag *"), ffi.new("GhosttyCellWide *")
        has_text, more = ffi.new("bool *"), ffi.new("size_t *")
        index, rgb = ffi.new("GhosttyColorPaletteIndex *"), ffi.new("GhosttyColorRgb *")

        def get(key: int, value: Any) -> Any:
            self._check(lib.ghostty_cell_get(cell[0], key, value))
            return value[0]

        out: list[str] = []
        style = current = ""
        tokens = iter(_GHOSTTY_TOKENS.findall(row.decode(errors="replace")))
        ref.x = 0
        # A row without text has no tokens: then its cells alone tell its length.
        while ref.x < self._columns:
            token = next(tokens, "") if row else " "
            if not token:
                break
            if token.startswith("\x1b"):
                style = "" if token == "\x1b[0m" else style + token
                continue
            self._check(lib.ghostty_grid_ref_cell(ref, cell))
            wanted, width = style, 1
            if get(lib.GHOSTTY_CELL_DATA_HAS_TEXT, has_text):
                if get(lib.GHOSTTY_CELL_DATA_WIDE, wide) == lib.GHOSTTY_CELL_WIDE_WIDE:
                    width = 2
                if (
                    get(lib.GHOSTTY_CELL_DATA_CONTENT_TAG, tag)
                    != lib.GHOSTTY_CELL_CONTENT_CODEPOINT
                ):
                    # All code points of a grapheme are in one cell.
                    lib.ghostty_grid_ref_graphemes(ref, ffi.NULL, 0, more)
                    token += "".join(next(tokens, "") for _ in range(more[0] - 1))
            else:
                wanted = ""
                kind = get(lib.GHOSTTY_CELL_DATA_CONTENT_TAG, tag)
                if kind == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_PALETTE:
                    wanted = f"\x1b[48;5;{get(lib.GHOSTTY_CELL_DATA_COLOR_PALETTE, index)}m"
                elif kind == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_RGB:
                    colour = get(lib.GHOSTTY_CELL_DATA_COLOR_RGB, rgb)
                    wanted = f"\x1b[48;2;{colour.r};{colour.g};{colour.b}m"
            if wanted != current:
                out.append("\x1b[0m" + wanted)
                current = wanted
            out.append(token)
            ref.x += width
        if current:
            out.append("\x1b[0m")
        mended = "".join(out)
        return (mended if row else mended.rstrip(" ")).encode()

    def _wraps(self, y: int, row: bytes) -> bool:
        """Whether a row is full and goes on in the next one."""
        # One less where a wide character didn't fit any more.
        if sum(_widths(_SGR.sub(b"", row))) < self._columns - 1:
            return False
        ffi, lib = self._ffi, self._lib
        grid_row, flag = ffi.new("GhosttyRow *"), ffi.new("bool *")
        for i, key in (
            (y, lib.GHOSTTY_ROW_DATA_WRAP),
            (y + 1, lib.GHOSTTY_ROW_DATA_WRAP_CONTINUATION),
        ):
            self._check(lib.ghostty_grid_ref_row(self._terminal.ref(0, i, "screen"), grid_row))
            self._check(lib.ghostty_row_get(grid_row[0], key, flag))
            if not flag[0]:
                return False
        return True

    def _from_copy(self, margins: bytes) -> list[bytes]:
        """Return the saved cursor and the stack of keyboard flags.

        Ghostty tells neither, but a copy of the terminal can restore the one and pop the other.
        """
        ffi, lib = self._ffi, self._lib
        snapshot = self._allocated(
            lambda text, size: lib.ghostty_snapshot_encode_alloc(self._handle, ffi.NULL, text, size)
        )
        decoder = ffi.new("GhosttySnapshotDecoder *")
        self._check(
            lib.ghostty_snapshot_decoder_new_buf(ffi.NULL, decoder, snapshot, len(snapshot))
        )
        copy = ffi.new("GhosttyTerminal *", ffi.NULL)
        try:
            # Ready is the screen without its scrollback.
            self._check(lib.ghostty_snapshot_decoder_ready(decoder[0], copy))
            flags = []
            lib.ghostty_terminal_vt_write(copy[0], b"\x18", 1)
            for _ in range(16):
                flags.append(self._get(copy[0], "KITTY_KEYBOARD_FLAGS", "uint8_t"))
                lib.ghostty_terminal_vt_write(copy[0], b"\x1b[<u", 4)
            while flags and flags[-1] == 0:
                flags.pop()
            lib.ghostty_terminal_vt_write(copy[0], b"\x1b8", 2)
            saved = self._dump(copy[0])
            origin = self._mode(copy[0], 6)
        finally:
            if copy[0] != ffi.NULL:
                lib.ghostty_terminal_free(copy[0])
            lib.ghostty_snapshot_decoder_free(decoder[0])
        parts = [b"\x1b[>%du" % n for n in reversed(flags)]
        if origin or saved.cursor != b"\x1b[1;1H\x1b[0m":
            parts += [_cursor_bytes(saved._replace(margins=margins), origin), b"\x1b7"]
            parts += [b"\x1b[?6l", _RESET_PEN]
        return parts

    def _mode(self, terminal: Any, number: int) -> bool:
        mode = self._ffi.new("GhosttyTerminalModeConfig *")
        mode.mode = number
        key = self._lib.GHOSTTY_TERMINAL_DATA_MODE
        self._check(self._lib.ghostty_terminal_get(terminal, key, mode))
        return bool(mode.value)

    def _cursor_style(self) -> bytes:
        ffi, lib = self._ffi, self._lib
        state = ffi.new("GhosttyRenderState *")
        self._check(lib.ghostty_render_state_new(ffi.NULL, state))
        try:
            self._check(lib.ghostty_render_state_update(state[0], self._handle))
            style = ffi.new("GhosttyRenderStateCursorVisualStyle *")
            blinking = ffi.new("bool *")
            key = lib.GHOSTTY_RENDER_STATE_DATA_CURSOR_VISUAL_STYLE
            self._check(lib.ghostty_render_state_get(state[0], key, style))
            key = lib.GHOSTTY_RENDER_STATE_DATA_CURSOR_BLINKING
            self._check(lib.ghostty_render_state_get(state[0], key, blinking))
            steady = {
                lib.GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_UNDERLINE: 4,
                lib.GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_BAR: 6,
            }.get(style[0], 2)
        finally:
            lib.ghostty_render_state_free(state[0])
        if steady == 2 and not blinking[0]:
            return b""  # the default
        return b"\x1b[%d q" % (steady - bool(blinking[0]))

    def _colours(self) -> bytes:
        ffi, lib = self._ffi, self._lib
        parts = []
        palette = ffi.new("GhosttyColorRgb[256]")
        default = ffi.new("GhosttyColorRgb[256]")
        for data, colours in (("PALETTE", palette), ("PALETTE_DEFAULT", default)):
            key = getattr(lib, f"GHOSTTY_TERMINAL_DATA_COLOR_{data}")
            self._check(lib.ghostty_terminal_get(self._handle, key, colours))
        if bytes(ffi.buffer(palette)) != bytes(ffi.buffer(default)):
            for i in range(256):
                rgb = _rgb(palette[i])
                if rgb != _rgb(default[i]):
                    parts.append(_osc_bytes(b"4;%d;" % i + rgb))
        for number, name in ((10, "FOREGROUND"), (11, "BACKGROUND"), (12, "CURSOR")):
            colour = ffi.new("GhosttyColorRgb *")
            key = getattr(lib, f"GHOSTTY_TERMINAL_DATA_COLOR_{name}")
            # It has no value until the program sets one.
            if lib.ghostty_terminal_get(self._handle, key, colour) == lib.GHOSTTY_SUCCESS:
                parts.append(_osc_bytes(b"%d;" % number + _rgb(colour)))
        return b"".join(parts)

    def _texts(self) -> list[bytes]:
        texts = []
        for data in ("TITLE", "PWD"):
            text = self._get(self._handle, data, "GhosttyString")
            value = bytes(self._ffi.buffer(text.ptr, text.len)) if text.len else b""
            texts.append(_without_controls(value.split(b"\0")[0]))
        title, directory = texts
        return [_osc_bytes(b"7;" + directory) if directory else b"", _osc_bytes(b"0;" + title)]

    def _continuation(self) -> bytes:
        return self._allocated(
            lambda text, size: self._lib.ghostty_terminal_continuation_alloc(
                self._handle, self._ffi.NULL, text, size
            )
        )

    def replies(self, data: bytes | bytearray | memoryview) -> bytes:  # noqa: ARG002
        # Ghostty has answered while it was fed; some of what it answers is about itself.
        return b"".join(a for a in self._answers if _GHOSTTY_ANSWERS.fullmatch(a))


def _cursor_bytes(dump: _Dump, origin: bool) -> bytes:
    """Return what brings the cursor to its place, which in origin mode counts from the margins."""
    if not origin:
        return dump.cursor
    first = {m[3]: int(m[1]) for m in _GHOSTTY_MARGINS.finditer(dump.margins)}
    position = _GHOSTTY_CURSOR.match(dump.cursor)
    assert position is not None
    row = int(position[1]) - first.get(b"r", 1) + 1
    column = int(position[2]) - first.get(b"s", 1) + 1
    return b"\x1b[?6h\x1b[%d;%dH" % (row, column) + dump.cursor[position.end() :]


def _rgb(colour: Any) -> bytes:
    return b"rgb:%02x/%02x/%02x" % (colour.r, colour.g, colour.b)


@functools.cache
def _ghostty_works() -> bool:
    """Whether pyghostty is there and passes a test of what is used of it."""
    try:
        terminal = GhosttyTerminal(4, 20)
        terminal.feed(b"one\r\n\x1b[1;31mtwo\x1b7\x1b[m\r\n\x1b[?2004;1006h\x1b]2;title\x07")
        terminal.feed(b"\x1b[2;3r\x1b[3;20Hx\xe2\x94")
        other = GhosttyTerminal(4, 20)
        other.feed(b"\x1b[?7l\x1b[?1049hleft over\x1b]0;unfinished")
        other.feed(terminal.redraw())
        same = other.redraw() == terminal.redraw() and not other.in_alt
        other.feed(b"\x80\x1b[6n\x1b8\x1b[?1049h")
        works = (
            same
            and b"\x1b[31mtwo" in terminal.redraw().replace(b"38;5;1", b"31")
            and b"title" in terminal.redraw()
            and other.replies(b"\x1b[6n") == b"\x1b[3;2R"
            and other.in_alt
        )
        other.resize(10, 30)
        other.feed(b"\x1b[?1049l")
        works = works and not other.in_alt and other.alt_generation == 2
    except ImportError:
        return False  # not installed, which is nothing to tell anybody
    except Exception:
        logger.warning("pyghostty does not work; terminals are recorded instead", exc_info=True)
        return False
    if not works:
        logger.warning("pyghostty behaves unexpectedly; terminals are recorded instead")
    return works


def new_terminal(rows: int, columns: int) -> Terminal:
    """Return a terminal of the best engine there is.

    The first call imports and tries pyghostty, which takes about 0.2 seconds when it is installed.
    """
    return GhosttyTerminal(rows, columns) if _ghostty_works() else RingTerminal(rows, columns)
