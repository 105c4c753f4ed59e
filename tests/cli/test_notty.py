"""The command line: `notty`, where it runs a command, its streams and its status."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command_lines import in_shell
from helpers import SECONDS, alive, ends_processes, listening
from programs import environment, finish, first_number, has_one_line, run, running

# notty: where the command runs


def test_the_url_is_the_option_or_the_variable_or_a_server_of_its_own() -> None:
    with listening() as listener, running("notty", "--", "sh", "-c", "echo $PPID; cat") as own:
        assert first_number(own) == own.pid
        for arguments, variables in (
            (["--url", listener.url], {"WSEP_URL": "ws://127.0.0.1:1"}),
            ([], {"WSEP_URL": listener.url}),
        ):
            done = run(
                "notty", *arguments, "--", "sh", "-c", "echo $PPID", env=environment(**variables)
            )
            assert (int(done.stdout), done.returncode) == (os.getpid(), 0)
        assert finish(own) == (0, b"", b"")
    done = run("notty", "--", "echo", "own", env=environment(WSEP_URL=""))
    assert (done.returncode, done.stdout) == (0, b"own\n")


# notty: streams


def test_all_three_streams_pass_as_they_are() -> None:
    data = bytes(range(256)) * 500
    script = "tee /dev/stderr; echo end of errors >&2"
    done = run("notty", "--", "sh", "-c", script, input=data)
    assert done.stdout == data
    assert done.stderr == data + b"end of errors\n"
    assert done.returncode == 0


def test_input_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"from a file" * 10_000)
    with path.open("rb") as file:
        done = run("notty", "--", "cat", stdin=file)
    assert (done.returncode, done.stdout, done.stderr) == (0, path.read_bytes(), b"")


def test_no_input() -> None:
    done = run("notty", "--", "wc", "-c", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


def test_input_that_is_closed() -> None:
    done = in_shell('"$@" notty -- wc -c <&-')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("file", os.O_WRONLY | os.O_CREAT, "Bad file descriptor"),
        ("/proc/self/mem", os.O_RDONLY, "Input/output error"),  # as of a broken disk
    ],
)
def test_input_that_cannot_be_read(name: str, flags: int, words: str, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / name, flags)
    try:
        done = run("notty", "--", "cat", stdin=descriptor)
    finally:
        os.close(descriptor)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "standard input", words)


def test_input_from_the_null_device_as_nohup_opens_it() -> None:
    done = in_shell('"$@" notty -- wc -c 0>/dev/null')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


@pytest.mark.parametrize("option", [["-n"], []])
def test_input_that_never_ends(option: list[str]) -> None:
    # With -n the command's own input is at its end; without, the command does not care for it.
    command = ["wc", "-c"] if option else ["echo", "0"]
    with running("notty", *option, "--", *command) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"0\n"
        assert process.wait(SECONDS) == 0


def test_a_dialogue() -> None:
    with running("notty", "--", "sh", "-c", 'while read x; do echo "<$x>"; done') as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"<" + word + b">\n"
        assert finish(process) == (0, b"", b"")


def test_pipes_that_somebody_else_has_made_non_blocking() -> None:
    data = os.urandom(1 << 20)
    with running("notty", "--", "cat") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # The flag belongs to the pipe, so the program's ends get it too.
        for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
            end = os.open(f"/proc/{process.pid}/fd/{number}", flags)
            os.set_blocking(end, False)
            os.close(end)
        out, err = process.communicate(data, timeout=SECONDS)
        assert (process.returncode, out == data, err) == (0, True, b"")


def test_a_command_that_closes_its_output_and_runs_on() -> None:
    script = "exec >&-; read line; echo $line >&2; exit 4"
    with running("notty", "--", "sh", "-c", script) as process:
        out, err = process.communicate(b"heard\n", timeout=SECONDS)
        assert (process.returncode, out, err) == (4, b"", b"heard\n")


def test_the_end_waits_for_whoever_still_has_the_output(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = '(read line < "$1"; echo $line) & echo started; exit 5'
    with running("notty", "--", "sh", "-c", script, "sh", str(fifo)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        fifo.write_text("late\n")
        assert finish(process) == (5, b"late\n", b"")


def test_a_reader_who_has_enough() -> None:
    script = "echo $$; while :; do echo y; done 2>/dev/null"
    with running("notty", "--", "sh", "-c", script) as process:
        pid = first_number(process)
        assert process.stdout is not None
        assert process.stderr is not None
        with ends_processes(pid):
            process.stdout.close()
            assert process.wait(SECONDS) == 128 + signal.SIGPIPE
            assert process.stderr.read() == b""
            assert not alive(pid)


def test_an_error_reader_who_has_enough() -> None:
    # Not before the number has been read: behind more errors than are kept it would not come.
    script = "echo $$; read line; yes >&2; sleep 1000"
    with running("notty", "--", "sh", "-c", script) as process:
        pid = first_number(process)
        assert process.stdin is not None
        assert process.stderr is not None
        with ends_processes(pid):
            process.stdin.write(b"go\n")
            process.stdin.flush()
            process.stderr.close()
            assert process.wait(SECONDS) == 128 + signal.SIGPIPE
            assert not alive(pid)


@pytest.mark.parametrize(
    ("redirection", "words"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
)
def test_output_that_cannot_be_written(redirection: str, words: str) -> None:
    done = in_shell(f'"$@" notty -- echo hello {redirection}')
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, words)


def test_error_output_that_is_closed_is_dropped() -> None:
    done = in_shell('"$@" notty -- sh -c "echo error >&2; echo output; exit 3" 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (3, b"output\n", b"")
    done = in_shell('"$@" notty -- /nothing 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (127, b"", b"")


# notty: exit status


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_status_is_the_commands(status: int) -> None:
    done = run("notty", "--", "sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_the_status_of_a_signal(number: signal.Signals) -> None:
    done = run("notty", "--", "sh", "-c", f"kill -{number:d} $$")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


def test_a_command_that_cannot_be_run(at_server: list[str], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    for command, status, reason in (
        ("/no/such/thing", 127, "No such file or directory"),
        ("no-such-thing", 127, "No such file or directory"),
        (str(text), 126, "Permission denied"),
        (str(tmp_path), 126, "Permission denied"),
    ):
        done = run("notty", *at_server, "--", command)
        assert (done.returncode, done.stdout) == (status, b"")
        has_one_line(done.stderr, command, reason)


def test_more_arguments_than_a_message_holds() -> None:
    done = run("notty", "--", "true", "x" * 70_000)
    assert (done.returncode, done.stdout) == (126, b"")
    has_one_line(done.stderr, "true", "Argument list too long")
