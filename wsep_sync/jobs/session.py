"""Terminals that outlive the connection: :class:`Session`.

A session is a command on a terminal that any number of clients attach to. Its states, each set
here and nowhere else::

    STARTING ──> READY ──> CLOSING ──> DONE
        └──────────┴──────────────────────┘

STARTING until the command runs; READY while it can be attached to; CLOSING from the moment that
somebody ends it (a close, or the timeout with no client); DONE when the command has ended, by
itself or not, or could not be started. A state never goes back.

One thread waits for all there is: the command's output, its input while it does not take it, its
end, and the time when it has to. It puts the output into the recording and into a queue for each
client, all under one lock, and wakes those who read. For clients that attach, or have fallen
behind, a snapshot is taken of the recording under that lock, after which their queues begin: so
nothing is missing and nothing comes twice. The redraw is made of it in the thread of drawing.py,
without the lock, which nobody holds for long. Input of all clients goes the other way through one
queue.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from dataclasses import replace

from .. import streams
from ..errors import ExitError, SessionClosed, StartError, WsepError, copy_error, start_error
from ..log import log_event
from ..process import Execer, Process
from ..protocol.command import Command
from ..protocol.messages import Resize
from ..streams.wakeup import READ, WRITE, Wakeup
from ..terminals import Recording, Snapshot, hold
from ..terminals.answers import replies
from ..threads import start_thread
from .audience import Audience
from .client import Client
from .input import SharedInput
from .options import LATE_LIMIT, Options, SessionInfo, State
from .polled import PolledOutput, PolledProcess
from .poller import Poller
from .size import SharedSize

__all__ = [
    "Session",
    "nothing_to_watch",
]

# How much is read from the terminal at once, in bytes: of a program that says much, and of others.
_READ_SIZE, _IDLE_READ_SIZE = 1 << 16, 1 << 11

# How much a list says of a command, in characters; and how long a session's name may be. A client
# could make lists of many megabytes.
_LISTED = 1 << 10
_LONGEST_ID = 1 << 10

# How long the command is waited for at once, in seconds: poll(2) knows no more than 24 days.
_LONGEST_WAIT = 86400.0


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
        # Guards what follows, and every client's queue; but _error and _buffer are the thread's,
        # once the command runs. A single one of these is read without it. Nobody waits while
        # holding it, but on its condition, and nothing is called that may block or take long:
        # lists need it.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = State.STARTING
        self._starting = False  # a thread is at it
        # Both while the command runs, and no longer: they hold descriptors and memory.
        self._process: Process | None = None
        self._polled: PolledProcess | None = None
        self._recording: Recording | None = None
        self._last: Snapshot | None = None  # of the recording, for clients that are yet to see it
        self._pid = 0  # until the command runs
        self._audience = Audience(self._lock)
        self._size = SharedSize(self._lock, command.rows, command.cols)
        self._input = SharedInput(self._lock)
        self._timeout = (options or Options()).session_timeout
        self._created = time.time()
        self._active = self._created
        # Differences are of this clock: the other one may be put back.
        self._began = self._unattended_since = time.monotonic()
        self._error: Exception | None = None  # why there is no session, or how the command ended
        self._ended = False  # the command has, and its output is about to
        self._reason = ""  # why it was ended, if it was
        # The thread's, until it has ended: no cycle may keep a descriptor.
        self._wakeup: Wakeup | None = self._make_wakeup()
        self._buffer = memoryview(bytearray(_IDLE_READ_SIZE))  # the thread's, to read into
        self._failure: Exception | None = None  # of this side, which has ended the command

    def _make_wakeup(self) -> Wakeup:
        try:
            return Wakeup()
        except OSError as error:  # no more descriptors can be had
            raise start_error(error.errno or errno.EMFILE, self.command.command) from error

    def _wake(self) -> None:
        """Wake the session's thread, if it has not ended."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.set()

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
                client.repaint = self._size.set_for(client, rows, cols)
        self._size.tell()
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
            recording, wakeup = Recording(rows, cols), self._wakeup
            try:
                # A daemon, so that a program which forgot to close its server can end. Ends when
                # the command has, which close() brings about in any case, or at once if it cannot
                # be started.
                start_thread(self._run, name="wsep-session", died=self._give_up)
            except RuntimeError as error:  # no more threads can be had
                raise start_error(errno.EAGAIN, command.command) from error
            process = self._execer.start(command)
            polled = self._poll(process, wakeup)
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
                self._process, self._polled = process, polled
                self._recording = recording
                self._pid = process.pid
                self._size.begin(process, recording, rows, cols)
                assert polled.input is not None
                assert wakeup is not None
                self._input.begin(polled.input, wakeup)
                self._set_state(State.READY)
                # In the same breath: the reader has not begun yet, and this client misses nothing.
                client = self._add_client(options, reattached=False)
                if size_known:
                    self._size.note(client, rows, cols)
                return client
            # A thread has died before there was a process that it could have ended.
            self._error = StartError("internal error")
            self._set_state(State.DONE)
        process.hang_up()
        polled.close()
        raise StartError("internal error")

    def _poll(self, process: Process, wakeup: Wakeup | None) -> PolledProcess:
        try:
            if wakeup is None:
                raise SessionClosed(f"session {self.command.id!r} was closed")
            return PolledProcess(process, wakeup, ("stdout",), True)
        except BaseException as error:
            process.hang_up()
            if isinstance(error, RuntimeError):  # no threads, which one on another server needs
                raise start_error(errno.EAGAIN, self.command.command) from error
            raise

    def _add_client(self, options: Options | None, reattached: bool) -> Client:
        """Make a client and register it; requires holding the lock."""
        assert self._lock.locked()
        read_only = options is not None and options.read_only
        if options is not None and not read_only:
            self._timeout = max(self._timeout, options.session_timeout)
        client = Client(self, self._pid, reattached, read_only)
        self._audience.add(client, self._recording)
        self._active = time.time()
        return client

    def _set_state(self, state: State) -> None:
        """Move forward; requires holding the lock."""
        assert self._lock.locked()
        if state > self._state:
            self._state = state
            if state is State.DONE:
                self._wakeup = None
                self._size.end()
                self._input.end()
            self._changed.notify_all()

    def resize(self, rows: int, cols: int) -> bool:
        """Give the terminal a new size, in rows and columns; 0 by 0 leaves it.

        Returns:
            Whether that changed anything.
        """
        Resize(rows, cols)  # raises what is wrong with them
        with self._lock:
            changed = self._size.set(rows, cols)
        self._size.tell()
        return changed

    def _repaint(self) -> None:
        """Make a full-screen program paint its screen anew; the right size comes a moment later."""
        self._size.repaint()
        self._wake()

    # Output

    def _can_be_drawn(self) -> bool:
        """Whether there is what a client is redrawn from; requires holding the lock."""
        return self._recording is not None or self._last is not None

    def _begin_queues(self, clients: list[Client]) -> tuple[list[Client], Snapshot | None]:
        """Let the queues begin here of those clients whose queues have been dropped.

        Returns:
            Those, and what they are to be redrawn from.
        """
        with self._lock:
            behind = [client for client in clients if client.stale and client.attached]
            if not behind:
                return [], None
            snapshot = self._last
            if self._recording is not None:
                snapshot = self._recording.snapshot()
            if snapshot is not None:
                for client in behind:
                    client.begin_queue(snapshot, self._audience.held_back)
            if not any(client.stale for client in self._audience):
                self._last = None  # nobody attaches any more, nor falls behind
            return behind, snapshot

    def _run(self) -> None:
        """Read the output, write the input and see to the end: the work of the session's thread."""
        self.wait_for_state(State.READY)
        polled, recording = self._polled, self._recording
        if polled is None or recording is None:
            return  # it could not be started
        # A buffer of 64 KiB that nobody needs.
        polled.process.stderr.close()
        # The helper that redraws is gone before the session is.
        with hold():
            self._serve(polled, recording)
        polled.process.close()
        polled.close()
        self._finish()

    def _serve(self, polled: PolledProcess, recording: Recording) -> None:
        """Wait for everything at once, and do what it gives cause for, until all has ended."""
        output, input, wakeup = polled.outputs["stdout"], polled.input, self._wakeup
        assert input is not None
        assert wakeup is not None
        poller = Poller(wakeup)
        # What comes through a server further on is bounded there, and the end overtakes it.
        local = isinstance(output.raw, streams.DescriptorReader)
        late, goes_on, again = 0, True, True
        while goes_on or not self._ended:
            wanted = {output.fileno(): READ} if goes_on else {}
            if input.waits:
                wanted[input.fileno()] = WRITE
            if not self._ended:
                wanted[polled.end.fileno()] = READ
            poller.wait(wanted, 0.0 if again else self._look_at_clock(polled.process))
            if again:
                poller.woken = True
            if input.waits and poller.is_ready(input.fileno()):
                input.write()
            self._input.moved(input, self._audience)
            if not self._ended and poller.is_ready(polled.end.fileno()):
                self._look_at_end(polled)
            # The terminal may be held open by a job that was left in the background. Without its
            # shell, that is no session any more: what is there is read, and no more waited for.
            rest = self._ended and local
            again = False
            if goes_on and (rest or poller.is_ready(output.fileno())):
                data = self._read(output)
                if data:
                    self._distribute(recording, data)
                    late += len(data) if rest else 0
                    goes_on = late < LATE_LIMIT
                    again = rest or output.fileno() < 0  # which no poll tells of
                elif rest or data is not None:
                    goes_on = False

    def _read(self, output: PolledOutput) -> bytes | None:
        """Return what there is of the output now; ``None`` if nothing, b"" at its end."""
        buffer = self._buffer
        try:
            count = output.read_now(buffer)
        except WsepError as error:
            # Of a server further on. The command's end may have been told ahead of its output.
            self._error = self._error or copy_error(error)
            return b""
        except OSError:
            if not self._ended:
                raise
            return b""
        if count is None:
            return None
        if count == len(buffer) < _READ_SIZE:
            self._buffer = memoryview(bytearray(_READ_SIZE))
        elif count < _IDLE_READ_SIZE < len(buffer):  # it is one of many
            self._buffer = memoryview(bytearray(_IDLE_READ_SIZE))
        return bytes(buffer[:count])

    def _look_at_end(self, polled: PolledProcess) -> None:
        try:
            status = polled.end.status()
        except WsepError as error:
            self._error = copy_error(error)
        else:
            if status is None:
                return
            if status.exit_code or status.signal is not None:
                self._error = ExitError(status.exit_code, status.error, status.signal)
        with self._lock:  # so that nobody writes, or begins to
            self._ended = True
            self._input.refuse()
        polled.process.finish()

    def _distribute(self, recording: Recording, data: bytes) -> None:
        self._active = time.time()
        unanswered = self._audience.feed(recording, data)
        if unanswered is not None:
            # No terminal that may answer will see these bytes: a redraw, which is all that is sent
            # later, has no questions in it. And the program may wait for the answer.
            snapshot, question = unanswered
            self._input.answer(lambda: replies(snapshot, question))

    # The end

    def _give_up(self, error: Exception) -> None:
        """End the command, because the thread has died of a bug. It never is a success then."""
        with self._lock:
            self._failure = self._failure or error
            self._input.refuse()
            process, polled = self._process, self._polled
        try:
            if process is not None:
                process.hang_up()
        finally:
            self._finish()
        if polled is not None:
            polled.close()

    def _finish(self) -> None:
        """Tell every client that there is no more."""
        if self._failure is not None and isinstance(self._error, (ExitError, type(None))):
            self._error = WsepError("internal error")
        try:
            self._log_end()
        finally:
            with self._lock:
                if self._recording is not None and any(client.stale for client in self._audience):
                    self._last = self._recording.snapshot()
                self._process = self._recording = self._polled = None
                for client in self._audience:
                    client.notify()
                self._set_state(State.DONE)

    def _log_end(self) -> None:
        status = self._error if isinstance(self._error, ExitError) else None
        lost = self._error is not None and status is None  # with a server further on
        log_event(
            logging.INFO,
            "end",
            id=self.command.id,
            pid=self._pid,
            command=self.command.command,
            seconds=time.monotonic() - self._began,
            exit=None if lost else status.exit_code if status else 0,
            signal=status.signal if status else None,
            reason=str(self._error) if lost else self._reason,
        )

    def _look_at_clock(self, process: Process) -> float:
        """Do what it is time for; return for how many seconds there is nothing to be done."""
        now = time.monotonic()
        repaint_ends_at = self._size.repaint_ends_at
        if repaint_ends_at is not None and now >= repaint_ends_at:
            self._size.end_repaint()
        self._expire(process)
        with self._lock:
            if self._audience or self._state is not State.READY:
                left = self._timeout  # nothing can be overdue: a client may yet leave
            else:
                left = self._unattended_since + self._timeout - now
            if self._size.repaint_ends_at is not None:
                left = min(left, self._size.repaint_ends_at - now)
        return max(0.0, min(left, _LONGEST_WAIT))

    def _expire(self, process: Process) -> None:
        """End the command if nobody has been there for too long."""
        with self._lock:
            overdue = time.monotonic() - self._unattended_since >= self._timeout
            if self._audience or not overdue or self._state is not State.READY:
                return
            self._set_state(State.CLOSING)
            self._reason = f"no client for {self._timeout:g} seconds"
        try:
            # It takes its time, in which what the command still has to say is to be read. Ends when
            # the command has.
            start_thread(process.hang_up, name="wsep-session-close", died=lambda _: process.kill())
        except RuntimeError:  # no more threads can be had
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
        rows, cols = self._size.current
        return SessionInfo(
            id=self.command.id,
            pid=self._pid,
            command=self._listed,
            rows=rows,
            cols=cols,
            clients=len(self._audience),
            created=self._created,
            last_activity=max(self._active, self._input.active),
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
