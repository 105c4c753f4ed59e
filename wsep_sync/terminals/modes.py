"""What a stream of output has changed beside what it shows: :class:`State`."""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from .sequences import (
    C0_BYTES,
    CSI,
    LONGEST_OSC,
    NOT_REPLAYED,
    SET_LAST,
    SGR,
    SMALL,
    SPECIAL,
    osc_body,
    osc_bytes,
    to_number,
    to_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


# OSC that set foreground, background, cursor and so on, and those that reset them.
_DYNAMIC_COLOUR = re.compile(rb"1\d")
_RESET_COLOUR = re.compile(rb"11\d")

# Of nothing that a program can set in ever new ways is more kept than this; of more, the newest.
# More modes, or colours, than any terminal has:
MOST_MODES = 100
MOST_COLOURS = 300
MOST_KEY_OPTIONS = 16
# The longest control sequence, or colour, that counts, in bytes. Terminals drop longer ones, too.
LONGEST_CONTROL = 128
# Of a stretch of output no more is followed than the last so many sequences that differ; and if any
# of them save or restore, so many of all. That there are more makes no sense.
MOST_ASSIGNED = 1000
MOST_FOLLOWED = 1500


@dataclass
class State:
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
    saved_cursor: State | None = None  # attributes and charsets only

    def copy(self) -> State:
        return copy.deepcopy(self)

    def fold(self, data: bytes) -> None:
        """Follow `data`, which begins and ends outside of any sequence.

        Most sequences only assign: then the last of those that are the same counts, and there are
        few that differ. So a program that hides and shows the cursor for every key costs no more
        than finding that it does.
        """
        if b"\x1b" not in data and b"\x0e" not in data and b"\x0f" not in data:
            return
        found = SPECIAL.findall(data)
        stateful = {sequence for sequence in set(found) if _is_stateful(sequence)}
        if not stateful:
            self._assign(found)
            self.fold_pens(data, 0, len(data))
            return
        # Of so many in so little output, nobody will miss what the first saved.
        skipped = len(found) - MOST_FOLLOWED
        start = 0
        assigning: list[bytes] = []
        for index, match in enumerate(SPECIAL.finditer(data)):
            sequence = match[0]
            if sequence not in stateful:
                assigning.append(sequence)
            elif index >= skipped:
                self._assign(assigning)
                assigning.clear()
                self.fold_pens(data, start, match.start())
                self._follow(sequence)
                start = match.end()
        self._assign(assigning)
        self.fold_pens(data, start, len(data))

    def _assign(self, sequences: list[bytes]) -> None:
        """Follow sequences, of which the last of those that are the same count."""
        last = list(islice(dict.fromkeys(reversed(sequences)), MOST_ASSIGNED))
        for sequence in reversed(last):
            self._follow(sequence)

    def _follow(self, sequence: bytes) -> None:
        introducer = sequence[1:].lstrip(C0_BYTES)[:1]
        if introducer == b"]":
            if len(sequence) <= LONGEST_OSC and sequence[-1:] not in b"\x18\x1a":
                self._osc(osc_body(sequence))
            return
        if introducer in (b"P", b"X", b"^", b"_") or len(sequence) > LONGEST_CONTROL:
            return
        sequence = sequence.translate(None, C0_BYTES)
        csi = CSI.fullmatch(sequence)
        if csi:
            self._csi(sequence, *csi.groups())
        else:
            self._escape(sequence)

    def fold_pens(self, data: bytes, start: int, end: int) -> None:
        """Follow SGR, SO and SI, in a stretch of `data` with no other change of them."""
        shift, renditions = pens(data, start, end)
        self.shift = shift or self.shift
        for parameters in renditions:
            self._select_graphic_rendition(parameters)

    def _select_graphic_rendition(self, parameters: bytes) -> None:
        codes = parameters.split(b";")
        i = 0
        while i < len(codes):
            code, colon, _ = codes[i].partition(b":")
            n = to_number(code)
            if n == 0 and not colon:
                self.sgr.clear()
                self.sgr_reset = True
                i += 1
                continue
            length = 1
            if n in (38, 48, 58) and not colon:
                length = {b"5": 3, b"2": 5}.get(b"".join(codes[i + 1 : i + 2]), len(codes))
            if i + length <= len(codes):
                rendition = b";".join(codes[i : i + length])
                for group in _sgr_groups(n) if len(rendition) <= LONGEST_CONTROL else ():
                    self.sgr[group] = rendition
            i += length

    def _csi(
        self, sequence: bytes, private: bytes, parameters: bytes, intermediate: bytes, final: bytes
    ) -> None:
        name = private + intermediate + final
        numbers = to_numbers(parameters)
        if name in (b"?h", b"?l"):
            for n in numbers:
                self._private_mode(n, final == b"h")
        elif name in (b"h", b"l"):
            for n in numbers:
                _remember(self.ansi_modes, n, final == b"h", MOST_MODES)
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
            for n in numbers:
                _remember(self.saved_modes, n, self.modes.get(n, n in (7, 25)), MOST_MODES)
        elif name == b"?r":
            for n in numbers:
                if n in self.saved_modes:
                    self._private_mode(n, self.saved_modes[n])
        elif name == b" q":
            self.cursor_style = sequence
        elif name == b'"q':
            self.protection = sequence
        elif name in (b">m", b">n"):
            _remember(self.key_options, parameters.split(b";")[0], sequence, MOST_KEY_OPTIONS)
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
        _remember(self.modes, n, on, MOST_MODES)

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
            vars(self).update(vars(State()))

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
        elif _DYNAMIC_COLOUR.fullmatch(number):
            for n, colour in enumerate(value.split(b";"), int(number)):
                if colour != b"?" and n < 20:
                    self._colour(b"%d" % n, b"%d;%b" % (n, colour))
        elif _RESET_COLOUR.fullmatch(number):
            self._colour(number[1:], number)
        elif number == b"104" and value:
            for index in value.split(b";"):
                self._colour(b"4;" + index, b"104;" + index)
        elif number == b"104":
            for key in [key for key in self.colours if key.startswith(b"4;")]:
                del self.colours[key]
            self._colour(b"104", b"104")

    def _colour(self, what: bytes, body: bytes) -> None:
        if len(body) <= LONGEST_CONTROL:
            _remember(self.colours, what, body, MOST_COLOURS)

    def _save_cursor(self) -> None:
        self.saved_cursor = State(
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
            # One by one, for together they may be more than a terminal takes, see `reset_bytes`.
            + b"".join(b"\x1b[%bm" % code for code in codes)
        )

    def shared_bytes(self) -> bytes:
        """Return what brings about all that both screens share. The cursor goes anywhere."""
        parts = [osc_bytes(body) for body in (*self.colours.values(), self.directory) if body]
        parts += self.key_options.values()
        parts.append(self.keypad)
        parts += [b"\x1b[%d%c" % (n, b"lh"[on]) for n, on in self.ansi_modes.items()]
        parts += [
            b"\x1b[?%d%c" % (n, b"lh"[on])
            for n, on in self.modes.items()
            if n != 6 and n not in NOT_REPLAYED
        ]
        parts += [self.cursor_style, self.side_margins, self.margins]
        return b"".join(parts)

    def origin_bytes(self) -> bytes:
        return b"\x1b[?6%c" % b"lh"[self.modes[6]] if 6 in self.modes else b""

    def last_modes_bytes(self) -> bytes:
        return b"".join(b"\x1b[?%dh" % n for n in SET_LAST if self.modes.get(n))

    def kitty_keyboard_bytes(self) -> bytes:
        if self.kitty_keyboard == [0]:
            return b""
        first, *others = self.kitty_keyboard
        return b"\x1b[=%du" % first + b"".join(b"\x1b[>%du" % flags for flags in others)


def _remember(table: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Put an entry last, where the newest are, and drop the oldest of too many."""
    table.pop(key, None)
    table[key] = value
    if len(table) > most:
        del table[next(iter(table))]


def _is_stateful(sequence: bytes) -> bool:
    """Whether what a sequence does depends on those before, or on their order."""
    sequence = sequence.translate(None, C0_BYTES)
    if sequence in (b"\x1b7", b"\x1b8", b"\x1bc"):
        return True
    if not sequence.startswith(b"\x1b[") or len(sequence) > LONGEST_CONTROL:
        return False
    if sequence[-1:] in b"hl":
        return b"1048" in sequence or b"1049" in sequence
    # Saving and restoring cursor, modes, titles and keyboard flags; a soft reset.
    return sequence[-1:] in b"sutpr" and (sequence[-1:] != b"r" or sequence[2:3] == b"?")


def pens(data: bytes, start: int, end: int) -> tuple[bytes, Iterable[bytes]]:
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
    return shift, reversed(dict.fromkeys(reversed(SGR.findall(data, start, end))))


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


def title_bytes(titles: dict[bytes, bytes]) -> bytes:
    icon, window = titles.get(b"1", b""), titles.get(b"2", b"")
    if icon == window:
        return osc_bytes(b"0;" + window)
    return osc_bytes(b"1;" + icon) + osc_bytes(b"2;" + window)
