"""A server for the tests of what is below a server's messages."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from certificates import certificates
from helpers import SECONDS, serving
from peers import RawPeer, dial_raw

from wsep_sync.transports.base import Transport
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.transports.websocket_client import WebSocketClientTransport, connect_websocket
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import UPGRADED


class Acceptor:
    """A server that hands over each WebSocket it accepts instead of serving it.

    Args:
        accept: Makes what is handed over of a WSGI environment.
    """

    def __init__(
        self,
        accept: Callable[[dict[str, Any]], Any] = accept_websocket,
        tls: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        self._accepted = accepted = queue.SimpleQueue[Any]()
        self._end = end = threading.Event()
        self.tls = tls

        # It does not refer to this object, which refers to the listener: no cycle may keep the
        # descriptors.
        def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
            environ[UPGRADED] = True
            try:
                accepted.put(accept(environ))
            except BaseException as error:
                accepted.put(error)
            else:
                end.wait()
            return []

        self.app = app
        context = certificates().server if tls else None
        self.listener = Listener(app, host, ssl_context=context)

    def accepted(self) -> Any:
        accepted = self._accepted.get(timeout=SECONDS)
        if isinstance(accepted, BaseException):
            raise accepted
        return accepted

    def connect(self, **options: Any) -> WebSocketClientTransport:
        options.setdefault("ssl_context", certificates().client if self.tls else None)
        return connect_websocket(self.listener.url, timeout=SECONDS, **options)

    def dial(self, *headers: str) -> RawPeer:
        """Connect a client made by hand."""
        context = certificates().client if self.tls else None
        address = self.listener.server_address
        return dial_raw(address, headers=headers, context=context)  # type: ignore[arg-type]

    def __enter__(self) -> Acceptor:
        self._serving = serving(self.listener)
        self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._serving.__exit__(None, None, None)


def drop(*transports: Transport) -> None:
    """End what a test left open, without ceremony."""
    for transport in transports:
        transport.abort()
    for transport in transports:
        transport.close()
