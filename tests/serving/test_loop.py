"""The loop of a connection: it sleeps when there is nothing to do, and loses no input."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
from helpers import SECONDS, RawClient, eventually, listening, sh

from wsep_sync import Command, Execer, Process, Server, connect
from wsep_sync.jobs.poller import Poller
from wsep_sync.protocol.messages import Start

CLOSE = websocket.ABNF.OPCODE_CLOSE


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the turns of all loops, from then on when it is cleared."""
    counted: list[int] = []
    wait = Poller.wait

    def count(self: Poller, wanted: dict[int, int], timeout: float) -> None:
        counted.append(1)
        wait(self, wanted, timeout)

    monkeypatch.setattr(Poller, "wait", count)
    return counted


def sleeps(turns: list[int]) -> None:
    """See that the loops do: there is nothing to wait for, so for a moment, some of them."""
    pause = threading.Event()

    def calm() -> bool:
        turns.clear()
        pause.wait(0.3)
        return len(turns) < 10

    eventually(calm, "the loops sleep")


@pytest.mark.parametrize("hops", [1, 2])
def test_while_a_command_does_not_read(turns: list[int], hops: int) -> None:
    with (
        listening() as back,
        listening(lambda: connect(back.url)) as front,
        RawClient((back if hops == 1 else front).url) as client,
    ):
        client.start(Command("sleep", ["1000"], stdin=True))
        assert client.send_until_full(b'{"type":"stdin"}\n' + bytes(1000)) > 1 << 20
        sleeps(turns)


def test_while_a_client_does_not_read(turns: list[int]) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.start(Command("yes"))
        for _ in range(3):
            client.ws.ping("x")  # the answers wait behind the output
            sleeps(turns)


def test_an_answer_to_a_ping_that_waited_is_sent_once_it_goes(turns: list[int]) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        script = "head -c 30000000 /dev/zero; exec sleep 1000"
        client.start(sh(script))
        sleeps(turns)  # the kernel takes no more
        client.ws.ping("waited")
        size, pong = 0, b""
        while size < 30_000_000 or not pong:
            opcode, data = client.ws.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_PONG:
                pong = data
            else:
                size += len(data.partition(b"\n")[2])
        assert pong == b"waited"
        sleeps(turns)


def together(*frames: tuple[int, bytes]) -> bytes:
    return b"".join(websocket.ABNF.create_frame(data, opcode).format() for opcode, data in frames)


def test_what_came_before_the_close_frame_is_done_though_all_came_at_once(tmp_path: Path) -> None:
    made = tmp_path / "made"
    typed = f"touch {made}\n".encode()
    binary = websocket.ABNF.OPCODE_BINARY
    start = Start(Command("sh", tty=True, id="s")).encode()
    with (
        contextlib.closing(Server()) as server,
        listening(server=server) as listener,
        RawClient(listener.url) as client,
    ):
        data = together(
            (binary, start),
            (binary, b'{"type":"stdin"}\n' + typed),
            (CLOSE, struct.pack("!H", 1000)),
        )
        client.ws.sock.sendall(data)
        eventually(made.exists, "the session has what was typed")


# An execer of somebody's own, whose files have nothing but what the io module asks for


class _Input(io.RawIOBase):
    def __init__(self) -> None:
        self.got = b""
        self.came = threading.Event()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        taken = bytes(memoryview(data))  # type: ignore[arg-type]
        self.got += taken
        if b"\4" in taken:
            self.came.set()
        return len(taken)


class _Output(io.RawIOBase):
    def __init__(self) -> None:
        self.over = threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        self.over.wait()
        return 0


class _Process(Process):
    def __init__(self) -> None:
        self.pid = 1
        self.input, self.output = _Input(), _Output()
        self.stdin = io.BufferedWriter(self.input)
        self.stdout = io.BufferedReader(self.output)
        self.stderr = io.BufferedReader(io.BytesIO())  # type: ignore[arg-type]

    def resize(self, rows: int, cols: int) -> None:
        pass

    def send_signal(self, signal: int) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> None:
        if not self.output.over.wait(timeout):
            raise TimeoutError

    def kill(self) -> None:
        self.close()

    def close(self) -> None:
        self.output.over.set()


class _Plain(Execer):
    def __init__(self) -> None:
        self.started: list[_Process] = []

    def start(self, command: Command) -> Process:
        self.started.append(_Process())
        return self.started[-1]


@pytest.fixture
def plain() -> Iterator[tuple[_Plain, str]]:
    execer, server = _Plain(), Server()
    with listening(execer, server) as listener:
        yield execer, listener.url
        server.close()


def test_the_end_of_a_plain_terminals_input_is_its_character(plain: tuple[_Plain, str]) -> None:
    execer, url = plain
    with connect(url) as remote, remote.start(Command("any", tty=True, id="x")) as process:
        process.stdin.write(b"abc")
        process.stdin.close()
        assert execer.started[0].input.came.wait(SECONDS)
        assert execer.started[0].input.got == b"abc\4"
