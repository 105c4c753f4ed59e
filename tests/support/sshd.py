"""A real sshd, OpenSSH's, on a loopback port: who runs the tests can log in as themselves.

An sshd that is not root's has terminals only where the system gives each to the group tty, which
the mount option gid=5 of /dev/pts does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import SECONDS, children, descendants, eventually, gone
from parts import need

from wsep_sync.execers.ssh.execer import SSHExecer

# As root, sshd wants this directory, which belongs to its package's start-up script.
_PRIVILEGE_SEPARATION = Path("/run/sshd")

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
# The key lies in a temporary directory, whose parents everybody may write to.
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
PrintMotd no
PrintLastLog no
MaxStartups 100
# What the user's own shell reads when it starts is none of the tests' business.
SetEnv HOME={directory}/home
"""


@dataclass(frozen=True)
class Host:
    """A host to log in to.

    Attributes:
        pid: Of the sshd that listens.
        port: Where it does.
        directory: Where its files are: ``user``, a private key that it accepts, ``host``, its own,
            ``known_hosts``, ``home``, which is $HOME of its sessions, ``log``.
    """

    pid: int
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    @property
    def key(self) -> Path:
        return self.directory / "user"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def public_key(self) -> str:
        """The host's, as it stands in a file of known hosts."""
        return " ".join((self.directory / "host.pub").read_text().split()[:2])

    def connect(self, **options: Any) -> SSHExecer:
        files = {"key_filename": str(self.key), "known_hosts": str(self.known_hosts)}
        return SSHExecer("127.0.0.1", self.port, **{"timeout": SECONDS, **files, **options})

    def connections(self) -> set[int]:
        """The processes that serve one connection each."""
        return children(self.pid)

    def running(self, name: str) -> set[int]:
        """The processes of that name which serve or run in a connection."""
        return {pid for pid in descendants(self.pid) if _name(pid) == name}

    def lose_connections(self) -> None:
        """End every connection as a host that vanishes would; what runs in them is left."""
        for pid in self.running("sshd"):
            _kill(pid)


@functools.cache
def _keys() -> dict[str, bytes]:
    """Make a key for the host and one for the user, once in a run: files by name."""
    with tempfile.TemporaryDirectory(prefix="wsep-sshd-") as name:
        for key in ("host", "user"):
            make_key(Path(name, key))
        return {file.name: file.read_bytes() for file in Path(name).iterdir()}


def make_key(file: Path, passphrase: str = "", kind: str = "ed25519") -> None:
    """Make a private key, and the public one beside it."""
    subprocess.run(
        [need("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(file)],
        stdin=subprocess.DEVNULL,
        check=True,
    )


@contextlib.contextmanager
def sshd(config: str = "", max_sessions: int = 100) -> Iterator[Host]:
    """Run an sshd; `config` goes before what else is in its configuration, and so wins."""
    program = need("sshd")
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wsep-sshd-") as name:
        directory = Path(name)
        for file, content in _keys().items():
            (directory / file).touch(0o600)
            (directory / file).write_bytes(content)
        (directory / "home").mkdir()
        process, port = _start(program, f"{config}\nMaxSessions {max_sessions}", directory)
        host = Host(process.pid, port, directory)
        host.known_hosts.write_text(f"[127.0.0.1]:{port} {host.public_key}\n")
        try:
            yield host
            # Those whose client has gone end by themselves.
            eventually(lambda: not host.connections(), "the end of the connections")
        finally:
            # What is there yet, a test has left that fails.
            left = descendants(process.pid)
            process.terminate()
            process.wait(SECONDS)
            for pid in left:
                _kill(pid)
            gone(*left)


def _start(program: str, config: str, directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start it on a port that is free, and return when it listens."""
    log = directory / "log"
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        text = config + _CONFIG.format(port=port, directory=directory)
        (directory / "config").write_text(text)
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(directory / "config")],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        started = f"listening on 127.0.0.1 port {port}"
        while started not in log.read_text(errors="replace"):
            if process.poll() is not None:
                break
            time.sleep(0.005)
        else:
            return process, port
        # Somebody else may have been quicker to take the port.
        assert "in use" in log.read_text(errors="replace"), log.read_text(errors="replace")


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
