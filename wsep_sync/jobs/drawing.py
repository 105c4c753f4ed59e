"""Redraws for the clients of sessions, one after the other: :func:`ask`.

A redraw may take a third of a second of the processor's time, and many clients may want one at
once: all, after the network was away; or one that attaches and leaves, and attaches again. So one
thread makes them, of one session after the other, and a redraw is for all clients of its session
who wait for one when it is begun. Who has left by then is not drawn for.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..log import log, log_event
from ..terminals import Snapshot, redraw, replay
from ..threads import start_thread

if TYPE_CHECKING:
    from .client import Client
    from .session import Session

__all__ = ["ask"]


class _Artist:
    """The thread, while there is anything to be drawn."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards what follows; nothing is waited for with it
        self._sessions: dict[Session, None] = {}  # whose clients wait, in the order they came in
        self._current: Session | None = None
        self._runs = False

    def ask(self, session: Session) -> None:
        with self._lock:
            self._sessions[session] = None
            if self._runs:
                return
            self._runs = True
        try:
            # Ends when nobody waits any more, and each redraw is bounded. A daemon: who waits for
            # one is a client, and has its own end.
            start_thread(self._run, name="wsep-redraw", died=self._give_up)
        except BaseException as error:
            if not isinstance(error, RuntimeError):
                self._give_up(error)
                raise
            # To the kernel threads are processes, of which it has enough.
            try:
                self._run()
            except BaseException as another:
                self._give_up(another)
                raise

    def _run(self) -> None:
        while (session := self._next()) is not None:
            _draw_for(session)

    def _next(self) -> Session | None:
        with self._lock:
            self._current = next(iter(self._sessions), None)
            if self._current is None:
                self._runs = False
            else:
                del self._sessions[self._current]
            return self._current

    def _give_up(self, _error: BaseException) -> None:
        """Let those who wait have what comes from now on, which is better than nothing."""
        with self._lock:
            sessions = [*self._sessions, *([self._current] if self._current else [])]
            self._sessions.clear()
            self._current = None
            self._runs = False
        for session in sessions:
            with session._lock:
                for client in session._audience:
                    if client.waits_for_redraw:
                        client.stale = False
                        client.end_redraw()

    def leave_to_parent(self) -> None:
        """Be as new, in a process that was forked: the thread is not there."""
        self._begin()


def _draw_for(session: Session) -> None:
    """Make the redraw of all clients of a session who wait for one."""
    with session._lock:
        clients = [client for client in session._audience if client.waits_for_redraw]
    # The second time for those for whom too much has come meanwhile, in the way whose time is
    # bounded. If that is too slow as well, it is read all the same, and then there is another: a
    # flood must not put it off for ever.
    for make in (redraw, replay):
        behind, snapshot = session._begin_queues(clients)
        if snapshot is None:
            break
        for client, (data, lost) in _draw(session, make, behind, snapshot):
            client.set_redraw(data, snapshot.in_alt, lost)
    with session._lock:
        for client in clients:
            client.end_redraw()


def _draw(
    session: Session,
    make: Callable[[Snapshot], bytes],
    clients: list[Client],
    snapshot: Snapshot,
) -> Iterator[tuple[Client, tuple[bytes, bool]]]:
    """Yield each client with its redraw, and whether that lacks something."""
    made: dict[int, tuple[bytes, bool]] = {}  # by how many bytes are left out
    for client in clients:
        if not client.attached:
            continue
        if (too_early := client.too_early) not in made:
            try:
                source = snapshot.without_last(too_early) if too_early else snapshot
                made[too_early] = make(source), snapshot.lost
            except Exception as error:
                # Live output, which follows, is better than none.
                made[too_early] = b"", True
                reason = f"internal error in a redraw: {type(error).__name__}"
                log_event(logging.ERROR, "failure", id=session.command.id, reason=reason)
                log.debug("internal error in a redraw", exc_info=True)
        yield client, made[too_early]


_artist = _Artist()


def ask(session: Session) -> None:
    """Have those clients of a session be redrawn who wait for that; wakes each when it is made.

    Blocks if no more threads can be had, while it is made. Safe from any thread that does not hold
    the lock of a session.
    """
    _artist.ask(session)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_artist.leave_to_parent)
