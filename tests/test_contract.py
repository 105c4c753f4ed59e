"""What holds of every execer: one suite over a local one and over every way to a remote one.

To put another under the contract, add a context manager that yields it to `EXECERS`. Its commands
have to run on this machine, as this user: the tests look at their processes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certificates import certificates
from helpers import (
    NOBODY,
    SECONDS,
    MemoryExecer,
    Task,
    alive,
    blocked,
    eventually,
    gone,
    listening,
    numbers,
    read_past,
    sh,
    state,
)
from sshd import sshd
from wsgi_servers import Programs

from wsep_sync import (
    Command,
    Execer,
    ExitError,
    LocalExecer,
    Process,
    RemoteExecer,
    StartError,
    connect,
)
from wsep_sync.process import CLOSE_GRACE

# Runs until the signal in its first argument comes; then says so, and exits with 5. A shell acts
# on a signal while it waits for a job, not while it runs a command.
TRAP = """
    trap 'kill -9 $! 2> /dev/null; echo got; exit 5' $1
    sleep 1000 & echo ready
    while :; do wait; done
"""


@contextlib.contextmanager
def over_a_socket() -> Iterator[Execer]:
    with listening() as listener, connect(listener.url) as execer:
        yield execer


@contextlib.contextmanager
def over_tls() -> Iterator[Execer]:
    contexts = certificates()
    with (
        listening(ssl_context=contexts.server) as listener,
        connect(listener.url, ssl_context=contexts.client) as execer,
    ):
        yield execer


@contextlib.contextmanager
def over_two_hops() -> Iterator[Execer]:
    with (
        listening() as back,
        listening(lambda: connect(back.url)) as front,
        connect(front.url) as execer,
    ):
        yield execer


@contextlib.contextmanager
def over_ssh() -> Iterator[Execer]:
    with sshd() as host, host.connect() as execer:
        yield execer


# Servers that run as they would anywhere, each in a process of its own for all tests.
PROGRAMS = Programs()


def over(name: str) -> Callable[[], RemoteExecer]:
    return lambda: connect(PROGRAMS.url(name), timeout=SECONDS)


EXECERS: dict[str, Callable[[], AbstractContextManager[Execer]]] = {
    "local": LocalExecer,
    "memory": MemoryExecer,
    "socket": over_a_socket,
    "tls": over_tls,
    "chain": over_two_hops,
    "ssh": over_ssh,
    **{name: over(name) for name in PROGRAMS.names},
}

# What has parts that have to be installed, and take their time to start.
LONG = {"ssh", *PROGRAMS.names}


def params(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in names]


@pytest.fixture(scope="session")
def programs() -> Iterator[None]:
    yield
    PROGRAMS.close()


# Of the session, so that a program is started before the test it is started for takes stock of
# processes and descriptors, and is not taken for something that the test has left.
@pytest.fixture(scope="session", params=params(EXECERS))
def way(request: pytest.FixtureRequest, programs: None) -> str:
    PROGRAMS.start(request.param)
    return str(request.param)


@pytest.fixture
def execer(way: str, record_property: Callable[[str, object], None]) -> Iterator[Execer]:
    record_property("execer", way)  # for contract_table.py
    with EXECERS[way]() as execer:
        yield execer


def not_over(*names: str) -> pytest.MarkDecorator:
    """For a test that cannot hold over some execers; the test says why."""
    others = [name for name in EXECERS if name not in names]
    return pytest.mark.parametrize("way", params(others), indirect=True, scope="session")


def run(execer: Execer, command: Command, data: bytes = b"") -> tuple[bytes, bytes]:
    """Run a command to a good end; return its two outputs."""
    with execer.start(command) as process, Task(process.stderr.read) as stderr:
        if command.stdin:
            writing = Task(feed, process, data)
        out = process.stdout.read()
        if command.stdin:
            writing.result()
        process.wait(SECONDS)
        return out, stderr.result()


def feed(process: Process, data: bytes) -> None:
    process.stdin.write(data)
    process.stdin.close()


def failure(process: Process) -> ExitError:
    """Wait for a command that does not end well, and say how it ended."""
    with pytest.raises(ExitError) as caught:
        process.wait(SECONDS)
    return caught.value


def sends(process: Process, text: bytes) -> None:
    process.stdin.write(text)
    process.stdin.flush()


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


# Arguments, environment, directory, user


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("a b", "  ", ""), id="spaces"),
        pytest.param(("käse", "日本", "🐍"), id="unicode"),
        pytest.param(("a\nb", "\t", "\x1b[0m"), id="control characters"),
        pytest.param(("$HOME", "*", "'\"`\\", "-n", "--"), id="what a shell would touch"),
        pytest.param((os.fsdecode(b"\xff\xfe/\xe9"),), id="not utf-8"),
    ],
)
@pytest.mark.parametrize("tty", [False, True])
def test_arguments(execer: Execer, arguments: tuple[str, ...], tty: bool) -> None:
    script = 'stty raw 2> /dev/null; printf "[%s]" "$@"'
    with execer.start(sh(script, *arguments, tty=tty)) as process:
        assert process.stdout.read() == b"".join(b"[%b]" % os.fsencode(a) for a in arguments)
        process.wait(SECONDS)


def test_env_is_added(execer: Execer) -> None:
    command = sh('echo "$WSEP_A"; echo "${PATH:+path}"', env=["WSEP_A=a"])
    assert run(execer, command)[0] == b"a\npath\n"


def test_env_wins_over_what_the_server_has_and_the_last_of_a_name_wins(execer: Execer) -> None:
    command = sh('echo "$HOME $WSEP_A"', env=["WSEP_A=1", "HOME=/nowhere", "WSEP_A=2"])
    assert run(execer, command)[0] == b"/nowhere 2\n"


def test_env_values_of_any_kind(execer: Execer) -> None:
    values = {
        "WSEP_A": "",
        "WSEP_B": "a=b=c",
        "WSEP_C": " two words\nand a line",
        "WSEP_D": os.fsdecode(b"\xff\xc3\xa4"),
    }
    command = sh(
        'printf "[%s]" "${WSEP_A-unset}" "$WSEP_B" "$WSEP_C" "$WSEP_D"',
        env=[f"{name}={value}" for name, value in values.items()],
    )
    assert run(execer, command)[0] == b"".join(b"[%b]" % os.fsencode(v) for v in values.values())


@pytest.mark.parametrize("tty", [False, True])
def test_the_command_is_looked_up_in_its_own_path(
    execer: Execer, tmp_path: Path, tty: bool
) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    command = Command("only-here", env=[f"PATH={tmp_path}:/usr/bin:/bin"], tty=tty)
    assert run(execer, command)[0].rstrip() == b"found"


@pytest.mark.parametrize("tty", [False, True])
def test_working_dir(execer: Execer, tmp_path: Path, tty: bool) -> None:
    directory = tmp_path / "ä b"
    directory.mkdir()
    out, _ = run(execer, Command("pwd", working_dir=str(directory), tty=tty))
    assert out.decode().rstrip() == str(directory)


@pytest.mark.parametrize("tty", [False, True])
def test_a_relative_command_is_relative_to_the_working_dir(
    execer: Execer, tmp_path: Path, tty: bool
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    out, _ = run(execer, Command("./program", working_dir=str(tmp_path), tty=tty))
    assert out.rstrip() == b"found"


# Over SSH, who logs in is who runs the command.
@not_over("ssh")
@pytest.mark.parametrize("tty", [False, True])
def test_uid_and_gid(execer: Execer, tty: bool) -> None:
    command = sh("id -u; id -g; id -G", uid=NOBODY, gid=NOBODY, tty=tty)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            execer.start(command)
        return
    # No supplementary group is kept.
    assert run(execer, command)[0].split() == [str(NOBODY).encode()] * 3


# Starts that fail


@pytest.fixture(params=["pipes", "terminal"])
def tty(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "terminal")


def refused(execer: Execer, command: Command) -> StartError:
    with pytest.raises(StartError) as caught:
        execer.start(command)
    # The execer is none the worse for it.
    assert run(execer, Command("echo", ["well"]))[0] == b"well\n"
    return caught.value


@pytest.mark.parametrize("name", ["wsep-no-such-command", "/no/such/command"])
def test_missing_command(execer: Execer, name: str, tty: bool) -> None:
    error = refused(execer, Command(name, tty=tty))
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (errno.ENOENT, name)


def test_empty_command(execer: Execer, tty: bool) -> None:
    error = refused(execer, Command("", tty=tty))
    assert "no command" in str(error)
    assert not isinstance(error, OSError)


def test_command_without_the_permission_to_execute(
    execer: Execer, tmp_path: Path, tty: bool
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    error = refused(execer, Command(str(program), tty=tty))
    assert isinstance(error, PermissionError)
    assert (error.errno, error.filename) == (errno.EACCES, str(program))


def test_directory_as_command(execer: Execer, tmp_path: Path, tty: bool) -> None:
    error = refused(execer, Command(str(tmp_path), tty=tty))
    assert isinstance(error, PermissionError)


def test_file_that_is_no_program(execer: Execer, tmp_path: Path, tty: bool) -> None:
    program = tmp_path / "program"
    program.write_text("neither a binary nor a script\n")
    program.chmod(0o755)
    error = refused(execer, Command(str(program), tty=tty))
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOEXEC


def test_script_whose_interpreter_is_missing(execer: Execer, tmp_path: Path, tty: bool) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    assert isinstance(refused(execer, Command(str(program), tty=tty)), FileNotFoundError)


def test_missing_working_dir(execer: Execer, tmp_path: Path, tty: bool) -> None:
    missing = str(tmp_path / "missing")
    error = refused(execer, Command("true", working_dir=missing, tty=tty))
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (errno.ENOENT, missing)


def test_working_dir_that_is_a_file(execer: Execer, tmp_path: Path, tty: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    error = refused(execer, Command("true", working_dir=str(file), tty=tty))
    assert isinstance(error, NotADirectoryError)
    assert (error.errno, error.filename) == (errno.ENOTDIR, str(file))


def test_arguments_that_are_too_long(execer: Execer, tty: bool) -> None:
    # More than Linux takes as one argument, and more than fits one message.
    error = refused(execer, Command("true", ["x" * 200_000], tty=tty))
    assert isinstance(error, OSError)
    assert error.errno == errno.E2BIG


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
        assert process.stderr.read() == b""
        # What had come can still be read; all that is lost is what the command had not written.
        assert set(process.stdout.read()) == set(b"y\n")


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


# Waiting


def test_wait_with_a_timeout(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                process.wait(seconds)
        process.stdin.close()
        process.wait(SECONDS)


def test_wait_again(execer: Execer) -> None:
    with execer.start(sh("exit 3")) as process:
        assert [failure(process).exit_code for _ in range(3)] == [3, 3, 3]
    assert failure(process).exit_code == 3


def test_wait_in_two_threads(execer: Execer) -> None:
    with (
        execer.start(sh("read x; exit 3", stdin=True)) as process,
        Task(failure, process) as one,
        Task(failure, process) as other,
    ):
        blocked(one)
        blocked(other)
        process.stdin.close()
        assert one.result().exit_code == other.result().exit_code == 3


def test_ctrl_c_ends_the_wait_and_not_the_command(execer: Execer) -> None:
    main = threading.main_thread()
    assert threading.current_thread() is main

    def interrupt() -> None:
        blocked(main)
        signal.pthread_kill(main.ident, signal.SIGINT)

    with execer.start(sh("read x; echo $x; exit 3", stdin=True)) as process:
        with Task(interrupt), pytest.raises(KeyboardInterrupt):
            process.wait()
        with pytest.raises(TimeoutError):
            process.wait(0)
        sends(process, b"alive\n")
        assert process.stdout.read() == b"alive\n"
        assert failure(process).exit_code == 3


# Signals, close and kill


@pytest.mark.parametrize("name", ["HUP", "INT", "USR1", "TERM"])
def test_send_signal(execer: Execer, name: str) -> None:
    with execer.start(sh(TRAP, name)) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.read() == b"got\n"
        assert failure(process).exit_code == 5


def test_a_signal_reaches_the_whole_group(execer: Execer) -> None:
    with execer.start(sh("sleep 1000 & echo $!; wait")) as process:
        (child,) = numbers(process.stdout, 1)
        process.send_signal(signal.SIGTERM)
        assert failure(process).signal == signal.SIGTERM
        gone(child)


@pytest.mark.parametrize("number", [-1, 65, 1000])
def test_no_such_signal(execer: Execer, number: int) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        with pytest.raises(ValueError, match="signal"):
            process.send_signal(number)
        process.stdin.close()
        process.wait(SECONDS)


def test_signal_0_does_nothing(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        process.send_signal(0)
        sends(process, b"alive\n")
        assert process.stdout.readline() == b"alive\n"
        process.stdin.close()
        process.wait(SECONDS)


def test_a_signal_after_the_end_does_nothing(execer: Execer) -> None:
    with execer.start(Command("true")) as process:
        process.wait(SECONDS)
        process.send_signal(signal.SIGTERM)
        process.kill()
        process.wait(SECONDS)


def test_close_is_sigterm(execer: Execer, tmp_path: Path) -> None:
    script = """
        trap 'kill -9 $! 2> /dev/null; echo terminated > "$1"; exit 7' TERM
        sleep 1000 & echo ready
        while :; do wait; done
    """
    process = execer.start(sh(script, str(tmp_path / "seen")))
    assert process.stdout.readline() == b"ready\n"
    process.close()
    assert (tmp_path / "seen").read_text() == "terminated\n"
    assert failure(process).exit_code == 7


def test_close_ends_all_of_the_group(execer: Execer) -> None:
    process = execer.start(sh("sleep 1000 & echo $!; sleep 1000 & echo $!; wait"))
    children = numbers(process.stdout, 2)
    process.close()
    gone(process.pid, *children)
    assert failure(process).signal == signal.SIGTERM


def test_close_is_sigkill_when_sigterm_is_ignored(execer: Execer) -> None:
    process = execer.start(sh("trap '' TERM; echo $$; sleep 1000"))
    numbers(process.stdout, 1)
    before = time.monotonic()
    process.close()
    took = time.monotonic() - before
    assert CLOSE_GRACE * 0.99 < took < CLOSE_GRACE + 5
    assert failure(process).signal == signal.SIGKILL


def test_close_again_and_all_else_after_it(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    for _ in range(3):
        process.close()
    process.kill()
    process.send_signal(signal.SIGTERM)
    process.resize(10, 10)
    process.close()
    assert failure(process).signal == signal.SIGTERM


def test_close_of_a_command_that_floods_unread_outputs(execer: Execer) -> None:
    # It waits for a line: a flood of errors that nobody reads may hold up what stdout says.
    process = execer.start(sh("echo ready; read line; yes >&2 & exec yes", stdin=True))
    process.stdout.readline()
    process.stdin.write(b"go\n")
    process.stdin.flush()
    eventually(lambda: state(process.pid) == "S", "a full pipe")
    process.close()
    assert failure(process).signal == signal.SIGTERM


def test_close_after_the_end(execer: Execer) -> None:
    process = execer.start(Command("true"))
    process.wait(SECONDS)
    process.close()
    process.wait(SECONDS)


def test_close_in_several_threads(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    closing = [Task(process.close) for _ in range(4)]
    for task in closing:
        task.result()
    assert failure(process).signal == signal.SIGTERM


def test_kill(execer: Execer) -> None:
    with execer.start(sh("trap '' TERM; echo ready; sleep 1000")) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        error = failure(process)
        assert (error.exit_code, error.signal, str(error)) == (-1, 9, "signal: killed")
        assert process.stdout.read() == b""


def test_the_end_of_the_with_block_ends_the_command(execer: Execer) -> None:
    with execer.start(Command("sleep", ["1000"])) as process:
        assert alive(process.pid)
    gone(process.pid)
    assert failure(process).signal == signal.SIGTERM


def test_close_wakes_who_reads(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    with Task(process.stdout.read) as out, Task(process.stderr.readline) as err:
        blocked(out)
        blocked(err)
        process.close()
        assert (out.result(), err.result()) == (b"", b"")


def test_close_wakes_who_writes(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"], stdin=True))
    with Task(process.stdin.write, bytes(10_000_000)) as writing:
        blocked(writing)
        process.close()
        # A server that has seen the command end drops the rest of its input, in no time.
        with contextlib.suppress(BrokenPipeError):
            writing.result()
    assert failure(process).signal == signal.SIGTERM


def test_close_wakes_who_waits(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    with Task(failure, process) as waiting:
        blocked(waiting)
        process.close()
        assert waiting.result().signal == signal.SIGTERM


# Terminals


def terminal(execer: Execer, script: str, *args: str, **fields: object) -> Process:
    return execer.start(sh(script, *args, tty=True, **fields))


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


# Much


@pytest.fixture(scope="module")
def fifty_megabytes() -> tuple[str, str]:
    """A script that writes 50 MB of numbers, and the digest of them."""
    script = "seq 8000000 | head -c 50000000"
    out = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout
    assert len(out) == 50_000_000
    return script, hashlib.sha256(out).hexdigest()


def digest(file: io.BufferedReader) -> str:
    sha = hashlib.sha256()
    while piece := file.read1():
        sha.update(piece)
    return sha.hexdigest()


def test_much_output(execer: Execer, fifty_megabytes: tuple[str, str]) -> None:
    script, expected = fifty_megabytes
    with execer.start(sh(script)) as process:
        assert digest(process.stdout) == expected
        process.wait(SECONDS)


def test_both_outputs_at_full_speed(execer: Execer, fifty_megabytes: tuple[str, str]) -> None:
    script, expected = fifty_megabytes
    with execer.start(sh(f"({script} >&2) & {script}; wait")) as process:
        with Task(digest, process.stderr) as stderr:
            assert digest(process.stdout) == expected
            assert stderr.result() == expected
        process.wait(SECONDS)


def test_many_commands_at_once(execer: Execer) -> None:
    with contextlib.ExitStack() as stack:

        def start(number: int) -> Process:
            command = sh("cat; exit $1", str(number), stdin=True)
            return stack.enter_context(execer.start(command))

        def use(process: Process, number: int) -> None:
            data = os.urandom(100_000 + number)
            with Task(feed, process, data):
                assert process.stdout.read() == data
            assert failure(process).exit_code == number

        starting = [Task(start, number) for number in range(1, 21)]
        processes = [task.result() for task in starting]
        using = [Task(use, process, number) for number, process in enumerate(processes, 1)]
        for task in using:
            task.result()


def test_commands_do_not_wait_for_each_other(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as first:
        with execer.start(sh("yes")) as flood:  # nobody reads it
            eventually(lambda: flood.stdout.peek(1), "the flood")
            assert run(execer, Command("echo", ["third"]))[0] == b"third\n"
        sends(first, b"well\n")
        assert first.stdout.readline() == b"well\n"
