"""What to run, and how: :class:`Command`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from .checks import (
    check_groups,
    check_number,
    check_output,
    check_string,
    check_strings,
    kind_of,
)

__all__ = [
    "ADDITIONS",
    "Command",
    "check_command",
    "nameless",
    "variables",
]


# As in the reference, which has the two swapped: 80 rows of 24 columns.
_DEFAULT_ROWS = 80


_DEFAULT_COLS = 24


#: The fields that the reference does not have, and that must not be left out where they are asked
#: for: each with the feature that an execer, and a server, has to name for it.
ADDITIONS = {
    "merge": "merge",
    "umask": "umask",
    "clean_env": "clean_env",
    "argv0": "argv0",
    "user": "user",
    "group": "user",
    "groups": "groups",
    "restore_signals": "restore_signals",
}


@dataclass(frozen=True)
class Command:
    """What to run, and how.

    For a server, all of it has to fit one message of 64,000 bytes. Longer, it cannot be started:
    that is the error of an argument list that is too long, ``E2BIG``.

    Args:
        command: The program: a path (a string or ``pathlib``'s), or a name that is looked up in
            the ``PATH`` of the environment it will run in.
        args: Its arguments, without the program's own name.
        id: The name under which the session of its terminal can be attached again; for ``tty``.
        tty: Run it on a terminal of its own rather than on three pipes. Its output, errors
            included, then comes as ``stdout``.
        rows: Height of the terminal in rows, 0 to 65535.
        cols: Width of the terminal in columns, 0 to 65535. 0 rows make 80 of them, and 0 columns
            24, as in the reference.
        stdin: Give the command an input to write to. Otherwise it reads ``/dev/null``. A
            terminal can be typed at either way.
        uid: Numeric user to run as; 0 keeps the server's.
        gid: Numeric group to run as; 0 keeps the server's. Changing either drops the
            supplementary groups.
        env: Variables that are added to the server's environment: a mapping, or ``NAME=VALUE``
            strings, of which the last of a name wins. Strings of another form are passed on as
            they are, as in the reference.
        working_dir: Directory to run in; "" keeps the server's.
        discard: Which of ``stdout`` and ``stderr`` nobody wants: without a terminal, the command
            has the null device for it.
        merge: Without a terminal: its error output goes where its output goes, in one pipe. The
            process's ``stderr`` is at its end. This and all that follows is for an execer that
            names it among its :attr:`~wsep_sync.process.Execer.features`.
        umask: Its file mode creation mask, 0 to 0o777; -1 keeps the server's.
        clean_env: Its environment is ``env`` and nothing else.
        argv0: The name that the program sees as its own; "" is ``command``.
        user: Name of the user to run as, instead of ``uid``; looked up where the command runs.
        group: Name of the group to run as, instead of ``gid``; likewise.
        groups: Names or numbers of the supplementary groups to have; ``None`` leaves them, or with
            another user or group drops them.
        restore_signals: Let SIGPIPE and SIGXFSZ, which Python ignores, have their default action.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field cannot be sent or run: a NUL byte, a number out of range, a variable
            whose name is none, an ``id`` without a terminal.
    """

    command: str
    args: tuple[str, ...] = ()
    _: KW_ONLY
    id: str = ""
    tty: bool = False
    rows: int = 0
    cols: int = 0
    stdin: bool = False
    uid: int = 0
    gid: int = 0
    env: tuple[str, ...] = ()
    working_dir: str = ""
    discard: tuple[str, ...] = ()
    merge: bool = False
    umask: int = -1
    clean_env: bool = False
    argv0: str = ""
    user: str = ""
    group: str = ""
    groups: tuple[int | str, ...] | None = None
    restore_signals: bool = True

    if TYPE_CHECKING:
        # What may be given, which is more than what is kept.
        def __init__(
            self,
            command: str | os.PathLike[str],
            args: Iterable[str] = (),
            *,
            id: str = "",
            tty: bool = False,
            rows: int = 0,
            cols: int = 0,
            stdin: bool = False,
            uid: int = 0,
            gid: int = 0,
            env: Iterable[str] | Mapping[str, str] = (),
            working_dir: str | os.PathLike[str] = "",
            discard: Iterable[str] = (),
            merge: bool = False,
            umask: int = -1,
            clean_env: bool = False,
            argv0: str = "",
            user: str = "",
            group: str = "",
            groups: Iterable[int | str] | None = None,
            restore_signals: bool = True,
        ) -> None: ...

    def __post_init__(self) -> None:
        # A frozen dataclass is filled through object.__setattr__; this makes what callers (and
        # JSON) give into what is kept.
        for name in ("command", "working_dir"):
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        object.__setattr__(self, "args", check_strings("args", self.args))
        if isinstance(self.env, Mapping):
            object.__setattr__(self, "env", _entries(self.env))
        object.__setattr__(self, "env", check_strings("env", self.env))
        object.__setattr__(self, "discard", check_strings("discard", self.discard))
        for name in ("command", "id", "working_dir", "argv0", "user", "group"):
            check_string(name, getattr(self, name))
        for name in ("tty", "stdin", "merge", "clean_env", "restore_signals"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be true or false, not {kind_of(getattr(self, name))}")
        for name in ("rows", "cols"):
            check_number(name, getattr(self, name), 0xFFFF)
        if self.groups is not None:
            object.__setattr__(self, "groups", check_groups("groups", self.groups))
        if self.umask != -1:
            check_number("umask", self.umask, 0o777)
        for name in ("uid", "gid"):
            check_number(name, getattr(self, name), 0xFFFF_FFFF)
        for name in self.discard:
            check_output("discard", name)
        if self.id and not self.tty:
            raise ValueError("id names the session of a terminal: it needs tty=True")

    @property
    def additions(self) -> frozenset[str]:
        """The features that an execer needs for it."""
        return frozenset(
            feature
            for name, feature in ADDITIONS.items()
            if getattr(self, name) != getattr(Command, name)
        )

    @property
    def terminal_size(self) -> tuple[int, int]:
        """The rows and columns that its terminal has, if it is to have one."""
        return self.rows or _DEFAULT_ROWS, self.cols or _DEFAULT_COLS


def check_command(command: object) -> None:
    """Say what :meth:`.Execer.start` takes to who gives it something else.

    Raises:
        TypeError: It is no :class:`Command`.
    """
    if not isinstance(command, Command):
        raise TypeError(
            f'start() takes a Command, such as Command("ls", ["-l"]), not {kind_of(command)}'
        )


def _entries(variables: Mapping[str, str]) -> tuple[str, ...]:
    for name, value in variables.items():
        check_string("env", name)
        check_string("env", value)
        if not name or "=" in name:
            raise ValueError(f"env: illegal environment variable name {name!r}")
    return tuple(f"{name}={value}" for name, value in variables.items())


def variables(entries: Iterable[str]) -> dict[str, str]:
    """Return the variables of an environment, without the entries that are none.

    A name may begin with ``=``, as in the reference: Windows keeps the current directories of its
    drives in such variables.
    """
    found = {}
    for entry in entries:
        end = entry.find("=", 1)
        if end > 0:
            found[entry[:end]] = entry[end + 1 :]
    return found


def nameless(entries: Iterable[str]) -> list[str]:
    """Return the entries of an environment that are no variables, and not empty."""
    return [entry for entry in entries if entry and entry.find("=", 1) < 0]
