"""The contract: terminals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from typing import Any

import pytest
from helpers import NOBODY, SECONDS, Task, blocked, gone, read_past, sh
from ways import TRAP, failure, not_over, run, sends, terminal

from wsep_sync import Command, Execer, StartError


def test_terminal_size(execer: Execer) -> None:
    with terminal(execer, "stty size", rows=31, cols=97) as process:
        assert process.stdout.read() == b"31 97\r\n"
        process.wait(SECONDS)


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (0, 5), (5, 0), (65_535, 65_535)])
def test_terminal_sizes_at_the_edge(execer: Execer, rows: int, cols: int) -> None:
    for id in ("", "edge"):
        with terminal(execer, "stty size", rows=rows, cols=cols, id=id) as process:
            # The reference's default: 80 rows of 24 columns.
            assert process.stdout.read() == b"%d %d\r\n" % (rows or 80, cols or 24)
            process.wait(SECONDS)


def test_resize(execer: Execer) -> None:
    script = "trap 'stty size' WINCH; sleep 1000 & stty size; while :; do wait; done"
    with terminal(execer, script, rows=24, cols=80) as process:
        assert process.stdout.readline() == b"24 80\r\n"
        for rows, cols in [(25, 81), (1, 1), (65_535, 65_535)]:
            process.resize(rows, cols)
            assert process.stdout.readline() == b"%d %d\r\n" % (rows, cols)


def test_resize_without_a_terminal_does_nothing(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        process.resize(10, 20)
        process.stdin.close()
        process.wait(SECONDS)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("size", [(-1, 10), (10, -1), (65_536, 10), (10, 65_536)])
def test_resize_out_of_range(execer: Execer, size: tuple[int, int], tty: bool) -> None:
    with (
        execer.start(Command("sleep", ["1000"], tty=tty)) as process,
        pytest.raises(ValueError, match="0 to 65535"),
    ):
        process.resize(*size)


def test_terminal_output_is_all_of_it(execer: Execer) -> None:
    with terminal(execer, "test -t 0 && test -t 1 && test -t 2; echo $?; echo err >&2") as process:
        assert process.stdout.read() == b"0\r\nerr\r\n"
        assert process.stderr.read() == b""
        process.wait(SECONDS)


def test_terminal_echo(execer: Execer) -> None:
    with execer.start(Command("cat", tty=True)) as process:
        sends(process, b"hello\n")
        assert process.stdout.readline() == b"hello\r\n"
        assert process.stdout.readline() == b"hello\r\n"


def test_terminal_end_of_input(execer: Execer) -> None:
    with terminal(execer, "stty -echo; echo ready; cat; echo done") as process:
        assert process.stdout.readline() == b"ready\r\n"
        sends(process, b"text\n")
        process.stdin.close()
        assert process.stdout.read() == b"text\r\ndone\r\n"
        process.wait(SECONDS)


def test_terminal_end_of_input_is_the_character_that_was_set(execer: Execer) -> None:
    with terminal(execer, "stty -echo eof ^X; echo ready; cat; echo done") as process:
        assert process.stdout.readline() == b"ready\r\n"
        process.stdin.close()
        assert process.stdout.read() == b"done\r\n"


def test_terminal_ctrl_c(execer: Execer) -> None:
    with terminal(execer, TRAP, "INT") as process:
        assert process.stdout.readline() == b"ready\r\n"
        sends(process, b"\x03")
        assert process.stdout.read() == b"^Cgot\r\n"
        assert failure(process).exit_code == 5


def test_terminal_ctrl_c_ends_a_command_that_does_not_expect_it(execer: Execer) -> None:
    with terminal(execer, "echo ready; exec sleep 1000") as process:
        assert process.stdout.readline() == b"ready\r\n"
        sends(process, b"\x03")
        assert failure(process).signal == signal.SIGINT


def test_job_control(execer: Execer) -> None:
    command = Command("bash", ["--norc", "--noprofile", "-i"], tty=True, env=["PS1=<prompt>"])
    with execer.start(command) as process:
        assert b"job control" not in read_past(process.stdout, b"<prompt>")
        # With exec: a shell that is stopped in the midst of vfork(2) is not seen to be stopped.
        sends(process, b"sh -c 'echo run''ning; exec sleep 1000'\n")
        read_past(process.stdout, b"running\r\n")
        sends(process, b"\x1a")
        read_past(process.stdout, b"Stopped")
        sends(process, b"jobs; bg; kill -9 %1; wait; echo the ''end; exit 4\n")
        read_past(process.stdout, b"the end\r\n")
        assert failure(process).exit_code == 4


def test_close_ends_the_job_in_the_foreground(execer: Execer) -> None:
    command = Command("bash", ["--norc", "--noprofile", "-i"], tty=True, env=["PS1=<prompt>"])
    process = execer.start(command)
    read_past(process.stdout, b"<prompt>")
    sends(process, b"sh -c 'echo pid $$; sleep 1000'\n")
    # The first line with the word in it is the echo, without the number.
    job = next(int(m[1]) for line in process.stdout if (m := re.search(rb"pid (\d+)", line)))
    process.close()
    gone(process.pid, job)


def test_the_terminal_is_the_controlling_one(execer: Execer) -> None:
    with terminal(execer, "echo $$; cut -d ' ' -f 5-8 /proc/$$/stat; tty; echo x > /dev/tty") as p:
        pid, stat, _, text = p.stdout.read().split(b"\r\n", 3)
        group, session, device, foreground = stat.split()
        assert pid == group == session == foreground == b"%d" % p.pid
        assert int(device) != 0
        assert text == b"x\r\n"
        p.wait(SECONDS)


@not_over("ssh")  # as above
def test_the_terminal_of_another_user(execer: Execer) -> None:
    command = sh("id -u; echo x > /dev/tty", tty=True, uid=NOBODY, gid=NOBODY)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            execer.start(command)
        return
    assert run(execer, command)[0] == b"%d\r\nx\r\n" % NOBODY


def entries(execer: Execer, **fields: Any) -> list[str]:
    """The whole environment of a command, as it is."""
    command = Command("cat", ["/proc/self/environ"], **fields)
    return run(execer, command)[0].decode().rstrip("\0").split("\0")


@pytest.mark.parametrize("tty", [False, True])
def test_environment_entries_that_are_no_variables(
    execer: Execer, tty: bool, request: pytest.FixtureRequest
) -> None:
    # Names that begin so are where Windows keeps the directories of its drives, and clients there
    # send all they have.
    env = ["=C:=C:\\x", "=D:=D:\\y", "=C:=C:\\z", "hunter2", "=b", "PATH", "A=b", ""]
    if "ssh" in request.node.name:
        for entries in (env[:1], env[3:4], env[4:5]):
            with pytest.raises(StartError, match="over SSH") as caught:
                execer.start(Command("true", env=entries, tty=tty))
            assert "hunter2" not in str(caught.value)
        return
    command = Command("cat", ["/proc/self/environ"], env=env, tty=tty)
    found = run(execer, command)[0].decode().rstrip("\0").split("\0")
    # As in the reference, they are there for whoever looks, and hide no variable.
    assert {"=C:=C:\\z", "=D:=D:\\y", "hunter2", "=b", "PATH", "A=b"} <= set(found)
    assert any(entry.startswith("PATH=") for entry in found)
    assert not {"", "=C:=C:\\x"} & set(found)


def test_terminal_environment(execer: Execer) -> None:
    with terminal(execer, "echo $WSEP_TTY ${TERM:+set}") as process:
        assert process.stdout.read() == b"true set\r\n"
    with terminal(execer, "echo $WSEP_TTY $TERM", env=["TERM=vt100", "WSEP_TTY=no"]) as process:
        # As the reference has it, it is always true.
        assert process.stdout.read() == b"true vt100\r\n"
    assert run(execer, sh("echo ${WSEP_TTY-unset}"))[0] == b"unset\n"


def test_terminal_exit_code(execer: Execer) -> None:
    with terminal(execer, "exit 9") as process:
        assert failure(process).exit_code == 9


def test_writing_to_a_terminal_after_the_end(execer: Execer) -> None:
    with terminal(execer, "exit 0") as process:
        assert process.stdout.read() == b""
        process.wait(SECONDS)
        process.stdin.write(b"text")
        with pytest.raises(BrokenPipeError):
            process.stdin.flush()


@pytest.mark.parametrize("tty", [False, True])
def test_closing_the_input_after_the_end(execer: Execer, tty: bool) -> None:
    with execer.start(Command("true", stdin=True, tty=tty)) as process:
        process.wait(SECONDS)
        process.stdin.close()


def test_close_wakes_who_reads_a_terminal(execer: Execer) -> None:
    process = terminal(execer, "sleep 1000")
    with Task(process.stdout.read) as reading:
        blocked(reading)
        process.close()
        assert reading.result() == b""
    # A terminal is hung up first.
    assert failure(process).signal == signal.SIGHUP


def test_close_wakes_who_writes_to_a_terminal(execer: Execer) -> None:
    # Without canonical mode the kernel takes what it has room for, and then no more.
    process = terminal(execer, "stty raw -echo; echo ready; sleep 1000")
    assert process.stdout.readline() == b"ready\n"
    with Task(process.stdin.write, bytes(10_000_000)) as writing:
        blocked(writing)
        process.close()
        # A server that has seen the command end drops the rest of its input, in no time.
        with contextlib.suppress(BrokenPipeError):
            writing.result()


def test_much_through_a_raw_terminal(execer: Execer) -> None:
    with terminal(execer, "stty raw -echo; echo ready; cat") as process:
        assert process.stdout.readline() == b"ready\n"
        data = os.urandom(1_000_000)
        with Task(process.stdin.write, data) as writing:
            assert process.stdout.read(1_000_000 - 10_000) == data[:-10_000]
            writing.result()
            process.stdin.flush()
            assert process.stdout.read(10_000) == data[-10_000:]
