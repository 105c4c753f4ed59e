"""OpenSSH on the loopback interface, to compare with."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness import Absent

__all__ = ["openssh"]


@contextlib.contextmanager
def openssh() -> Iterator[list[str]]:
    """Run sshd; yield the command that a command to run there is appended to.

    Raises:
        Absent: It cannot be run here, or lets nobody in.
    """
    # Where sshd is installed is on the path of few users.
    for name, path in (("sshd", "/usr/sbin:/usr/local/sbin:/sbin"), ("ssh", None)):
        if shutil.which(name, path=path) is None:
            raise Absent(f"no {name} on this machine")
    # What the tests share. Its directory comes last: names here go before.
    support = str(Path(__file__).parents[1] / "support")
    if support not in sys.path:
        sys.path.append(support)
    from sshd import sshd

    with sshd() as host:
        # Nothing of this user's or this machine's settings.
        command = ["ssh", "-F", "none", "-T", "-q", "-p", str(host.port), "-i", str(host.key)]
        for option in ("BatchMode=yes", "IdentitiesOnly=yes", "GlobalKnownHostsFile=/dev/null"):
            command += ["-o", option]
        command += ["-o", f"UserKnownHostsFile={host.known_hosts}"]
        command.append(f"{getpass.getuser()}@127.0.0.1")
        done = subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            said = (host.directory / "log").read_text(errors="replace").strip().splitlines()
            raise Absent(f"sshd lets nobody in: {said[-1] if said else 'it says nothing'}")
        yield command
