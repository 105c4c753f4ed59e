"""What ``~/.ssh/config`` says of a host: :class:`HostConfig`."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

__all__ = ["Hop", "HostConfig", "read_config"]

# As ssh(1) has it, for this user.
_FILE = "~/.ssh/config"


@dataclass(frozen=True)
class Hop:
    """A host on the way to another, as ``[USER@]HOST[:PORT]`` names it."""

    host: str
    port: int | None = None
    username: str | None = None


@dataclass(frozen=True)
class HostConfig:
    """What is said of a host; what is not is ``None``, or empty.

    Attributes:
        host: Where it is: its own name, if nothing else is said (``HostName``).
        port: ``Port``.
        username: ``User``.
        key_files: Those of ``IdentityFile`` that there are.
        keys_only: No other keys are to be tried (``IdentitiesOnly``).
        hops: The hosts to go through, the first one first (``ProxyJump``).
    """

    host: str
    port: int | None = None
    username: str | None = None
    key_files: tuple[str, ...] = ()
    keys_only: bool = False
    hops: tuple[Hop, ...] = ()


def read_config(paramiko: Any, host: str) -> HostConfig:
    """Return what the file says of a host; nothing, if there is none.

    Files that it includes are not read: paramiko knows no ``Include``.

    Raises:
        OSError: It cannot be read.
        ValueError: It makes no sense, or wants a ``ProxyCommand``.
        paramiko.SSHException: Likewise.
    """
    config = paramiko.SSHConfig()
    with contextlib.suppress(FileNotFoundError), open(os.path.expanduser(_FILE)) as file:
        config.parse(file)
    found = config.lookup(host)
    jump = found.get("proxyjump", "none")
    if jump.lower() == "none" and "proxycommand" in found:
        raise ValueError(f"{_FILE} has a ProxyCommand for it, which takes ssh(1): ProxyJump works")
    keys = (os.path.expanduser(name) for name in found.get("identityfile", ()))
    return HostConfig(
        found["hostname"],
        int(found["port"]) if "port" in found else None,
        found.get("user"),
        tuple(name for name in keys if os.path.exists(name)),
        found.get("identitiesonly", "no").lower() == "yes",
        () if jump.lower() == "none" else tuple(map(_hop, jump.split(","))),
    )


def _hop(word: str) -> Hop:
    user, _, place = word.strip().removeprefix("ssh://").rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = place, ""
    if not host or (port and not port.isdecimal()):
        raise ValueError(f"{_FILE}: ProxyJump is to be [USER@]HOST[:PORT], not {word!r}")
    return Hop(host.strip("[]"), int(port) if port else None, user or None)
