"""The command line: `serve`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest
from command_lines import STAYING, STUBBORN
from helpers import SECONDS, alive, ends_processes, eventually, gone, sh
from programs import WSEP_SYNC, environment, finish, has_one_line, run, running, server_process

from wsep_sync import Command, ExitError, ExitMissing, connect

# serve


def test_serve_can_be_connected_to_when_it_says_so() -> None:
    # Whatever else it printed would be left for the end, which server_process looks at.
    with (
        server_process() as (url, _),
        connect(url) as execer,
        execer.start(Command("echo", ["served"])) as process,
    ):
        assert process.stdout.read() == b"served\n"


def test_serve_on_a_port_that_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with running("serve", "--port", str(port)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == f"listening on ws://127.0.0.1:{port}\n".encode()
        server.send_signal(signal.SIGTERM)
        assert finish(server) == (0, b"", b"")


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT"])
def test_what_serve_ignores_its_commands_do_not(name: str) -> None:
    # As nohup starts it, or a script with "&".
    number = getattr(signal, f"SIG{name}")
    with subprocess.Popen(
        ["sh", "-c", f"trap '' {name}; exec \"$@\"", "sh", *WSEP_SYNC, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().decode().split()[-1]
            server.send_signal(number)
            with connect(url) as execer, execer.start(sh(f"kill -{name} $$; echo on")) as process:
                with pytest.raises(ExitError) as ended:
                    process.wait(SECONDS)
                assert ended.value.signal == number
            assert server.poll() is None
        finally:
            server.terminate()
        assert server.wait(SECONDS) == 0


@pytest.mark.parametrize("subcommand", ["serve", "notty"])
def test_children_whose_end_was_to_be_ignored(subcommand: str) -> None:
    # As some supervisors start what they run: the kernel would forget how children ended.
    ignoring = [
        sys.executable,
        "-c",
        (
            "import os, signal, sys\n"
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"  # some shells do not ignore it
            "os.execv(sys.argv[1], sys.argv[1:])"
        ),
        *WSEP_SYNC,
    ]
    script = "grep SigIgn /proc/$$/status; exit 3"
    command = ["notty", "--", "sh", "-c", script]
    if subcommand == "notty":  # with a server inside
        done = subprocess.run(
            [*ignoring, *command], stdout=subprocess.PIPE, timeout=SECONDS, env=environment()
        )
        assert done.returncode == 3
        assert not int(done.stdout.split()[-1], 16) & 1 << signal.SIGCHLD - 1
        return
    with subprocess.Popen(
        [*ignoring, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().decode().split()[-1]
            with connect(url) as execer:
                for tty in (False, True):
                    with execer.start(sh("exit 3", tty=tty)) as process:
                        assert process.stdout.read() == b""
                        with pytest.raises(ExitError) as ended:
                            process.wait(SECONDS)
                        assert ended.value.exit_code == 3
                with execer.start(sh("kill -TERM $$")) as process:
                    with pytest.raises(ExitError) as ended:
                        process.wait(SECONDS)
                    assert ended.value.signal == signal.SIGTERM
        finally:
            server.terminate()
            status = server.wait(SECONDS)
    assert status == 0


def test_serve_on_ipv6() -> None:
    with server_process(host="::1") as (url, _):
        assert url.startswith("ws://[::1]:")
        done = run("notty", "--url", url, "--", "echo", "six")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"six\n", b"")


def test_serve_on_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        done = run("serve", "--port", port)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "127.0.0.1", port, "Address already in use")


def test_serve_on_a_host_that_is_none() -> None:
    done = run("serve", "--port", "0", "--host", "nobody.invalid", "--insecure")
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "nobody.invalid")


def test_serve_when_its_line_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        done = run("serve", "--port", "0", stdout=full)
    assert done.returncode == 1
    has_one_line(done.stderr, "No space left on device")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_ends_with_what_runs(number: signal.Signals) -> None:
    with server_process("--grace", "0") as (url, server), connect(url) as execer:
        plain = execer.start(Command("sh", ["-c", STAYING]))
        session = execer.start(Command("sh", ["-c", STAYING], tty=True, id="s"))
        with plain, session, ends_processes(plain.pid, session.pid):
            assert int(plain.stdout.readline()) == plain.pid
            assert int(session.stdout.readline()) == session.pid
            server.send_signal(number)
            server.finish()
            assert not alive(plain.pid)
            assert not alive(session.pid)
            with pytest.raises(ExitMissing):
                plain.wait()


def test_serve_leaves_no_child_that_ignores_signals_even_when_hurried() -> None:
    with server_process() as (url, server), connect(url) as execer:
        plain = execer.start(Command("sh", ["-c", STUBBORN]))
        session = execer.start(Command("sh", ["-c", STUBBORN], tty=True, id="s"))
        pids = [int(p.stdout.readline()) for p in (plain, session) for _ in range(2)]
        with plain, session, ends_processes(*pids):
            server.send_signal(signal.SIGTERM)
            # It has begun to end when it takes nobody any more.
            eventually(lambda: not can_connect(url), "the end of listening")
            server.send_signal(signal.SIGTERM)
            server.send_signal(signal.SIGINT)
            server.finish()
            assert not any(map(alive, pids))


def can_connect(url: str) -> bool:
    host, _, port = url.removeprefix("ws://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except ConnectionError:
        return False
    return True


def test_serve_ends_sessions_after_the_timeout_it_was_given() -> None:
    with server_process("--session-timeout", "0.2") as (url, _), connect(url) as execer:
        with execer.start(Command("sh", ["-c", STAYING], tty=True, id="s")) as session:
            assert int(session.stdout.readline()) == session.pid
        gone(session.pid)
