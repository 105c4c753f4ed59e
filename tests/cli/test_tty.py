"""`wsep-sync tty` on a real terminal, typed at by pexpect and judged by pyte."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import SECONDS, alive, ends_processes, gone
from parts import need
from programs import WSEP_SYNC, environment, has_one_line, run, server_process
from terminal_windows import BASH, Outer, bash, text, typed

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
    need("vim")
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
    need("less")
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


def test_the_terminals_size_can_be_given(at_server: list[str]) -> None:
    done = run("tty", *at_server, "--rows", "11", "--cols", "33", "--", "stty", "size")
    assert (done.returncode, done.stdout) == (0, b"11 33\r\n")
    # The other is this terminal's, and what it is given stays.
    with Outer("tty", *at_server, "--rows", "11", "--", "sh", "-c", TOLD) as outer:
        outer.expect_exact("11 80\r\n")
        outer.set_size(40, 100)
        outer.expect_exact("11 100\r\n")


TOLD = "trap 'stty size; exit' WINCH; stty size; while :; do read line; done"


def test_what_programs_have_to_know_of_a_terminal_is_sent() -> None:
    script = 'echo "$TERM|$COLORTERM|$LANG|$LC_TIME|$LC_ALL|$OTHER"'
    ours = {"TERM": "vt100", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "LC_TIME": "POSIX"}
    with server_process(env=environment(LANG="C", LC_ALL="")) as (url, _):
        env = environment(OTHER="x", LC_ALL="", **ours)
        done = run("tty", "--url", url, "--", "sh", "-c", script, env=env)
        assert done.stdout == b"vt100|truecolor|C.UTF-8|POSIX||\r\n"
        done = run("tty", "--url", url, "--env", "LANG=C", "--", "sh", "-c", script, env=env)
        assert done.stdout == b"vt100|truecolor|C|POSIX||\r\n"
        done = run("notty", "--url", url, "--", "sh", "-c", script, env=env)
        assert b"truecolor" not in done.stdout
