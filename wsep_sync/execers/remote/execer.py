"""Commands at the other end of a WebSocket: :func:`connect` and :class:`RemoteExecer`."""

from __future__ import annotations

import errno
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from ... import streams
from ...errors import (
    ProtocolError,
    SessionNotFound,
    StartError,
    TransportClosed,
    start_error,
)
from ...lazy import importing
from ...log import log_event
from ...process import Execer, Process, check_additions
from ...protocol.checks import MAX_WINDOW, check_token
from ...protocol.command import ADDITIONS, Command, check_command
from ...protocol.dialogue import ClientDialogue, ClientState, has_credit
from ...protocol.messages import (
    FEATURES,
    MAX_MESSAGE,
    Attach,
    Start,
)
from ...protocol.words import NO_SESSION, start_error_from_reason
from ...streams.wakeup import check_timeout
from ...transports.base import POLICY_VIOLATION, Transport

if TYPE_CHECKING:
    import ssl

    import websocket
from .process import RemoteProcess
from .receiver import Receiver

__all__ = [
    "CONNECT_TIMEOUT",
    "RemoteExecer",
    "connect",
    "environment_token",
    "session_headers",
]


#: Seconds that a connection, and then the start of a command, may take by default.
CONNECT_TIMEOUT = 10.0


# Characters of an id that are said in a header: servers and proxies refuse long ones, many from
# 8 KiB on, and to spread sessions much fewer would do.
_MAX_SESSION_HEADER = 1024


def connect(
    url: str,
    *,
    timeout: float = CONNECT_TIMEOUT,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    session_id: str = "",
    ssl_context: ssl.SSLContext | None = None,
    output_limit: int = streams.DEFAULT_LIMIT,
) -> RemoteExecer:
    """Connect to a server and return an execer that runs commands there.

    One WebSocket carries one command: the first command uses the connection that this makes, each
    further one makes a connection of its own. So does the first, when the server would not wait
    for it any longer.

    A command with an id goes over a connection whose request names the id, in the header
    ``Wsep-Session-Id``: so a proxy in front of several servers can send it to where its session
    is. See :func:`session_headers`.

    Args:
        url: ``ws://HOST:PORT/PATH`` or ``wss://…``. An IPv6 address stands in brackets.
        timeout: Seconds for making a connection, and again for the server to start a command.
        token: What the server wants to be shown, as ``Authorization: Bearer TOKEN`` (RFC 6750);
            by default that in ``$WSEP_TOKEN``, if that is set. Over ``ws://``, whoever listens on
            the way can read it. It is never sent on to where a server redirects to.
        headers: HTTP headers to send with the request.
        session_id: The id of the command that the connection made by this is for. One of another
            id, or with an id when there is none here, closes it and makes its own.
        ssl_context: For ``wss://``; by default the system's trust store, and the host's name is
            checked.
        output_limit: How many bytes of each output are kept while nobody reads it. A command that
            writes more is held up, as by a pipe that is full.

    Raises:
        ConnectError: No connection could be made. Its ``status`` is 401 if the token is wrong.
        ValueError: ``url`` is not the URL of a WebSocket, ``timeout`` is not above 0, or the token
            is empty or cannot be sent.

    Example:
        >>> with connect("ws://127.0.0.1:8080") as execer:  # doctest: +SKIP
        ...     with execer.start(Command("uname", ["-n"])) as process:
        ...         print(process.stdout.read().decode())
    """

    check_timeout(timeout)
    headers = dict(headers or {})
    token = environment_token() if token is None else check_token(token)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    def dial(session_id: str) -> Transport:
        with importing:
            from ...transports.websocket_client import connect_websocket

        return connect_websocket(
            url,
            timeout=timeout,
            headers=headers | session_headers(session_id),
            ssl_context=ssl_context,
        )

    execer = RemoteExecer(dial(session_id), timeout=timeout, output_limit=output_limit)
    execer._dial = dial
    execer._session_id = session_id
    return execer


def environment_token() -> str | None:
    """Return the token in ``$WSEP_TOKEN``, ``None`` if that is not set.

    Raises:
        ValueError: It is set, but empty, as a command that failed leaves it:
            ``WSEP_TOKEN=$(cat missing)`` does not ask for no token at all. Or it cannot be sent.
    """
    token = os.environ.get("WSEP_TOKEN")
    if token == "":
        raise ValueError("$WSEP_TOKEN is set, but empty: unset it to do without a token")
    try:
        return None if token is None else check_token(token)
    except ValueError as error:
        raise ValueError(f"$WSEP_TOKEN: {error}") from error


def session_headers(session_id: str) -> dict[str, str]:
    """Return the HTTP header that names a session, if there is one to name.

    What is no visible ASCII character, and the percent sign, is percent-encoded as UTF-8 (RFC 3986,
    section 2.1). A long id is cut: the header says where to look for a session, and not which it
    is.
    """
    if not session_id:
        return {}
    with importing:
        from urllib.parse import quote_from_bytes

    # Lone surrogates are what os.fsdecode() makes of bytes that are not UTF-8.
    encoded = session_id.encode(errors="surrogatepass")
    visible = bytes(set(range(0x21, 0x7F)) - {ord("%")})
    return {"Wsep-Session-Id": quote_from_bytes(encoded, visible)[:_MAX_SESSION_HEADER]}


# Makes the message that starts a command, of the features that the server has named so far, and of
# the window, if it may be told of one.
_FirstMessage: TypeAlias = "Callable[[frozenset[str], int | None], Start | Attach]"


class RemoteExecer(Execer):
    """Runs one command over one WebSocket that is connected; :func:`connect` makes one for many.

    Args:
        ws: A ``websocket.WebSocket`` that is connected, or a transport. It is taken over.
        timeout: Seconds for the server to start a command.
        output_limit: How many bytes of each output are kept while nobody reads it.
    """

    def __init__(
        self,
        ws: websocket.WebSocket | Transport,
        *,
        timeout: float = CONNECT_TIMEOUT,
        output_limit: int = streams.DEFAULT_LIMIT,
    ) -> None:
        check_timeout(timeout)
        if not isinstance(ws, Transport):
            with importing:
                from ...transports.websocket_client import WebSocketClientTransport

            ws = WebSocketClientTransport(ws)
        self._lock = threading.Lock()  # guards _transport
        self._transport: Transport | None = ws
        # Makes a connection for a command's id; and the id that the one that waits is for.
        self._dial: Callable[[str], Transport] | None = None
        self._session_id = ""
        # Further connections are to the same server, or to one that is asked again.
        self._features = ws.peer_features
        self._timeout = timeout
        self._output_limit = max(1, min(output_limit, MAX_WINDOW))

    @property
    def features(self) -> frozenset[str]:
        return self._features & frozenset(ADDITIONS.values())

    def start(self, command: Command) -> Process:
        check_command(command)
        return self._start(functools.partial(Start, command), command)

    def attach(self, id: str, rows: int = 0, cols: int = 0) -> RemoteProcess:
        """Attach to a terminal session that is there, and never start anything.

        Args:
            id: The session's.
            rows: This client's height in rows; the latest size wins. 0 by 0 leaves it.
            cols: Its width in columns.

        Raises:
            SessionNotFound: There is none, or not any more.
            StartError: The server does not know how to attach only, as one that did not name the
                feature ``attach``: it does not answer, for as long as a start may take. Or it
                refuses.
            ConnectError, TransportClosed: As of :meth:`start`.

        Blocks as :meth:`start` does.
        """
        command = Command("", id=id, tty=True, rows=rows, cols=cols)
        return self._start(lambda _features, window: Attach(id, rows, cols, window), command)

    def _start(self, message: _FirstMessage, command: Command) -> RemoteProcess:
        all_features = frozenset((*FEATURES, *ADDITIONS.values()))
        if len(message(all_features, self._output_limit).encode()) > MAX_MESSAGE:
            raise start_error(errno.E2BIG, command.command)
        with self._lock:
            transport, self._transport = self._transport, None
        dial = self._dial
        # Behind a proxy, a connection for another id may lead to another server; and one that was
        # idle for longer than something on the way would have it leads nowhere any more.
        if (
            transport is not None
            and dial is not None
            and (command.id != self._session_id or transport.hung_up())
        ):
            transport.close()
            transport = None
        if transport is not None:
            try:
                return self._start_over(transport, message, command)
            except TransportClosed as closed:
                if dial is None or closed.code != POLICY_VIOLATION:
                    raise
                # The server would not wait any longer for a start, and has not seen this one.
        if dial is None:
            raise StartError(
                "this WebSocket has carried its one command, or is closed; "
                "connect(url) makes an execer that runs many"
            )
        return self._start_over(dial(command.id), message, command)

    def _start_over(
        self, transport: Transport, message: _FirstMessage, command: Command
    ) -> RemoteProcess:
        """Start the command over this connection, which is closed if that fails."""
        began = time.monotonic()
        window = self._output_limit if has_credit(transport.peer_features) else None
        receiver = None
        try:
            check_additions(command, transport.peer_features)
            first = message(transport.peer_features, window).encode()
            transport.send(first, timeout=self._timeout)
            transport.set_deadline(self._timeout)
            receiver = Receiver()
            dialogue = ClientDialogue()
            while dialogue.state is ClientState.ASKED:
                dialogue.receive(transport.receive())
            transport.set_deadline(None)
            limit = self._output_limit
            told = window is not None
            process = RemoteProcess(transport, command, dialogue, limit, told, receiver)
            features = " ".join(sorted(process.features))
            log_event(logging.DEBUG, "started", pid=process.pid, features=features)
            return process
        except TransportClosed as closed:
            transport.close()
            if closed.code == 1011 and closed.reason == NO_SESSION:
                raise SessionNotFound(command.id) from closed
            if closed.code == 1011:
                raise start_error_from_reason(closed.reason, command) from closed
            raise
        except TimeoutError as error:
            transport.abort()
            transport.close()
            if time.monotonic() - began < self._timeout:
                raise  # that of a signal's handler
            raise StartError(f"no answer from the server in {self._timeout:g} seconds") from error
        except ProtocolError as error:
            transport.close(error.close_code, str(error))
            raise StartError(f"not a wsep server: {error}") from error
        except BaseException:
            transport.abort()
            transport.close()
            raise
        finally:
            if receiver is not None:
                receiver.cancel()  # a traceback may keep it for long

    def close(self) -> None:
        """Close the connection that waits for a command; running commands are left alone."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
