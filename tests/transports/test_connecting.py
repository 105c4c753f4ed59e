"""Connecting and accepting: refusals, TLS, proxies, addresses."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from acceptor import Acceptor, drop
from certificates import certificates
from helpers import SECONDS, Task, serving
from peers import BINARY, RawPeer, accept_key, accept_raw, listening_socket, read_head

from wsep_sync.errors import ConnectError, ProtocolError
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.transports.websocket_client import connect_websocket
from wsep_sync.web.listener import Listener

# Connecting


@contextlib.contextmanager
def answering(answer: bytes, host: str = "127.0.0.1") -> Iterator[tuple[str, list[str]]]:
    """A server that gives every request one answer: its URL, and the requests."""
    requests: list[str] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return  # shut down below
            with sock:
                sock.settimeout(SECONDS)
                requests.append(read_head(sock)[0])
                sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    sock.recv(1)

    with listening_socket(host) as listening, Task(serve, listening):
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/path", requests
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def connect_error(url: str, **options: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        connect_websocket(url, **{"timeout": SECONDS, **options})
    assert isinstance(caught.value, ConnectionError)
    assert url in str(caught.value)
    return caught.value


def test_a_port_that_nobody_listens_on() -> None:
    with listening_socket() as listening:
        port = listening.getsockname()[1]
    error = connect_error(f"ws://127.0.0.1:{port}")
    assert error.status is None
    assert "refused" in str(error)


def test_a_server_that_never_answers() -> None:
    with listening_socket() as listening:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        error = connect_error(url, timeout=0.2)
    assert "0.2 seconds" in str(error)


def test_a_server_that_never_speaks_tls() -> None:
    with listening_socket() as listening:
        url = f"wss://127.0.0.1:{listening.getsockname()[1]}"
        error = connect_error(url, timeout=0.2)
    assert "0.2 seconds" in str(error)


def test_a_server_that_answers_slowly_has_the_timeout_for_all_of_it() -> None:
    stop = threading.Event()

    def dribble(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
            while not stop.wait(0.02):
                sock.sendall(b"x")

    with listening_socket() as listening, Task(dribble, listening):
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        error = connect_error(url, timeout=0.3)
        stop.set()
    assert "0.3 seconds" in str(error)


def test_a_refusal_says_why() -> None:
    body = b"you may not\n"
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with answering(answer) as (url, _):
        error = connect_error(url)
    assert error.status == 403
    assert "403" in str(error)
    assert "you may not" in str(error)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 12])
def test_a_refusal_whose_body_is_of_another_length(length: int) -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\nno\n" % length) as (
        url,
        _,
    ):
        error = connect_error(url)
    assert error.status == 403  # though the end may come too early


def test_an_answer_that_comes_byte_by_byte() -> None:
    def answer(listening: socket.socket) -> RawPeer:
        sock, _ = listening.accept()
        head, rest = read_head(sock)
        peer = RawPeer(sock, False, head, rest)
        key = accept_key(peer.headers["sec-websocket-key"])
        for byte in UPGRADE + f"Sec-WebSocket-Accept: {key}\r\n\r\n".encode():
            sock.sendall(bytes([byte]))
        peer.send(BINARY, b"first")
        return peer

    with listening_socket() as listening, Task(answer, listening) as answering:
        transport = connect_websocket(
            f"ws://127.0.0.1:{listening.getsockname()[1]}", timeout=SECONDS
        )
        with answering.result():
            assert bytes(transport.receive()) == b"first"
            drop(transport)


def test_a_refusal_without_a_body() -> None:
    with answering(b"HTTP/1.1 503 Busy\r\n\r\n") as (url, _):
        assert connect_error(url).status == 503


def test_a_redirect_is_not_followed() -> None:
    # The headers may hold a secret that is meant for this server alone.
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (elsewhere, requests):
        head = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"
        with answering(head.encode()) as (url, _):
            assert connect_error(url, headers={"Authorization": "secret"}).status == 302
        assert requests == []


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\xff" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        UPGRADE,
        UPGRADE + b"\r\n",
        UPGRADE + b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        UPGRADE + b"no colon\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a,b=c\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:30]),
)
def test_a_server_that_answers_something_else(answer: bytes) -> None:
    with answering(answer) as (url, _):
        assert connect_error(url).status in (None, 101, 200, 302)


def test_a_port_that_speaks_nothing_but_tls() -> None:
    alert = b"\x15\x03\x01\x00\x02\x02\x46"
    with answering(alert) as (url, _):
        assert "wss:// instead of ws://" in str(connect_error(url))


def test_a_port_that_answers_tls_in_plain_words() -> None:
    def answer(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock:
            sock.recv(1 << 16)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening_socket() as listening, Task(answer, listening):
        url = f"wss://127.0.0.1:{listening.getsockname()[1]}"
        assert "ws:// instead of wss://" in str(connect_error(url))


def test_a_port_that_speaks_no_tls() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (url, _):
        # The server never finds the end of a request's head.
        connect_error(url.replace("ws:", "wss:"), timeout=0.3)


def test_a_certificate_that_is_not_trusted() -> None:
    with Acceptor(accept_websocket, tls=True) as acceptor:
        error = connect_error(acceptor.listener.url)
        assert "certificate" in str(error)


def test_a_certificate_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with Acceptor(accept_websocket, tls=True) as acceptor:
        url = acceptor.listener.url.replace("127.0.0.1", "127.0.0.2")
        listening = Listener(acceptor.app, "127.0.0.2", ssl_context=certificates().server)
        with serving(listening):
            url = listening.url
            error = connect_error(url, ssl_context=certificates().client)
        assert "certificate" in str(error)


def test_the_systems_trust_store_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "ca.pem").write_text(certificates().authority)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Acceptor(accept_websocket, tls=True) as acceptor:
        client = connect_websocket(acceptor.listener.url, timeout=SECONDS)
        drop(client, acceptor.accepted())


def test_headers_are_sent() -> None:
    with listening_socket() as listening, Task(accept_raw, listening) as accepting:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}/a/b?c=d&e"
        transport = connect_websocket(url, timeout=SECONDS, headers={"Authorization": "Bearer x"})
        with accepting.result() as raw:
            assert raw.request_line == "GET /a/b?c=d&e HTTP/1.1"
            assert raw.headers["authorization"] == "Bearer x"
            assert raw.headers["host"] == f"127.0.0.1:{listening.getsockname()[1]}"
            drop(transport)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_reached_through_a_proxy(
    name: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as (proxy, requests):
        monkeypatch.setenv(name, proxy.replace("ws:", "http:"))
        monkeypatch.delenv("no_proxy", raising=False)
        with Acceptor(accept_websocket, tls=False) as acceptor:
            url = acceptor.listener.url.replace("127.0.0.1", host)
            drop(connect_websocket(url, timeout=SECONDS), acceptor.accepted())
        assert requests == []


class Tunnel:
    """A proxy that answers a CONNECT, and connects to a port of this machine."""

    def __init__(self, listening: socket.socket, answer: bytes, port: int = 0) -> None:
        self.head = ""
        self._listening, self._answer, self._port = listening, answer, port

    def __call__(self) -> None:
        near, _ = self._listening.accept()
        with contextlib.ExitStack() as stack:
            stack.enter_context(near)
            near.settimeout(SECONDS)
            self.head, _ = read_head(near)
            near.sendall(self._answer)
            if not self._port:
                with contextlib.suppress(OSError):
                    near.recv(1)
                return
            far = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
            back = Task(_copy_all, far, near)
            _copy_all(near, far)
            back.result()


def _copy_all(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("tls", [False, True])
def test_through_a_proxy(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening_socket() as listening, Acceptor(accept_websocket, tls=tls) as acceptor:
        tunnel = Tunnel(listening, b"HTTP/1.1 200 OK\r\n\r\n", acceptor.listener.server_port)
        where = f"http://me:pa%20ss@127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", where)
        monkeypatch.delenv("no_proxy", raising=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with Task(tunnel):
            url = f"{'wss' if tls else 'ws'}://server.invalid/path"
            transport = connect_websocket(url, timeout=SECONDS, ssl_context=context)
            drop(transport, acceptor.accepted())
    port = 443 if tls else 80
    assert tunnel.head.splitlines()[:2] == [
        f"CONNECT server.invalid:{port} HTTP/1.1",
        f"Host: server.invalid:{port}",
    ]
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:pa ss').decode()}" in tunnel.head


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered HTTP 407"),
        (b"nonsense\r\n\r\n", "the proxy answered in no HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "no answer within 0.3 seconds"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n", "something came before TLS"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20), "too long"),
    ],
)
def test_a_proxy_that_does_not_connect(
    answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening_socket() as listening:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        with Task(Tunnel(listening, answer)), pytest.raises(ConnectError, match=words):
            connect_websocket("wss://server.invalid", timeout=0.3 if "0.3" in words else SECONDS)


@contextlib.contextmanager
def hanging_address() -> Iterator[tuple[str, int]]:
    """An address that does not answer: it listens, and has no room for another connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock, contextlib.ExitStack() as stack:
        address = sock.getsockname()
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(address)
        yield address


def test_all_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with hanging_address() as hanging, listening_socket() as listening:
        addresses = [hanging] * 5

        def look_up(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        began = time.monotonic()
        with pytest.raises(ConnectError, match="no answer within 1 seconds"):
            connect_websocket("ws://many.invalid", timeout=1.0)
        assert time.monotonic() - began < 4.0  # and not five times as long
        # One that hangs leaves some of it to the next.
        addresses = [hanging, listening.getsockname()]
        with Task(accept_raw, listening) as accepting:
            transport = connect_websocket("ws://many.invalid", timeout=2.0)
            with accepting.result() as raw:
                drop(transport)
                del raw


def test_ipv6() -> None:
    with listening_socket("::1") as listening, Task(accept_raw, listening) as accepting:
        port = listening.getsockname()[1]
        transport = connect_websocket(f"ws://[::1]:{port}/", timeout=SECONDS)
        with accepting.result() as raw:
            assert raw.headers["host"] == f"[::1]:{port}"
            transport.send(b"x")
            assert raw.receive().payload == b"x"
            drop(transport)


def test_a_context_is_for_tls_alone() -> None:
    with Acceptor(accept_websocket, tls=False) as acceptor:
        client = connect_websocket(
            acceptor.listener.url, timeout=SECONDS, ssl_context=certificates().client
        )
        drop(client, acceptor.accepted())


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "http://host", "ws://", "ws:///path", "ws://host:port", "ws://h:70000"],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words of some are urllib's
        connect_websocket(url, timeout=1)


@pytest.mark.parametrize(
    "url",
    [
        "ws://me:s3cret@127.0.0.1:1",
        "wss://me:s3cret@127.0.0.1:1/path",
        "ws://me@127.0.0.1:1",
        "http://me:s3cret@127.0.0.1",
        "ws://me:s3cret@127.0.0.1:port",
        "ws://me:s3cret@[::1",
        "ws://me:s3c/ret@127.0.0.1",
        "me:s3cret@127.0.0.1:1",
    ],
)
def test_a_password_in_a_url_is_refused_and_never_printed(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        connect_websocket(url, timeout=1)
    assert "s3c" not in repr(caught.value)


def test_an_at_sign_in_a_path_is_no_user() -> None:
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as (url, requests):
        assert connect_error(f"{url}/a@b?c=d@e").status == 404
    assert requests[0].startswith("GET /path/a@b?c=d@e HTTP/1.1")


def test_a_url_of_ssh_is_told_what_takes_it() -> None:
    with pytest.raises(ValueError, match="SSHExecer"):
        connect_websocket("ssh://host.invalid", timeout=1)


@pytest.mark.parametrize("header", [{"A": "b\r\nC: d"}, {"A\n": "b"}, {"A": "b\0"}])
def test_a_header_that_would_be_two(header: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        connect_websocket("ws://127.0.0.1:1", timeout=1, headers=header)


# Accepting


UPGRADE_REQUEST = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Sec-WebSocket-Version: 13\r\n",
        "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAA-AAAAAAAAAA==\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ÄAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ],
)
def test_a_request_that_is_no_handshake(headers: str) -> None:
    with Acceptor(accept_websocket, tls=False) as acceptor:
        address = acceptor.listener.server_address
        with socket.create_connection(address[:2], SECONDS) as sock:  # type: ignore[arg-type]
            sock.sendall(f"{UPGRADE_REQUEST}{headers}\r\n".encode())
            with pytest.raises(ProtocolError, match="handshake"):
                acceptor.accepted()


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ((), None),
        (("wsep",), "wsep"),
        (("wsep, bearer.secret",), "wsep"),
        (("bearer.secret,wsep",), "wsep"),
        (("bearer.secret", "wsep"), "wsep"),
        (("bearer.secret",), None),
        (("chat, WSEP, wsep2",), None),
        (("",), None),
    ],
)
def test_the_subprotocol(offered: tuple[str, ...], selected: str | None) -> None:
    headers = [f"Sec-WebSocket-Protocol: {value}" for value in offered]
    with Acceptor(accept_websocket, tls=False) as acceptor, acceptor.dial(*headers) as raw:
        assert raw.headers.get("sec-websocket-protocol") == selected
        assert "secret" not in raw.head
        drop(acceptor.accepted())


def test_a_client_that_does_not_wait_for_the_answer() -> None:
    with Acceptor(accept_websocket, tls=False) as acceptor, acceptor.dial() as raw:
        raw.send(BINARY, b"at once")
        server = acceptor.accepted()
        assert bytes(server.receive()) == b"at once"
        drop(server)
