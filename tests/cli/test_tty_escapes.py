"""`wsep-sync tty`: what is typed and pasted, and the escape sequences in it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import termios
from collections.abc import Iterator

import pytest
from helpers import alive, children, ends_processes, eventually
from programs import WSEP_SYNC
from terminal_windows import BASH, ECHO, Outer, typed

from wsep_sync.cli.tty import _Escapes

# Escape sequences


@contextlib.contextmanager
def echo(*options: str) -> Iterator[Outer]:
    with Outer("tty", *options, "--", *ECHO) as outer:
        outer.expect_exact("ready\r\n")
        yield outer


def test_leaving_a_command_ends_it() -> None:
    with Outer("tty", "--", "sh", "-c", "echo pid $$; exec sleep 1000") as outer:
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        with ends_processes(pid):
            outer.send("~.")
            outer.expect_exact("the connection was closed, which ends the command")
            assert outer.end() == 255
            assert not alive(pid)


def test_what_is_no_escape_is_typed() -> None:
    with echo() as outer:
        # One at the start, one after another character, one after a tilde that was sent.
        outer.send("~~.")
        outer.expect_exact("~.")
        outer.send("\ra~.")
        outer.expect_exact("\na~.")
        outer.send("\r~x~.")
        outer.expect_exact("\n~x~.")
        outer.send("\r~")
        outer.send("~")
        outer.send(".\r")
        outer.expect_exact("\n~.\r\n")
        assert outer.process.poll() is None
        # Typed in pieces, too.
        outer.send("~")
        outer.send(".")
        assert outer.end() == 255


def test_help_of_the_escapes() -> None:
    with echo() as outer:
        outer.send("~?")
        outer.expect_exact("~.")
        outer.expect_exact("~^Z")
        outer.expect_exact("~?")
        outer.expect_exact("~~")
        outer.send("typed\r")
        outer.expect_exact("typed\r\n")
        outer.send("~?")
        outer.expect_exact("~~")
        outer.send("~.")
        assert outer.end() == 255


def test_another_escape_and_none() -> None:
    with echo("--escape", "%") as outer:
        outer.send("~.\r")
        outer.expect_exact("~.\r\n")
        outer.send("%?")
        outer.expect_exact("%.")
        outer.expect_exact("%%")
        outer.send("%.")
        assert outer.end() == 255
    with echo("--escape", "none") as outer:
        outer.send("\r~.~?~~")
        outer.expect_exact("~.~?~~")
        outer.process.send_signal(signal.SIGTERM)
        assert outer.end() == 128 + signal.SIGTERM


# Suspended by a shell with job control


@pytest.mark.parametrize("how", ["typed", "signal"])
def test_suspending(how: str) -> None:
    inner = shlex.join([*WSEP_SYNC, "tty", "--", *BASH])
    with Outer("--noprofile", "--norc", program=["bash"], PS1="outer$ ", inner=inner) as outer:
        outer.expect_exact("outer$ ")
        outer.sendline('eval "$inner"')
        outer.expect_exact("$ ")
        typed(outer, "kept=so; echo ou$((0))put", "ou0put")
        if how == "typed":
            outer.send("~\x1a")
        else:
            [pid] = children(outer.process.pid)
            os.kill(pid, signal.SIGTSTP)
        outer.expect_exact("Stopped")
        outer.expect_exact("outer$ ")
        outer.sendline("stty -a")
        outer.expect_exact(" icanon ")
        outer.expect_exact(" echo ")
        outer.expect_exact("outer$ ")
        outer.set_size(30, 100)
        outer.sendline("fg")
        eventually(lambda: not outer.termios()[3] & termios.ICANON, "raw mode")
        typed(outer, "echo it is $kept", "it is so")
        # The command is told the size a moment after it goes on.
        outer.sendline("until stty size | grep '30 100'; do :; done; echo s$((0))n")
        outer.expect_exact("s0n")
        outer.expect_exact("$ ")
        outer.sendline("exit")
        outer.expect_exact("outer$ ")
        outer.sendline("exit 3")
        assert outer.end() == 3


# Pastes

PASTE = b"\x1b[200~one\r~.\rtwo\r~?\r~~\r~.\x1b[201~"


def test_what_is_pasted_is_no_escape(server: str) -> None:
    reads = "stty raw -echo; printf '\\033[?2004hready'; exec cat -v"
    with Outer("tty", "--url", server, "--id", "s", "--", "sh", "-c", reads) as outer:
        outer.expect_exact("ready")
        outer.send("\r")
        outer.send(PASTE)
        outer.expect_exact("^[[200~one^M~.^Mtwo^M~?^M~~^M~.^[[201~")
        outer.send("\r~.")
        outer.expect_exact("[wsep-sync: left session s]")
        assert outer.end() == 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def escapes(clock: Clock | None = None) -> _Escapes:
    return _Escapes(b"~", clock or Clock())


def test_a_paste_in_pieces() -> None:
    for first in range(len(PASTE)):
        for second in range(first, len(PASTE) + 1):
            keys = escapes()
            pieces = PASTE[:first], PASTE[first:second], PASTE[second:]
            got = [keys.feed(piece) for piece in pieces]
            assert b"".join(typed for typed, _ in got) == PASTE
            assert not any(left for _, left in got)
            assert keys.feed(b"\r~.") == (b"\r", True)
    keys = escapes()
    assert b"".join(keys.feed(bytes([byte]))[0] for byte in PASTE) == PASTE


def test_keys_around_pastes() -> None:
    assert escapes().feed(b"a\r" + PASTE + b"b" + PASTE + b"\r~.rest") == (
        b"a\r" + PASTE + b"b" + PASTE + b"\r",
        True,
    )
    # What only looks like a mark is none.
    assert escapes().feed(b"\x1b[200\r~.") == (b"\x1b[200\r", True)
    assert escapes().feed(b"\x1b[\x1b[200~\r~.\x1b[20\x1b[201~") == (
        b"\x1b[\x1b[200~\r~.\x1b[20\x1b[201~",
        False,
    )
    # A tilde that might have begun an escape when the paste came.
    assert escapes().feed(b"~" + PASTE) == (b"~" + PASTE, False)


def test_a_paste_without_an_end() -> None:
    clock = Clock()
    keys = escapes(clock)
    assert keys.feed(b"\x1b[200~one\r~.\r") == (b"\x1b[200~one\r~.\r", False)
    clock.now += 1.0
    assert keys.feed(b"~.\r") == (b"~.\r", False)  # it is slow
    clock.now += 2.5
    assert keys.feed(b"~.") == (b"", True)
