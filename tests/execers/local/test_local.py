"""Commands on this machine: what goes beyond the contract."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import (
    NOBODY,
    SECONDS,
    RawClient,
    Task,
    alive,
    blocked,
    ends_processes,
    eventually,
    gone,
    listening,
    numbers,
    sh,
    state,
)

from wsep_sync import Command, Execer, ExitError, LocalExecer, StartError, process, run


@pytest.fixture
def execer() -> LocalExecer:
    return LocalExecer()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_GRACE", 0.3)


@pytest.fixture(params=[False, True], ids=["pipes", "terminal"])
def tty(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def python(script: str, *options: str) -> str:
    """Run a script in a Python like this one, and return its output."""
    result = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def output(execer: Execer, command: Command) -> str:
    """Run a command to a good end and return its output."""
    with execer.start(command) as started:
        out = started.stdout.read()
        started.wait(SECONDS)
        return out.decode()


# Spawning


def test_a_thousand_spawns_from_many_threads() -> None:
    out = python(
        """
        import faulthandler, gc, logging, os, threading
        from concurrent.futures import ThreadPoolExecutor
        from wsep_sync import Command, ExitError, LocalExecer

        faulthandler.dump_traceback_later(55, exit=True)
        execer = LocalExecer()
        logging.basicConfig(stream=open(os.devnull, "w"))
        ended = threading.Event()

        def hold_locks():
            # What a forked child must not wait for: locks that other threads held.
            while not ended.wait(0.001):
                logging.warning("busy")
                [bytearray(100_000) for _ in range(10)]

        def spawn(number):
            tty = number % 2 == 0
            script = 'read line; echo "$line"; exit $1'
            command = Command("sh", ["-c", script, "sh", str(number % 3)], stdin=True, tty=tty)
            with execer.start(command) as process:
                process.stdin.write(b"%d\\n" % number)
                process.stdin.flush()
                assert process.stdout.read().split()[-1] == b"%d" % number
                try:
                    process.wait()
                    code = 0
                except ExitError as error:
                    code = error.exit_code
                assert code == number % 3
            for file in (process.stdin, process.stdout, process.stderr):
                file.close()

        spawn(0)
        before = set(os.listdir("/proc/self/fd"))
        busy = [threading.Thread(target=hold_locks) for _ in range(8)]
        for thread in busy:
            thread.start()
        with ThreadPoolExecutor(16) as pool:
            print(len(list(pool.map(spawn, range(1000)))))
        ended.set()
        for thread in busy:
            thread.join()
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == before
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
        """,
        "-W",
        "error",
    )
    assert out == "1000\nno child\n"


def test_descriptors_are_not_inherited(execer: LocalExecer, tty: bool) -> None:
    reader, writer = os.pipe()
    try:
        os.dup2(writer, 100, inheritable=True)
        with execer.start(Command("ls", ["/proc/self/fd"], tty=tty)) as started:
            # The last is of the directory that ls reads.
            assert started.stdout.read().split() == [b"0", b"1", b"2", b"3"]
    finally:
        for descriptor in (reader, writer, 100):
            os.close(descriptor)


def test_commands_do_not_inherit_each_others_input(execer: LocalExecer, tty: bool) -> None:
    # If one did, closing the other's input would not end it.
    with (
        execer.start(Command("cat", stdin=True)) as first,
        execer.start(Command("sleep", ["1000"], stdin=True, tty=tty)),
    ):
        first.stdin.close()
        first.wait(SECONDS)


def test_signals_are_as_at_the_start_of_a_program(execer: LocalExecer, tty: bool) -> None:
    # Python ignores SIGPIPE and SIGXFSZ, and a child would too.
    with execer.start(Command("cat", ["/proc/self/status"], tty=tty)) as started:
        fields = dict(line.split(b":\t") for line in started.stdout.read().splitlines())
    ignored = int(fields[b"SigIgn"], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored & 1 << number - 1
    assert int(fields[b"SigBlk"], 16) == 0


def test_environment_names_that_are_no_identifiers(execer: LocalExecer, tty: bool) -> None:
    command = Command("env", tty=tty, env=["a.b=c", "x-y=z", "1=2"])
    with execer.start(command) as started:
        lines = started.stdout.read().split()
        assert {b"a.b=c", b"x-y=z", b"1=2"} <= set(lines)


def test_a_change_of_environ_is_seen(execer: LocalExecer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSEP_TEST_ENV", "now")
    with execer.start(sh('echo "$WSEP_TEST_ENV"')) as started:
        assert started.stdout.read() == b"now\n"


def test_niceness() -> None:
    with LocalExecer(child_process_priority=7).start(sh("read x; nice", stdin=True)) as started:
        started.stdin.close()
        assert started.stdout.read() == b"7\n"
    with LocalExecer().start(Command("nice")) as started:
        assert int(started.stdout.read()) == os.getpriority(os.PRIO_PROCESS, 0)


def test_niceness_that_only_root_may_give(tty: bool) -> None:
    execer = LocalExecer(child_process_priority=-3)
    command = sh("read x; nice", stdin=True, tty=tty)
    if os.geteuid() != 0:
        with pytest.raises(StartError, match="priority"):
            execer.start(command)
        return
    with execer.start(command) as started:
        started.stdin.write(b"\n")
        started.stdin.flush()
        assert started.stdout.read().split()[-1] == b"-3"


@pytest.mark.parametrize("niceness", [-21, 20])
def test_no_such_niceness(niceness: int) -> None:
    with pytest.raises(ValueError, match=str(niceness)):
        LocalExecer(child_process_priority=niceness)


def test_a_failed_start_leaves_nothing(execer: LocalExecer, tty: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(StartError):
            execer.start(Command("/no/such/command", tty=tty, stdin=True))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_other_platforms() -> None:
    out = python(
        """
        import logging, socket, subprocess, sys, threading

        sys.platform = "win32"
        from wsep_sync import Command, LocalExecer, StartError

        try:
            LocalExecer().start(Command("true"))
        except StartError as error:
            print(error)
        """
    )
    assert "POSIX" in out


# The environment


def test_what_is_passed_on_of_the_environment(monkeypatch: pytest.MonkeyPatch, tty: bool) -> None:
    monkeypatch.setenv("WSEP_TEST_SECRET", "secret")
    monkeypatch.setenv("LC_TEST", "lc")
    monkeypatch.setenv("lc_test", "small")
    monkeypatch.setenv("TERM", "dumb")
    execer = LocalExecer(pass_env=["PATH", "LC_*"])
    lines = output(execer, Command("env", tty=tty, env=["OWN=x"])).splitlines()
    assert {"LC_TEST=lc", "OWN=x", f"PATH={os.environ['PATH']}"} <= set(lines)
    names = {line.partition("=")[0] for line in lines}
    assert {name for name in names if not name.startswith("LC_")} == {"PATH", "OWN"} | (
        {"TERM", "WSEP_TTY"} if tty else set()
    )
    assert not tty or "TERM=xterm-256color" in lines


def test_nothing_is_passed_on_of_the_environment() -> None:
    # Programs are found all the same, in /bin and /usr/bin.
    assert output(LocalExecer(pass_env=[]), Command("env")) == ""
    assert output(LocalExecer(pass_env=()), Command("env", env=["A=b"])) == "A=b\n"


def test_everything_is_passed_on_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSEP_TEST_ENV", "there")
    for execer in (LocalExecer(), LocalExecer(pass_env=None), LocalExecer(pass_env=["*"])):
        lines = output(execer, Command("env")).splitlines()
        assert {f"{name}={value}" for name, value in os.environ.items()} >= set(lines)
        assert "WSEP_TEST_ENV=there" in lines


@pytest.mark.parametrize("pass_env", [None, ["*"], ["WSEP_TOKEN"]])
def test_the_token_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, pass_env: list[str] | None, tty: bool
) -> None:
    monkeypatch.setenv("WSEP_TOKEN", "sesame")
    execer = LocalExecer(pass_env=pass_env)
    assert "sesame" not in output(execer, Command("/usr/bin/env", tty=tty))
    own = Command("/usr/bin/env", tty=tty, env=["WSEP_TOKEN=clients"])
    assert "WSEP_TOKEN=clients" in output(execer, own)


def test_one_string_is_no_collection_of_names() -> None:
    with pytest.raises(TypeError, match="PATH"):
        LocalExecer(pass_env="PATH")


# Other users


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, as pytest's own may not be."""
    assert os.geteuid() == 0, "these tests start commands as other users"
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


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


# Groups


@contextlib.contextmanager
def left_running(script: str, **fields: object) -> Iterator[tuple[object, int]]:
    """Start a script that says the pid of what it leaves, and has ended."""
    started = LocalExecer().start(sh(script, **fields))
    (child,) = numbers(started.stdout, 1)
    eventually(lambda: state(started.pid) == "Z", "the end of the shell")
    with ends_processes(child):
        yield started, child
    for file in (started.stdout, started.stderr):
        file.close()


def test_close_ends_what_a_command_left_in_its_group() -> None:
    with left_running("sleep 1000 & echo $!") as (started, child):
        started.close()
        gone(child)
        started.wait(SECONDS)


def test_close_kills_what_ignores_sigterm_after_its_leader(short_grace: None) -> None:
    with left_running("trap '' TERM; sleep 1000 & echo $!") as (started, child):
        before = time.monotonic()
        started.close()
        assert time.monotonic() - before >= process.CLOSE_GRACE
        gone(child)
        started.wait(SECONDS)


def test_a_signal_reaches_what_a_command_left_in_its_group() -> None:
    with left_running("sleep 1000 & echo $!") as (started, child):
        started.send_signal(signal.SIGTERM)
        gone(child)
        started.wait(SECONDS)
        started.close()


def test_close_leaves_alone_what_runs_on_after_the_end_was_seen() -> None:
    # As a shell's "&", or a program that becomes a daemon, means it.
    with left_running("sleep 1000 & echo $!") as (started, child):
        started.wait(SECONDS)
        started.close()
        started.send_signal(signal.SIGTERM)
        started.kill()
        assert alive(child)


# Each in a process group of its own; the second ignores all that can be, the third begins others.
JOBS = """
    set -m
    sleep 1000 & echo job $!
    (trap '' HUP TERM INT; while :; do sleep 1000; done) & echo job $!
    (while :; do sleep 0.01; done) & echo job $!
    setsid sh -c 'echo daemon $$; exec sleep 1000' &
    while :; do wait; done
"""


@pytest.mark.parametrize("how", ["close", "hang_up", "kill", "with SIGKILL first"])
def test_the_whole_session_is_ended(
    execer: LocalExecer, tty: bool, how: str, short_grace: None
) -> None:
    started = execer.start(Command("bash", ["-c", JOBS], tty=tty))
    lines = sorted(started.stdout.readline().split() for _ in range(4))
    daemon, *jobs = (int(line[1]) for line in lines)
    with ends_processes(*jobs, daemon):
        assert {os.getsid(job) for job in jobs} == {started.pid}
        assert len({os.getpgid(job) for job in [*jobs, started.pid]}) == 4
        # What has made a session of its own is a daemon, and nobody's to end.
        assert os.getsid(daemon) == daemon
        if how == "kill":
            started.kill()
        elif how == "hang_up":
            started.hang_up()
        else:
            if how != "close":
                started.send_signal(signal.SIGKILL)
            started.close()
        gone(started.pid, *jobs)
        eventually(lambda: not sessions(started.pid), "the end of all")
        assert alive(daemon)
        started.close()


def sessions(session: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == session:
                found += [int(entry.name)] if alive(int(entry.name)) else []
    return found


def test_a_session_that_ends_by_itself_leaves_its_jobs(execer: LocalExecer) -> None:
    script = "set -m; sleep 1000 >/dev/null 2>&1 & echo $!"
    with execer.start(Command("bash", ["-c", script])) as started:
        job = int(started.stdout.readline())
        with ends_processes(job):
            started.wait(SECONDS)
            started.close()
            assert alive(job)
            started.kill()
            assert alive(job)


def test_a_job_ends_with_its_connection() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.start(Command("bash", ["-c", "set -m; sleep 1000 & echo $!; wait"]))
        job = int(client.receive()[1])
        with ends_processes(job):
            client.reset()
            gone(job)


def test_close_does_not_wait_for_orphans_that_have_ended() -> None:
    # Process 1 reaps them when it comes to it: in many a container late, or never. Here, orphans
    # become ours (PR_SET_CHILD_SUBREAPER), and we do not reap them.
    out = python(
        """
        import ctypes, os
        from wsep_sync import Command, LocalExecer, process

        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
        process.CLOSE_GRACE = 1000
        started = LocalExecer().start(Command("sh", ["-c", "sleep 1000 & echo $!; wait"]))
        child = int(started.stdout.readline())
        started.close()
        with open(f"/proc/{child}/stat") as file:
            print(file.read().split()[2])
        os.waitpid(child, 0)
        """
    )
    assert out == "Z\n"


def test_close_ends_a_command_that_is_stopped(
    execer: LocalExecer, tty: bool, short_grace: None
) -> None:
    started = execer.start(Command("sleep", ["1000"], tty=tty))
    eventually(lambda: Path(f"/proc/{started.pid}/comm").read_text() == "sleep\n", "its start")
    started.send_signal(signal.SIGSTOP)
    eventually(lambda: state(started.pid) in ("T", "t"), "the stop")
    started.close()
    with pytest.raises(ExitError) as caught:
        started.wait(0)
    assert caught.value.signal in (signal.SIGHUP, signal.SIGTERM, signal.SIGKILL)


def test_close_ends_a_terminal_at_once(execer: LocalExecer) -> None:
    # Before setsid(1) has made its group, or the command has set anything up.
    for _ in range(20):
        started = execer.start(Command("sleep", ["1000"], tty=True))
        started.close()
        with pytest.raises(ExitError):
            started.wait(0)


def test_close_ends_an_interactive_shell_and_its_jobs(execer: LocalExecer) -> None:
    # bash ignores SIGTERM when it is interactive, and puts each job into a group of its own.
    command = Command("bash", ["--norc", "--noprofile", "-i"], tty=True, env=["PS1=<prompt>"])
    started = execer.start(command)
    started.stdin.write(b"sleep 1001 & sleep 1002 & jobs -p; echo the ''end\n")
    started.stdin.flush()
    jobs = []
    for line in started.stdout:
        if line.strip().isdigit():
            jobs.append(int(line))
        if line == b"the end\r\n":
            break
    assert len(jobs) == 2
    with ends_processes(*jobs):
        # Before that, a job is a bash too, which forgets the signal when it becomes the program.
        eventually(
            lambda: {Path(f"/proc/{job}/comm").read_text() for job in jobs} == {"sleep\n"},
            "both jobs",
        )
        before = time.monotonic()
        started.close()
        assert time.monotonic() - before < process.CLOSE_GRACE
        gone(*jobs)


def test_a_terminal_that_slept_through_its_hangup_gets_another(execer: LocalExecer) -> None:
    script = """
        trap '' TERM
        trap 'if [ "$slept" ]; then exit 7; fi; slept=1' HUP
        echo ready
        while :; do sleep 0.05; done
    """
    codes = []
    # On a machine that stalls, both may come as one.
    while 7 not in codes and len(codes) < 5:
        started = execer.start(sh(script, tty=True))
        assert started.stdout.readline() == b"ready\r\n"
        started.close()
        with pytest.raises(ExitError) as caught:
            started.wait(0)
        codes.append(caught.value.exit_code)
    assert codes[-1] == 7


# What is dropped


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_a_terminal_ends_with_its_command(execer: LocalExecer, uid: int) -> None:
    # And not with what still holds it, whose output it would not take any more.
    script = "stty -echo; setsid sh -c 'echo $$; exec sleep 1000' & read go; seq 20000; printf last"
    if uid and os.geteuid():
        uid = 0
    with execer.start(sh(script, tty=True, uid=uid, gid=uid)) as started:
        holder = int(started.stdout.readline())
        with ends_processes(holder):
            started.stdin.write(b"go\n")
            started.stdin.flush()
            with Task(started.stdout.read) as reading:
                out = reading.result()
            assert out.endswith(b"20000\r\nlast")
            assert len(out) == sum(len(f"{n}\r\n") for n in range(1, 20001)) + 4
            assert started.stdout.read() == b""
            started.wait(SECONDS)
            assert alive(holder)


@pytest.mark.parametrize("stdout", ["nothing", "file"])
def test_nothing_is_waited_for_that_nobody_asked_for(
    execer: LocalExecer, tty: bool, stdout: str, tmp_path: Path
) -> None:
    script = "trap '' HUP; sleep 1000 & echo $! > pid; kill -0 $!"
    with (tmp_path / "out").open("w") as file:
        options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        if stdout == "file":
            options["stdout"] = file.fileno()
        command = functools.partial(run, script, shell=True, cwd=tmp_path, execer=execer, tty=tty)
        with Task(lambda: command(**options)) as running:
            assert running.result().returncode == 0
    with ends_processes(int((tmp_path / "pid").read_text())):
        pass


def test_a_status_that_the_kernel_has_thrown_away_is_unknown() -> None:
    # Where SIGCHLD is ignored, there are no zombies, and waitpid(2) finds no child.
    out = python(
        """
        import os, signal, threading
        from wsep_sync import Command, ExitError, LocalExecer, Server, run, connect, spawn
        from wsep_sync.listener import Listener
        from wsep_sync.wsgi import application

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for fields in ({}, {"tty": True}, {"gid": os.getegid()} if os.geteuid() == 0 else {}):
            command = Command("sh", ["-c", "echo out; exit 3"], **fields)
            with LocalExecer().start(command) as process:
                print(process.stdout.read().strip().decode())
                for _ in range(2):
                    try:
                        process.wait(30)
                    except ExitError as error:
                        print(error.exit_code, error.signal, error)
                process.kill()
        with LocalExecer().start(Command("sleep", ["1000"])) as process:
            pass  # which ends it
        print(run(["echo", "ran"], timeout=30).returncode)
        with Listener(application(Server(), LocalExecer())) as listener:
            thread = threading.Thread(target=listener.serve_forever)
            thread.start()
            for options in ({}, {"tty": True}, {"tty": True, "id": "a"}):
                print(run(["true"], timeout=30, url=listener.url, **options).returncode)
            listener.shutdown()
            thread.join()
        """,
        *("-u", "-W", "error"),
    )
    unknown = "-1 None exit status unknown: somebody else has reaped it, or SIGCHLD is ignored\n"
    assert out == ("out\n" + 2 * unknown) * 3 + "ran\n-1\n" + 3 * "-1\n"


def test_a_status_that_somebody_else_has_taken_is_unknown(execer: LocalExecer, tty: bool) -> None:
    with execer.start(Command("true", tty=tty)) as started:
        os.waitpid(started.pid, 0)
        with pytest.raises(ExitError, match="unknown") as caught:
            started.wait(SECONDS)
        assert (caught.value.exit_code, caught.value.signal) == (-1, None)
        started.kill()


def test_a_process_that_is_dropped_warns_and_leaves_no_zombie(
    execer: LocalExecer, tty: bool
) -> None:
    started = execer.start(Command("sleep", ["1000"], stdin=True, tty=tty))
    pid = started.pid
    warns = pytest.warns(ResourceWarning, match=f"{pid} is still running")
    with ends_processes(pid), warns:
        del started  # at once, not when the garbage collector comes by: there are no cycles
    # As with subprocess, the next start reaps it.

    def reaped() -> bool:
        with execer.start(Command("true")) as other:
            other.wait(SECONDS)
        return state(pid) == ""

    eventually(reaped, "the end of the zombie")


def test_a_process_that_was_waited_for_can_be_dropped(execer: LocalExecer, tty: bool) -> None:
    execer.start(Command("true", tty=tty)).wait(SECONDS)
    gc.collect()  # warnings are errors


def test_the_destructor_of_a_process_with_unsent_input(execer: LocalExecer) -> None:
    with execer.start(Command("true", stdin=True)) as started:
        started.wait(SECONDS)
        started.stdin.write(b"never sent")
    del started
    gc.collect()


# Files that are descriptors


def test_an_output_as_another_programs_input(execer: LocalExecer) -> None:
    with execer.start(Command("seq", ["100000"])) as started:
        count = subprocess.run(
            ["wc", "-l"], stdin=started.stdout, stdout=subprocess.PIPE, check=True
        )
        assert int(count.stdout) == 100_000


def test_select(execer: LocalExecer, tty: bool) -> None:
    with execer.start(sh("read x; echo", stdin=True, tty=tty)) as started:
        assert select.select([started.stdout], [started.stdin], [], 0)[:2] == ([], [started.stdin])
        started.stdin.write(b"\n")
        started.stdin.flush()
        assert select.select([started.stdout], [], [], SECONDS)[0] == [started.stdout]


def test_close_wakes_who_uses_the_descriptor(execer: LocalExecer) -> None:
    started = execer.start(Command("sleep", ["1000"]))
    with Task(os.read, started.stdout.fileno(), 1) as reading:
        blocked(reading)
        started.close()  # the command's end is the end of the pipe
        assert reading.result() == b""
