"""`wsep-sync tty` on a real terminal, typed at by pexpect and judged by pyte."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    SECONDS,
    alive,
    children,
    ends_processes,
    eventually,
    gone,
    listening,
    read_past,
    scripted,
    serving,
)
from programs import WSEP_SYNC, Relay, environment, has_one_line, run, server_process
from terminal_judges import shown_by_pyte, too_long_for_some
from terminal_windows import BASH, COLUMNS, ECHO, ROWS, Outer, bash, text

from wsep_sync import Command, Server, connect
from wsep_sync.cli.tty import _Escapes
from wsep_sync.protocol.messages import FEATURES, Pid
from wsep_sync.transports.base import Transport
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import UPGRADED


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server in this process; its sessions end with the test."""
    server = Server()
    with listening(server=server) as listener:
        try:
            yield listener.url
        finally:
            server.close()


def typed(outer: Outer, command: str, answer: str) -> None:
    """Give a command to the shell; the answer must not be in the command itself."""
    outer.sendline(command)
    outer.expect_exact(answer)
    outer.expect_exact("$ ")


# A shell


def test_a_shell() -> None:
    with bash() as outer:
        outer.send("echo a$((1+1))z")
        outer.expect_exact("echo a$((1+1))z")  # the echo comes before there is a line
        outer.send("\r")
        outer.expect_exact("a2z\r\n")
        outer.expect_exact("$ ")
        typed(outer, "echo $WSEP_TTY-$TERM; stty size", "true-xterm-256color\r\n24 80\r\n")
        outer.sendline("exit 5")
        assert outer.end() == 5


def test_ctrl_c_interrupts_what_runs_there() -> None:
    with bash() as outer:
        outer.sendline("sh -c 'echo r$((1))n; exec sleep 1000'")
        outer.expect_exact("r1n\r\n")
        outer.press("c")
        outer.expect_exact("^C")
        outer.expect_exact("$ ")
        typed(outer, "echo status-$?", "status-130")
        outer.press("d")
        assert outer.end() == 0


def test_jobs() -> None:
    with bash() as outer:
        outer.sendline("sh -c 'echo r$((1))n; exec cat'")
        outer.expect_exact("r1n\r\n")
        outer.send("one\r")
        outer.expect_exact("one\r\none\r\n")
        outer.press("z")
        outer.expect_exact("Stopped")
        outer.expect_exact("$ ")
        outer.sendline("fg")
        outer.expect_exact("exec cat'\r\n")  # the job; it goes on
        outer.send("two\r")
        outer.expect_exact("two\r\ntwo\r\n")
        outer.press("d")
        outer.expect_exact("$ ")
        outer.sendline("exit")
        assert outer.end() == 0


def test_the_size_is_passed_on() -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done"
    with Outer("tty", "--", "sh", "-c", script) as outer:
        outer.expect_exact("24 80\r\n")
        outer.set_size(30, 100)
        outer.expect_exact("30 100\r\n")
        # A window that is dragged changes its size many times, and the last one counts.
        for columns in range(100, 140):
            outer.set_size(40, columns)
        outer.expect_exact("40 139\r\n")
        outer.press("c")
        assert outer.end() == 128 + signal.SIGINT


def test_keys_reach_a_program_that_wants_them_raw() -> None:
    script = "stty raw -echo; echo ready; exec od -An -tx1 -N6"
    with Outer("tty", "--", "sh", "-c", script) as outer:
        outer.expect_exact("ready")
        outer.send(b"\x03\x04\x1a\x1c\x11\r")
        outer.expect_exact("03 04 1a 1c 11 0d")
        assert outer.end() == 0


# Programs that fill the screen


def test_vim(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("".join(f"line {n} of the file\n" for n in range(1, 101)))
    with bash() as outer:
        outer.sendline(f"vim -u NONE -N {path}")
        shown = outer.wait_until_shown(lambda rows: "line 1 of the file" in rows, "the file")
        assert shown.in_alt
        assert text(shown)[:23] == [f"line {n} of the file" for n in range(1, 24)]
        outer.send("G")
        outer.wait_until_shown(lambda rows: rows[22] == "line 100 of the file", "the end of it")
        outer.send("ccgrüße 🙂\x1b")
        outer.wait_until_shown(lambda rows: rows[22].startswith("grüße 🙂"), "what was typed")
        outer.send(":wq\r")
        shown = outer.wait_until_shown(lambda rows: "$" in rows, "the prompt")
        assert not shown.in_alt
        assert any("vim -u NONE -N" in row for row in text(shown))
        outer.sendline("exit 3")
        assert outer.end() == 3
    assert path.read_text().splitlines()[99] == "grüße 🙂"


def test_less(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("".join(f"{n}\n" for n in range(1, 101)))
    with Outer("tty", "--", "less", str(path)) as outer:
        outer.wait_until_shown(lambda rows: rows[22] == "23", "the first page")
        outer.send("G")
        shown = outer.wait_until_shown(lambda rows: rows[22] == "100", "the last page")
        assert text(shown)[:23] == [str(n) for n in range(78, 101)]
        outer.send("q")
        assert outer.end() == 0
        assert not outer.shown().in_alt


# How it ends: the terminal is as it was, which Outer.end looks at


def test_the_end_by_a_signal_there() -> None:
    with Outer("tty", "--", "sh", "-c", "kill -KILL $$") as outer:
        assert outer.end() == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_end_by_a_signal_here(number: signal.Signals) -> None:
    with Outer("tty", "--", "sh", "-c", "echo pid $$; exec sleep 1000") as outer:
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        with ends_processes(pid):
            assert outer.termios() != outer.modes
            outer.process.send_signal(number)
            assert outer.end() == 128 + number
            assert not alive(pid)


def test_the_end_of_the_server() -> None:
    with (
        server_process() as (url, server),
        Outer("tty", "--url", url, "--", "sh", "-c", "echo ready; exec cat") as outer,
    ):
        outer.expect_exact("ready\r\n")
        server.process.kill()
        assert outer.end() == 255
        rows = [row for row in text(outer.shown()) if row]
        assert rows[0] == "ready"
        assert rows[1].startswith("wsep-sync: no exit status")


def test_the_end_of_the_terminal() -> None:
    with Outer("tty", "--", "sh", "-c", "echo pid $$; exec sleep 1000") as outer:
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        with ends_processes(pid):
            os.close(outer.slave)
            os.close(outer.child_fd)
            outer.slave, outer.child_fd = pty.openpty()  # to be closed at the end
            # The kernel hangs up: SIGHUP, and nothing can be read or written.
            assert outer.process.wait(SECONDS) == 128 + signal.SIGHUP
            gone(pid)


def test_output_that_fails() -> None:
    script = '"$@" tty -- sh -c "echo lost; exec sleep 1000" > /dev/full; echo "status $?"'
    with Outer("notty", "--help") as outer:  # for its terminal
        assert outer.end() == 0
        process = subprocess.Popen(
            ["setsid", "-c", "bash", "-c", script, "bash", *WSEP_SYNC],
            **dict.fromkeys(("stdin", "stdout", "stderr"), outer.slave),
            env=environment(),
        )
        outer.expect_exact("wsep-sync: No space left on device\r\n")
        outer.expect_exact("status 1\r\n")
        assert process.wait(SECONDS) == 0
        assert outer.termios() == outer.modes


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--url", "ws://127.0.0.1:1", "--", "bash"], 255, "Connection refused"),
        (["--", "/no/such/shell"], 127, "No such file"),
        (["--", "/etc/passwd"], 126, "Permission denied"),
    ],
)
def test_no_start(arguments: list[str], status: int, words: str) -> None:
    with Outer("tty", *arguments) as outer:
        assert outer.end() == status
        has_one_line(outer.output.getvalue().replace(b"\r\n", b"\n"), words)


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


# Sessions


def test_leaving_a_session_and_coming_back(server: str) -> None:
    with bash("--url", server, "--id", "s") as outer:
        typed(outer, "kept=so; echo ou$((0))put", "ou0put")
        outer.send("~.")
        outer.expect_exact("left session s")
        assert outer.end() == 0
    with Outer("tty", "--url", server, "--id", "s", "--", *BASH) as outer:
        outer.expect_exact("ou0put\r\n")
        outer.expect_exact("$ ")
        typed(outer, "echo $kept", "so\r\n")
        outer.sendline("exit 6")
        assert outer.end() == 6


def test_leaving_a_session_that_floods(server: str) -> None:
    with Outer("tty", "--url", server, "--id", "s", "--", "yes", "flood") as outer:
        outer.expect_exact("flood\r\n" * 100)
        outer.send("~.")
        assert outer.end() == 0


def test_a_signal_leaves_a_session(server: str) -> None:
    with bash("--url", server, "--id", "s") as outer:
        outer.sendline("echo pid $$")
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        outer.process.send_signal(signal.SIGTERM)
        assert outer.end() == 128 + signal.SIGTERM
        assert alive(pid)


def test_no_modes_stay_after_leaving_vim(server: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text in the file\n")
    with bash("--url", server, "--id", "s") as outer:
        # Mouse, bracketed paste, focus events, and a region that scrolls.
        outer.sendline(f"vim -u NONE -N -c 'set mouse=a ttymouse=sgr | split' {path}")
        shown = outer.wait_until_shown(
            lambda rows: rows.count("text in the file") == 2, "the file, twice"
        )
        assert shown.in_alt
        outer.send("\r~.")
        outer.expect_exact("left session s")
        assert outer.end() == 0
        after, new = outer.shown(), shown_by_pyte(b"", ROWS, COLUMNS)
        assert not after.in_alt
        assert after.modes == new.modes
        assert after.margins == new.margins
        assert private_modes(outer.output.getvalue()) <= {7, 25}
        assert too_long_for_some(outer.output.getvalue()) == []
        assert "text in the file" not in text(after)
        assert any("vim -u NONE" in row for row in text(after))


def private_modes(data: bytes) -> set[int]:
    """The private modes that are set at the end, those which pyte does not know included."""
    modes = set()
    for numbers, action in re.findall(rb"\x1b\[\?([0-9;]+)([hl])", data):
        for number in map(int, numbers.split(b";")):
            (modes.add if action == b"h" else modes.discard)(number)
    return modes


def test_the_same_shell_after_the_connection_was_cut(server: str) -> None:
    with Relay(server) as relay, bash("--url", relay.url, "--id", "s") as outer:
        typed(outer, "kept=so; echo ou$((0))put", "ou0put")
        relay.cut()
        outer.expect_exact("connection lost, attempt 1 in 0.5 s")
        # Redrawn, not repeated: the line about the connection is gone.
        shown = outer.wait_until_shown(
            lambda rows: rows[2:4] == ["$", ""] and rows[1] == "ou0put", "the redraw"
        )
        assert not any("connection" in row for row in text(shown))
        outer.expect_exact("$ ")
        typed(outer, "echo $kept", "so\r\n")
        outer.set_size(30, 90)
        outer.wait_until_shown(lambda rows: True, "anything")
        eventually(lambda: size_there(outer) == "30 90", "the new size")
        outer.sendline("exit 7")
        assert outer.end() == 7


def size_there(outer: Outer) -> str:
    outer.sendline("stty size")
    outer.expect(r"(\d+ \d+)\r\n")
    return outer.match[1].decode()


def test_attempts_are_told_on_one_line_until_ctrl_c(server: str) -> None:
    with Relay(server) as relay, bash("--url", relay.url, "--id", "s") as outer:
        outer.sendline("echo pid $$")
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        relay.cut(refuse=True)
        for attempt, pause in ((1, "0.5"), (2, "1"), (3, "2")):
            outer.expect_exact(f"connection lost, attempt {attempt} in {pause} s")
        assert relay.accepted == 3
        assert sum("connection lost" in row for row in text(outer.shown())) == 1
        outer.send("not typed to anybody\r")
        outer.press("c")
        assert outer.end() == 128 + signal.SIGINT
        assert alive(pid)


def test_ctrl_c_while_an_attempt_hangs(server: str) -> None:
    options = ["--id", "s", "--timeout", "1000"]
    with Relay(server) as relay, bash("--url", relay.url, *options) as outer:
        relay.cut(refuse=True)
        outer.expect_exact("attempt 2")
        relay.hang()
        eventually(lambda: relay.accepted == 3, "the attempt")
        outer.press("c")
        assert outer.end() == 128 + signal.SIGINT


def test_a_session_that_went_with_its_server() -> None:
    with server_process() as (url, server), bash("--url", url, "--id", "s") as outer:
        typed(outer, "gone=so; echo ou$((0))put", "ou0put")
        server.process.kill()
        server.process.wait()
        outer.expect_exact("connection lost, attempt 1")
        port = url.rpartition(":")[2]
        with server_process_on(port):
            outer.expect_exact("session s is gone, and how its command ended is not known")
            assert outer.end() == 255
            assert run("sessions", "--url", url).stdout == b""


def test_no_command_runs_twice(tmp_path: Path) -> None:
    log = tmp_path / "deployed"
    server = Server()
    script = f"echo deployed >>{log}; echo running; exec sleep 1000"
    with (
        listening(server=server) as listener,
        Relay(listener.url) as relay,
        Outer("tty", "--url", relay.url, "--id", "s", "--", "sh", "-c", script) as outer,
    ):
        outer.expect_exact("running")
        relay.cut(refuse=True)
        outer.expect_exact("attempt 2")
        server.close_session("s")
        relay.accept_again()
        outer.expect_exact("session s is gone")
        assert outer.end() == 255
        assert server.session_count() == 0
        server.close()
    assert log.read_text() == "deployed\n"


def test_a_server_that_cannot_attach_without_starting() -> None:
    # As the reference, which would start the command again if it has ended.
    starts = []

    def serve(conn: Transport) -> None:
        starts.append(bytes(conn.receive()))
        conn.send(b'{"type":"pid","pid":1}\n')
        conn.send(b'{"type":"stdout"}\nrunning')
        conn.abort()

    with scripted(serve) as url, bash_at(url) as outer:
        outer.expect_exact("running")
        outer.expect_exact("whether session s goes on is not known")
        assert outer.end() == 255
    assert len(starts) == 1
    assert b"started anew" not in outer.output.getvalue()


@contextlib.contextmanager
def bash_at(url: str) -> Iterator[Outer]:
    with Outer("tty", "--url", url, "--id", "s", "--", *BASH) as outer:
        yield outer


def answering(*answers: str) -> Any:
    """An application that cuts its first WebSocket, and then answers with these."""
    rest = ["", *answers]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        status = rest.pop(0)
        if not status:
            environ[UPGRADED] = True
            transport = accept_websocket(environ)
            transport.receive()
            transport.send(Pid(1, FEATURES).encode())
            transport.abort()
            return []
        if status == "1011":
            environ[UPGRADED] = True
            transport = accept_websocket(environ)
            transport.receive()
            transport.close(1011, "enough sessions")
            return []
        start_response(status, [("Content-Length", "9")])
        return [b"no entry\n"]

    return app


@pytest.mark.parametrize(
    "answer", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "302 Found", "200 OK", "1011"]
)
def test_a_refusal_is_no_lost_connection(answer: str) -> None:
    with serving(Listener(answering(answer))) as listener, bash_at(listener.url) as outer:
        outer.expect_exact("connection lost, attempt 1")
        assert outer.end() == 255
        # The last line may have been wrapped.
        last = [row for row in "".join(text(outer.shown())).split("wsep-sync: ") if row][-1]
        assert ("enough sessions" if answer == "1011" else f"HTTP {answer[:3]}") in last
        assert b"attempt 2" not in outer.output.getvalue()


def test_a_server_that_will_come_back_is_waited_for() -> None:
    answers = ["503 Service Unavailable", "502 Bad Gateway", "401 Unauthorized"]
    with serving(Listener(answering(*answers))) as listener, bash_at(listener.url) as outer:
        outer.expect_exact("attempt 2 in 1 s (Ctrl-C ends): HTTP 503")
        outer.expect_exact("attempt 3 in 2 s (Ctrl-C ends): HTTP 502")
        outer.expect_exact("HTTP 401")
        assert outer.end() == 255


@contextlib.contextmanager
def server_process_on(port: str) -> Iterator[None]:
    with subprocess.Popen(
        [*WSEP_SYNC, "serve", "--port", port], stdout=subprocess.PIPE, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening")
            yield
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_no_reconnect(server: str) -> None:
    with (
        Relay(server) as relay,
        bash("--url", relay.url, "--id", "s", "--no-reconnect") as outer,
    ):
        relay.cut()
        assert outer.end() == 255
        outer.read_now()
        rows = [row for row in text(outer.shown()) if row]
        assert any(row.startswith("wsep-sync: no exit status") for row in rows)
        assert relay.accepted == 1


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


# Without a terminal here


def test_input_from_a_pipe() -> None:
    done = run("tty", "--", *BASH, input=b"~.\necho $((6*7))\nexit 4\n")
    assert (done.returncode, done.stderr) == (4, b"")
    assert b"42\r\n" in done.stdout


@pytest.mark.parametrize("data", [b"", b"line\n", b"no end"])
def test_the_end_of_input_from_a_pipe(data: bytes) -> None:
    done = run("tty", "--", "sh", "-c", "count=$(wc -c); echo; echo $count", input=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[-1] == str(len(data)).encode()


# A terminal within a terminal


class Tmux:
    """A tmux of its own, with one window of 80 x 24 that runs a shell's script."""

    def __init__(self, directory: Path, script: str) -> None:
        self._socket = directory / "socket"
        self("new-session", "-d", "-x", "80", "-y", "24", script)
        self._server = int(self.get("#{pid}"))

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(TERM="xterm-256color"),
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, format: str) -> str:
        return self("display-message", "-p", format).rstrip("\n")

    def rows(self) -> list[str]:
        return self("capture-pane", "-p").splitlines()

    def modes(self) -> str:
        """What programs have switched on; "00000-1" when it is a new window's."""
        names = ("mouse_any", "mouse_standard", "mouse_sgr", "keypad_cursor", "keypad")
        return self.get("".join(f"#{{{name}_flag}}" for name in names) + "-#{wrap_flag}")

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        self("kill-server")
        gone(self._server)


SET_MODES = r"printf '\033[?1h\033[?1000h\033[?1006h\033=\033[?7l'"


def test_in_tmux(tmp_path: Path) -> None:
    command = shlex.join([*WSEP_SYNC, "tty", "--", *BASH])
    with Tmux(tmp_path, f"{command}; echo status $?; exec cat") as tmux:
        eventually(lambda: tmux.rows()[:1] == ["$"], "the prompt")
        tmux("send-keys", "echo $((6*7)); stty size", "Enter")
        eventually(lambda: tmux.rows()[1:4] == ["42", "24 80", "$"], "the answer")
        tmux("resize-window", "-x", "100", "-y", "30")
        until = "clear; until [ \"$(stty size)\" = '30 100' ]; do :; done; stty size"
        tmux("send-keys", until, "Enter")
        eventually(lambda: "30 100" in tmux.rows(), "the new size")
        tmux("send-keys", "clear; vim -u NONE -N", "Enter")
        eventually(lambda: tmux.rows()[1:3] == ["~", "~"], "vim")
        tmux("send-keys", "ihello", "Escape")
        eventually(lambda: tmux.rows()[0] == "hello", "what was typed")
        tmux("send-keys", ":q!", "Enter")
        eventually(lambda: tmux.rows()[0].startswith("$"), "the prompt again")
        tmux("send-keys", "exit 9", "Enter")
        eventually(lambda: "status 9" in tmux.rows(), "the end")


def test_no_modes_stay_in_tmux_after_leaving(server: str, tmp_path: Path) -> None:
    program = ["sh", "-c", f"{SET_MODES}; exec cat"]
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", *program])
    with Tmux(tmp_path, f"{command}; echo status $?; exec cat") as tmux:
        eventually(lambda: tmux.modes() == "11111-0", "the program's modes")
        [client] = children(int(tmux.get("#{pane_pid}")))
        os.kill(client, signal.SIGTERM)
        eventually(lambda: f"status {128 + signal.SIGTERM}" in tmux.rows(), "the end")
        assert tmux.modes() == "00000-1"


def test_a_redraw_in_tmux_undoes_what_was_left_on(server: str, tmp_path: Path) -> None:
    start = Command("sh", ["-c", "echo ready; exec cat"], tty=True, id="s", rows=24, cols=80)
    # Nothing has undone what an earlier client left that was killed.
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", "true"])
    with connect(server) as execer, execer.start(start) as process:
        read_past(process.stdout, b"ready")
        with Tmux(tmp_path, f"{SET_MODES}; exec {command}") as tmux:
            eventually(lambda: "ready" in tmux.rows(), "the redraw")
            assert tmux.modes() == "00000-1"


def test_a_redraw_in_tmux_has_all_attributes(server: str, tmp_path: Path) -> None:
    attributes = "".join(rf"\033[{code}m" for code in (1, 3, 5, 7, 9, 53))
    colours = "".join(rf"\033[{n};2;101;102;103m" for n in (38, 48, 58))
    # On the alternate screen the attributes of before are written anew.
    script = f"printf '{attributes}{colours}\\033[?1049hready\\n'; exec cat"
    start = Command("sh", ["-c", script], tty=True, id="s", rows=24, cols=80)
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", "true"])
    with connect(server) as execer, execer.start(start) as process:
        read_past(process.stdout, b"ready")
        with Tmux(tmp_path, f"exec {command}") as tmux:
            eventually(lambda: "ready" in tmux.rows(), "the redraw")
            shown = tmux("capture-pane", "-p", "-e").splitlines()[0]
    codes = set(re.split(r"[;m]", "".join(re.findall(r"\x1b\[([\d;:]*m)", shown))))
    assert {"1", "3", "5", "7", "9"} <= codes, shown
    assert codes & {"53", "5:3"}, shown  # the latter is what tmux 3.3 writes for an overline
    assert "38;2;101;102;103" in shown.replace(":", ";"), shown
    assert "48;2;101;102;103" in shown.replace(":", ";"), shown
