"""Independent emulators that tell what bytes make a terminal show, for the tests of redraws."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pyghostty
import pyte
import pyte.graphics
import pyte.modes

# The state that another session may have left behind, in mid sequence.
LEFT_OVER = (
    b"\x1b[?1049h\x1b[?1;5;1000;1006;2004h\x1b[?25;7l\x1b[4;20h\x1b(0\x1b)0\x0e\x1b[2;3r\x1b[?6h"
    b"\x1b[31;1;4mold\x1b]0;old title\x07\x1b=\x1b[5 q\x1b[>7u\x1b]4;1;#123456\x07"
    b"\x1b]11;#111111\x07\x1b[3g\x1b7\x1b]8;;http://old/\x07\x1b]0;unfinished"
)

# pyte takes a private CSI with one of < = > for another sequence, and knows no intermediates and
# no strings but OSC; reverse video (mode 5) it writes into the cells.
_UNKNOWN_TO_PYTE = re.compile(
    rb"\x1b\[[<=>][\d;:]*[ -/]*[@-~]|\x1b\[\?(?:[\d;]*[mu]|5[hl])|\x1b\[[\d;:]*[ -/]+[@-~]"
    rb"|\x1b[*+].|\x1b[PX^_][^\x1b]*\x1b\\"
)


class _PyteScreen(pyte.Screen):
    """pyte's screen, and an alternate one as xterm has it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.normal: Any = None
        super().__init__(columns, lines)

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        for mode in modes if kwargs.get("private") else ():
            if mode in (1048, 1049) and self.normal is None:
                self.save_cursor()
            if mode in (47, 1047, 1049) and self.normal is None:
                self.normal = self.buffer, self.savepoints
                self.buffer = self.buffer.copy()
                self.buffer.clear()
                self.savepoints: list[Any] = []
        super().set_mode(*(m for m in modes if m not in (47, 1047, 1048, 1049)), **kwargs)
        self.dirty.update(range(self.lines))

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        for mode in modes if kwargs.get("private") else ():
            if mode in (47, 1047, 1049) and self.normal is not None:
                self.buffer, self.savepoints = self.normal
                self.normal = None
            if mode in (1048, 1049):
                self.restore_cursor()
                # pyte pops what it restores; a terminal keeps it.
                self.save_cursor()
        super().reset_mode(*(m for m in modes if m not in (47, 1047, 1048, 1049)), **kwargs)

    def restore_cursor(self) -> None:
        # A terminal doesn't save these.
        hidden, wrap = self.cursor.hidden, pyte.modes.DECAWM in self.mode
        # It saves a pending wrap, and so does pyte, which then loses it.
        column = self.savepoints[-1].cursor.x if self.savepoints else 0
        super().restore_cursor()
        self.cursor.x = column
        self.cursor.hidden = hidden
        (self.mode.add if wrap else self.mode.discard)(pyte.modes.DECAWM)

    def draw(self, data: str) -> None:
        # Without autowrap it waits to wrap all the same, as xterm does. Others don't: this is to be
        # one of those.
        super().draw(data)
        if pyte.modes.DECAWM not in self.mode:
            self.cursor.x = min(self.cursor.x, self.columns - 1)

    def insert_lines(self, *args: Any, **kwargs: Any) -> None:
        self.touch_lines()
        super().insert_lines(*args, **kwargs)

    def delete_lines(self, *args: Any, **kwargs: Any) -> None:
        self.touch_lines()
        super().delete_lines(*args, **kwargs)

    def touch_lines(self) -> None:
        # pyte doesn't move lines that nothing was printed in, though others lie below them.
        for y in range(self.lines):
            self.buffer[y]

    def reset(self) -> None:
        self.normal = None
        super().reset()


def _ends_wrap(name: str) -> Any:
    original = getattr(_PyteScreen, name)

    def method(self: _PyteScreen, *args: Any, **kwargs: Any) -> None:
        self.cursor.x = min(self.cursor.x, self.columns - 1)
        original(self, *args, **kwargs)

    return method


# On these pyte goes on waiting to wrap, beyond the last column; a terminal doesn't.
for _name in (
    *("cursor_up", "cursor_down", "cursor_to_line", "index", "reverse_index", "linefeed"),
    *("erase_in_line", "erase_in_display", "erase_characters", "delete_characters"),
    *("insert_characters", "insert_lines", "delete_lines"),
):
    setattr(_PyteScreen, _name, _ends_wrap(_name))


class Shown(NamedTuple):
    """What a terminal shows and how it goes on."""

    cells: Any
    cursor: Any
    modes: Any
    margins: Any
    title: str
    in_alt: bool


def assert_same(one: Shown, other: Shown) -> None:
    """Compare in parts, so that the difference can be read."""
    for name, mine, theirs in zip(Shown._fields, one, other, strict=True):
        assert mine == theirs, name


_NAMES = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
# pyte's names for the colours 0 to 15, which 38;5;0 and so on name as well.
_PYTE_COLOURS = {
    **{name: pyte.graphics.FG_BG_256[i] for i, name in enumerate(_NAMES)},
    **{"bright" + name: pyte.graphics.FG_BG_256[8 + i] for i, name in enumerate(_NAMES)},
    "bfightmagenta": pyte.graphics.FG_BG_256[13],  # so it is spelt there
}


def _cell(char: Any) -> tuple[Any, ...]:
    fg, bg = (_PYTE_COLOURS.get(colour, colour) for colour in (char.fg, char.bg))
    if char.data == " ":
        # It erases with all attributes; a terminal with the background alone.
        return (" ", bg)
    return (*char._replace(fg=fg, bg=bg),)


def shown_by_pyte(data: bytes, rows: int, columns: int) -> Shown:
    screen = _PyteScreen(columns, rows)
    stream = pyte.ByteStream(screen)
    data = _UNKNOWN_TO_PYTE.sub(b"", data)
    # Without parameters it doesn't move the cursor to its home.
    stream.feed(data.replace(b"\x1b[r", b"\x1b[1;%dr" % rows))
    margins = screen.margins
    if margins == (0, rows - 1):
        margins = None
    cursor = screen.cursor
    return Shown(
        cells=[[_cell(screen.buffer[y][x]) for x in range(columns)] for y in range(rows)],
        cursor=(
            cursor.y,
            cursor.x,
            _cell(cursor.attrs._replace(data="x")),
            cursor.hidden,
            screen.charset,
            screen.g0_charset,
            screen.g1_charset,
        ),
        # pyte has no meaning for mouse modes and the like, but remembers them.
        modes={mode >> 5 for mode in screen.mode if mode > 31}
        - {66, 2026}  # it doesn't know ESC =; a redraw leaves out 2026
        | {-mode for mode in screen.mode if mode < 32},
        margins=margins,
        title=screen.title,
        in_alt=screen.normal is not None,
    )


def ghostty(data: bytes, rows: int, columns: int) -> Any:
    """Return a pyghostty terminal with xterm's defaults, fed with `data`."""
    terminal = pyghostty.Terminal(columns, rows, scrollback=10**9)
    alternate_scroll = pyghostty.ffi.new("GhosttyTerminalModeConfig *", {"mode": 1007})
    assert not pyghostty.lib.ghostty_terminal_set(
        terminal._t[0], pyghostty.lib.GHOSTTY_TERMINAL_OPT_MODE_DEFAULT, alternate_scroll
    )
    terminal.feed(data)
    return terminal


def shown_by_ghostty(data: bytes, rows: int, columns: int) -> Shown:
    terminal = ghostty(data, rows, columns)
    dump = _dump(terminal)
    title = terminal.get("title", "GhosttyString")
    in_alt = bool(terminal.get("active_screen", "GhosttyTerminalScreen"))
    modes = set(re.findall(rb"\x1b\[\??\d+[hl]", dump))
    if in_alt:  # by whichever way it was entered
        modes -= {b"\x1b[?%dh" % n for n in (47, 1047, 1049)}
    return Shown(
        cells=(_lines(terminal.text()), [_cells(terminal, y, columns) for y in range(rows)]),
        cursor=(terminal.cursor, terminal.get("cursor_pending_wrap", "bool"), _pen(dump)),
        modes=modes - {b"\x1b[?1048h", b"\x1b[?2026h"},
        margins=re.findall(rb"\x1b\[\d+;\d+[rs]", dump),
        title=pyghostty.ffi.buffer(title.ptr, title.len)[:].decode() if title.len else "",
        in_alt=in_alt,
    )


def _lines(text: str) -> list[str]:
    """Return lines with no regard to whether blanks at their end, or at the end, are printed."""
    return "\n".join(line.rstrip(" ") for line in text.split("\n")).rstrip("\n").split("\n")


def _cells(terminal: Any, y: int, columns: int) -> list[object]:
    """Return the character and the looks of each cell; a space is nothing but its looks."""
    ffi, lib = pyghostty.ffi, pyghostty.lib
    cell, value = ffi.new("GhosttyCell *"), ffi.new("uint64_t *")
    found: list[object] = []
    for x in range(columns):
        assert not lib.ghostty_grid_ref_cell(terminal.ref(x, y), cell)
        values = {}
        for name in ("CODEPOINT", "CONTENT_TAG", "COLOR_PALETTE", "COLOR_RGB"):
            value[0] = 0
            lib.ghostty_cell_get(cell[0], getattr(lib, f"GHOSTTY_CELL_DATA_{name}"), value)
            values[name] = value[0]
        style = terminal.style(x, y)
        if values["CONTENT_TAG"] == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_PALETTE:
            style["bg"] = ("palette", values["COLOR_PALETTE"])
        elif values["CONTENT_TAG"] == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_RGB:
            style["bg"] = ("rgb", tuple(values["COLOR_RGB"].to_bytes(8, "little")[:3]))
        elif values["CODEPOINT"] not in (0, 32):
            found.append((chr(values["CODEPOINT"]), style))
            continue
        if x == columns - 1:
            # Left free by a wide character that didn't fit, perhaps, and then has its attributes.
            found.append(None)
            continue
        for shown_by_text_alone in ("fg", "bold", "italic", "faint", "blink", "invisible"):
            del style[shown_by_text_alone]
        found.append(style)
    return found


def _pen(dump: bytes) -> bytes:
    """Return the attributes, keyboard flags and charsets of the cursor from the end of a dump."""
    # Where a wrap is pending, the last character of the row is printed before.
    end = re.search(rb"(?:\x1b(?:\[[\d;=:]*[mu]|[()*+].|[no])|[\x0e\x0f])*\Z", dump)
    assert end is not None
    return re.sub(rb"\x1b[()*+]B|(?:\x1b\[0m)+(?=\x1b\[0m)", b"", end[0])


def _dump(terminal: Any, extras: bool = True) -> bytes:
    ffi, lib = pyghostty.ffi, pyghostty.lib
    options = pyghostty.core.init_sized("GhosttyFormatterTerminalOptions")
    options.emit = lib.GHOSTTY_FORMATTER_FORMAT_VT
    if extras:
        options.extra.modes = options.extra.scrolling_region = options.extra.tabstops = True
        screen = options.extra.screen
        screen.cursor = screen.style = screen.kitty_keyboard = screen.charsets = True
    selection = pyghostty.core.init_sized("GhosttySelection")
    columns, rows = terminal.size
    selection.start, selection.end = terminal.ref(0, 0)[0], terminal.ref(columns - 1, rows - 1)[0]
    options.selection = selection  # the screen without its scrollback
    formatter = ffi.new("GhosttyFormatter *")
    assert not lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, terminal._t[0], options[0])
    size = ffi.new("size_t *")
    lib.ghostty_formatter_format_buf(formatter[0], ffi.NULL, 0, size)
    text = ffi.new("uint8_t[]", max(size[0], 1))
    assert not lib.ghostty_formatter_format_buf(formatter[0], text, len(text), size)
    lib.ghostty_formatter_free(formatter[0])
    return bytes(ffi.buffer(text, size[0]))


JUDGES = {"pyte": shown_by_pyte, "ghostty": shown_by_ghostty}


def too_long_for_some(data: bytes) -> list[bytes]:
    """Return the control sequences that not every terminal takes: some drop long ones as a whole.

    tmux takes 63 bytes of parameters, and the Linux console 16 parameters.
    """
    sequences = re.findall(rb"\x1b\[[0-?]*[ -/]*[@-~]", data)
    return [s for s in sequences if len(s) > 40 or len(re.split(rb"[;:]", s)) > 8]


def answers_and_bells(data: bytes, rows: int = 24, columns: int = 80) -> list[object]:
    """Return what a Ghostty terminal answers, copies, notifies and rings on `data`."""
    ffi, lib = pyghostty.ffi, pyghostty.lib
    terminal = pyghostty.Terminal(columns, rows)
    happened: list[object] = []
    handle = terminal._t[0]
    callbacks = [
        (
            "WRITE_PTY",
            "GhosttyTerminalWritePtyFn",
            lambda t, u, d, n: happened.append(bytes(ffi.buffer(d, n))),
        ),
        ("BELL", "GhosttyTerminalBellFn", lambda t, u: happened.append("bell")),
        ("ENQUIRY", "GhosttyTerminalEnquiryFn", _enquiry(happened)),
        (
            "DESKTOP_NOTIFICATION",
            "GhosttyTerminalDesktopNotificationFn",
            lambda t, u, n: happened.append("notification"),
        ),
        (
            "CLIPBOARD_WRITE",
            "GhosttyTerminalClipboardWriteFn",
            lambda t, u, w: happened.append("copied"),
        ),
        (
            "CLIPBOARD_READ",
            "GhosttyTerminalClipboardReadFn",
            lambda t, u, r: happened.append("pasted"),
        ),
    ]
    alive = []
    for name, ctype, function in callbacks:
        callback = ffi.callback(ctype, function)
        alive.append(callback)
        assert not lib.ghostty_terminal_set(
            handle, getattr(lib, f"GHOSTTY_TERMINAL_OPT_{name}"), callback
        )
    terminal.feed(data)
    terminal.close()
    return happened


def _enquiry(happened: list[object]) -> Any:
    def answer(terminal: Any, userdata: Any) -> Any:
        happened.append("enquiry")
        return {"ptr": pyghostty.ffi.NULL, "len": 0}

    return answer
