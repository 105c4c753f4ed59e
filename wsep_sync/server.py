"""One connection's message loop: :class:`Server`."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .errors import (
    ExitError,
    ProtocolError,
    SessionClosed,
    StartError,
    TransportClosed,
    WsepError,
    copy_error,
)
from .messages import (
    FEATURES,
    MAX_MESSAGE,
    STDERR_HEADER,
    STDOUT_HEADER,
    CloseStdin,
    Command,
    ExitCode,
    Pid,
    Resize,
    Signal,
    Start,
    Stdin,
    StdinMark,
    decode_client_message,
    start_failure,
)
from .process import Execer, Process
from .session import Options, Session, SessionInfo, State
from .streams import close_quietly
from .transports.base import CLOSE_TIMEOUT, Buffer, Transport

if TYPE_CHECKING:
    import simple_websocket

__all__ = ["Options", "Server", "serve"]

#: What a server runs commands with: an execer, or something that makes one for each connection,
#: which is closed when the connection ends.
ExecerFactory: TypeAlias = "Callable[[], Execer]"

# How many seconds a client has to close after it was told the exit status.
_CLOSE_WAIT = 5.0

# How many seconds what a client had typed when it left its session may take to be written.
_LAST_INPUT_WAIT = 0.5

# How many messages are taken before the pid is sent: a client that sends without end must not hold
# it up.
_MOST_EARLY = 16

# How much input may wait for a command that does not read it. Clients that use marks never send
# more than this without an answer.
_STDIN_LIMIT = 1 << 20


class Server:
    """Serves commands over connections, each in a thread of its caller's. Thread-safe.

    A command on a terminal that has an id is a session, which the server keeps: whoever starts a
    command with the same id is attached to it, whatever command it names. All others are plain
    processes, which end with their connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the table, and whether it is closed
        self._sessions: dict[str, Session] = {}
        self._closed = False

    def sessions(self) -> list[SessionInfo]:
        """Return what sessions there are at this moment, in the order in which they began."""
        return [session.info() for session in self._living()]

    def session_count(self) -> int:
        """Return how many sessions there are at this moment."""
        return len(self._living())

    def close_session(self, id: str, reason: str = "closed") -> bool:
        """End a session; as :meth:`.Session.close` in all else. False if there is none."""
        with self._lock:
            session = self._sessions.get(id)
        if session is None or session.state is State.DONE:
            return False
        session.close(reason)
        return True

    def close(self) -> None:
        """End all sessions and take no new ones; connections are for their threads' owner to end.

        Blocks until the commands have ended, some 2 seconds when one ignores SIGHUP and SIGTERM.
        Calling it again is harmless.
        """
        with self._lock:
            self._closed = True
        # All at once, so that it takes no longer than the slowest; each thread ends with its
        # session.
        closing = [
            threading.Thread(target=session.close, args=("the server ends",))
            for session in self._living()
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        self._living()

    def _living(self) -> list[Session]:
        """Return the sessions that have not ended, and forget those that have."""
        with self._lock:
            self._sessions = {
                id: session
                for id, session in self._sessions.items()
                if session.state is not State.DONE
            }
            return list(self._sessions.values())

    def _attach(self, command: Command, execer: Execer, options: Options) -> Process:
        """Attach to the session of a command's id, which is begun if there is none."""
        while True:
            self._living()
            with self._lock:
                if self._closed:
                    raise ProtocolError("start command: the server is ending")
                session = self._sessions.get(command.id)
                if session is None:
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

        Blocks until the command has ended and the client has closed (5 seconds later at most), or
        the client has gone: then the command's process group is ended with SIGHUP, SIGTERM and, 2
        seconds later, SIGKILL, and nothing is raised, for there is nobody left to tell.

        As in the reference, the connection is left open: its caller closes it, with 1000, or with
        what the exception says.

        Args:
            conn: A transport, or a ``simple_websocket.Server`` as Flask-Sock hands it over, which
                is taken over and not to be used any more.
            execer: What runs the command; or a function that makes an execer for this connection,
                such as ``lambda: connect(url)``, to pass the command on to another server.
            options: How to serve.

        Raises:
            ProtocolError: What the client sent is refused, or the command could not be started,
                or its exit status was lost. Close with the exception's ``close_code`` and text.
        """
        if not isinstance(conn, Transport):
            from .transports.simple_websocket import take_over_websocket

            conn = take_over_websocket(conn)
        with contextlib.ExitStack() as cleanup:
            if not isinstance(execer, Execer):
                execer = cleanup.enter_context(_made(execer))
            _Connection(conn, self._starter(execer, options or Options())).run()

    def _starter(self, execer: Execer, options: Options) -> Callable[[Command], Process]:
        def start(command: Command) -> Process:
            if command.tty and command.id:
                return self._attach(command, execer, options)
            return execer.start(command)

        return start


def _made(factory: ExecerFactory) -> Execer:
    try:
        return factory()
    except WsepError as error:
        raise ProtocolError(f"start command: {error}") from error


class _Connection:
    """One connection and its command, from the first message to the last.

    The thread that serves receives and dispatches. Each output has a thread that sends it; the
    last of them to see its end waits for the command and sends the exit status. Input has a
    thread once there is some, so that a command that does not read cannot hide what else the
    client says. All of them end before :meth:`run` returns.
    """

    def __init__(self, transport: Transport, start: Callable[[Command], Process]) -> None:
        self._transport = transport
        self._start_process = start
        self._process: Process | None = None
        self._command: Command | None = None
        self._stdin: _StdinQueue | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards _outputs
        self._outputs = 0  # that have not ended yet
        self._finished = False  # the command has ended, and nothing is left to be ended
        self._ending = False  # how the command ends does not matter any more
        self._failure: ProtocolError | None = None  # of the thread that waits for the command

    def run(self) -> None:
        try:
            while True:
                self._dispatch(self._transport.receive())
        except TransportClosed:
            pass  # the client has gone, or is content
        except TimeoutError:
            pass  # it has been told the exit status, and had its time to close
        finally:
            self._end()
        if self._failure is not None:
            raise copy_error(self._failure)

    def _dispatch(self, data: Buffer, early: bool = False) -> None:
        message = decode_client_message(data)
        if message is None:
            return
        process = self._process
        if isinstance(message, Start):
            if process is not None:
                raise ProtocolError("command already started")
            self._start(message.command)
        elif process is None:
            raise ProtocolError(f"{_type(message)} sent before command started")
        elif isinstance(message, Stdin):
            self._write_stdin(message.body)
        elif isinstance(message, CloseStdin):
            self._queue_input(None)
        elif isinstance(message, StdinMark):
            self._queue_input(message)
        elif isinstance(message, Resize):
            process.resize(message.rows, message.cols)
        elif isinstance(message, Signal):
            if early:
                return
            self._signal(process, message.signal)

    def _start(self, command: Command) -> None:
        try:
            process = self._start_process(command)
        except StartError as error:
            raise ProtocolError(start_failure(error, command)) from error
        except WsepError as error:  # of a server further on
            raise ProtocolError(f"start command: {error}") from error
        self._process = process
        self._command = command
        early = self._receive_early()
        self._transport.send(
            Pid(process.pid, FEATURES, process.reattached).encode(),
        )
        outputs = [(STDOUT_HEADER, process.stdout)]
        if not command.tty:
            outputs.append((STDERR_HEADER, process.stderr))
        self._outputs = len(outputs)
        for header, file in outputs:
            # Ends with its output, which close() of the process ends in any case.
            self._run(self._send_output, header, file, name="wsep-output")
        for message in early:
            self._dispatch(message, early=True)

    def _receive_early(self) -> list[Buffer]:
        """Return the messages that have arrived before the pid names the additions.

        Whoever sent them can't have known that this server has additions: to the reference, and
        so to its clients, a signal is a message of an unknown type.
        """
        early: list[Buffer] = []
        self._transport.set_deadline(0)
        with contextlib.suppress(TimeoutError):
            while len(early) < _MOST_EARLY:
                early.append(self._transport.receive())
        self._transport.set_deadline(None)
        return early

    def _run(self, target: Callable[..., None], *args: object, name: str) -> None:
        thread = threading.Thread(target=target, args=args, name=name)
        self._threads.append(thread)
        thread.start()

    def _send_output(self, header: bytes, file: io.BufferedReader) -> None:
        raw = file.raw
        # The header stands in front of where the output is read to: nothing is copied.
        message = memoryview(bytearray(MAX_MESSAGE))
        message[: len(header)] = header
        body = message[len(header) :]
        try:
            while count := raw.readinto(body):
                self._transport.send(message[: len(header) + count])
        except TransportClosed:
            return  # the receiving thread sees it too, and ends the command
        except (WsepError, OSError):
            pass  # of a server further on; waiting for the command will tell
        with self._lock:
            self._outputs -= 1
            if self._outputs:
                return
        self._send_exit()

    def _send_exit(self) -> None:
        assert self._process is not None
        try:
            self._process.wait()
            status = ExitCode(0)
        except ExitError as error:
            status = ExitCode(error.exit_code, error.message, error.signal)
        except SessionClosed:
            return  # this client has left its session, which goes on: nothing has failed
        except WsepError as error:
            self._failure = ProtocolError(f"wait for command: {error}")
            self._transport.set_deadline(0)
            return
        if self._ending:
            return  # it was ended because of a refusal, and the close says all
        self._finished = True
        with contextlib.suppress(TransportClosed):
            self._transport.send(status.encode())
            self._transport.set_deadline(_CLOSE_WAIT)

    def _write_stdin(self, body: memoryview | bytes | bytearray) -> None:
        assert self._command is not None
        if not (self._command.stdin or self._command.tty):
            raise ProtocolError("read stdin: stdin is not enabled for this command")
        if len(body):
            self._queue_input(body)

    def _queue_input(self, item: _Input) -> None:
        stdin = self._input()
        while not stdin.put(item):
            # The command does not read, and this client sends on. Nothing more is received until
            # it does; but the end of the connection must not wait for that.
            if self._transport.hung_up():
                raise TransportClosed(1006, "the client has gone")

    def _input(self) -> _StdinQueue:
        if self._stdin is None:
            assert self._process is not None
            self._stdin = _StdinQueue(self._process, self._transport)
            self._run(self._stdin.write_all, name="wsep-stdin")
        return self._stdin

    @staticmethod
    def _signal(process: Process, number: int) -> None:
        try:
            process.send_signal(number)
        except io.UnsupportedOperation:
            pass  # of a server further on that is the reference
        except ValueError as error:
            raise ProtocolError(f"signal: {error}") from error
        except PermissionError:
            pass  # the command changed its user: as for kill(2), it is not ours to end

    def _end(self) -> None:
        """End what still runs: the command with its group, and this connection's threads."""
        process = self._process
        if process is None:
            return
        self._ending = True
        if self._finished:
            process.close()
        else:
            command = self._command
            if self._stdin is not None and command is not None and command.tty and command.id:
                # The session goes on, and what was typed last, "make" and Enter say, is for it.
                self._stdin.drain(_LAST_INPUT_WAIT)
            process.hang_up()
        if self._stdin is not None:
            self._stdin.close()
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT)
            if thread.is_alive():  # it is stuck in sending to a client that does not read
                self._transport.abort()
                thread.join()
        for file in (process.stdin, process.stdout, process.stderr):
            close_quietly(file)


def _type(message: object) -> str:
    names = {"CloseStdin": "close_stdin", "StdinMark": "stdin_mark"}
    name = type(message).__name__
    return names.get(name, name.lower())


_BUFFERS = (bytes, bytearray, memoryview)
_Input: TypeAlias = "bytes | bytearray | memoryview | StdinMark | None"

# Bytes; shorter input than this is put together.
_SMALL = 4096


class _StdinQueue:
    """Input on its way to a command, with a bound, and the thread's work of writing it."""

    def __init__(self, process: Process, transport: Transport) -> None:
        self._file = process.stdin
        self._transport = transport
        # Guards everything below.
        self._changed = threading.Condition()
        self._items: deque[_Input] = deque()
        self._size = 0  # of what has not been written
        self._ended = False  # the end is among the items, or was
        self._closed = False

    def put(self, item: _Input) -> bool:
        """Append input, a mark, or ``None`` for the end; False if there was no room for 0.5 s."""
        with self._changed:
            if item is None:
                if self._ended:
                    return True
                self._ended = True
            size = _input_size(item)
            while size and self._size + size > _STDIN_LIMIT + MAX_MESSAGE and not self._closed:
                if not self._changed.wait(0.5):
                    return False
            self._size += size
            last = self._items[-1] if self._items else None
            if not isinstance(item, _BUFFERS) or size >= _SMALL:
                self._items.append(item)
            elif isinstance(last, bytearray) and len(last) < _SMALL:
                last += item  # an item for every byte that is typed would cost hundreds
            else:
                self._items.append(bytearray(item))
            self._changed.notify_all()
        return True

    def drain(self, timeout: float) -> None:
        """Block until all is written, for ``timeout`` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._items and not self._size, timeout)

    def close(self) -> None:
        """Let the thread end; the process must have been closed, lest it be stuck in writing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def write_all(self) -> None:
        broken = False  # the command has closed its input: what still comes is dropped
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                item = self._items.popleft()
            try:
                if item is None:
                    if not broken:
                        broken = True
                        self._file.close()
                elif isinstance(item, StdinMark):
                    self._transport.send(item.encode())
                elif not broken:
                    self._file.raw.write(item)
            except TransportClosed:
                pass  # for the thread that receives to see; what has come is still to be written
            except (OSError, ValueError):
                broken = True
            with self._changed:
                self._size -= _input_size(item)
                self._changed.notify_all()


def _input_size(item: _Input) -> int:
    if isinstance(item, _BUFFERS):
        return len(item)
    # No client has reason to send many marks, but one that does must be held up some time.
    return 512 if isinstance(item, StdinMark) else 0


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
