"""Commands on this machine: what goes beyond the contract."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess

import pytest
from helpers import SECONDS, Task, blocked, sh
from local_commands import output, python

from wsep_sync import Command, LocalExecer, StartError

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
