"""Commands with what no server can be told: :class:`LoginCommand`."""

from __future__ import annotations

from dataclasses import dataclass

from ...protocol.command import Command

__all__ = [
    "LoginCommand",
]


@dataclass(frozen=True)
class LoginCommand(Command):
    """A command with what a login gives besides its user, which no server can be told.

    Args:
        groups: Supplementary groups to have, if ``uid`` or ``gid`` is given.
        home: Directory to run in, or ``/`` if it cannot be entered. A relative ``working_dir``
            is relative to it.
    """

    groups: tuple[int, ...] = ()
    home: str = ""
