"""The server says on the wire what the reference's server says.

Each entry of wire/server.json is a client's script and what the reference (wsep v0.2.4) answered.
The client here is websocket-client, with none of the package's code in between. What has to match
are the close code, the header's fields and the bodies; what a note calls a quirk of the reference
is not asked for.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import websocket
from helpers import SECONDS, Task, blocked, ends_processes, gone, listening
from websocket import ABNF

from wsep_sync import LocalExecer, Server, TransportClosed
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair

ENTRIES = json.loads((Path(__file__).parent / "wire" / "server.json").read_text())

#: What our server may say in a header beside what the reference says.
ADDITIONS = {"features", "signal", "reattached"}

PID = {"header": '{"type":"pid","pid":PID}', "delimiter": True, "body": ""}
STILL_HERE = {"header": '{"type":"stdout"}', "delimiter": True, "body": "still here"}
EXIT_0 = {
    "header": '{"type":"exit_code","exit_code":0,"error":""}',
    "delimiter": True,
    "body": "",
}

# Where a note calls the recording a quirk of the reference: what is right instead.
INSTEAD: dict[str, dict[str, Any]] = {
    # Late input is dropped.
    "stdin_after_exit": {"close": None},
    # The end-of-file character ends cat.
    "tty_close_stdin": {"got": [PID, EXIT_0]},
    # A message without a type is of a type that is not known, and is ignored.
    "no_type": {"got": [PID, STILL_HERE, EXIT_0], "close": None},
}

# The reference sends the pid from a goroutine of its own: a refusal may overtake it, though the
# command was started.
PID_MAY_COME = {"big_64001"}

# What a pause in the script was long enough for to come, where that is more than the pid.
PAUSES_FOR = {
    "stdin_not_enabled": ["pid", "close"],
    "close_stdin_twice": ["exit_code"],
    "stdin_after_exit": ["exit_code", "pong"],
    "tty_resize": ["ready"],
    "tty_ctrl_c": ["ready"],
    "tty_close_stdin": ["pid", "exit_code"],
}

# Only root can become somebody else.
NEEDS_ROOT = {"uid", "gid_only"}


@dataclass
class Client:
    """One connection, and all that came over it."""

    ws: websocket.WebSocket
    messages: list[bytes] = field(default_factory=list)
    pongs: int = 0
    close: tuple[int, str] | None = None

    def receive(self) -> None:
        """Take the next frame."""
        assert self.close is None, f"already closed: {self.close}"
        opcode, frame = self.ws.recv_data_frame(control_frame=True)
        data = frame.data
        if opcode == ABNF.OPCODE_CLOSE:
            code = struct.unpack("!H", data[:2])[0] if data else 1005
            self.close = code, data[2:].decode()
        elif opcode == ABNF.OPCODE_PONG:
            self.pongs += 1
        else:
            assert opcode == ABNF.OPCODE_BINARY
            self.messages.append(data)

    def seen(self, what: str) -> bool:
        if what == "close":
            return self.close is not None
        if what == "pong":
            return self.pongs > 0
        if what == "pid":
            return bool(self.messages)
        if what == "exit_code":
            return any(message.startswith(b'{"type":"exit_code"') for message in self.messages)
        return what.encode() in b"".join(self.messages)

    def receive_until(self, what: str) -> None:
        if what == "pong":
            self.ws.ping(b"are you there")
        while not self.seen(what) and self.close is None:
            self.receive()

    def send(self, *steps: Any) -> None:
        """Send messages in one go: the server has them all, or none of them, at one time."""
        self.ws.sock.sendall(b"".join(map(frame, steps)))

    @property
    def pid(self) -> int:
        return int(json.loads(self.messages[0])["pid"])


def frame(step: Any) -> bytes:
    """Return the frame of a message as the recordings write it."""
    if isinstance(step, str):
        data, opcode = step.encode(), ABNF.OPCODE_BINARY
    elif "b64" in step:
        data, opcode = base64.b64decode(step["b64"]), ABNF.OPCODE_BINARY
    elif "text" in step:
        data, opcode = step["text"].encode(), ABNF.OPCODE_TEXT
    else:
        message = f"{step['header']}\n{step['repeat'] * step['times']}"
        data, opcode = message.encode(), ABNF.OPCODE_BINARY
    return bytes(ABNF.create_frame(data, opcode).format())


@contextlib.contextmanager
def connected(url: str) -> Iterator[Client]:
    ws = websocket.create_connection(
        url, timeout=SECONDS, suppress_origin=True, http_no_proxy=["*"], enable_multithread=False
    )
    try:
        assert "sec-websocket-extensions" not in ws.headers
        yield Client(ws)
    finally:
        ws.shutdown()


def play(client: Client, entry: dict[str, Any]) -> None:
    """Send what the recorded client sent, and receive all that comes."""
    pauses = iter(PAUSES_FOR.get(entry["name"], ()))
    together: list[Any] = []
    for step in [*entry["sent"], None]:
        if step is None or (isinstance(step, dict) and step.keys() & {"pause", "hangup"}):
            # A refusal may come, and the connection end, before the client has said all.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(*together)
            together.clear()
            if step and "pause" in step:
                client.receive_until(next(pauses, "pid"))
            elif step:
                client.ws.send_close(step["hangup"])
        else:
            together.append(step)
    client.receive_until("close" if entry["close"] else "exit_code")


def joined(messages: list[bytes]) -> list[dict[str, Any]]:
    """Return the messages in the form of the recordings: bodies of one stream are one."""
    found: list[dict[str, Any]] = []
    streams: dict[str, dict[str, Any]] = {}
    for message in messages:
        header, delimiter, body = message.partition(b"\n")
        fields = json.loads(header)
        one = {"header": fields, "delimiter": bool(delimiter), "body": body.decode()}
        if fields["type"] in streams:
            streams[fields["type"]]["body"] += one["body"]
            assert delimiter
        else:
            found.append(one)
            if fields["type"] in ("stdout", "stderr"):
                streams[fields["type"]] = one
    return found


def assert_same(messages: list[bytes], recorded: list[dict[str, Any]]) -> None:
    got = joined(messages)
    for message in got:
        header = message["header"]
        if header["type"] == "pid":
            assert isinstance(header["pid"], int)
            assert header["pid"] > 1
            header["pid"] = "PID"
        for addition in ADDITIONS:
            header.pop(addition, None)
    expected = [
        {**message, "header": json.loads(message["header"].replace(":PID}", ':"PID"}'))}
        for message in recorded
    ]
    # Which of two streams came first is chance; that the pid is first and the exit last is not.
    assert got[:1] + got[-1:] == expected[:1] + expected[-1:]
    assert {m["header"]["type"]: m for m in got} == {m["header"]["type"]: m for m in expected}
    assert len(got) == len(expected)


@dataclass(frozen=True)
class Command:
    """A running `wsep-sync serve`."""

    process: subprocess.Popen[str]
    url: str
    log: IO[str]


@contextlib.contextmanager
def serve_command() -> Iterator[Command]:
    """Run the command line's server; it has to end on SIGTERM, with all it has started."""
    options = ["-W", "error", "-X", "faulthandler"]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [sys.executable, *options, "-m", "wsep_sync", "serve", "--port", "0", "--grace", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"listening on (ws://127\.0\.0\.1:\d+)\n", line)
            assert match, line
            command = Command(process, match[1], log)
            yield command
            end(command, signal.SIGTERM)
        finally:
            process.kill()


def end(command: Command, number: signal.Signals) -> None:
    """End the server with a signal: it has nothing to complain of, but of clients."""
    process = command.process
    if process.returncode is None:
        process.send_signal(number)
        try:
            rest, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # for faulthandler, which tells where it is
            process.wait(SECONDS)
            rest = ""
        command.log.seek(0)
        log = command.log.read()
        assert rest == "", log
        for line in log.splitlines():
            assert re.match(r"\S+Z (INFO|WARNING) ", line), log
        assert process.returncode == 0


@pytest.fixture(scope="module", params=["in this process", "command"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that serves all the tests of this module."""
    if request.param == "command":
        with serve_command() as command:
            yield command.url
    else:
        with listening() as listener:
            yield listener.url


@pytest.fixture
def still_serves(url: str) -> Iterator[None]:
    yield
    with connected(url) as client:
        client.send('{"type":"start","command":{"command":"echo","args":["alive"]}}')
        client.receive_until("exit_code")
        assert joined(client.messages)[1]["body"] == "alive\n"


def test_all_entries_are_here() -> None:
    names = [entry["name"] for entry in ENTRIES]
    assert len(set(names)) == len(names) == 50
    assert {*INSTEAD, *PID_MAY_COME, *PAUSES_FOR, *NEEDS_ROOT} <= set(names)


@pytest.mark.usefixtures("still_serves")
@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["name"] for entry in ENTRIES])
def test_replay(url: str, entry: dict[str, Any]) -> None:
    name = entry["name"]
    expected = {**entry, **INSTEAD.get(name, {})}
    if name in NEEDS_ROOT and os.geteuid() != 0:
        expected |= {"got": [], "close": {"code": 1011, "reason": "operation not permitted"}}
    with connected(url) as client:
        play(client, expected)
        if name in PID_MAY_COME and client.messages:
            expected["got"] = [PID]
        assert_same(client.messages, expected["got"])
        if expected["close"]:
            assert_closed(client, expected["close"])
        else:
            # The client is to close. Until then the connection is open, both ways.
            assert client.close is None
            client.receive_until("pong")
            assert client.close is None
            client.ws.send_close(1000)
            client.receive_until("close")
            assert client.close == (1000, "")
        assert client.ws.sock.recv(1) == b"", "the connection is not closed"
        if "process_after_hangup" in expected:
            with ends_processes(client.pid):
                gone(client.pid)


def assert_closed(client: Client, expected: dict[str, Any]) -> None:
    assert client.close is not None
    code, reason = client.close
    assert code == expected["code"]
    assert len(reason.encode()) <= 123
    assert bool(reason) == bool(expected["reason"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stdin_not_enabled", r"stdin.*not enabled"),
        ("working_dir_missing", r"/nope.*no such file or directory"),
        ("command_missing", r"no-such-command-here.*(not found|no such file)"),
        ("command_empty", r"no command"),
        ("command_not_executable", r"/etc/hostname: (exec format error|permission denied)"),
        ("resize_first", r"resize.*before.*start"),
        ("resize_negative", r"rows must be 0 to 65535"),
        ("resize_70000", r"rows must be 0 to 65535"),
        ("start_twice", r"already started"),
        ("not_json", r"JSON"),
        ("json_array", r"JSON object"),
        ("empty_message", r"JSON"),
        ("start_wrong_type", r"args"),
        ("start_with_body", r"body"),
        ("big_64001", r"64000"),
    ],
)
def test_a_refusal_says_what_was_wrong(url: str, name: str, said: str) -> None:
    entry = next(entry for entry in ENTRIES if entry["name"] == name)
    with connected(url) as client:
        play(client, entry)
        assert client.close is not None
        assert re.search(said, client.close[1]), client.close


def test_every_refusal_is_looked_at() -> None:
    (parameters,) = (
        mark.args[1]
        for mark in test_a_refusal_says_what_was_wrong.pytestmark  # type: ignore[attr-defined]
    )
    refused = {
        entry["name"]
        for entry in ENTRIES
        if {**entry, **INSTEAD.get(entry["name"], {})}["close"]
        and "process_after_hangup" not in entry
    }
    assert {name for name, _ in parameters} == refused


def test_a_second_end_of_input_right_behind_the_first(url: str) -> None:
    # The recording's pause lets the command end in between.
    with connected(url) as client:
        client.send('{"type":"start","command":{"command":"cat","stdin":true}}')
        client.send('{"type":"close_stdin"}\n')
        client.send('{"type":"close_stdin"}\n')
        client.receive_until("exit_code")
        assert_same(client.messages, [PID, EXIT_0])


def test_a_client_that_does_not_close_is_closed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsep_sync.serving.connection._CLOSE_WAIT", 1.0)  # a minute is too long
    with listening() as listener, connected(listener.url) as client:
        client.send('{"type":"start","command":{"command":"true"}}')
        client.receive_until("close")
        assert client.seen("exit_code")
        assert client.close == (1000, "")


def test_compression_is_not_agreed_on(url: str) -> None:
    # The reference's client and every browser offer it.
    offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
    ws = websocket.create_connection(
        url,
        timeout=SECONDS,
        http_no_proxy=["*"],
        header=[f"Sec-WebSocket-Extensions: {offer}"],
    )
    try:
        assert "sec-websocket-extensions" not in ws.headers
    finally:
        ws.shutdown()


def test_many_clients_at_once(url: str) -> None:
    entry = next(entry for entry in ENTRIES if entry["name"] == "stdin_cat")
    failures: list[BaseException] = []

    def client() -> None:
        try:
            test_replay(url, entry)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not failures


@contextlib.contextmanager
def served_in_memory(command: dict[str, Any]) -> Iterator[Transport]:
    """A client whose command runs, with the server's end in a thread of its own."""
    client, server = memory_pair()
    with Task(Server().serve, server, LocalExecer()):
        client.send(json.dumps({"type": "start", "command": command}).encode())
        assert client.receive()[:13] == b'{"type":"pid"'
        yield client
        client.abort()


def test_input_byte_by_byte_costs_no_more_than_bytes() -> None:
    # The command does not read: all of it is kept.
    with served_in_memory({"command": "sleep", "args": ["3600"], "stdin": True}) as client:
        message = b'{"type":"stdin"}\nx'
        for _ in range(70_000):  # a pipe holds 65,536
            client.send(message)
        tracemalloc.start()
        try:
            for _ in range(20_000):
                client.send(message)
            assert tracemalloc.get_traced_memory()[0] < 1 << 20
        finally:
            tracemalloc.stop()


def test_input_byte_by_byte_arrives_in_order() -> None:
    data = bytes(range(256)) * 40
    with served_in_memory({"command": "cat", "stdin": True}) as client:
        got = bytearray()
        for i in range(0, len(data), 3):
            client.send(b'{"type":"stdin"}\n', data[i : i + 3])
        client.send(b'{"type":"close_stdin"}')
        while (message := bytes(client.receive()))[:17] == b'{"type":"stdout"}':
            got += message[18:]
        assert got == data


def test_input_without_end_is_held_up() -> None:
    def send(client: Transport) -> None:
        while True:
            client.send(b'{"type":"stdin"}\n', bytes(1000))

    with served_in_memory({"command": "sleep", "args": ["3600"], "stdin": True}) as client:
        for _ in range(2):  # more than the pipe holds: what follows is not taken
            client.send(b'{"type":"stdin"}\n', bytes(60_000))
        with Task(send, client) as sending:
            blocked(sending)
            client.abort()
            with pytest.raises(TransportClosed):
                sending.result()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_with_all_it_has_started(number: signal.Signals) -> None:
    with serve_command() as command, connected(command.url) as client:
        # It ignores what it can, and leaves a child in its group.
        script = "trap '' HUP TERM INT; sleep 3600 & echo $!; while :; do sleep 3600; done"
        start = {"type": "start", "command": {"command": "sh", "args": ["-c", script]}}
        client.send(json.dumps(start))
        while len(client.messages) < 2:
            client.receive()
        child = int(client.messages[1].partition(b"\n")[2])
        with ends_processes(client.pid, child):
            end(command, number)
            gone(client.pid, child, seconds=1)
