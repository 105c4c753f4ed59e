"""Rows of throughput: input and output, of client and server, of the server alone, of many."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import websocket
from bench import REFERENCE, Bench
from harness import LIMIT, OTHER, Absent, Broken, Contender, Figure, Row, Target
from processes import Worker, relay, server
from relay import DONE, PIECE, RECEIVE, connected

from wsep_sync import Command, connect

__all__ = ["RELAY", "ROWS", "stream", "stream_from_relay"]

RELAY = "TCP relay"

# A shell that becomes cat: there is no process between.
SINK = ["sh", "-c", "exec cat >/dev/null"]

CLIENTS = 8

RATE = Figure("rate", "MB/s", higher_is_better=True)


def figures(size: int, started: float) -> dict[str, float]:
    return {"rate": size / (time.perf_counter() - started) / 1e6}


def check(received: int, size: int) -> None:
    if received != size:
        raise Broken(f"{received} bytes came of {size}")


def pieces(path: str) -> Iterator[memoryview]:
    """Yield what is in a file, in pieces that fill a message each."""
    buffer = memoryview(bytearray(PIECE))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


# Jobs: what the processes of workers do.


def send(url: str, path: str) -> dict[str, float]:
    """Send a file to a command that drops them."""
    with connect(url) as execer, execer.start(Command(SINK[0], SINK[1:], stdin=True)) as process:
        started = time.perf_counter()
        for piece in pieces(path):
            process.stdin.write(piece)
        process.stdin.close()
        process.wait()
        return figures(os.path.getsize(path), started)


def receive(url: str, path: str) -> dict[str, float]:
    """Receive the output of a command that prints a file, and drop it.

    Returns:
        Besides the rate: when it began and ended, by a clock that all processes share, how many
        bytes there were, and the longest time between two of them.
    """
    buffer = memoryview(bytearray(RECEIVE))
    size = 0
    gap = 0.0
    with open(os.devnull, "wb", buffering=0) as null, connect(url) as execer:
        started = time.perf_counter()
        last = 0.0
        with execer.start(Command("cat", [path])) as process:
            while count := process.stdout.readinto1(buffer):
                now = time.perf_counter()
                gap, last = max(gap, now - (last or now)), now
                null.write(buffer[:count])
                size += count
            process.wait()
            rate = figures(size, started)
    check(size, os.path.getsize(path))
    return {**rate, "size": size, "started": started, "ended": last, "gap": gap}


def compare(url: str, path: str) -> dict[str, float]:
    """Send a file to a command that sends it back, and see that it comes as it went."""
    digests = hashlib.sha256(), hashlib.sha256()
    with connect(url) as execer, execer.start(Command("cat", stdin=True)) as process:

        def write() -> None:
            for piece in pieces(path):
                digests[0].update(piece)
                process.stdin.write(piece)
            process.stdin.close()

        writer = threading.Thread(target=write)
        writer.start()
        while data := process.stdout.read1(RECEIVE):
            digests[1].update(data)
        writer.join()
        process.wait()
    if digests[0].digest() != digests[1].digest():
        raise Broken("other bytes came back than were sent")
    return {}


def stream(url: str, path: str) -> dict[str, float]:
    """Begin to receive output without end, which goes on until this process ends."""

    def flow() -> None:
        with open(os.devnull, "wb", buffering=0) as null, connect(url) as execer:
            process = execer.start(Command("sh", ["-c", 'while cat "$1"; do :; done', "sh", path]))
            while count := process.stdout.readinto1(buffer):
                null.write(buffer[:count])
                flows.set()

    buffer = memoryview(bytearray(RECEIVE))
    flows = threading.Event()
    threading.Thread(target=flow, daemon=True).start()
    flows.wait()
    return {}


def send_to_relay(port: int, path: str) -> dict[str, float]:
    with connected(port, SINK, input=True) as sock:
        started = time.perf_counter()
        for piece in pieces(path):
            sock.sendall(piece)
        return end_of_relay(sock, os.path.getsize(path), started)


def send_memory_to_relay(port: int, size: int) -> dict[str, float]:
    """The same from memory: for a sender that has nothing else to do."""
    piece = os.urandom(PIECE)
    with connected(port, SINK, input=True) as sock:
        started = time.perf_counter()
        for _ in range(size // PIECE):
            sock.sendall(piece)
        return end_of_relay(sock, size // PIECE * PIECE, started)


def end_of_relay(sock: socket.socket, size: int, started: float) -> dict[str, float]:
    sock.shutdown(socket.SHUT_WR)
    if sock.recv(1) != DONE:
        raise Broken("the relay's command failed")
    return figures(size, started)


def receive_from_relay(port: int, path: str) -> dict[str, float]:
    buffer = memoryview(bytearray(RECEIVE))
    size = 0
    with open(os.devnull, "wb", buffering=0) as null:
        started = time.perf_counter()
        with connected(port, ["cat", path], input=False) as sock:
            while count := sock.recv_into(buffer):
                null.write(buffer[:count])
                size += count
            rate = figures(size, started)
    check(size, os.path.getsize(path))
    return rate


def stream_from_relay(port: int, path: str) -> dict[str, float]:
    """As `stream`."""

    def flow() -> None:
        argv = ["sh", "-c", 'while cat "$1"; do :; done', "sh", path]
        with (
            open(os.devnull, "wb", buffering=0) as null,
            connected(port, argv, input=False) as sock,
        ):
            while count := sock.recv_into(buffer):
                null.write(buffer[:count])
                flows.set()

    buffer = memoryview(bytearray(RECEIVE))
    flows = threading.Event()
    threading.Thread(target=flow, daemon=True).start()
    flows.wait()
    return {}


@contextlib.contextmanager
def plain(url: str, command: Mapping[str, Any]) -> Iterator[websocket.WebSocket]:
    """A WebSocket of websocket-client as it comes, over which a command was started."""
    with contextlib.closing(
        websocket.create_connection(url, suppress_origin=True, http_no_proxy=["*"])
    ) as ws:
        ws.send_binary(json.dumps({"type": "start", "command": command}).encode())
        header = json.loads(ws.recv())
        if header["type"] != "pid":
            raise Broken(f"{header} came before the pid")
        yield ws


def receive_plainly(url: str, path: str) -> dict[str, float]:
    header = b'{"type":"stdout"}\n'
    size = 0
    started = time.perf_counter()
    with plain(url, {"command": "cat", "args": [path]}) as ws:
        while True:
            _, data = ws.recv_data()
            if data.startswith(header):
                size += len(data) - len(header)
            elif b'"exit_code"' in data:
                break
        rate = figures(size, started)
    check(size, os.path.getsize(path))
    return rate


def send_plainly(url: str, size: int) -> dict[str, float]:
    """Send one and the same frame again and again, which costs next to nothing."""
    body = os.urandom(PIECE)
    frame = websocket.ABNF.create_frame(
        b'{"type":"stdin"}\n' + body, websocket.ABNF.OPCODE_BINARY
    ).format()
    count = size // len(body)
    with plain(url, {"command": SINK[0], "args": SINK[1:], "stdin": True}) as ws:
        started = time.perf_counter()
        for _ in range(count):
            ws.sock.sendall(frame)
        ws.send_binary(b'{"type":"close_stdin"}\n')
        while True:
            header = json.loads(ws.recv())
            if header["type"] == "exit_code":
                break
        if header["exit_code"]:
            raise Broken(f"the command ended with {header}")
        return figures(count * len(body), started)


def transfer_by_ssh(command: list[str], path: str, input: bool) -> dict[str, float]:
    """Have ssh read a file, or a command over there print it.

    It takes long to get in, which is not meant here: the time begins with a word from over there.
    """
    script = f"echo ready >&2; exec cat {'>/dev/null' if input else path}"
    with (
        open(path if input else os.devnull, "rb") as source,
        subprocess.Popen(
            [*command, script], stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as ssh,
    ):
        assert ssh.stderr is not None
        word = ssh.stderr.readline()
        started = time.perf_counter()
        said = ssh.stderr.read()
        if ssh.wait() or word != b"ready\n":
            raise Absent(f"ssh ended with {ssh.returncode}: {(word + said).decode()}")
        return figures(os.path.getsize(path), started)


# Rows


def set_up_input(bench: Bench, stack: ExitStack) -> list[Contender]:
    path = bench.data()
    port = stack.enter_context(relay())
    ours = bench.ours(stack, send, {"rate": Target(0.22)}, fast={"rate": Target(0.5)}, path=path)
    check_bytes(bench, path)
    return [
        bench.limit(stack, send_to_relay, RELAY, port=port, path=path),
        *ours,
        bench.openssh(stack, transfer_by_ssh, path=path, input=True),
    ]


def set_up_output(bench: Bench, stack: ExitStack) -> list[Contender]:
    path = bench.data()
    port = stack.enter_context(relay())
    return [
        bench.limit(stack, receive_from_relay, RELAY, port=port, path=path),
        *bench.ours(stack, receive, {"rate": Target(0.75)}, path=path),
        bench.openssh(stack, transfer_by_ssh, path=path, input=False),
    ]


def check_bytes(bench: Bench, path: str) -> None:
    """See once that what goes through comes out as it was: no job that is timed looks at it."""
    for variant in bench.variants:
        with ExitStack() as stack:
            url = stack.enter_context(server(variant)).url
            bench.worker(stack, compare, variant, url=url, path=path).call()


def set_up_server_input(bench: Bench, stack: ExitStack) -> list[Contender]:
    port = stack.enter_context(relay())
    size = bench.scale.data
    return [
        bench.limit(stack, send_memory_to_relay, RELAY, port=port, size=size),
        *bench.ours(stack, send_plainly, size=size),
    ]


def set_up_server_output(bench: Bench, stack: ExitStack) -> list[Contender]:
    path = bench.data()
    port = stack.enter_context(relay())
    return [
        bench.limit(stack, receive_from_relay, RELAY, port=port, path=path),
        *bench.ours(stack, receive_plainly, path=path),
    ]


def set_up_crowd(bench: Bench, stack: ExitStack) -> list[Contender]:
    path = bench.data()
    part = bench.part(CLIENTS)
    targets = {"rate": Target(0.9), "stall": Target(200.0, "value")}
    contenders = []
    for variant in bench.variants:
        url = stack.enter_context(server(variant)).url
        workers = [
            bench.worker(stack, receive, variant, url=url, path=part) for _ in range(CLIENTS)
        ]
        contenders.append(Contender(variant.name, partial(at_once, workers), targets=targets))
        if variant is bench.variants[0]:
            one = bench.worker(stack, receive, variant, url=url, path=path)
            contenders.insert(0, Contender("one client", partial(at_once, [one]), LIMIT))
    if bench.reference is not None:
        workers = [
            bench.worker(stack, receive, url=bench.reference, path=part) for _ in range(CLIENTS)
        ]
        contenders.append(Contender(REFERENCE, partial(at_once, workers), OTHER))
    return contenders


def at_once(workers: list[Worker]) -> dict[str, float]:
    """Let all begin, and return what they got together and who waited longest."""
    for worker in workers:
        worker.start()
    results = [worker.result() for worker in workers]
    began = min(result["started"] for result in results)
    ended = max(result["ended"] for result in results)
    return {
        "rate": sum(result["size"] for result in results) / (ended - began) / 1e6,
        "stall": max(result["gap"] for result in results) * 1e3,
    }


ROWS = [
    Row("input", "Input: file → client → server → cat >/dev/null", (RATE,), set_up_input),
    Row("output", "Output: cat file → server → client → /dev/null", (RATE,), set_up_output),
    Row(
        "server-input",
        "Input, the server alone: ready-made frames → server → cat >/dev/null",
        (RATE,),
        set_up_server_input,
    ),
    Row(
        "server-output",
        "Output, the server alone: cat file → server → plain websocket-client",
        (RATE,),
        set_up_server_output,
    ),
    Row(
        "crowd",
        f"{CLIENTS} clients at once",
        (
            Figure("rate", "MB/s", "output of all together", higher_is_better=True),
            Figure("stall", "ms", "longest wait of one", compare=""),
        ),
        set_up_crowd,
    ),
]
