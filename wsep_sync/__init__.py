"""Run a command on another machine over one WebSocket, without asyncio.

Wire-compatible with wsep v0.2.4::

    from wsep_sync import Command, connect

    with connect("ws://127.0.0.1:8080") as execer:
        with execer.start(Command("ls", ["-la"])) as process:
            print(process.stdout.read().decode())
            process.wait()

:class:`LocalExecer` does the same on this machine, :class:`Server` is the other end of the wire.
"""

from __future__ import annotations

from .errors import (
    ConnectError,
    ExitError,
    ExitMissing,
    OutputUnread,
    ProtocolError,
    SessionClosed,
    StartError,
    TransportClosed,
    WsepError,
)
from .local import LocalExecer
from .messages import Command
from .process import Execer, Process
from .remote import RemoteExecer, connect
from .server import Options, Server, serve
from .session import Session, SessionInfo, State

__all__ = [
    "Command",
    "ConnectError",
    "Execer",
    "ExitError",
    "ExitMissing",
    "LocalExecer",
    "Options",
    "OutputUnread",
    "Process",
    "ProtocolError",
    "RemoteExecer",
    "Server",
    "Session",
    "SessionClosed",
    "SessionInfo",
    "StartError",
    "State",
    "TransportClosed",
    "WsepError",
    "connect",
    "serve",
]

__version__ = "0.1.0"
