"""A threaded HTTP server for the WSGI application: :class:`Listener`.

Here are the sockets: how many there may be, TLS, and how they end. What is said on one is in
:mod:`.http_request`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from ..errors import SHORTAGE
from ..log import Warnings, log, log_bug
from ..streams.wakeup import READ, Wakeup, a_while, wait_for
from ..threads import start_thread
from ..transports.stream_socket import start_tls
from . import http_request
from .access import Refusal, is_loopback
from .http_request import Response, linger, read_head, refusal
from .wsgi import UPGRADED

if TYPE_CHECKING:
    import ssl

    from _typeshed.wsgi import WSGIApplication

__all__ = ["UNIX", "Listener"]

#: What a host begins with that is the path of a Unix socket.
UNIX = "unix:"

# Connections that wait in the kernel to be accepted. One that finds no room tries again a second
# later, and all who were cut off by the network come at once.
_BACKLOG = 1024

# What one connection too many is told.
_TOO_MANY = http_request.refusal_response(refusal(503, "too many connections"))

# Connections that were refused and linger; a new one pushes the oldest out.
_MAX_REFUSED = 64

# Seconds until accept() is tried again when it failed. The descriptors that another part of this
# process, or another process, gives back do not wake anybody here.
_PAUSE = 1.0


class _Connection:
    """A TCP connection that has a thread.

    Attributes:
        sock: Closed by the thread.
        peer: Who it is counted for; "" for nobody.
        in_head: The request's head has not come to its end.
        admitted: It counts as a WebSocket.
        thread: Once there is one, and it is to run.
    """

    def __init__(self, sock: socket.socket, address: Any) -> None:
        self.sock = sock
        self.address = address
        self.peer = _peer(address)
        self.in_head = True
        self.admitted = False
        self.thread: threading.Thread | None = None

    def cut(self) -> None:
        """Wake the thread: its socket comes to an end."""
        with contextlib.suppress(OSError):
            # The plain socket's: SSLSocket.shutdown takes TLS off under a thread's hands.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class Listener:
    """Listens on a TCP port and runs a WSGI application, each connection in its own thread.

    The socket listens when the constructor returns. :meth:`serve_forever` accepts connections
    until :meth:`shutdown`, :meth:`drain` or :meth:`server_close`; the last also ends those that
    are open. Used as a context manager, it does that by itself.

    A connection has one request, and is closed after the response unless it becomes a WebSocket:
    for that, the application finds the socket in its environment as ``werkzeug.socket``, and says
    so with :data:`.UPGRADED`. The content of other requests is not read, and ``wsgi.input`` is
    empty.

    What is not allowed is answered with a status and a line of text, and logged, at most once a
    second for each reason: 400, 414, 431, 501 or 505 for a head that is malformed or too long,
    408 for one that is not there in time, 503 for a connection too many. A client that is to
    speak TLS, and has not done so yet, is told nothing, unless it speaks HTTP: 400.

    Args:
        app: The application.
        host: Address or name to listen on; one with a colon in it is IPv6. Or ``unix:PATH``, a Unix
            socket: who may write to the file may connect. It is removed at the end, and one that a
            server has left is replaced.
        port: Port to listen on; 0 picks a free one.
        sock: Listen on this instead: a TCP or Unix socket that listens already (see
            :func:`.systemd.listen_sockets`). Owned, and made non-blocking.
        ssl_context: Speak TLS with this.
        max_connections: WebSockets that are served at once. As many connections more may be open
            that have not said what they want, or want no WebSocket: so those who never say it
            take no place from those who do, and health is told when no WebSocket is to be had.
        max_connections_per_peer: How many of either kind may come from one address, or from one
            /64 network of IPv6. By default half of ``max_connections``, and any number from this
            machine, where a proxy may be. Behind one that runs elsewhere, all clients have its
            address: then it should be as many as ``max_connections``.
        head_timeout: Seconds for a client to set up TLS and send its request's head.
        max_head: Bytes of a head, from the request line to the empty line.
        max_headers: Header lines of a head.

    Attributes:
        server_address: What the socket is bound to, as :meth:`socket.socket.getsockname` says it.
        server_port: The port; 0 of a Unix socket.

    Raises:
        OSError: The address cannot be listened on.
        ValueError: ``sock`` is no stream socket that listens.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = 512,
        max_connections_per_peer: int | None = None,
        head_timeout: float = 10.0,
        max_head: int = 65_536,
        max_headers: int = 100,
    ) -> None:
        self._app = app
        self._ssl_context = ssl_context
        self._max_connections = max_connections
        self._max_per_peer = max_connections_per_peer
        self._head_timeout = head_timeout
        self._max_head = max_head
        self._max_headers = max_headers
        self._warnings = Warnings()
        self._wakeup = Wakeup()  # ends serve_forever
        self._freed = Wakeup()  # a connection has ended, and may have left a descriptor
        # Guards all below, and the sockets of the connections while they are replaced and closed.
        self._changed = threading.Condition()
        self._connections: set[_Connection] = set()
        # How many of them there are, of a peer and of all (None), admitted and not.
        self._counts: Counter[tuple[str | None, bool]] = Counter()
        self._accepting = False  # serve_forever runs
        self._draining = False
        self._cut = False  # connections were cut rather than ended by themselves
        # Atomic; set before _wakeup.
        self._stopping = False
        # When to close them, and the connections that were refused. The accepting thread's own.
        self._refused: deque[tuple[float, socket.socket]] = deque()
        # Of a socket file, what to remove: its path, and which it is.
        self._file: tuple[str, tuple[int, int]] | None = None
        if sock is not None:
            self._socket = _checked(sock)
        elif host.startswith(UNIX):
            path = os.path.abspath(host.removeprefix(UNIX))
            self._socket = _unix_socket(path)
            self._file = path, _identity(path)
        else:
            self._socket = _listening_socket(host, port)
        self._socket.setblocking(False)  # what poll() has seen may be gone when it is accepted
        self.server_address: Any = self._socket.getsockname()
        tcp = self._socket.family in (socket.AF_INET, socket.AF_INET6)
        self.server_port: int = self.server_address[1] if tcp else 0

    @property
    def url(self) -> str:
        """The URL that a client on this machine connects to."""
        if not isinstance(self.server_address, tuple):
            # unix(7): an abstract name begins with a NUL, and is bytes in Python. No URL leads
            # there.
            name = os.fsdecode(self.server_address)
            return f"unix:@{name[1:]}" if name.startswith("\0") else f"ws+unix:{name}"
        scheme = "wss" if self._ssl_context else "ws"
        return f"{scheme}://{_host_and_port(self.server_address)}"

    @property
    def connections(self) -> int:
        """How many connections are being served."""
        with self._changed:
            return len(self._connections)

    def serve_forever(self) -> None:
        """Accept connections until :meth:`shutdown`, :meth:`drain` or :meth:`server_close`.

        Should accepting fail, as it does when the process has no descriptors left, it is logged,
        and tried again when a connection has ended, and every second.
        """
        with self._changed:
            self._accepting = True
        try:
            self._accept_until_stopped()
        finally:
            while self._refused:
                _drop(self._refused.popleft()[1])
            with self._changed:
                self._accepting = False
                self._changed.notify_all()

    def shutdown(self) -> None:
        """Let :meth:`serve_forever` return. Does not block; may be called from any thread."""
        self._stopping = True
        self._wakeup.set()

    def drain(self, timeout: float) -> bool:
        """Stop listening, and wait until the connections that are open have ended by themselves.

        Those that have not sent all of their request's head are cut. New ones are refused by the
        kernel; but whoever else has the socket, as systemd does, goes on to listen.

        May be called from any thread but the one in :meth:`serve_forever`. The wait ends early
        when :meth:`server_close` has cut them all.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether all have ended by themselves.
        """
        self._stop_listening()
        with self._changed:
            self._draining = True
            if not self._connections:
                return True
            for connection in self._connections:
                if connection.in_head:
                    connection.cut()
            deadline = time.monotonic() + timeout
            while self._connections and (rest := deadline - time.monotonic()) > 0:
                self._changed.wait(a_while(rest))
            return not self._connections and not self._cut

    def server_close(self) -> None:
        """Stop listening, cut the connections that are open, and wait for their threads.

        Blocks until the commands that were running have ended: some 2 seconds for one that
        ignores SIGTERM. May be called from any thread, and again.
        """
        self._stop_listening()
        with self._changed:
            self._draining = True
            connections = list(self._connections)
            for connection in connections:
                self._cut = True
                connection.cut()
            self._changed.wait_for(lambda: not self._connections)
        for connection in connections:
            # It has said that it is over, and may not have ended yet.
            if connection.thread is not None:
                connection.thread.join()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.server_close()

    def _stop_listening(self) -> None:
        self.shutdown()
        with self._changed:
            # Not under the hands of the thread that accepts, which has been told to end.
            self._changed.wait_for(lambda: not self._accepting)
            self._socket.close()
            file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                if _identity(file[0]) == file[1]:  # and not that of who has taken the name over
                    os.unlink(file[0])

    # The thread in serve_forever. Nothing here may block: everybody would wait.

    def _accept_until_stopped(self) -> None:
        failing = False
        while not self._stopping:
            if failing:
                self._freed.clear()
            elif not wait_for(self._socket.fileno(), READ, self._wakeup, self._close_refused()):
                continue
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, ConnectionError):
                failing = False  # whoever it was is gone, or another process has taken it
            except OSError as error:
                # The connection stays in the kernel's queue, and the socket readable: to ask
                # again at once, and again, would take all of a processor.
                if not failing:
                    failing = True  # ask once more, now that _freed cannot be missed
                    self._log_failure("accepting connections", error)
                    while self._refused:
                        _drop(self._refused.popleft()[1])
                    continue
                wait_for(self._freed.fileno(), READ, self._wakeup, _PAUSE)
            else:
                failing = False
                self._take(sock, address)

    def _take(self, sock: socket.socket, address: Any) -> None:
        connection = _Connection(sock, address)
        try:
            with self._changed:
                full = self._full(connection)
                if not full:
                    self._connections.add(connection)
                    self._count(connection, 1)
            if full:
                self._refuse(connection, full)
                return
            # Ends with the connection, which server_close cuts and waits for. No daemon: it runs
            # commands, whose end it has to see to.
            connection.thread = start_thread(
                self._run,
                connection,
                name="wsep-connection",
                died=lambda _: self._forget(connection, close=True),
                daemon=False,
            )
        except (RuntimeError, MemoryError) as error:  # from Thread.start
            self._forget(connection)
            self._refuse(connection, str(error))
        except BaseException:  # Ctrl-C
            self._forget(connection)
            sock.close()
            raise

    # These require holding the lock.

    def _full(self, connection: _Connection, admit: bool = False) -> str:
        """Return why one more cannot be taken, or cannot be admitted, or ""."""
        what = "WebSockets" if admit else "requests"
        peer, limit = connection.peer, self._max_per_peer
        if limit is None and not is_loopback(peer):
            limit = max(1, self._max_connections // 2)
        if peer and limit is not None and self._counts[peer, admit] >= limit:
            return f"{limit} {what} are open from there"
        if self._counts[None, admit] >= self._max_connections:
            return f"{self._max_connections} {what} are open"
        return ""

    def _set_admitted(self, connection: _Connection, admitted: bool) -> None:
        self._count(connection, -1)
        connection.admitted = admitted
        self._count(connection, 1)

    def _count(self, connection: _Connection, change: int) -> None:
        for of in (None, connection.peer):
            key = of, connection.admitted
            self._counts[key] += change
            if not self._counts[key]:
                del self._counts[key]

    def _refuse(self, connection: _Connection, reason: str) -> None:
        sock = connection.sock
        self._log_too_many(connection, reason)
        if self._ssl_context is not None:
            sock.close()
            return
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.send(_TOO_MANY)
            sock.shutdown(socket.SHUT_WR)
        # Were it closed now, the kernel would answer the request that is on its way with a reset,
        # for which many a client forgets the response it has got (RFC 9112, section 9.6). So it is
        # kept for a while, but not read: that would take a thread, or all of this one's time.
        if len(self._refused) == _MAX_REFUSED:
            _drop(self._refused.popleft()[1])
        self._refused.append((time.monotonic() + http_request.LINGER_TIMEOUT, sock))

    def _close_refused(self) -> float | None:
        """Close those whose time has come; return the seconds until that of the next."""
        while self._refused:
            rest = self._refused[0][0] - time.monotonic()
            if rest > 0:
                return rest
            _drop(self._refused.popleft()[1])
        return None

    # The connections' threads.

    def _run(self, connection: _Connection) -> None:
        with self._changed:
            if connection not in self._connections:
                return  # what started this thread was interrupted
        try:
            self._serve(connection)
        except OSError as error:
            if error.errno in SHORTAGE:
                self._log_failure("serving a connection", error)
            else:  # a client that breaks off is daily life
                log.debug("connection from %s ended", _name(connection.address), exc_info=True)
        except Exception as error:
            log_bug(f"internal error in a connection from {_name(connection.address)}", error)
        finally:
            self._forget(connection, close=True)

    def _forget(self, connection: _Connection, close: bool = False) -> None:
        with self._changed:
            if close:
                connection.sock.close()
            if connection in self._connections:
                self._connections.remove(connection)
                self._count(connection, -1)
            self._changed.notify_all()
        self._freed.set()

    def _serve(self, connection: _Connection) -> None:
        deadline = time.monotonic() + self._head_timeout
        with contextlib.suppress(OSError):  # a Unix socket has no such option
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._ssl_context is not None and not self._start_tls(connection, deadline):
            return
        sock = connection.sock
        try:
            request = read_head(sock, deadline, self._max_head, self._max_headers)
        except Refusal as error:
            self._log_refusal(connection, error)
            http_request.send(sock, http_request.refusal_response(error))
            linger(sock)
            return
        environ = http_request.request_variables(request) | self._variables(connection)
        with self._changed:
            if self._draining:
                return
            connection.in_head = False
            upgrade = "HTTP_UPGRADE" in environ
            full = self._full(connection, admit=True) if upgrade else ""
            if upgrade and not full:
                self._set_admitted(connection, True)
        if full:
            self._log_too_many(connection, full)
            http_request.send(sock, _TOO_MANY)
            linger(sock)
            return
        sock.settimeout(None)
        response = Response(sock, environ)
        response.run(self._app)
        if response.sent:
            with self._changed:  # lest one that was refused take a place meanwhile
                self._set_admitted(connection, False)
            linger(sock)

    def _start_tls(self, connection: _Connection, deadline: float) -> bool:
        assert self._ssl_context is not None
        with self._changed:  # it takes the descriptor out of one socket and puts it into another
            connection.sock = tls = start_tls(connection.sock, self._ssl_context, server_side=True)
        try:
            tls.settimeout(http_request.seconds_until(deadline))
            tls.do_handshake()
        except TimeoutError:
            self._log_refusal(connection, refusal(408, "TLS took too long"))
            return False
        except OSError as error:
            if getattr(error, "reason", None) != "HTTP_REQUEST":
                raise
            plain = refusal(400, "TLS alone on this port: wss:// instead of ws://")
            self._log_refusal(connection, plain)
            # Below TLS, of which the client has not heard.
            tls.settimeout(http_request.seconds_until(deadline))
            socket.socket.sendall(tls, http_request.refusal_response(plain))
            linger(tls)
            return False
        return True

    def _variables(self, connection: _Connection) -> dict[str, Any]:
        """Return what PEP 3333 has in the environment about a connection."""
        variables = {
            "SERVER_NAME": "localhost",
            "SERVER_PORT": str(self.server_port),
            # Where simple-websocket looks for the socket.
            "werkzeug.socket": connection.sock,
            UPGRADED: False,
        }
        if isinstance(self.server_address, tuple):
            variables["SERVER_NAME"] = str(self.server_address[0])
            variables["REMOTE_ADDR"] = str(connection.address[0])
            variables["REMOTE_PORT"] = str(connection.address[1])
        if self._ssl_context is not None:
            variables["HTTPS"] = "on"  # for wsgiref, whence wsgi.url_scheme
        return variables

    # What is logged.

    def _log_refusal(self, connection: _Connection, error: Refusal) -> None:
        status, reason = error.status[:3], error.text.strip()
        self._warnings.log("refusal", peer=_name(connection.address), status=status, reason=reason)

    def _log_too_many(self, connection: _Connection, reason: str) -> None:
        self._warnings.log("refusal", peer=_name(connection.address), status="503", reason=reason)

    def _log_failure(self, what: str, error: OSError) -> None:
        self._warnings.log("failure", reason=f"{what}: {error.strerror}")


def _listening_socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # A port whose last connections are in TIME_WAIT is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_socket(path: str) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system's Python has no Unix sockets")
    sock = socket.socket(socket.AF_UNIX)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_left(path: str) -> bool:
    """Whether it is a socket that nobody listens on any more, as after a crash."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        # No socket refuses, too, which must not be removed.
        refused = probe.connect_ex(path) == errno.ECONNREFUSED
        return refused and stat.S_ISSOCK(os.stat(path).st_mode)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _checked(sock: socket.socket) -> socket.socket:
    families = socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", None)
    if sock.family not in families or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"neither a TCP nor a Unix stream socket: {sock!r}")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"a socket that does not listen: {sock!r}")
    return sock


def _host_and_port(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _peer(address: Any) -> str:
    """Return what a peer's connections are counted by; "" on a Unix socket."""
    if not isinstance(address, tuple):
        return ""
    host: str = address[0].partition("%")[0]
    if ":" not in host:
        return host
    ip = ipaddress.IPv6Address(host)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    if ip.is_loopback:
        return host
    # Who has one address has the network (RFC 6177, RFC 7421).
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


def _name(address: Any) -> str:
    """Name a peer for the log; one on a Unix socket has no name."""
    return _host_and_port(address) if isinstance(address, tuple) else ""


def _drop(sock: socket.socket) -> None:
    """Close a connection that was refused; what its client has sent is taken first."""
    with contextlib.suppress(OSError):
        sock.recv(http_request.RECEIVE_SIZE)
    sock.close()
