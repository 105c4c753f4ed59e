"""What a shell does at the other end before it becomes the command.

A few things that a caller of ``subprocess`` or ``pexpect`` may ask for have no place in the
reference's start message: both outputs in one, a umask, an environment with nothing else in it, no
echo, no SIGHUP. They have to happen where the command runs. Where no server does them, a POSIX
shell does them there and then executes the command in its own place: same process id, same group,
same signals.

Once the shell has the command's place, a missing command would be its exit status 127, which a
command may have for reasons of its own. So the shell looks for the command first and says what it
found in one line, which :meth:`Prelude.start` reads before anybody else reads that stream.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ..errors import StartError, start_error
from ..process import Process
from ..protocol.command import Command

__all__ = ["Prelude"]

_SHELL = "/bin/sh"

_NO_ECHO = "stty -echo 2>/dev/null || { echo stty >&2; exit 127; }\n"

# $1: the names of the environment to keep. Only names are ever put into an argument, since
# arguments can be read by every user, and values may be secret. The variables of the shell itself
# (PWD, SHLVL, _) go in the same way. "command -p": the PATH may be one that has no awk.
_CLEAN = r"""
wsep_keep=" $1 "
shift
wsep_env=$(command -pv env) && wsep_names=$(
    command -p awk 'BEGIN { for (name in ENVIRON) print name; print "PWD OLDPWD SHLVL _" }'
) || { echo tools >&2; exit 127; }
"""

# As execvp(3) does it: a file that may not be executed is remembered, and the search goes on.
_LOOK = r"""
(
    found=missing
    look() {
        if [ -f "$1" ] && [ -x "$1" ]; then exit 0; fi
        if [ -e "$1" ]; then found=denied; fi
    }
    case $1 in
    */*) look "$1" ;;
    ?*) IFS=:; set -f; for directory in ${PATH-/bin:/usr/bin}; do look "${directory:-.}/$1"; done
    esac
    echo "$found" >&2
    exit 127
) || exit
echo found >&2
"""

_EXEC_CLEAN = r"""
set -f
set -- -- "$@"
for wsep_name in $wsep_names; do
    case $wsep_keep in
    *" $wsep_name "*) ;;
    *) set -- -u "$wsep_name" "$@" ;;
    esac
done
exec "$wsep_env" "$@"
"""

_ERRNOS = {b"missing": errno.ENOENT, b"denied": errno.EACCES}

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Prelude:
    """What is to be done before the command, by the process that becomes it.

    Args:
        merge: Send the error output where the output goes.
        umask: File mode creation mask; -1 leaves it.
        clean_env: Let the command have the environment of :attr:`.Command.env` and no more.
        echo: False lets its terminal not show what is typed.
        ignore_hangup: Let it ignore SIGHUP.
    """

    merge: bool = False
    umask: int = -1
    clean_env: bool = False
    echo: bool = True
    ignore_hangup: bool = False

    def __bool__(self) -> bool:
        return self != Prelude()

    def start(self, command: Command, start: Callable[[Command], Process]) -> Process:
        """Start a command, behind this if there is anything to do; block until it runs.

        Args:
            command: The command itself.
            start: Starts what it is given.

        Raises:
            StartError: There is no such command, or it may not be executed.
            ExitMissing: The connection ended first.
            ValueError: As :meth:`wrap`.
        """
        if not self:
            return start(command)
        try:
            process = start(self.wrap(command))
        except StartError as error:
            # The shell is not the one to blame for the arguments.
            if isinstance(error, OSError) and error.errno == errno.E2BIG:
                raise start_error(errno.E2BIG, command.command) from error
            raise
        self._check_started(process, command)
        return process

    def wrap(self, command: Command) -> Command:
        """Return the command that does this and then becomes ``command``.

        Raises:
            ValueError: An environment's name that a shell would not pass on, or a program's that
                env(1) would take for a variable.
        """
        names = [entry.partition("=")[0] for entry in command.env]
        self._check(command, names)
        script, args = "", [command.command, *command.args]
        if self.clean_env:
            args = [" ".join(names), *args]
            script += _CLEAN
            if "PATH" not in names:
                script += "unset PATH\n"
        if not self.echo:
            script += _NO_ECHO
        script += _LOOK
        if self.umask >= 0:
            script += f"umask {self.umask & 0o777:03o}\n"
        if self.ignore_hangup:
            script += "trap '' HUP\n"
        if self.merge:
            script += "exec 2>&1\n"
        elif "stderr" in command.discard and not command.tty:
            script += "exec 2> /dev/null\n"
        script += _EXEC_CLEAN if self.clean_env else 'exec "$@"\n'
        # The shell speaks first, on what is to be discarded afterwards.
        discard = tuple(name for name in command.discard if name != "stderr")
        return replace(command, command=_SHELL, args=("-c", script, "sh", *args), discard=discard)

    def can_wrap(self, command: Command) -> bool:
        """Whether :meth:`wrap` can do it."""
        try:
            self.wrap(command)
        except ValueError:
            return False
        return True

    def _check(self, command: Command, names: Collection[str]) -> None:
        for name in names:
            if not _IDENTIFIER.fullmatch(name):
                raise ValueError(
                    f"env: {name!r} is not a name that a shell passes on, as it has to with "
                    "stderr=STDOUT, umask, clean_env, echo=False and ignore_sighup"
                )
        if self.clean_env and "=" in command.command:
            raise ValueError(f"clean_env cannot run a program with '=' in its name: {command}")

    def _check_started(self, process: Process, command: Command) -> None:
        """Read what the shell found, and close the process if that is an error."""
        if process.reattached:  # the shell has spoken long ago
            return
        try:
            # Byte by byte: what stands behind the line is the command's, and nobody's buffer may
            # have it. A terminal has no stderr.
            stream = process.stdout.raw if command.tty else process.stderr.raw
            line = b""
            # The end without a line: it was killed, as its exit status is going to tell.
            while not line.endswith(b"\n") and (byte := stream.read(1)):
                line += byte
            word = line.strip()
            if word in _ERRNOS:
                raise start_error(_ERRNOS[word], command.command)
            if word == b"stty":
                raise StartError("echo=False needs stty(1), which is not there")
            if word and word != b"found":
                raise StartError("clean_env needs env(1) and awk(1), which are not there")
        except BaseException:
            process.close()
            raise
        if (self.merge or "stderr" in command.discard) and not command.tty:
            process.stderr.close()
