"""What the subcommands that connect share: where to, how a command starts, and how it ended."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from ..errors import (
    ConnectError,
    ExitError,
    StartError,
    StartNotFoundError,
    StartOSError,
    TransportClosed,
    WsepError,
)
from .certificates import load_certificates
from .console import CANNOT_RUN, NO_CONNECTION, NOT_FOUND, SIGNALLED, complain

if TYPE_CHECKING:
    import ssl

    from ..process import Execer, Process
    from ..protocol.command import Command

__all__ = ["Target", "client_command", "exit_status", "explain", "target"]


def _fail(words: str) -> NoReturn:
    raise ValueError(words)


@dataclass(frozen=True)
class Target:
    """The server to connect to.

    Attributes:
        url: ``ws://``, ``wss://``, ``ws+unix:`` or ``ssh://``.
        timeout: Seconds that connecting may take.
        token: What to show it, if anything.
        ssl_context: For ``wss://``; ``None`` for the system's trust store.
        headers: More headers to send.
        fail: Ends this command, with a usage error.
        key_file: A private key to log in with, over SSH.
    """

    url: str
    timeout: float
    token: str | None = None
    ssl_context: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fail: Callable[[str], NoReturn] = _fail
    key_file: str | None = None

    def start(self, command: Command) -> Process:
        """Connect, and start a command, or attach to its session."""
        if command.id and self.url.startswith("ssh://"):
            raise StartError("a session needs a server, which SSH alone has not: leave out --id")
        try:
            with self._dial(command.id) as execer:
                return execer.start(command)
        except StartNotFoundError as error:
            if error.filename != command.command or command.args or " " not in command.command:
                raise
            hint = f"a line for a shell is given as sh -c {shlex.quote(command.command)}"
            words = f"{error.strerror} ({hint})"
            raise StartNotFoundError(error.errno or 0, words, error.filename) from error

    def attach(self, command: Command) -> Process:
        """Connect, and attach to a command's session, which is not started if it is not there."""
        from ..execers.remote.execer import RemoteExecer

        with self._dial(command.id) as execer:
            assert isinstance(execer, RemoteExecer)
            return execer.attach(command.id, command.rows, command.cols)

    @contextlib.contextmanager
    def _dial(self, session_id: str) -> Iterator[Execer]:
        from ..execers.dial import dial

        try:
            with dial(
                self.url,
                timeout=self.timeout,
                token=self.token,
                session_id=session_id,
                headers=self.headers,
                ssl_context=self.ssl_context,
                key_filename=self.key_file,
            ) as execer:
                yield execer
        except ImportError as error:
            raise ConnectError(self.url, str(error)) from error
        except ValueError as error:
            self.fail(str(error))


@contextlib.contextmanager
def target(arguments: argparse.Namespace) -> Iterator[Target]:
    """Give the server to connect to: one in this process if none was named."""
    if arguments.verbose:
        from .logs import log_to_stderr

        log_to_stderr("DEBUG")
    if arguments.url is None:
        from .serve import embedded

        with embedded() as (url, token):
            yield Target(url, arguments.timeout, token)
    else:
        shown = arguments.token or _environment_token(arguments)
        yield Target(
            arguments.url,
            arguments.timeout,
            shown,
            _ssl_context(arguments),
            dict(arguments.header),
            arguments.fail,
            getattr(arguments, "key_file", None),
        )


def _environment_token(arguments: argparse.Namespace) -> str | None:
    from ..execers.remote.execer import environment_token

    if arguments.url.startswith("ssh://"):
        return None
    try:
        return environment_token()
    except ValueError as error:
        arguments.fail(str(error))
        raise  # pragma: no cover - that does not return


def _ssl_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_key is not None and arguments.tls_cert is None:
        arguments.fail("--tls-key needs --tls-cert")
    if not (arguments.insecure_tls or arguments.ca_file or arguments.tls_cert):
        return None
    import ssl

    try:
        context = ssl.create_default_context(cafile=arguments.ca_file)
        if arguments.tls_cert is not None:
            load_certificates(context, arguments)
    except ValueError as error:
        arguments.fail(str(error))
    except OSError as error:  # ssl.SSLError is one
        arguments.fail(f"{arguments.ca_file}: {error.strerror or error}")
    if arguments.insecure_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def client_command(
    arguments: argparse.Namespace, env: Sequence[str] = (), **options: object
) -> Command:
    """Make the command that the arguments name, with these variables before those they name."""
    from ..protocol.command import Command

    argv = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not argv:
        arguments.fail("a command is needed")
    try:
        return Command(
            argv[0],
            argv[1:],
            env=(*env, *arguments.env),
            working_dir=arguments.cwd,
            user=arguments.user[0],
            group=arguments.user[1],
            **options,  # type: ignore[arg-type]
        )
    except ValueError as error:
        arguments.fail(str(error))
        raise  # pragma: no cover - that does not return


def exit_status(process: Process) -> int:
    """Wait for the command; return what is to be this command's exit status."""
    try:
        process.wait()
    except ExitError as error:
        status = error.exit_code if error.signal is None else SIGNALLED + error.signal
        # The system keeps eight bits of it, by which 256 would be a success.
        return status if 0 < status < 256 else NO_CONNECTION
    return 0


def explain(error: WsepError) -> int:
    """Say in one line why there is no exit status of a command; return the one to give."""
    if isinstance(error, StartOSError):
        complain(f"{error.filename}: {error.strerror}")
        return NOT_FOUND if isinstance(error, StartNotFoundError) else CANNOT_RUN
    complain(error)
    # Of a start, the server said that it failed; or it said nothing, or nonsense.
    refused = isinstance(error, StartError) and isinstance(error.__cause__, TransportClosed)
    return CANNOT_RUN if refused else NO_CONNECTION
