"""SSH through the rest of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import NOBODY, SECONDS, alive, eventually, gone, listening, numbers, sh
from programs import environment, has_one_line
from programs import run as run_program
from session_clients import hub
from sshd import Host
from ways import failure

import wsep_sync
from wsep_sync import (
    Command,
    ExitMissing,
    SSHExecer,
    StartError,
    TransportClosed,
    connect,
    run,
    spawn,
)
from wsep_sync.execers.dial import dial

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


def run_cli(subcommand: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return run_program(subcommand, "--timeout", f"{SECONDS}", *arguments, **options)


# Through the rest of the package


def test_a_server_that_passes_commands_on(host: Host) -> None:
    with listening(lambda: host.connect()) as listener, connect(listener.url) as execer:
        with execer.start(sh("cat; echo err >&2; exit 3", stdin=True)) as process:
            process.stdin.write(b"text")
            process.stdin.close()
            assert (process.stdout.read(), process.stderr.read()) == (b"text", b"err\n")
            assert failure(process).exit_code == 3
        with pytest.raises(FileNotFoundError):
            execer.start(Command("wsep-no-such-command"))
        with pytest.raises(StartError, match="uid and gid"):
            execer.start(Command("true", uid=NOBODY))
        process = execer.start(sh("echo $$; exec sleep 1000"))
        numbers(process.stdout, 1)
        assert alive(process.pid)
        process.close()
        gone(process.pid)
    eventually(lambda: not host.connections(), "the end of the connections")


def test_a_server_whose_host_cannot_be_reached(host: Host, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    with (
        listening(lambda: host.connect(known_hosts=str(tmp_path / "none"))) as listener,
        connect(listener.url) as execer,
        pytest.raises(StartError, match="not in known_hosts"),
    ):
        execer.start(Command("true"))


def test_sessions(host: Host) -> None:
    with host.connect() as execer, hub(execer) as sessions:
        one = sessions.attach("work", rows=30, cols=90)
        one.run(b"x='still here'; echo one$((1 + 1))", b"one2")
        one.run(b"stty size", b"30 90")
        one.leave()
        sessions.left()
        two = sessions.attach("work", rows=31, cols=91)
        assert two.process.reattached
        two.until(b"one2")
        two.run(b'echo "$x" | tr a-z A-Z', b"STILL HERE")
        two.run(b"stty size", b"31 91")
        two.type(b"exit 7\r")
        assert two.exit_code() == 7


def test_a_session_on_a_connection_that_is_lost(host: Host) -> None:
    with host.connect() as execer, hub(execer) as sessions:
        client = sessions.attach("work")
        client.run(b"echo one$((1 + 1))", b"one2")
        host.lose_connections()
        client.ended()
        with pytest.raises((ExitMissing, TransportClosed)):
            client.process.wait(SECONDS)
        again = sessions.attach("work")
        assert not again.process.reattached
        again.run(b"echo two$((1 + 1))", b"two2")


def test_what_takes_a_url_takes_that_of_a_host(
    host: Host, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dial.__kwdefaults__, "timeout", SECONDS)
    with dial(host.url) as execer:
        assert isinstance(execer, SSHExecer)
    done = run(["tr", "a-z", "A-Z"], input="text", capture_output=True, text=True, url=host.url)
    assert (done.returncode, done.stdout) == (0, "TEXT")
    with spawn("sh -c 'echo hello; read x; echo got $x'", url=host.url) as program:
        program.expect(b"hello")
        program.sendline(b"text")
        program.expect(b"got text")
    (outcome,) = wsep_sync.map(["echo", "hello"], [host.url])
    assert outcome.result is not None
    assert outcome.result.stdout == b"hello\n"


def test_notty(host: Host, home: Path) -> None:
    done = run_cli("notty", "--url", host.url, "--", "sh", "-c", "cat; exit 3", input=b"text")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"text", b"")
    done = run_cli("notty", "--url", host.url, "--", "wsep-no-such-command")
    assert (done.returncode, done.stdout) == (127, b"")
    has_one_line(done.stderr, "wsep-no-such-command", "No such file")


def test_tty(host: Host, home: Path) -> None:
    done = run_cli("tty", "--url", host.url, "--", "sh", "-c", "tty; stty size; exit 3")
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.startswith(b"/dev/")
    assert done.stdout.endswith(b"24 80\r\n")


def test_the_command_line_says_what_is_wrong(host: Host, home: Path) -> None:
    (home / ".ssh/known_hosts").unlink()
    for subcommand in ("notty", "tty"):
        done = run_cli(subcommand, "--url", host.url, "--", "true")
        assert (done.returncode, done.stdout) == (255, b"")
        has_one_line(done.stderr, host.url, "not in known_hosts")
    done = run_cli("tty", "--id", "work", "--url", host.url, "--", "true")
    assert done.returncode == 255
    has_one_line(done.stderr, "--id")
    done = run_cli("notty", "--url", "ssh://127.0.0.1:port", "--", "true")
    assert done.returncode == 2
    assert b"not the URL of an SSH host" in done.stderr.splitlines()[-1]
    done = run_cli("sessions", "--url", host.url)
    assert done.returncode == 2
    assert f"not a WebSocket URL (ws://HOST:PORT or wss://HOST:PORT): '{host.url}'" in (
        done.stderr.decode()
    )


def test_without_paramiko(tmp_path: Path) -> None:
    (tmp_path / "paramiko.py").write_text("raise ImportError('there is none')\n")
    code = "from wsep_sync import *; SSHExecer('127.0.0.1')"
    env = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        b"ImportError: SSH needs paramiko: pip install '.[ssh]' in the clone (see README)"
    )
    done = run_cli("notty", "--url", "ssh://127.0.0.1", "--", "true", env=env)
    assert done.returncode == 255
    has_one_line(done.stderr, "paramiko", "pip install '.[ssh]'")
