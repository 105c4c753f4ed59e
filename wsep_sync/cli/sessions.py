"""``wsep-sync sessions`` and ``wsep-sync kill``."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from ..errors import ConnectError
from ..streams.files import RawFile, Reader
from .client import Target, target
from .console import complain, one_line
from .signals import Signals

if TYPE_CHECKING:
    import io

    from ..transports.websocket_client import Handshake

__all__ = ["kill", "sessions"]

# Bytes that an answer may have. The longest list of 1,000 sessions has 29 MB: a name and a command
# line of 1,024 characters each, which are twelve bytes in JSON, and sixteen as words of their own.
_MAX_ANSWER = 1 << 25


def sessions(arguments: argparse.Namespace, signals: Signals) -> int:
    """List a server's sessions."""
    status, body = _request(arguments, signals, "GET", "/sessions")
    if status != 200:
        complain(f"{arguments.url}: {body[:200] or 'no sessions here'} (HTTP {status})")
        return 1
    import json
    import shlex

    try:
        lines = [
            [
                one_line(column)
                for column in (
                    info["id"],
                    info["pid"],
                    f"{info['rows']}x{info['cols']}",
                    f"{info['clients']} attached",
                    shlex.join(info["command"]),
                )
            ]
            for info in json.loads(body)
        ]
    except (KeyError, TypeError, ValueError, RecursionError):
        complain(f"{arguments.url}: the server's answer is no list of sessions")
        return 1
    for line in lines:
        print(*line, sep="\t")
    return 0


def kill(arguments: argparse.Namespace, signals: Signals) -> int:
    """End one of a server's sessions."""
    from urllib.parse import quote

    path = f"/sessions/{quote(arguments.id, safe='')}"
    status, body = _request(arguments, signals, "DELETE", path, arguments.id)
    if status == 204:
        return 0
    complain(f"{arguments.id}: {body[:200]} (HTTP {status})")
    return 1


def _request(
    arguments: argparse.Namespace, signals: Signals, method: str, path: str, session_id: str = ""
) -> tuple[int, str]:
    """Ask the server something over HTTP; return the status and the body."""
    if arguments.url is None:
        arguments.fail("--url or $WSEP_URL is needed")
    with target(arguments) as server:
        return signals.wait_for_call(lambda: _http(server, method, path, session_id))


class _Socket(RawFile):
    """A connection as http.client sees it, with one deadline and a bound for all that it reads."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake

    def sendall(self, data: bytes) -> None:
        self._handshake.send(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return Reader(_Socket(self._handshake))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._handshake.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _drop(self) -> None:
        pass  # the connection is not this file's


def _http(server: Target, method: str, path: str, session_id: str) -> tuple[int, str]:
    import http.client
    from urllib.parse import urlsplit

    from ..execers.remote.execer import session_headers
    from ..transports.websocket_client import open_handshake, parse_url, words_of

    try:
        where = parse_url(server.url)
    except ValueError as error:
        server.fail(str(error))
    url, timeout = server.url, server.timeout
    handshake = None
    headers = {**server.headers, **session_headers(session_id)}
    if server.token is not None:
        headers["Authorization"] = f"Bearer {server.token}"
    try:
        connection = http.client.HTTPConnection(where.host, where.port)
        connection.default_port = 443 if where.tls else 80  # of which nothing is said
        # Over a socket of our own: the library knows no deadline, and no bound.
        handshake = open_handshake(where, timeout, server.ssl_context, _MAX_ANSWER)
        with contextlib.closing(handshake):
            connection.sock = _Socket(handshake)
            base = urlsplit(where.url).path.rstrip("/")
            connection.request(method, base + path, headers=headers)
            with connection.getresponse() as response:
                # In pieces: as much as it says that it has would be allocated at once.
                body = b"".join(iter(lambda: response.read(1 << 16), b""))
                return response.status, body.decode(errors="replace").strip()
    except TimeoutError as error:
        raise ConnectError(url, f"no answer within {timeout:g} seconds") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectError(url, words_of(error, handshake)) from error
