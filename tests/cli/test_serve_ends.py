"""The command line: how `serve` ends, systemd, pings, a Unix socket, and its log."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
from helpers import SECONDS, ends_processes, eventually, gone, sh, start_message
from programs import (
    WSEP_SYNC,
    ServerProcess,
    environment,
    finish,
    has_one_line,
    run,
    running,
    server_process,
)

from wsep_sync import Command, ConnectError, ExitMissing, connect

# The end


@contextlib.contextmanager
def stopping(*options: str) -> Iterator[tuple[str, ServerProcess]]:
    with server_process("--grace", "60", *options) as (url, server):
        yield url, server


def test_running_commands_may_finish() -> None:
    with stopping() as (url, server), connect(url) as execer:
        script = "echo ready; read line; echo got $line; exit 3"
        with execer.start(sh(script, stdin=True)) as process:
            assert process.stdout.readline() == b"ready\n"
            server.send_signal(signal.SIGTERM)
            refused(url)
            process.stdin.write(b"on\n")
            process.stdin.flush()
            assert process.stdout.read() == b"got on\n"
            with pytest.raises(Exception, match="3"):
                process.wait(SECONDS)
        assert "exit=3" in server.finish()


def test_terminals_without_a_client_may_finish() -> None:
    with stopping() as (url, server), connect(url) as execer:
        with execer.start(sh("echo ready; read line; exit 3", tty=True, id="s")) as process:
            assert process.stdout.readline() == b"ready\r\n"
            with connect(url, session_id="s") as waiting:
                process.close()
                server.send_signal(signal.SIGTERM)
                refused(url)
                # Over a connection that was there before.
                with waiting.start(Command("true", tty=True, id="s")) as again:
                    again.stdin.write(b"on\n")
                    again.stdin.flush()
                    with pytest.raises(Exception, match="3"):
                        again.wait(SECONDS)
        server.finish()


def test_those_that_do_not_finish_are_told() -> None:
    with server_process("--grace", "0.2") as (url, server), connect(url) as execer:
        with (
            execer.start(sh("echo $$; exec sleep 1000")) as process,
            ends_processes(process.pid),
        ):
            process.stdout.readline()
            server.send_signal(signal.SIGTERM)
            with pytest.raises(ExitMissing) as caught:
                process.wait(SECONDS)
            assert "the server is ending" in str(caught.value)
            gone(process.pid)
        server.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_is_at_once(number: signal.Signals) -> None:
    with stopping() as (url, server), connect(url) as execer:
        with (
            execer.start(sh("echo $$; exec sleep 1000")) as process,
            ends_processes(process.pid),
        ):
            process.stdout.readline()
            server.send_signal(signal.SIGTERM)
            refused(url)
            server.send_signal(number)
            with pytest.raises(ExitMissing):
                process.wait(SECONDS)
        server.finish()


def test_an_idle_server_ends_at_once() -> None:
    with stopping() as (_, server):
        server.send_signal(signal.SIGTERM)
        server.finish()


def refused(url: str) -> None:
    """Wait until nobody listens there any more."""

    def closed() -> bool:
        try:
            connect(url).close()
        except ConnectError:
            return True
        return False

    eventually(closed, "the end of listening")


# systemd


def test_readiness_and_the_socket_of_systemd(tmp_path: Path) -> None:
    states: list[bytes] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(SECONDS)
        port = listening.getsockname()[1]
        # As systemd does it: LISTEN_PID is the process that execs.
        script = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        with subprocess.Popen(
            ["bash", "-c", script, str(listening.fileno()), *WSEP_SYNC, "serve", "--port", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(NOTIFY_SOCKET=str(tmp_path / "notify")),
            pass_fds=[listening.fileno()],
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line == f"listening on ws://127.0.0.1:{port}\n".encode()
                states.append(notified.recv(100))
                with (
                    connect(f"ws://127.0.0.1:{port}") as execer,
                    execer.start(sh("env | grep -c -e LISTEN_ -e NOTIFY_")) as command,
                ):
                    assert command.stdout.read() == b"0\n"
                process.send_signal(signal.SIGTERM)
                states.append(notified.recv(100))
                process.communicate(timeout=SECONDS)
                assert process.returncode == 0
            finally:
                process.kill()
    assert states == [b"READY=1", b"STOPPING=1"]


# Pings


def test_pings_as_often_as_a_proxy_wants_them() -> None:
    with (
        server_process("--ping-interval", "1") as (url, _),
        contextlib.closing(
            websocket.create_connection(url, timeout=15, suppress_origin=True)
        ) as ws,
    ):
        ws.send_binary(start_message(Command("cat", stdin=True)))
        opcode = None
        while opcode != websocket.ABNF.OPCODE_PING:  # long before 25 seconds
            opcode, _ = ws.recv_data(control_frame=True)


# A Unix socket


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    token = tmp_path / "token"
    token.write_text("s3cret")
    token.chmod(0o600)
    arguments = ["serve", "--host", f"unix:{path}", "--token-file", str(token)]
    for _ in range(2):  # the second time, the first one's file is there, as after a crash
        with running(*arguments) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == f"listening on ws+unix:{path}\n".encode()
            assert path.stat().st_mode & 0o002 == 0
            for url in (f"ws+unix:{path}", f"ws+unix://{path}", f"ws+unix://{path}:/any/path"):
                with connect(url, token="s3cret") as execer, execer.start(sh("echo in")) as process:
                    assert process.stdout.read() == b"in\n"
            done = run("notty", "--url", url, "--token-file", str(token), "echo", "in")
            assert (done.returncode, done.stdout, done.stderr) == (0, b"in\n", b"")
            done = run("sessions", "--url", f"ws+unix:{path}", "--token-file", str(token))
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            done = run(*arguments)  # one that is in use stays
            assert (done.returncode, done.stdout) == (1, b"")
            has_one_line(done.stderr, f"cannot listen on unix:{path}: Address already in use")
            server.kill()
            server.wait()
        assert path.is_socket()
    with running(*arguments) as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        assert finish(server)[0] == 0
        assert not path.exists()
    done = run("notty", "--url", f"ws+unix:{path}", "--token-file", str(token), "true")
    assert done.returncode == 255
    has_one_line(done.stderr, f"ws+unix:{path}: No such file or directory")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    done = run("serve", "--host", f"unix:{path}")
    assert done.returncode == 1
    has_one_line(done.stderr, "Address already in use")
    assert path.read_text() == "mine"


# Logs


@pytest.mark.parametrize(("level", "events"), [("info", {"start", "exit"}), ("warning", set())])
def test_how_much_is_logged(level: str, events: set[str]) -> None:
    options = ["--log-format", "json", "--log-level", level]
    with server_process(*options) as (url, server):
        assert run("notty", "--url", url, "true").returncode == 0
        server.send_signal(signal.SIGTERM)
        logged = server.finish()
    assert {json.loads(line)["event"] for line in logged.splitlines()} == events


def test_a_log_of_json() -> None:
    with server_process("--log-format", "json", "--log-arguments") as (url, server):
        with connect(url) as execer, execer.start(sh("exit 3", "argument")) as process:
            process.stdout.read()
        eventually(lambda: server.log().count("\n") >= 2, "the log")
        entries = [json.loads(line) for line in server.log().splitlines()]
    assert [entry["event"] for entry in entries] == ["start", "exit"]
    assert entries[0]["args"][-1] == "argument"
    assert entries[1]["exit"] == 3
