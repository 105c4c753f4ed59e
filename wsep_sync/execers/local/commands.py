"""Commands with what no server can be told: :class:`LoginCommand`, :class:`ChildCommand`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...protocol.command import Command

__all__ = [
    "ChildCommand",
    "LoginCommand",
]


@dataclass(frozen=True)
class LoginCommand(Command):
    """A command with what a login gives besides its user, which no server can be told.

    Args:
        home: Directory to run in, or ``/`` if it cannot be entered. A relative ``working_dir``
            is relative to it.
    """

    home: str = ""


@dataclass(frozen=True)
class ChildCommand(Command):
    """A command with what only a child of this process can have; as for :class:`subprocess.Popen`.

    Args:
        preexec_fn: Called in the child after the fork, with this process's rights: what locks other
            threads held at that moment, nobody in the child will ever release.
        close_fds: False lets it have what descriptors of this process are inheritable.
        pass_fds: Descriptors that it is to have.
        pipesize: Bytes that its pipes are to hold; -1 leaves them as they are.
    """

    preexec_fn: Callable[[], Any] | None = None
    close_fds: bool = True
    pass_fds: tuple[int, ...] = ()
    pipesize: int = -1
