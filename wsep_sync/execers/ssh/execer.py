"""Commands on a host that has nothing but an SSH server: :class:`SSHExecer`."""

from __future__ import annotations

import os
import threading
import urllib.parse
from typing import Any

from ...errors import StartError
from ...process import Execer, Process, check_additions
from ...protocol.command import Command, check_command
from ...streams.wakeup import check_timeout
from . import launch as ssh_launch
from .connection import Connection
from .library import close_quietly
from .login import Login

__all__ = [
    "SSHExecer",
    "connect_ssh",
]


def connect_ssh(url: str, *, timeout: float = 10.0, key_filename: str | None = None) -> SSHExecer:
    """Connect to a host by SSH and return an execer that runs commands there.

    Args:
        url: ``ssh://HOST``, ``ssh://USER@HOST`` or ``ssh://USER@HOST:PORT``. An IPv6 address
            stands in brackets.
        timeout: As for :class:`SSHExecer`, whose defaults hold in all else.
        key_filename: Likewise.

    Raises:
        ConnectError: No connection could be made, the host is not known, or it lets nobody in.
        ImportError: There is no paramiko.
        ValueError: ``url`` is not such a URL, or has a password in it, which is not for URLs.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.password is not None:
        raise ValueError("a URL is no place for a password; SSH has keys, and an agent for them")
    if parts.scheme != "ssh" or not parts.hostname:
        raise ValueError(f"not the URL of an SSH host, ssh://USER@HOST: {url!r}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"an SSH host has no path: {url!r}")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not the URL of an SSH host, ssh://USER@HOST:PORT: {error}") from error
    username = None if parts.username is None else urllib.parse.unquote(parts.username)
    return SSHExecer(parts.hostname, port, username, key_filename, timeout=timeout)


class SSHExecer(Execer):
    """Runs commands on a host by SSH, each in a channel of one connection.

    When the host takes no more channels on it (OpenSSH: 10, ``MaxSessions``), or it was lost,
    another connection is made. Connecting needs paramiko, the extra ``ssh``.

    Who logs in has to have a POSIX shell there, ``sh``, whatever the login shell is; a host that
    runs nothing but one command of its own (``ForceCommand``) will not do. A command has the
    environment that sshd and the login shell give it, and what :attr:`.Command.env` adds; it leads
    a session and a process group of its own. Its arguments can be seen by the host's other users,
    as ever; its environment cannot. ``uid`` and ``gid`` are refused with ``StartError``: a command
    runs as who has logged in. An ``id`` is ignored, for SSH keeps no sessions.

    What SSH cannot tell, or do:

    - A signal that RFC 4254 has no name for, such as SIGBUS or a real-time one, ends a command
      with an :exc:`.ExitError` whose ``signal`` is ``None``.
    - When the command has ended, sshd closes its input, even if another process still reads it.

    A command ends with its connection: on the host, a shell that all commands of a connection share
    signals their process groups when the connection has ended, however that came.

    Args:
        host: Name or address, or a ``Host`` of ``~/.ssh/config``. Of that file, ``HostName``,
            ``Port``, ``User``, ``IdentityFile``, ``IdentitiesOnly`` and ``ProxyJump`` are obeyed
            where nothing else is said here; what it includes is not read.
        port: TCP port; by default 22.
        username: Who to log in as; by default the name that this process's user has.
        key_filename: A private key to log in with, before those of the SSH agent
            (``$SSH_AUTH_SOCK``) and ``~/.ssh/id_*``, which are tried in any case.
        known_hosts: The file in which the host's key must be; by default any of those that ssh(1)
            reads: ``~/.ssh/known_hosts``, ``/etc/ssh/ssh_known_hosts``. A host whose key is not
            there is refused.
        timeout: Seconds for each step of making a connection, and for a command to start.

    Raises:
        ConnectError: No connection could be made, the host is not known, or it lets nobody in.
        ImportError: There is no paramiko.

    Example:
        >>> with SSHExecer("build.example.com", username="ci") as execer:  # doctest: +SKIP
        ...     with execer.start(Command("uname", ["-n"])) as process:
        ...         print(process.stdout.read().decode())
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        username: str | None = None,
        key_filename: str | None = None,
        known_hosts: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        check_timeout(timeout)
        self._login = Login(host, port, username, key_filename, known_hosts, timeout)
        self._lock = threading.Lock()  # guards what follows, and how many run on each connection
        self._closed = False
        self._connections = [Connection(self._login)]

    def start(self, command: Command) -> Process:
        check_command(command)
        if not command.command:
            raise StartError("no command")
        if command.uid or command.gid:
            raise StartError(
                "over SSH a command runs as the user who has logged in: uid and gid cannot be set"
            )
        check_additions(command, self.features)
        mark = f"wsep-{os.urandom(16).hex()}"
        request = ssh_launch.request(command, mark)
        connection, channel = self._open_channel()
        try:
            return connection.start(
                command, channel, mark, request, lambda: self._release(connection)
            )
        except BaseException:
            close_quietly(channel)
            self._release(connection)
            raise

    def _open_channel(self) -> tuple[Connection, Any]:
        """Return a new channel and its connection, which counts one command more."""
        connection = self._reserve()
        if connection is not None:
            channel = connection.open_channel()
            if channel is not None:
                return connection, channel
            self._release(connection)
        connection = Connection(self._login)
        with self._lock:
            closed = self._closed
            if not closed:
                connection.running = 1
                self._connections.append(connection)
        if closed:
            connection.close()
            raise _is_closed()
        channel = connection.open_channel()
        if channel is None:
            self._release(connection)
            raise StartError(
                f"{self._login.url} takes no command: its connections must carry two sessions at "
                "least (MaxSessions)"
            )
        return connection, channel

    def _reserve(self) -> Connection | None:
        """Return the connection with the fewest commands, which counts one more."""
        with self._lock:
            if self._closed:
                raise _is_closed()
            lost = [connection for connection in self._connections if not connection.alive]
            self._connections = [c for c in self._connections if c not in lost]
            chosen = min(self._connections, key=lambda c: c.running, default=None)
            if chosen is not None:
                chosen.running += 1
            idle = [connection for connection in lost if not connection.running]
        for connection in idle:
            connection.close()
        return chosen

    def _release(self, connection: Connection) -> None:
        """A command has ended; close its connection if it is not needed any more."""
        with self._lock:
            connection.running -= 1
            needed = connection.running or self._connections == [connection]
            if not needed and connection in self._connections:
                self._connections.remove(connection)
        if not needed:
            connection.close()

    def close(self) -> None:
        """Close the connection once no command runs on it any more; start no others."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, []
            idle = [connection for connection in connections if not connection.running]
        for connection in idle:
            connection.close()


def _is_closed() -> StartError:
    return StartError("this execer is closed")
