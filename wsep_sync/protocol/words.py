"""What the protocol says in words: how a command ended, why it could not be started."""

from __future__ import annotations

import errno
import os

from ..errors import StartError, not_allowed, start_error
from .command import Command

__all__ = [
    "NO_SESSION",
    "signal_from_message",
    "signal_message",
    "start_error_from_reason",
    "start_failure",
]


# The words of Go's syscall.Signal.String on Linux, which the reference puts into exit_code.
_SIGNAL_WORDS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


_SIGNAL_NUMBERS = {word: number for number, word in _SIGNAL_WORDS.items()}


def signal_message(signal: int, core_dumped: bool = False) -> str:
    """Return the reference's words for an end by a signal: ``signal: killed`` for 9."""
    word = _SIGNAL_WORDS.get(signal, f"signal {signal}")
    return f"signal: {word}{' (core dumped)' if core_dumped else ''}"


def signal_from_message(message: str) -> int | None:
    """Return the signal that :func:`signal_message`'s words name, or ``None``.

    A server that is the reference says the signal in words alone.
    """
    if not message.startswith("signal: "):
        return None
    word = message.removeprefix("signal: ").removesuffix(" (core dumped)")
    if word in _SIGNAL_NUMBERS:
        return _SIGNAL_NUMBERS[word]
    digits = word.removeprefix("signal ")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
    return number if 0 < number <= 64 else None


# What the reference, which is Go on Linux, and strerror on other systems say of an errno.
_ERRNO_WORDS = {os.strerror(number).lower(): number for number in errno.errorcode} | {
    "no such file or directory": errno.ENOENT,
    "executable file not found in $path": errno.ENOENT,
    "permission denied": errno.EACCES,
    "operation not permitted": errno.EPERM,
    "not a directory": errno.ENOTDIR,
    "exec format error": errno.ENOEXEC,
    "argument list too long": errno.E2BIG,
}


#: The reason to close with when there is no session to attach to.
NO_SESSION = "no such session"


# How a reason begins that tells of a ConnectError or of TransportClosed.
_OF_A_CONNECTION = ("cannot connect to ", "connection closed (")


# How many bytes of UTF-8 a close frame has for the reason (RFC 6455, section 5.5).
_MAX_REASON = 123


def start_failure(error: StartError, command: Command) -> str:
    """Return the close reason for a start that failed, in the manner of the reference.

    The cause stands last, where :func:`start_error_from_reason` finds it: a long name is
    shortened rather than let a close frame's 123 bytes cut the cause off.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return f"start command: {error}"
    chdir = error.filename == command.working_dir and command.working_dir
    prefix = f"start command: {'chdir' if chdir else 'exec'} "
    cause = f": {error.strerror.lower()}"
    name = str(error.filename or command.command)
    encoded = name.encode(errors="replace")
    room = _MAX_REASON - len(prefix) - len(cause.encode())
    if len(encoded) > room:
        half = max(2, room - len("...")) // 2
        start, end = encoded[:half], encoded[-half:]
        name = f"{start.decode(errors='ignore')}...{end.decode(errors='ignore')}"
    return prefix + name + cause


def start_error_from_reason(reason: str, command: Command) -> StartError:
    """Return the error that a server's close reason tells of."""
    cause = reason.rpartition(": ")[2].lower()
    if cause == "not allowed":
        return not_allowed(command.command)
    number = _ERRNO_WORDS.get(cause)
    # The connections of a server that passes commands on end with the words of an errno, too; but
    # it is not the command's, and there is no file to blame. Each server on the way has put its
    # own words in front.
    if number is None or reason.replace("start command: ", "").startswith(_OF_A_CONNECTION):
        return StartError(reason or "the server gave no reason")
    words = reason.partition(": ")[2]
    # A name that the reference has searched for, and found, before it says "fork/exec PATH".
    found = words.startswith("fork/exec ") and "/" not in command.command
    missing = number in (errno.ENOENT, errno.ENOTDIR)
    chdir = words.startswith("chdir ") or (found and missing and bool(command.working_dir))
    return start_error(number, command.working_dir if chdir else command.command)
