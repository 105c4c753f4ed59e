"""Clients of the HTTP server, by hand."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from helpers import SECONDS

from wsep_sync import Command, Execer, LocalExecer, Server, connect
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def app() -> Any:
    return application(Server(), LocalExecer())


@contextlib.contextmanager
def connected(listener: Listener) -> Iterator[socket.socket]:
    address = listener.server_address[:2]
    with socket.create_connection((str(address[0]), int(address[1])), SECONDS) as sock:
        yield sock


def works(url: str, **options: Any) -> None:
    with connect(url, **options) as execer:
        run_echo(execer)


def run_echo(execer: Execer) -> None:
    with execer.start(Command("echo", ["hello"])) as process:
        assert process.stdout.read() == b"hello\n"
        process.wait(SECONDS)


def closes(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65_536):
            got += piece
    return got


HOST = b"Host: localhost\r\n"
PLAIN = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
UPGRADE = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcy4uLg==\r\n" + HOST
)


def asked(request: bytes, port: int) -> tuple[bytes, bytes]:
    """Send a request and read until the end, which must be no reset; the status and the text."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(request)
        return answered(read_all(sock))


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65_536), b""))


def answered(response: bytes) -> tuple[bytes, bytes]:
    """Check that it is a response by all the rules; return its status and its text."""
    head, _, body = response.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    version, status, phrase = line.split(b" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    assert version == b"HTTP/1.1"
    assert phrase
    assert int(headers[b"content-length"]) == len(body)
    assert headers[b"content-type"].startswith(b"text/plain")
    assert b"close" in headers[b"connection"]
    assert body.endswith(b"\n")
    assert b"Traceback" not in body
    return status, body
