"""Commands on this machine: :class:`LocalExecer`."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from collections.abc import Collection

from ...errors import StartError, start_error
from ...process import Execer, Process
from ...protocol.command import ADDITIONS, Command, check_command, variables
from .commands import ChildCommand
from .names import with_numbers
from .process import LocalProcess
from .spawn import is_launched

__all__ = [
    "LocalExecer",
]


# What the server takes its token from. Whoever has it can start commands.
_TOKEN = "WSEP_TOKEN"


class LocalExecer(Execer):
    """Starts commands on this machine.

    Each command leads a session and a process group of its own, has this process's environment
    and what :attr:`.Command.env` adds, and inherits no descriptor but its three. A terminal has
    ``WSEP_TTY=true`` in its environment, whatever was given, ``TERM=xterm-256color`` if there is
    no ``TERM``, and not this process's ``LINES`` and ``COLUMNS``. ``WSEP_TOKEN``, which the server
    takes its token from, is passed on to none.

    A command with a ``uid`` or ``gid`` has none of this process's rights already when its working
    directory is entered and its program searched for. That takes a Python of its own, started
    from :data:`sys.executable`, some 12 ms; so does an entry of :attr:`.Command.env` that is not
    ``NAME=VALUE``, or whose name begins with ``=``, for Python's own calls refuse these.

    Spawning is safe in a process full of threads: no Python code runs between fork and exec.

    The exit status of a command that somebody else reaps, as ``os.wait()`` does or the kernel where
    SIGCHLD is ignored, cannot be known: it is :exc:`.ExitError` with -1 and no signal, which says
    so, and never a success.

    On Windows the class can be imported and made; starting a command raises ``StartError``.

    Args:
        child_process_priority: Niceness of the commands, -20 to 19; ``None`` leaves it. It is
            set right after the start, as in the reference.
        pass_env: Names of the variables of this process's environment that commands are given,
            with ``*``, ``?`` and ``[]`` as in :mod:`fnmatch`; such as
            ``["PATH", "LANG", "LC_*"]``. Without ``PATH``, programs are searched for in
            :data:`os.defpath`. ``None`` passes all on, as in the reference.

    Raises:
        TypeError: ``pass_env`` is one string.
        ValueError: No such niceness.
    """

    def __init__(
        self,
        child_process_priority: int | None = None,
        *,
        pass_env: Collection[str] | None = None,
    ) -> None:
        if child_process_priority is not None and not -20 <= child_process_priority <= 19:
            raise ValueError(
                f"child_process_priority must be -20 to 19, not {child_process_priority}"
            )
        if isinstance(pass_env, str):
            raise TypeError(f"pass_env must be a collection of names, not {pass_env!r}")
        self._priority = child_process_priority
        self._pass_env = None if pass_env is None else tuple(pass_env)

    @property
    def features(self) -> frozenset[str]:
        return frozenset(ADDITIONS.values())

    def start(self, command: Command) -> Process:
        check_command(command)
        if sys.platform == "win32":
            raise StartError("commands can be run on POSIX systems only, not on Windows itself")
        if not command.command:
            raise StartError("no command")
        command = with_numbers(command)
        environment = self._environment(command)
        try:
            started = LocalProcess(command, environment)
        except OSError as error:
            if error.errno is None:
                raise  # none of the system's: that of a signal's handler
            raise _translate(error, command) from error
        except (ValueError, subprocess.SubprocessError) as error:
            if isinstance(command, ChildCommand):
                raise  # that of its own preexec_fn, as from subprocess
            raise StartError(str(error)) from error
        try:
            started.wait_for_terminal()
        except BaseException:  # Ctrl-C
            started.kill()
            started.close()
            raise
        if self._priority is not None:
            try:
                os.setpriority(os.PRIO_PROCESS, started.pid, self._priority)
            except ProcessLookupError:  # it has ended already
                pass
            except OSError as error:
                started.kill()
                started.close()
                raise StartError(f"set priority {self._priority}: {error.strerror}") from error
        return started

    def _environment(self, command: Command) -> dict[str, str] | None:
        """Return the command's environment; ``None`` is ours as it is, which costs nothing."""
        if command.clean_env:
            return variables(command.env)
        plain = self._pass_env is None and not command.env and not command.tty
        if plain and not is_launched(command) and _TOKEN not in os.environ:
            return None
        environment = {
            name: value
            for name, value in os.environ.items()
            # An entry that begins with "=" has an empty name: Python would refuse it in a child's.
            if name
            and (
                self._pass_env is None
                or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._pass_env)
            )
        }
        environment.pop(_TOKEN, None)
        if command.tty:
            environment.setdefault("TERM", "xterm-256color")
            # They would tell programs the size of another terminal, and of none that can be
            # resized.
            environment.pop("LINES", None)
            environment.pop("COLUMNS", None)
        environment |= variables(command.env)
        if command.tty:
            # As in the reference it comes last, and nothing that was given changes it.
            environment.pop("WSEP_TTY", None)
            environment["WSEP_TTY"] = "true"
        return environment


def _translate(error: OSError, command: Command) -> StartError:
    assert error.errno is not None
    # What was raised says which of the two could not be reached, by the directory's name.
    directory = command.working_dir
    filename = directory if directory and error.filename == directory else command.command
    return start_error(error.errno, filename)
