"""The loop of a connection: it sleeps when there is nothing to do, and loses no input."""

from __future__ import annotations

import contextlib
import io
import itertools
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
from wsep_sync.serving import connection
from wsep_sync.transports import sockets

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


def test_a_client_that_is_slow_to_read_the_rest_gets_it_and_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Much shorter than it takes.
    monkeypatch.setattr(connection, "_CLOSE_WAIT", 0.05)
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.05)
    size = 3_000_000  # more than the kernels hold
    with listening() as listener, RawClient(listener.url) as client:
        client.start(Command("head", ["-c", str(size), "/dev/zero"]))
        got, pause = 0, threading.Event()
        while True:
            header, body = client.receive()
            got += len(body)
            if header["type"] == "exit_code":
                break
            pause.wait(0.01)
            if got > size // 2 > got - len(body):
                client.ws.ping("there")  # a server that had closed would answer with a reset
        assert got == size
        assert header["exit_code"] == 0


# An execer of somebody's own, whose files have nothing but what the io module asks for


class _Input(io.RawIOBase):
    """Takes a little of what is written at a time, or nothing for now."""

    def __init__(self) -> None:
        self.got = b""
        self.came = threading.Event()
        self._turns = itertools.count()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int | None:  # type: ignore[override]
        if next(self._turns) % 3 == 0:
            return None
        taken = bytes(memoryview(data))[:10_000]  # type: ignore[arg-type]
        self.got += taken
        if b"\4" in taken:
            self.came.set()
        return len(taken)


class _Output(io.RawIOBase):
    """Has as much as it is told, and nothing for now in every third turn."""

    def __init__(self, size: int) -> None:
        self.over = threading.Event()
        self._left = size
        self._turns = itertools.count()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int | None:  # type: ignore[override]
        if self._left and next(self._turns) % 3 == 0:
            return None
        count = min(self._left, len(memoryview(buffer)))  # type: ignore[arg-type]
        if not count:
            self.over.wait()
        self._left -= count
        return count


class _Process(Process):
    def __init__(self, size: int) -> None:
        self.pid = 1
        self.input, self.output = _Input(), _Output(size)
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
    """Each command writes so many bytes, and reads what comes."""

    def __init__(self) -> None:
        self.started: list[_Process] = []

    def start(self, command: Command) -> Process:
        self.started.append(_Process(int(command.command)))
        return self.started[-1]


@pytest.fixture
def plain() -> Iterator[tuple[_Plain, str]]:
    execer, server = _Plain(), Server()
    with listening(execer, server) as listener:
        yield execer, listener.url
        server.close()


def test_the_end_of_a_plain_terminals_input_is_its_character(plain: tuple[_Plain, str]) -> None:
    execer, url = plain
    with connect(url) as remote, remote.start(Command("0", tty=True, id="x")) as process:
        process.stdin.write(b"abc")
        process.stdin.close()
        assert execer.started[0].input.came.wait(SECONDS)
        assert execer.started[0].input.got == b"abc\4"


def test_plain_files_that_take_or_have_nothing_for_now(plain: tuple[_Plain, str]) -> None:
    execer, url = plain
    data = bytes(range(1, 4)) * 100_000 + b"\4"
    with connect(url) as remote, remote.start(Command("300000", stdin=True)) as process:
        assert len(process.stdout.read(300_000)) == 300_000
        process.stdin.write(data)
        process.stdin.flush()
        assert execer.started[0].input.came.wait(SECONDS)
        assert execer.started[0].input.got == data


@pytest.mark.parametrize("way", ["close", "cut"])
def test_a_plain_output_that_nobody_reads_keeps_no_connection(
    plain: tuple[_Plain, str], way: str
) -> None:
    _, url = plain
    with RawClient(url) as client:
        client.start(Command("100000000"))
        client.receive()
        client.reset() if way == "cut" else client.hang_up()
    # That no thread is left is seen to after each test.
