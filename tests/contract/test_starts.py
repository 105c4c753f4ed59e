"""The contract: arguments, environment, directory, user, and starts that fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from helpers import NOBODY, SECONDS, sh
from ways import not_over, run

from wsep_sync import Command, Execer, StartError

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


def test_it_says_which_it_is(execer: Execer) -> None:
    with execer.start(sh("exit 0")) as process:
        assert f"Process: pid {process.pid}" in repr(process)


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
