"""What runs on an SSH host before a command does, and what keeps watch over commands there.

SSH knows neither a command's arguments nor its working directory, environment or process id: there
is a line for the user's login shell, and that is all. So the login shell is given a short line that
becomes ``sh``, which says what its process id is and reads one line more from its input: a script
that enters the directory, looks for the program, and becomes it. That way the line for the login
shell is the same for every command, and one that a shell which is no POSIX shell understands as
well; values of the environment, which may be secret, are never arguments, which every user can
read; and nothing has happened yet when the process id is known, so that no command is ever lost.

Once the shell has become the command, a missing program would be its exit status 127, which a
command may have for reasons of its own. So the program is looked at first. A terminal is set to
pass the line through as it is, and without an echo, while it is read.
"""

from __future__ import annotations

import errno
import os
import re
import shlex

from ...errors import StartError, start_error
from ...protocol.command import Command, nameless, variables

__all__ = [
    "KEEPER",
    "QUERY_MODES",
    "check_started",
    "login_line",
    "process_id",
    "request",
]

# How long a request may be, in bytes. What Linux takes as one argument, and twice what fits a
# message of the wire.
_MOST = 128 << 10

# Reads a line: byte by byte, as POSIX wants it, so that what follows is left for the command.
_PIPES = 'echo MARK $$; IFS= read -r wsep_line && eval "$wsep_line"'
_TERMINAL = (
    "wsep_modes=$(stty -g); stty raw -echo; echo MARK $$ $SSH_TTY; "
    'IFS= read -r wsep_line && stty "$wsep_modes" && eval "$wsep_line"'
)

# With "head -c" in place of "read" for the first bytes: programs may have no newline for long.
_SCRIPT = r"""
wsep_fail() { echo "$wsep_mark failed $1 $2"; exit 1; };
wsep_look() {
    if [ -f "$1" ] && [ -x "$1" ]; then wsep_found=$1; return 0; fi;
    [ ! -e "$1" ] || wsep_error=EACCES;
    return 1;
};
wsep_check() {
    [ -r "$1" ] || return 0;
    case $(head -c 4 "$1") in
    ?ELF) ;;
    "#!"*)
        IFS= read -r wsep_line <"$1";
        set -f;
        set -- ${wsep_line#??};
        [ -e "$1" ] || wsep_fail ENOENT program;;
    *)
        [ "$(head -c 256 "$1" | tr -d "\000" | wc -c)" != "$(head -c 256 "$1" | wc -c)" ] ||
        wsep_fail ENOEXEC program;;
    esac;
};
wsep_start() {
    [ -z "$wsep_directory" ] || cd "$wsep_directory" || {
        [ -e "$wsep_directory" ] || wsep_fail ENOENT directory;
        [ -d "$wsep_directory" ] || wsep_fail ENOTDIR directory;
        wsep_fail EACCES directory;
    };
    wsep_found=; wsep_error=ENOENT;
    case $1 in
    */*) wsep_look "$1";;
    *)
        IFS=:; set -f;
        for wsep_entry in $wsep_path; do wsep_look "${wsep_entry:-.}/$1" && break; done;
        unset IFS;;
    esac;
    [ -n "$wsep_found" ] || wsep_fail "$wsep_error" program;
    wsep_check "$wsep_found";
};
"""

# Variables that shells, or the script, take for themselves: setting them fails, or changes what
# arrives. They go as arguments of env(1), which is no loss: nobody keeps a secret there.
_TAKEN = re.compile(
    r"_|BASH.*|DIRSTACK|EGID|EPOCH.*|EUID|FUNCNAME|GID|GROUPS|HISTCMD|KSH.*|LINENO|OPTARG|OPTIND"
    r"|PIPESTATUS|PPID|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|UID|USERNAME|wsep_.*|ZSH.*"
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# Runs for as long as its connection does, for all commands of that. It reads lines: "run GROUP" and
# "done GROUP" say which process groups there are; "signal GROUP NAME" signals one; "end GROUP" ends
# one with SIGTERM, and with SIGKILL if it is still there 2 seconds later; "end GROUP HUP" hangs it
# up besides, twice, as a shell may sleep through the first. At the end of its input, which is that
# of the connection, it ends the groups there still are, which sshd leaves.
_KEEPER = """
exec >/dev/null 2>&1;
wsep_end() {
    [ -z "$2" ] || kill "-$2" "-$1";
    kill -TERM "-$1";
    wsep_count=0;
    while [ "$wsep_count" -lt 20 ] && kill -0 "-$1"; do
        [ "$wsep_count$2" != 5HUP ] || kill -HUP "-$1";
        sleep 0.1 || sleep 1;
        wsep_count=$((wsep_count + 1));
    done;
    kill -KILL "-$1";
};
wsep_groups=" ";
while read -r wsep_word wsep_group wsep_name; do
    case $wsep_word in
    run) wsep_groups="$wsep_groups$wsep_group ";;
    done)
        case $wsep_groups in *" $wsep_group "*)
            wsep_groups="${wsep_groups%% $wsep_group *} ${wsep_groups#* $wsep_group }";;
        esac;;
    signal) kill "-$wsep_name" "-$wsep_group";;
    end) wsep_end "$wsep_group" "$wsep_name" & ;;
    esac;
done;
for wsep_group in $wsep_groups; do wsep_end "$wsep_group" HUP & done;
wait
"""


def _one_line(script: str) -> str:
    """Return a script, whose commands all end in semicolons, as one line."""
    return " ".join(line.strip() for line in script.splitlines()).strip()


def _login_line(script: str, *args: str) -> str:
    # In a script without single quotes, backslashes and newlines, all login shells agree on what
    # single quotes mean.
    return shlex.join(["exec", "sh", "-c", script, *args])


#: Ends process groups, and watches over the connection; :meth:`._Connection._tell` talks to it.
KEEPER = _login_line(_one_line(_KEEPER))

#: Followed by the name of a terminal, says what it is set to.
QUERY_MODES = _login_line('stty -a <"$0"')


def login_line(mark: str, tty: bool) -> str:
    """Return what the login shell is given to run.

    It says ``mark``, its process id and the name of its terminal, if it has one, in a line when it
    can be sent the request. If it is not, nothing comes of it.
    """
    return _login_line((_TERMINAL if tty else _PIPES).replace("MARK", mark))


def request(command: Command, mark: str) -> bytes:
    """Return the line that starts a command.

    What comes of it is one line of output: ``mark`` and ``runs``, after which everything is the
    command's; or ``mark`` and ``failed ERRNO WHAT``. Without a terminal, ``mark`` is also a line of
    the error output, from which on everything is the command's.

    Raises:
        StartError: It is too long, or cannot be said.
    """
    given = variables(command.env)
    if nameless(command.env) or any(name.startswith("=") for name in given):
        raise StartError("over SSH, every entry of env has to be a variable, NAME=VALUE")
    if command.tty:
        given["WSEP_TTY"] = "true"  # whatever was given, as in the reference
    directory = command.working_dir
    if directory and not directory.startswith("/"):
        directory = f"./{directory}"  # "-" and CDPATH would mean something else
    program = ["exec", '"$@"']
    odd = [name for name in given if not _can_be_exported(name)]
    if odd or command.command.startswith("-"):
        if "=" in command.command:
            raise StartError(f"{command.command}: over SSH, not with the variables {odd}")
        program = ["exec", "env", "--", *(_quote(f"{name}={given[name]}") for name in odd), '"$@"']
    if not (command.stdin or command.tty):
        program.append("</dev/null")
    exports = [f"{name}={_quote(value)}" for name, value in given.items() if name not in odd]
    path = given.get("PATH")
    steps = [
        'wsep_nl=$(printf "\\012_")',
        "wsep_nl=${wsep_nl%_}",
        f"wsep_mark={mark}",
        f"wsep_directory={_quote(directory)}",
        f"wsep_path={'$PATH' if path is None else _quote(path)}",
        " ".join(["set", "--", *map(_quote, (command.command, *command.args))]),
        'wsep_start "$@"',
        *([" ".join(["export", *exports])] if exports else []),
        *([] if command.tty else ['echo "$wsep_mark" >&2']),
        'echo "$wsep_mark runs"',
        " ".join(program),
    ]
    line = os.fsencode(f"{_one_line(_SCRIPT)} {'; '.join(steps)}\n")
    if len(line) > _MOST:
        raise start_error(errno.E2BIG, command.command)
    return line


def process_id(answer: list[str]) -> tuple[int, str]:
    """Return the process id and the name of the terminal, "" if there is none.

    Args:
        answer: The words of the line that comes of :func:`login_line`.

    Raises:
        StartError: They make no sense.
    """
    match answer:
        case [pid, *terminal] if pid.isdecimal():
            return int(pid), "".join(terminal)
    raise _nonsense(answer)


def check_started(answer: list[str], command: Command) -> None:
    """Raise the error that there was, if there was one.

    Args:
        answer: The words of the line that comes of :func:`request`.
        command: What was requested.

    Raises:
        StartError: There was.
    """
    match answer:
        case ["runs"]:
            return
        case ["failed", name, what] if name in errno.errorcode.values():
            file = command.working_dir if what == "directory" else command.command
            raise start_error(getattr(errno, name), file)
    raise _nonsense(answer)


def _nonsense(answer: list[str]) -> StartError:
    return StartError(f"the host answered nonsense: {' '.join(answer)}")


def _can_be_exported(name: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(name)) and not _TAKEN.fullmatch(name)


def _quote(text: str) -> str:
    """Return text as one word of a POSIX shell, and without newlines."""
    return shlex.quote(text).replace("\n", """'"$wsep_nl"'""")
