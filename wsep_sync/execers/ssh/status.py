"""How commands on an SSH host end: :class:`Status`, and what of the protocol tells of it."""

from __future__ import annotations

import functools
import socket
import threading
from typing import Any

from ...errors import ExitMissing
from ...protocol.messages import ExitCode
from ...protocol.words import signal_message
from .library import load_paramiko

__all__ = [
    "SIGNALS",
    "SIGNAL_NAMES",
    "Status",
    "packetizer_class",
]


# RFC 4254, section 9: what a server sends to say how a command ended, and paramiko knows half of.
_MSG_CHANNEL_REQUEST = 98

# The signals that RFC 4254, section 6.10 has names for. Their numbers here are Linux's, as they are
# on the wire.
SIGNALS = {
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
SIGNAL_NAMES = {number: name for name, number in SIGNALS.items()}


class Status:
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
def packetizer_class() -> Any:
    """Return the class of what reads messages, which notes how the commands of channels end.

    paramiko knows exit statuses but not signals, and neither its channels nor its transports have a
    place where one could be taught to them. What reads the messages can be replaced, and sees all.
    """

    class Packetizer(load_paramiko().packet.Packetizer):  # type: ignore[misc]
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            # By the numbers of the channels; an entry for each, from before it may end until then.
            self.statuses: dict[int, Status] = {}

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
        number = SIGNALS.get(message.get_text())
        if number is None:
            return ExitCode(-1, "signal: one that SSH has no name for")
        return ExitCode(-1, signal_message(number, bool(message.get_boolean())), number)
    return None
