"""One connection's message loop: :class:`Server`."""

from __future__ import annotations

import contextlib
import io
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .errors import ExitError, ProtocolError, StartError, TransportClosed, WsepError, copy_error
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
from .streams import close_quietly
from .transports.base import CLOSE_TIMEOUT, Transport

if TYPE_CHECKING:
    import simple_websocket

__all__ = ["Options", "Server"]

#: What a server runs commands with: an execer, or something that makes one for each connection,
#: which is closed when the connection ends.
ExecerFactory: TypeAlias = "Callable[[], Execer]"

# How many seconds a client has to close after it was told the exit status.
_CLOSE_WAIT = 5.0

# How much input may wait for a command that does not read it. Clients that use marks never send
# more than this without an answer.
_STDIN_LIMIT = 1 << 20


@dataclass(frozen=True)
class Options:
    """How a server serves.

    Args:
        session_timeout: Seconds that a terminal session lives on with no client attached.
    """

    session_timeout: float = 300.0

    def __post_init__(self) -> None:
        if not self.session_timeout > 0:
            raise ValueError(f"session_timeout must be more than 0, not {self.session_timeout}")


class Server:
    """Serves commands over connections, each in a thread of its caller's. Thread-safe."""

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
            _Connection(conn, execer, options or Options()).run()


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

    def __init__(self, transport: Transport, execer: Execer, options: Options) -> None:
        self._options = options
        self._transport = transport
        self._execer = execer
        self._process: Process | None = None
        self._command: Command | None = None
        self._stdin: _StdinQueue | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards _outputs
        self._outputs = 0  # that have not ended yet
        self._finished = False  # the command has ended, and nothing is left to be ended
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

    def _dispatch(self, data: bytes | bytearray | memoryview) -> None:
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
            self._input().put(None)
        elif isinstance(message, StdinMark):
            self._input().put(message)
        elif isinstance(message, Resize):
            process.resize(message.rows, message.cols)
        elif isinstance(message, Signal):
            self._signal(process, message.signal)

    def _start(self, command: Command) -> None:
        try:
            process = self._execer.start(command)
        except StartError as error:
            raise ProtocolError(start_failure(error, command)) from error
        except WsepError as error:  # of a server further on
            raise ProtocolError(f"start command: {error}") from error
        self._process = process
        self._command = command
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
        except WsepError as error:
            self._failure = ProtocolError(f"wait for command: {error}")
            self._transport.set_deadline(0)
            return
        self._finished = True
        with contextlib.suppress(TransportClosed):
            self._transport.send(status.encode())
            self._transport.set_deadline(_CLOSE_WAIT)

    def _write_stdin(self, body: memoryview | bytes | bytearray) -> None:
        assert self._command is not None
        if not (self._command.stdin or self._command.tty):
            raise ProtocolError("read stdin: stdin is not enabled for this command")
        if not len(body):
            return
        stdin = self._input()
        while not stdin.put(body):
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
        if self._finished:
            process.close()
        else:
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


class _StdinQueue:
    """Input on its way to a command, with a bound, and the thread's work of writing it."""

    def __init__(self, process: Process, transport: Transport) -> None:
        self._file = process.stdin
        self._transport = transport
        # Guards everything below.
        self._changed = threading.Condition()
        self._items: deque[bytes | bytearray | memoryview | StdinMark | None] = deque()
        self._size = 0
        self._closed = False

    def put(self, item: bytes | bytearray | memoryview | StdinMark | None) -> bool:
        """Append input, a mark, or ``None`` for the end; False if there was no room for 0.5 s."""
        size = len(item) if isinstance(item, (bytes, bytearray, memoryview)) else 0
        with self._changed:
            while size and self._size + size > _STDIN_LIMIT + MAX_MESSAGE and not self._closed:
                if not self._changed.wait(0.5):
                    return False
            self._items.append(item)
            self._size += size
            self._changed.notify_all()
        return True

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
                return
            except (OSError, ValueError):
                broken = True
            if item is not None and not isinstance(item, StdinMark):
                with self._changed:
                    self._size -= len(item)
                    self._changed.notify_all()
