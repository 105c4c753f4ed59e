"""Run a command on another machine over one WebSocket, without asyncio.

Wire-compatible with wsep v0.2.4::

    from wsep_sync import Command, connect

    with connect("ws://127.0.0.1:8080") as execer:
        with execer.start(Command("ls", ["-la"])) as process:
            print(process.stdout.read().decode())
            process.wait()

:class:`LocalExecer` does the same on this machine and :class:`SSHExecer` by SSH; :class:`Server` is
the other end of the wire.
"""

from __future__ import annotations

import importlib
from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    CompletedProcess,
    TimeoutExpired,
)
from typing import TYPE_CHECKING

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
from .policy import RestrictedExecer, UserExecer
from .process import Execer, Process
from .remote import RemoteExecer, connect
from .server import Options, Server, serve
from .session import Session, SessionInfo, State

if TYPE_CHECKING:
    from .expect import spawn
    from .fan_out import Outcome
    from .fan_out import map as map
    from .popen import Popen, call, check_call, check_output, getoutput, getstatusoutput, run
    from .ssh import SSHExecer

# Imported when they are first asked for: nobody should wait for a face that is not used.
_LAZY = {
    "Outcome": "fan_out",
    "Popen": "popen",
    "SSHExecer": "ssh",
    "call": "popen",
    "check_call": "popen",
    "check_output": "popen",
    "getoutput": "popen",
    "getstatusoutput": "popen",
    "map": "fan_out",
    "run": "popen",
    "spawn": "expect",
}

# Without map: a star import must not take the built-in one away.
__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "Command",
    "CompletedProcess",
    "ConnectError",
    "Execer",
    "ExitError",
    "ExitMissing",
    "LocalExecer",
    "Options",
    "Outcome",
    "OutputUnread",
    "Popen",
    "Process",
    "ProtocolError",
    "RemoteExecer",
    "RestrictedExecer",
    "SSHExecer",
    "Server",
    "Session",
    "SessionClosed",
    "SessionInfo",
    "StartError",
    "State",
    "TimeoutExpired",
    "TransportClosed",
    "UserExecer",
    "WsepError",
    "call",
    "check_call",
    "check_output",
    "connect",
    "getoutput",
    "getstatusoutput",
    "run",
    "serve",
    "spawn",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
