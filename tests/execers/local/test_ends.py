"""How commands on this machine end: groups, sessions, and what is dropped."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import subprocess
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
    ends_processes,
    eventually,
    gone,
    listening,
    numbers,
    sh,
    state,
)
from local_commands import python

from wsep_sync import Command, ExitError, LocalExecer, process, run

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


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "tty"])
def test_a_start_that_is_interrupted_leaves_no_command(
    tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_pid: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wsep_sync.execers.local.process.ExitWatch", interrupted)
    with pytest.raises(ZeroDivisionError):
        LocalExecer().start(Command("sleep", ["1000"], tty=tty))
    # That no child is left is seen to after each test.
