"""The threaded HTTP server: too many clients, too few resources."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import certificates
from helpers import SECONDS, eventually, listening, serving, sh
from http_clients import (
    PLAIN,
    POST,
    UPGRADE,
    answered,
    app,
    asked,
    closes,
    connected,
    read_all,
    run_echo,
    works,
)

from wsep_sync import Command, ConnectError, connect
from wsep_sync.web.listener import Listener, _Connection, _peer

# How many there may be


def test_a_response_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.web.http_request._RESPONSE_TIMEOUT", 0.3)

    def endless(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        while True:
            yield b"x" * 1000

    with serving(Listener(endless)) as listener, connected(listener) as sock:
        sock.sendall(PLAIN)
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


def test_a_connection_too_many() -> None:
    with listening(max_connections=3) as listener, contextlib.ExitStack() as stack:
        old = [stack.enter_context(connected(listener)) for _ in range(3)]
        eventually(lambda: listener.connections == 3, "three connections")
        with pytest.raises(ConnectError, match="503"):
            connect(listener.url)
        old.pop().close()
        eventually(lambda: listener.connections == 2, "the end of a connection")
        execer = stack.enter_context(connect(listener.url))
        process = stack.enter_context(execer.start(sh("read line; echo $line", stdin=True)))
        # It does not count as one that has not said what it wants.
        old.append(stack.enter_context(connected(listener)))
        eventually(lambda: listener.connections == 4, "four connections")
        for request in (PLAIN, UPGRADE + b"\r\n", POST + b"\r\n" + bytes(30_000), b"GET /", b""):
            status, text = asked(request, listener.server_port)
            assert status == b"503"
            assert b"connections" in text
        with pytest.raises(ConnectError, match="503") as caught:
            connect(listener.url)
        assert caught.value.status == 503
        assert listener.connections == 4
        # Those who came first are served on.
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.read() == b"hello\n"
        old[0].sendall(PLAIN)
        assert answered(read_all(old[0]))[0] == b"426"
        # And when one has gone, there is room for another.
        old[0].close()
        eventually(lambda: listener.connections == 2, "the end of two connections")
        works(listener.url)


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_websocket_too_many() -> None:
    with listening(max_connections=2) as listener, contextlib.ExitStack() as stack:
        execer = stack.enter_context(connect(listener.url))
        running = [stack.enter_context(execer.start(Command("cat", stdin=True))) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(ConnectError, match="too many connections") as caught:
                connect(listener.url)
            assert caught.value.status == 503
        # Until they have ended, they count among those without a WebSocket.
        eventually(lambda: listener.connections == 2, "the end of those that were refused")
        with connected(listener) as sock:
            sock.sendall(HEALTH)
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        # One that was refused takes no place.
        assert asked(UPGRADE + b"\r\n", listener.server_port)[0] == b"503"
        running.pop().close()
        eventually(lambda: listener.connections == 1, "the end of a connection")
        works(listener.url)


def test_one_peer_does_not_lock_others_out() -> None:
    # Every address of 127.0.0.0/8 is this machine's own.
    def attempt(listener: Listener, source: str, request: bytes) -> socket.socket:
        sock = socket.create_connection(
            ("127.0.0.1", listener.server_port), SECONDS, source_address=(source, 0)
        )
        sock.sendall(request)
        return sock

    websocket = UPGRADE + b"\r\n"
    with listening(max_connections=6, max_connections_per_peer=2) as listener:
        for first, request in ((b"101", websocket), (b"", b"GET")):
            with contextlib.ExitStack() as stack:
                for _ in range(2):
                    sock = stack.enter_context(attempt(listener, "127.0.0.2", request))
                    if first:
                        assert sock.recv(12).endswith(first)
                with attempt(listener, "127.0.0.2", request) as sock:
                    assert answered(read_all(sock))[0] == b"503"
                for source in ("127.0.0.3", "127.0.0.4"):
                    with attempt(listener, source, websocket) as sock:
                        assert sock.recv(12).endswith(b"101")
                with attempt(listener, "127.0.0.3", HEALTH) as sock:
                    assert read_all(sock).startswith(b"HTTP/1.1 200 ")
            eventually(lambda: not listener.connections, "the end of all")
        works(listener.url)
    assert not listener._counts


def test_whose_connections_are_counted_together() -> None:
    for one, other, together in (
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ):
        assert (_peer((one, 1)) == _peer((other, 2))) is together, (one, other)
    assert _peer("/run/socket") == _peer(b"") == ""


@pytest.mark.parametrize(
    ("given", "address", "taken"),
    [
        (None, "192.0.2.1", 4),
        (None, "2001:db8::1", 4),
        (None, "127.0.0.1", 8),
        (None, "::1", 8),
        (3, "127.0.0.1", 3),
        (100, "192.0.2.1", 8),
    ],
)
def test_how_many_connections_a_peer_may_have(given: int | None, address: str, taken: int) -> None:
    with Listener(app(), max_connections=8, max_connections_per_peer=given) as listener:
        for kind in (False, True):
            connections = [_Connection(socket.socket(), (address, port)) for port in range(9)]
            for number, connection in enumerate(connections):
                connection.admitted = kind
                assert bool(listener._full(connection, kind)) is (number >= taken)
                if number < taken:
                    listener._count(connection, 1)
                connection.sock.close()


def test_a_connection_too_many_of_tls() -> None:
    server, client = certificates().server, certificates().client
    with listening(max_connections=1, ssl_context=server) as listener:
        with connected(listener):
            eventually(lambda: listener.connections == 1, "the connection")
            with connected(listener) as sock:
                assert closes(sock) == b""
            with pytest.raises(ConnectError):
                connect(listener.url, ssl_context=client)
        eventually(lambda: not listener.connections, "the end of the connection")
        works(listener.url, ssl_context=client)


def test_ten_thousand_idle_connections(caplog: pytest.LogCaptureFixture) -> None:
    count = 10_000
    with (
        listening(max_connections=50, head_timeout=10 * SECONDS) as listener,
        contextlib.ExitStack() as stack,
    ):
        execer = stack.enter_context(connect(listener.url))
        idle = [stack.enter_context(connected(listener)) for _ in range(50)]
        eventually(lambda: listener.connections == 51, "all connections")
        before = time.monotonic()
        for _ in range(count):
            with connected(listener) as sock:
                assert answered(closes(sock))[0] == b"503"
        seconds = time.monotonic() - before
        run_echo(execer)
        idle[0].sendall(PLAIN)
        assert answered(read_all(idle[0]))[0] == b"426"
        for sock in idle:
            sock.close()
        eventually(lambda: not listener.connections, "the end of all")
        works(listener.url)
    # One line a second, and the others are counted.
    lines = [record for record in caplog.records if "status=503" in record.getMessage()]
    assert 1 <= len(lines) <= seconds + 1
    left_out = [getattr(line, "fields").get("left_out", 0) for line in lines]  # noqa: B009
    assert left_out[0] == 0
    assert all(left_out[1:])
    assert len(lines) + sum(left_out) <= count


# A server that runs out of something. What it does not have, this process does not have either, so
# it is another one. It obeys a line of its input: how many descriptors it may have, or that it gets
# just one more; that it gets no threads any more, or that it gets them again.
SCARCE = """
import logging, pathlib, re, resource, sys, threading
from wsep_sync import LocalExecer, Server
from wsep_sync.web import http_request
from wsep_sync.listener import Listener
from wsep_sync.wsgi import application

http_request.LINGER_TIMEOUT = 600

def limit(which, value):
    resource.setrlimit(which, (value, resource.getrlimit(which)[1]))

logging.basicConfig(format="%(message)s")
with Listener(application(Server(), LocalExecer()), head_timeout=600) as listener:
    threading.Thread(target=listener.serve_forever).start()
    print(listener.server_port, flush=True)
    for line in sys.stdin:
        if line.strip() == "no threads":
            # The stack of one takes more address space than there is.
            threading.stack_size(1 << 30)
            status = pathlib.Path("/proc/self/status").read_text()
            size = int(re.search(r"VmSize:\\s+(\\d+) kB", status)[1]) << 10
            limit(resource.RLIMIT_AS, size + (1 << 29))
        elif line.strip() == "one descriptor":
            with open("/dev/null") as file:
                limit(resource.RLIMIT_NOFILE, file.fileno() + 1)
        elif line.strip() == "threads":
            threading.stack_size(0)
            limit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS)[1])
        else:
            limit(resource.RLIMIT_NOFILE, int(line))
        print("done", flush=True)
"""


class Scarce:
    """Runs it, and kills it in the end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCARCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._alarm = threading.Timer(SECONDS, self._process.kill)
        self._alarm.start()
        self.log: list[str] = []
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"ws://127.0.0.1:{self.port}"

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n"

    def logs(self, words: str) -> None:
        """Wait until it has logged a line with these words."""
        assert self._process.stderr is not None
        while words not in (line := self._process.stderr.readline()):
            assert line, f"it ended, having logged {self.log}"
            self.log.append(line)
        self.log.append(line)

    def asleep(self) -> bool:
        """Whether all its threads sleep, and stay so for some 100 ms."""
        tasks = Path(f"/proc/{self._process.pid}/task")
        for _ in range(20):
            for task in tasks.iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if (task / "stat").read_bytes().rpartition(b")")[2].split()[0] != b"S":
                        return False
            time.sleep(0.005)
        return True

    def finish(self) -> None:
        """See it end by itself, without a complaint that it did not expect."""
        _, errors = self._process.communicate(timeout=SECONDS)
        self.log += errors.splitlines()
        assert self._process.returncode == 0, self.log
        assert "Traceback" not in "".join(self.log)

    def __enter__(self) -> Scarce:
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        self._alarm.join()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Those that are not accepted wait in the kernel."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS))
        yield


def test_no_descriptors_left() -> None:
    before = time.monotonic()
    with Scarce() as server:
        server.tell("40")
        with idle_connections(server.port, 60):
            server.logs("Too many open files")
            eventually(server.asleep, "a server that does not ask again and again")
        works(server.url)
        with idle_connections(server.port, 60):
            eventually(server.asleep, "a server that does not ask again and again")
            # It accepts more when there are more, though no connection has ended.
            server.tell("200")
            works(server.url)
        server.finish()
    lines = [line for line in server.log if "Too many open files" in line]
    assert 1 <= len(lines) <= time.monotonic() - before + 1


def test_descriptors_for_the_connection_alone() -> None:
    with Scarce() as server:
        server.tell("one descriptor")
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), SECONDS) as sock:
                sock.sendall(UPGRADE + b"\r\n")
                assert closes(sock).startswith(b"HTTP/1.1 503 ")
        server.tell("200")
        works(server.url)
        server.finish()
    assert any("status=503" in line and "Too many open files" in line for line in server.log)


def test_a_server_without_descriptors_ends() -> None:
    with Scarce() as server:
        server.tell("40")
        with idle_connections(server.port, 60):
            server.logs("Too many open files")
            server.finish()


def test_no_threads_left() -> None:
    with Scarce() as server:
        works(server.url)
        server.tell("no threads")
        for _ in range(3):
            assert asked(PLAIN, server.port)[0] == b"503"
        server.tell("threads")
        works(server.url)
        server.finish()
    assert any("can't start new thread" in line for line in server.log)
