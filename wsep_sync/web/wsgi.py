"""The server as a WSGI application: the upgrade from HTTP, the close, and what else it answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import SHORTAGE, ProtocolError
from ..jobs.options import Options, SessionInfo
from ..log import Warnings
from ..process import Execer
from ..protocol.messages import FEATURES
from ..serving.metrics import exposition
from ..serving.server import ExecerFactory, Server
from ..transports.simple_websocket import SimpleWebSocketTransport, accept_websocket
from .access import Access, Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["UPGRADED", "application"]

#: Whether the request has become a WebSocket, and no response is to follow: a server that knows
#: this puts it into the WSGI environment as False, and the application makes it True.
UPGRADED = "wsep_sync.upgraded"


def application(
    server: Server,
    execer: Execer | ExecerFactory,
    options: Options | None = None,
    *,
    access: Access | None = None,
) -> WSGIApplication:
    """Return a WSGI application whose every path is a WebSocket that runs a command.

    Besides, ``GET /sessions`` is answered with a JSON list of the sessions (the fields of
    :class:`.SessionInfo`), and ``DELETE /sessions/ID`` ends one. ``GET /metrics`` is answered with
    what has been counted (:class:`.Metrics`), in Prometheus's text format; with 404 where
    prometheus_client is missing.

    ``GET /healthz`` is for a proxy's health checks, and answered whoever asks: 200, or 503 when the
    server is being drained or closed, and a JSON object with the package's ``version`` and the
    numbers of ``sessions`` and ``connections``.

    It needs a threaded server that gives its applications the socket, as :class:`.Listener`,
    gunicorn with ``--threads`` and Werkzeug do. Each WebSocket takes one of its threads, and all
    have to be in one process, where the sessions are.

    A request that is refused is answered with 400, 401, 403 or 426, and 503 once the server is
    being closed, and a line of text that says why.

    Args:
        server: Keeps the sessions.
        execer: What runs the commands, or a function that makes one for each connection.
        options: How to serve.
        access: Who may connect, by any of this. By default whoever can reach it, except by a name
            that is not known, and except pages of other origins.
    """
    access = access or Access()
    warnings = Warnings()
    # What one of a function's can do is known too late.
    can = execer.features if isinstance(execer, Execer) else ()
    features = (*FEATURES, *sorted(can))

    def wsep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return answer(environ, start_response)
        except Refusal as refusal:
            peer = f"{environ.get('REMOTE_ADDR', '')}:{environ.get('REMOTE_PORT', '')}".strip(":")
            warnings.log(
                "refusal", peer=peer, status=refusal.status[:3], reason=refusal.text.strip()
            )
            return _answer(start_response, refusal.status, refusal.text)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        plain_get = method == "GET" and "HTTP_UPGRADE" not in environ
        if plain_get and path == "/healthz":
            # Before access is checked: a proxy has no token to show, and calls the server by any
            # name, or, in HTTP/1.0, by none. Here are no secrets, and nothing that costs much.
            return _answer_health(start_response, server)
        access.check(environ)
        if plain_get and path == "/sessions":
            start_response("200 OK", [("Content-Type", "application/json; charset=utf-8")])
            return _listed(server.sessions())
        if plain_get and path == "/metrics":
            return _answer_metrics(start_response, server)
        if method == "DELETE" and path.startswith("/sessions/"):
            if options is not None and options.read_only:
                raise Refusal("403 Forbidden", "read-only: sessions can only be watched\n")
            # PEP 3333: the path's bytes, percent-decoded, as Latin-1.
            id = path.removeprefix("/sessions/").encode("latin-1").decode(errors="replace")
            if server.close_session(id, "closed by request"):
                return _answer(start_response, "204 No Content", "")
            return _answer(start_response, "404 Not Found", "no such session\n")
        transport = _accept(environ, server, features)
        server.serve_and_close(transport, execer, options)
        return _no_answer(environ)

    return wsep


def _accept(
    environ: WSGIEnvironment, server: Server, features: Iterable[str]
) -> SimpleWebSocketTransport:
    """Answer a request with an upgrade, or raise why not."""
    _check_upgrade(environ)
    if server.closed:
        raise Refusal("503 Service Unavailable", "the server is ending\n")
    try:
        return accept_websocket(environ, features)
    except ProtocolError as error:
        raise Refusal("400 Bad Request", f"{error}\n") from error
    except OSError as error:
        if error.errno not in SHORTAGE:
            raise
        raise Refusal("503 Service Unavailable", f"{error.strerror}\n") from error


def _check_upgrade(environ: WSGIEnvironment) -> None:
    """Refuse what does not ask for a WebSocket."""
    if "websocket" not in environ.get("HTTP_UPGRADE", "").lower():
        raise Refusal("426 Upgrade Required", "this is a WebSocket\n")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise Refusal("426 Upgrade Required", "WebSocket version 13 only\n")
    if not environ.get("HTTP_SEC_WEBSOCKET_KEY"):
        raise Refusal("400 Bad Request", "no Sec-WebSocket-Key\n")


# Bytes of a list that are made at once.
_PIECE = 1 << 16


def _listed(infos: list[SessionInfo]) -> Iterator[bytes]:
    """Return the list in JSON, in pieces.

    Each is made when the one before it has been sent: who asks for a list and does not read it
    keeps one piece in memory, however long the list is, and how many there are who do so.
    """
    piece = "["
    for number, info in enumerate(infos):
        # Not asdict(), which copies all that there is.
        fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
        piece += f"{', ' if number else ''}{json.dumps(fields)}"
        if len(piece) >= _PIECE:
            yield piece.encode()
            piece = ""
    yield f"{piece}]".encode()


def _no_answer(environ: WSGIEnvironment) -> list[bytes]:
    """Let the HTTP server send nothing behind a WebSocket.

    PEP 3333 has no way to say so. Servers end a request in silence for an exception of which each
    thinks that the client has gone.
    """
    if UPGRADED in environ:
        environ[UPGRADED] = True
        return []
    if "gunicorn.socket" in environ:
        raise StopIteration
    raise ConnectionAbortedError("this was a WebSocket")  # Werkzeug's


def _answer_health(start_response: StartResponse, server: Server) -> list[bytes]:
    health = {
        "version": __version__,
        "sessions": server.session_count(),
        "connections": server.connection_count(),
    }
    status = "503 Service Unavailable" if server.draining else "200 OK"
    return _answer(start_response, status, json.dumps(health), "application/json")


def _answer_metrics(start_response: StartResponse, server: Server) -> list[bytes]:
    try:
        kind, body = exposition(server.metrics())
    except ImportError:
        extra = "pip install '.[metrics]' in the clone (see README)"
        text = f"metrics need prometheus_client: {extra}\n"
        return _answer(start_response, "404 Not Found", text)
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def _answer(
    start_response: StartResponse, status: str, text: str, kind: str = "text/plain"
) -> list[bytes]:
    body = text.encode()
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    if status.startswith("204"):
        headers = []
    if status.startswith("426"):
        # RFC 9110, section 15.5.22, wants Upgrade besides: PEP 3333 leaves it to the HTTP server.
        headers.append(("Sec-WebSocket-Version", "13"))
    if status.startswith("401"):  # RFC 9110, section 15.5.2
        headers.append(("WWW-Authenticate", "Bearer"))
    start_response(status, headers)
    return [body]
