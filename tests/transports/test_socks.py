"""Connecting through a SOCKS proxy (RFC 1928, RFC 1929)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from acceptor import Acceptor, drop
from certificates import certificates
from helpers import SECONDS, Task
from peers import listening_socket

from wsep_sync.errors import ConnectError
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.transports.websocket_client import connect_websocket


class Socks:
    """A proxy of SOCKS 5 that connects to a port of this machine, whatever it is asked for.

    Attributes:
        asked: For which host and port.
        user: The name and the password that it was shown.
    """

    def __init__(self, listening: socket.socket, port: int, answer: int = 0) -> None:
        self.asked: tuple[bytes, int] = (b"", 0)
        self.user = (b"", b"")
        self._listening, self._port, self._answer = listening, port, answer

    def __call__(self) -> None:
        near, _ = self._listening.accept()
        with contextlib.ExitStack() as stack:
            stack.enter_context(near)
            near.settimeout(SECONDS)
            file = stack.enter_context(near.makefile("rb"))
            _, count = file.read(2)
            with_user = 2 in file.read(count)
            near.sendall(b"\5\2" if with_user else b"\5\0")
            if with_user:
                name = file.read(file.read(2)[1])
                self.user = (name, file.read(file.read(1)[0]))
                near.sendall(b"\1\0")
            kind = file.read(4)[3]
            host = file.read(4) if kind == 1 else file.read(file.read(1)[0])
            self.asked = (host, int.from_bytes(file.read(2), "big"))
            near.sendall(bytes([5, self._answer, 0, 1, 0, 0, 0, 0, 0, 0]))
            if self._answer:
                return
            far = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
            back = threading.Thread(target=copy, args=(far, near))
            back.start()
            copy(near, far)
            back.join(SECONDS)


def copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", ["all_proxy", "ALL_PROXY", "own"])
def test_through_a_socks_proxy(
    tls: bool, name: str, monkeypatch: pytest.MonkeyPatch, no_proxies: None
) -> None:
    if name == "own":
        name = "https_proxy" if tls else "http_proxy"
    with listening_socket() as listening, Acceptor(accept_websocket, tls=tls) as acceptor:
        proxy = Socks(listening, acceptor.listener.server_port)
        port = listening.getsockname()[1]
        monkeypatch.setenv(name, f"socks5h://me:pa%20ss@127.0.0.1:{port}")
        with Task(proxy):
            context = certificates().client
            context.check_hostname = False
            try:
                url = f"{'wss' if tls else 'ws'}://server.invalid/path"
                transport = connect_websocket(url, timeout=SECONDS, ssl_context=context)
                drop(transport, acceptor.accepted())
            finally:
                context.check_hostname = True
    assert proxy.asked == (b"server.invalid", 443 if tls else 80)
    assert proxy.user == (b"me", b"pa ss")


def test_all_proxy_may_be_one_of_http(monkeypatch: pytest.MonkeyPatch, no_proxies: None) -> None:
    def refuse() -> bytes:
        peer, _ = listening.accept()
        with peer:
            head = peer.recv(1 << 16)
            peer.sendall(b"HTTP/1.1 407 Who?\r\n\r\n")
            return head

    for scheme in ("http://", ""):
        with listening_socket() as listening, Task(refuse) as refusing:
            monkeypatch.setenv("all_proxy", f"{scheme}127.0.0.1:{listening.getsockname()[1]}")
            with pytest.raises(ConnectError, match="the proxy answered HTTP 407"):
                connect_websocket("ws://server.invalid", timeout=SECONDS)
            assert refusing.result().startswith(b"CONNECT server.invalid:80 ")


def test_no_proxy_holds_for_it(monkeypatch: pytest.MonkeyPatch, no_proxies: None) -> None:
    monkeypatch.setenv("all_proxy", "socks5h://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "server.invalid")
    with pytest.raises(ConnectError, match=r"Name or service not known|No address"):
        connect_websocket("ws://server.invalid", timeout=SECONDS)


def test_a_socks_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, no_proxies: None) -> None:
    with listening_socket() as listening, Task(Socks(listening, 0, answer=4)):
        monkeypatch.setenv("all_proxy", f"socks5h://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(ConnectError, match=r"the proxy answered: .*[Uu]nreachable"):
            connect_websocket("ws://server.invalid", timeout=SECONDS)


def test_a_socks_proxy_that_never_answers(
    monkeypatch: pytest.MonkeyPatch, no_proxies: None
) -> None:
    with listening_socket() as listening:
        monkeypatch.setenv("all_proxy", f"socks5h://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(ConnectError, match=r"no answer within 0\.3 seconds"):
            connect_websocket("ws://server.invalid", timeout=0.3)
        port = listening.getsockname()[1]
    monkeypatch.setenv("all_proxy", f"socks5h://127.0.0.1:{port}")
    with pytest.raises(ConnectError, match="refused"):
        connect_websocket("ws://server.invalid", timeout=SECONDS)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("ftp://me:s3cret@proxy.invalid", "the proxy that the environment names is none"),
        ("socks5://", "the proxy that the environment names is none"),
        ("http://me:s3c/ret@proxy.invalid", "the proxy's port is no number"),
    ],
)
def test_a_proxy_that_is_none(
    proxy: str, words: str, monkeypatch: pytest.MonkeyPatch, no_proxies: None
) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(ConnectError, match=words) as caught:
        connect_websocket("ws://server.invalid", timeout=SECONDS)
    assert "s3c" not in str(caught.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, no_proxies: None) -> None:
    monkeypatch.setattr("websocket._http.HAVE_PYTHON_SOCKS", False)
    monkeypatch.setenv("all_proxy", "socks5h://proxy.invalid")
    with pytest.raises(ConnectError, match="pip install python-socks"):
        connect_websocket("ws://server.invalid", timeout=SECONDS)
