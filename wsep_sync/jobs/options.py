"""How a server serves, and what a session is: :class:`Options`, :class:`State` and more."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "Options",
    "SessionInfo",
    "State",
]


#: How much is read after the command has ended, in bytes. A terminal, or what a server further on
#: had sent, holds less; but a job that the command left may go on writing for ever.
LATE_LIMIT = 1 << 21


class State(IntEnum):
    """Where a session is in its life; it only moves forward."""

    STARTING = 0
    READY = 1
    CLOSING = 2
    DONE = 3


@dataclass(frozen=True)
class Options:
    """How a server serves.

    Args:
        session_timeout: Seconds that a terminal session lives on with no client attached. When
            clients ask for different ones, the longest holds.
        start_timeout: Seconds that a client has, once connected, to say what to run.
        log_arguments: Let the log name a command's arguments, which may be secrets, besides the
            command.
        read_only: Let clients watch the sessions there are, and no more: what they type and
            signal is ignored, and so is the size of their terminals; what would start a command
            is refused. While one watches, a session has a client, and lives on.
        ping_interval: Seconds between pings, which keep proxies from closing what is idle; by
            default 25. They are sent up to 3 seconds late.
    """

    session_timeout: float = 300.0
    start_timeout: float = 60.0
    log_arguments: bool = False
    read_only: bool = False
    ping_interval: float | None = None

    def __post_init__(self) -> None:
        for name in ("session_timeout", "start_timeout", "ping_interval"):
            seconds = getattr(self, name)
            if name == "ping_interval" and seconds is None:
                continue
            if not 0 < seconds <= threading.TIMEOUT_MAX:
                raise ValueError(f"{name} must be above 0, not {seconds}")


@dataclass(frozen=True)
class SessionInfo:
    """What a session was at one moment.

    Attributes:
        id: The name it is attached by.
        pid: The command's process id.
        command: The program and its arguments; the first 1,024 characters of them, if there are
            more, with an ellipsis.
        rows: Height of the terminal in rows.
        cols: Width of the terminal in columns.
        clients: How many are attached.
        created: When it was started, in seconds since the epoch.
        last_activity: When it last had output or input, or a client came or went; likewise.
    """

    id: str
    pid: int
    command: tuple[str, ...]
    rows: int
    cols: int
    clients: int
    created: float
    last_activity: float
