"""Commands on this machine: what goes beyond the contract."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import (
    SECONDS,
    Task,
    alive,
    blocked,
    ends_processes,
    eventually,
    gone,
    numbers,
    sh,
    state,
)

from wsep_sync import Command, ExitError, LocalExecer, StartError, process


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
        before = time.monotonic()
        started.close()
        assert time.monotonic() - before < process.CLOSE_GRACE
        gone(*jobs)


# What is dropped


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
