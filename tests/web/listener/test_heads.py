"""The threaded HTTP server: heads of requests, and clients that are slow with them."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import select
import socket
import time
from typing import Any

import pytest
from certificates import certificates
from helpers import SECONDS, eventually, listening, serving, sh
from http_clients import (
    HOST,
    PLAIN,
    POST,
    UPGRADE,
    answered,
    asked,
    closes,
    connected,
    read_all,
    works,
)

from wsep_sync import connect
from wsep_sync.web.listener import Listener

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
