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
from typing import TYPE_CHECKING

from .lazy import importing as _importing

if TYPE_CHECKING:
    from subprocess import (
        DEVNULL,
        PIPE,
        STDOUT,
        CalledProcessError,
        CompletedProcess,
        SubprocessError,
        TimeoutExpired,
    )

    from .errors import (
        ConnectError,
        ExitError,
        ExitMissing,
        OutputUnread,
        ProtocolError,
        SessionClosed,
        SessionNotFound,
        StartError,
        TransportClosed,
        WsepError,
    )
    from .expect import spawn
    from .fan_out import Outcome
    from .fan_out import map as map
    from .local import LocalExecer
    from .messages import Command
    from .policy import RestrictedExecer, UserExecer
    from .popen import Popen, call, check_call, check_output, getoutput, getstatusoutput, run
    from .process import Execer, Process
    from .remote import RemoteExecer, connect
    from .server import Options, Server, serve
    from .session import Session, SessionInfo, State
    from .ssh import SSHExecer

# Where each name is from. Imported when it is first asked for: nobody should wait for what is not
# used, and a client uses half of this.
_MODULES = {
    "DEVNULL": "subprocess",
    "PIPE": "subprocess",
    "STDOUT": "subprocess",
    "CalledProcessError": "subprocess",
    "CompletedProcess": "subprocess",
    "SubprocessError": "subprocess",
    "TimeoutExpired": "subprocess",
    "ConnectError": ".errors",
    "ExitError": ".errors",
    "ExitMissing": ".errors",
    "OutputUnread": ".errors",
    "ProtocolError": ".errors",
    "SessionClosed": ".errors",
    "SessionNotFound": ".errors",
    "StartError": ".errors",
    "TransportClosed": ".errors",
    "WsepError": ".errors",
    "spawn": ".expect",
    "Outcome": ".fan_out",
    "map": ".fan_out",
    "LocalExecer": ".local",
    "Command": ".messages",
    "RestrictedExecer": ".policy",
    "UserExecer": ".policy",
    "Popen": ".popen",
    "call": ".popen",
    "check_call": ".popen",
    "check_output": ".popen",
    "getoutput": ".popen",
    "getstatusoutput": ".popen",
    "run": ".popen",
    "Execer": ".process",
    "Process": ".process",
    "RemoteExecer": ".remote",
    "connect": ".remote",
    "Options": ".server",
    "Server": ".server",
    "serve": ".server",
    "Session": ".session",
    "SessionInfo": ".session",
    "State": ".session",
    "SSHExecer": ".ssh",
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
    "SessionNotFound",
    "StartError",
    "State",
    "SubprocessError",
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
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _importing:
        value = getattr(importlib.import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
