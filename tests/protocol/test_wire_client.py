"""The client says on the wire what the reference's client says.

Each entry of wire/client.json is one run of the reference's client (wsep v0.2.4) against a server
that answers with a pid, a message of an unknown type, one stdout, one stderr and exit code 3. Here
such a server is made by hand, frame by frame.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import Task
from peers import BINARY, CLOSE, Frame, RawPeer, accept_raw, listening_socket

from wsep_sync import Command, ExitError, Process, connect
from wsep_sync.protocol.messages import MAX_MESSAGE

ENTRIES = {
    entry["name"]: entry
    for entry in json.loads((Path(__file__).parent / "wire" / "client.json").read_text())
}

# What Go's io.Copy reads at once.
IO_COPY = 32 * 1024

INPUT = {"stdin_small": b"abc\n", "stdin_70000": b"x" * 70000, "stdin_empty": b""}
COMMANDS = {
    "notty_no_stdin": Command("ls", ["-la"]),
    **{name: Command("cat", stdin=True) for name in INPUT},
}


@dataclass
class Seen:
    """What the server saw of a client."""

    request_line: str
    headers: dict[str, str]
    messages: list[bytes] = field(default_factory=list)
    close: Frame | None = None
    at_end: bool = False


def serve(listening: socket.socket, pid: bytes = b'{"type":"pid","pid":4711}\n') -> Seen:
    """Be the server of the recordings for one connection."""
    with accept_raw(listening) as peer:
        seen = Seen(peer.request_line, peer.headers)

        def receive() -> bytes:
            frame = peer.receive()
            assert (frame.opcode, frame.final, frame.reserved) == (BINARY, True, 0)
            assert frame.masked
            seen.messages.append(frame.payload)
            return frame.payload

        command = json.loads(receive())["command"]
        peer.send(BINARY, pid)
        peer.send(BINARY, b'{"type":"future","x":[1]}\nbody')
        if command["stdin"]:
            while not receive().startswith(b'{"type":"close_stdin"}'):
                pass
        finish(peer)
        seen.close = peer.receive()
        peer.send(CLOSE, seen.close.payload)
        seen.at_end = peer.at_end()
        return seen


def finish(peer: RawPeer) -> None:
    peer.send(BINARY, b'{"type":"stdout"}\nhello\n')
    peer.send(BINARY, b'{"type":"stderr"}\nerr\n')
    peer.send(BINARY, b'{"type":"exit_code","exit_code":3,"error":"exit status 3"}\n')


def run(
    command: Command, write: Callable[[Process], None], **options: Any
) -> tuple[Seen, bytes, bytes]:
    """Run a command on that server; return what the server and what the client saw."""
    with listening_socket() as listening, Task(lambda: serve(listening, **options)) as served:
        with started(listening, command) as process:
            assert process.pid == 4711
            write(process)
            out, err = process.stdout.read(), process.stderr.read()
            with pytest.raises(ExitError) as caught:
                process.wait()
            assert (caught.value.exit_code, str(caught.value)) == (3, "exit status 3")
        return served.result(), out, err


@contextlib.contextmanager
def started(listening: socket.socket, command: Command) -> Iterator[Process]:
    """Connect to a server and start a command there."""
    url = f"ws://127.0.0.1:{listening.getsockname()[1]}/some/path?x=1"
    with connect(url) as execer, execer.start(command) as process:
        yield process


def assert_same(seen: Seen, entry: dict[str, Any]) -> None:
    (recorded,) = entry["connections"]
    assert seen.request_line == f"GET {recorded['path']} HTTP/1.1"
    assert seen.headers["sec-websocket-version"] == recorded["headers"]["Sec-Websocket-Version"]
    # The reference offers compression; this client doesn't, on purpose.
    assert "sec-websocket-extensions" not in seen.headers
    # Browsers send one, and servers refuse them by it.
    assert "origin" not in seen.headers
    assert seen.close is not None
    assert seen.close.masked
    assert (seen.close.code, seen.close.reason) == (
        recorded["close"]["code"],
        recorded["close"]["reason"],
    )
    assert seen.at_end
    # The start, and the end of the input.
    assert json.loads(seen.messages[0]) == json.loads(recorded["sent"][0])
    if len(recorded["sent"]) > 1:
        assert seen.messages[-1] == recorded["sent"][-1].encode()


@pytest.mark.parametrize("name", ENTRIES)
def test_replay(name: str) -> None:
    entry = ENTRIES[name]

    def write(process: Process) -> None:
        if name in INPUT:
            # What Go's io.Copy does.
            shutil.copyfileobj(io.BytesIO(INPUT[name]), process.stdin, IO_COPY)
            process.stdin.close()

    seen, out, err = run(COMMANDS[name], write)
    assert_same(seen, entry)
    assert (out.decode(), err.decode()) == (entry["client_stdout"], entry["client_stderr"])
    for message, recorded in zip(
        seen.messages[1:-1], entry["connections"][0]["sent"][1:-1], strict=True
    ):
        if isinstance(recorded, str):
            assert message == recorded.encode()
        else:
            assert len(message) == recorded["bytes"]
            assert message.startswith(recorded["prefix"].encode())


def test_every_run_of_the_reference_is_here() -> None:
    assert set(ENTRIES) == set(COMMANDS)
    assert len(ENTRIES) == 4


@pytest.mark.parametrize("size", [1, 63_982, 63_983, 63_984, 70_000, 1_000_000])
def test_input_of_any_size_is_split_to_fit(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]

    def write(process: Process) -> None:
        assert process.stdin.write(data) == size
        process.stdin.close()

    seen, _, _ = run(COMMANDS["stdin_70000"], write)
    bodies = []
    for message in seen.messages[1:-1]:
        header, newline, body = message.partition(b"\n")
        assert json.loads(header) == {"type": "stdin"}
        assert newline
        assert body
        assert len(message) <= MAX_MESSAGE
        bodies.append(body)
    assert b"".join(bodies) == data
    assert seen.messages[-1] == b'{"type":"close_stdin"}\n'


def test_additions_are_used_only_where_the_server_named_them() -> None:
    def write(process: Process) -> None:
        with pytest.raises(io.UnsupportedOperation):
            process.send_signal(15)
        process.stdin.write(bytes(3_000_000))
        process.stdin.close()

    seen, _, _ = run(COMMANDS["stdin_70000"], write)
    kinds = {json.loads(message.partition(b"\n")[0])["type"] for message in seen.messages}
    assert kinds == {"start", "stdin", "close_stdin"}


def test_a_signal_is_sent_to_a_server_that_named_it() -> None:
    def write(process: Process) -> None:
        process.send_signal(15)
        process.stdin.close()

    pid = b'{"type":"pid","pid":4711,"features":["signal","future"]}\n'
    seen, _, _ = run(COMMANDS["stdin_70000"], write, pid=pid)
    assert [json.loads(message) for message in seen.messages[1:]] == [
        {"type": "signal", "signal": 15},
        {"type": "close_stdin"},
    ]


def test_a_resize_of_a_terminal_is_sent_and_of_pipes_is_not() -> None:
    def write(process: Process) -> None:
        process.resize(30, 100)
        process.stdin.close()

    seen, _, _ = run(Command("sh", tty=True, stdin=True, rows=24, cols=80), write)
    start = json.loads(seen.messages[0])["command"]
    assert (start["tty"], start["rows"], start["cols"]) == (True, 24, 80)
    assert json.loads(seen.messages[1]) == {"type": "resize", "rows": 30, "cols": 100}
    seen, _, _ = run(COMMANDS["stdin_empty"], write)
    assert len(seen.messages) == 2


def test_a_message_that_came_with_the_handshakes_answer_is_not_lost() -> None:
    # A server may have more to say before the client has read all of the answer.
    def answer(listening: socket.socket) -> None:
        maker = RawPeer(socket.socket(), False, "", b"")
        with maker:
            early = maker.frame(BINARY, b'{"type":"pid","pid":5}\n')
            early += maker.frame(BINARY, b'{"type":"stdout"}\nhello')
        with accept_raw(listening, after=early) as peer:
            peer.receive()
            peer.send(BINARY, b'{"type":"exit_code","exit_code":0,"error":""}\n')
            assert peer.receive().code == 1000

    with listening_socket() as listening, Task(answer, listening) as answered:
        with started(listening, Command("x")) as process:
            assert process.pid == 5
            assert process.stdout.read() == b"hello"
            process.wait()
        answered.result()


def test_what_runs_on_a_server_that_says_little() -> None:
    # Only what the protocol needs: no newline after the header, no "error" at an exit of 0.
    def answer(listening: socket.socket) -> None:
        with accept_raw(listening) as peer:
            peer.receive()
            peer.send(BINARY, b'{"pid":5,"type":"pid"}')
            peer.send(BINARY, b'{"exit_code":0,"type":"exit_code"}')
            assert peer.receive().code == 1000

    with listening_socket() as listening, Task(answer, listening) as answered:
        with started(listening, Command("x")) as process:
            process.wait()
            assert process.stdout.read() == b""
        answered.result()
