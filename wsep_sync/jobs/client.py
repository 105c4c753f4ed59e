"""A session as one of its clients sees it: :class:`Client`."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .. import streams
from ..errors import SessionClosed
from ..process import Process
from ..protocol.messages import FEATURE_ECHO, Resize
from ..terminals import Snapshot, prepare
from . import drawing

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

    from .session import Session
from .options import State
from .polled import offered

__all__ = [
    "Client",
    "ClientInput",
    "ClientOutput",
    "has_left",
]


# Bytes of what is read ahead of a client.
_READ_BUFFER = 1 << 12

# How many bytes may wait for one client before they are dropped, and it is redrawn instead: one
# that reads too slowly is to hold up neither the command nor the others, nor to fill the memory.
_CLIENT_LIMIT = 1 << 20

# And in how many chunks: a program that writes byte by byte would make a hundred megabytes of it.
_CLIENT_CHUNKS = 1 << 12

_INPUT_PIECE = 1 << 14


def has_left() -> BrokenPipeError:
    return BrokenPipeError(errno.EPIPE, "this client has left the session")


class Client(Process):
    """A session's command, as one attached client sees it.

    If the client only watches, whatever it does but read and leave is ignored.
    """

    def __init__(self, session: Session, pid: int, reattached: bool, read_only: bool) -> None:
        self.pid = pid
        self.reattached = reattached
        self.read_only = read_only
        self._session = session
        self._files = ClientInput(self), ClientOutput(self)
        self.stdin = streams.buffered_writer(self._files[0])
        # A small buffer: servers read past it, and have many of these.
        self.stdout = streams.buffered_reader(self._files[1], _READ_BUFFER)
        self.stderr = streams.empty_reader()
        # All of these are guarded by the session's lock.
        self.changed = threading.Condition(session._lock)
        self.queue: deque[memoryview] = deque()  # what follows the redraw
        self.size = 0  # of the queue
        self.stale = reattached  # what it knows of the terminal is out of date: redraw it
        self.repaint = False  # the program has to paint its alternate screen for it
        self.alt_generation: int | None = None  # set if it has not seen the normal screen
        self.attached = True
        self.held_up = False  # its input was refused, and it is to be woken when there is room
        self._wake: Callable[[], None] | None = None  # wakes the loop that polls it, if one does
        self.unfiltered = True  # it gets the output as it is, with what its terminal answers
        self.typed = 0  # when it did last, in order among all clients; 0 is never
        self.waits_for_redraw = False
        self.too_early = 0  # how many of the last bytes of what it is redrawn from it may not have
        # The rest are for the thread that reads, or for the one that draws meanwhile.
        self._redraw = memoryview(b"")  # what is yet to be read of it
        self._painted = True  # or else the program is to paint, once the redraw has been read
        process = session._process
        self.features = offered(process) if process is not None else frozenset()

    def put(self, data: bytes, alt_generation: int) -> bool:
        """Queue output; return whether it is to reach this client.

        Requires holding the session's lock.

        Args:
            data: The output.
            alt_generation: As of the recording, which has been fed with it.
        """
        if self.stale:
            return False
        left_alt = self.alt_generation not in (None, alt_generation)
        full = self.size + len(data) > _CLIENT_LIMIT or len(self.queue) >= _CLIENT_CHUNKS
        if left_alt or full:
            # It has never seen the normal screen that is shown now, or it reads too slowly.
            self.stale = True
            self.queue.clear()
            self.size = 0
        elif data:
            self.queue.append(memoryview(data))
            self.size += len(data)
        self.notify()
        return not self.stale

    def notify(self) -> None:
        """Wake whoever reads, waits or writes here; requires holding the session's lock."""
        self.changed.notify_all()
        if self._wake is not None:
            self._wake()

    def when_ended(self, wake: Callable[[], None]) -> None:
        """Have a function called when there is output, room for input, or the end.

        It is called with the session's lock held, and must not block.
        """
        with self._session._lock:
            self._wake = wake
        wake()

    def read(self, buffer: memoryview, wait: bool) -> int | None:
        """Store output and return how much, 0 at the end; block until there is some.

        Args:
            buffer: Where to.
            wait: Or else return ``None`` if there is none.
        """
        while self.waits_for_redraw or not self._redraw:
            if not self.waits_for_redraw:
                if not self._painted:
                    self._painted = True
                    # Whatever the program paints from now on is on its way to here.
                    self._session._repaint()
                if self.stale:
                    self._ask_for_redraw()
            count = self._take(buffer, wait)
            if count is not None or not wait:
                return count
        if not self.attached:
            return 0
        piece = self._redraw[: len(buffer)]
        self._redraw = self._redraw[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def _ask_for_redraw(self) -> None:
        with self._session._lock:
            if not (self.attached and self.stale and self._session._can_be_drawn()):
                return
            self.waits_for_redraw = True
        drawing.ask(self._session)

    def _take(self, buffer: memoryview, wait: bool) -> int | None:
        """Store output and return how much, 0 at the end; ``None`` if there is none for now.

        If it is to wait, that is because there is a redraw, or has to be one.
        """
        session = self._session
        with session._lock:
            # A redraw may have come while this waited for it: it goes before what is in the queue.
            while self.waits_for_redraw or self._redraw or not self.queue:
                if not self.attached:
                    return 0
                if not self.waits_for_redraw:
                    if self._redraw or (self.stale and session._can_be_drawn()):
                        return None
                    if session._state is State.DONE:
                        return 0
                if not wait:
                    return None
                self.changed.wait()
            done = 0
            while done < len(buffer) and self.queue:
                chunk = self.queue[0]
                piece = chunk[: len(buffer) - done]
                buffer[done : done + len(piece)] = piece
                done += len(piece)
                if len(piece) < len(chunk):
                    self.queue[0] = chunk[len(piece) :]
                else:
                    self.queue.popleft()
            self.size -= done
            return done

    def begin_queue(self, snapshot: Snapshot, held_back: int) -> None:
        """Have its queue begin after a snapshot; requires holding the session's lock.

        Args:
            snapshot: What it is redrawn from.
            held_back: How many of the last bytes of that a client that is not asked is yet to get.
        """
        self.stale = False
        self.alt_generation = snapshot.alt_generation if snapshot.in_alt else None
        # What the filter holds back comes whole later, or not at all.
        self.too_early = 0 if self.unfiltered else held_back

    def set_redraw(self, data: bytes, in_alt: bool, lost: bool) -> None:
        """Put into the place of the redraw what it has waited for.

        Args:
            data: The redraw.
            in_alt: Whether the program shows its alternate screen.
            lost: Whether the redraw lacks something.
        """
        self._redraw = memoryview(data)
        # The program is to paint what is not known, and what another size has changed.
        self._painted = self.read_only or not (in_alt and (lost or self.repaint))

    def end_redraw(self) -> None:
        """Let it read the redraw; requires holding the session's lock."""
        self.repaint = False
        self.waits_for_redraw = False
        self.notify()

    def resize(self, rows: int, cols: int) -> None:
        Resize(rows, cols)  # raises what is wrong with them
        if self.read_only:
            return
        with self._session._lock:
            self._session._size.set_for(self, rows, cols)
        self._session._size.tell()

    def send_signal(self, signal: int) -> None:
        process = self._session._process
        if process is not None and not self.read_only:
            process.send_signal(signal)

    def echo(self, on: bool | None = None) -> bool:
        process = self._session._process
        if process is None or FEATURE_ECHO not in self.features:
            return super().echo(on)
        return process.echo(None if self.read_only else on)

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
            session._audience.remove(self)
            session._size.drop(self)
            session._active = time.time()
            if not session._audience:
                session._unattended_since = time.monotonic()
            self.queue.clear()
            self.notify()
            session._input.leave()
            goes_on = session._state is State.READY
        for raw in self._files:
            raw.leave()
        session._size.tell()
        if goes_on:
            prepare()  # for who comes back

    def hang_up(self) -> None:
        self.close()

    def kill(self) -> None:
        process = self._session._process
        if process is not None and not self.read_only:
            process.kill()


class ClientOutput(streams.RawFile):
    """The raw, readable end of a client's queue."""

    mode = "rb"

    def __init__(self, client: Client) -> None:
        # Until the client leaves, or this is closed: the client refers to it, and no cycle may
        # outlive that. The collector would close it wherever it happens to run.
        self._client: Client | None = client

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        client = self._client
        if client is None:
            return 0
        return client.read(memoryview(buffer).cast("B"), wait=True) or 0

    def read_now(self, buffer: memoryview) -> int | None:
        """Store what there is and return how much; ``None`` if nothing yet, 0 at the end."""
        client = self._client
        return 0 if client is None else client.read(buffer, wait=False)

    def when_readable(self, wake: Callable[[], None]) -> None:
        """Have a function called when there is something to read; see :meth:`Client.when_ended`."""
        if self._client is not None:
            self._client.when_ended(wake)

    def leave(self) -> None:
        """Be at the end from now on, and refer to the client no more."""
        self._client = None

    def close(self) -> None:
        self._client = None
        super().close()

    def _drop(self) -> None:
        self.close()


class ClientInput(streams.RawFile):
    """The raw, writable end of a session's terminal, for one client.

    Closing it sends the terminal's end-of-file character, as the command's own stdin would; but
    that may be sent many times over, so the command's stdin itself stays open. From a client that
    has left nothing is sent: its shell would take it for the end.
    """

    mode = "wb"

    def __init__(self, client: Client) -> None:
        self._client: Client | None = client  # until this is closed, as above

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        client = self._check_open()
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _INPUT_PIECE):
            client._session._input.write(client, bytes(view[start : start + _INPUT_PIECE]))
        return len(view)

    def write_now(self, data: ReadableBuffer, /) -> int:
        """Write as much as is taken without blocking; return how many bytes, perhaps none."""
        client = self._check_open()
        return client._session._input.write_now(client, memoryview(data).cast("B"))

    def end_now(self) -> bool:
        """Send the terminal's end-of-file character; False if that cannot be without blocking."""
        client = self._check_open()
        return bool(client._session._input.write_now(client, None))

    def when_writable(self, wake: Callable[[], None]) -> None:
        """Have a function called when there is room again; see :meth:`Client.when_ended`."""
        if self._client is not None:
            self._client.when_ended(wake)

    def _check_open(self) -> Client:
        if self.closed:
            raise ValueError("write to closed file")
        client = self._client
        if client is None:
            raise has_left()
        return client

    def leave(self) -> None:
        """Take nothing from now on, and refer to the client no more."""
        self._client = None

    def close(self) -> None:
        client, self._client = self._client, None
        try:
            if client is not None:
                # When the command has ended, or the client has left, there is nothing to be sent.
                with contextlib.suppress(BrokenPipeError):
                    client._session._input.write(client, None)
        finally:
            super().close()

    def _drop(self) -> None:
        # Sends nothing: a client is dropped when it has left.
        self._client = None
        super().close()
