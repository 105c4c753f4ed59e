"""``wsep-sync sessions`` and ``wsep-sync kill``."""

from __future__ import annotations

import argparse
import contextlib

from ..errors import ConnectError
from .client import Target, target
from .console import complain, one_line
from .signals import Signals

__all__ = ["kill", "sessions"]


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
            (
                info["id"],
                info["pid"],
                f"{info['rows']}x{info['cols']}",
                f"{info['clients']} attached",
                shlex.join(info["command"]),
            )
            for info in json.loads(body)
        ]
    except (KeyError, TypeError, ValueError):
        complain(f"{arguments.url}: the server's answer is no list of sessions")
        return 1
    for line in lines:
        print(*map(one_line, line), sep="\t")
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


def _http(server: Target, method: str, path: str, session_id: str) -> tuple[int, str]:
    import http.client
    from urllib.parse import urlsplit

    from ..remote import session_headers

    url, timeout = server.url, server.timeout
    headers = session_headers(session_id)
    if server.token is not None:
        headers["Authorization"] = f"Bearer {server.token}"
    connection: http.client.HTTPConnection
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError("not a WebSocket URL (ws://HOST:PORT or wss://HOST:PORT)")
        if parts.scheme == "ws":
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout, context=server.ssl_context
            )
        with contextlib.closing(connection):
            connection.request(method, parts.path.rstrip("/") + path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace").strip()
    except TimeoutError as error:
        raise ConnectError(url, f"no answer within {timeout:g} seconds") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectError(url, str(error) or type(error).__name__) from error
