"""Terminals that outlive the connection: :class:`Session`.

A session is a command on a terminal that any number of clients attach to. Its states, each set
here and nowhere else::

    STARTING ──> READY ──> CLOSING ──> DONE
        └──────────┴──────────────────────┘

STARTING until the command runs; READY while it can be attached to; CLOSING from the moment that
somebody ends it (a close, or the timeout with no client); DONE when the command has ended, by
itself or not, or could not be started. A state never goes back.

Data goes from the command's output, in one thread that reads it, through the terminal engine,
which knows what the terminal shows, into a queue for each client, all under one lock: so a client
that attaches gets a redraw and then everything after it, nothing missing and nothing twice.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from . import streams
from .errors import SessionClosed, WsepError, copy_error
from .messages import Command, Resize
from .process import Execer, Process
from .terminal import Terminal, new_terminal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Options", "Session", "SessionInfo", "State"]

_log = logging.getLogger("wsep_sync")

# How many bytes may wait for one client before they are dropped, and it is redrawn instead.
_CLIENT_LIMIT = 1 << 20

# How much is read from the terminal at once, in bytes.
_READ_SIZE = 1 << 16

# How long a terminal stays one row smaller to make a program paint its screen again, in seconds.
# With no pause between, none of the full-screen programs that were tried noticed.
_REPAINT_PAUSE = 0.05


class State(IntEnum):
    """Where a session is in its life; it only moves forward."""

    STARTING = 0
    READY = 1
    CLOSING = 2
    DONE = 3


@dataclass(frozen=True)
class Options:
    """How a server serves.

    Args:
        session_timeout: Seconds that a terminal session lives on with no client attached. When
            clients ask for different ones, the longest holds.
    """

    session_timeout: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.session_timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"session_timeout must be above 0, not {self.session_timeout}")


@dataclass(frozen=True)
class SessionInfo:
    """What a session was at one moment.

    Attributes:
        id: The name it is attached by.
        pid: The command's process id.
        command: The program and its arguments.
        rows: Height of the terminal in rows.
        cols: Width of the terminal in columns.
        clients: How many are attached.
        created: When it was started, in seconds since the epoch.
        last_activity: When it last had output or input, or a client came or went; likewise.
    """

    id: str
    pid: int
    command: tuple[str, ...]
    rows: int
    cols: int
    clients: int
    created: float
    last_activity: float


class Session:
    """A command on a terminal that clients attach to and leave. Thread-safe.

    The command is started by the first :meth:`attach`.

    Args:
        command: What to run. Its ``tty`` must be set.
        execer: What runs it.
        options: Says how long the session lives without clients.

    Raises:
        ValueError: The command wants no terminal.
    """

    def __init__(self, command: Command, execer: Execer, options: Options | None = None) -> None:
        if not command.tty:
            raise ValueError("a session needs a command with a terminal: tty=True")
        self.command = command
        # The id is ours: a server further on would keep a session of its own by it, which would
        # live on when this one is ended.
        self._start_command = replace(command, id="")
        self._execer = execer
        # Guards everything below, and every client's queue. Nobody waits while holding it, but on
        # its condition, and nothing is called that may block.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = State.STARTING
        self._starting = False  # a thread is at it
        self._process: Process | None = None
        self._terminal: Terminal | None = None
        self._rows = command.rows
        self._cols = command.cols
        self._clients: set[_Client] = set()
        self._timeout = (options or Options()).session_timeout
        self._created = time.time()
        self._active = self._created
        self._unattended_since = time.monotonic()
        self._error: Exception | None = None  # why there is no session, or how the command ended
        # Held while input is written, so that what one client types or pastes stays together.
        self._input_lock = threading.Lock()
        # Held while the command is told its size, so that the last told is the last set.
        self._size_lock = threading.Lock()

    @property
    def state(self) -> State:
        return self._state

    def attach(self, rows: int = 0, cols: int = 0, *, options: Options | None = None) -> Process:
        """Attach a client; start the command if this is the first.

        What comes back is the command as this client sees it: its ``stdout`` begins with what the
        terminal shows now (nothing, for the one that starts it), its ``close`` leaves the session
        and its ``kill`` ends the command. A client that does not read holds up neither the command
        nor other clients: what waits for it beyond 1 MiB is dropped, and when it reads again it
        gets a redraw.

        Blocks while the command is being started by somebody else.

        Args:
            rows: The client's height in rows; the latest size wins. 0 by 0 leaves it.
            cols: The client's width in columns.
            options: Says how long the session is to live when this client has left.

        Raises:
            SessionClosed: The session is being ended, or has ended.
            StartError: The command could not be started; every waiting client gets it.
        """
        Resize(rows, cols)  # raises what is wrong with them
        if self._begin():
            return self._start(rows, cols)
        self.wait_for_state(State.READY)
        resized = self.resize(rows, cols)
        with self._lock:
            if self._state is not State.READY:
                if self._process is None and self._error is not None:
                    raise copy_error(self._error)
                raise SessionClosed(f"session {self.command.id!r} has ended")
            client = self._add_client(options, reattached=True)
            terminal = self._terminal
            assert terminal is not None
            repaint = terminal.in_alt and (terminal.lost or resized)
        if repaint:
            self._repaint()
        return client

    def _begin(self) -> bool:
        """Return whether it is for the caller to start the command."""
        with self._lock:
            if self._state is State.STARTING and not self._starting:
                self._starting = True
                return True
            return False

    def _start(self, rows: int, cols: int) -> Process:
        command = self._start_command
        if rows or cols:
            command = replace(command, rows=rows, cols=cols)
        try:
            process = self._execer.start(command)
        except BaseException as error:
            with self._lock:
                known = error if isinstance(error, WsepError) else WsepError(str(error))
                self._error = copy_error(known)
                self._set_state(State.DONE)
            raise
        # As the reference has it, 0 by 0 is a terminal of 80 rows and 24 columns.
        rows, cols = (command.rows, command.cols) if command.rows or command.cols else (80, 24)
        terminal = new_terminal(rows, cols)
        with self._lock:
            self._process = process
            self._terminal = terminal
            self._rows, self._cols = rows, cols
            self._set_state(State.READY)
            client = self._add_client(None, reattached=False)
        # Ends with the command's output, which close() brings about in any case. A daemon, so
        # that a program which forgot to close its server can end.
        threading.Thread(
            target=self._read_output, name=f"wsep-session-{process.pid}", daemon=True
        ).start()
        return client

    def _add_client(self, options: Options | None, reattached: bool) -> _Client:
        """Make a client and register it; requires holding the lock."""
        assert self._lock.locked()
        assert self._process is not None
        assert self._terminal is not None
        if options is not None:
            self._timeout = max(self._timeout, options.session_timeout)
        client = _Client(self, self._process.pid, reattached)
        self._clients.add(client)
        self._active = time.time()
        return client

    def _set_state(self, state: State) -> None:
        """Move forward; requires holding the lock."""
        assert self._lock.locked()
        if state > self._state:
            self._state = state
            self._changed.notify_all()

    # The size

    def resize(self, rows: int, cols: int) -> bool:
        """Give the terminal a new size, in rows and columns; 0 by 0 leaves it.

        Returns:
            Whether that changed anything.
        """
        Resize(rows, cols)  # raises what is wrong with them
        with self._size_lock:
            with self._lock:
                changed = (rows, cols) not in ((0, 0), (self._rows, self._cols))
                if not changed or self._process is None or self._terminal is None:
                    return False
                self._rows, self._cols = rows, cols
                self._terminal.resize(rows, cols)
            self._process.resize(rows, cols)
            return True

    def _repaint(self) -> None:
        """Make a full-screen program paint its screen anew, by a size that is not quite right."""
        assert self._process is not None
        with self._size_lock:
            self._process.resize(max(1, self._rows - 1), self._cols)
        with contextlib.suppress(TimeoutError):
            self.wait_for_state(State.CLOSING, _REPAINT_PAUSE)
        with self._size_lock:
            # Whatever the size is by now: another client may have changed it meanwhile.
            self._process.resize(self._rows, self._cols)

    # Output

    def _read_output(self) -> None:
        process, terminal = self._process, self._terminal
        assert process is not None
        assert terminal is not None
        raw = process.stdout.raw
        try:
            while True:
                left = self._time_left()
                if left <= 0:
                    self._expire()
                elif not raw.ready(left):  # type: ignore[attr-defined]
                    continue
                data = raw.read(_READ_SIZE)
                if not data:
                    break
                self._distribute(terminal, data)
        except (WsepError, OSError):
            pass  # of a server further on; waiting for the command will tell
        try:
            process.wait()
        except WsepError as error:
            self._error = copy_error(error)
        process.close()
        for file in (process.stdin, process.stdout, process.stderr):
            streams.close_quietly(file)
        with self._lock:
            self._set_state(State.DONE)
            for client in self._clients:
                client.end(terminal)
            self._terminal = None

    def _distribute(self, terminal: Terminal, data: bytes) -> None:
        replies = b""
        with self._lock:
            terminal.feed(data)
            self._active = time.time()
            for client in self._clients:
                client.put(data, terminal)
            if not self._clients:
                replies = terminal.replies(data)
        if replies:
            # Nobody is there whose terminal would answer, and the program may wait for it.
            self._write_if_ready(replies)

    def _time_left(self) -> float:
        """Return for how many seconds nothing can be overdue: a client may yet leave."""
        with self._lock:
            if self._clients or self._state is not State.READY:
                return self._timeout
            return self._unattended_since + self._timeout - time.monotonic()

    def _expire(self) -> None:
        with self._lock:
            if self._clients or self._state is not State.READY:
                return
            self._set_state(State.CLOSING)
        _log.info("session %r ended: no client for %g s", self.command.id, self._timeout)
        # This thread has to go on reading, for a command may have much to say before it ends. The
        # thread ends when the command has, some 2 seconds later at most.
        threading.Thread(target=self._end, name="wsep-session-expiry", daemon=True).start()

    # Input

    def _write(self, data: ReadableBuffer) -> None:
        process = self._process
        assert process is not None
        with self._input_lock:
            process.stdin.raw.write(data)
        self._active = time.time()

    def _send_eof(self) -> None:
        process = self._process
        assert process is not None
        with self._input_lock:
            process.stdin.raw.send_eof()  # type: ignore[attr-defined]

    def _write_if_ready(self, data: bytes) -> None:
        """Write without blocking, or not at all: the caller is the one who reads the output."""
        process = self._process
        assert process is not None
        if not self._input_lock.acquire(blocking=False):
            return
        try:
            raw = process.stdin.raw
            if raw.ready(0):  # type: ignore[attr-defined]
                raw.write(data)
        except (OSError, ValueError):
            pass  # the command has just ended
        finally:
            self._input_lock.release()

    # The end

    def close(self, reason: str = "closed") -> None:
        """End the command, with SIGHUP, SIGTERM and SIGKILL, and so the session.

        Blocks until it has ended, some 2 seconds for a command that ignores the first two.
        Calling it again is harmless.

        Args:
            reason: For the log.
        """
        with self._lock:
            while self._starting and self._state is State.STARTING:
                self._changed.wait()
            first = self._state < State.CLOSING
            if first and self._process is None:
                self._set_state(State.DONE)
                return
            self._set_state(State.CLOSING)
        if first:
            _log.info("session %r ended: %s", self.command.id, reason)
            self._end()
        self.wait_for_state(State.DONE)

    def _end(self) -> None:
        assert self._process is not None
        self._process.hang_up()

    def wait_for_state(self, state: State, timeout: float | None = None) -> State:
        """Block until the session has come as far as ``state``; return how far it has come.

        Raises:
            TimeoutError: It had not, after ``timeout`` seconds.
        """
        with self._lock:
            if not self._changed.wait_for(lambda: self._state >= state, timeout):
                raise TimeoutError(f"the session is still {self._state.name} after {timeout} s")
            return self._state

    def wait(self, timeout: float | None = None) -> None:
        """Block until the command has ended; as :meth:`.Process.wait` in all else."""
        self.wait_for_state(State.DONE, timeout)
        if self._error is not None:
            raise copy_error(self._error)

    def info(self) -> SessionInfo:
        """Return what the session is at this moment."""
        with self._lock:
            return SessionInfo(
                id=self.command.id,
                pid=0 if self._process is None else self._process.pid,
                command=(self.command.command, *self.command.args),
                rows=self._rows,
                cols=self._cols,
                clients=len(self._clients),
                created=self._created,
                last_activity=self._active,
            )


class _Client(Process):
    """A session's command, as one attached client sees it."""

    def __init__(self, session: Session, pid: int, reattached: bool) -> None:
        self.pid = pid
        self.reattached = reattached
        self._session = session
        self.stdin = streams.buffered_writer(_ClientInput(self))
        self.stdout = streams.buffered_reader(_ClientOutput(self))
        self.stderr = streams.empty_reader()
        # All of these are guarded by the session's lock.
        self.changed = threading.Condition(session._lock)
        self.queue: deque[memoryview] = deque()
        self.size = 0  # of the queue, but for a redraw
        self.stale = reattached  # what it knows of the terminal is out of date: redraw it
        self.alt_generation: int | None = None  # set if it has not seen the normal screen
        self.attached = True
        self._redrawing = False  # the first in the queue is a redraw

    def put(self, data: bytes, terminal: Terminal) -> None:
        """Queue output that the terminal was fed; requires holding the session's lock."""
        if self.stale:
            return
        left_alt = self.alt_generation not in (None, terminal.alt_generation)
        if left_alt or self.size + len(data) > _CLIENT_LIMIT:
            # It has never seen the normal screen that is shown now, or it reads too slowly.
            self.stale = True
            self._drop()
        else:
            self.queue.append(memoryview(data))
            self.size += len(data)
        self.changed.notify_all()

    def _drop(self) -> None:
        """Drop what waits, but a redraw that is being read: with a flood it would never end."""
        keep = 1 if self._redrawing and self.queue else 0
        while len(self.queue) > keep:
            self.queue.pop()
        self.size = 0

    def _redraw(self, terminal: Terminal) -> None:
        """Queue what the terminal shows; requires holding the lock, with the queue empty."""
        self.stale = False
        self.alt_generation = terminal.alt_generation if terminal.in_alt else None
        redraw = terminal.redraw()
        if redraw:
            self.queue.append(memoryview(redraw))
            self._redrawing = True

    def end(self, terminal: Terminal) -> None:
        """The command has ended; requires holding the session's lock."""
        if self.stale:
            self._drop()
            if not self.queue:
                self._redraw(terminal)
        self.changed.notify_all()

    def read(self, buffer: memoryview) -> int:
        """Block until there is output; store it and return how much, 0 at the end."""
        session = self._session
        with session._lock:
            while not self.queue:
                if not self.attached:
                    return 0
                if self.stale and session._terminal is not None:
                    self._redraw(session._terminal)
                elif session._state is State.DONE:
                    return 0
                else:
                    self.changed.wait()
            done = 0
            while done < len(buffer) and self.queue:
                chunk = self.queue[0]
                piece = chunk[: len(buffer) - done]
                buffer[done : done + len(piece)] = piece
                done += len(piece)
                if not self._redrawing:
                    self.size -= len(piece)
                if len(piece) < len(chunk):
                    self.queue[0] = chunk[len(piece) :]
                else:
                    self.queue.popleft()
                    self._redrawing = False
            return done

    def resize(self, rows: int, cols: int) -> None:
        self._session.resize(rows, cols)

    def send_signal(self, signal: int) -> None:
        process = self._session._process
        assert process is not None
        process.send_signal(signal)

    def wait(self, timeout: float | None = None) -> None:
        """Block until the command has ended; SessionClosed once this client has left."""
        session = self._session
        with session._lock:
            if not self.changed.wait_for(
                lambda: session._state is State.DONE or not self.attached, timeout
            ):
                raise TimeoutError(f"the command has not ended within {timeout} seconds")
            if session._state is not State.DONE:
                raise SessionClosed("this client has left the session, which goes on")
        session.wait()

    def close(self) -> None:
        """Leave the session, which goes on."""
        session = self._session
        with session._lock:
            if not self.attached:
                return
            self.attached = False
            session._clients.discard(self)
            session._active = time.time()
            if not session._clients:
                session._unattended_since = time.monotonic()
            self.queue.clear()
            self.changed.notify_all()

    def hang_up(self) -> None:
        self.close()

    def kill(self) -> None:
        process = self._session._process
        assert process is not None
        process.kill()


class _ClientOutput(io.RawIOBase):
    """The raw, readable end of a client's queue."""

    mode = "rb"

    def __init__(self, client: _Client) -> None:
        self._client = client

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._client.read(memoryview(buffer).cast("B"))


class _ClientInput(io.RawIOBase):
    """The raw, writable end of a session's terminal, for one client.

    Closing it sends the terminal's end-of-file character, as the command's own stdin would; but
    that may be sent many times over, so the command's stdin itself stays open. From a client that
    has left nothing is sent: its shell would take it for the end.
    """

    mode = "wb"

    def __init__(self, client: _Client) -> None:
        self._client = client

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        if self.closed:
            raise ValueError("write to closed file")
        if not self._client.attached:
            raise BrokenPipeError(errno.EPIPE, "this client has left the session")
        view = memoryview(data).cast("B")
        self._client._session._write(view)
        return len(view)

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._client.attached:
                with contextlib.suppress(OSError, ValueError):  # the command has ended
                    self._client._session._send_eof()
        finally:
            super().close()
