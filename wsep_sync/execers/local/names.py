"""The names of a command's user and groups, looked up in this machine's databases."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import replace

from ...errors import StartError, start_error
from ...lazy import importing
from ...protocol.command import Command

__all__ = [
    "with_numbers",
]


def with_numbers(command: Command) -> Command:
    """Return the command with numbers in place of the names of its user and groups.

    Raises:
        StartError: There is no such user or group; or it is 0 (then also a ``PermissionError``),
            which in a number stands for our own, and ours is another.
    """
    if not (command.user or command.group or command.groups):
        return command
    with importing:  # for POSIX alone
        import grp
        import pwd

    def user_number(name: str) -> int:
        return pwd.getpwnam(name).pw_uid

    def group_number(name: str) -> int:
        return grp.getgrnam(name).gr_gid

    uid, gid, groups = command.uid, command.gid, command.groups
    if command.user:
        uid = _unless_ours(_number("user", command.user, user_number), os.geteuid(), command)
    if command.group:
        gid = _unless_ours(_number("group", command.group, group_number), os.getegid(), command)
    if groups is not None:
        groups = tuple(
            _number("group", group, group_number) if isinstance(group, str) else group
            for group in groups
        )
    return replace(command, user="", group="", uid=uid, gid=gid, groups=groups)


def _number(kind: str, name: str, look_up: Callable[[str], int]) -> int:
    with contextlib.suppress(KeyError, UnicodeEncodeError):
        return look_up(name)
    # A name may look like a number, so that comes second, as it does for chown (POSIX).
    if name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) < 0xFFFF_FFFF:
        return int(name)
    raise StartError(f"no such {kind}: {name[:100]!r}")


def _unless_ours(number: int, ours: int, command: Command) -> int:
    """Return 0, which changes nothing, for our own."""
    if number == ours:
        return 0
    if number == 0:
        raise start_error(errno.EPERM, command.command)
    return number
