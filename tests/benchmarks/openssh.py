"""OpenSSH's server on the loopback interface, with keys of its own, to compare with."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Absent

__all__ = ["sshd"]

# How long it may take to let somebody in for the first time, in seconds.
_PATIENCE = 10.0

_CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
"""


@contextlib.contextmanager
def sshd() -> Iterator[list[str]]:
    """Run sshd; yield the command that a command to run there is appended to.

    Raises:
        Absent: It cannot be run here, or lets nobody in.
    """
    # Where it is installed is on the path of few users.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    programs = {name: shutil.which(name, path=path) for name in ("sshd", "ssh", "ssh-keygen")}
    missing = [name for name, where in programs.items() if where is None]
    if missing:
        raise Absent(f"no {missing[0]} on this machine")
    server, client, keygen = (str(where) for where in programs.values())
    with contextlib.ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        _separate_privileges(cleanup)
        for key in ("host", "user"):
            _run(keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        configuration = directory / "configuration"
        configuration.write_text(_CONFIGURATION.format(port=port, directory=directory))
        log = cleanup.enter_context((directory / "log").open("w+b"))
        process = cleanup.enter_context(
            subprocess.Popen([server, "-D", "-e", "-f", str(configuration)], stderr=log)
        )
        cleanup.callback(process.kill)
        # Nothing of this user's or this machine's settings.
        command = [client, "-F", "none", "-T", "-q", "-p", str(port), "-i", str(directory / "user")]
        for option in ("BatchMode=yes", "StrictHostKeyChecking=no", "IdentitiesOnly=yes"):
            command += ["-o", option]
        command += ["-o", "UserKnownHostsFile=/dev/null", f"{getpass.getuser()}@127.0.0.1"]
        deadline = time.monotonic() + _PATIENCE
        while subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                raise Absent(f"sshd lets nobody in: {said[-1]}")
            time.sleep(0.1)
        yield command


def _separate_privileges(cleanup: contextlib.ExitStack) -> None:
    """Make the empty directory that sshd locks itself into, if that is for us to do."""
    directory = Path("/run/sshd")  # built in; a service's start usually makes it
    if os.getuid() == 0:
        try:
            directory.mkdir(mode=0o755)
        except FileExistsError:
            return
        except OSError as error:
            raise Absent(f"sshd cannot be run: {error.strerror}") from error
        cleanup.callback(directory.rmdir)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
