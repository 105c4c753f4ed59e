"""Dialogues, brought into each of their states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wsep_sync import Command, ProtocolError
from wsep_sync.protocol.dialogue import (
    ClientDialogue,
    ClientState,
    Output,
    ServerDialogue,
    ServerState,
)
from wsep_sync.protocol.messages import (
    FEATURES,
    STDIN_HEADER,
    STDOUT_HEADER,
    Attach,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Echo,
    EchoIs,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    ServerMessage,
    Signal,
    Start,
    Stdin,
    StdinTaken,
    Taken,
    decode_server_message,
)

WINDOW = 1000
GOOD = ExitCode(0)
BAD = ExitCode(2, "exit status 2")
KILLED = ExitCode(-1, "signal: killed", 9)

# What each side may get, by the names of the tables.
CLIENT_SAYS: dict[str, bytes] = {
    "start": Start(Command("x")).encode(),
    "attach": Attach("x").encode(),
    "stdin": STDIN_HEADER + b"x",
    "close_stdin": CloseStdin().encode(),
    "resize": Resize(24, 80).encode(),
    "signal": Signal(15).encode(),
    "taken": Taken(stdout=0).encode(),
    "close_output": CloseOutput("stdout").encode(),
    "echo": Echo().encode(),
}
SERVER_SAYS: dict[str, bytes] = {
    "pid": Pid(1).encode(),
    "stdout": STDOUT_HEADER + b"x",
    "stderr": b'{"type":"stderr"}\nx',
    "taken": StdinTaken(1).encode(),
    "echo": EchoIs(1, True).encode(),
    "ended": Ended(GOOD).encode(),
    "eof": Eof("stdout").encode(),
    "exit_code": GOOD.encode(),
}
NONSENSE = (b"no JSON", b"[]\n", b'{"type":7}\n')


def starting(command: Command | None = None, window: int | None = WINDOW) -> ServerDialogue:
    server = ServerDialogue()
    start = Start(command or Command("x", stdin=True), window=window)
    assert server.receive(start.encode()) == start
    return server


def running(command: Command | None = None, window: int | None = WINDOW) -> ServerDialogue:
    command = command or Command("x", stdin=True)
    server = starting(command, window)
    server.started(7, command, frozenset(), False)
    server.messages()
    return server


def ended(
    command: Command | None = None, window: int | None = WINDOW, status: ExitCode = GOOD
) -> ServerDialogue:
    server = running(command, window)
    server.ended(status, deaf=False)
    server.messages()
    return server


def finished(command: Command | None = None) -> ServerDialogue:
    server = ended(command)
    for output in server.outputs.values():
        server.output_ended(output)
    assert said(server) == [Eof("stdout"), GOOD] or server.outputs.keys() == {"stdout"}
    return server


def closed() -> ServerDialogue:
    server = running()
    server.fail(None)
    return server


SERVERS: dict[ServerState, Callable[[], ServerDialogue]] = {
    ServerState.OPEN: ServerDialogue,
    ServerState.STARTING: starting,
    ServerState.RUNNING: running,
    ServerState.ENDED: ended,
    ServerState.FINISHED: finished,
    ServerState.CLOSED: closed,
}


def said(server: ServerDialogue) -> list[ServerMessage | None]:
    return [decode_server_message(message) for message in server.messages()]


def tell(server: ServerDialogue, message: Any) -> ClientMessage | None:
    return server.receive(message.encode())


def put(server: ServerDialogue, size: int) -> None:
    """Send so much input, which the command is given at once."""
    wanted = server.receive(STDIN_HEADER + bytes(size))
    assert isinstance(wanted, Stdin)
    assert len(wanted.body) == size
    server.given(size)


def out(server: ServerDialogue) -> Output:
    return server.outputs["stdout"]


def err(server: ServerDialogue) -> Output:
    return server.outputs["stderr"]


def refused(server: ServerDialogue, data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        server.receive(data)
    return failed(server, caught.value)


def failed(server: ServerDialogue, error: ProtocolError) -> str:
    assert server.state is ServerState.CLOSED
    assert server.failure is not None
    assert server.failure is not error
    assert server.failure.__traceback__ is None
    assert str(server.failure) == str(error)
    assert error.close_code == server.failure.close_code == 1011
    return str(error)


def asked(features: tuple[str, ...] = FEATURES) -> ClientDialogue:
    client = ClientDialogue()
    client.receive(Pid(7, features).encode())
    return client


def client_ended(status: ExitCode = GOOD) -> ClientDialogue:
    client = asked()
    client.receive(Ended(status).encode())
    return client


def client_finished(status: ExitCode = GOOD) -> ClientDialogue:
    client = client_ended(status)
    client.receive(status.encode())
    return client


def client_lost() -> ClientDialogue:
    client = asked()
    client.lost("gone")
    return client


CLIENTS: dict[ClientState, Callable[[], ClientDialogue]] = {
    ClientState.ASKED: ClientDialogue,
    ClientState.RUNNING: asked,
    ClientState.ENDED: client_ended,
    ClientState.FINISHED: client_finished,
    ClientState.LOST: client_lost,
}
