"""The table of what is served: :class:`Server`."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ..errors import (
    ProtocolError,
    SessionClosed,
    SessionNotFound,
    StartError,
    WsepError,
)
from ..jobs.options import Options, SessionInfo, State
from ..jobs.session import Session, nothing_to_watch
from ..lazy import importing
from ..log import log_bug
from ..process import Execer, Process, check_additions
from ..protocol.command import Command
from ..protocol.messages import (
    Attach,
    Start,
)
from ..threads import start_thread
from ..transports.base import Transport
from .metrics import Metrics, failure_reason

if TYPE_CHECKING:
    import simple_websocket
from .connection import Connection, Starter, server_ending

__all__ = [
    "ExecerFactory",
    "Server",
    "serve",
]


#: What a server runs commands with: an execer, or something that makes one for each connection,
#: which is closed when the connection ends.
ExecerFactory: TypeAlias = "Callable[[], Execer]"


class Server:
    """Serves commands over connections, each in a thread of its caller's. Thread-safe.

    A command on a terminal that has an id is a session, which the server keeps: whoever starts a
    command with the same id is attached to it, whatever command it names. All others are plain
    processes, which end with their connection.

    Args:
        max_sessions: How many sessions there may be. The command that would be one more is
            refused, and the others go on.
    """

    def __init__(self, *, max_sessions: int = 1000) -> None:
        if max_sessions < 0:
            raise ValueError(f"max_sessions must not be below 0: {max_sessions}")
        self._max_sessions = max_sessions
        self._lock = threading.Lock()  # guards all of the following
        self._sessions: dict[str, Session] = {}
        self._connections: set[Connection] = set()
        self._closed = False
        self._draining = False
        self._metrics = Metrics()  # without the bytes of the connections that are open

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def draining(self) -> bool:
        """Whether :meth:`drain` or :meth:`close` was called: nobody new should be sent here."""
        return self._draining or self._closed

    def sessions(self) -> list[SessionInfo]:
        """Return what sessions there are at this moment, in the order in which they began."""
        return [session.info() for session in self._living()]

    def session_count(self) -> int:
        """Return how many sessions there are at this moment."""
        return len(self._living())

    def connection_count(self) -> int:
        """Return how many connections are being served at this moment."""
        with self._lock:
            return len(self._connections)

    def metrics(self) -> Metrics:
        """Return what has been counted until this moment; a copy, which stays as it is."""
        with self._lock:
            self._forget_ended()
            metrics = copy.deepcopy(self._metrics)
            metrics.sessions = len(self._sessions)
            metrics.connections = len(self._connections)
            for connection in self._connections:
                connection.add_bytes(metrics)
        return metrics

    def close_session(self, id: str, reason: str = "closed") -> bool:
        """End a session; as :meth:`.Session.close` in all else. False if there is none."""
        with self._lock:
            session = self._sessions.get(id)
        if session is None or session.state is State.DONE:
            return False
        session.close(reason)
        return True

    def drain(self, timeout: float) -> bool:
        """Wait until the last session has ended by itself, for ``timeout`` seconds at most.

        From now on ``GET /healthz`` is answered with 503, lest a proxy send anybody new; whoever
        comes all the same is served.

        Returns:
            Whether none is left.
        """
        with self._lock:
            self._draining = True
        deadline = time.monotonic() + timeout
        while sessions := self._living():
            try:
                sessions[0].wait_for_state(State.DONE, max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return False
        return True

    def close(self) -> None:
        """End all that runs, and start nothing more.

        Each :meth:`serve` ends its command and raises what to close its connection with: 1001,
        going away. Those threads are for their owner to wait for.

        Blocks until the sessions have ended, some 2 seconds when a command ignores SIGHUP and
        SIGTERM. Calling it again is harmless.
        """
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.go_away()
        # All at once, so that it takes no longer than the slowest; each thread ends with its
        # session.
        closing = []
        for session in self._living():
            try:
                thread = start_thread(
                    session.close,
                    "the server ends",
                    name="wsep-session-close",
                    died=lambda _: None,  # nobody but this function waits for it
                    daemon=False,
                )
            except RuntimeError:  # no more threads can be had
                session.close("the server ends")
            else:
                closing.append(thread)
        for thread in closing:
            thread.join()
        self._living()

    def _living(self) -> list[Session]:
        """Return the sessions that have not ended, and forget those that have."""
        with self._lock:
            self._forget_ended()
            return list(self._sessions.values())

    def _forget_ended(self) -> None:
        """Drop the sessions that have ended; requires holding the lock."""
        assert self._lock.locked()
        self._sessions = {
            id: session for id, session in self._sessions.items() if session.state is not State.DONE
        }

    def _attach(self, command: Command, execer: Execer, options: Options) -> Process:
        """Attach to the session of a command's id, which is begun if there is none."""
        while True:
            with self._lock:
                self._forget_ended()
                if self._closed:
                    raise server_ending()
                session = self._sessions.get(command.id)
                if session is None:
                    if options.read_only:
                        raise nothing_to_watch(command.id)
                    count = len(self._sessions)
                    if count >= self._max_sessions:
                        raise StartError(f"{count} sessions are the limit here")
                    session = Session(command, execer, options)
                    self._sessions[command.id] = session
            try:
                return session.attach(command.rows, command.cols, options=options)
            except SessionClosed:
                # It is being ended, which takes some 2 seconds at most. Then there is a new one.
                session.wait_for_state(State.DONE)

    def serve(
        self,
        conn: Transport | simple_websocket.Server,
        execer: Execer | ExecerFactory,
        options: Options | None = None,
    ) -> None:
        """Run the one command that a client asks for over a connection.

        Blocks until the command has ended and the client has closed (a minute after it has taken
        the last of the output at most), or the client has gone: then the command's process group
        is ended with SIGHUP, SIGTERM and, 2 seconds later, SIGKILL, and nothing is raised, for
        there is nobody left to tell.

        As in the reference, the connection is left open: its caller closes it, with 1000, or with
        what the exception says. :meth:`serve_and_close` does both.

        Args:
            conn: A transport, or a ``simple_websocket.Server`` as Flask-Sock hands it over. That
                is taken over, and its own ``close`` does nothing any more: so it is served as
                :meth:`serve_and_close` does, and nothing is raised.
            execer: What runs the command; or a function that makes an execer for this connection,
                such as ``lambda: connect(url)``, to pass the command on to another server.
            options: How to serve.

        Raises:
            ProtocolError: What the client sent is refused, or the command could not be started,
                or its exit status was lost. Close with the exception's ``close_code`` and text.
        """
        if not isinstance(conn, Transport):
            with importing:
                from ..transports.simple_websocket import take_over_websocket

            self.serve_and_close(take_over_websocket(conn), execer, options)
            return
        options = options or Options()
        with contextlib.ExitStack() as cleanup:
            if not isinstance(execer, Execer):
                execer = cleanup.enter_context(self._made(execer))
            connection = Connection(conn, self._starter(execer, options), options)
            with self._lock:
                if self._closed:
                    raise server_ending()
                self._connections.add(connection)
                self._metrics.accepted += 1
            try:
                connection.run()
            finally:
                with self._lock:
                    self._connections.discard(connection)
                    connection.add_bytes(self._metrics)

    def serve_and_close(
        self, conn: Transport, execer: Execer | ExecerFactory, options: Options | None = None
    ) -> None:
        """Serve a connection as :meth:`serve` does, and close it with what that says.

        Blocks until then, and for the client's answer to that, 3 seconds at most. What went wrong
        is told the client, and logged, but not raised.
        """
        code, reason = 1000, ""
        try:
            try:
                self.serve(conn, execer, options)
            except ProtocolError as error:
                code, reason = error.close_code, str(error)
            except Exception as error:
                log_bug("internal error while serving a connection", error)
                code, reason = 1011, "internal error"
            # Only now that no exception is being handled, which would be the context of those that
            # closing meets: the library keeps one, and with it all frames, in a cycle.
            conn.close(code, reason)
        finally:
            conn.abort()
            conn.close()

    def _made(self, factory: ExecerFactory) -> Execer:
        try:
            return factory()
        except WsepError as error:
            self._count_failure(error)
            raise ProtocolError(f"start command: {error}") from error

    def _attach_only(self, attach: Attach, options: Options) -> tuple[Process, Command]:
        """Attach to a session that is there; return its command, too."""
        with self._lock:
            session = self._sessions.get(attach.id)
        if session is None:
            raise SessionNotFound(attach.id)
        try:
            return session.attach(attach.rows, attach.cols, options=options), session.command
        except SessionClosed as error:
            raise SessionNotFound(attach.id) from error

    def _starter(self, execer: Execer, options: Options) -> Starter:
        def start(message: Start | Attach) -> tuple[Process, Command]:
            began = time.monotonic()
            try:
                if isinstance(message, Attach):
                    process, command = self._attach_only(message, options)
                else:
                    command = message.command
                    check_additions(command, execer.features)
                    process = start_uncounted(command)
            except Exception as error:
                self._count_failure(error)
                raise
            seconds = time.monotonic() - began
            with self._lock:
                if process.reattached:
                    self._metrics.attach.observe(seconds)
                else:
                    self._metrics.started += 1
                    self._metrics.start.observe(seconds)
            return process, command

        def start_uncounted(command: Command) -> Process:
            if command.tty and command.id:
                return self._attach(command, execer, options)
            if options.read_only:
                raise StartError("read-only: there is nothing to watch but sessions")
            return execer.start(command)

        return start

    def _count_failure(self, error: Exception) -> None:
        reason = failure_reason(error)
        with self._lock:
            self._metrics.failed[reason] = self._metrics.failed.get(reason, 0) + 1


_process_wide = Server()


def serve(
    conn: Transport | simple_websocket.Server,
    execer: Execer | ExecerFactory,
    options: Options | None = None,
) -> None:
    """Serve a connection with one table of sessions for the whole process.

    Deprecated, as in the reference: use :meth:`Server.serve`, whose sessions can be closed.
    """
    warnings.warn("serve() is deprecated: use Server().serve()", DeprecationWarning, stacklevel=2)
    _process_wide.serve(conn, execer, options)
