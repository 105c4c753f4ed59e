"""The contract: outputs and exit statuses, input, the files, and who does not read."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SECONDS, Task, numbers, sh
from ways import failure, not_over, run, sends

from wsep_sync import Command, Execer

# Outputs and exit statuses


def test_output(execer: Execer) -> None:
    assert run(execer, Command("echo", ["hello"])) == (b"hello\n", b"")


def test_both_outputs_are_kept_apart(execer: Execer) -> None:
    assert run(execer, sh("echo out; echo err >&2")) == (b"out\n", b"err\n")


def test_no_output(execer: Execer) -> None:
    assert run(execer, Command("true")) == (b"", b"")


def test_bytes_come_as_they_are(execer: Execer, tmp_path: Path) -> None:
    every = bytes(range(256)) * 3
    (tmp_path / "file").write_bytes(every)
    assert run(execer, Command("cat", [str(tmp_path / "file")]))[0] == every


@pytest.mark.parametrize("code", [1, 2, 255])
def test_exit_code(execer: Execer, code: int) -> None:
    with execer.start(sh("exit $1", str(code))) as process:
        error = failure(process)
    assert (error.exit_code, error.signal, str(error)) == (code, None, f"exit status {code}")


def test_exit_code_0_raises_nothing(execer: Execer) -> None:
    with execer.start(sh("exit 0")) as process:
        assert process.wait(SECONDS) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "signal: hangup"),
        (9, "signal: killed"),
        (10, "signal: user defined signal 1"),
        (13, "signal: broken pipe"),
        (15, "signal: terminated"),
    ],
)
def test_end_by_a_signal(execer: Execer, number: int, words: str) -> None:
    with execer.start(Command("bash", ["-c", f"kill -{number} $$"])) as process:
        error = failure(process)
    assert (error.exit_code, error.signal, str(error)) == (-1, number, words)


# SSH names the signal, and for this one it has no name.
@not_over("ssh")
def test_end_by_a_signal_without_a_name(execer: Execer) -> None:
    with execer.start(Command("bash", ["-c", "kill -40 $$"])) as process:
        error = failure(process)
    assert (error.exit_code, error.signal, str(error)) == (-1, 40, "signal: signal 40")


def test_the_exit_status_of_a_command_that_wrote_to_both(execer: Execer) -> None:
    with execer.start(sh("echo out; echo err >&2; exit 4")) as process:
        assert process.stdout.read() == b"out\n"
        assert process.stderr.read() == b"err\n"
        assert failure(process).exit_code == 4


def test_output_is_there_after_the_end(execer: Execer) -> None:
    with execer.start(sh("echo out; echo err >&2; exit 4")) as process:
        assert failure(process).exit_code == 4
        assert (process.stdout.read(), process.stderr.read()) == (b"out\n", b"err\n")


def test_output_is_there_while_the_command_runs(execer: Execer) -> None:
    with execer.start(sh("echo one; read x; echo two; read x", stdin=True)) as process:
        assert process.stdout.readline() == b"one\n"
        sends(process, b"go\n")
        assert process.stdout.readline() == b"two\n"
        with pytest.raises(TimeoutError):
            process.wait(0)


def test_pid_and_a_group_and_session_of_its_own(execer: Execer) -> None:
    with execer.start(sh("echo $$; cut -d ' ' -f 5,6 /proc/$$/stat")) as process:
        lines = process.stdout.read().split()
        assert lines == [str(process.pid).encode()] * 3


# Input


@pytest.mark.parametrize("size", [0, 1, 63_982, 63_983, 63_984, 1_000_000, 10_000_000])
def test_input_comes_back(execer: Execer, size: int) -> None:
    data = os.urandom(size)
    assert run(execer, Command("cat", stdin=True), data) == (data, b"")


def test_writes_of_nothing(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        for piece in (b"", b"a", b"", b"b", b""):
            assert process.stdin.write(piece) == len(piece)
            process.stdin.flush()
        process.stdin.close()
        assert process.stdout.read() == b"ab"
        process.wait(SECONDS)


def test_output_after_the_end_of_the_input(execer: Execer) -> None:
    with execer.start(sh("cat; echo and more", stdin=True)) as process:
        sends(process, b"text\n")
        assert process.stdout.readline() == b"text\n"
        process.stdin.close()
        assert process.stdout.read() == b"and more\n"
        process.wait(SECONDS)


def test_a_command_that_closes_its_output_runs_on(execer: Execer) -> None:
    with execer.start(sh("echo last; exec >&-; cat >&2; exit 6", stdin=True)) as process:
        assert process.stdout.readline() == b"last\n"
        sends(process, b"still\n")
        assert process.stderr.readline() == b"still\n"
        with pytest.raises(TimeoutError):
            process.wait(0)
        process.stdin.close()
        assert failure(process).exit_code == 6
        assert process.stdout.read() == b""


def test_a_command_that_closes_its_input_early(execer: Execer) -> None:
    with execer.start(sh("exec <&-; echo closed; sleep 1000", stdin=True)) as process:
        assert process.stdout.readline() == b"closed\n"
        # Dropped on the way, or refused: but nothing hangs.
        with contextlib.suppress(BrokenPipeError):
            for _ in range(100):
                process.stdin.write(bytes(100_000))
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.kill()
        assert failure(process).signal == signal.SIGKILL


# paramiko does not listen when sshd says so.
@not_over("ssh")
def test_who_writes_is_told_that_the_command_has_closed_its_input(execer: Execer) -> None:
    with execer.start(sh("exec <&-; echo closed; sleep 1000", stdin=True)) as process:
        assert process.stdout.readline() == b"closed\n"
        with pytest.raises(BrokenPipeError):
            process.stdin.write(bytes(10_000_000))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.kill()
        assert failure(process).signal == signal.SIGKILL


def test_a_command_that_reads_only_the_beginning(execer: Execer) -> None:
    with execer.start(Command("head", ["-c", "5"], stdin=True)) as process:
        with contextlib.suppress(BrokenPipeError):
            for _ in range(100):
                process.stdin.write(b"12345" * 20_000)
        assert process.stdout.read() == b"12345"
        process.wait(SECONDS)


def test_without_input_the_command_reads_nothing(execer: Execer) -> None:
    with execer.start(Command("cat")) as process:
        assert process.stdout.read() == b""
        process.wait(SECONDS)


def test_writing_without_an_input(execer: Execer) -> None:
    with execer.start(Command("true")) as process:
        with pytest.raises(io.UnsupportedOperation):
            process.stdin.write(b"text")
        process.stdin.close()
        process.wait(SECONDS)


def test_writing_after_closing(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        process.stdin.close()
        process.stdin.close()
        assert process.stdin.closed
        with pytest.raises(ValueError, match="closed"):
            process.stdin.write(b"text")
        process.wait(SECONDS)


def test_writing_after_the_end(execer: Execer) -> None:
    with execer.start(Command("true", stdin=True)) as process:
        process.wait(SECONDS)
        process.stdin.write(b"text")
        with pytest.raises(BrokenPipeError):
            process.stdin.flush()


# When a command has ended, sshd closes its input, whoever else reads it.
@not_over("ssh")
def test_a_job_in_the_background_holds_the_output(execer: Execer) -> None:
    # A shell gives its background jobs /dev/null to read, unless told otherwise.
    script = "exec 3<&0; (read x <&3; echo late $x) & echo $$; exit 3"
    with execer.start(sh(script, stdin=True)) as process:
        numbers(process.stdout, 1)
        sends(process, b"enough\n")
        assert process.stdout.read() == b"late enough\n"
        assert failure(process).exit_code == 3


# The end, and who does not read


def test_what_nobody_reads_does_not_hide_the_end(execer: Execer) -> None:
    with execer.start(Command("yes")) as process:
        process.stdout.read(1)
        process.kill()
        assert failure(process).signal == signal.SIGKILL
        # Beside each other: over SSH, which has one window for both, the one's end may stand behind
        # more of the other than that has room for.
        with Task(process.stderr.read) as errors:
            # What had come can still be read; all that is lost is what the command had not written.
            assert set(process.stdout.read()) == set(b"y\n")
            assert errors.result() == b""


# SSH has one window for both outputs.
@not_over("ssh")
def test_an_output_that_nobody_reads_holds_nothing_else_up(execer: Execer) -> None:
    script = "yes & while read x; do echo got $x >&2; done; kill $!; exit 3"
    with execer.start(sh(script, stdin=True)) as process:
        process.stdout.read(1)
        for word in (b"one", b"two"):
            sends(process, word + b"\n")
            assert process.stderr.readline() == b"got " + word + b"\n"
        process.stdin.close()
        assert failure(process).exit_code == 3


# SSH has no way to tell of it.
@not_over("ssh")
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_command_that_ignores_sigpipe_is_told(execer: Execer, name: str) -> None:
    script = """
        trap '' PIPE; exec 3>&$1
        echo ready; echo ready >&2
        while echo x >&3; do sleep 0.01; done 2> /dev/null; exit 7
    """
    number = "1" if name == "stdout" else "2"
    with execer.start(Command("bash", ["-c", script, "bash", number])) as process:
        file = getattr(process, name)
        assert file.readline() == b"ready\n"
        file.close()
        assert failure(process).exit_code == 7


def test_a_closed_output_of_a_command_that_does_not_write_does_no_harm(execer: Execer) -> None:
    with execer.start(sh("read x; echo $x; exit 3", stdin=True)) as process:
        process.stderr.close()
        sends(process, b"text\n")
        assert process.stdout.readline() == b"text\n"
        assert failure(process).exit_code == 3


# An SSH server waits for them.
@not_over("ssh")
def test_what_is_discarded_need_not_end(execer: Execer) -> None:
    script = "(read x; echo late; echo late >&2; read x) <&0 & exit 3"
    command = sh(f"exec 3<&0; {script}".replace("<&0 &", "<&3 &"), stdin=True)
    command = replace(command, discard=("stdout", "stderr"))
    with execer.start(command) as process:
        assert failure(process).exit_code == 3
        assert process.stdout.read() == process.stderr.read() == b""


# An SSH server waits for it, too; and LocalExecer lets whoever reads decide.
@not_over("ssh", "local")
def test_a_terminal_ends_with_its_command(execer: Execer, tmp_path: Path) -> None:
    script = """
        setsid sh -c 'trap "" HUP; echo $$ > "$0"; exec sleep 1000' "$1/pid" &
        until [ -s "$1/pid" ]; do sleep 0.01; done; echo last
    """
    with execer.start(sh(script, str(tmp_path), tty=True)) as process:
        assert process.stdout.read().endswith(b"last\r\n")
        process.wait(SECONDS)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


# The files


def test_reading_in_every_manner(execer: Execer) -> None:
    with execer.start(sh("printf 'one\ntwo\nthree\n1234567890'; sleep 1000")) as process:
        file = process.stdout
        assert file.readable()
        assert not file.writable()
        assert file.peek(3)[:3] == b"one"
        assert file.read(4) == b"one\n"
        assert file.readline() == b"two\n"
        assert next(iter(file)) == b"three\n"
        buffer = bytearray(3)
        assert file.readinto(buffer) == 3
        assert buffer == b"123"
        assert file.read1(2) == b"45"
        assert file.read(0) == b""
        assert file.read1() == b"67890"


def test_lines(execer: Execer) -> None:
    with execer.start(Command("seq", ["1", "10000"])) as process:
        assert [int(line) for line in process.stdout] == list(range(1, 10_001))


def test_text(execer: Execer) -> None:
    with (
        execer.start(Command("cat", stdin=True)) as process,
        io.TextIOWrapper(process.stdout, encoding="utf-8") as out,
    ):
        with io.TextIOWrapper(process.stdin, encoding="utf-8") as stdin:
            print("käse", file=stdin, flush=True)
            assert out.readline() == "käse\n"
            print("日本", file=stdin, end="")
        assert list(out) == ["日本"]
        process.wait(SECONDS)


def test_copyfileobj(execer: Execer) -> None:
    data = os.urandom(300_000)
    with execer.start(Command("cat", stdin=True)) as process:

        def copy_in() -> None:
            with process.stdin:
                shutil.copyfileobj(io.BytesIO(data), process.stdin)

        with Task(copy_in) as writing:
            copy = io.BytesIO()
            shutil.copyfileobj(process.stdout, copy)
            writing.result()
        assert copy.getvalue() == data


def test_a_read_of_much_waits_for_all_of_it(execer: Execer) -> None:
    with (
        execer.start(Command("cat", stdin=True)) as process,
        Task(process.stdout.read, 6) as reading,
    ):
        sends(process, b"abc")
        sends(process, b"def")
        assert reading.result() == b"abcdef"


def test_the_end_comes_again_and_again(execer: Execer) -> None:
    with execer.start(Command("echo")) as process:
        assert [process.stdout.read() for _ in range(3)] == [b"\n", b"", b""]
        assert process.stdout.readline() == b""


def test_an_output_that_is_closed_holds_nothing_up(execer: Execer) -> None:
    with execer.start(sh("seq 1000000 2> /dev/null; echo done >&2")) as process:
        process.stdout.close()
        assert process.stderr.read() == b"done\n"
        process.wait(SECONDS)
        with pytest.raises(ValueError, match="closed"):
            process.stdout.read()
