"""Spawning a command, with its user's rights or with ours; no Python runs in between."""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ... import streams
from ...children import Popen
from ...errors import StartError, suppress_system
from ...lazy import importing
from ...protocol.command import Command, nameless
from . import launch as local_launch
from .commands import ChildCommand, LoginCommand

__all__ = [
    "is_launched",
    "launch_command",
    "make_pipe",
    "spawn",
]


def make_pipe(
    readers: contextlib.ExitStack, writers: contextlib.ExitStack, size: int = -1
) -> tuple[streams.Handover, streams.Handover]:
    """Make a pipe whose ends the two stacks close, unless somebody takes them over.

    Args:
        size: Bytes that it is to hold, where that can be said; -1 leaves it.
    """
    reader, writer = map(streams.Handover, os.pipe())
    readers.callback(reader.close)
    writers.callback(writer.close)
    if size > 0 and sys.platform == "linux":
        with importing:  # for POSIX alone
            import fcntl
        fcntl.fcntl(reader.fileno(), fcntl.F_SETPIPE_SZ, size)
    return reader, writer


def spawn(
    argv: list[str],
    stdio: Sequence[int],
    command: Command,
    environment: dict[str, str] | None,
    leader: bool,
) -> Popen[bytes]:
    """Spawn ``argv``, which is the command, or what becomes it.

    Args:
        leader: Make a session for it.
    """
    return _popen(
        argv,
        stdio,
        command,
        leader,
        executable=command.command if command.argv0 else None,
        cwd=command.working_dir or None,
        env=environment,
    )


def _popen(
    argv: list[str],
    stdio: Sequence[int],
    command: Command,
    leader: bool,
    pass_fds: tuple[int, ...] = (),
    **options: Any,
) -> Popen[bytes]:
    close_fds, preexec_fn = True, None
    if isinstance(command, ChildCommand):
        close_fds = command.close_fds or bool(pass_fds)
        pass_fds = (*pass_fds, *command.pass_fds)
        preexec_fn = command.preexec_fn
    if preexec_fn is not None and leader:
        preexec_fn, leader = functools.partial(_lead_after, preexec_fn), False
    return Popen(
        argv,
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        umask=command.umask,
        restore_signals=command.restore_signals,
        close_fds=close_fds,
        pass_fds=pass_fds,
        preexec_fn=preexec_fn,
        start_new_session=leader,
        **options,
    )


def _lead_after(preexec_fn: Callable[[], Any]) -> None:
    """Call what is to be called in the child, and make a session for it if that did not do so.

    The session cannot come first: a ``preexec_fn`` is ``os.setsid`` often enough, which would fail.
    """
    preexec_fn()
    if os.getsid(0) != os.getpid():
        # The leader of a group, as os.setpgrp() makes one, cannot make a session.
        with contextlib.suppress(PermissionError):
            os.setsid()


def is_launched(command: Command) -> bool:
    """Whether the command needs :mod:`.launch` to become what it is."""
    return (
        bool(command.uid or command.gid)
        or command.groups is not None
        or isinstance(command, LoginCommand)
        # What gives a command its terminal gives it a name as well, and makes the session itself.
        or (command.tty and bool(command.argv0 or getattr(command, "preexec_fn", None)))
        # subprocess refuses what is not NAME=VALUE, and names that begin with "=".
        or any(entry.find("=") < 1 for entry in command.env if entry)
    )


def launch_command(
    stdio: Sequence[int], command: Command, environment: dict[str, str]
) -> Popen[bytes]:
    """Spawn the command by way of :mod:`.launch`; return when it runs.

    Raises:
        OSError: What the launcher met; its filename is the working directory if it was that.
        StartError: The launcher itself could not be started, or has ended.
    """
    login = command if isinstance(command, LoginCommand) else None
    program = os.fsencode(command.command)
    directories = [] if os.sep in command.command else os.get_exec_path(environment)
    groups = None if command.groups is None else list(command.groups)
    if groups is None and (command.uid or command.gid):
        groups = []  # what is given up must not be kept through a supplementary group
    request = {
        # Encoded here: the launcher ignores what Python's environment says about encodings.
        "programs": [os.path.join(os.fsencode(d), program) for d in directories] or [program],
        "argv": [os.fsencode(word) for word in (command.argv0 or command.command, *command.args)],
        "environment": {
            os.fsencode(name): os.fsencode(value) for name, value in environment.items()
        },
        "nameless": [os.fsencode(entry) for entry in nameless(command.env)],
        "uid": command.uid,
        "gid": command.gid,
        "groups": groups,
        "home": os.fsencode(login.home if login else ""),
        "working_dir": os.fsencode(command.working_dir),
        "terminal": command.tty,
        "restore_signals": command.restore_signals,
    }
    with (
        contextlib.ExitStack() as launchers,
        contextlib.ExitStack() as sender,
        contextlib.ExitStack() as receiver,
    ):
        request_reader, request_writer = make_pipe(launchers, sender)
        answer_reader, answer_writer = make_pipe(receiver, launchers)
        try:
            child = _popen(
                # Isolated (-I) and without site (-S): Python's own library is all it imports.
                [
                    *(sys.executable or "", "-I", "-S", local_launch.__file__),
                    *(str(request_reader.fileno()), str(answer_writer.fileno())),
                ],
                stdio,
                command,
                leader=True,
                pass_fds=(request_reader.fileno(), answer_writer.fileno()),
            )
        except OSError as error:
            if error.filename is None:
                raise
            raise StartError(f"cannot start Python to become the command: {error}") from error
        try:
            launchers.close()
            # Broken when the launcher has ended, which the answer tells.
            with (
                suppress_system(BrokenPipeError),
                open(request_writer.fileno(), "wb", closefd=False) as writer,
            ):
                writer.write(marshal.dumps(request))
            sender.close()
            with open(answer_reader.fileno(), "rb", closefd=False) as reader:
                answer = reader.read()
            if answer != local_launch.READY:
                raise _launch_failure(answer, command)
        except BaseException:
            child.kill()
            child.wait()
            raise
    return child


def _launch_failure(answer: bytes, command: Command) -> Exception:
    """Return the error that the launcher tells of."""
    step, _, number = answer.removeprefix(local_launch.READY).partition(b" ")
    if not number:
        return StartError("the Python that was to become the command has ended")
    filename = command.working_dir if step == b"chdir" else None
    return OSError(int(number), os.strerror(int(number)), filename)
