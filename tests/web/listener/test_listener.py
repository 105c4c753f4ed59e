"""The threaded HTTP server: its sockets, what the application sees, draining, shutdown."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
import websocket
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
from http_clients import PLAIN, answered, app, asked, closes, connected, read_all, run_echo, works

from wsep_sync import Command, ConnectError, ExitMissing, RemoteExecer, connect
from wsep_sync.web.listener import Listener

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


@contextlib.contextmanager
def bound(family: int, address: Any) -> Iterator[socket.socket]:
    """A socket that listens, and goes to a listener."""
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen()
        yield sock


def test_a_socket_that_listens_already() -> None:
    with bound(socket.AF_INET, ("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with listening(sock=sock) as listener:
            assert listener.server_port == port
            assert listener.url == f"ws://127.0.0.1:{port}"
            works(listener.url)
        assert sock.fileno() == -1


def test_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for path, url in (
            (f"{directory}/s", f"ws+unix:{directory}/s"),
            (f"\0{directory}", f"unix:@{directory}"),  # an abstract name
        ):
            with (
                bound(socket.AF_UNIX, path) as sock,
                listening(sock=sock) as listener,
                socket.socket(socket.AF_UNIX) as client,
            ):
                assert listener.url == url
                assert listener.server_port == 0
                client.settimeout(SECONDS)
                client.connect(path)
                ws = websocket.create_connection(
                    "ws://localhost", timeout=SECONDS, suppress_origin=True, socket=client
                )
                with RemoteExecer(ws) as execer:
                    run_echo(execer)


def test_sockets_that_do_not_listen() -> None:
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for sock, words in ((unbound, "does not listen"), (datagrams, "stream socket")):
            with pytest.raises(ValueError, match=words):
                Listener(app(), sock=sock)
            assert sock.fileno() != -1  # still the caller's


# What the application sees


@contextlib.contextmanager
def seen_by(application: Any = None, **options: Any) -> Iterator[tuple[Listener, dict[str, Any]]]:
    """A server that answers with 200; what its application's last environment was."""
    seen: dict[str, Any] = {}

    def record(environ: Any, start_response: Any) -> list[bytes]:
        seen.clear()
        seen.update(environ)
        seen["content"] = environ["wsgi.input"].read(1)
        seen.pop("werkzeug.socket")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"text\n"]

    with serving(Listener(validator(record), **options)) as listener:
        yield listener, seen


def test_the_environment() -> None:
    with seen_by() as (listener, seen), connected(listener) as sock:
        sock.sendall(
            b"POST /a%20b%ff/c?d=%20&e HTTP/1.1\r\nHost: x.example:1\r\nAccept: one\r\n"
            b"Accept: two\r\nX-Y: 1\r\nX_Y: 2\r\nContent-Length: 3\r\nContent-Type: a/b\r\n\r\nabc"
        )
        assert answered(read_all(sock)) == (b"200", b"text\n")
        host, port = sock.getsockname()
    assert seen["REQUEST_METHOD"] == "POST"
    assert seen["SCRIPT_NAME"] == ""
    assert seen["PATH_INFO"] == "/a b\xff/c"
    assert seen["QUERY_STRING"] == "d=%20&e"
    assert seen["SERVER_NAME"] == "127.0.0.1"
    assert seen["SERVER_PORT"] == str(listener.server_port)
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == (host, str(port))
    assert seen["wsgi.url_scheme"] == "http"
    assert seen["wsgi.multithread"]
    assert seen["content"] == b""
    assert "PATH" not in seen  # nothing of this process's own, lest it pass for a header
    headers = {name: value for name, value in seen.items() if name.startswith("HTTP_")}
    assert headers == {"HTTP_HOST": "x.example:1", "HTTP_ACCEPT": "one,two", "HTTP_X_Y": "1"}


def test_the_environment_under_tls() -> None:
    with (
        seen_by(ssl_context=certificates().server) as (listener, seen),
        connected(listener) as sock,
        certificates().client.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(PLAIN)
        assert answered(read_all(tls)) == (b"200", b"text\n")
    assert seen["wsgi.url_scheme"] == "https"


def test_the_environment_of_http_1_0() -> None:
    with seen_by() as (listener, seen):
        assert asked(b"GET / HTTP/1.0\r\n\r\n", listener.server_port)[0] == b"200"
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_an_application_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail(environ: Any, start_response: Any) -> list[bytes]:
        raise LookupError("a secret")

    with serving(Listener(fail)) as listener, connected(listener) as sock:
        sock.sendall(PLAIN)
        response = read_all(sock)
    assert response.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in response
    assert b"Traceback" not in response
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    text = (
        r'failure reason="internal error in the application: LookupError at test_listener.py:\d+"'
    )
    assert re.fullmatch(text, record.getMessage())


def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.web.http_request._RESPONSE_TIMEOUT", 0.2)

    def talk(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        while True:
            yield bytes(1_000_000)

    with serving(Listener(talk)) as listener, connected(listener) as sock:
        sock.sendall(PLAIN)
        eventually(lambda: listener.connections, "the connection")
        eventually(lambda: not listener.connections, "its end")


# Draining


def refuses(listener: Listener) -> bool:
    """Whether nobody listens on its port any more."""
    try:
        with connected(listener):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was closed while the connection was being made
        return False


def test_draining_waits_for_commands() -> None:
    with (
        listening() as listener,
        connect(listener.url) as execer,
        execer.start(sh("read line; echo $line", stdin=True)) as process,
        Task(listener.drain, SECONDS) as draining,
    ):
        eventually(lambda: refuses(listener), "a port that is closed")
        blocked(draining)
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.read() == b"hello\n"
        process.wait(SECONDS)
        process.close()
        assert draining.result() is True
        assert listener.connections == 0


def test_draining_does_not_wait_for_ever() -> None:
    with (
        listening() as listener,
        connect(listener.url) as execer,
        execer.start(Command("cat", stdin=True)) as process,
    ):
        assert listener.drain(0.05) is False
        assert listener.drain(0) is False
        assert listener.connections == 1
        process.stdin.write(b"still here")
        process.stdin.close()
        assert process.stdout.read() == b"still here"
        process.wait(SECONDS)
        process.close()
        assert listener.drain(SECONDS) is True


@pytest.mark.parametrize("tls", [False, True])
def test_draining_cuts_who_has_not_asked_for_anything(tls: bool) -> None:
    context = certificates().server if tls else None
    with (
        listening(head_timeout=10 * SECONDS, ssl_context=context) as listener,
        connected(listener) as silent,
        connected(listener) as slow,
    ):
        slow.sendall(b"\x16\x03\x01\x40\x00" if tls else b"GET / HTTP/1.1\r\n")
        eventually(lambda: listener.connections == 2, "two connections")
        assert listener.drain(SECONDS) is True
        assert closes(silent) == closes(slow) == b""


def test_closing_ends_draining() -> None:
    with contextlib.ExitStack() as stack:
        with listening() as listener:
            execer = stack.enter_context(connect(listener.url))
            process = stack.enter_context(execer.start(Command("sleep", ["1000"])))
            draining = stack.enter_context(Task(listener.drain, 100 * SECONDS))
            blocked(draining)
        assert draining.result() is False
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)


def test_draining_before_serving() -> None:
    with Listener(app()) as listener:
        assert listener.drain(SECONDS) is True
        assert refuses(listener)
        listener.serve_forever()


def test_draining_what_is_closed() -> None:
    with listening() as listener:
        works(listener.url)
    assert listener.drain(SECONDS) is True


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
