"""Spawning a command, with its user's rights or with ours; no Python runs in between."""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from collections.abc import Sequence

from ... import streams
from ...children import Popen
from ...errors import StartError, suppress_system
from ...protocol.command import Command, nameless
from . import launch as local_launch
from .commands import LoginCommand

__all__ = [
    "is_launched",
    "launch_command",
    "make_pipe",
    "spawn",
]


def make_pipe(
    readers: contextlib.ExitStack, writers: contextlib.ExitStack
) -> tuple[streams.Handover, streams.Handover]:
    """Make a pipe whose ends the two stacks close, unless somebody takes them over."""
    reader, writer = map(streams.Handover, os.pipe())
    readers.callback(reader.close)
    writers.callback(writer.close)
    return reader, writer


def spawn(
    argv: list[str],
    stdio: Sequence[int],
    command: Command,
    environment: dict[str, str] | None,
    leader: bool,
) -> Popen[bytes]:
    return Popen(
        argv,
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        cwd=command.working_dir or None,
        env=environment,
        umask=command.umask,
        start_new_session=leader,
    )


def is_launched(command: Command) -> bool:
    """Whether the command needs :mod:`.launch` to become what it is."""
    return (
        bool(command.uid or command.gid)
        or isinstance(command, LoginCommand)
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
    request = {
        # Encoded here: the launcher ignores what Python's environment says about encodings.
        "programs": [os.path.join(os.fsencode(d), program) for d in directories] or [program],
        "argv": [os.fsencode(word) for word in (command.command, *command.args)],
        "environment": {
            os.fsencode(name): os.fsencode(value) for name, value in environment.items()
        },
        "nameless": [os.fsencode(entry) for entry in nameless(command.env)],
        "uid": command.uid,
        "gid": command.gid,
        # A user or group that is given up must not be kept through a supplementary group.
        "groups": list(login.groups) if login else [],
        "home": os.fsencode(login.home if login else ""),
        "working_dir": os.fsencode(command.working_dir),
        "terminal": command.tty,
    }
    with (
        contextlib.ExitStack() as launchers,
        contextlib.ExitStack() as sender,
        contextlib.ExitStack() as receiver,
    ):
        request_reader, request_writer = make_pipe(launchers, sender)
        answer_reader, answer_writer = make_pipe(receiver, launchers)
        try:
            child = Popen(
                # Isolated (-I) and without site (-S): Python's own library is all it imports.
                [
                    *(sys.executable or "", "-I", "-S", local_launch.__file__),
                    *(str(request_reader.fileno()), str(answer_writer.fileno())),
                ],
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                umask=command.umask,
                pass_fds=(request_reader.fileno(), answer_writer.fileno()),
                start_new_session=True,
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
