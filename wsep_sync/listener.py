"""A threaded HTTP server for the WSGI application: :class:`Listener`."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from .wakeup import READ, Wakeup, wait_for
from .wsgi import UPGRADED

if TYPE_CHECKING:
    import ssl
    from wsgiref.headers import Headers

    from _typeshed.wsgi import WSGIApplication

__all__ = ["Listener"]

_log = logging.getLogger("wsep_sync")

# Seconds for a client to send the next piece of its request's head, and for TLS to be set up.
_HEAD_TIMEOUT = 10.0


class Listener(socketserver.ThreadingMixIn, WSGIServer):
    """Listens on a TCP port and runs a WSGI application, each connection in its own thread.

    The socket listens when the constructor returns. :meth:`serve_forever` accepts connections
    until :meth:`shutdown`; :meth:`server_close` then ends those that are open. Used as a context
    manager, it does the last by itself.

    Args:
        app: The application.
        host: Address or name to listen on; one with a colon in it is IPv6.
        port: Port to listen on; 0 picks a free one.
        ssl_context: Speak TLS with this.

    Raises:
        OSError: The address cannot be listened on.
    """

    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        app: WSGIApplication,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._ssl_context = ssl_context
        self._wakeup = Wakeup()  # ends serve_forever
        self._lock = threading.Lock()  # guards _connections
        self._connections: set[socket.socket] = set()
        super().__init__((host, port), _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks its own name up in the DNS and may wait for that.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    @property
    def url(self) -> str:
        """The URL that a client on this machine connects to."""
        host = str(self.server_address[0])
        host = f"[{host}]" if ":" in host else host
        return f"{'wss' if self._ssl_context else 'ws'}://{host}:{self.server_port}"

    def serve_forever(self, poll_interval: float = 0.5) -> None:  # noqa: ARG002 - the base's
        """Accept connections until :meth:`shutdown`."""
        while True:
            # Not socketserver's loop, which looks only every so often whether it is to end.
            if wait_for(self.socket.fileno(), READ, self._wakeup):
                self._handle_request_noblock()  # type: ignore[attr-defined]
            else:
                return

    def shutdown(self) -> None:
        """Let :meth:`serve_forever` return. Does not block; may be called from any thread."""
        self._wakeup.set()

    def server_close(self) -> None:
        """Stop listening, cut the connections that are open, and wait for their threads.

        Blocks until the commands that were running have ended: some 2 seconds for one that
        ignores SIGTERM.
        """
        self.socket.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    # The plain socket's: SSLSocket.shutdown takes TLS off under a thread's hands.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        super().server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_HEAD_TIMEOUT)
        if self._ssl_context is None:
            super().finish_request(request, client_address)
            return
        tls = self._ssl_context.wrap_socket(request, server_side=True)
        with self._lock:
            self._connections.add(tls)
        try:
            super().finish_request(tls, client_address)
        finally:
            with self._lock:
                self._connections.discard(tls)
            tls.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        # A client that breaks off is daily life; anything else is a bug, and is shown as one.
        daily = isinstance(sys.exc_info()[1], OSError)
        level = logging.DEBUG if daily else logging.ERROR
        _log.log(level, "connection from %s ended", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    """One connection: one request, which for us is the upgrade."""

    server: Listener
    disable_nagle_algorithm = True

    def get_environ(self) -> dict[str, Any]:
        environ = super().get_environ()
        # Where simple-websocket looks for the socket.
        environ["werkzeug.socket"] = self.connection
        return environ

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if len(self.raw_requestline) > 65536:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
            return
        if not self.parse_request():
            return
        environ = self.get_environ()
        stdin, stdout = cast("IO[bytes]", self.rfile), cast("IO[bytes]", self.wfile)
        handler = _Response(stdin, stdout, self.get_stderr(), environ, multithread=True)
        handler.request_handler = self
        handler.run(self.server.get_app())  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        _log.debug("%s: " + format, self.client_address, *args)


class _Response(ServerHandler):
    """Sends what the application returns, unless the request has become a WebSocket."""

    request_handler: _Handler
    status: str
    headers: Headers

    def cleanup_headers(self) -> None:
        super().cleanup_headers()
        if self.status.startswith("426"):  # RFC 9110, section 15.5.22
            self.headers["Connection"] = "Upgrade, close"
            self.headers["Upgrade"] = "websocket"

    def finish_response(self) -> None:
        if not getattr(self, "environ", {}).get(UPGRADED):
            super().finish_response()
