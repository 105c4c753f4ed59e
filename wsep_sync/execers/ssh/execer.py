"""Commands on a host that has nothing but an SSH server: :class:`SSHExecer`.

This is the one place that imports paramiko, and not before the first connection is made: that takes
a third of a second.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import process, streams
from ...dropped import Hold
from ...errors import (
    ConnectError,
    ExitError,
    ExitMissing,
    OutputUnread,
    StartError,
    TransportClosed,
    copy_error,
    start_error,
)
from ...lazy import importing
from ...process import Awaited, Execer, Process
from ...protocol.command import Command, variables
from ...protocol.messages import ExitCode, Resize, Signal
from ...protocol.words import signal_message
from ...streams.wakeup import WRITE, Wakeup, check_timeout, wait_for
from ...threads import start_thread
from ...transports.liveness import keep_alive
from . import known_hosts
from . import launch as ssh_launch

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "SSHExecer",
    "connect_ssh",
]

# How many bytes of a command's two outputs may be on the way here, or wait in paramiko's buffers.
_WINDOW = 1 << 20

# How much is read, and written, at once, in bytes. What fits a packet of paramiko's, and sshd's.
_PIECE = 1 << 15

# How much a login shell may say, in bytes, before the command is started.
_MOST_GREETING = 1 << 18

# For how long an output must have been full, and never read, before wait() says so.
_UNREAD_AFTER = 5.0

# How many seconds a command may take to end after SIGKILL, as far as close() waits for that.
_KILLED_WITHIN = 2.0

# How many seconds the thread of a connection may take to end when it has closed its channels.
_ENDS_WITHIN = 1.0

# RFC 4254, section 9: what a server sends to say how a command ended, and paramiko knows half of.
_MSG_CHANNEL_REQUEST = 98

# The signals that RFC 4254, section 6.10 has names for. Their numbers here are Linux's, as they are
# on the wire.
_SIGNALS = {
    "HUP": 1,
    "INT": 2,
    "QUIT": 3,
    "ILL": 4,
    "ABRT": 6,
    "FPE": 8,
    "KILL": 9,
    "USR1": 10,
    "SEGV": 11,
    "USR2": 12,
    "PIPE": 13,
    "ALRM": 14,
    "TERM": 15,
}
_SIGNAL_NAMES = {number: name for name, number in _SIGNALS.items()}


def connect_ssh(url: str, *, timeout: float = 10.0) -> SSHExecer:
    """Connect to a host by SSH and return an execer that runs commands there.

    Args:
        url: ``ssh://HOST``, ``ssh://USER@HOST`` or ``ssh://USER@HOST:PORT``. An IPv6 address
            stands in brackets.
        timeout: As for :class:`SSHExecer`, whose defaults hold in all else.

    Raises:
        ConnectError: No connection could be made, the host is not known, or it lets nobody in.
        ImportError: There is no paramiko.
        ValueError: ``url`` is not such a URL, or has a password in it, which is not for URLs.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "ssh" or not parts.hostname:
        raise ValueError(f"not the URL of an SSH host, ssh://USER@HOST: {url!r}")
    if parts.password is not None:
        raise ValueError("a URL is no place for a password; SSH has keys, and an agent for them")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"an SSH host has no path: {url!r}")
    username = None if parts.username is None else urllib.parse.unquote(parts.username)
    return SSHExecer(parts.hostname, parts.port or 22, username, timeout=timeout)


class SSHExecer(Execer):
    """Runs commands on a host by SSH, each in a channel of one connection.

    When the host takes no more channels on it (OpenSSH: 10, ``MaxSessions``), or it was lost,
    another connection is made. Connecting needs paramiko: ``pip install 'wsep-sync[ssh]'``.

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
        host: Name or address.
        port: TCP port.
        username: Who to log in as; by default the name that this process's user has.
        key_filename: A private key to log in with, before those of the SSH agent
            (``$SSH_AUTH_SOCK``) and ``~/.ssh/id_*``, which are tried in any case.
        known_hosts: The file in which the host's key must be; by default any of those that ssh(1)
            reads: ``~/.ssh/known_hosts``, ``/etc/ssh/ssh_known_hosts``. A host whose key is not
            there is refused. ``~/.ssh/config`` is not read.
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
        port: int = 22,
        username: str | None = None,
        key_filename: str | None = None,
        known_hosts: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        check_timeout(timeout)
        self._login = _Login(host, port, username, key_filename, known_hosts, timeout)
        self._lock = threading.Lock()  # guards what follows, and how many run on each connection
        self._closed = False
        self._connections = [_Connection(self._login)]

    def start(self, command: Command) -> Process:
        if not command.command:
            raise StartError("no command")
        if command.uid or command.gid:
            raise StartError(
                "over SSH a command runs as the user who has logged in: uid and gid cannot be set"
            )
        mark = f"wsep-{os.urandom(16).hex()}"
        request = ssh_launch.request(command, mark)
        connection, channel = self._open_channel()
        try:
            return connection.start(
                command, channel, mark, request, lambda: self._release(connection)
            )
        except BaseException:
            _close_quietly(channel)
            self._release(connection)
            raise

    def _open_channel(self) -> tuple[_Connection, Any]:
        """Return a new channel and its connection, which counts one command more."""
        connection = self._reserve()
        if connection is not None:
            channel = connection.open_channel()
            if channel is not None:
                return connection, channel
            self._release(connection)
        connection = _Connection(self._login)
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

    def _reserve(self) -> _Connection | None:
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

    def _release(self, connection: _Connection) -> None:
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


@dataclass(frozen=True)
class _Login:
    """Where to log in, and how; as for :class:`SSHExecer`."""

    host: str
    port: int
    username: str | None
    key_filename: str | None
    known_hosts: str | None
    timeout: float

    @property
    def url(self) -> str:
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}{'' if self.port == 22 else f':{self.port}'}"

    def connect(self) -> Any:
        """Return a ``paramiko.SSHClient`` that has logged in.

        Raises:
            ConnectError: It could not.
        """
        paramiko = _paramiko()
        began = time.monotonic()
        try:
            return self._connect(paramiko)
        except ConnectError:
            raise
        except paramiko.PasswordRequiredException as error:
            reason = "the private key is encrypted; let an SSH agent hold it"
            raise ConnectError(self.url, reason) from error
        except paramiko.AuthenticationException as error:
            raise ConnectError(self.url, f"it lets nobody in: {error}") from error
        except (EOFError, OSError, RuntimeError, ValueError, paramiko.SSHException) as error:
            # paramiko has many ways to say that it has waited in vain.
            if time.monotonic() - began >= self.timeout:
                reason = f"no answer within {self.timeout:g} seconds"
            elif isinstance(error, TimeoutError) and error.errno is None:
                raise  # that of a signal's handler
            elif isinstance(error, OSError):
                reason = error.strerror or str(error)
                if error.filename:
                    reason = f"{error.filename}: {reason}"
            else:
                reason = str(error) or "the connection ended"
            raise ConnectError(self.url, reason) from error

    def _connect(self, paramiko: Any) -> Any:
        files = known_hosts.FILES if self.known_hosts is None else (self.known_hosts,)
        if self.known_hosts is not None:
            os.stat(self.known_hosts)  # one that was asked for has to be there
        keys = known_hosts.read_known_hosts(files, self.host, self.port)
        client = paramiko.SSHClient()
        # It is given no known hosts of its own, so this is asked for every key.
        client.set_missing_host_key_policy(_HostKeyPolicy(self.url, keys))
        sock = socket.create_connection((self.host, self.port), self.timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)

            def new_transport(sock: socket.socket, **options: Any) -> Any:
                transport = paramiko.Transport(
                    sock, packetizer_class=_packetizer_class(), **options
                )
                transport.handshake_timeout = self.timeout
                _prefer_known(transport.get_security_options(), keys)
                return transport

            client.connect(
                self.host,
                self.port,
                self.username,
                sock=sock,
                key_filename=self.key_filename,
                banner_timeout=self.timeout,
                auth_timeout=self.timeout,
                channel_timeout=self.timeout,
                transport_factory=new_transport,
            )
        except BaseException:
            _close_client(client, sock)
            raise
        return client


@dataclass(frozen=True)
class _HostKeyPolicy:
    """Says whether a host may have the key that it has, in the way paramiko asks for that."""

    url: str
    keys: known_hosts.KnownKeys

    def missing_host_key(self, _client: object, _name: str, key: Any) -> None:
        offered = (key.get_name(), key.asbytes())
        shown = f"{key.get_name()} {key.fingerprint}"
        if offered in self.keys.revoked:
            raise ConnectError(self.url, f"the key it has is revoked: {shown}")
        if offered in self.keys.trusted:
            return
        if self.keys.trusted:
            raise ConnectError(
                self.url, f"it has another key than known_hosts says, or is another host: {shown}"
            )
        raise ConnectError(self.url, f"the host is not in known_hosts; it has the key {shown}")


def _prefer_known(options: Any, keys: known_hosts.KnownKeys) -> None:
    """Ask for a key of a type that the host is known by, lest it show another of its keys."""
    known = {kind for kind, _ in keys.trusted}

    def unknown(algorithm: str) -> bool:
        return ("ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm) not in known

    options.key_types = sorted(options.key_types, key=unknown)


def _paramiko() -> Any:
    """Return paramiko."""
    try:
        with importing:
            import paramiko
    except ImportError as error:
        raise ImportError(
            "SSH needs paramiko: pip install 'wsep-sync[ssh]'", name="paramiko"
        ) from (error)
    # It logs what is also raised, with tracebacks, which would go to stderr in a program that has
    # not set up any logging.
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return paramiko


def _lost() -> tuple[type[Exception], ...]:
    """Return what paramiko raises when a channel or its connection has ended."""
    return (EOFError, OSError, _paramiko().SSHException)


class _Status:
    """How a command ended: known at some time, or never."""

    def __init__(self) -> None:
        self.known = threading.Event()  # set, after one of the two below, when there is no more
        self.exit: ExitCode | None = None
        self.missing: ExitMissing | None = None
        self._lock = threading.Lock()  # lest two threads set something

    def set(self, exit: ExitCode | None, missing: str = "") -> None:
        """Say how it ended, or why that will never be known. Only the first call counts."""
        with self._lock:
            if not self.known.is_set():
                self.exit = exit
                self.missing = None if exit else ExitMissing(f"no exit status: {missing}")
                self.known.set()


@functools.cache
def _packetizer_class() -> Any:
    """Return the class of what reads messages, which notes how the commands of channels end.

    paramiko knows exit statuses but not signals, and neither its channels nor its transports have a
    place where one could be taught to them. What reads the messages can be replaced, and sees all.
    """

    class Packetizer(_paramiko().packet.Packetizer):  # type: ignore[misc]
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            # By the numbers of the channels; an entry for each, from before it may end until then.
            self.statuses: dict[int, _Status] = {}

        def read_message(self) -> tuple[int, Any]:
            kind, message = super().read_message()
            if kind == _MSG_CHANNEL_REQUEST:
                status = self.statuses.get(message.get_int())
                exit = _exit_code(message)
                if status is not None and exit is not None:
                    status.set(exit)
                message.rewind()
            return kind, message

    return Packetizer


def _exit_code(message: Any) -> ExitCode | None:
    """Read a channel request, behind its channel (RFC 4254, section 6.10)."""
    kind = message.get_text()
    message.get_boolean()  # whether an answer is wanted
    if kind == "exit-status":
        code: int = message.get_int()
        return ExitCode(code, f"exit status {code}" if code else "")
    if kind == "exit-signal":
        number = _SIGNALS.get(message.get_text())
        if number is None:
            return ExitCode(-1, "signal: one that SSH has no name for")
        return ExitCode(-1, signal_message(number, bool(message.get_boolean())), number)
    return None


def _close_quietly(channel: Any) -> None:
    with contextlib.suppress(*_lost()):
        channel.close()


def _close_client(client: Any, sock: socket.socket) -> None:
    """Close a connection, and wait for its thread."""
    transport = client.get_transport()
    # Its thread polls the socket ten times a second, and could by then be polling another file of
    # the same number. This ends it first.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    started = transport is not None and transport.ident is not None
    if started:
        transport.join(1.0)
        transport.packetizer.complete_handshake()  # or its timer would go on
    client.close()
    if started:
        transport.join()
    sock.close()


class _Connection:
    """One SSH connection: its client, and the keeper of its commands.

    Attributes:
        running: How many commands run on it, or are being started; the execer's lock guards it.
    """

    def __init__(self, login: _Login) -> None:
        self.running = 0
        self._timeout = login.timeout
        self._url = login.url
        self._client = login.connect()
        self._transport = self._client.get_transport()
        self._statuses: dict[int, _Status] = self._transport.packetizer.statuses
        self._sock: socket.socket = self._transport.sock
        try:
            self._keeper = self._transport.open_session(timeout=self._timeout)
            self._keeper.exec_command(ssh_launch.KEEPER)
        except BaseException as error:
            self.close()
            if isinstance(error, _lost()):
                reason = str(error) or "the connection ended"
                raise ConnectError(login.url, reason) from error
            raise

    @property
    def alive(self) -> bool:
        """Whether it is good for another command."""
        return bool(self._transport.is_active()) and not self._keeper.closed

    def has_ended(self) -> bool:
        """Whether, as a channel has ended, all of the connection has.

        Its thread closes the channels before it says that it has ended itself, so this may have to
        wait for it.
        """
        self._transport.join(_ENDS_WITHIN)
        return not self._transport.is_active()

    def close(self) -> None:
        """End the connection. Harmless to call again."""
        _close_client(self._client, self._sock)

    def open_channel(self) -> Any:
        """Return a new channel, or ``None`` if the host refuses it or the connection has ended."""
        try:
            return self._transport.open_session(window_size=_WINDOW, timeout=self._timeout)
        except _lost():
            return None

    def start(
        self,
        command: Command,
        channel: Any,
        mark: str,
        request: bytes,
        release: Callable[[], None],
    ) -> SSHProcess:
        """Start a command in a new channel.

        Args:
            command: What to run.
            channel: Where; not closed if this raises.
            mark: What marks the answers of what is launched.
            request: See :func:`.launch.request`.
            release: Called, by a thread of the process's, when the command has ended.
        """
        number: int = channel.get_id()
        status = self._statuses[number] = _Status()
        began = time.monotonic()
        try:
            return self._start(command, channel, mark, request, status, release)
        except BaseException as error:
            del self._statuses[number]
            if isinstance(error, TimeoutError):
                if time.monotonic() - began < self._timeout:
                    raise  # that of a signal's handler
                reason = f"no answer from {self._url} in {self._timeout:g} seconds"
                raise StartError(reason) from error
            if isinstance(error, _lost()) and not isinstance(error, StartError):
                if self.has_ended():
                    reason = f"{self._url}: {error}".rstrip(": ")
                    raise TransportClosed(1006, reason) from error
                raise StartError(f"{self._url} refused it: {error}") from error
            raise

    def _start(
        self,
        command: Command,
        channel: Any,
        mark: str,
        request: bytes,
        status: _Status,
        release: Callable[[], None],
    ) -> SSHProcess:
        if command.tty:
            rows, cols = command.terminal_size
            term = variables(command.env).get("TERM", "xterm-256color")
            channel.get_pty(os.fsencode(term), cols, rows)
        channel.exec_command(ssh_launch.login_line(mark, command.tty))
        answers = _Answers(self, channel, mark.encode(), self._timeout)
        pid, terminal = ssh_launch.process_id(answers.receive())

        def finished() -> None:
            self._statuses.pop(channel.get_id(), None)
            with contextlib.suppress(io.UnsupportedOperation):
                self._tell("done", pid)
            release()

        # In this order: if the connection is lost now, there is a keeper, or no command.
        self._tell("run", pid)
        try:
            _send(channel, request)
            ssh_launch.check_started(answers.receive(), command)
            channel.settimeout(None)
            return SSHProcess(self, channel, command, pid, terminal, answers, status, finished)
        except BaseException as error:
            with contextlib.suppress(io.UnsupportedOperation):
                self.end(pid, hang_up=False)
                self._tell("done", pid)
            if isinstance(error, RuntimeError):  # no more threads can be had
                raise start_error(errno.EAGAIN, command.command) from error
            raise

    def signal(self, group: int, number: int) -> None:
        """Signal a process group there.

        Raises:
            io.UnsupportedOperation: The keeper is gone.
        """
        # By name where there is one: the host may number them in another way.
        self._tell("signal", group, _SIGNAL_NAMES.get(number, f"{int(number)}"))

    def end(self, group: int, hang_up: bool) -> None:
        """End a process group: SIGTERM, and SIGKILL 2 seconds later; as :meth:`signal`.

        Args:
            hang_up: SIGHUP first.
        """
        self._tell("end", group, *(["HUP"] if hang_up else []))

    def _tell(self, word: str, group: int, *names: str) -> None:
        try:
            # In one piece, as it is short: so no lock is needed.
            _send(self._keeper, f"{' '.join([word, str(group), *names])}\n".encode())
        except _lost() as error:
            if not self.has_ended():
                raise io.UnsupportedOperation(
                    f"what sends signals to commands has ended on {self._url}"
                ) from error

    def end_of_file(self, terminal: str) -> bytes:
        """Ask the host which character ends the input of a terminal now (VEOF)."""
        shown = b""
        channel = self.open_channel()
        if channel is not None:
            try:
                channel.settimeout(self._timeout)
                channel.exec_command(f"{ssh_launch.QUERY_MODES} {terminal}")
                while piece := channel.recv(_PIECE):
                    shown += piece
            except _lost():
                pass
            finally:
                _close_quietly(channel)
        return _end_of_file(shown)


_END_OF_FILE = re.compile(rb"\beof = (<undef>|(?:M-)?\^?.);")


def _end_of_file(modes: bytes) -> bytes:
    """Return the character that stty(1) shows for it; Ctrl-D, if it does not."""
    match = _END_OF_FILE.search(modes)
    if match is None:
        return b"\x04"
    shown = match[1]
    if shown == b"<undef>":
        return b""
    high = 0x80 if shown.startswith(b"M-") and len(shown) > 2 else 0
    shown = shown[2:] if high else shown
    if len(shown) == 2:
        return bytes([high | (shown[1] ^ 0x40)])
    return bytes([high | shown[0]])


class _Answers:
    """Reads what is said of a start, before the command itself says something.

    Attributes:
        rest: What the command has said already.
    """

    def __init__(self, connection: _Connection, channel: Any, mark: bytes, timeout: float) -> None:
        self.mark = mark
        self.rest = b""
        self._connection = connection
        self._channel = channel
        self._deadline = time.monotonic() + timeout

    def receive(self) -> list[str]:
        """Block until there is another answer; return its words.

        What the login shell says, when it reads its files, comes before it and is dropped.

        Raises:
            StartError: There is none.
            TimeoutError: Not in time.
        """
        while True:
            answer, newline, rest = self.rest.partition(self.mark)[2].partition(b"\n")
            if newline:
                self.rest = rest
                return answer.decode(errors="replace").split()
            if len(self.rest) > _MOST_GREETING:
                raise StartError("the login shell says too much before it starts the command")
            left = self._deadline - time.monotonic()
            self._channel.settimeout(max(left, 0.001))
            piece = self._channel.recv(_PIECE)
            if not piece:
                raise self._failure()
            self.rest += piece

    def _failure(self) -> Exception:
        if self._connection.has_ended():
            return EOFError("the connection ended")
        lines = (self.rest + b"\n" + self._channel.recv_stderr(_PIECE)).decode(errors="replace")
        said = next((line.strip() for line in reversed(lines.splitlines()) if line.strip()), "")
        return StartError(f"the login shell did not start it{': ' if said else ''}{said:.200}")


def _send(channel: Any, data: bytes | memoryview) -> None:
    """Send all of it, however long that takes.

    Raises:
        OSError: The channel is closed.
    """
    view = memoryview(data)
    while view:
        sent = channel.send(bytes(view[:_PIECE]))
        if not sent:
            raise BrokenPipeError(errno.EPIPE, "the channel is closed")
        view = view[sent:]


class SSHInput(streams.RawFile):
    """The raw, writable end of the input of a command on an SSH host.

    Args:
        end_of_file: Of a terminal, returns the character that ends its input.
    """

    mode = "wb"
    _fd = -1  # once somebody has asked for it, all writing goes through it

    def __init__(
        self, channel: Any, status: _Status, end_of_file: Callable[[], bytes] | None
    ) -> None:
        self._channel = channel
        self._status = status
        self._end_of_file = end_of_file
        self._stop: Wakeup | None = None  # of the thread that fileno() started

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return a descriptor, for ``select`` or as another program's standard output.

        The first call makes a pipe of the kernel's, and a thread that sends what comes out of it.
        The thread ends when every copy of the descriptor is closed, this file's included, which is
        the end of the command's input; or when the command has ended, and its outputs. After
        ``os.set_blocking(file.fileno(), False)``, writing here does not block either.
        """
        self._check_open()
        if self._fd < 0:
            stop = Wakeup()
            reader, writer = os.pipe()
            file = streams.DescriptorReader(streams.Handover(reader), stop)
            try:
                # A daemon, as the threads that receive are.
                # Who writes to it gets EPIPE when it dies.
                start_thread(self._send_all, file, name="wsep-fileno", died=lambda _: file.close())
            except RuntimeError:
                file.close()
                os.close(writer)
                raise
            self._stop = stop
            self._fd = writer
            if self._status.known.is_set():
                stop.set()
        return self._fd

    def _send_all(self, file: streams.DescriptorReader) -> None:
        # Those who write get it, too: closing the file breaks their pipe.
        with file, contextlib.suppress(BrokenPipeError):
            while data := file.read(_PIECE):
                self._send(memoryview(data))
            self.send_eof()

    def write(self, data: ReadableBuffer, /) -> int | None:
        self._check_open()
        view = memoryview(data).cast("B")
        if self._fd >= 0:
            return streams.write_to(self._fd, view)
        self._send(view)
        return len(view)

    def ready(self, timeout: float | None) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""
        return self._fd < 0 or wait_for(self._fd, WRITE, None, timeout)

    def _send(self, view: memoryview) -> None:
        for start in range(0, len(view), _PIECE):
            # Looked at each time: sshd takes, and drops, what comes for a command that has ended.
            if self._status.known.is_set():
                raise BrokenPipeError(errno.EPIPE, "the command has ended")
            try:
                _send(self._channel, view[start : start + _PIECE])
            except _lost() as error:
                raise BrokenPipeError(errno.EPIPE, "the command has ended") from error

    def send_eof(self) -> None:
        """Tell the command that its input has ended; a terminal is sent its character for that."""
        if self._status.known.is_set():
            return
        with contextlib.suppress(*_lost()):
            if self._end_of_file is not None:
                self._send(memoryview(self._end_of_file()))
            else:
                self._channel.shutdown_write()

    def end(self) -> None:
        """The command has ended, and its outputs: let the thread of :meth:`fileno` end."""
        if self._stop is not None:
            self._stop.set()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._fd < 0:
                self.send_eof()
            else:
                # Another program may have a copy of it: the last to close it ends the input.
                os.close(self._fd)
        finally:
            super().close()

    def _drop(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self.close()
        elif self._status.known.is_set():
            super().close()
        else:
            super()._drop()


class SSHProcess(Awaited):
    """A command on an SSH host. Made by :class:`SSHExecer`."""

    def __init__(
        self,
        connection: _Connection,
        channel: Any,
        command: Command,
        pid: int,
        terminal: str,
        answers: _Answers,
        status: _Status,
        finished: Callable[[], None],
    ) -> None:
        self.pid = pid
        self._connection = connection
        self._channel = channel
        self._tty = command.tty
        self._status = status
        self._finished = finished
        end_of_file = functools.partial(connection.end_of_file, terminal) if command.tty else None
        self._input = SSHInput(channel, status, end_of_file)
        if command.stdin or command.tty:
            self.stdin = streams.buffered_writer(self._input)
        else:
            self.stdin = streams.no_writer()
        self._out = streams.BoundedPipe()
        self._out.feed(answers.rest)
        self.stdout = streams.buffered_reader(streams.PipeReader(self._out))
        self._err = streams.BoundedPipe()
        self.stderr = streams.buffered_reader(streams.PipeReader(self._err))
        self._lock = threading.Lock()  # guards _open
        self._open = 1 if command.tty else 2  # how many outputs have not ended
        # One for each output, which ends with it: at the latest when the channel or the connection
        # is closed. The last sees to the command's end. Daemons, so that a script that forgot a
        # process can end.
        self._readers: list[threading.Thread] = []
        if command.tty:
            self._err.feed_eof()
        else:
            self._start_reader(self._read_err, "err", answers.mark)
        self._start_reader(self._read_out, "out")

    def _start_reader(self, read: Callable[..., None], name: str, *args: object) -> None:
        hold = Hold()  # for the files, until nothing more will come

        def run() -> None:
            try:
                read(*args)
            finally:
                hold.release()

        def died(error: Exception) -> None:
            hold.release()
            self._reader_died(error)

        try:
            thread = start_thread(run, name=f"wsep-ssh-{name}-{self.pid}", died=died)
        except RuntimeError:
            hold.release()
            raise
        self._readers.append(thread)

    def _reader_died(self, error: Exception) -> None:
        self._status.set(None, f"internal error: {type(error).__name__}")
        for pipe in (self._out, self._err):
            pipe.feed_eof(self._status.missing)
        self._input.end()
        _close_quietly(self._channel)
        self._finished()

    def _read_out(self) -> None:
        self._read(self._channel.recv, self._out)

    def _read_err(self, mark: bytes) -> None:
        # What comes before the mark was said by the login shell.
        said = b""
        with contextlib.suppress(*_lost()):
            while (mark + b"\n") not in said and (piece := self._channel.recv_stderr(_PIECE)):
                said = (said + piece)[-(_PIECE + len(mark)) :]
        self._err.feed(said.partition(mark + b"\n")[2])
        self._read(self._channel.recv_stderr, self._err)

    def _read(self, receive: Callable[[int], bytes], pipe: streams.BoundedPipe) -> None:
        with contextlib.suppress(*_lost()):
            while data := receive(_PIECE):
                pipe.feed(data)
        self._look_for_loss()
        pipe.feed_eof(self._status.missing)
        with self._lock:
            self._open -= 1
            if self._open:
                return
        # The status, if it has not come yet, or the end of the channel.
        self._channel.recv_exit_status()
        self._look_for_loss()
        self._input.end()
        _close_quietly(self._channel)
        self._finished()

    def _look_for_loss(self) -> None:
        """If the channel has ended without a status, there will be none."""
        if self._channel.closed:
            self._status.set(None, "the connection ended")

    def resize(self, rows: int, cols: int) -> None:
        Resize(rows, cols)  # raises what is wrong with them
        if self._tty and not self._status.known.is_set():
            with contextlib.suppress(*_lost()):
                self._channel.resize_pty(cols, rows)

    def send_signal(self, signal: int) -> None:
        Signal(signal)  # raises what is wrong with it
        if signal and not self._status.known.is_set():
            self._connection.signal(self.pid, signal)

    def ended(self, timeout: float | None) -> bool:
        known = self._status.known
        deadline = None if timeout is None else time.monotonic() + timeout
        while not known.is_set():
            rest = None if deadline is None else deadline - time.monotonic()
            if rest is not None and rest <= 0:
                return False
            known.wait(1.0 if rest is None else min(rest, 1.0))
            self._look_for_loss()
            for name, pipe in (("stdout", self._out), ("stderr", self._err)):
                unread = pipe.unread_for()
                if not known.is_set() and unread is not None and unread > _UNREAD_AFTER:
                    raise OutputUnread(name, pipe.limit)
        return True

    def _check_status(self) -> None:
        if self._status.missing is not None:
            raise copy_error(self._status.missing)
        exit = self._status.exit
        assert exit is not None
        if exit.exit_code:
            raise ExitError(exit.exit_code, exit.error, exit.signal)

    def close(self) -> None:
        # What comes from now on is dropped: an output that nobody reads would hold up the rest.
        self._out.feed_eof()
        self._err.feed_eof()
        if not self._status.known.is_set():
            with contextlib.suppress(io.UnsupportedOperation):
                self._connection.end(self.pid, hang_up=self._tty)
                self._status.known.wait(process.CLOSE_GRACE + _KILLED_WITHIN)
            self._status.set(None, "the process was closed")
        _close_quietly(self._channel)
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join()
        streams.close_quietly(self.stdin)

    def kill(self) -> None:
        self.send_signal(_SIGNALS["KILL"])
