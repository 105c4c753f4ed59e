"""Servers that say what a test has them say, and commands at them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from helpers import scripted

from wsep_sync import Command, Process, TransportClosed, connect
from wsep_sync.protocol.messages import FEATURES, Pid
from wsep_sync.transports.base import Transport

Script = Callable[[Transport], None]

PID = b'{"type":"pid","pid":7}\n'
PID_WITH_ALL = Pid(7, ("signal", *FEATURES)).encode()
EXIT_0 = b'{"type":"exit_code","exit_code":0,"error":""}\n'


def stdout(body: bytes) -> bytes:
    return b'{"type":"stdout"}\n' + body


def stderr(body: bytes) -> bytes:
    return b'{"type":"stderr"}\n' + body


@contextlib.contextmanager
def against(script: Script, command: Command | None = None) -> Iterator[Process]:
    """A process at a server that says the pid, and then does what the script says."""

    def serve(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        script(transport)

    with (
        scripted(serve) as url,
        connect(url) as execer,
        execer.start(command or Command("any", stdin=True)) as process,
    ):
        yield process


def drained(transport: Transport) -> list[bytes]:
    """Receive until the end; return the messages, and at last the close code."""
    messages = []
    try:
        while True:
            messages.append(bytes(transport.receive()))
    except TransportClosed as closed:
        messages.append(b"%d" % closed.code)
    return messages


def flooding(header: bytes, *then: bytes) -> Script:
    """What a server sends that is the reference, of a command that writes much."""

    def script(transport: Transport) -> None:
        for _ in range(160):
            transport.send(header + bytes(50_000))
        for message in then:
            transport.send(message)
        drained(transport)

    return script
