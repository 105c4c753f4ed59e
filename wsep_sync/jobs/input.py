"""What all clients of a session type, in one queue: :class:`SharedInput`."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable

from ..errors import WsepError
from ..protocol.messages import Buffer
from ..streams.wakeup import Wakeup
from .client import Client, has_left
from .polled import PolledInput

__all__ = ["SharedInput"]

# How many bytes of input may wait for a command that does not read; and how many are written, and
# counted, at once.
_INPUT_LIMIT = 1 << 16

# And of what the server itself answers to a program that nobody is there to answer: one that asks
# without end is not to fill what others type into.
_REPLIES_LIMIT = 1 << 12


class SharedInput:
    """The input of a session's command.

    Args:
        lock: The session's, which guards all of this.

    Attributes:
        active: When a client last typed, in seconds since the epoch; 0 is never.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._changed = threading.Condition(lock)  # waited on by those who write
        # Both while the command runs, and no longer: they hold descriptors.
        self._input: PolledInput | None = None
        self._wakeup: Wakeup | None = None
        self._over = False  # the command takes none any more: it has left its terminal, or ended
        self._typed = 0  # how often anybody has
        self.active = 0.0

    def begin(self, input: PolledInput, wakeup: Wakeup) -> None:
        """The command has been started, and the wakeup is its loop's; requires holding the lock."""
        assert self._lock.locked()
        self._input, self._wakeup = input, wakeup

    def refuse(self) -> None:
        """Let nobody write any more, or wait for it; requires holding the lock."""
        assert self._lock.locked()
        self._over = True
        self._changed.notify_all()

    def end(self) -> None:
        """The session has ended; requires holding the lock."""
        self.refuse()
        self._input = self._wakeup = None

    def leave(self) -> None:
        """A client has left, and is to wait no more; requires holding the lock."""
        assert self._lock.locked()
        self._changed.notify_all()

    def write(self, client: Client, data: bytes | None) -> None:
        """Write input of a client, ``None`` for the end of the file; block while much waits.

        What the command does not take at once is queued: a write that blocked could not be called
        off when its client leaves.
        """
        if client.read_only:
            return
        with self._lock:
            while not self._offer(client, data):
                self._changed.wait()

    def write_now(self, client: Client, data: Buffer | None) -> int:
        """Take input of a client, or its end, if not too much waits; return how much, perhaps none.

        What came together stays together. Who is refused is woken when there is room.
        """
        size = 1 if data is None else len(data)
        if client.read_only:
            return size
        with self._lock:
            if self._offer(client, data):
                return size
            client.held_up = True
            return 0

    def _offer(self, client: Client, data: Buffer | None) -> bool:
        """Take a client's input, unless too much waits; requires holding the lock."""
        assert self._lock.locked()
        if not client.attached:
            raise has_left()
        if self._over:
            raise BrokenPipeError(errno.EPIPE, "the command has ended")
        input = self._input
        if input is None or input.size >= _INPUT_LIMIT:
            return False
        self.active = time.time()
        self._typed += 1
        client.typed = self._typed
        self._put(input, data)
        return True

    def answer(self, make: Callable[[], bytes]) -> None:
        """Write an answer of the server's own, which is made without the lock, if it is taken."""
        with self._lock:
            if not self._takes_answers():
                return
        answers = make()
        with self._lock:
            input = self._input
            if answers and input is not None and self._takes_answers():
                self._put(input, answers)

    def _takes_answers(self) -> bool:
        """Requires holding the lock."""
        assert self._lock.locked()
        return not self._over and self._input is not None and self._input.size < _REPLIES_LIMIT

    def _put(self, input: PolledInput, data: Buffer | None) -> None:
        """Write input, and queue what is not taken now; requires holding the lock."""
        assert self._lock.locked()
        if data is None:
            input.put_end_of_file()
        else:
            input.put(data)
        if input.waits and self._wakeup is not None:
            self._wakeup.set()
        if input.broken:
            self.refuse()

    def moved(self, input: PolledInput, clients: Iterable[Client]) -> None:
        """Tell who waits to write that some of the input has been written, if so."""
        if input.failed:
            raise WsepError("the thread that writes input has died")
        if not input.given() and not input.broken:
            return
        with self._lock:
            if input.broken:
                self.refuse()
            self._changed.notify_all()
            for client in clients:
                if client.held_up:
                    client.held_up = False
                    client.notify()
