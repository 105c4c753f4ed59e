"""Which keys an SSH host is known by: the files that sshd(8) describes as ``known_hosts``.

paramiko reads these files too, but stops at a line that it does not expect, knows no patterns, and
takes no notice of a key that is marked as revoked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = [
    "FILES",
    "KnownKeys",
    "read_known_hosts",
]

#: Where the keys of hosts are by default, as for ssh(1). A file that is not there is empty.
FILES = (
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssh/ssh_known_hosts2",
    "~/.ssh/known_hosts",
    "~/.ssh/known_hosts2",
)


@dataclass
class KnownKeys:
    """The keys of one host, each as its type, such as ``ssh-ed25519``, and its bytes.

    Attributes:
        trusted: Those it may have.
        revoked: Those it must not have, even if they are trusted elsewhere.
    """

    trusted: set[tuple[str, bytes]] = field(default_factory=set)
    revoked: set[tuple[str, bytes]] = field(default_factory=set)


def read_known_hosts(files: Iterable[str], host: str, port: int) -> KnownKeys:
    """Return the keys that a host is known by.

    Keys of certificate authorities are passed over, as are lines that make no sense.

    Raises:
        OSError: A file that is there cannot be read.
    """
    name = (host if port == 22 else f"[{host}]:{port}").lower()
    keys = KnownKeys()
    for file in files:
        try:
            with open(os.path.expanduser(file), "rb") as lines:
                for line in lines:
                    _take(line.decode("ascii", "replace").split(), name, keys)
        except FileNotFoundError:
            continue
    return keys


def _take(words: list[str], name: str, keys: KnownKeys) -> None:
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or not _matches(words[0], name):
        return
    try:
        key = (words[1], base64.b64decode(words[2], validate=True))
    except ValueError:  # binascii.Error is one
        return
    if not marker:
        keys.trusted.add(key)
    elif marker == "@revoked":
        keys.revoked.add(key)


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|"):
        return _matches_hash(patterns, name)
    found = False
    for pattern in patterns.lower().split(","):
        wanted = pattern.removeprefix("!")
        expression = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(expression, name):
            if wanted != pattern:
                return False
            found = True
    return found


def _matches_hash(hashed: str, name: str) -> bool:
    """Whether it is the name's, as ``|1|SALT|HASH``: HMAC-SHA1, both in base64."""
    try:
        _, version, salt, digest = hashed.split("|")
        expected = base64.b64decode(digest)
        actual = hmac.digest(base64.b64decode(salt), name.encode(), hashlib.sha1)
    except ValueError:
        return False
    return version == "1" and hmac.compare_digest(actual, expected)
