"""Commands at the other end of a WebSocket: :func:`connect` and :class:`RemoteExecer`."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import signal as signals
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from . import process, streams
from .dropped import Hold
from .errors import (
    ExitError,
    ExitMissing,
    OutputUnread,
    ProtocolError,
    SessionNotFound,
    StartError,
    TransportClosed,
    copy_error,
    start_error,
    suppress_system,
)
from .lazy import importing
from .messages import (
    FEATURE_CLOSE_OUTPUT,
    FEATURE_ENDED,
    FEATURE_SIGNAL,
    FEATURE_TAKEN,
    FEATURES,
    MAX_BODY,
    MAX_MESSAGE,
    MAX_WINDOW,
    NO_SESSION,
    STDIN_HEADER,
    Attach,
    CloseOutput,
    CloseStdin,
    Command,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    Signal,
    Start,
    Stderr,
    StdinTaken,
    Stdout,
    Taken,
    decode_server_message,
    start_error_from_reason,
)
from .process import SIGKILL, Awaited, Execer, Process
from .threads import start_thread
from .transports.base import CLOSE_TIMEOUT, POLICY_VIOLATION, Transport
from .wakeup import READ, WRITE, Wakeup, check_timeout, wait_for

if TYPE_CHECKING:
    import ssl

    import websocket
    from _typeshed import ReadableBuffer

__all__ = ["CONNECT_TIMEOUT", "RemoteExecer", "connect", "environment_token", "session_headers"]

#: Seconds that a connection, and then the start of a command, may take by default.
CONNECT_TIMEOUT = 10.0

# How much input may be on the way to a server that tells how much the command was given.
_STDIN_WINDOW = 1 << 20

# How much of an output may come until a server knows the window that learns of it late: what the
# kernels hold on the way, and more. It is not read before the window has been sent.
_LATE_SLACK = 1 << 24

# Characters of an id that are said in a header: servers and proxies refuse long ones, many from
# 8 KiB on, and to spread sessions much fewer would do.
_MAX_SESSION_HEADER = 1024

# For how long an output must have been full, and never read, before wait() says so.
_UNREAD_AFTER = 5.0


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
    if token == "":
        raise ValueError("the token is empty")
    token = environment_token() if token is None else token
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    def dial(session_id: str) -> Transport:
        with importing:
            from .transports.websocket_client import connect_websocket

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
            ``WSEP_TOKEN=$(cat missing)`` does not ask for no token at all.
    """
    token = os.environ.get("WSEP_TOKEN")
    if token == "":
        raise ValueError("$WSEP_TOKEN is set, but empty: unset it to do without a token")
    return token


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
                from .transports.websocket_client import WebSocketClientTransport

            ws = WebSocketClientTransport(ws)
        self._lock = threading.Lock()  # guards _transport
        self._transport: Transport | None = ws
        # Makes a connection for a command's id; and the id that the one that waits is for.
        self._dial: Callable[[str], Transport] | None = None
        self._session_id = ""
        self._timeout = timeout
        self._output_limit = max(1, min(output_limit, MAX_WINDOW))

    def start(self, command: Command) -> Process:
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
        if len(message(frozenset(FEATURES), self._output_limit).encode()) > MAX_MESSAGE:
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
        window = self._output_limit if _has_credit(transport.peer_features) else None
        try:
            transport.send(message(transport.peer_features, window).encode())
            transport.set_deadline(self._timeout)
            pid = _receive_pid(transport)
            transport.set_deadline(None)
            return RemoteProcess(transport, command, pid, self._output_limit, window is not None)
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

    def close(self) -> None:
        """Close the connection that waits for a command; running commands are left alone."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


def _has_credit(features: frozenset[str]) -> bool:
    return features >= {FEATURE_TAKEN, FEATURE_ENDED}


def _receive_pid(transport: Transport) -> Pid:
    while True:
        message = decode_server_message(transport.receive())
        if isinstance(message, Pid):
            return message
        if message is not None:
            raise ProtocolError(f"{type(message).__name__} came before the pid")


class RemoteInput(streams.RawFile):
    """The raw, writable end of a remote command's input.

    It does not refer to its process, so that no cycle keeps a connection's descriptors until the
    garbage collector comes by.

    Args:
        credit: The server tells how much of it the command was given; see :class:`.StdinTaken`.
    """

    mode = "wb"
    _fd = -1  # once somebody has asked for it, all writing goes through it
    _ended = ""  # why nothing more is wanted, once nothing is

    def __init__(self, transport: Transport, credit: bool) -> None:
        self._transport = transport
        self._credit = credit
        # Guards _ended, and how many bytes were sent and have been given to the command.
        self._changed = threading.Condition()
        self._sent = self._taken = 0
        self._wakeup: Wakeup | None = None  # of the thread that fileno() started

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return a descriptor, for ``select`` or as another program's standard output.

        The first call makes a pipe of the kernel's, and a thread that sends what comes out of it;
        without a call, there is neither. The thread ends when every copy of the descriptor is
        closed, this file's included, which is the end of the command's input; or when the command
        ends: then writing to the pipe fails with ``EPIPE``. After
        ``os.set_blocking(file.fileno(), False)``, writing here does not block either.
        """
        self._check_open()
        if self._fd < 0:
            descriptor, writer = os.pipe()
            reader = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - the thread's
            wakeup = Wakeup()

            def died(error: Exception) -> None:
                self.end(f"internal error: {type(error).__name__}")
                reader.close()

            with self._changed:
                self._wakeup = wakeup
                if self._ended:
                    wakeup.set()
            try:
                # A daemon, as the thread that receives is.
                start_thread(
                    self._copy_from_descriptor, reader, wakeup, name="wsep-fileno", died=died
                )
            except RuntimeError:
                reader.close()
                os.close(writer)
                raise
            self._fd = writer
        return self._fd

    def _copy_from_descriptor(self, file: io.FileIO, wakeup: Wakeup) -> None:
        try:
            while wait_for(file.fileno(), READ, wakeup):
                data = os.read(file.fileno(), MAX_BODY)
                if not data:
                    self.send_eof()
                    return
                self._send(memoryview(data))
        except BrokenPipeError:
            pass  # those who write get it, too
        finally:
            file.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def write(self, data: ReadableBuffer, /) -> int | None:
        self._check_open()
        view = memoryview(data).cast("B")
        if self._fd >= 0:
            return streams.write_to(self._fd, view)
        for start in range(0, len(view), MAX_BODY):
            self._send(view[start : start + MAX_BODY])
        return len(view)

    def ready(self, timeout: float | None) -> bool:
        """Block until ``write`` would not, for at most ``timeout`` seconds; return if so."""
        return self._fd < 0 or wait_for(self._fd, WRITE, None, timeout)

    def _send(self, piece: memoryview) -> None:
        with self._changed:
            while self._credit and self._sent - self._taken >= _STDIN_WINDOW and not self._ended:
                streams.wait_a_while(self._changed)
            if self._ended:
                raise BrokenPipeError(errno.EPIPE, self._ended)
            self._sent += len(piece)
        try:
            self._transport.send(STDIN_HEADER, piece)
        except TransportClosed as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from error

    def taken(self, position: int) -> None:
        """The command has been given the input up to there."""
        with self._changed:
            self._taken = max(self._taken, min(position, self._sent))
            self._changed.notify_all()

    def is_broken(self) -> bool:
        """Whether the command is known to have closed its input, or to have ended."""
        return bool(self._ended)

    def end(self, reason: str) -> None:
        """Nothing is wanted any more: wake who writes, with ``BrokenPipeError`` and the reason."""
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()
            if self._wakeup is not None:
                self._wakeup.set()

    def leave_to_parent(self) -> None:
        """End this, in a process that was forked: the lock may be held by a thread left behind."""
        self._changed = threading.Condition()
        self.end("the command is that of the parent process")

    def send_eof(self) -> None:
        """Tell the command that its input has ended; a terminal sends its character for that."""
        if not self._ended:
            with contextlib.suppress(TransportClosed):
                self._transport.send(CloseStdin().encode())

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._fd < 0:
                self.send_eof()
            else:
                # Another program may have a copy of it: the last to close it ends the input.
                os.close(self._fd)
        finally:
            super().close()

    def _drop(self) -> None:
        if self._fd >= 0 or self._ended:  # then there is nothing to send
            with suppress_system():
                self.close()
        else:
            super()._drop()


def _output_pipe(
    transport: Transport, name: str, limit: int, slack: int, features: frozenset[str]
) -> streams.BoundedPipe:
    """Return the pipe of an output, which tells the server what is read, and its closing.

    It refers to the transport alone: no cycle may keep the connection's descriptors.
    """
    taken = closed = None
    credit = _has_credit(features)
    if credit:

        def taken(position: int) -> None:
            with contextlib.suppress(TransportClosed):  # reading goes on to what had come
                transport.send(Taken(**{name: position}).encode())

    if credit or FEATURE_CLOSE_OUTPUT in features:
        # Wakes the receiver, which tells the server.
        closed = functools.partial(transport.set_deadline, 0)
    return streams.BoundedPipe(limit, taken, closed, slack)


class RemoteProcess(Awaited):
    """A command at the other end of a WebSocket. Made by :class:`RemoteExecer`."""

    def __init__(
        self,
        transport: Transport,
        command: Command,
        pid: Pid,
        output_limit: int,
        told_window: bool = False,
    ) -> None:
        self.pid = pid.pid
        self.reattached = pid.reattached
        # Not what the handshake names besides, when it was not known what would run the command.
        self.features = frozenset(pid.features)
        self._transport = transport
        self._tty = command.tty
        self._session = command.tty and bool(command.id)
        credit = _has_credit(self.features)
        self._input = RemoteInput(transport, credit)
        slack = _LATE_SLACK if credit and not told_window else 0
        self._out, self._err = (
            _output_pipe(transport, name, output_limit, slack, self.features)
            for name in ("stdout", "stderr")
        )
        self.stdout = streams.buffered_reader(streams.PipeReader(self._out))
        self.stderr = streams.buffered_reader(streams.PipeReader(self._err))
        if command.discard and not self._tty:
            # Where the command does not have the null device, it is dropped here.
            for name, pipe in (("stdout", self._out), ("stderr", self._err)):
                if name in command.discard:
                    pipe.close_reader(tell=False)
        if command.stdin or command.tty:
            self.stdin = streams.buffered_writer(self._input)
        else:
            self.stdin = streams.no_writer()
        # Set, after _exit or _missing, when the exit status is known or never will be.
        self._ended = threading.Event()
        self._exit: ExitCode | None = None
        self._missing: ExitMissing | None = None
        # Set when nothing more will come.
        self._done = threading.Event()
        self._told_closed: set[str] = set()  # by the receiver, of the server
        if credit and not told_window:
            # The handshake did not name it. What comes until the server has this may be more than
            # the window.
            with contextlib.suppress(TransportClosed):  # as the receiver is about to see
                transport.send(Taken(window=output_limit).encode())
        self._hold = Hold()  # for its files, until nothing more will come
        # Receives until the exit status or the end of the connection, which close() brings about.
        # A daemon, so that a script that forgot a process can end.
        try:
            self._receiver = start_thread(
                self._receive, name=f"wsep-receive-{self.pid}", died=self._receiver_died
            )
        except RuntimeError:
            self._hold.release()
            raise
        _processes.add(self)

    def _receive(self) -> None:
        try:
            self._receive_all()
        finally:
            self._hold.release()

    def _receive_all(self) -> None:
        code, reason = 1000, "normal closure"
        lost = None
        try:
            self._receive_until_exit()
        except TransportClosed as closed:
            lost = str(closed)
        except ProtocolError as error:
            code, reason = error.close_code, str(error)
            lost = f"the server sent nonsense: {error}"
        self._tell_end(lost)
        self._transport.close(code, reason)

    def _receiver_died(self, error: Exception) -> None:
        self._hold.release()
        self._tell_end(f"internal error: {type(error).__name__}")
        self._transport.abort()
        self._transport.close()

    def _tell_end(self, lost: str | None) -> None:
        """Nothing more will come.

        Args:
            lost: Why not, if it was before its time.
        """
        error = self._missing
        if lost is not None and self._exit is None:
            error = self._missing = self._missing or ExitMissing(f"no exit status: {lost}")
        elif lost is not None:
            error = ExitMissing(f"the command has ended, but not all of its output came: {lost}")
        # Before wait() returns: from then on, writing fails.
        self._input.end("the command has ended")
        self._ended.set()
        self._done.set()
        self._out.feed_eof(error)
        self._err.feed_eof(error)

    def _receive_until_exit(self) -> None:
        while True:
            try:
                message = decode_server_message(self._transport.receive())
            except TimeoutError:
                # An output was closed. First the deadline goes: of one that is closed from now on,
                # there is another.
                self._transport.set_deadline(None)
                self._tell_closed()
                continue
            if isinstance(message, Stdout):
                self._out.feed(message.body)
            elif isinstance(message, Stderr):
                self._err.feed(message.body)
            elif isinstance(message, StdinTaken):
                if message.closed:
                    self._input.end("the command has closed its input")
                self._input.taken(message.stdin)
            elif isinstance(message, Ended):
                self._set_status(message.status)
                self._ended.set()
            elif isinstance(message, Eof):
                (self._out if message.stream == "stdout" else self._err).feed_eof()
            elif isinstance(message, ExitCode):
                self._set_status(message)
                return

    def _set_status(self, status: ExitCode) -> None:
        if self._exit not in (None, status):
            self._missing = ExitMissing("no exit status: the server has told two")
            raise ProtocolError("exit_code message: another status than the one of ended")
        if not status.exit_code and status.error:
            # The reference says so of a server further on that it has lost.
            self._missing = ExitMissing(f"no exit status: {status.error}")
        else:
            self._exit = status

    def _tell_closed(self) -> None:
        for name, pipe in (("stdout", self._out), ("stderr", self._err)):
            if pipe.reader_gone and name not in self._told_closed:
                self._told_closed.add(name)
                if FEATURE_CLOSE_OUTPUT in self.features:
                    self._transport.send(CloseOutput(name).encode())
                else:
                    pipe.tell_taken()  # so that it is sent on, to be dropped

    def resize(self, rows: int, cols: int) -> None:
        message = Resize(rows, cols).encode()
        if self._tty and not self._ended.is_set():
            with contextlib.suppress(TransportClosed):
                self._transport.send(message)

    def send_signal(self, signal: int) -> None:
        message = Signal(signal).encode()
        if FEATURE_SIGNAL not in self.features:
            if signal == SIGKILL:
                self.kill()
                return
            raise io.UnsupportedOperation("this server cannot send signals to its commands")
        if not self._ended.is_set():
            with contextlib.suppress(TransportClosed):
                self._transport.send(message)

    def _send_last(self, signal: int) -> None:
        """Send a signal that is to end the command.

        Where the other end takes nothing, another thread may be stuck in sending. After some
        seconds the connection is cut, which ends the command as well.
        """
        if not self._ended.is_set():
            with contextlib.suppress(TransportClosed):
                self._transport.send(Signal(signal).encode(), timeout=CLOSE_TIMEOUT)

    def hang_up(self) -> None:
        if FEATURE_SIGNAL in self.features:
            self._send_last(getattr(signals, "SIGHUP", 1))
        self.close()

    def ended(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended.is_set():
            rest = None if deadline is None else deadline - time.monotonic()
            if rest is not None and rest <= 0:
                return False
            self._ended.wait(1.0 if rest is None else min(rest, 1.0))
            for name, pipe in (("stdout", self._out), ("stderr", self._err)):
                unread = pipe.unread_for()
                if unread is not None and unread > _UNREAD_AFTER and not self._ended.is_set():
                    raise OutputUnread(name, pipe.limit)
        return True

    def _check_status(self) -> None:
        if self._missing is not None:
            raise copy_error(self._missing)
        assert self._exit is not None
        if self._exit.exit_code or self._exit.signal is not None:
            raise ExitError(self._exit.exit_code, self._exit.error, self._exit.signal)

    def close(self) -> None:
        # What comes from now on is dropped: from a server without credit, an output that nobody
        # reads would hold up the status.
        self._out.feed_eof()
        self._err.feed_eof()
        if not self._ended.is_set() and FEATURE_SIGNAL in self.features and not self._session:
            if self._tty:
                self._send_last(getattr(signals, "SIGHUP", 1))
            self._send_last(signals.SIGTERM)
            if not self._ended.wait(process.CLOSE_GRACE):
                self.kill()
                self._ended.wait(1.0)
        if not self._done.is_set():
            self._transport.close(1000, "closed")
        if threading.current_thread() is not self._receiver:
            self._receiver.join()
        streams.close_quietly(self.stdin)

    def kill(self) -> None:
        if FEATURE_SIGNAL in self.features:
            self._send_last(SIGKILL)
        else:
            self._transport.abort()
            # Or else output that nobody reads would hide that.
            self._out.take_the_rest()
            self._err.take_the_rest()

    def _leave_to_parent(self) -> None:
        """Have no command any more, in a process that was forked: its thread is not there."""
        if self._done.is_set():
            return
        self._missing = ExitMissing("no exit status: the command is that of the parent process")
        self._input.leave_to_parent()
        for pipe in (self._out, self._err):
            pipe.leave_to_parent(self._missing)
        self._ended, self._done = threading.Event(), threading.Event()
        self._ended.set()
        self._done.set()


_processes: weakref.WeakSet[RemoteProcess] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for remote in list(_processes):
        remote._leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_all_to_parent)
