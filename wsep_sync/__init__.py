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
    from .execers.local.execer import LocalExecer
    from .execers.policy import RestrictedExecer, UserExecer
    from .execers.remote.execer import RemoteExecer, connect
    from .execers.ssh.execer import SSHExecer
    from .faces.expect import spawn
    from .faces.fan_out import Outcome
    from .faces.fan_out import map as map
    from .faces.popen import Popen
    from .faces.run import call, check_call, check_output, getoutput, getstatusoutput, run
    from .jobs.options import Options, SessionInfo, State
    from .jobs.session import Session
    from .process import Execer, Process
    from .protocol.command import Command
    from .serving.server import Server, serve

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
    "spawn": ".faces.expect",
    "Outcome": ".faces.fan_out",
    "map": ".faces.fan_out",
    "LocalExecer": ".execers.local.execer",
    "Command": ".protocol.command",
    "RestrictedExecer": ".execers.policy",
    "UserExecer": ".execers.policy",
    "Popen": ".faces.popen",
    "call": ".faces.run",
    "check_call": ".faces.run",
    "check_output": ".faces.run",
    "getoutput": ".faces.run",
    "getstatusoutput": ".faces.run",
    "run": ".faces.run",
    "Execer": ".process",
    "Process": ".process",
    "RemoteExecer": ".execers.remote.execer",
    "connect": ".execers.remote.execer",
    "Options": ".jobs.options",
    "Server": ".serving.server",
    "serve": ".serving.server",
    "Session": ".jobs.session",
    "SessionInfo": ".jobs.options",
    "State": ".jobs.options",
    "SSHExecer": ".execers.ssh.execer",
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


if not TYPE_CHECKING:  # or every name would be there for a type checker

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _importing:
            value = getattr(importlib.import_module(_MODULES[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    module = [name for name in globals() if name.startswith("__")]
    return sorted({*module, *_MODULES})
