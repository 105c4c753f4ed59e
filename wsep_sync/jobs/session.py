"""Terminals that outlive the connection: :class:`Session`.

A session is a command on a terminal that any number of clients attach to. Its states, each set
here and nowhere else::

    STARTING ──> READY ──> CLOSING ──> DONE
        └──────────┴──────────────────────┘

STARTING until the command runs; READY while it can be attached to; CLOSING from the moment that
somebody ends it (a close, or the timeout with no client); DONE when the command has ended, by
itself or not, or could not be started. A state never goes back.

Data goes from the command's output, in one thread that reads it, into the recording and into a
queue for each client, all under one lock. A client that attaches, or has fallen behind, takes a
snapshot of the recording under that lock, after which its queue begins: so nothing is missing and
nothing comes twice. The redraw is made of it in the client's own thread, without the lock, which
nobody holds for long. Input of all clients goes through one queue the other way, in a thread of its
own once there is some. A third thread waits for the command to end, or for the time when it has to.

Of several clients one is asked: its terminal answers what the program asks, and the others get the
output without that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import streams
from ..errors import ExitError, SessionClosed, StartError, WsepError, copy_error, start_error
from ..log import log_event
from ..process import Execer, Process
from ..protocol.command import Command
from ..protocol.messages import Resize
from ..terminals import Recording, hold
from ..terminals.answers import QueryFilter, asks, replies, unfinished
from ..threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer
from .client import Client, has_left
from .options import Options, SessionInfo, State

__all__ = [
    "LATE_LIMIT",
    "Session",
    "nothing_to_watch",
]


# How much is read from the terminal at once, in bytes.
_READ_SIZE = 1 << 16


#: How much is read after the command has ended, in bytes. A terminal, or what a server further on
#: had sent, holds less; but a job that the command left may go on writing for ever.
LATE_LIMIT = 1 << 21


# How many bytes of input may wait for a command that does not read; and how many are written, and
# counted, at once.
_INPUT_LIMIT = 1 << 16


# And of what the server itself answers to a program that nobody is there to answer: one that asks
# without end is not to fill what others type into.
_REPLIES_LIMIT = 1 << 12


# How much a list says of a command, in characters; and how long a session's name may be. A client
# could make lists of many megabytes.
_LISTED = 1 << 10


_LONGEST_ID = 1 << 10


# For how many seconds without input its thread stays: a thread takes some 25 KiB, which is much
# for the many sessions that nobody types into, and starting one for each key would be slow.
_INPUT_LINGER = 1.0


# Seconds until starting it is tried again when there were too many threads.
_INPUT_RETRY = 0.5


# How long the command is waited for at once, in seconds: poll(2) knows no more than 24 days.
_LONGEST_WAIT = 86400.0


# How long a terminal stays one row smaller to make a program paint its screen again, in seconds.
# With no pause between, none of the full-screen programs that were tried noticed.
_REPAINT_PAUSE = 0.05


class Session:
    """A command on a terminal that clients attach to and leave. Thread-safe.

    The command is started by the first :meth:`attach`.

    Args:
        command: What to run. Its ``tty`` must be set.
        execer: What runs it.
        options: Says how long the session lives without clients.

    Raises:
        ValueError: The command wants no terminal.
        StartError: The id is longer than 1,024 characters.
    """

    def __init__(self, command: Command, execer: Execer, options: Options | None = None) -> None:
        if not command.tty:
            raise ValueError("a session needs a command with a terminal: tty=True")
        if len(command.id) > _LONGEST_ID:
            raise StartError(f"an id of {len(command.id)} characters: {_LONGEST_ID} are the limit")
        self.command = command
        self._listed = _shortened((command.command, *command.args))
        # The id is ours: a server further on would keep a session of its own by it, which would
        # live on when this one is ended.
        self._start_command = replace(command, id="")
        self._execer = execer
        # Guards everything below, and every client's queue. Nobody waits while holding it, but on
        # its condition, and nothing is called that may block or take long: lists need it.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = State.STARTING
        self._starting = False  # a thread is at it
        # Both while the command runs, and no longer: they hold descriptors and memory.
        self._process: Process | None = None
        self._recording: Recording | None = None
        self._pid = 0  # until the command runs
        self._size = command.rows, command.cols  # replaced as a whole
        self._clients: dict[Client, None] = {}  # in the order in which they came
        # What each of them has asked for, the latest last; not those who do not know their size.
        self._sizes: dict[Client, tuple[int, int]] = {}
        # What those get who are not asked; there is one while there are several clients. Fed by
        # the output's thread alone, without the lock.
        self._filter: QueryFilter | None = None
        self._held_back = 0  # how many of the last bytes of what is recorded it holds back
        self._question = b""  # the beginning of one, at the end of the output; for its thread alone
        self._typed = 0  # how often anybody has
        self._timeout = (options or Options()).session_timeout
        self._created = time.time()
        self._active = self._created
        self._unattended_since = time.monotonic()
        self._error: Exception | None = None  # why there is no session, or how the command ended
        self._ended = False  # the command has, and its output is about to
        self._reason = ""  # why it was ended, if it was
        self._input: deque[bytes | None] = deque()  # None is the end of the file
        self._input_size = 0  # in bytes, with what is being written; an end of the file is one
        self._input_changed = threading.Condition(self._lock)
        self._writing = False  # there is a thread that writes the input
        self._deaf = False  # the command has left its terminal, and takes no input any more
        self._told = (0, 0)  # the size that the command was told last, in rows and columns
        self._telling = False  # a thread is at it
        self._repainting = False  # and it is to be told one row less
        self._failure: Exception | None = None  # of this side, which has ended the command

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
            rows: The client's height in rows. The terminal has the latest size of those who are
                attached. 0 by 0 is none.
            cols: The client's width in columns.
            options: Says how long the session is to live when this client has left, and whether
                it only watches.

        Raises:
            SessionClosed: The session is being ended, or has ended.
            StartError: The command could not be started; every waiting client gets it. Or nobody
                has started it, and this client is only to watch.
        """
        Resize(rows, cols)  # raises what is wrong with them
        read_only = options is not None and options.read_only
        if read_only:
            self._check_begun()
        elif self._begin():
            return self._start(rows, cols, options)
        self.wait_for_state(State.READY)
        with self._lock:
            if self._state is not State.READY:
                if not self._pid and self._error is not None:
                    raise copy_error(self._error)
                raise SessionClosed(f"session {self.command.id!r} has ended")
            client = self._add_client(options, reattached=True)
            if not read_only:
                client.repaint = self._set_client_size(client, rows, cols)
        self._tell_size()
        return client

    def _begin(self) -> bool:
        """Return whether it is for the caller to start the command."""
        with self._lock:
            if self._state is State.STARTING and not self._starting:
                self._starting = True
                return True
            return False

    def _check_begun(self) -> None:
        with self._lock:
            if self._state is State.STARTING and not self._starting:
                raise nothing_to_watch(self.command.id)

    def _start(self, rows: int, cols: int, options: Options | None) -> Process:
        command = self._start_command
        if rows or cols:
            command = replace(command, rows=rows, cols=cols)
        size_known = bool(command.rows or command.cols)
        rows, cols = command.terminal_size
        try:
            # All that can fail comes before the command: then there is nothing to be ended.
            recording = Recording(rows, cols)
            try:
                self._start_threads()
            except RuntimeError as error:  # no more threads can be had
                raise start_error(errno.EAGAIN, command.command) from error
            process = self._execer.start(command)
        except BaseException as error:
            with self._lock:
                # No name here may refer to the error, whose traceback refers to this frame.
                self._error = copy_error(
                    error if isinstance(error, WsepError) else WsepError(str(error))
                )
                self._set_state(State.DONE)
            raise
        with self._lock:
            if self._failure is None:
                self._process = process
                self._recording = recording
                self._pid = process.pid
                self._size = self._told = rows, cols
                self._set_state(State.READY)
                # In the same breath: the reader has not begun yet, and this client misses nothing.
                client = self._add_client(options, reattached=False)
                if size_known:
                    self._sizes[client] = rows, cols
                return client
            # A thread has died before there was a process that it could have ended.
            self._error = StartError("internal error")
            self._set_state(State.DONE)
        process.hang_up()
        raise StartError("internal error")

    def _start_threads(self) -> None:
        # Daemons, so that a program which forgot to close its server can end. The reader ends with
        # the command's output; the watcher when the command has ended, which close() brings about
        # in any case; both, if it cannot be started.
        reader = start_thread(self._read_output, name="wsep-session-output", died=self._fail)
        start_thread(self._watch, reader, name="wsep-session-watch", died=self._give_up)

    def _add_client(self, options: Options | None, reattached: bool) -> Client:
        """Make a client and register it; requires holding the lock."""
        assert self._lock.locked()
        read_only = options is not None and options.read_only
        if options is not None and not read_only:
            self._timeout = max(self._timeout, options.session_timeout)
        client = Client(self, self._pid, reattached, read_only)
        if not self._clients:
            self._filter = None
        else:
            if self._filter is None and self._recording is not None:
                self._filter = QueryFilter(self._recording.snapshot())
                self._held_back = len(self._filter.held)
            client.raw = False
        self._clients[client] = None
        self._active = time.time()
        return client

    def _choose_asked(self) -> None:
        """Let the one who typed last, or else came first, have all of the output.

        Between sequences, lest anybody get one half of a query; or when the one who had the first
        half has left, and somebody else gets it before the second. Requires holding the lock.
        """
        assert self._lock.locked()
        able = [client for client in self._clients if not client.read_only]
        if self._held_back and any(client.raw for client in able):
            return
        held = self._filter.held if self._filter is not None and self._held_back else b""
        if len(self._clients) < 2:
            self._filter = None
        asked = max(able, key=lambda client: client.typed, default=None)
        for client in self._clients:
            raw = self._filter is None or client is asked
            if held and client.raw:
                raw = True  # one who watches, and has had it
            elif held and raw and self._recording is not None:
                client.put(held, self._recording.alt_generation)
            client.raw = raw

    def _set_state(self, state: State) -> None:
        """Move forward; requires holding the lock."""
        assert self._lock.locked()
        if state > self._state:
            self._state = state
            self._changed.notify_all()
            self._input_changed.notify_all()

    # The size

    def resize(self, rows: int, cols: int) -> bool:
        """Give the terminal a new size, in rows and columns; 0 by 0 leaves it.

        Returns:
            Whether that changed anything.
        """
        Resize(rows, cols)  # raises what is wrong with them
        with self._lock:
            changed = self._set_size(rows, cols)
        self._tell_size()
        return changed

    def _set_client_size(self, client: Client, rows: int, cols: int) -> bool:
        """Set the size that a client asks for; requires holding the lock."""
        assert self._lock.locked()
        if client.attached and (rows or cols):
            self._sizes.pop(client, None)
            self._sizes[client] = rows, cols
        return self._set_size(rows, cols)

    def _drop_client_size(self, client: Client) -> None:
        """Go back to the latest size of those who stay; requires holding the lock."""
        assert self._lock.locked()
        latest = next(reversed(self._sizes), None) is client
        self._sizes.pop(client, None)
        if latest and self._sizes:
            self._set_size(*self._sizes[next(reversed(self._sizes))])

    def _set_size(self, rows: int, cols: int) -> bool:
        """Set the size, and return whether it is another; requires holding the lock.

        The command is yet to be told.
        """
        assert self._lock.locked()
        if (rows, cols) in ((0, 0), self._size) or self._recording is None:
            return False
        self._size = rows, cols
        self._recording.resize(rows, cols)
        return True

    def _tell_size(self) -> None:
        """Tell the command its size, if it has changed.

        A server further on may be slow to take it. So one thread tells, until the last size is
        told; whoever comes with another meanwhile leaves it to that thread, and goes on.
        """
        with self._lock:
            if self._telling:
                return
            self._telling = True
        try:
            while process := self._to_be_told():
                process.resize(*self._told)
        except BaseException:
            with self._lock:
                self._telling = False
            raise

    def _to_be_told(self) -> Process | None:
        """Return the command, if it is to be told ``_told``; else say that nobody tells it."""
        with self._lock:
            rows, cols = self._size
            size = max(1, rows - self._repainting), cols
            if self._process is None or size == self._told:
                self._telling = False
                return None
            self._told = size
            return self._process

    def _repaint(self) -> None:
        """Make a full-screen program paint its screen anew, by a size that is not quite right."""
        with self._lock:
            if self._repainting:
                return  # it is about to, and all that it paints comes after now
            self._repainting = True
        try:
            self._tell_size()
            with contextlib.suppress(TimeoutError):
                self.wait_for_state(State.CLOSING, _REPAINT_PAUSE)
        finally:
            with self._lock:
                self._repainting = False
            # Whatever the size is by now: another client may have changed it meanwhile.
            self._tell_size()

    # Output

    def _read_output(self) -> None:
        """Read the command's output to its end: the work of the reader's thread."""
        self.wait_for_state(State.READY)
        process, recording = self._process, self._recording
        if process is None or recording is None:
            return  # it could not be started
        # Two buffers of 64 KiB that nobody needs: closing frees the one, and to have no file any
        # more the other.
        process.stderr.close()
        raw = process.stdout.detach()
        process.stdout = streams.Reader(raw, 1)
        ready = getattr(raw, "ready", None)  # see streams.RawOutput
        # What comes through a server further on is bounded there, and the end overtakes it.
        local = isinstance(raw, streams.DescriptorReader)
        late = 0
        with raw, self._output_errors():
            # Waited for first, for a read that blocks would keep its buffer all the while.
            while late < LATE_LIMIT and (ready is None or ready(None)):
                data = raw.read(_READ_SIZE)
                if not data:
                    break
                if self._ended and local:
                    late += len(data)
                self._distribute(recording, data)

    @contextlib.contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except WsepError as error:
            # Of a server further on. The command's end may have been told ahead of its output.
            self._error = self._error or copy_error(error)
        except OSError:
            if not self._ended:  # nor closed, while the rest was being read
                raise

    def _distribute(self, recording: Recording, data: bytes) -> None:
        question = self._question + data
        self._question = unfinished(question)
        while not self._distribute_once(recording, data, question):
            pass

    def _distribute_once(self, recording: Recording, data: bytes, question: bytes) -> bool:
        """Return whether it was done, and not in vain: somebody may just have come or left.

        Args:
            recording: What is fed.
            data: The output.
            question: The same, with what may have become a question by it.
        """
        with self._lock:
            if self._filter is not None:
                self._choose_asked()
            query_filter = self._filter
        # Without the lock: there is output that makes it slow.
        filtered = data if query_filter is None else query_filter.feed(data)
        with self._lock:
            if self._filter is not query_filter:
                return False  # there is none any more, or a new one, which has seen nothing of this
            self._held_back = 0 if self._filter is None else len(self._filter.held)
            recording.feed(data)
            self._active = time.time()
            asked = False
            for client in self._clients:
                live = client.put(data if client.raw else filtered, recording.alt_generation)
                asked = asked or (live and client.raw and not client.read_only)
            if asked or not asks(question) or not self._answers():
                return True
            snapshot = recording.snapshot()
        # No terminal that may answer will see these bytes: a redraw, which is all that is sent
        # later, has no questions in it. And the program may wait for the answer.
        answers = replies(snapshot, question)
        with self._lock:
            start = bool(answers) and self._answers() and self._put_input(answers)
        if start:
            self._start_writing()
        return True

    def _answers(self) -> bool:
        """Return whether the command takes an answer of ours; requires holding the lock."""
        assert self._lock.locked()
        return not self._deaf and not self._ended and self._input_size < _REPLIES_LIMIT

    # Input

    def _write(self, client: Client, data: bytes | None) -> None:
        """Queue input of a client, ``None`` for the end of the file; block while it is full.

        Queued rather than written, for a write that blocks because the command does not read
        could not be called off when its client leaves.
        """
        if client.read_only:
            return
        with self._lock:
            self._input_changed.wait_for(
                lambda: (
                    self._input_size < _INPUT_LIMIT
                    or not client.attached
                    or self._deaf
                    or self._state is State.DONE
                )
            )
            self._check_takes_input(client)
            self._note_typing(client)
            start = self._put_input(data)
        while start and not self._start_writing():
            # Whoever writes is held up, as if the command did not read.
            with self._lock:
                start = not self._input_changed.wait_for(
                    lambda: (
                        self._writing
                        or not client.attached
                        or self._deaf
                        or self._state is State.DONE
                    ),
                    _INPUT_RETRY,
                )
                self._writing = self._writing or start

    def _write_now(self, client: Client, data: ReadableBuffer) -> int:
        """Write a client's input if none waits; return how many bytes were taken, perhaps none.

        What is typed mostly goes this way, without the input's thread, which gets what the
        terminal does not take now: what came together stays together.
        """
        view = memoryview(data).cast("B")
        if client.read_only:
            return len(view)
        with self._lock:
            self._check_takes_input(client)
            # What is being written is counted as well.
            if self._input_size or self._process is None:
                return 0
            write_now = getattr(self._process.stdin.raw, "write_now", None)
            if write_now is None:  # on a server further on
                return 0
            self._note_typing(client)
            try:
                written = int(write_now(view))
            except (OSError, ValueError) as error:
                self._deaf = True
                raise BrokenPipeError(errno.EPIPE, "the command has ended") from error
            if written == len(view):
                return written
            rest = bytes(view[written:])
            start = self._put_input(rest)
        if start and not self._start_writing():
            with self._lock:
                if self._input_size == len(rest):
                    # Nobody else has come since: whoever writes is held up, as in _write.
                    self._input.clear()
                    self._input_size = 0
                    return written
        return len(view)

    def _check_takes_input(self, client: Client) -> None:
        """Raise what says why not; requires holding the lock."""
        assert self._lock.locked()
        if not client.attached:
            raise has_left()
        if self._deaf or self._ended or self._state is State.DONE:
            raise BrokenPipeError(errno.EPIPE, "the command has ended")

    def _note_typing(self, client: Client) -> None:
        """Note who typed last; requires holding the lock."""
        assert self._lock.locked()
        self._active = time.time()
        self._typed += 1
        client.typed = self._typed

    def _put_input(self, data: bytes | None) -> bool:
        """Append to the input; return whether to start its thread. Requires holding the lock."""
        assert self._lock.locked()
        self._input.append(data)
        self._input_size += 1 if data is None else len(data)
        self._input_changed.notify_all()
        start, self._writing = not self._writing, True
        return start

    def _start_writing(self) -> bool:
        """Start the input's thread; False if no more threads can be had."""
        # Ends when there has been no input for a while, or with the session. A daemon, as the
        # others are.
        try:
            start_thread(self._write_input, name="wsep-session-input", died=self._fail)
        except RuntimeError:  # to the kernel threads are processes, of which it has enough
            with self._lock:
                # Whoever comes with input next tries again.
                self._writing = False
            return False
        return True

    def _write_input(self) -> None:
        process = self._process
        while process is not None:
            with self._lock:
                self._input_changed.wait_for(
                    lambda: self._input or self._state is State.DONE, _INPUT_LINGER
                )
                if not self._input or self._state is State.DONE:
                    # Said under the lock, so that whoever comes with input now starts another.
                    self._writing = False
                    return
                data = self._input.popleft()
            try:
                if data is None:
                    process.stdin.raw.send_eof()  # type: ignore[attr-defined]
                else:
                    process.stdin.raw.write(data)
            except (OSError, ValueError):
                with self._lock:
                    self._deafen()
                return
            with self._lock:
                self._input_size -= 1 if data is None else len(data)
                self._input_changed.notify_all()

    def _deafen(self) -> None:
        """Let nobody write, or wait for it; requires holding the lock."""
        assert self._lock.locked()
        self._deaf = True
        self._input.clear()
        self._input_changed.notify_all()

    # The end

    def _fail(self, error: Exception) -> None:
        """End the command, because a thread has died of a bug. It never is a success then."""
        with self._lock:
            self._failure = self._failure or error
            self._deafen()
            process = self._process
        if process is not None:
            process.hang_up()

    def _give_up(self, error: Exception) -> None:
        """The same for the thread that waits for the command: nobody waits for it any more."""
        process = self._process
        try:
            self._fail(error)
        finally:
            self._finish()
        if process is not None:
            streams.close_quietly(process.stdin)

    def _finish(self) -> None:
        """Tell every client that there is no more."""
        if self._failure is not None and isinstance(self._error, (ExitError, type(None))):
            self._error = WsepError("internal error")
        try:
            self._log_end()
        finally:
            with self._lock:
                for client in self._clients:
                    client.end(self._recording)
                self._process = self._recording = None
                self._set_state(State.DONE)

    def _watch(self, reader: threading.Thread) -> None:
        """Wait for the command to end, and see to it when no client comes back in time."""
        self.wait_for_state(State.READY)
        process = self._process
        if process is None:
            return  # it could not be started
        # It is gone before the session is.
        with hold():
            self._wait_for_end(process)
        # The terminal may be held open by a job that was left in the background. Without its
        # shell, that is no session any more: what is there is read, and no more waited for.
        with self._lock:  # so that nobody writes, or begins to
            self._ended = True
        process.finish()
        reader.join()
        process.close()
        streams.close_quietly(process.stdin)
        self._finish()

    def _wait_for_end(self, process: Process) -> None:
        while True:
            try:
                process.wait(min(self._time_left(), _LONGEST_WAIT))
                return
            except TimeoutError:
                self._expire(process)
            except WsepError as error:
                self._error = copy_error(error)
                return

    def _log_end(self) -> None:
        status = self._error if isinstance(self._error, ExitError) else None
        lost = self._error is not None and status is None  # with a server further on
        log_event(
            logging.INFO,
            "end",
            id=self.command.id,
            pid=self._pid,
            command=self.command.command,
            seconds=time.time() - self._created,
            exit=None if lost else status.exit_code if status else 0,
            signal=status.signal if status else None,
            reason=str(self._error) if lost else self._reason,
        )

    def _time_left(self) -> float:
        """Return for how many seconds nothing can be overdue: a client may yet leave."""
        with self._lock:
            if self._clients or self._state is not State.READY:
                return self._timeout
            return self._unattended_since + self._timeout - time.monotonic()

    def _expire(self, process: Process) -> None:
        with self._lock:
            # Looked at again: a client may have come, and perhaps left, just now.
            overdue = time.monotonic() - self._unattended_since >= self._timeout
            if self._clients or not overdue or self._state is not State.READY:
                return
            self._set_state(State.CLOSING)
            self._reason = f"no client for {self._timeout:g} seconds"
        process.hang_up()

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
            process = self._process
            self._set_state(State.CLOSING if process else State.DONE)
            self._reason = self._reason or reason
        if first and process is not None:
            process.hang_up()
        self.wait_for_state(State.DONE)

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
        """Return what the session is at this moment. Waits for nothing."""
        # Without the lock, which is held while output is recorded: each of these is one read.
        rows, cols = self._size
        return SessionInfo(
            id=self.command.id,
            pid=self._pid,
            command=self._listed,
            rows=rows,
            cols=cols,
            clients=len(self._clients),
            created=self._created,
            last_activity=self._active,
        )


def nothing_to_watch(id: str) -> StartError:
    """Return the error of a client that is to watch a session which is not there."""
    return StartError(f"read-only: there is no session {id!r}")


def _shortened(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line as far as lists show it."""
    room = _LISTED
    shown = []
    for word in words:
        if len(word) > room:
            shown.append(word[:room] + "…")
            break
        shown.append(word)
        room -= len(word)
        if len(shown) == _LISTED:  # they may be empty
            break
    return tuple(shown)
