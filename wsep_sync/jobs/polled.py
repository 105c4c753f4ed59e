"""A process as a loop sees it, which waits for everything at once: :class:`PolledProcess`.

A local command's descriptors are polled, and its end by a descriptor of its own. What is woken
instead, as the streams of a server further on are, or of a session, sets the loop's wakeup.
Whatever else there is, of an execer of somebody's own, gets a thread that blocks in the loop's
place.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import ExitError, WsepError, copy_error
from ..process import Process
from ..protocol.messages import FEATURE_ECHO, MAX_MESSAGE, Buffer, ExitCode
from ..streams import BoundedPipe, PipeReader, close_quietly
from ..streams.sent_input import SentInput
from ..streams.wakeup import Pollable, Wakeup
from ..threads import start_thread

__all__ = ["PolledEnd", "PolledInput", "PolledOutput", "PolledProcess", "offered"]

#: How much input may wait for a command that does not read it, and one message more. Clients that
#: are told how much of it has been taken never send more: the rest of what they say comes through.
INPUT_LIMIT = 1 << 20

# Input that is shorter than this is put together: an item for every byte that is typed would cost
# hundreds.
_SMALL = 1 << 12

# A terminal's end-of-file character, unless it was set to be another.
_END_OF_FILE = b"\4"

# What a thread that reads in the loop's place may be ahead of it, in bytes.
_AHEAD = 1 << 17

# Seconds until a file is tried again that does not block, and has no descriptor to be polled.
_PAUSE = 0.01

# None is the end of the input; a function does what is to be done at that place.
_Item: TypeAlias = "Buffer | Callable[[], None] | None"


def offered(process: Process) -> frozenset[str]:
    """Return what a process can, as far as a loop may ask for it, which must not wait.

    The echo of a terminal further on is told by an answer that may take its time.
    """
    far = isinstance(process.stdin.raw, SentInput)
    return process.features - {FEATURE_ECHO} if far else process.features


class PolledProcess:
    """A process, and what there is of it to be waited for.

    Args:
        process: It is not closed here.
        wakeup: Set when something has happened that no descriptor tells.
        outputs: The names of its outputs that are to be read.
        takes_input: Whether it has an input.

    Raises:
        RuntimeError: No more threads can be had.
    """

    def __init__(
        self, process: Process, wakeup: Wakeup, outputs: tuple[str, ...], takes_input: bool
    ) -> None:
        self.process = process
        self.outputs: dict[str, PolledOutput] = {}
        self.input: PolledInput | None = None
        self.threads: list[threading.Thread] = []
        try:
            for name in outputs:
                file = getattr(process, name)
                self.outputs[name] = PolledOutput(file, name, wakeup, self.threads)
            if takes_input:
                self.input = PolledInput(process.stdin, wakeup, self.threads)
            self.end = PolledEnd(process, wakeup, self.threads)
        except RuntimeError:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Let no thread wait for the loop any more."""
        if self.input is not None:
            self.input.close()
        for output in self.outputs.values():
            output.drop()

    def close(self) -> None:
        """Let the threads end, and close the files; the process must have been closed."""
        self._let_go()
        for thread in self.threads:
            thread.join()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            close_quietly(file)


class PolledOutput:
    """An output of a process.

    Attributes:
        raw: Its raw file.
        waits: The last read has found nothing: there is no use in another until it is woken.
    """

    def __init__(
        self, file: io.BufferedReader, name: str, wakeup: Wakeup, threads: list[threading.Thread]
    ) -> None:
        self._file = file
        raw: Any = file.raw
        self.raw = raw
        if not hasattr(raw, "read_now"):
            pipe = BoundedPipe(_AHEAD)
            self.raw = PipeReader(pipe)

            def died(error: Exception) -> None:
                pipe.feed_eof(WsepError(f"internal error: {type(error).__name__}"))

            # Ends with the output, which close() of the process ends in any case.
            thread = start_thread(_read_ahead, raw, pipe, name=f"wsep-{name}", died=died)
            threads.append(thread)
        self.read_now: Callable[[memoryview], int | None] = self.raw.read_now
        self._descriptor: Callable[[], int] | None = getattr(self.raw, "poll_fileno", None)
        if self._descriptor is None:
            self.raw.when_readable(wakeup.set)

    def fileno(self) -> int:
        """Return the descriptor to poll for reading; -1 if the wakeup is set instead."""
        return -1 if self._descriptor is None else self._descriptor()

    def set_capacity(self, size: int) -> None:
        """Ask for so many bytes to be held before the command has to wait; perhaps in vain."""
        set_capacity: Callable[[int], None] | None = getattr(self.raw, "set_capacity", None)
        if set_capacity is not None:
            set_capacity(size)

    def drop(self) -> None:
        """Drop what a thread has read ahead, and will."""
        if self.raw is not self._file.raw:
            self.raw.close()

    def close(self) -> None:
        """Close it for the command."""
        if self.raw is not self._file.raw:
            self.raw.close()
            stop: Callable[[], None] | None = getattr(self._file.raw, "stop", None)
            if stop is not None:
                stop()
        else:
            close_quietly(self._file)


def _read_ahead(raw: io.RawIOBase, pipe: BoundedPipe) -> None:
    error: Exception | None = None
    try:
        while not pipe.reader_gone:
            buffer = bytearray(_AHEAD // 2)
            count = raw.readinto(buffer)
            if count is None:  # it does not block, then, and nothing tells when there is something
                time.sleep(_PAUSE)
                continue
            if not count:
                break
            pipe.feed(memoryview(buffer)[:count])
    except (WsepError, OSError, ValueError) as caught:
        error = copy_error(caught)
    pipe.feed_eof(error)


class PolledInput:
    """The input of a process: what that does not take at once waits here, bounded.

    Attributes:
        broken: The command has closed its input, or has ended: what still comes is dropped.
        failed: A bug has, of this side.

    Raises:
        RuntimeError: No more threads can be had.
    """

    def __init__(
        self, file: io.BufferedWriter, wakeup: Wakeup, threads: list[threading.Thread]
    ) -> None:
        self._file = file
        self._raw: Any = file.raw
        self._wakeup = wakeup
        self._direct = hasattr(self._raw, "end_now")
        when_writable = getattr(self._raw, "when_writable", None)
        if when_writable is not None:
            when_writable(wakeup.set)
        # Guards changes of what follows, and is waited on by the thread, if there is one. It is
        # re-entrant, for what fails while it is held ends the input.
        self._changed = threading.Condition(threading.RLock())
        self._items: deque[_Item] = deque()
        self._size = 0
        self._given = 0
        self.broken = self.failed = False
        self._over = False  # the end is among the items, or was
        self._closed = False
        if not self._direct:
            # Ends when this is closed, after the process is.
            threads.append(start_thread(self._write_all, name="wsep-stdin", died=self._died))

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return self._size

    @property
    def full(self) -> bool:
        """Whether nothing more is to be put in for now."""
        return self._size >= INPUT_LIMIT + MAX_MESSAGE

    @property
    def waits(self) -> bool:
        """Whether there is something that the command has not taken."""
        return bool(self._items)

    def fileno(self) -> int:
        """Return the descriptor to poll for writing while :attr:`waits`; -1 if there is none."""
        if self._direct and hasattr(self._raw, "poll_fileno"):
            descriptor: int = self._raw.poll_fileno()
            return descriptor
        return -1

    def given(self) -> int:
        """Return how many bytes the command was given, or were dropped, since this was asked."""
        with self._changed:
            given, self._given = self._given, 0
        return given

    def put(self, item: Buffer | None) -> None:
        """Write input, as far as it is taken now, or ``None`` for the end; keep the rest."""
        with self._changed:
            if item is None:
                if self._over:
                    return
                self._over = True
                self._items.append(None)
            elif self.broken or self._over:
                self._given += len(item)
                return
            else:
                self._append(item)
            self._changed.notify_all()
        if self._direct:
            self.write()

    def put_end_of_file(self) -> None:
        """Send a terminal's end-of-file character, in its turn: it goes on, unlike after an end."""
        if self._direct:
            if character := self._raw.end_of_file():
                self.put(character)
            return
        send_eof: Callable[[], None] | None = getattr(self._raw, "send_eof", None)
        if send_eof is None:
            self.put(_END_OF_FILE)
            return
        with self._changed:
            self._items.append(send_eof)
            self._changed.notify_all()

    def _append(self, data: Buffer) -> None:
        """Requires holding the lock."""
        self._size += len(data)
        last = self._items[-1] if self._items else None
        if isinstance(last, bytearray) and len(last) < _SMALL and len(data) < _SMALL:
            last += data
        else:
            self._items.append(bytearray(data) if len(data) < _SMALL and self._items else data)

    def write(self) -> bool:
        """Write one piece of what waits, as far as it is taken now; blocks in nothing.

        One, so that whoever sends can be told in time how much was taken.

        Returns:
            Whether all of the piece was taken, so that there is more to be written at once.
        """
        # With the lock, which is never held for long here: of a session, several write.
        with self._changed:
            if not self._direct or not self._items or self._closed:
                return False
            item = self._items[0]
            assert not callable(item)
            try:
                if item is None:
                    if self.broken or self._raw.end_now():
                        self._items.popleft()
                    return False
                count = self._raw.write_now(item)
            except (OSError, ValueError):
                self._break()
                return False
            self._size -= count
            self._given += count
            if count == len(item):
                self._items.popleft()
                return bool(self._items)
            if count:
                self._items[0] = memoryview(item)[count:]
            return False

    def _break(self) -> None:
        with self._changed:
            self.broken = True
            waiting = sum(len(item) for item in self._items if item and not callable(item))
            self._items.clear()
            self._given += waiting
            self._size -= waiting

    def _died(self, _error: Exception) -> None:
        self.failed = True
        self._break()
        self._wakeup.set()

    def _write_all(self) -> None:
        """Write in the loop's place: the input can only block."""
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                item = self._items.popleft()
            size = 0
            try:
                if item is None:
                    self._file.close()
                elif callable(item):
                    item()
                else:
                    size = len(item)
                    self._write_whole(item)
            except (OSError, ValueError):
                self._break()
            with self._changed:
                self._size = max(0, self._size - size)
                self._given += size
            self._wakeup.set()

    def _write_whole(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest and not self._closed:
            count = self._file.raw.write(rest)
            if count is None:  # as in _read_ahead
                time.sleep(_PAUSE)
            rest = rest[count or 0 :]

    def close(self) -> None:
        """Let the thread end; the process must have been closed, lest it be stuck in writing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class PolledEnd:
    """The end of a process."""

    def __init__(self, process: Process, wakeup: Wakeup, threads: list[threading.Thread]) -> None:
        self._process = process
        self._wakeup = wakeup
        self._status: ExitCode | WsepError | None = None  # as a thread has it
        # Kept, lest its number become another file's while it is polled.
        exit_watch: Callable[[], Pollable | None] = getattr(process, "exit_watch", lambda: None)
        self._watch = exit_watch()
        when_ended: Any = getattr(process, "when_ended", None)
        self._threaded = when_ended is None and self.fileno() < 0
        if when_ended is not None:
            when_ended(wakeup.set)
        elif self._threaded:
            # Ends when the command has, or the process is closed.
            threads.append(start_thread(self._wait, name="wsep-end", died=self._died))

    def fileno(self) -> int:
        """Return a descriptor that is readable once the command has ended; -1 if there is none."""
        return -1 if self._watch is None else self._watch.fileno()

    def _wait(self) -> None:
        self._status = _status(self._process, None)
        self._wakeup.set()

    def _died(self, error: Exception) -> None:
        self._status = WsepError(f"internal error: {type(error).__name__}")
        self._wakeup.set()

    def status(self) -> ExitCode | None:
        """Return how the command ended; ``None`` if it has not.

        Raises:
            WsepError: That cannot be known.
        """
        status = self._status if self._threaded else _status(self._process, 0)
        if isinstance(status, WsepError):
            try:
                raise copy_error(status)
            finally:
                del status  # no cycle may keep what this frame refers to
        return status


def _status(process: Process, timeout: float | None) -> ExitCode | WsepError | None:
    try:
        process.wait(timeout)
    except TimeoutError:
        return None
    except ExitError as error:
        return ExitCode(error.exit_code, error.message, error.signal)
    except WsepError as error:
        return copy_error(error)
    return ExitCode(0)
