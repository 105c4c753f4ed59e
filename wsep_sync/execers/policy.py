"""What may be run, and as whom: execers that wrap another execer.

They compose, each taking the execer that is to run what it lets through::

    execer = RestrictedExecer(UserExecer(LocalExecer(), "builder"), allow={"make", "git"})
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeAlias

from ..errors import StartError, not_allowed
from ..lazy import importing
from ..log import log_bug
from ..process import Execer, Process, check_additions
from ..protocol.command import Command, check_command
from .local.commands import LoginCommand

if TYPE_CHECKING:
    import pwd

__all__ = ["RestrictedExecer", "Rule", "UserExecer"]

#: Looks at a command and returns the one to run instead, or ``None`` to refuse it.
Rule: TypeAlias = "Callable[[Command], Command | None]"


class RestrictedExecer(Execer):
    """Runs only what is allowed. Thread-safe, if the function it is given is.

    An allowed program can do all that it can do: its arguments, its working directory and what is
    typed to it are the client's. What runs other programs in its turn, be it a shell, ``env``,
    ``find``, ``git``, ``make`` or an editor, allows these too.

    To attach to a session is not to start anything: who may attach has the session's command,
    whatever command is named, and this is not asked. All that runs in a :class:`.Server` was
    started by the execers it serves with; so give clients of other restrictions, and of other
    users, a ``Server`` of their own.

    Of the additions that a client may ask for there is ``merge`` alone: the others would let it
    have what a function may not know of. A client that needs them is told that they cannot be had.

    Args:
        execer: Runs it. To be restricted as well, a :class:`UserExecer` belongs in here.
        allow: The names of the programs, each exactly as clients have to give it: ``"make"``
            allows ``make`` but not ``/usr/bin/make``. They get no environment from clients:
            ``PATH`` or ``LD_PRELOAD`` would make something else of them. Or a function that
            decides, called for each command in the thread of its client; what it returns is run
            as it is, so it should :func:`~dataclasses.replace` fields rather than make a new
            command.

    Raises:
        TypeError: ``allow`` is neither names nor a function.
        ValueError: A name, or an entry of ``PATH`` that a name is searched for in, is relative to
            a directory that clients choose.
    """

    def __init__(self, execer: Execer, allow: Collection[str] | Rule) -> None:
        self._execer = execer
        self._rule = allow if callable(allow) else _by_name(allow)

    @property
    def features(self) -> frozenset[str]:
        # The others would let a client have what no rule that was made before them looks at.
        return self._execer.features & {"merge"}

    def start(self, command: Command) -> Process:
        """Start the command if it is allowed.

        Raises:
            StartError: It is not (then also a ``PermissionError``, ``Not allowed``), or the
                function says so itself by raising one. What else it raises is logged, and nothing
                is started.
        """
        check_command(command)
        check_additions(command, self.features)
        try:
            allowed = self._rule(command)
            if allowed is not None and not isinstance(allowed, Command):
                raise TypeError(f"a Command or None is wanted, not {type(allowed).__name__}")
        except StartError:
            raise
        except Exception as error:
            # It goes to whoever waits for a session as well, whom its words do not concern.
            log_bug("internal error in deciding what is allowed", error)
            raise StartError("internal error") from error
        if allowed is None:
            raise not_allowed(command.command)
        return self._execer.start(allowed)

    def close(self) -> None:
        self._execer.close()


def _by_name(allow: Collection[str]) -> Rule:
    if isinstance(allow, str) or not all(isinstance(name, str) for name in allow):
        raise TypeError(f"allow must be a collection of names or a function, not {allow!r}")
    names = frozenset(allow)
    for name in sorted(names):
        if os.sep in name and not os.path.isabs(name):
            raise ValueError(f"allow: {name!r} is relative to a directory that clients choose")
        if os.sep not in name and not all(map(os.path.isabs, os.get_exec_path())):
            raise ValueError(
                f"allow: {name!r} would be searched for in directories that clients choose: "
                f"PATH has relative entries: {os.environ.get('PATH')!r}"
            )

    def rule(command: Command) -> Command | None:
        return replace(command, env=()) if command.command in names else None

    return rule


class UserExecer(Execer):
    """Runs every command as one user, whatever user and group the client asks for. Thread-safe.

    As after a login, the command has the user's own groups, supplementary ones included; starts in
    the home directory, unless the client names another, or in ``/`` if the home cannot be entered;
    and has ``HOME``, ``USER``, ``LOGNAME`` and ``SHELL`` in its environment, where the client's
    own come last. Everything else of the environment is this process's: see
    :class:`.LocalExecer`'s ``pass_env``. No password is asked for, and no PAM session opened.

    Args:
        execer: Runs it on this machine: a :class:`.LocalExecer`, or what wraps one. (Another
            server would be told the numbers of the user and the group, and the environment.)
        user: A name of this machine's user database, or a number.

    Raises:
        ValueError: There is no such user.
        PermissionError: This process is neither root nor that user.
        TypeError: ``execer`` is a :class:`RestrictedExecer`, whose function could undo the user.
    """

    def __init__(self, execer: Execer, user: str | int) -> None:
        if isinstance(execer, RestrictedExecer):
            raise TypeError("make it RestrictedExecer(UserExecer(...)): the user has the last word")
        self._execer = execer
        self._user = _look_up(user)
        self._changes = self._user.pw_uid != os.geteuid()
        if self._changes and os.geteuid() != 0:
            raise PermissionError(f"only root can run commands as {self._user.pw_name}")

    @property
    def features(self) -> frozenset[str]:
        return self._execer.features

    def start(self, command: Command) -> Process:
        check_command(command)
        user = self._user
        login = (
            f"HOME={user.pw_dir or '/'}",
            f"USER={user.pw_name}",
            f"LOGNAME={user.pw_name}",
            f"SHELL={user.pw_shell or '/bin/sh'}",
        )
        given = {field.name: getattr(command, field.name) for field in fields(Command)}
        given.update(uid=0, gid=0, user="", group="", groups=None, home=user.pw_dir or "/")
        if not command.clean_env:
            given.update(env=(*login, *command.env))
        if self._changes:
            # Looked up each time, as logins do it: a user may be added to a group meanwhile.
            groups = os.getgrouplist(user.pw_name, user.pw_gid)
            given.update(uid=user.pw_uid, gid=user.pw_gid, groups=tuple(groups))
        return self._execer.start(LoginCommand(**given))

    def close(self) -> None:
        self._execer.close()


def _look_up(user: str | int) -> pwd.struct_passwd:
    with importing:
        import pwd  # for POSIX alone

    if isinstance(user, str):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(user)
    # A name may look like a number, so that comes second, as it does for chown (POSIX).
    if isinstance(user, int) or user.isdecimal():
        with contextlib.suppress(KeyError, OverflowError):
            return pwd.getpwuid(int(user))
    raise ValueError(f"no such user: {user}")
