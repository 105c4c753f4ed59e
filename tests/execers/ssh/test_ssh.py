"""What is particular to SSH; the contract suite has all that an SSH host does as any other."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import NOBODY, SECONDS, Task, ends_processes, eventually, gone, numbers, sh, state
from ssh_clients import output
from sshd import Host, sshd
from ways import failure

from wsep_sync import Command, ExitMissing, OutputUnread, StartError
from wsep_sync.execers.ssh import launch as ssh_launch

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


# What the host lets through


@pytest.mark.parametrize("tty", [False, True])
def test_what_a_login_shell_says_is_dropped(tty: bool) -> None:
    noise = 'echo noise; echo noise >&2; stty -a; eval "$SSH_ORIGINAL_COMMAND"'
    with (
        sshd(f"ForceCommand {noise}") as host,
        host.connect() as execer,
        execer.start(sh("echo out; echo err >&2; exit 3", tty=tty)) as process,
    ):
        both = (process.stdout.read(), process.stderr.read())
        assert both == ((b"out\r\nerr\r\n", b"") if tty else (b"out\n", b"err\n"))
        assert failure(process).exit_code == 3


@pytest.mark.parametrize("tty", [False, True])
def test_a_host_that_runs_a_command_of_its_own(tty: bool) -> None:
    with (
        sshd("ForceCommand echo This account is not available; exit 1") as host,
        host.connect() as execer,
        pytest.raises(StartError, match="did not start it: This account is not available"),
    ):
        execer.start(Command("true", tty=tty))


@pytest.mark.parametrize("tty", [False, True])
def test_a_host_that_does_not_answer(tty: bool) -> None:
    with (
        sshd("ForceCommand exec sleep 1000") as host,
        host.connect() as execer,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Not while it connects, which may take a machine that stalls longer than that.
        patch.setattr(execer._connections[0], "_timeout", 0.3)
        with pytest.raises(StartError, match="no answer from ssh://127"):
            execer.start(Command("true", tty=tty))


def test_a_command_that_was_given_up_never_runs(tmp_path: Path) -> None:
    gate, pid, seen = (tmp_path / name for name in ("gate", "pid", "seen"))
    os.mkfifo(gate)
    config = f"""ForceCommand case $SSH_ORIGINAL_COMMAND in
        *wsep_groups*) ;; *) echo $$ > {pid}; read x < {gate};; esac; eval "$SSH_ORIGINAL_COMMAND"
    """
    config = " ".join(config.split())
    with (
        sshd(config) as host,
        host.connect() as execer,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(execer._connections[0], "_timeout", 0.3)
        with pytest.raises(StartError, match="no answer"):
            execer.start(sh('echo > "$1"', str(seen)))
        gate.write_text("go\n")
        gone(int(pid.read_text()))
    assert not seen.exists()


def test_a_login_shell_that_talks_without_end() -> None:
    with (
        sshd("ForceCommand exec yes") as host,
        host.connect() as execer,
        pytest.raises(StartError, match="too much"),
    ):
        execer.start(Command("true"))


def test_a_host_that_gives_no_terminals() -> None:
    with sshd("PermitTTY no") as host, host.connect() as execer:
        with pytest.raises(StartError, match="refused"):
            execer.start(Command("true", tty=True))
        assert output(execer, Command("echo", ["well"])) == b"well\n"


@pytest.mark.parametrize("fields", [{"uid": NOBODY}, {"gid": NOBODY}])
def test_uid_and_gid_are_refused(host: Host, fields: dict[str, int]) -> None:
    with host.connect() as execer, pytest.raises(StartError, match="uid and gid cannot be set"):
        execer.start(Command("true", **fields))


EVERY_BYTE = os.fsdecode(bytes(range(1, 256)))


@pytest.mark.parametrize("tty", [False, True])
def test_every_byte_in_arguments_and_environment(host: Host, tty: bool) -> None:
    script = 'stty raw 2> /dev/null; printf "[%s]" "$@" "$WSEP_A"'
    with host.connect() as execer:
        out = output(execer, sh(script, EVERY_BYTE, env=[f"WSEP_A={EVERY_BYTE}"], tty=tty))
    assert out == 2 * b"[%b]" % (os.fsencode(EVERY_BYTE), os.fsencode(EVERY_BYTE))


def test_environment_with_names_that_shells_have_their_own_mind_about(host: Host) -> None:
    entries = [
        f"{name}=a value"
        for name in (
            *("_", "A-B", "a.b", "ä", "BASH_ENV", "ENV", "EUID", "GROUPS", "HOME", "IFS", "LC_ALL"),
            *("LINENO", "OLDPWD", "OPTIND", "PPID", "PS1", "PS4", "PWD", "RANDOM", "SECONDS"),
            *("SHELLOPTS", "SHLVL", "TERM", "UID", "wsep_mark"),
        )
    ]
    show = "import os; print(ascii(sorted(f'{n}={v}' for n, v in os.environ.items())))"
    with host.connect() as execer:
        out = output(execer, Command(sys.executable, ["-c", show], env=[*entries, "LC_ALL=C"]))
    got = eval(out)
    assert set(entries) - {"LC_ALL=a value"} | {"LC_ALL=C"} <= set(got)


def test_environment_is_no_argument_that_other_users_can_read(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    config = f'ForceCommand echo "$SSH_ORIGINAL_COMMAND" >> {file}; eval "$SSH_ORIGINAL_COMMAND"'
    with sshd(config) as host, host.connect() as execer:
        for tty in (False, True):
            command = sh('echo "$WSEP_A"; tr "\\0" "\\n" < /proc/$$/cmdline', tty=tty)
            command = replace(command, env=("WSEP_A=secret",))
            assert output(execer, command).split()[0] == b"secret"
            assert b"exec env" not in ssh_launch.request(command, "mark")
    assert file.read_text().count("exec sh -c") == 3  # the keeper is one
    assert "secret" not in file.read_text()


@pytest.mark.parametrize("name", ["a=b", "-x"])
def test_programs_with_odd_names(host: Host, tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text('#!/bin/sh\necho "found $1 $WSEP_A"\n')
    program.chmod(0o755)
    env = [f"PATH={tmp_path}:/usr/bin:/bin", "WSEP_A=a"]
    with host.connect() as execer:
        assert output(execer, Command(name, ["--x"], env=env)) == b"found --x a\n"
        relative = Command(f"./{name}", ["--x"], env=env, working_dir=str(tmp_path))
        assert output(execer, relative) == b"found --x a\n"


def test_a_program_and_a_variable_that_cannot_be_told_apart(host: Host) -> None:
    with host.connect() as execer, pytest.raises(StartError, match="A-B"):
        execer.start(Command("a=b", env=["A-B=c"]))


@pytest.mark.parametrize("directory", ["-", "wsep x", "../wsep"])
def test_relative_working_directories(host: Host, tmp_path: Path, directory: str) -> None:
    # Relative to where a login begins, whatever CDPATH says.
    with host.connect() as execer:
        start = Path(output(execer, Command("pwd")).decode().rstrip())
    inside = f"{os.path.relpath(tmp_path, start)}/a/{directory}"
    os.makedirs(tmp_path / "a" / directory)
    with sshd(f"SetEnv CDPATH={tmp_path}") as host, host.connect() as execer:
        out = output(execer, Command("/bin/pwd", ["-P"], working_dir=inside)).decode().rstrip()
    assert out == str((tmp_path / "a" / directory).resolve())


def test_an_empty_program(host: Host, tmp_path: Path) -> None:
    (tmp_path / "program").touch(0o755)
    with host.connect() as execer, pytest.raises(OSError, match="Exec format error"):
        execer.start(Command(str(tmp_path / "program")))


# Signals, and how commands end


def test_end_by_a_signal_that_ssh_has_no_name_for(host: Host) -> None:
    command = Command("bash", ["-c", "kill -BUS $$"])
    with host.connect() as execer, execer.start(command) as process:
        error = failure(process)
    assert (error.exit_code, error.signal) == (-1, None)
    assert str(error) == "signal: one that SSH has no name for"


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGBUS, signal.SIGWINCH, 40])
def test_signals_that_ssh_has_no_name_for_can_be_sent(host: Host, number: int) -> None:
    script = f"""
        trap 'echo got; exit 5' {number - 128 * (number == signal.SIGSTOP)} 2> /dev/null
        echo ready
        while :; do sleep 0.01; done
    """
    with host.connect() as execer, execer.start(Command("bash", ["-c", script])) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        if number == signal.SIGSTOP:
            eventually(lambda: state(process.pid) == "T", "the stop")
            process.kill()
            assert failure(process).signal == signal.SIGKILL
        else:
            assert process.stdout.read() == b"got\n"
            assert failure(process).exit_code == 5


def test_a_job_in_the_background_holds_the_output_but_not_the_status(host: Host) -> None:
    with host.connect() as execer:
        fifo = host.directory / "fifo"
        os.mkfifo(fifo)
        script = '(read x < "$1"; echo late "$x") & echo early; exit 3'
        with execer.start(sh(script, str(fifo))) as process:
            assert failure(process).exit_code == 3
            assert process.stdout.readline() == b"early\n"
            fifo.write_text("enough\n")
            assert process.stdout.read() == b"late enough\n"


def test_an_output_that_nobody_reads(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.execers.ssh.process._UNREAD_AFTER", 0.1)
    with (
        host.connect() as execer,
        execer.start(Command("yes")) as process,
        pytest.raises(OutputUnread),
    ):
        process.wait(SECONDS)


def test_without_the_keeper_there_are_no_signals(host: Host) -> None:
    with host.connect() as execer, execer.start(sh("echo $PPID; exec sleep 1000")) as process:
        (session,) = numbers(process.stdout, 1)
        with ends_processes(process.pid):
            children = Path(f"/proc/{session}/task/{session}/children").read_text()
            (keeper,) = {int(child) for child in children.split()} - {process.pid}
            os.kill(keeper, signal.SIGKILL)

            def unsupported() -> bool:
                try:
                    process.send_signal(signal.SIGCONT)
                except io.UnsupportedOperation:
                    return True
                return False

            eventually(unsupported, "the end of the keeper")
            # Another connection has another.
            with execer.start(Command("sleep", ["1000"])) as other:
                other.send_signal(signal.SIGTERM)
                assert failure(other).signal == signal.SIGTERM
            process.close()
            with pytest.raises(ExitMissing):
                process.wait()


# Input


def test_the_input_has_a_descriptor(host: Host) -> None:
    data = os.urandom(1_000_000)
    with host.connect() as execer, execer.start(Command("cat", stdin=True)) as process:
        with Task(process.stdout.read) as reading:
            subprocess.run(["cat"], input=data, stdout=process.stdin.fileno(), check=True)
            process.stdin.write(b"and more")
            process.stdin.close()
            assert reading.result() == data + b"and more"
        process.wait(SECONDS)


def test_the_descriptor_of_an_input_breaks_when_the_command_has_ended(host: Host) -> None:
    with host.connect() as execer, execer.start(Command("true", stdin=True)) as process:
        descriptor = process.stdin.fileno()
        process.wait(SECONDS)

        def broken() -> bool:
            try:
                os.write(descriptor, b"text")
            except BrokenPipeError:
                return True
            return False

        eventually(broken, "the end of the pipe")
    with host.connect() as execer, execer.start(Command("true", stdin=True)) as process:
        process.wait(SECONDS)
        descriptor = process.stdin.fileno()
        eventually(broken, "the end of the pipe")


@pytest.mark.parametrize(
    ("setting", "typed"),
    [("^D", b"\x04"), ("^X", b"\x18"), ("^?", b"\x7f"), ("q", b"q"), ("0xe4", b"\xe4")],
)
def test_the_end_of_a_terminal_s_input(host: Host, setting: str, typed: bytes) -> None:
    script = 'stty raw -echo eof "$1"; echo ready; head -c 1 | od -An -tx1'
    with host.connect() as execer, execer.start(sh(script, setting, tty=True)) as process:
        assert process.stdout.readline() == b"ready\n"
        process.stdin.close()
        assert process.stdout.read().split() == [typed.hex().encode()]


def test_a_terminal_whose_input_has_no_end(host: Host) -> None:
    script = "stty -echo eof undef; echo ready; read x; echo got $x"
    with host.connect() as execer, execer.start(sh(script, tty=True)) as process:
        assert process.stdout.readline() == b"ready\r\n"
        process.stdin.raw.send_eof()
        process.stdin.write(b"text\n")
        process.stdin.flush()
        assert process.stdout.read() == b"got text\r\n"
