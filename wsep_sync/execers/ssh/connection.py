"""One connection to an SSH host, and the keeper of its commands: :class:`Connection`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from ...errors import ConnectError, StartError, TransportClosed, start_error
from ...protocol.command import Command, variables
from . import launch as ssh_launch
from .answers import Answers
from .library import PIECE, close_quietly, lost, send_all
from .login import Login, close_client
from .process import SSHProcess
from .status import SIGNAL_NAMES, Status

__all__ = [
    "Connection",
]


# How many bytes of a command's two outputs may be on the way here, or wait in paramiko's buffers.
_WINDOW = 1 << 20

# How many seconds the thread of a connection may take to end when it has closed its channels.
_ENDS_WITHIN = 1.0

# What stty(1) shows of it.
_END_OF_FILE = re.compile(rb"\beof = (<undef>|(?:M-)?\^?.);")


class Connection:
    """One SSH connection: its client, and the keeper of its commands.

    Attributes:
        running: How many commands run on it, or are being started; the execer's lock guards it.
        url: Where it leads.
    """

    def __init__(self, login: Login) -> None:
        self.running = 0
        self._timeout = login.timeout
        self.url = login.url
        self._client = login.connect()
        self._transport = self._client.get_transport()
        self._statuses: dict[int, Status] = self._transport.packetizer.statuses
        self._sock: socket.socket = self._transport.sock
        try:
            self._keeper = self._transport.open_session(timeout=self._timeout)
            self._keeper.exec_command(ssh_launch.KEEPER)
        except BaseException as error:
            self.close()
            if isinstance(error, lost()):
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
        close_client(self._client, self._sock)

    def open_channel(self) -> Any:
        """Return a new channel, or ``None`` if the host refuses it or the connection has ended."""
        try:
            return self._transport.open_session(window_size=_WINDOW, timeout=self._timeout)
        except lost():
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
        status = self._statuses[number] = Status()
        began = time.monotonic()
        try:
            return self._start(command, channel, mark, request, status, release)
        except BaseException as error:
            del self._statuses[number]
            if isinstance(error, TimeoutError):
                if time.monotonic() - began < self._timeout:
                    raise  # that of a signal's handler
                reason = f"no answer from {self.url} in {self._timeout:g} seconds"
                raise StartError(reason) from error
            if isinstance(error, lost()) and not isinstance(error, StartError):
                if self.has_ended():
                    reason = f"{self.url}: {error}".rstrip(": ")
                    raise TransportClosed(1006, reason) from error
                raise StartError(f"{self.url} refused it: {error}") from error
            raise

    def _start(
        self,
        command: Command,
        channel: Any,
        mark: str,
        request: bytes,
        status: Status,
        release: Callable[[], None],
    ) -> SSHProcess:
        if command.tty:
            rows, cols = command.terminal_size
            term = variables(command.env).get("TERM", "xterm-256color")
            channel.get_pty(os.fsencode(term), cols, rows)
        channel.exec_command(ssh_launch.login_line(mark, command.tty))
        answers = Answers(self, channel, mark.encode(), self._timeout)
        pid, terminal = ssh_launch.process_id(answers.receive())

        def finished() -> None:
            self._statuses.pop(channel.get_id(), None)
            with contextlib.suppress(io.UnsupportedOperation):
                self._tell("done", pid)
            release()

        # In this order: if the connection is lost now, there is a keeper, or no command.
        self._tell("run", pid)
        try:
            send_all(channel, request)
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
        self._tell("signal", group, SIGNAL_NAMES.get(number, f"{int(number)}"))

    def end(self, group: int, hang_up: bool) -> None:
        """End a process group: SIGTERM, and SIGKILL 2 seconds later; as :meth:`signal`.

        Args:
            hang_up: SIGHUP first.
        """
        self._tell("end", group, *(["HUP"] if hang_up else []))

    def _tell(self, word: str, group: int, *names: str) -> None:
        try:
            # In one piece, as it is short: so no lock is needed.
            send_all(self._keeper, f"{' '.join([word, str(group), *names])}\n".encode())
        except lost() as error:
            if not self.has_ended():
                raise io.UnsupportedOperation(
                    f"what sends signals to commands has ended on {self.url}"
                ) from error

    def end_of_file(self, terminal: str) -> bytes:
        """Ask the host which character ends the input of a terminal now (VEOF)."""
        shown = b""
        channel = self.open_channel()
        if channel is not None:
            try:
                channel.settimeout(self._timeout)
                channel.exec_command(f"{ssh_launch.QUERY_MODES} {terminal}")
                while piece := channel.recv(PIECE):
                    shown += piece
            except lost():
                pass
            finally:
                close_quietly(channel)
        return _end_of_file(shown)


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
