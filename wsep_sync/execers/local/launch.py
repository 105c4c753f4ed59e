"""A program that becomes a command with another user's rights, or an odd environment.

:mod:`subprocess` enters the working directory before it takes the user on: with the server's
rights, which may be root's. The user would get into, and hear of, what only root may see. Here it
is the other way round, as in login(1) and in the reference: first the user, then all that needs a
right, the search for the program included.

It is a program of its own because no Python code may run in the forked child of a process full of
threads. A shell would do for the directory, but could not say which error it met, and drops
variables whose names are no shell identifiers. To take the user on in one thread of the server
(setfsuid(2)) is for Linux alone, and leaves the server's supplementary groups.

It costs a Python's start, some 12 ms, so it imports next to nothing; and nothing once it is the
user, who may have no access to this Python.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal
import sys

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "READY",
    "become",
]

#: What the answer is when all went well. What follows it, if anything, is an error.
READY = b"ready\n"


def become(
    answer: int,
    programs: list[bytes],
    argv: list[bytes],
    environment: dict[bytes, bytes],
    nameless: list[bytes],
    uid: int,
    gid: int,
    groups: list[int] | None,
    home: bytes,
    working_dir: bytes,
    terminal: bool,
    restore_signals: bool,
) -> None:  # pragma: no cover - isolated, and then another program
    """Become the command; return, having answered why, if that cannot be done.

    Args:
        answer: Descriptor to say how it went: :data:`READY` last thing before the command is
            executed, and if something failed, ``exec N`` or ``chdir N`` with the errno.
        programs: Paths, of which the first that can be executed is the program.
        argv: The command and its arguments.
        environment: The variables of its environment.
        nameless: The rest of it: entries that are no variables.
        uid: User to become; 0 leaves it.
        gid: Group to take on; 0 leaves it.
        groups: Supplementary groups to have; ``None`` leaves them.
        home: Directory to start from, or ``/`` if it cannot be entered; empty leaves it.
        working_dir: Directory to enter from there; empty is none.
        terminal: Make a controlling terminal of the input.
        restore_signals: Ignore no signal that Python ignores.
    """
    step = b"exec"
    execute = _with_nameless(nameless) if nameless else os.execve
    try:
        if restore_signals:
            # Python ignores these two, and the command would too.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if terminal:
            # The leader of a session that has no terminal gets one by opening it.
            os.close(os.open(os.ttyname(0), os.O_RDWR))
        if groups is not None:
            os.setgroups(groups)
        if gid:
            os.setgid(gid)
        if uid:
            os.setuid(uid)
        if home:
            try:
                os.chdir(home)
            except OSError:
                os.chdir("/")
        if working_dir:
            step = b"chdir"
            os.chdir(working_dir)
        os.write(answer, READY)
        failure = 0
        for program in programs:
            try:
                execute(program, argv, environment)
            except OSError as error:
                # Like subprocess: the first error that tells of a program, or else the last.
                if failure in (0, errno.ENOENT, errno.ENOTDIR):
                    failure = error.errno or 0
        os.write(answer, b"exec %d" % failure)
    except OSError as error:
        os.write(answer, b"%s %d" % (step, error.errno or 0))


def _with_nameless(
    nameless: list[bytes],
) -> Callable[[bytes, list[bytes], dict[bytes, bytes]], None]:  # pragma: no cover - likewise
    """Return an ``os.execve`` that adds entries to the environment for which it has no way."""
    import ctypes

    execve = ctypes.CDLL(None, use_errno=True).execve

    def strings(values: list[bytes]) -> Any:
        return (ctypes.c_char_p * (len(values) + 1))(*values, None)

    def execute(program: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> None:
        variables = [name + b"=" + value for name, value in environment.items()]
        execve(program, strings(argv), strings(nameless + variables))
        raise OSError(ctypes.get_errno(), "execve")

    return execute


def _main() -> None:  # pragma: no cover - likewise
    answer = int(sys.argv[2])
    os.set_inheritable(answer, False)  # executing the command closes it
    # The command does not come as arguments, for those every user can read.
    with open(int(sys.argv[1]), "rb") as file:
        request = marshal.load(file)
    become(answer, **request)
    os._exit(1)


if __name__ == "__main__":  # pragma: no cover - likewise
    _main()
