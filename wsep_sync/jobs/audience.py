"""Who gets a session's output, and which of them is asked: :class:`Audience`.

Of several clients one is asked: its terminal answers what the program asks, and the others get the
output without that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ..terminals import Recording, Snapshot
from ..terminals.answers import QueryFilter, asks, unfinished
from .client import Client

__all__ = ["Audience"]


class Audience:
    """The clients that are attached to a session.

    Args:
        lock: The session's, which guards all of this, and every client's queue.

    Attributes:
        held_back: How many of the last bytes of what is recorded those who are not asked are yet
            to get.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._clients: dict[Client, None] = {}  # in the order in which they came
        # What those get who are not asked; there is one while there are several clients. Fed by
        # the output's thread alone, without the lock.
        self._filter: QueryFilter | None = None
        self.held_back = 0
        self._question = b""  # the beginning of one, at the end of the output; for its thread alone

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    def add(self, client: Client, recording: Recording | None) -> None:
        """Let a client have what is recorded from now on; requires holding the lock."""
        assert self._lock.locked()
        if not self._clients:
            self._filter = None
        else:
            if self._filter is None and recording is not None:
                self._filter = QueryFilter(recording.snapshot())
                self.held_back = len(self._filter.held)
            client.unfiltered = False
        self._clients[client] = None

    def remove(self, client: Client) -> None:
        """Let it have nothing any more; requires holding the lock."""
        assert self._lock.locked()
        self._clients.pop(client, None)

    def feed(self, recording: Recording, data: bytes) -> tuple[Snapshot, bytes] | None:
        """Record output, and put it into every client's queue.

        Returns:
            What asks a terminal something, if there is none that may answer, and the recording, of
            which it is the end.
        """
        question = self._question + data
        self._question = unfinished(question)
        while True:
            with self._lock:
                if self._filter is not None:
                    self._choose_asked(recording)
                query_filter = self._filter
            # Without the lock: there is output that makes it slow.
            filtered = data if query_filter is None else query_filter.feed(data)
            with self._lock:
                if self._filter is not query_filter:
                    # In vain, for somebody has just come or left: there is none any more, or a new
                    # one, which has seen nothing of this.
                    continue
                self.held_back = 0 if self._filter is None else len(self._filter.held)
                recording.feed(data)
                if self._put(data, filtered, recording.alt_generation) or not asks(question):
                    return None
                return recording.snapshot(), question

    def _put(self, data: bytes, filtered: bytes, alt_generation: int) -> bool:
        """Return whether there is somebody whose terminal may answer; requires holding the lock."""
        asked = False
        for client in self._clients:
            live = client.put(data if client.unfiltered else filtered, alt_generation)
            asked = asked or (live and client.unfiltered and not client.read_only)
        return asked

    def _choose_asked(self, recording: Recording) -> None:
        """Let the one who typed last, or else came first, have all of the output.

        Between sequences, lest anybody get one half of a query; or when the one who had the first
        half has left, and somebody else gets it before the second. Requires holding the lock.
        """
        assert self._lock.locked()
        able = [client for client in self._clients if not client.read_only]
        if self.held_back and any(client.unfiltered for client in able):
            return
        held = self._filter.held if self._filter is not None and self.held_back else b""
        if len(self._clients) < 2:
            self._filter = None
        asked = max(able, key=lambda client: client.typed, default=None)
        for client in self._clients:
            raw = self._filter is None or client is asked
            if held and client.unfiltered:
                raw = True  # one who watches, and has had it
            elif held and raw:
                client.put(held, recording.alt_generation)
            client.unfiltered = raw
