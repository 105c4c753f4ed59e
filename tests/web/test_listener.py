"""The threaded HTTP server: sockets, heads, responses, limits, shutdown."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
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

from wsep_sync import (
    Command,
    ConnectError,
    Execer,
    ExitMissing,
    LocalExecer,
    RemoteExecer,
    Server,
    connect,
)
from wsep_sync.web.listener import Listener, _Connection, _peer
from wsep_sync.web.wsgi import application


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has been answered may take its time, lest a busy machine make a reset."""
    monkeypatch.setattr("wsep_sync.web.http_request.LINGER_TIMEOUT", SECONDS)


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
            (f"{directory}/s", f"unix:{directory}/s"),
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


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET /\r\n\r\n", b"400"),  # HTTP/0.9
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\n" + 2 * HOST + b"\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\0c\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
        # RFC 9112, section 3.2.2: the host is the target's, whatever Host says.
        (b"GET http://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", b"426"),
        (b"GET HTTPS://localhost:1?query HTTP/1.1\r\nHost: x.example\r\n\r\n", b"426"),
        (b"GET http://x.example/ HTTP/1.1\r\n" + HOST + b"\r\n", b"403"),
        (b"GET http:///path HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
        (b"GET ftp://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
        (b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
        (POST + b"Content-Length: -5\r\n\r\n", b"400"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456", b"400"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 1000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 10_000 + b"\r\n", b"431"),
        # Content is not read, nor waited for, nor does it keep the answer from coming.
        (POST + b"Content-Length: 5\r\n\r\n12345", b"426"),
        (POST + b"Content-Length: 5\r\n\r\n", b"426"),
        (POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", b"426"),
        (POST + b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000), b"426"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n", b"426"),
        (PLAIN + PLAIN, b"426"),
        # RFC 6455, section 4.1: nothing before the answer. These bytes would be lost.
        (UPGRADE + b"\r\n\x82\x80\0\0\0\0", b"400"),
        (UPGRADE + b"Content-Length: 5\r\n\r\n12345", b"400"),
        (UPGRADE + b"Content-Length: 5\r\n\r\n", b"400"),
        (UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n", b"400"),
    ],
)
def test_heads_that_are_refused(
    caplog: pytest.LogCaptureFixture, head: bytes, status: bytes
) -> None:
    with listening() as listener:
        assert asked(head, listener.server_port)[0] == status
        works(listener.url)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert not record.exc_info
    assert re.fullmatch(
        rf"refusal peer=127\.0\.0\.1:\d+ status={status.decode()} reason=.*", record.getMessage()
    )


def test_a_client_that_sends_frames_before_the_answer_over_tls() -> None:
    with (
        listening(ssl_context=certificates().server) as listener,
        connected(listener) as sock,
        certificates().client.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(UPGRADE + b"\r\n\x82\x80\0\0\0\0")
        assert answered(read_all(tls))[0] == b"400"


def test_the_longest_head_there_may_be() -> None:
    head = b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 100
    with listening(max_head=len(head) + 4) as listener:
        assert asked(head + b"\r\n\r\n", listener.server_port)[0] == b"426"
        assert asked(head + b"b\r\n\r\n", listener.server_port)[0] == b"431"
        target = b"x" * (len(head) + 4)
        assert asked(b"GET /" + target, listener.server_port)[0] == b"414"


def test_the_most_headers_there_may_be() -> None:
    head = b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 5
    with listening(max_headers=6) as listener:
        assert asked(head + b"\r\n", listener.server_port)[0] == b"426"
        assert asked(head + b"A: b\r\n\r\n", listener.server_port)[0] == b"431"


def until_answered(sock: socket.socket, piece: bytes, pause: float) -> tuple[bytes, bytes]:
    """Send it again and again, so many seconds apart, until there is an answer."""
    deadline = time.monotonic() + SECONDS
    while not select.select([sock], [], [], pause)[0]:
        assert time.monotonic() < deadline, "the server takes all of it"
        # Who is answered may be told that nobody reads on.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.send(piece)
    return answered(closes(sock))


@pytest.mark.parametrize(
    ("beginning", "piece", "status"),
    [
        (b"", b"x" * 1000, b"414"),
        (b"GET / HTTP/1.1\r\n", b"x" * 1000, b"431"),
        (b"GET / HTTP/1.1\r\nA: ", b"x" * 1000, b"431"),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 100, b"431"),
        (b"GET / HTTP/1.1\r\nA: b\r\n", b" \r\n" * 100, b"431"),  # a line's continuation
    ],
)
def test_an_endless_head(beginning: bytes, piece: bytes, status: bytes) -> None:
    with listening(head_timeout=10 * SECONDS) as listener:
        with connected(listener) as sock:
            sock.sendall(beginning)
            assert until_answered(sock, piece, 0)[0] == status
        works(listener.url)


@pytest.mark.parametrize("head", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_slow_client_is_dropped(head: bytes, tls: bool) -> None:
    with (
        listening(head_timeout=0.2, ssl_context=certificates().server if tls else None) as slow,
        connected(slow) as sock,
    ):
        sock.sendall(head)
        if tls:
            closes(sock)
        else:
            assert answered(read_all(sock))[0] == b"408"


def test_a_client_that_sends_a_byte_now_and_then() -> None:
    with listening(head_timeout=0.5) as listener, connected(listener) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nA: ")
        assert until_answered(sock, b"b", 0.05)[0] == b"408"


def test_tls_that_comes_a_byte_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    with (
        listening(head_timeout=0.5, ssl_context=certificates().server) as listener,
        connected(listener) as sock,
    ):
        sock.sendall(b"\x16\x03\x01\x40\x00")  # the header of a record of 16 KiB
        deadline = time.monotonic() + SECONDS
        while not select.select([sock], [], [], 0.05)[0]:
            assert time.monotonic() < deadline, "the server waits for all of it"
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.send(b"\x01")
        assert closes(sock) == b""  # nothing can be said before there is TLS
    (record,) = caplog.records
    assert "status=408" in record.getMessage()


def test_a_client_that_is_slow_after_tls() -> None:
    for timeout in (1, 5, 25):  # on a machine that is busy, TLS itself takes its time
        with (
            listening(head_timeout=timeout, ssl_context=certificates().server) as listener,
            connected(listener) as sock,
        ):
            try:
                tls = certificates().client.wrap_socket(sock, server_hostname="localhost")
            except OSError:
                continue
            with tls:
                tls.sendall(b"GET / HTTP/1.1\r\n")
                assert answered(closes(tls))[0] == b"408"
            return
    pytest.fail("TLS was never set up in time")


def test_a_client_that_goes_in_the_midst_of_its_head(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as listener:
        for head in (b"", b"GET / HT", b"GET / HTTP/1.1\r\n"):
            with connected(listener) as sock:
                sock.sendall(head)
        works(listener.url)
    assert not caplog.records


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


def test_a_command_outlives_the_timeout_of_the_head() -> None:
    with (
        # Time enough for a head on a machine that is busy, and the command takes longer.
        listening(head_timeout=2) as patient,
        connect(patient.url) as execer,
        execer.start(sh("sleep 2.5; cat", stdin=True)) as process,
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


def sends_on(sock: socket.socket) -> tuple[bytes, bytes]:
    """Send something when the answer is there, and only then read it."""
    assert select.select([sock], [], [], SECONDS)[0]
    for _ in range(50):
        sock.sendall(bytes(100))
        time.sleep(0.002)  # for a reset, which would come if the server had closed
    return answered(read_all(sock))


def test_a_client_that_sends_on_when_it_has_been_answered() -> None:
    with listening(max_connections=1) as listener, connected(listener) as sock:
        sock.sendall(POST + b"Content-Length: 1000000\r\n\r\n")
        assert select.select([sock], [], [], SECONDS)[0]
        with connected(listener) as late:
            assert sends_on(late)[0] == b"503"
        assert sends_on(sock)[0] == b"426"


def test_a_client_that_stays_when_it_has_been_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.web.http_request.LINGER_TIMEOUT", 0.2)
    with listening() as listener, connected(listener) as sock:
        sock.sendall(PLAIN)
        assert answered(read_all(sock))[0] == b"426"
        eventually(lambda: not listener.connections, "the end of the connection")


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
                closes(sock)
        server.tell("200")
        works(server.url)
        server.finish()
    assert any("serving a connection: Too many open files" in line for line in server.log)


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
