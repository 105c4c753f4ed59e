"""The terminal of a local command, and the search for what it is to run."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import NOBODY, SECONDS, read_until, sh

from wsep_sync import Command, ExitError, LocalExecer, Process
from wsep_sync.execers.local.pty import LocalTerminal, find_program


@pytest.fixture
def terminal() -> Iterator[LocalTerminal]:
    terminal = LocalTerminal(30, 90, 0)
    yield terminal
    terminal.close_slave()
    terminal.close()


def test_size(terminal: LocalTerminal) -> None:
    assert os.get_terminal_size(terminal.slave) == (90, 30)
    terminal.resize(40, 100)
    assert os.get_terminal_size(terminal.slave) == (100, 40)


def test_nobody_is_in_the_foreground_of_a_new_terminal(terminal: LocalTerminal) -> None:
    assert terminal.foreground_group() is None


def test_end_of_file_is_ctrl_d_unless_set(terminal: LocalTerminal) -> None:
    assert terminal.end_of_file() == b"\x04"


def test_a_terminal_that_everybody_has_left(terminal: LocalTerminal) -> None:
    terminal.close_slave()
    terminal.resize(1, 1)
    assert terminal.foreground_group() is None
    assert terminal.end_of_file() == b"\x04"


def test_closed_again(terminal: LocalTerminal) -> None:
    for _ in range(2):
        terminal.close_slave()
        terminal.close()
    assert terminal.end_of_file() == b""


def test_dropped() -> None:
    before = set(os.listdir("/proc/self/fd"))
    LocalTerminal(1, 1, 0)
    assert set(os.listdir("/proc/self/fd")) == before


def test_another_user_owns_the_terminal_it_is_to_use() -> None:
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            LocalTerminal(1, 1, NOBODY)
        return
    terminal = LocalTerminal(1, 1, NOBODY)
    try:
        assert os.fstat(terminal.slave).st_uid == NOBODY
    finally:
        terminal.close_slave()
        terminal.close()


# Where there is no setsid(1), the shell makes the terminal the controlling one.


@pytest.fixture(params=["setsid", "shell"])
def spawner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    tools = ["sh", "sleep", "cat", "cut", "stty"]
    if request.param == "setsid":
        tools.append("setsid")
    # Not below tmp_path, which another user may not enter.
    with tempfile.TemporaryDirectory() as bin:
        os.chmod(bin, 0o755)
        for tool in tools:
            path = shutil.which(tool)
            assert path is not None
            os.symlink(path, os.path.join(bin, tool))
        monkeypatch.setenv("PATH", bin)
        yield request.param


def start(command: Command) -> Process:
    return LocalExecer().start(command)


def test_spawned_as_the_leader_of_a_session_on_the_terminal(spawner: str) -> None:
    script = "echo $$; cut -d ' ' -f 5-8 /proc/$$/stat; echo 'to the' terminal > /dev/tty"
    with start(sh(script, tty=True)) as process:
        pid, stat, text = process.stdout.read().split(b"\r\n", 2)
        group, session, device, foreground = stat.split()
        assert pid == group == session == foreground == b"%d" % process.pid
        assert int(device) != 0
        assert text == b"to the terminal\r\n"
        process.wait(SECONDS)


def test_spawned_with_arguments_and_size_as_they_are(spawner: str) -> None:
    arguments = ["--", "-c", "", "a  b", "$0", "*"]
    script = 'stty size; stty raw; for x; do echo "[$x]"; done; exit 3'
    with start(sh(script, *arguments, tty=True, rows=5, cols=7)) as process:
        size, *lines = process.stdout.read().splitlines()
        assert size == b"5 7"
        assert lines == [b"[%b]" % argument.encode() for argument in arguments]
        with pytest.raises(ExitError) as caught:
            process.wait(SECONDS)
        assert caught.value.exit_code == 3


def test_spawned_and_interrupted_by_what_is_typed(spawner: str) -> None:
    with start(sh("echo ready; exec sleep 1000", tty=True)) as process:
        read_until(process.stdout, b"ready\r\n")
        process.stdin.write(b"\x03")
        process.stdin.flush()
        with pytest.raises(ExitError) as caught:
            process.wait(SECONDS)
        assert caught.value.signal == signal.SIGINT


def test_spawned_for_another_user(spawner: str) -> None:
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            start(Command("cat", tty=True, uid=NOBODY, gid=NOBODY))
        return
    command = Command(
        "/bin/sh", ["-c", "echo x > /dev/tty; id -u"], tty=True, uid=NOBODY, env=["PATH=/usr/bin"]
    )
    with start(command) as process:
        assert process.stdout.read() == b"x\r\n%d\r\n" % NOBODY


# Finding the program


def executable(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def found(name: str, path: str = "/bin", working_dir: str = "") -> int:
    """The errno that the program's start would fail with; 0 if it is found."""
    try:
        find_program(name, {"PATH": path}, working_dir)
    except OSError as error:
        return error.errno or -1
    return 0


def test_found_in_the_path(tmp_path: Path) -> None:
    executable(tmp_path / "one" / "program")
    executable(tmp_path / "two" / "other")
    path = f"{tmp_path}/missing:{tmp_path}/one:{tmp_path}/two"
    assert found("program", path) == 0
    assert found("other", path) == 0
    assert found("neither", path) == errno.ENOENT


def test_the_path_goes_on_after_what_may_not_be_executed(tmp_path: Path) -> None:
    executable(tmp_path / "one" / "program", mode=0o644)
    assert found("program", f"{tmp_path}/one") == errno.EACCES
    executable(tmp_path / "two" / "program")
    assert found("program", f"{tmp_path}/one:{tmp_path}/two") == 0
    assert found("program", f"{tmp_path}/one:{tmp_path}") == errno.EACCES


def test_found_relative_to_the_working_directory(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "program")
    assert found("bin/program", working_dir=str(tmp_path)) == 0
    assert found("./bin/program", working_dir=str(tmp_path)) == 0
    assert found("program", "bin", str(tmp_path)) == 0
    assert found("bin/program", working_dir=str(tmp_path / "bin")) == errno.ENOENT


def test_a_directory_is_no_program(tmp_path: Path) -> None:
    assert found(str(tmp_path)) == errno.EACCES


def test_a_link_to_nothing_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    assert found(str(tmp_path / "link")) == errno.ENOENT


def test_a_binary_is_a_program() -> None:
    assert found("/bin/sh") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#!/bin/sh\n", 0),
        ("#! /bin/sh -e\n", 0),
        ("#!/no/such/interpreter\n", errno.ENOENT),
        ("#!/no/such/interpreter with arguments\n", errno.ENOENT),
        ("echo a shell would run it\n", errno.ENOEXEC),
    ],
)
def test_what_a_script_begins_with(tmp_path: Path, text: str, expected: int) -> None:
    assert found(str(executable(tmp_path / "script", text))) == expected
    # The kernel is of the same opinion.
    try:
        LocalExecer().start(Command(str(tmp_path / "script"))).wait(SECONDS)
        actual = 0
    except OSError as error:
        actual = error.errno or -1
    assert actual == expected


def test_the_size_of_another_terminal_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "50")
    monkeypatch.setenv("COLUMNS", "160")
    script = 'echo "<$LINES$COLUMNS>"; stty size'
    with LocalExecer().start(sh(script, tty=True, rows=24, cols=80)) as process:
        assert process.stdout.read() == b"<>\r\n24 80\r\n"
    with LocalExecer().start(sh(script, tty=True, env=["LINES=7"])) as process:
        assert process.stdout.readline() == b"<7>\r\n"


def test_the_end_of_file_of_a_terminal_that_was_closed() -> None:
    # Another thread may close it between any two steps.
    terminal = LocalTerminal(24, 80, 0)
    assert terminal.end_of_file() == b"\x04"
    terminal.close_slave()
    terminal.close()
    assert terminal.end_of_file() == b""
    reader, writer = os.pipe()
    try:
        terminal._master = reader  # as if the number were another file's by now
        assert terminal.end_of_file() == b""
    finally:
        terminal._master = -1
        os.close(reader)
        os.close(writer)


@pytest.mark.usefixtures("spawner")
def test_a_ctrl_c_that_is_typed_at_once() -> None:
    for _ in range(10):
        with LocalExecer().start(Command("cat", tty=True)) as process:
            process.stdin.write(b"\x03")
            process.stdin.flush()
            with pytest.raises(ExitError) as caught:
                process.wait(SECONDS)
            assert caught.value.signal == signal.SIGINT
