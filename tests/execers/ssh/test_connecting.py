"""SSH: who the host is, who logs in, and connecting."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import SECONDS, Task, eventually
from ssh_clients import output, refused
from sshd import Host, make_key, sshd

from wsep_sync import Command, ConnectError
from wsep_sync.execers.ssh.execer import connect_ssh

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


# Who the host is


def test_a_host_that_is_not_known(host: Host, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    error = refused("127.0.0.1", host.port, known_hosts=str(tmp_path / "none"))
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(host.directory / "host")], stdout=subprocess.PIPE, check=True
    ).stdout.split()[1]
    assert str(error).startswith(f"cannot connect to {host.url}: the host is not in known_hosts")
    assert f"ssh-ed25519 {fingerprint.decode()}" in str(error)


def test_a_host_that_has_another_key(host: Host, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{host.port} {other}")
    error = refused("127.0.0.1", host.port, known_hosts=str(known_hosts))
    assert "another key" in str(error)


def test_a_host_whose_key_is_revoked(host: Host) -> None:
    with open(host.known_hosts, "a") as file:
        file.write(f"@revoked * {host.public_key}\n")
    with pytest.raises(ConnectError, match="revoked"):
        host.connect()


def test_the_key_that_is_known_is_asked_for(host: Host) -> None:
    make_key(host.directory / "second", kind="ecdsa")
    with sshd(f"HostKey {host.directory}/second") as second:
        for key in ("host", "second"):
            public = (host.directory / f"{key}.pub").read_text()
            second.known_hosts.write_text(f"[127.0.0.1]:{second.port} {public}")
            with second.connect() as execer:
                assert output(execer, Command("echo", ["known"])) == b"known\n"


def test_a_file_of_known_hosts_that_is_not_there(host: Host, tmp_path: Path) -> None:
    error = refused("127.0.0.1", host.port, known_hosts=str(tmp_path / "none"))
    assert f"{tmp_path}/none: No such file" in str(error)


# Who logs in


def test_keys_and_known_hosts_of_the_user(host: Host, home: Path) -> None:
    with connect_ssh(host.url, timeout=SECONDS) as execer:
        assert output(execer, Command("echo", ["in"])) == b"in\n"


@contextlib.contextmanager
def agent(key: Path, directory: Path) -> Iterator[str]:
    """Run an SSH agent that has a key; yields its socket."""
    path = directory / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}

        def added() -> bool:
            # The socket is there before the agent listens.
            done = subprocess.run(["ssh-add", str(key)], env=env, check=False, capture_output=True)
            return done.returncode == 0

        eventually(added, "the agent has the key")
        yield str(path)
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_a_key_of_the_agent(
    host: Host, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ssh/id_ed25519").unlink()
    with agent(host.key, tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with connect_ssh(host.url, timeout=SECONDS) as execer:
            assert output(execer, Command("echo", ["in"])) == b"in\n"


def test_a_key_that_is_not_accepted(host: Host, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    make_key(tmp_path / "key")
    with pytest.raises(ConnectError, match="lets nobody in"):
        host.connect(key_filename=str(tmp_path / "key"))


def test_no_key_at_all(host: Host, home: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    with pytest.raises(ConnectError, match="No authentication methods"):
        connect_ssh(host.url, timeout=SECONDS)


def test_a_key_that_is_encrypted(host: Host, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    make_key(tmp_path / "key", passphrase="secret")
    with pytest.raises(ConnectError, match="encrypted"):
        host.connect(key_filename=str(tmp_path / "key"))


def test_a_key_that_is_not_there_or_is_none(host: Host, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    with pytest.raises(ConnectError, match="none: No such file"):
        host.connect(key_filename=str(tmp_path / "none"))
    (tmp_path / "nonsense").write_text("nonsense\n")
    with pytest.raises(ConnectError, match="not a valid"):
        host.connect(key_filename=str(tmp_path / "nonsense"))


def test_a_user_that_there_is_not(host: Host) -> None:
    with pytest.raises(ConnectError, match="ssh://wsep-nobody@127"):
        host.connect(username="wsep-nobody")


# Connecting


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    error = refused("127.0.0.1", port)
    assert str(error) == f"cannot connect to ssh://127.0.0.1:{port}: Connection refused"


def test_a_host_that_has_no_address() -> None:
    assert "nobody.invalid" in str(refused("nobody.invalid"))


@contextlib.contextmanager
def answering(greeting: bytes) -> Iterator[int]:
    """A server that says one thing and then nothing; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)
                while connection.recv(4096):
                    pass

        with Task(answer):
            yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "greeting", [pytest.param(b"", id="nothing"), pytest.param(b"SSH-2.0-x\r\n", id="its version")]
)
def test_a_server_that_says_no_more_than(greeting: bytes) -> None:
    with answering(greeting) as port:
        assert "no answer within 0.3 seconds" in str(refused("127.0.0.1", port, timeout=0.3))


def test_a_server_that_speaks_no_ssh() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n" * 300) as port:
        assert str(port) in str(refused("127.0.0.1", port))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1",
        "ws://127.0.0.1",
        "ssh://",
        "ssh://user@",
        "ssh://user:password@127.0.0.1",
        "ssh://127.0.0.1/path",
        "ssh://127.0.0.1?query",
        "ssh://127.0.0.1:0x16",
        "ssh://127.0.0.1:65536",
    ],
)
def test_no_url_of_a_host(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        connect_ssh(url)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        connect_ssh("ssh://user:secret@127.0.0.1")
    assert "secret" not in str(caught.value)


def test_a_url_with_a_user(host: Host, home: Path) -> None:
    with pytest.raises(ConnectError, match="ssh://a b@127"):
        connect_ssh(host.url.replace("://", "://a%20b@"))


def test_paramiko_logs_nothing_by_itself(host: Host) -> None:
    code = f"""if True:
        from wsep_sync import ConnectError, SSHExecer
        try:
            SSHExecer("127.0.0.1", {host.port}, key_filename={str(host.key)!r}, timeout=30)
        except ConnectError:
            pass
        SSHExecer("127.0.0.1", {host.port}, key_filename={str(host.key)!r},
                  known_hosts={str(host.known_hosts)!r}, timeout=30)
    """
    # The second is dropped as it is.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
