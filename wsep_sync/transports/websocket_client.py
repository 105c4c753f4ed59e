"""Clients' WebSockets: the one door to websocket-client."""

from __future__ import annotations

import base64
import contextlib
import errno
import ipaddress
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import websocket
from websocket import _http
from websocket._url import _is_no_proxy_host

from ..errors import ConnectError
from ..lazy import importing
from ..log import log_event
from ..protocol.checks import check_url
from .base import FEATURES_HEADER
from .sockets import SocketTransport
from .stream_socket import start_tls

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Handshake",
    "Target",
    "WebSocketClientTransport",
    "connect_websocket",
    "open_handshake",
    "parse_url",
    "words_of",
]

# Bytes that are received at once of the answer's head.
_RECEIVE_BUFFER = 1 << 12

# Bytes that an answer to a request for a WebSocket may have, a page that says why not included.
_MAX_ANSWER = 1 << 20

# RFC 8446, section 5.1: an alert, of TLS 1.0 to 1.3.
_TLS_ALERT = b"\x15\x03"

# RFC 9112, section 4: a status line.
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})")


def connect_websocket(
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> WebSocketClientTransport:
    """Open a WebSocket.

    No compression is offered, no redirect is followed (the headers may hold a secret), and a
    loopback address is never reached through a proxy. Other hosts are, if ``http_proxy`` or
    ``https_proxy``, or else ``all_proxy``, is in the environment and ``no_proxy`` does not name
    them: one of HTTP or, with python-socks, of SOCKS.

    Args:
        url: ``ws://…`` or ``wss://…``; or ``ws+unix:/PATH``, a Unix socket.
        timeout: Seconds for all of it: TCP, a proxy, TLS and the HTTP answer.
        headers: More HTTP headers to send.
        ssl_context: For ``wss://``; by default the system's trust store, and the host's name is
            checked.

    Raises:
        ConnectError: It could not be opened.
        ValueError: The URL is not one of a WebSocket, or a header cannot be sent.
    """
    target = parse_url(url)
    lines = _header_lines(headers or {})
    options: dict[str, Any] = {}
    if target.tls:
        ssl_context = ssl_context or _default_context()
        options["sslopt"] = {"context": ssl_context}
    ws = websocket.WebSocket(**options)
    handshake = None
    began = time.monotonic()
    try:
        handshake = open_handshake(target, timeout, ssl_context, _MAX_ANSWER)
        ws.connect(  # type: ignore[no-untyped-call]
            target.url,
            timeout=timeout,
            header=lines,
            suppress_origin=True,  # it is what browsers send, and what servers refuse them by
            redirect_limit=0,
            socket=handshake,
        )
    except websocket.WebSocketBadStatusException as error:
        body = getattr(error, "resp_body", None) or b""
        raise ConnectError(url, _refusal(error.status_code, body), error.status_code) from error
    except (TimeoutError, websocket.WebSocketTimeoutException) as error:
        if time.monotonic() - began < timeout:
            _raise_foreign(error)
        _raise_refusal(url, handshake, error)
        raise ConnectError(url, f"no answer within {timeout:g} seconds") from error
    except (websocket.WebSocketException, CookieError, OSError, ValueError) as error:
        _raise_foreign(error)
        answer = ws.handshake_response
        if answer is not None and answer.status != 101:  # a redirect
            raise ConnectError(url, _refusal(answer.status), answer.status) from error
        _raise_refusal(url, handshake, error)
        raise ConnectError(url, words_of(error, handshake)) from error
    ws.sock = handshake.socket
    try:
        return WebSocketClientTransport(ws, handshake.received)
    except BaseException as error:
        handshake.socket.close()
        if isinstance(error, OSError) and error.errno is not None:  # no more descriptors
            raise ConnectError(url, str(error.strerror)) from error
        raise


@dataclass(frozen=True)
class Target:
    """Where a URL leads.

    Attributes:
        url: What it is over TCP: ``ws://…`` or ``wss://…``.
        tls: Whether that is TLS.
        host: Its name or address; ``localhost`` at a Unix socket.
        port: TCP port.
        socket_path: The Unix socket's path; "" for TCP.
    """

    url: str
    tls: bool
    host: str
    port: int
    socket_path: str = ""


def parse_url(url: str) -> Target:
    """Return where a URL leads: ``ws://…``, ``wss://…`` or ``ws+unix:PATH:/PATH/OF/THE/REQUEST``.

    Raises:
        ValueError: It is none of these, or has a user or a password in it.
    """
    check_url(url)
    if url.startswith("ws+unix:"):
        # As other libraries have it: ws+unix:///run/s, ws+unix:/run/s, ws+unix:///run/s:/path.
        path, _, request = url.removeprefix("ws+unix:").removeprefix("//").partition(":")
        if not path.startswith("/") or not (request or "/").startswith("/"):
            raise ValueError(f"not the URL of a Unix socket (ws+unix:/PATH[:/REQUEST]): {url!r}")
        return Target(f"ws://localhost{request or '/'}", False, "localhost", 80, path)
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        hint = "; ssh:// is for SSHExecer, run, Popen, spawn and the command line"
        raise ValueError(
            f"not a WebSocket URL (ws://HOST:PORT or wss://HOST:PORT): {url!r}"
            + (hint if parts.scheme == "ssh" else "")
        )
    tls = parts.scheme == "wss"
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError:
        # Not in the library's words: what stands there may be the half of a password.
        raise ValueError("the URL's port is no number from 1 to 65535") from None
    return Target(url, tls, parts.hostname, port)


def open_handshake(
    target: Target, timeout: float, ssl_context: ssl.SSLContext | None, limit: int
) -> Handshake:
    """Connect to where a URL leads, through the proxy that the environment names, if any.

    Args:
        target: Where.
        timeout: Seconds for all of the request.
        ssl_context: For TLS; by default the system's trust store.
        limit: Bytes that may be received.

    Raises:
        OSError: It could not be done.
        ValueError: The name of the host is none.
    """
    context = (ssl_context or _default_context()) if target.tls else None
    proxy = _proxy(target)
    through = f"{proxy.host}:{proxy.port}" if proxy else ""
    where = f"unix:{target.socket_path}" if target.socket_path else target.url.partition("?")[0]
    # Without the query, which may be secret.
    log_event(logging.DEBUG, "connect", url=where, proxy=through, seconds=timeout)
    handshake = Handshake(target, timeout, context, limit, proxy)
    log_event(logging.DEBUG, "connected", url=where)
    return handshake


def _default_context() -> ssl.SSLContext:
    with importing:
        import ssl

    return ssl.create_default_context()


# What OpenSSL says of an answer that is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")

# X509_verify_cert(3): self-signed, likewise in the chain, no issuer, and none in the chain.
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)


def words_of(error: Exception, handshake: Handshake | None = None) -> str:
    """Say why there is no connection, and what might help."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if getattr(error, "reason", None) in _NO_TLS:
        return f"the server speaks no TLS on this port: ws:// instead of wss://? ({words})"
    if getattr(error, "verify_code", None) in _UNKNOWN_AUTHORITY:
        return f"{words}: --ca-file, or ssl_context= in Python, names an authority to trust"
    if handshake is not None and handshake.answered_tls:
        return "the server speaks TLS on this port: wss:// instead of ws://"
    return words


def _header_lines(headers: Mapping[str, str]) -> list[str]:
    for name, value in headers.items():
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"header {name!r} has a line break or a NUL in it")
    return [f"{name}: {value}" for name, value in headers.items()]


# How a proxy's URL may begin, and which of the two kinds it is; the library knows the SOCKS ones.
_PROXIES = {"http": False, "https": False, "socks4": True, "socks4a": True}
_PROXIES |= {"socks5": True, "socks5h": True}


@dataclass(frozen=True)
class _Proxy:
    """A proxy to go through.

    Attributes:
        kind: A key of :data:`_PROXIES`.
        host: Where it is.
        port: Likewise.
        user: What it is to be shown of a user, a name and a password; or nothing.
    """

    kind: str
    host: str
    port: int
    user: tuple[str, ...]

    @property
    def socks(self) -> bool:
        return _PROXIES[self.kind]


def _proxy(target: Target) -> _Proxy | None:
    """Return the proxy that the environment names for a host, if any.

    Raises:
        ValueError: It is named in a way that makes no sense. The message has no password in it.
    """
    hostname = target.host
    if hostname == "localhost":
        return None
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(hostname).is_loopback:
            return None
    names = ("https_proxy" if target.tls else "http_proxy", "all_proxy")
    values = (os.environ.get(spelt) for name in names for spelt in (name, name.upper()))
    url = next(filter(None, values), "")
    if not url or _is_no_proxy_host(hostname, None):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in _PROXIES or not parts.hostname:
        raise ValueError(
            "the proxy that the environment names is none: http://HOST:PORT, socks5h://…"
        )
    try:
        port = parts.port or (1080 if _PROXIES[parts.scheme] else 80)
    except ValueError:
        raise ValueError("the proxy's port is no number from 1 to 65535") from None
    user = tuple(unquote(word) for word in (parts.username, parts.password) if word)
    return _Proxy(parts.scheme, parts.hostname, port, user)


# Where a ValueError is raised that says something about the server, or its name.
_OURS = frozenset(("websocket", __name__.partition(".")[0], *sys.stdlib_module_names))


def _raised_by(error: Exception) -> str:
    """Return the package whose function has raised an error."""
    entry = error.__traceback__
    assert entry is not None
    while entry.tb_next is not None:
        entry = entry.tb_next
    name: str = entry.tb_frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _raise_foreign(error: Exception) -> None:
    """Raise what the handler of a signal has raised, if it was that: it shows by having no errno.

    A ValueError shows by where it was raised: not by the library, by us, or by what both call.
    """
    made_of = error.__context__ if isinstance(error, websocket.WebSocketTimeoutException) else None
    if isinstance(made_of, TimeoutError):
        error = made_of  # the library has made that of it
    try:
        if isinstance(error, OSError) and error.errno is None:
            raise error
        if isinstance(error, ValueError) and _raised_by(error) not in _OURS:
            raise error
    finally:
        del error, made_of  # raised, they refer to this frame, and so to themselves


def _raise_refusal(url: str, handshake: Handshake | None, error: Exception) -> None:
    """Raise what the beginning of an answer says whose end did not come, if it is a refusal."""
    status = handshake.status if handshake is not None else None
    if status is not None and status >= 300:
        raise ConnectError(url, _refusal(status), status) from error


def _refusal(status: int, body: bytes = b"") -> str:
    text = f"the server answered HTTP {status}"
    if body:
        text += f": {body[:200].decode(errors='replace').strip()}"
    return text


class Handshake:
    """A connection to a server, as a library sees it while it makes an HTTP request.

    One deadline holds for all of it, TCP and TLS included, and one bound for what is received: the
    libraries count the time anew for each byte, and read lines, heads and bodies without end.

    websocket-client reads the answer's head one byte at a time. Here they come out of a buffer,
    and what stands before the end of a line comes as one byte: the library looks for nothing but
    that end. It would be a third of what connecting costs.

    Args:
        target: What to connect to.
        timeout: Seconds for all.
        context: For TLS.
        limit: Bytes that may be received.
        proxy: Through this.

    Attributes:
        socket: The connection.
        received: Bytes that were received, and not taken yet.
        status: The HTTP status that the answer began with, if it did.
        answered_tls: Whether it was an alert of TLS instead.

    Raises:
        OSError: It could not be made.
    """

    def __init__(
        self,
        target: Target,
        timeout: float,
        context: ssl.SSLContext | None,
        limit: int,
        proxy: _Proxy | None = None,
    ) -> None:
        self._deadline = time.monotonic() + timeout
        self._room = limit
        self.received = b""
        self.status: int | None = None
        self.answered_tls = False
        host, port = target.host, target.port
        if target.socket_path:
            self.socket = self._connect_unix(target.socket_path)
        elif proxy is not None and proxy.socks:
            self.socket = self._connect_by_socks(proxy, host, port)
        else:
            # As bytes, it is looked up without the codec for international names, whose import
            # takes a millisecond.
            to, to_port = (proxy.host, proxy.port) if proxy else (host, port)
            address: Any = to.encode() if to.isascii() else to
            self.socket = self._connect(address, to_port)
        try:
            if not target.socket_path:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None and not proxy.socks:
                self._pass_proxy(_host_and_port(host, port), ":".join(proxy.user))
            if context is not None:
                if self.received:  # or it would be taken for the server's, which TLS protects
                    raise OSError(errno.EPROTO, "something came before TLS")
                self._hurry()
                self.socket = tls = start_tls(self.socket, context, server_hostname=host)
                tls.do_handshake()
        except BaseException:
            self.socket.close()
            raise

    def _connect(self, host: Any, port: int) -> socket.socket:
        """Connect to the first of a host's addresses that answers, which share the time."""
        error = OSError(errno.EADDRNOTAVAIL, "the host has no address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        try:
            for left, (family, kind, protocol, _, address) in zip(
                range(len(found), 0, -1), found, strict=True
            ):
                share = self._rest() / left
                until = time.monotonic() + share
                sock = socket.socket(family, kind, protocol)
                try:
                    sock.settimeout(share)
                    sock.connect(address)
                except OSError as failure:
                    error = failure
                    sock.close()
                    early = not failure.errno and time.monotonic() < until
                    if early and isinstance(failure, TimeoutError):
                        break  # that of a signal's handler
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
            raise error
        finally:
            del error  # of an address that has failed: it refers to this frame, and so to itself

    def _connect_unix(self, path: str) -> socket.socket:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError(errno.EAFNOSUPPORT, "this system's Python has no Unix sockets")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._rest())
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _connect_by_socks(self, proxy: _Proxy, host: str, port: int) -> socket.socket:
        """Let the library connect through a SOCKS proxy, for which it has python-socks."""
        if not _http.HAVE_PYTHON_SOCKS:
            raise OSError(
                errno.EPROTONOSUPPORT,
                f"a proxy of {proxy.kind}:// takes python-socks: pip install python-socks",
            )
        name, password, *_ = (*proxy.user, "", "")
        through = _http.proxy_info(  # type: ignore[no-untyped-call]
            http_proxy_host=proxy.host,
            http_proxy_port=proxy.port,
            http_proxy_auth=(name, password) if name else None,
            http_proxy_timeout=self._rest(),
            proxy_type=proxy.kind,
        )
        try:
            sock, _ = _http._start_proxied_socket(
                f"ws://{_host_and_port(host, port)}", None, through
            )
        except _http.ProxyError as error:  # type: ignore[attr-defined]
            raise OSError(errno.ECONNREFUSED, f"the proxy answered: {error}") from error
        return sock

    def _pass_proxy(self, target: str, user: str) -> None:
        """Let a proxy connect to where we want to go (RFC 9110, section 9.3.6)."""
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if user:
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}")
        self.send("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.receive()
            if not data:
                raise OSError(errno.ECONNRESET, "the proxy ended the connection")
            head += data
        self.status = None  # that of the server is to come
        match = _STATUS.match(head)
        if match is None or not match[1].startswith(b"2"):
            words = "in no HTTP" if match is None else f"HTTP {match[1].decode()}"
            raise OSError(errno.ECONNREFUSED, f"the proxy answered {words}")
        self.received = head.partition(b"\r\n\r\n")[2]

    def _hurry(self) -> None:
        self.socket.settimeout(self._rest())

    def _rest(self) -> float:
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError("timed out")
        return rest

    def receive(self) -> bytes:
        """Receive some bytes; b"" at the end.

        Raises:
            OSError: The connection broke, the time is up, or there are too many.
        """
        self._hurry()
        data = self.socket.recv(_RECEIVE_BUFFER)
        self._room -= len(data)
        if self.status is None and (match := _STATUS.match(data)):
            self.status = int(match[1])
        if data.startswith(_TLS_ALERT):
            self.answered_tls = True
        if self._room < 0:
            raise OSError(errno.EMSGSIZE, "the server's answer is too long")
        return data

    def recv(self, size: int) -> bytes:
        if not self.received:
            self.received = self.receive()
        if size == 1:
            size = len(self.received.partition(b"\n")[0]) or 1
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def send(self, data: bytes) -> int:
        self._hurry()  # for all of it
        self.socket.sendall(data)
        return len(data)

    def gettimeout(self) -> float | None:
        return self.socket.gettimeout()

    def close(self) -> None:
        self.socket.close()


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class WebSocketClientTransport(SocketTransport):
    """A WebSocket of websocket-client that is connected. It is taken over: do not use it beside.

    Args:
        ws: The WebSocket.
        received: Bytes that were read from its socket already.
    """

    def __init__(self, ws: websocket.WebSocket, received: bytes = b"") -> None:
        if ws.sock is None:
            raise ValueError("the WebSocket is not connected")
        super().__init__(ws.sock, client=True, received=received)
        answer = ws.handshake_response
        headers = {} if answer is None else answer.headers  # by names in small letters
        self.peer_features = frozenset((headers.get(FEATURES_HEADER.lower()) or "").split())
        self._ws = ws  # keeps its socket from being closed by a finalizer
