"""Commands on this machine that run as other users."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from helpers import NOBODY, SECONDS, Task
from local_commands import output

from wsep_sync import Command, LocalExecer, StartError


@pytest.fixture
def closed(place: Path) -> Path:
    """A directory for root alone, with things in it that would be open to everybody."""
    closed = place / "closed"
    (closed / "public").mkdir(parents=True)
    (closed / "public" / "file").write_text("secret")
    script(closed / "program")
    closed.chmod(0o700)
    return closed


def script(path: Path, text: str = "#!/bin/sh\necho ran\n") -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def as_nobody(name: str, *args: str, **fields: object) -> Command:
    return Command(name, args, uid=NOBODY, gid=NOBODY, **fields)


def refusal(command: Command) -> StartError:
    with pytest.raises(StartError) as caught:
        LocalExecer().start(command)
    return caught.value


def test_a_user_does_not_get_into_what_only_root_may_enter(closed: Path, tty: bool) -> None:
    directory = str(closed / "public")
    command = Command("cat", ["file"], working_dir=directory, tty=tty)
    assert output(LocalExecer(), command) == "secret"
    error = refusal(as_nobody("cat", "file", working_dir=directory, tty=tty))
    assert isinstance(error, PermissionError)
    assert error.filename == directory


@pytest.mark.parametrize("ids", [{"uid": NOBODY}, {"gid": NOBODY}, {"uid": NOBODY, "gid": NOBODY}])
def test_a_directory_is_entered_with_the_users_rights(
    place: Path, ids: dict[str, int], tty: bool
) -> None:
    directory = place / "group"
    directory.mkdir()
    os.chown(directory, 0, NOBODY)
    directory.chmod(0o050)
    command = Command("pwd", working_dir=str(directory), tty=tty, **ids)
    if "gid" in ids:
        assert output(LocalExecer(), command).strip() == str(directory)
    else:
        # The group is root's still; all other groups are given up.
        assert isinstance(refusal(command), PermissionError)


def test_a_user_does_not_learn_what_only_root_may_see(closed: Path, tty: bool) -> None:
    for there, missing in [
        (closed / "public", closed / "missing"),
        (closed / "public" / "file", closed / "public" / "missing"),
        (closed / "program", closed / "missing"),
    ]:
        for fields in (
            lambda path: {"working_dir": path},
            lambda path: {"name": path},
            lambda path: {"env": [f"PATH={path}"]},
        ):
            errors = []
            for path in (there, missing):
                command = as_nobody(**{"name": "program", **fields(str(path))}, tty=tty)
                error = refusal(command)
                assert isinstance(error, PermissionError)
                errors.append(str(error).replace(str(path), "PATH"))
            assert errors[0] == errors[1]


def test_a_users_script_does_not_tell_what_only_root_may_see(
    place: Path, closed: Path, tty: bool
) -> None:
    for interpreter in (closed / "program", closed / "missing"):
        error = refusal(as_nobody(script(place / "script", f"#!{interpreter}\n"), tty=tty))
        assert isinstance(error, PermissionError)
        assert error.filename == str(place / "script")


def test_a_users_start_that_fails_is_told_as_it_is(place: Path, tty: bool) -> None:
    file = script(place / "file", "#!/no/such/interpreter\n")
    text = script(place / "text", "echo a shell would run it\n")
    script(place / "denied")
    (place / "denied").chmod(0o600)
    (place / "loop").symlink_to("loop")
    # With directories that only root may enter in the PATH, what is missing might be there.
    here = {"working_dir": str(place), "tty": tty, "env": ["PATH=/usr/bin:/bin"]}
    for name, number in [
        ("missing", errno.ENOENT),
        ("./missing", errno.ENOENT),
        (file, errno.ENOENT),
        (text, errno.ENOEXEC),
        (f"{file}/x", errno.ENOTDIR),
        ("./denied", errno.EACCES),
        ("./loop", errno.ELOOP),
    ]:
        error = refusal(as_nobody(name, **here))
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (number, name)
    for name, number in [
        ("missing", errno.ENOENT),
        ("file", errno.ENOTDIR),
        ("loop", errno.ELOOP),
        ("x" * 300, errno.ENAMETOOLONG),
    ]:
        error = refusal(as_nobody("true", **{**here, "working_dir": str(place / name)}))
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (number, str(place / name))


def test_a_users_program_is_searched_for_as_any_other(place: Path, tty: bool) -> None:
    (place / "one").mkdir()
    (place / "two").mkdir()
    script(place / "one" / "program")
    (place / "one" / "program").chmod(0o600)
    script(place / "two" / "program")
    fields = {"working_dir": str(place), "tty": tty}
    path = f"PATH=missing:{place}/one:two"
    assert output(LocalExecer(), as_nobody("program", env=[path], **fields)).strip() == "ran"
    assert output(LocalExecer(), as_nobody("two/program", **fields)).strip() == "ran"
    error = refusal(as_nobody("program", env=["PATH=one:missing"], **fields))
    assert isinstance(error, PermissionError)
    error = refusal(as_nobody("program", env=["PATH=missing"], **fields))
    assert isinstance(error, FileNotFoundError)


def test_a_user_may_open_what_its_output_is(tty: bool) -> None:
    files = "/dev/stdout /dev/stderr" + (" /dev/tty" if tty else "")
    with LocalExecer().start(
        as_nobody("sh", "-c", f"cat /dev/stdin; for f in {files}; do echo x > $f; done", stdin=True)
        if not tty
        else as_nobody("sh", "-c", f"for f in {files}; do echo x > $f; done", tty=True)
    ) as started:
        if not tty:
            started.stdin.write(b"in")
            started.stdin.close()
        assert started.stdout.read() == (b"x\r\n" * 3 if tty else b"inx\n")
        assert started.stderr.read() == (b"" if tty else b"x\n")
        started.wait(SECONDS)
    assert os.stat("/dev/null").st_uid == 0


def test_a_users_command_leads_a_session(tty: bool) -> None:
    stat = "cut -d ' ' -f 5-6 /proc/$$/stat; cut -d ' ' -f 8 /proc/$$/stat"
    with LocalExecer().start(as_nobody("sh", "-c", stat, tty=tty)) as started:
        group, session, foreground = map(int, started.stdout.read().split())
        assert group == session == started.pid
        assert foreground == (started.pid if tty else -1)
        started.wait(SECONDS)


def test_a_users_command_inherits_nothing_else(tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/no/such/directory")
    reader, writer = os.pipe()
    try:
        os.dup2(writer, 100, inheritable=True)
        out = output(LocalExecer(), as_nobody("ls", "/proc/self/fd", tty=tty))
        assert out.split() == ["0", "1", "2", "3"]
    finally:
        for descriptor in (reader, writer, 100):
            os.close(descriptor)
    status = output(LocalExecer(), as_nobody("cat", "/proc/self/status", tty=tty))
    fields = dict(line.split(":\t") for line in status.splitlines())
    assert fields["Uid"].split() == fields["Gid"].split() == [str(NOBODY)] * 4
    assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == 0
    assert int(fields["SigBlk"], 16) == 0
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        assert not int(fields["SigIgn"], 16) & 1 << number - 1
    names = ["a.b=c", "x-y=z", "1=2", "LONG=" + "x" * 100_000, "LONG2=" + "x" * 100_000]
    lines = output(LocalExecer(), as_nobody("env", tty=tty, env=names)).splitlines()
    assert set(names) <= set(lines)


def test_a_users_arguments_are_passed_as_they_are(tty: bool) -> None:
    arguments = ["--", "-c", "", "a  b", "$0", "*", "\udcff\N{SNOWMAN}"]
    command = as_nobody("sh", "-c", 'for x; do echo "[$x]"; done', "sh", *arguments, tty=tty)
    with LocalExecer().start(command) as started:
        lines = started.stdout.read().splitlines()
        assert lines == [b"[%b]" % os.fsencode(argument) for argument in arguments]
        started.wait(SECONDS)


def test_many_users_commands_at_once(tty: bool) -> None:
    with contextlib.ExitStack() as stack:
        tasks = [
            stack.enter_context(Task(output, LocalExecer(), as_nobody("id", "-u", tty=tty)))
            for _ in range(20)
        ]
        assert {task.result().strip() for task in tasks} == {str(NOBODY)}


def test_a_user_who_cannot_be_taken_on(tty: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    error = refusal(Command("true", uid=0xFFFF_FFFF, tty=tty))  # -1 is no user, for the kernel
    assert isinstance(error, OSError)
    assert error.errno == errno.EINVAL
    del error  # with its traceback, which holds what was there
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/true", "", None])
def test_no_python_to_change_the_user(
    python: str | None, tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    error = refusal(as_nobody("true", tty=tty))
    assert "Python" in str(error)
    assert not isinstance(error, OSError)
