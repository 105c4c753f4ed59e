"""One request of HTTP/1.1 on a socket: reading its head, and sending the response.

Nobody has asked for a token here yet, so everything has a bound: the time and the bytes that a
head may take, its headers, and how long a client may take to read. The content of a request is
never read. h11 says what a head is, wsgiref how an application is called.
"""

from __future__ import annotations

import contextlib
import http
import io
import re
import socket
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from wsgiref.handlers import SimpleHandler

import h11

from ..errors import SHORTAGE
from ..log import log_bug
from .access import Refusal
from .wsgi import UPGRADED

if TYPE_CHECKING:
    from wsgiref.headers import Headers

__all__ = [
    "LINGER_TIMEOUT",
    "RECEIVE_SIZE",
    "Response",
    "linger",
    "read_head",
    "refusal",
    "refusal_response",
    "request_variables",
    "seconds_until",
    "send",
]

#: Bytes that are received at once.
RECEIVE_SIZE = 1 << 16

#: Seconds that a client may go on to send when it has been answered.
LINGER_TIMEOUT = 1.0

# Bytes that it may send then.
_LINGER_SIZE = 1 << 22

# Seconds for a client to take a response.
_RESPONSE_TIMEOUT = 10.0

# The content is not read, so the application is told that there is none.
_CONTENT_HEADERS = (b"content-length", b"content-type", b"transfer-encoding")

# RFC 9112, section 3.2.2: mostly for proxies, but every server must take it.
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#@]+)(?=[/?]|\Z)", re.IGNORECASE)


# RFC 8446, section 5.1: what a client that speaks TLS begins with, a handshake's record.
_CLIENT_HELLO = b"\x16\x03"


def read_head(sock: socket.socket, deadline: float, max_head: int, max_headers: int) -> h11.Request:
    """Read a request's head; what limits it is the same as of :class:`.Listener`.

    Args:
        deadline: When all of it has to be there, as :func:`time.monotonic` says it.

    Raises:
        Refusal: It is too long, too late, or none. What the client is told does not quote it: it
            is logged, too.
        OSError: The connection broke, or ended.
    """
    parser = h11.Connection(h11.SERVER, max_head)
    size = 0
    try:
        while (request := parser.next_event()) is h11.NEED_DATA:
            if size == max_head:
                # Nothing is parsed yet, so all of it is still there.
                if b"\n" in parser.trailing_data[0]:
                    raise refusal(431, "the head is too long")
                raise refusal(414, "the request line is too long")
            sock.settimeout(seconds_until(deadline))
            data = sock.recv(min(RECEIVE_SIZE, max_head - size))
            if not data:
                raise ConnectionAbortedError("the client went before the end of its head")
            if not size and data.startswith(_CLIENT_HELLO):
                raise refusal(400, "no TLS on this port: ws:// instead of wss://")
            size += len(data)
            parser.receive_data(data)
        assert isinstance(request, h11.Request)
        if len(request.headers) > max_headers:
            raise refusal(431, f"more than {max_headers} headers")
        if not request.http_version.startswith(b"1."):
            raise refusal(505, "HTTP/1.1 only")
        if not request.target.startswith(b"/") and not _ABSOLUTE_FORM.match(request.target):
            # RFC 9112, section 3.2: the other forms are for proxies, and for OPTIONS.
            raise refusal(400, "the request's target is no path")
        if any(name == b"upgrade" for name, _ in request.headers):
            # RFC 6455, section 4.1: a client sends nothing until it has the response. What came
            # with the head would be lost, and content that is to come would be taken for frames.
            end = parser.next_event()
            if not isinstance(end, h11.EndOfMessage) or parser.trailing_data[0]:
                raise refusal(400, "bytes behind the head of an upgrade")
    except TimeoutError as error:
        raise refusal(408, "the head took too long") from error
    except h11.RemoteProtocolError as error:
        raise refusal(error.error_status_hint, "malformed head") from error
    return request


def request_variables(request: h11.Request) -> dict[str, Any]:
    """Return what PEP 3333 has in the environment about a request itself."""
    absolute = _ABSOLUTE_FORM.match(request.target)
    target = request.target[absolute.end() :] if absolute else request.target
    path, _, query = target.decode("ascii").partition("?")
    variables = {
        "REQUEST_METHOD": request.method.decode("ascii"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path or "/", "latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version.decode('ascii')}",
    }
    for name, value in request.headers:
        if name in _CONTENT_HEADERS or b"_" in name:  # X_Y would pass for X-Y
            continue
        key = f"HTTP_{name.decode('ascii').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        variables[key] = f"{variables[key]},{text}" if key in variables else text
    if absolute:
        # Section 3.2.2, too: what Host says is to be ignored then.
        variables["HTTP_HOST"] = absolute[1].decode("ascii")
    return variables


class Response(SimpleHandler):
    """Runs an application and sends what it returns, unless it has made a WebSocket of it.

    Args:
        sock: The connection.
        environ: The environment, but for what is the same in all.

    Attributes:
        sent: There was a response, and all of it is sent.
    """

    # Else it is the process's own, in which HTTP_AUTHORIZATION would pass for a header.
    os_environ: dict[str, str] = {}  # noqa: RUF012 - the base's
    http_version = "1.1"
    environ: dict[str, Any]
    status: str
    headers: Headers

    def __init__(self, sock: socket.socket, environ: dict[str, Any]) -> None:
        super().__init__(io.BytesIO(), io.BytesIO(), sys.stderr, environ)
        self.sent = False
        self._deadline: float | None = None  # time.monotonic(), from the first byte on
        self._sock = sock
        self._unsent = bytearray()

    def cleanup_headers(self) -> None:
        super().cleanup_headers()
        self.headers["Connection"] = "close"
        if self.status.startswith("426"):  # RFC 9110, section 15.5.22
            self.headers["Connection"] = "Upgrade, close"
            self.headers["Upgrade"] = "websocket"

    def finish_response(self) -> None:
        if not self.environ.get(UPGRADED):
            super().finish_response()
            self.sent = True

    def finish_content(self) -> None:
        super().finish_content()
        self._flush()

    def _write(self, data: bytes) -> None:
        self._unsent += data

    def _flush(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + _RESPONSE_TIMEOUT
        try:
            self._sock.settimeout(seconds_until(self._deadline))  # for all of it
            self._sock.sendall(self._unsent)
        except OSError as error:
            # For which run() knows that it is the client's doing.
            raise ConnectionAbortedError(str(error)) from error
        self._unsent.clear()

    def handle_error(self) -> None:
        # No variable for the error, whose traceback has this frame: they would keep each other.
        if getattr(sys.exc_info()[1], "errno", None) in SHORTAGE:
            raise  # out of run(): a traceback for each of them would flood the log
        super().handle_error()

    def log_exception(self, exc_info: Any) -> None:
        log_bug("internal error in the application", exc_info[1])


def refusal(status: int, text: str) -> Refusal:
    """Return what to raise to answer with a status and a line of ASCII text."""
    return Refusal(f"{status} {http.HTTPStatus(status).phrase}", f"{text}\n")


def refusal_response(refusal: Refusal) -> bytes:
    """Return the response that says it."""
    head = (
        f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(refusal.text)}\r\nConnection: close\r\n\r\n"
    )
    return f"{head}{refusal.text}".encode("ascii")


def send(sock: socket.socket, data: bytes | bytearray) -> None:
    """Send all of it; block while the client does not take it.

    Raises:
        OSError: The connection broke, or it took the client more than 10 seconds.
    """
    sock.settimeout(_RESPONSE_TIMEOUT)  # for all of it
    sock.sendall(data)


def linger(sock: socket.socket) -> None:
    """Say that this was all, and read what the client still sends, for a second at most.

    Were the socket closed instead, the kernel would answer what comes with a reset, for which the
    client might forget the response it has got (RFC 9112, section 9.6).
    """
    deadline = time.monotonic() + LINGER_TIMEOUT
    buffer = bytearray(RECEIVE_SIZE)
    size = 0
    # The plain socket's methods, below TLS.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while size < _LINGER_SIZE:
            sock.settimeout(seconds_until(deadline))
            received = socket.socket.recv_into(sock, buffer)
            if not received:
                return
            size += received


def seconds_until(deadline: float) -> float:
    """Return the seconds until a time of :func:`time.monotonic`.

    Raises:
        TimeoutError: There are none left.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time is up")
    return seconds
