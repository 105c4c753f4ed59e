"""Deadlines that hold when bytes keep coming, and bounds for what comes, at both ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from helpers import SECONDS, Task, gone, listening, serving, sh, start_message
from peers import BINARY, CLOSE, CONTINUATION, PING, RawPeer, accept_raw, dial_raw, listening_socket
from programs import has_one_line, run, server_process

from wsep_sync import Command, ConnectError, LocalExecer, Options, Server, StartError, connect
from wsep_sync.serving import connection as server
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

NONSENSE = b'{"type":"nonsense"}\n'


def flood(peer: RawPeer, kind: str) -> Iterator[bytes]:
    """Bytes without end."""
    if kind == "empty fragments":
        yield peer.frame(BINARY, b"", final=False)
    if kind == "a message in single bytes":
        yield peer.frame(BINARY, b"", length=60_000)
        while True:
            yield b"x"
            time.sleep(0.01)  # or it would soon be whole
    piece = {
        "pings": peer.frame(PING, b"ping") * 500,
        "empty fragments": peer.frame(CONTINUATION, b"", final=False) * 500,
        "unknown messages": peer.frame(BINARY, NONSENSE) * 500,
        "long unknown messages": peer.frame(BINARY, NONSENSE.ljust(60_000, b"x")),
        "stdin": peer.frame(BINARY, b'{"type":"stdin"}\n'.ljust(60_000, b"x")),
    }[kind]
    while True:
        yield piece


KINDS = ["pings", "empty fragments", "unknown messages", "long unknown messages"]


@contextlib.contextmanager
def flooding(peer: RawPeer, kind: str) -> Iterator[None]:
    """Send without end, until the other end has enough."""

    def send() -> None:
        with contextlib.suppress(OSError):
            for piece in flood(peer, kind):
                peer.socket.sendall(piece)

    with Task(send):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def at(listener: Listener) -> Iterator[RawPeer]:
    peer = dial_raw(listener.server_address)
    try:
        yield peer
    finally:
        peer.socket.close()


def closed_with(peer: RawPeer) -> tuple[int | None, str]:
    while (frame := peer.receive()).opcode != CLOSE:
        pass
    return frame.code, frame.reason


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CLOSE_WAIT", 0.3)
    monkeypatch.setattr("wsep_sync.transports.sockets.CLOSE_TIMEOUT", 0.3)


# The server's


@pytest.mark.parametrize("kind", [*KINDS, "a message in single bytes"])
def test_a_flood_in_place_of_a_start(kind: str) -> None:
    app = application(Server(), LocalExecer(), Options(start_timeout=0.3))
    with serving(Listener(app)) as listener, at(listener) as peer, flooding(peer, kind):
        assert closed_with(peer) == (1008, "no start within 0.3 seconds")


@pytest.mark.parametrize("kind", [*KINDS, "stdin"])
def test_a_flood_behind_the_exit_code(kind: str) -> None:
    with listening() as listener, at(listener) as peer:
        # What is left in the background holds the input, and reads none of it.
        script = "sleep 1000 <&0 >&- 2>&- & echo $!"
        peer.send(BINARY, start_message(sh(script, stdin=True)))
        pid = 0
        while b"exit_code" not in (payload := peer.receive().payload):
            if payload.startswith(b'{"type":"stdout"}'):
                pid = int(payload.split()[-1])
        try:
            with flooding(peer, kind):
                assert closed_with(peer)[0] == 1000
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", [*KINDS, "stdin"])
def test_a_flood_while_the_server_ends(kind: str) -> None:
    table = Server()
    with listening(server=table) as listener, at(listener) as peer:
        peer.send(BINARY, start_message(Command("sleep", ["1000"], stdin=True)))
        while not (payload := peer.receive().payload).startswith(b'{"type":"pid"'):
            pass
        with flooding(peer, kind):
            table.close()
            assert closed_with(peer) == (1001, "the server is ending")
    del payload


def test_the_grace_of_a_server_that_is_flooded() -> None:
    with server_process("--grace", "0.5") as (url, process):
        host, _, port = url.removeprefix("ws://").rpartition(":")
        with contextlib.ExitStack() as cleanup:
            peers = [dial_raw((host, int(port))) for _ in KINDS]
            for peer in peers:
                cleanup.callback(peer.socket.close)
                peer.send(BINARY, start_message(sh("echo $$; exec sleep 1000")))
                payload = b""
                while not payload.startswith(b'{"type":"stdout"}'):
                    payload = peer.receive().payload
                pid = int(payload.split()[-1])
                cleanup.callback(gone, pid)
            for peer, kind in zip(peers, KINDS, strict=True):
                cleanup.enter_context(flooding(peer, kind))
                Task(drain, peer.socket)
            process.send_signal(signal.SIGTERM)
            process.finish()


def drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


# The client's


@pytest.mark.parametrize("kind", [*KINDS, "a message in single bytes"])
def test_a_flood_in_place_of_the_pid(kind: str) -> None:
    with listening_socket() as listening:

        def serve() -> None:
            peer = accept_raw(listening)
            with peer.socket, flooding(peer, kind):
                drain(peer.socket)

        with Task(serve):
            url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
            with connect(url, timeout=0.5) as execer, pytest.raises(StartError, match=r"0\.5 sec"):
                execer.start(Command("true"))


# Answers without end: how they begin, and how they go on.
ENDLESS = {
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "header lines": (b"HTTP/1.1 200 OK\r\n", b"X-%d: x\r\n" * 100),
    "a header line": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
    "a status line": (b"", b"HTTP" * 1024),
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b"[" * 4096),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b"[" * 4096),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n" * 1000),
    "a refusal": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 4096),
}


@contextlib.contextmanager
def answering(begin: bytes, piece: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server whose answer has no end; yields its URL."""
    over = threading.Event()
    with listening_socket() as listening:

        def serve() -> None:
            sock, _ = listening.accept()
            with sock, contextlib.suppress(OSError):
                sock.recv(1 << 16)
                sock.sendall(begin)
                while not over.is_set():
                    if piece:
                        sock.sendall(piece)
                    over.wait(pause)

        with Task(serve):
            try:
                yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                over.set()


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["fast", "slow"])
@pytest.mark.parametrize("answer", ENDLESS)
def test_an_answer_without_end(answer: str, pause: float) -> None:
    begin, piece = ENDLESS[answer]
    with (
        answering(begin, piece[:10] if pause else piece, pause) as url,
        pytest.raises(ConnectError) as failed,
    ):
        connect(url, timeout=0.5 if pause else SECONDS)
    if answer == "a refusal":
        assert failed.value.status == 404


@pytest.mark.parametrize("answer", ENDLESS)
def test_a_list_without_end(answer: str) -> None:
    begin, piece = ENDLESS[answer]
    with answering(begin, piece) as url:
        code = (
            "import resource, sys; from wsep_sync.cli import main\n"
            "resource.setrlimit(resource.RLIMIT_AS, (600 << 20,) * 2)\n"
            "sys.exit(main(['sessions', '--timeout', '5', '--url', sys.argv[1]]))"
        )
        done = Task(run_python, code, url).result()
    assert done[0] in (1, 255), done
    has_one_line(done[1])


def test_a_list_that_comes_slowly() -> None:
    begin, piece = ENDLESS["a body"]
    with answering(begin, piece[:1], 0.05) as url:
        done = run("sessions", "--timeout", "0.5", "--url", url)
    assert done.returncode == 255
    has_one_line(done.stderr, "0.5 seconds")


DEEP = b'[{"id":' + b"[" * 900 + b"]" * 900 + b"}]"


@pytest.mark.parametrize("body", [b"[" * 100_000, b'[{"id":' * 100_000, DEEP, b"1"])
def test_a_list_that_is_none(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body, b"", 0.05) as url:
        done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "no list of sessions")


def run_python(code: str, *arguments: str) -> tuple[int, bytes]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stderr
