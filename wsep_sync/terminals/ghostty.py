"""What a terminal shows after some output, by emulating one with pyghostty: :class:`Emulator`.

This is the door to pyghostty, a native library that may abort its process, or take up time and
memory: nothing but the helper (:mod:`.helper`) may import it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pyghostty

from .replay import CLEAR, RESET_PEN, quiet_partial, reset_bytes
from .sequences import (
    LONGEST_OSC,
    SET_LAST,
    osc_bytes,
    split_character,
    unsure_widths,
    widths,
    without_c1,
    without_controls,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Emulator"]

# How many of the last rows are looked at cell by cell, which takes up to 0.3 ms for each.
MENDED_ROWS = 300
_SCROLLBACK = 2 * 1024 * 1024  # bytes in its own cells; about 2,000 lines of 80 columns
# The longest unfinished sequence that is passed on, in bytes: more than is ever recorded.
_LONGEST_PARTIAL = 4 * 1024 * 1024
# Modes which Ghostty has on from the start and xterm has off.
_UNUSUAL_DEFAULTS = (1007,)
# The screen, the cursor, the keypad and drawing are cared for apart from other modes; 3 and 40
# belong to switching the width, which clears the screen.
_SKIPPED_MODES = frozenset((3, 6, 12, 40, 47, 66, 69, 1047, 1048, 1049, 2026, *SET_LAST))
_PREFIX = re.compile(
    rb"(?P<modes>(?:\x1b\[\??\d+[hl])*)(?P<tabs>\x1b\[3g(?:\x1b\[\d+G\x1bH)*)\x1b\[H"
)
# A style that shows on a blank.
_BLEEDS = re.compile(rb"\x1b\[(?:4(?:m|:|8[;:])|[79]m|21m|53m)")
# Attributes, and links.
_LOOKS = re.compile(rb"\x1b\[[\d;:]*m|\x1b\]8;[^\x1b]*\x1b\\")
_TOKENS = re.compile("\x1b\\[[0-9;:]*m|.", re.DOTALL)
_MODE = re.compile(rb"\x1b\[(\??)(\d+)([hl])")
_MARGINS = re.compile(rb"\x1b\[(\d+);(\d+)([rs])")
_CURSOR = re.compile(rb"\x1b\[(\d+);(\d+)H")
# What is printed at the cursor's place, so that the next character wraps.
_PRINTED = re.compile(rb"(\x1b\[\d+;\d+H(?:\x1b\[[\d;:]*m)*)([^\x1b]+)")
_ASCII = re.compile(rb"\x1b[()*+]B")
# U+200D at the end of a row, which some terminals would have join what the next row begins with.
_LAST_JOINER = re.compile(rb"\xe2\x80\x8d(?=(?:\x1b\[[\d;:]*m|\x1b\]8;[^\x1b]*\x1b\\)*\Z)")
# A character and its marks at the end of a row.
_LAST_MARKED = re.compile(
    rb"([\x20-\x7e]|[\xc2-\xf4][\x80-\xbf]+)((?:\xcc[\x80-\xbf]|\xcd[\x80-\xaf]|\xe2\x83[\x90-\xb0]"
    rb"|\xef\xb8[\x80-\x8f]){1,64})((?:\x1b\[[\d;:]*m|\x1b\]8;[^\x1b]*\x1b\\)*)\Z"
)
# Text that stays in its row, however wide it is.
_UNWRAPPED = b"\x1b[?7l%b\x1b[?7h"


class _Dump(NamedTuple):
    """What Ghostty's formatter writes about a terminal, taken apart."""

    modes: bytes
    tabs: bytes
    content: bytes
    keyboard: bytes  # modifyOtherKeys
    margins: bytes
    cursor: bytes  # position, attributes, charsets, link


class Emulator:
    """A terminal of pyghostty, without a display: it is fed, and tells what it shows, once.

    What Ghostty doesn't tell or do: images, the protected attribute (DECSCA) of cells; DECSTR
    doesn't reset modes. The attributes of a cell that a wide character left free at the end of a
    row are not restored. In scrollback far back a background or an underline may go on over blanks
    after it. Of a keycap it drops U+FE0F.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns
        self._links = False  # whether there may be any
        self._held = b""  # the beginning of a character
        self._halves = False  # whether wide characters may have been cut in two
        self._ffi = ffi = pyghostty.ffi
        self._lib = pyghostty.lib
        # pyghostty's own limit on lines makes Ghostty eight times slower: bound the bytes instead.
        self._terminal = pyghostty.Terminal(columns, rows, scrollback=10**9)
        self._handle = self._terminal._t[0]
        self._set("SCROLLBACK_MAX_BYTES", ffi.new("size_t *", _SCROLLBACK))
        self._set("CONTINUATION_MAX_BYTES", ffi.new("size_t *", _LONGEST_PARTIAL))
        for mode in _UNUSUAL_DEFAULTS:
            default = ffi.new("GhosttyTerminalModeConfig *")
            default.mode, default.value = mode, False
            self._set("MODE_DEFAULT", default)

    def _set(self, option: str, value: Any) -> None:
        lib = self._lib
        key = getattr(lib, f"GHOSTTY_TERMINAL_OPT_{option}")
        self._check(lib.ghostty_terminal_set(self._handle, key, value))

    def _get(self, data: str, ctype: str) -> Any:
        # Ghostty writes as many bytes as its own type has: a wrong `ctype` corrupts memory.
        value = self._ffi.new(f"{ctype} *")
        key = getattr(self._lib, f"GHOSTTY_TERMINAL_DATA_{data}")
        self._check(self._lib.ghostty_terminal_get(self._handle, key, value))
        return value[0]

    def _check(self, result: int) -> None:
        if result != self._lib.GHOSTTY_SUCCESS:
            raise RuntimeError(f"libghostty-vt failed with {result}")

    def feed(self, data: bytes) -> None:
        """Take output of a program."""
        self._links = self._links or b"\x1b]8;" in data
        # To what came after an unfinished character, Ghostty would print a replacement first.
        data, self._held = split_character(self._held + data)
        self._lib.ghostty_terminal_vt_write(self._handle, data, len(data))

    def close(self) -> None:
        """Give its memory back."""
        self._terminal.close()

    def resize(self, rows: int, columns: int) -> None:
        """Change the size."""
        if columns < self._terminal.size[0]:
            # Lines that are not wrapped anew end where the screen does.
            self._halves = self._halves or self._in_alt() or not self._mode(7)
        self._rows, self._columns = rows, columns
        self._terminal.resize(columns, rows)

    def redraw(self) -> bytes:
        """Return bytes that make a terminal of this size, in any state, show what this one shows.

        Afterwards it is of no use: what it keeps to itself is found out by having it do things.

        Raises:
            RuntimeError: Ghostty cannot tell.
        """
        if self._terminal.size != (self._columns, self._rows):
            # By itself, for a program that switched to 132 columns or back (DECCOLM).
            self.resize(self._rows, self._columns)
        dump = self._dump()
        parts = [reset_bytes(self._columns)]
        if self._in_alt():
            entered = next((n for n in (1049, 1047, 47) if self._mode(n)), 1049)
            parts += [b"\x1b[?%dh\x1b[<99u" % entered, CLEAR]
        parts += [self._colours(), dump.tabs, b"\x1b[H", self._rows_bytes(dump.content)]
        parts.append(b"\x1b[?69h" if self._mode(69) else b"")
        parts += [dump.margins, dump.keyboard]
        # Without autowrap some terminals leave the cursor on a full row's last cell, and others
        # wait to wrap: each does so if it is off before that cell is painted.
        parts.append(b"" if self._mode(7) else b"\x1b[?7l")
        last = [_cursor_bytes(dump, self._mode(6))]
        modes = _MODE.finditer(dump.modes)
        last += [m[0] for m in modes if not m[1] or int(m[2]) not in _SKIPPED_MODES]
        # As programs write it, and as terminals without mode 66 know it.
        last.append(b"\x1b=" if self._mode(66) else b"")
        last += [self._cursor_style(), *self._texts()]
        last += [b"\x1b[?%dh" % n for n in SET_LAST if self._mode(n)]
        last.append(quiet_partial(self._continuation() + self._held))
        return b"".join([*parts, *self._saved(dump.margins), *last])

    def _in_alt(self) -> bool:
        screen = self._get("ACTIVE_SCREEN", "GhosttyTerminalScreen")
        return bool(screen != self._lib.GHOSTTY_TERMINAL_SCREEN_PRIMARY)

    def _dump(self) -> _Dump:
        options = self._format_options()
        content = self._format(options)
        for extra in ("modes", "scrolling_region", "tabstops", "keyboard"):
            setattr(options.extra, extra, True)
        for extra in ("cursor", "style", "hyperlink", "protection", "charsets"):
            setattr(options.extra.screen, extra, True)
        everything = self._format(options)
        prefix = _PREFIX.match(everything)
        if prefix is None or not everything.startswith(content, prefix.end()):
            raise RuntimeError("libghostty-vt's formatter writes in another order than expected")
        suffix = everything[prefix.end() + len(content) :]
        cursor = _CURSOR.search(suffix)
        if cursor is None:
            raise RuntimeError("libghostty-vt's formatter writes no cursor")
        between, suffix = suffix[: cursor.start()], suffix[cursor.start() :]
        suffix = _PRINTED.sub(lambda m: m[1] + self._last_cell(int(cursor[2]), m[2]), suffix)
        return _Dump(
            modes=prefix["modes"],
            tabs=prefix["tabs"],
            content=content,
            keyboard=_MARGINS.sub(b"", between),
            margins=b"".join(m[0] for m in _MARGINS.finditer(between)),
            # ASCII is what the charsets are already: whether it was designated makes no difference.
            cursor=_ASCII.sub(b"", without_c1(suffix)),
        )

    def _last_cell(self, column: int, text: bytes) -> bytes:
        """Return what paints the cell after which a wrap is pending."""
        if column == self._columns and max(widths(text)) > 1:
            return b" "  # half a character is none
        if not unsure_widths([text]):
            return text
        # See `_unwrapped`.
        return _UNWRAPPED % (text if column < self._columns else text.decode()[0].encode())

    def _format_options(self) -> Any:
        ffi = self._ffi
        options = ffi.new("GhosttyFormatterTerminalOptions *")
        options.size = ffi.sizeof("GhosttyFormatterTerminalOptions")
        options.extra.size = ffi.sizeof("GhosttyFormatterTerminalExtra")
        options.extra.screen.size = ffi.sizeof("GhosttyFormatterScreenExtra")
        options.emit = self._lib.GHOSTTY_FORMATTER_FORMAT_VT
        return options

    def _format(self, options: Any) -> bytes:
        ffi, lib = self._ffi, self._lib
        formatter = ffi.new("GhosttyFormatter *")
        self._check(
            lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, self._handle, options[0])
        )
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
        total = self._get("TOTAL_ROWS", "size_t")
        rows = content.split(b"\r\n")
        rows += [b""] * (total - len(rows))
        for y in range(max(total - max(MENDED_ROWS, self._rows), 0), total):
            style = _BLEEDS.search(rows[y])
            if (
                (not rows[y] and not self._untouched(y))
                or (style and rows[y].find(b" ", style.end()) >= 0)
                or (self._links and self._has_links(y))
                or (self._halves and not rows[y].isascii())
            ):
                rows[y] = self._mended(y, rows[y])
        # A row that may be longer in the client's terminal, or shorter, is one row there, too: else
        # all that follows were somewhere else, and the cursor not where it belongs.
        unsure = unsure_widths(rows)
        last = max((y for y, row in enumerate(rows) if row), default=0)
        parts = []
        for y, row in enumerate(rows):
            if y in unsure:
                # What the program prints next may still be to be joined.
                row = row if y == last else _LAST_JOINER.sub(b"", row)
                parts.append(self._unwrapped(y, row))
            else:
                parts.append(row)
            if y + 1 == len(rows):
                break
            # Lines that were wrapped are in one piece again, and wrapped by the client.
            # (A row without text can't be wrapped into.)
            if (
                len(row) < self._columns
                or not rows[y + 1]
                or not unsure.isdisjoint((y, y + 1))
                or not self._wraps(y, row)
            ):
                parts.append(b"\r\n")
        return without_c1(b"".join(parts))

    def _unwrapped(self, y: int, row: bytes) -> bytes:
        """Return what paints a row that stays one, however wide it is."""
        match = _LAST_MARKED.search(row)
        if match is None:
            return _UNWRAPPED % row
        ffi, lib = self._ffi, self._lib
        more = ffi.new("size_t *")
        ref = self._terminal.ref(self._columns - 1, y, "screen")
        lib.ghostty_grid_ref_graphemes(ref, ffi.NULL, 0, more)
        if more[0] < 2:
            return _UNWRAPPED % row
        # Without autowrap the marks of the last cell would go to the one before. Those that may
        # make it too wide for the row are left out.
        base, marks, looks = match.groups()
        cell = base if unsure_widths([marks]) else b"\x1b[?7h" + base + marks
        head = row[: match.start()]
        return b"\x1b[?7l%b\x1b[%dG%b\x1b[?7h%b" % (head, self._columns, cell, looks)

    def _mended(self, y: int, row: bytes) -> bytes:
        """Return a row with the right style in cells in which nothing was printed."""
        ffi, lib = self._ffi, self._lib
        ref = self._terminal.ref(0, y, "screen")
        cell = ffi.new("GhosttyCell *")
        tag, wide = ffi.new("GhosttyCellContentTag *"), ffi.new("GhosttyCellWide *")
        has_text, has_link, more = ffi.new("bool *"), ffi.new("bool *"), ffi.new("size_t *")
        index, rgb = ffi.new("GhosttyColorPaletteIndex *"), ffi.new("GhosttyColorRgb *")

        def get(key: int, value: Any) -> Any:
            self._check(lib.ghostty_cell_get(cell[0], key, value))
            return value[0]

        out: list[str] = []
        style = current = link = ""
        tokens = iter(_TOKENS.findall(row.decode(errors="replace")))
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
            wanted, width, wanted_link = style, 1, ""
            if not cell[0]:
                wanted = ""  # never touched
            elif self._links and get(lib.GHOSTTY_CELL_DATA_HAS_HYPERLINK, has_link):
                wanted_link = self._link(ref)
            if cell[0] and get(lib.GHOSTTY_CELL_DATA_HAS_TEXT, has_text):
                if get(lib.GHOSTTY_CELL_DATA_WIDE, wide) == lib.GHOSTTY_CELL_WIDE_WIDE:
                    width = 2
                if (
                    get(lib.GHOSTTY_CELL_DATA_CONTENT_TAG, tag)
                    != lib.GHOSTTY_CELL_CONTENT_CODEPOINT
                ):
                    # All code points of a grapheme are in one cell.
                    lib.ghostty_grid_ref_graphemes(ref, ffi.NULL, 0, more)
                    token += "".join(next(tokens, "") for _ in range(more[0] - 1))
                if width == 2 and self._is_half(ref.x, y):
                    token, width = " ", 1
            elif cell[0]:
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
            if wanted_link != link:
                out.append(f"\x1b]8;;{wanted_link}\x1b\\")
                link = wanted_link
            out.append(token)
            ref.x += width
        if current:
            out.append("\x1b[0m")
        if link:
            out.append("\x1b]8;;\x1b\\")
        mended = "".join(out)
        return (mended if row else mended.rstrip(" ")).encode()

    def _is_half(self, x: int, y: int) -> bool:
        """Whether a wide character has lost its second half."""
        if x + 1 >= self._columns:
            return True
        cell, wide = self._ffi.new("GhosttyCell *"), self._ffi.new("GhosttyCellWide *")
        lib = self._lib
        self._check(lib.ghostty_grid_ref_cell(self._terminal.ref(x + 1, y, "screen"), cell))
        self._check(lib.ghostty_cell_get(cell[0], lib.GHOSTTY_CELL_DATA_WIDE, wide))
        return bool(wide[0] != lib.GHOSTTY_CELL_WIDE_SPACER_TAIL)

    def _untouched(self, y: int) -> bool:
        ref, cell = self._terminal.ref(0, y, "screen"), self._ffi.new("GhosttyCell *")
        cell_at = self._lib.ghostty_grid_ref_cell
        for x in range(self._columns):
            ref.x = x
            self._check(cell_at(ref, cell))
            if cell[0]:
                return False
        return True

    def _has_links(self, y: int) -> bool:
        row, flag = self._ffi.new("GhosttyRow *"), self._ffi.new("bool *")
        ref = self._terminal.ref(0, y, "screen")
        self._check(self._lib.ghostty_grid_ref_row(ref, row))
        self._check(self._lib.ghostty_row_get(row[0], self._lib.GHOSTTY_ROW_DATA_HYPERLINK, flag))
        return bool(flag[0])

    def _link(self, ref: Any) -> str:
        """Return where the cell leads; Ghostty does not tell the link's own id."""
        ffi, lib = self._ffi, self._lib
        buffer, size = ffi.new("uint8_t[]", LONGEST_OSC), ffi.new("size_t *")
        result = lib.ghostty_grid_ref_hyperlink_uri(ref, buffer, LONGEST_OSC, size)
        if result != lib.GHOSTTY_SUCCESS:  # longer than anybody needs
            return ""
        return without_controls(bytes(ffi.buffer(buffer, size[0]))).decode()

    def _wraps(self, y: int, row: bytes) -> bool:
        """Whether a row is full and goes on in the next one."""
        # One less where a wide character didn't fit any more.
        if sum(widths(_LOOKS.sub(b"", row))) < self._columns - 1:
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

    def _saved(self, margins: bytes) -> list[bytes]:
        """Return the saved cursor and the stack of keyboard flags.

        Ghostty tells neither, but restores the one and pops the other: both are gone then, and the
        scrollback.
        """
        self._held = b""
        self.feed(b"\x18\x1b[3J")
        flags = []
        for _ in range(16):
            flags.append(self._get("KITTY_KEYBOARD_FLAGS", "uint8_t"))
            self.feed(b"\x1b[<u")
        while flags and flags[-1] == 0:
            flags.pop()
        self.feed(b"\x1b8")
        saved = self._dump()
        origin = self._mode(6)
        parts = [b"\x1b[>%du" % n for n in reversed(flags)]
        if origin or saved.cursor != b"\x1b[1;1H\x1b[0m":
            parts += [_cursor_bytes(saved._replace(margins=margins), origin), b"\x1b7"]
            parts += [b"\x1b[?6l", RESET_PEN]
        return parts

    def _mode(self, number: int) -> bool:
        mode = self._ffi.new("GhosttyTerminalModeConfig *")
        mode.mode = number
        key = self._lib.GHOSTTY_TERMINAL_DATA_MODE
        self._check(self._lib.ghostty_terminal_get(self._handle, key, mode))
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
                    parts.append(osc_bytes(b"4;%d;" % i + rgb))
        for number, name in ((10, "FOREGROUND"), (11, "BACKGROUND"), (12, "CURSOR")):
            colour = ffi.new("GhosttyColorRgb *")
            key = getattr(lib, f"GHOSTTY_TERMINAL_DATA_COLOR_{name}")
            # It has no value until the program sets one.
            if lib.ghostty_terminal_get(self._handle, key, colour) == lib.GHOSTTY_SUCCESS:
                parts.append(osc_bytes(b"%d;" % number + _rgb(colour)))
        return b"".join(parts)

    def _texts(self) -> list[bytes]:
        texts = []
        for data in ("TITLE", "PWD"):
            text = self._get(data, "GhosttyString")
            value = bytes(self._ffi.buffer(text.ptr, text.len)) if text.len else b""
            texts.append(without_controls(value.split(b"\0")[0]))
        title, directory = texts
        return [osc_bytes(b"7;" + directory) if directory else b"", osc_bytes(b"0;" + title)]

    def _continuation(self) -> bytes:
        return self._allocated(
            lambda text, size: self._lib.ghostty_terminal_continuation_alloc(
                self._handle, self._ffi.NULL, text, size
            )
        )


def _cursor_bytes(dump: _Dump, origin: bool) -> bytes:
    """Return what brings the cursor to its place, which in origin mode counts from the margins."""
    if not origin:
        return dump.cursor
    first = {m[3]: int(m[1]) for m in _MARGINS.finditer(dump.margins)}
    position = _CURSOR.match(dump.cursor)
    assert position is not None
    row = int(position[1]) - first.get(b"r", 1) + 1
    column = int(position[2]) - first.get(b"s", 1) + 1
    return b"\x1b[?6h\x1b[%d;%dH" % (row, column) + dump.cursor[position.end() :]


def _rgb(colour: Any) -> bytes:
    return b"rgb:%02x/%02x/%02x" % (colour.r, colour.g, colour.b)
