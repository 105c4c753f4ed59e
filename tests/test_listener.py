"""The threaded HTTP server: sockets, heads, shutdown."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from certificates import certificates
from helpers import (
    SECONDS,
    RawClient,
    Task,
    alive,
    blocked,
    ends_processes,
    eventually,
    listening,
    serving,
    sh,
    state,
)

from wsep_sync import (
    Command,
    ConnectError,
    ExitMissing,
    LocalExecer,
    Server,
    connect,
    listener,
)
from wsep_sync.listener import Listener
from wsep_sync.wsgi import application


def app() -> Any:
    return application(Server(), LocalExecer())


@contextlib.contextmanager
def connected(listener: Listener) -> Iterator[socket.socket]:
    address = listener.server_address[:2]
    with socket.create_connection((str(address[0]), int(address[1])), SECONDS) as sock:
        yield sock


def works(url: str, **options: Any) -> None:
    with connect(url, **options) as execer, execer.start(Command("echo", ["hello"])) as process:
        assert process.stdout.read() == b"hello\n"
        process.wait(SECONDS)


def closes(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65_536):
            got += piece
    return got


# Addresses


def test_a_free_port() -> None:
    with listening() as one, listening() as other:
        assert one.server_port != other.server_port
        assert one.url == f"ws://127.0.0.1:{one.server_port}"
        for listener in (one, other):
            works(listener.url)


def test_it_listens_before_it_serves() -> None:
    with Listener(app()) as listener, Task(works, listener.url) as client:
        blocked(client)
        serving = threading.Thread(target=listener.serve_forever)
        serving.start()
        client.result()
        listener.shutdown()
        serving.join()


def test_ipv6() -> None:
    with listening(host="::1") as listener:
        assert listener.url == f"ws://[::1]:{listener.server_port}"
        works(listener.url)


def test_tls() -> None:
    with listening(ssl_context=certificates().server) as listener:
        assert listener.url == f"wss://127.0.0.1:{listener.server_port}"
        works(listener.url, ssl_context=certificates().client)


def test_a_client_without_tls_at_a_tls_server() -> None:
    with listening(ssl_context=certificates().server) as listener:
        with pytest.raises(ConnectError):
            connect(listener.url.replace("wss:", "ws:"))
        works(listener.url, ssl_context=certificates().client)


def test_a_client_that_does_not_trust_the_server() -> None:
    with listening(ssl_context=certificates().server) as listener:
        with pytest.raises(ConnectError, match="certificate"):
            connect(listener.url, ssl_context=ssl.create_default_context())
        works(listener.url, ssl_context=certificates().client)


def test_a_port_that_is_taken() -> None:
    with Listener(app()) as listener, pytest.raises(OSError, match="in use"):
        Listener(app(), port=listener.server_port)


# Heads


def test_plain_http() -> None:
    with listening() as listener:
        connection = http.client.HTTPConnection("127.0.0.1", listener.server_port, SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.status == 426
            assert answer.headers["Upgrade"] == "websocket"
            assert "Upgrade" in answer.headers["Connection"]
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert b"WebSocket" in answer.read()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", b"426"),
    ],
)
def test_heads_that_are_refused(head: bytes, status: bytes) -> None:
    with listening() as listener:
        with connected(listener) as sock:
            sock.sendall(head)
            assert status in closes(sock)
        works(listener.url)


@pytest.mark.parametrize("head", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_slow_client_is_dropped(monkeypatch: pytest.MonkeyPatch, head: bytes, tls: bool) -> None:
    monkeypatch.setattr(listener, "_HEAD_TIMEOUT", 0.2)
    with listening(ssl_context=certificates().server if tls else None) as slow:
        with connected(slow) as sock:
            sock.sendall(head)
            closes(sock)
        works(slow.url, ssl_context=certificates().client if tls else None)


def test_a_client_that_goes_in_the_midst_of_its_head() -> None:
    with listening() as listener:
        for head in (b"", b"GET / HT", b"GET / HTTP/1.1\r\n"):
            with connected(listener) as sock:
                sock.sendall(head)
        works(listener.url)


def test_silent_clients_do_not_keep_others_out() -> None:
    with listening() as listener, contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connected(listener))
        works(listener.url)
        # And the head has no timeout once it is there.
        with (
            connect(listener.url) as execer,
            execer.start(sh("echo ready; sleep 0.1; echo on")) as process,
        ):
            assert process.stdout.read() == b"ready\non\n"


def test_a_command_outlives_the_timeout_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_HEAD_TIMEOUT", 0.1)
    with (
        listening() as patient,
        connect(patient.url) as execer,
        execer.start(sh("sleep 0.5; cat", stdin=True)) as process,
    ):
        process.stdin.write(b"text")
        process.stdin.close()
        assert process.stdout.read() == b"text"


def test_no_delay_on_the_servers_side() -> None:
    delays = []

    def record(environ: Any, start_response: Any) -> list[bytes]:
        sock = environ["werkzeug.socket"]
        delays.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        start_response("200 OK", [])
        return [b"text"]

    with (
        serving(Listener(record)) as listener,
        connected(listener) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert closes(sock).endswith(b"text")
    assert delays == [1]


# Shutdown


def test_shutdown_ends_the_commands_of_connected_clients() -> None:
    with contextlib.ExitStack() as stack:
        with listening() as listener:
            clients = [stack.enter_context(RawClient(listener.url)) for _ in range(4)]
            pids = [clients[0].start(Command("sleep", ["1000"]))]
            pids.append(clients[1].start(Command("yes")))
            eventually(lambda: state(pids[1]) == "S", "a full pipe")
            pids.append(clients[2].start(Command("sleep", ["1000"], stdin=True)))
            clients[2].send_until_full(b'{"type":"stdin"}\n' + bytes(50_000))
            # The fourth has started nothing yet.
            silent = stack.enter_context(connected(listener))
            stack.enter_context(ends_processes(*pids))
            before = time.monotonic()
        # By now all are gone, and all threads (the leak fixture would tell) with them.
        assert time.monotonic() - before < SECONDS
        assert not any(alive(pid) for pid in pids)
        assert closes(silent) == b""


def test_shutdown_is_an_exit_missing_to_the_client() -> None:
    with contextlib.ExitStack() as stack:
        with listening() as listener:
            execer = stack.enter_context(connect(listener.url))
            process = stack.enter_context(execer.start(Command("sleep", ["1000"])))
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)


def test_shutdown_before_serving() -> None:
    with Listener(app()) as listener:
        listener.shutdown()
        listener.serve_forever()


def test_shutdown_again() -> None:
    with listening() as listener:
        works(listener.url)
        listener.shutdown()
        listener.shutdown()
    listener.shutdown()


def test_closed_without_serving_anybody() -> None:
    listener = Listener(app())
    port = listener.server_port
    listener.server_close()
    with pytest.raises(ConnectError):
        connect(f"ws://127.0.0.1:{port}")


def test_restart_on_the_same_port() -> None:
    with listening() as first:
        port = first.server_port
        works(first.url)
        with RawClient(first.url) as client:
            client.start(Command("true"))
            client.receive_until("exit_code")
    # Its connections are in TIME_WAIT now.
    for _ in range(3):
        with listening(port=port) as next:
            works(next.url)
