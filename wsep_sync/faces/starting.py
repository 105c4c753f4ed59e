"""From the arguments of subprocess's face to a process that runs: :func:`start`."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from subprocess import DEVNULL, PIPE, STDOUT
from typing import TYPE_CHECKING, Any

from ..errors import StartError, is_not_allowed, start_error
from ..execers.dial import dial
from ..execers.local.commands import ChildCommand
from ..execers.local.execer import LocalExecer
from ..execers.prelude import Prelude
from ..lazy import importing
from ..process import Execer, Process
from ..protocol.command import Command
from ..streams.descriptors import Handover
from .copying import is_null_device, same_open_file

if TYPE_CHECKING:
    import ssl

    from _typeshed import StrOrBytesPath

    from .options import CommandLine, Env, File

__all__ = [
    "Endpoints",
    "Place",
    "Surroundings",
    "command_line",
    "refuse",
    "start",
    "terminal",
]

#: The environment variable with the URL of the server to run commands at.
_URL_VARIABLE = "WSEP_URL"

_SHELL = "/bin/sh"

# What takes a feature that a server may not have.
_ARGUMENTS = {
    "argv0": "executable, unless it is the shell or the program itself,",
    "groups": "extra_groups",
    "restore_signals": "restore_signals=False",
    "user": "user or group by name, or 0",
}

# A terminal that nobody gave a size.
_ROWS, _COLS = 24, 80


def refuse(**given: bool) -> None:
    for name, is_given in given.items():
        if is_given:
            raise ValueError(f"{name} cannot be done for a command at a distance")


class Place:
    """Where commands run: an execer, the server at a URL or at ``$WSEP_URL``, or this machine.

    The rest is for connecting to a URL; see :func:`.dial`. ``timeout`` is of no use elsewhere, and
    harmless.
    """

    def __init__(
        self,
        execer: Execer | None,
        url: str | None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float | None = None,
    ) -> None:
        if execer is not None and url is not None:
            raise ValueError("execer and url cannot both be given")
        if execer is None and url is None:
            url = os.environ.get(_URL_VARIABLE) or None
        given: dict[str, Any] = {"token": token, "headers": headers, "ssl_context": ssl_context}
        for name, value in given.items():
            # Lest a command run here that was meant for where it is asked for a token.
            if value is not None and (url is None or url[:6].lower() == "ssh://"):
                raise ValueError(f"{name} is for connecting to a server: it needs a ws:// url")
        if timeout is not None:
            given["timeout"] = timeout
        self._connecting = given
        self._execer = execer
        self._url = url
        self.local = url is None and (execer is None or isinstance(execer, LocalExecer))

    def start(self, start: Callable[[Execer], Process], id: str = "") -> Process:
        """Let a function start a command there.

        Args:
            start: Does so, with the execer that it is given.
            id: The command's.
        """
        if self._execer is not None:
            return start(self._execer)
        if self._url is not None:
            with dial(self._url, session_id=id, **self._connecting) as server:
                return start(server)
        return start(LocalExecer())


class Endpoints:
    """Where the three streams of a command go: ``PIPE``, ``DEVNULL``, or a descriptor of our own.

    As for a child, the caller may close the files as soon as the command runs.

    Attributes:
        source, output, errors: Where each goes.
        merged: The errors go where the output does.
        shared: They do because both were given one file, and not because somebody asked for it.
    """

    source: int
    output: int
    errors: int
    merged: bool
    shared: bool

    def __init__(self) -> None:
        self._ours: dict[int, Handover] = {}  # the descriptors that are ours, by number

    def open(self, stdin: File, stdout: File, stderr: File, tty: bool) -> Endpoints:
        """Find out where they go, and return this; what is open has to be closed in any case."""
        self.source = self._endpoint("stdin", stdin, 0)
        self.output = self._endpoint("stdout", stdout, 1)
        merged = stderr == STDOUT
        self.errors = DEVNULL if merged else self._endpoint("stderr", stderr, 2)
        # Two pipes would lose the order of what is written to one file.
        self.shared = (
            self.output >= 0 and self.errors >= 0 and same_open_file(self.output, self.errors)
        )
        # On a terminal they are one anyway; and where nothing is wanted, nothing is merged.
        self.merged = (merged or self.shared) and not tty and self.output != DEVNULL
        return self

    def _endpoint(self, name: str, file: File, inherited: int) -> int:
        if file in (PIPE, DEVNULL):
            return file
        if file == STDOUT:
            raise ValueError(f"{name}: STDOUT can only be used for stderr")
        if file is None:
            try:
                descriptor = os.dup(inherited)
            except OSError:
                return DEVNULL  # we have none ourselves
        else:
            descriptor = os.dup(file if isinstance(file, int) else file.fileno())
        if is_null_device(descriptor):
            os.close(descriptor)
            return DEVNULL
        self._ours[descriptor] = Handover(descriptor)
        return descriptor

    def discarded(self) -> tuple[str, ...]:
        """Return the names of the outputs that nobody wants."""
        outputs = {"stdout": self.output}
        if not self.merged:
            outputs["stderr"] = self.errors
        return tuple(name for name, target in outputs.items() if target == DEVNULL)

    def handover(self, endpoint: int) -> Handover:
        """Return the descriptor that an endpoint is."""
        return self._ours[endpoint]

    def close(self) -> None:
        """Close those descriptors that nobody has taken."""
        for descriptor in self._ours.values():
            descriptor.close()


def command_line(
    args: CommandLine, shell: bool, executable: StrOrBytesPath | None
) -> tuple[str, list[str]]:
    """Return the program, and its arguments with the name that it sees as its own."""
    if isinstance(args, os.PathLike) and shell:
        raise TypeError("path-like args is not allowed when shell is true")
    if isinstance(args, (str, bytes, os.PathLike)):
        line = [os.fsdecode(args)]
    else:
        line = [os.fsdecode(arg) for arg in args]
    if shell:
        line = [os.fsdecode(executable or _SHELL), "-c", *line]
    program = line[0] if executable is None else os.fsdecode(executable)
    if not program:
        raise start_error(errno.ENOENT, program)
    return program, line


def terminal(tty: bool, size: tuple[int, int] | None, id: str) -> tuple[int, int] | None:
    """Return the rows and columns of the terminal to run on, ``None`` for no terminal."""
    if tty:
        return size or (_ROWS, _COLS)
    if size is not None or id:
        raise ValueError(f"{'id' if id else 'size'} is for a terminal: it needs tty=True")
    return None


@dataclass(frozen=True)
class Surroundings:
    """What a command finds when it starts; as for Popen."""

    cwd: StrOrBytesPath | None
    env: Env | None
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    clean_env: bool
    restore_signals: bool
    preexec_fn: Callable[[], Any] | None
    close_fds: bool
    pass_fds: Sequence[int]
    pipesize: int


def start(
    place: Place,
    program: str,
    argv: list[str],
    endpoints: Endpoints,
    around: Surroundings,
    size: tuple[int, int] | None,
    id: str,
) -> Process:
    """Start a command, and say in the endpoints whether its errors are merged.

    Args:
        place: Where.
        program: The program.
        argv: Its arguments, its own name among them.
        endpoints: Where its streams go; not closed if this raises.
        around: What it finds.
        size: Of its terminal; see :func:`terminal`.
        id: The name of its terminal's session.
    """
    directory = "" if around.cwd is None else os.fsdecode(around.cwd)
    if around.cwd is not None and not directory:  # which to a Command is that of the server
        raise start_error(errno.ENOENT, directory)
    rows, cols = (0, 0) if size is None else size
    uid, user = _account("user", around.user, place.local)
    gid, group = _account("group", around.group, place.local)
    make: Callable[..., Command] = Command
    if place.local:
        make = functools.partial(
            ChildCommand,
            preexec_fn=around.preexec_fn,
            close_fds=around.close_fds,
            pass_fds=tuple(around.pass_fds),
            pipesize=around.pipesize,
        )
    command = make(
        program,
        tuple(argv[1:]),
        id=id,
        tty=size is not None,
        rows=rows,
        cols=cols,
        stdin=endpoints.source != DEVNULL,
        uid=uid,
        gid=gid,
        env=_environment(around.env),
        working_dir=directory,
        discard=endpoints.discarded(),
        merge=endpoints.merged,
        umask=around.umask & 0o777 if around.umask >= 0 else -1,
        clean_env=around.clean_env,
        argv0="" if argv[0] == program else argv[0],
        user=user,
        group=group,
        groups=_groups(around.extra_groups, place.local),
        restore_signals=around.restore_signals,
    )
    return place.start(functools.partial(_start_at, command, endpoints), id)


def _start_at(command: Command, endpoints: Endpoints, execer: Execer) -> Process:
    """Start a command at an execer; where that cannot do all of it, with the help of a shell."""
    if command.additions <= execer.features:
        return execer.start(command)
    lacking = command.additions - execer.features - {"merge", "umask", "clean_env"}
    if lacking:
        arguments = " and ".join(_ARGUMENTS[feature] for feature in sorted(lacking))
        raise ValueError(f"{arguments} cannot be done at a server that does not name this")
    prelude = Prelude(command.merge, command.umask, command.clean_env)
    command = replace(command, merge=False, umask=-1, clean_env=False)
    # Nobody has asked for a shell that merges what goes to one file.
    apart = replace(prelude, merge=False) if endpoints.shared else prelude
    if not prelude.can_wrap(command):
        prelude = apart
    try:
        process = prelude.start(command, execer.start)
    except StartError as error:
        # A server that lets no shell through.
        if apart == prelude or not is_not_allowed(error):
            raise
        prelude = apart
        process = prelude.start(command, execer.start)
    endpoints.merged = prelude.merge
    return process


def _environment(env: Env | None) -> tuple[str, ...]:
    entries = []
    for key, value in (env or {}).items():
        name = os.fsdecode(key)
        if not name or "=" in name:
            raise ValueError(f"env: illegal environment variable name {name!r}")
        entries.append(f"{name}={os.fsdecode(value)}")
    return tuple(entries)


def _account(name: str, who: str | int | None, local: bool) -> tuple[int, str]:
    """Return a start message's number and name of a user or group.

    The number is 0 where there is none, or the name says it.
    """
    if who is None:
        return 0, ""
    if isinstance(who, str) and not local:
        return 0, who
    number = _local_number(name, who)
    if number == 0:  # in a start message it stands for that of the server
        return 0, "0"
    return number, ""


def _groups(groups: Iterable[str | int] | None, local: bool) -> tuple[str | int, ...] | None:
    if groups is None:
        return None
    if isinstance(groups, str):
        raise ValueError("Groups must be a list, not a string")
    return tuple(
        group if isinstance(group, str) and not local else _local_number("extra_groups", group)
        for group in groups
    )


def _local_number(name: str, who: str | int) -> int:
    """Return the number of a user or group of this machine.

    Raises:
        KeyError: There is none of this name.
    """
    if isinstance(who, str):
        with importing:  # not on Windows
            import grp
            import pwd

        return pwd.getpwnam(who).pw_uid if name == "user" else grp.getgrnam(who).gr_gid
    if not isinstance(who, int):
        raise TypeError(f"{name} must be a string or an integer, not {type(who).__name__}")
    if who < 0:
        raise ValueError(f"{name} cannot be negative, got {who}")
    if who >= 0xFFFF_FFFF:
        # Each as subprocess has it.
        raise (ValueError if name == "extra_groups" else OverflowError)(
            f"{name} is too large: {who}"
        )
    return who
