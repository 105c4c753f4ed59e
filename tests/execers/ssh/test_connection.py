"""SSH: one connection for many commands, and connections that are lost."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers import SECONDS, Task, blocked, ends_processes, eventually, gone, numbers, sh
from ssh_clients import output
from sshd import Host, sshd
from ways import failure

from wsep_sync import Command, ExitMissing, StartError, TransportClosed

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


# One connection, many commands


def test_commands_share_a_connection(host: Host) -> None:
    with host.connect() as execer:
        processes = [execer.start(Command("cat", stdin=True)) for _ in range(5)]
        assert len(host.connections()) == 1
        for process in processes:
            process.stdin.close()
            process.wait(SECONDS)
            process.close()
        assert output(execer, Command("echo", ["more"])) == b"more\n"
        assert len(host.connections()) == 1


def test_a_host_that_limits_the_sessions_of_a_connection() -> None:
    # One of the three is the keeper's.
    with sshd(max_sessions=3) as host, host.connect() as execer:
        with contextlib.ExitStack() as cleanup:
            processes = [
                cleanup.enter_context(execer.start(Command("cat", stdin=True))) for _ in range(5)
            ]
            assert len(host.connections()) == 3
            for process in processes:
                process.send_signal(signal.SIGUSR1)
                assert failure(process).signal == signal.SIGUSR1
        # Those that are not needed any more are closed.
        eventually(lambda: len(host.connections()) == 1, "the end of the other connections")
        assert output(execer, Command("echo", ["more"])) == b"more\n"


def test_a_host_that_allows_one_session() -> None:
    with (
        sshd(max_sessions=1) as host,
        host.connect() as execer,
        pytest.raises(StartError, match="MaxSessions"),
    ):
        execer.start(Command("true"))


def test_a_closed_execer_leaves_its_commands_alone(host: Host) -> None:
    execer = host.connect()
    process = execer.start(sh("cat; kill -9 $$", stdin=True))
    execer.close()
    execer.close()
    with pytest.raises(StartError, match="closed"):
        execer.start(Command("true"))
    with process:
        process.send_signal(0)
        process.stdin.write(b"alive")
        process.stdin.close()
        assert process.stdout.read() == b"alive"
        assert failure(process).signal == signal.SIGKILL
    eventually(lambda: not host.connections(), "the end of the connection")


def test_a_lost_connection(host: Host) -> None:
    with host.connect() as execer:
        process = execer.start(sh("echo $$; exec sleep 1000", stdin=True))
        other = execer.start(Command("sleep", ["1000"]))
        with process, other, ends_processes(process.pid, other.pid):
            assert numbers(process.stdout, 1) == [process.pid]
            with Task(process.stdout.read) as reading, Task(other.wait) as waiting:
                blocked(reading)
                blocked(waiting)
                host.lose_connections()
                for task in (reading, waiting):
                    with pytest.raises(ExitMissing):
                        task.result()
            with pytest.raises(ExitMissing):
                process.wait(SECONDS)
            process.send_signal(signal.SIGTERM)
            process.resize(1, 1)
            with pytest.raises(BrokenPipeError):
                process.stdin.raw.write(b"text")
            # On the host, what keeps watch has noticed, too.
            gone(process.pid, other.pid)
        # And another is made.
        assert output(execer, Command("echo", ["again"])) == b"again\n"


def test_a_lost_connection_while_nobody_reads(host: Host) -> None:
    with host.connect() as execer, execer.start(Command("yes")) as process:
        eventually(lambda: process.stdout.peek(1), "the flood")
        with ends_processes(process.pid):
            host.lose_connections()
            with pytest.raises(ExitMissing):
                process.wait(SECONDS)
            gone(process.pid)


def test_commands_that_ignore_the_end_of_the_connection_are_killed(host: Host) -> None:
    script = "trap '' HUP TERM; sh -c 'echo $$; while :; do sleep 0.1; done' & echo $$; wait; wait"
    with host.connect() as execer, execer.start(sh(script)) as process:
        pids = numbers(process.stdout, 2)
        with ends_processes(*pids):
            host.lose_connections()
            gone(*pids)


def test_a_connection_that_is_lost_while_a_command_starts() -> None:
    with (
        sshd("ForceCommand exec sleep 1000") as host,
        host.connect() as execer,
        Task(execer.start, Command("true")) as starting,
    ):
        # The keeper's is one.
        eventually(lambda: len(host.running("sleep")) == 2, "the command that never says anything")
        host.lose_connections()
        with pytest.raises(TransportClosed):
            starting.result()


def test_a_script_that_forgot_its_commands_can_end(host: Host) -> None:
    script = """if True:
        import sys
        from wsep_sync import Command, SSHExecer
        port, key, known_hosts = sys.argv[1:]
        execer = SSHExecer("127.0.0.1", int(port), None, key, known_hosts, 30.0)
        print(execer.start(Command("sleep", ["1000"])).pid)
    """
    files = [str(host.key), str(host.known_hosts)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(host.port), *files],
        stdout=subprocess.PIPE,
        check=True,
        timeout=SECONDS,
    )
    with ends_processes(int(done.stdout)):
        gone(int(done.stdout))


def test_what_has_ended_can_be_dropped(host: Host) -> None:
    with host.connect() as execer:
        output(execer, Command("true"))
        gc.collect()
        before = (len(os.listdir("/proc/self/fd")), threading.active_count())
        for _ in range(5):
            process = execer.start(sh("echo; exit 3", stdin=True))
            assert failure(process).exit_code == 3
            del process

        def dropped() -> bool:
            gc.collect()
            return (len(os.listdir("/proc/self/fd")), threading.active_count()) <= before

        eventually(dropped, "the end of threads and descriptors")
