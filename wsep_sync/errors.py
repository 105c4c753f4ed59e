"""Every exception that this package raises of its own.

::

    Exception
    └── WsepError
        ├── ProtocolError               the peer sent what the protocol does not allow
        ├── ConnectError                no connection could be made (also a ConnectionError)
        ├── TransportClosed             the WebSocket is closed; code and reason say how
        ├── StartError                  the command could not be started
        │   ├── SessionNotFound             there is no session of that id to attach to
        │   └── StartOSError                also an OSError, where the errno is known
        │       ├── StartNotFoundError          also a FileNotFoundError
        │       ├── StartPermissionError        also a PermissionError
        │       └── StartNotADirectoryError     also a NotADirectoryError
        ├── ExitError                   the command ended with a non-zero status or by a signal
        ├── ExitMissing                 the connection ended before the exit status came
        ├── OutputUnread                wait() would hang: an output is full and nobody reads it
        └── SessionClosed               the terminal session ended

Arguments that a caller got wrong raise the built-in ``ValueError`` and ``TypeError``, and a
timeout that passed raises the built-in ``TimeoutError``.
"""

from __future__ import annotations

import contextlib
import copy
import errno as _errno
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "SHORTAGE",
    "ConnectError",
    "ExitError",
    "ExitMissing",
    "OutputUnread",
    "ProtocolError",
    "SessionClosed",
    "SessionNotFound",
    "StartError",
    "StartNotADirectoryError",
    "StartNotFoundError",
    "StartOSError",
    "StartPermissionError",
    "TransportClosed",
    "WsepError",
    "copy_error",
    "not_allowed",
    "start_error",
    "suppress_system",
]

#: Numbers of the errors that say that the machine has too little of something.
SHORTAGE = (_errno.EMFILE, _errno.ENFILE, _errno.ENOBUFS, _errno.ENOMEM)

_Error = TypeVar("_Error", bound=Exception)


class WsepError(Exception):
    """The base of every exception of this package."""


class ProtocolError(WsepError):
    """The peer sent something that the protocol does not allow.

    Attributes:
        close_code: The WebSocket close code to answer with (RFC 6455, section 7.4.1): 1011 as
            the reference does, 1009 for a message over the size limit, 1002 for a bad frame.
    """

    def __init__(self, message: str, close_code: int = 1011) -> None:
        super().__init__(message, close_code)
        self.close_code = close_code

    def __str__(self) -> str:
        return str(self.args[0])


class ConnectError(WsepError, ConnectionError):
    """No connection could be made to a URL.

    Attributes:
        url: The URL that was tried.
        status: The HTTP status the server refused with, or ``None`` if it never answered one.
    """

    def __init__(self, url: str, reason: str, status: int | None = None) -> None:
        super().__init__(url, reason)
        self.errno = None  # of two arguments, OSError takes the first for an errno
        self.url = url
        self.reason = reason
        self.status = status

    def __str__(self) -> str:
        return f"cannot connect to {self.url}: {self.reason}"


class TransportClosed(WsepError):
    """The WebSocket is closed.

    Attributes:
        code: The close code the peer gave; 1005 if its close frame had none, 1006 if the
            connection ended without a close frame (RFC 6455, section 7.4.1).
        reason: The peer's words, or what ended the connection.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"connection closed ({self.code}){': ' if self.reason else ''}{self.reason}"


class StartError(WsepError):
    """The command could not be started: no process exists, nothing ran.

    Where the cause is known, the exception raised is also the matching subclass of ``OSError``,
    with ``errno`` and ``filename``.
    """


class SessionNotFound(StartError):
    """There is no terminal session of that id, or not any more. Nothing was started."""


class StartOSError(StartError, OSError):
    """A start that failed with an errno that has no class of its own here."""

    def __init__(self, errno: int, strerror: str, filename: str | None = None) -> None:
        OSError.__init__(self, errno, strerror, filename)

    # WsepError's own __str__ comes first in the method resolution order.
    __str__ = OSError.__str__


class StartNotFoundError(StartOSError, FileNotFoundError):
    """The command, or the working directory, does not exist."""


class StartPermissionError(StartOSError, PermissionError):
    """The command may not be run, the directory not entered, or the user not taken on."""


class StartNotADirectoryError(StartOSError, NotADirectoryError):
    """The working directory is something else."""


_START_ERRORS: dict[int, type[StartOSError]] = {
    _errno.ENOENT: StartNotFoundError,
    _errno.EACCES: StartPermissionError,
    _errno.EPERM: StartPermissionError,
    _errno.ENOTDIR: StartNotADirectoryError,
}


def start_error(errno: int, filename: str | None) -> StartError:
    """Return the :class:`StartError` that fits an errno, ready to be raised."""
    return _START_ERRORS.get(errno, StartOSError)(errno, os.strerror(errno), filename)


def not_allowed(filename: str) -> StartError:
    """Return the error of a command that was refused, and not for want of a file's permission."""
    return StartPermissionError(_errno.EACCES, "Not allowed", filename)


def is_not_allowed(error: StartError) -> bool:
    """Whether it is an error of :func:`not_allowed`, perhaps from a server."""
    return isinstance(error, StartPermissionError) and error.strerror == "Not allowed"


class ExitError(WsepError):
    """The command ended, and not with status 0.

    Attributes:
        exit_code: The exit status, 1 to 255; -1 if a signal ended the command, or if its status
            cannot be known.
        signal: The number of that signal, or ``None``.
        message: The reference's words: ``exit status 2``, ``signal: killed``.
    """

    def __init__(self, exit_code: int, message: str = "", signal: int | None = None) -> None:
        super().__init__(exit_code, message, signal)
        self.exit_code = exit_code
        self.message = message
        self.signal = signal

    def __str__(self) -> str:
        return self.message or f"exit status {self.exit_code}"


class ExitMissing(WsepError):
    """The connection ended before the exit status came.

    What the command did, and whether it still runs, is unknown: this is never a success. From
    :class:`.Popen` and :func:`.run` it is a ``subprocess.SubprocessError``, too.

    Attributes:
        stdout, stderr: What had come of them, in bytes, if it was ``communicate`` or :func:`.run`
            that read them, and if anything had; else ``None``.
    """

    stdout: bytes | None = None
    stderr: bytes | None = None


class OutputUnread(WsepError):
    """An output is full and has never been read, so the exit status cannot arrive.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
    """

    def __init__(self, stream: str, limit: int) -> None:
        super().__init__(stream, limit)
        self.stream = stream
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.stream} holds {self.limit} bytes that nobody reads, so the command cannot "
            f"finish: read {self.stream} (in a thread of its own if need be) or close it"
        )


class SessionClosed(WsepError):
    """The terminal session ended while it was being used."""


def copy_error(error: _Error) -> _Error:
    """Return a copy of an exception that was kept to be raised later, or several times.

    Raising the one that is kept would tie it, through its traceback, to the frames it passed: a
    cycle that holds a connection's descriptors until the garbage collector comes by.
    """
    # Not type(error)(*error.args): OSError takes the file's name out of its args.
    return copy.copy(error)


class suppress_system(contextlib.AbstractContextManager[None, bool]):
    """Suppress what the system says, as :func:`contextlib.suppress` does, and nobody else.

    The handler of a signal runs in the midst of whatever the main thread does, and may raise an
    ``OSError``, too: ``TimeoutError`` above all. Those have no ``errno``, and are raised.

    Args:
        kind: The errors of the system to suppress.
        others: Further exceptions to suppress, whoever raised them.
    """

    def __init__(self, kind: type[OSError] = OSError, *others: type[Exception]) -> None:
        self._kind = kind
        self._others = others

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, self._kind) and error.errno is not None:
            return True
        return isinstance(error, self._others)
