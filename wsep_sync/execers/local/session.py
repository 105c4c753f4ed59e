"""The processes of a command's session, as /proc shows them: :class:`ProcessSession`."""

from __future__ import annotations

import contextlib
import os
import signal as signals
import threading
from dataclasses import dataclass

from ...errors import suppress_system

__all__ = [
    "ProcessSession",
]


class ProcessSession:
    """The processes of a command's session, its group among them. To be made before it is reaped.

    On Linux /proc tells of them. Elsewhere only the group is known, by its number.

    A process is signalled only after a look at when it began, through a descriptor of it: its
    number may have become another's meanwhile. So may the session's own, once all of it has ended
    and the leader was reaped; then there is a leader that began at another time.
    """

    def __init__(self, leader: int) -> None:
        self._leader = leader
        stat = _stat(leader)
        self._began = None if stat is None else stat.began

    def kill(self) -> bool:
        """Kill all of it but the leader; return whether there was anybody who had not ended."""
        members = self._members()
        if members is None:
            return False
        with suppress_system():
            os.killpg(self._leader, signals.SIGKILL)
        self._signal_others(members, signals.SIGKILL)
        return bool(members)

    def signal_others(self, *numbers: signals.Signals) -> None:
        """Send each signal to all of it but the leader's group."""
        self._signal_others(self._members() or {}, *numbers)

    def _signal_others(self, members: dict[int, _Stat], *numbers: signals.Signals) -> None:
        for pid, stat in members.items():
            if stat.group != self._leader:
                for number in numbers:
                    _signal_process(pid, stat.began, number)

    def lives(self) -> bool:
        """Whether there is anybody, besides the leader, who has not ended."""
        members = self._members()
        if members is not None:
            return bool(members)
        try:
            os.killpg(self._leader, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _members(self) -> dict[int, _Stat] | None:
        """Return those who have not ended, or ``None`` where that cannot be known."""
        if self._began is None:
            return None
        if (leader := _stat(self._leader)) is not None and leader.began != self._began:
            return {}  # another's session
        members = _table.members(self._leader)
        members.pop(self._leader, None)
        return members


class _Look:
    """One look at all processes, for those who want to know of some sessions."""

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        self.found: dict[int, dict[int, _Stat]] | None = None  # of each: who has not ended

    def take(self) -> None:
        found: dict[int, dict[int, _Stat]] = {session: {} for session in self.sessions}
        for entry in os.listdir("/proc"):
            stat = _stat(int(entry)) if entry.isdecimal() else None
            # Orphans that have ended still count until process 1 reaps them, which is late in many
            # a container, if ever.
            if stat is not None and stat.session in found and not stat.ended:
                found[stat.session][int(entry)] = stat
        self.found = found


class _Table:
    """What /proc tells of processes. Thread-safe.

    A look at it takes as long as there are processes, and where many commands end at once, as when
    the clients of a server have all gone, each has to look several times. So those who want to know
    while somebody looks share the next look.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        # Reentrant, both: the handler of a signal may end another command in the midst of a look.
        self._lock = threading.RLock()  # guards which is the next, and its sessions
        self._next = _Look()
        self._looking = threading.RLock()  # the turn of the one who looks

    def members(self, session: int) -> dict[int, _Stat]:
        """Return the processes of a session that have not ended; no look begun before counts."""
        with self._lock:
            look = self._next
            look.sessions.add(session)
        with self._looking:
            if look.found is None:
                with self._lock:
                    self._next = _Look()
                look.take()
        assert look.found is not None
        return dict(look.found[session])


_table = _Table()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_table.begin)  # the one who looks is not there


@dataclass(frozen=True)
class _Stat:
    """What Linux tells of a process; see proc_pid_stat(5)."""

    ended: bool
    group: int
    session: int
    began: int


def _stat(pid: int) -> _Stat | None:
    """Return what is known of a process, if it is there and not hidden (the option hidepid)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The name before the last parenthesis may hold spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0] in (b"Z", b"X"), int(fields[2]), int(fields[3]), int(fields[19]))


def _signal_process(pid: int, began: int, signal: signals.Signals) -> None:
    """Signal a process if it is the one that began then."""
    with suppress_system(), contextlib.ExitStack() as cleanup:
        if not hasattr(os, "pidfd_open") or not hasattr(signals, "pidfd_send_signal"):
            os.kill(pid, signal)
            return
        descriptor = os.pidfd_open(pid)
        cleanup.callback(os.close, descriptor)
        stat = _stat(pid)
        if stat is not None and stat.began == began:
            signals.pidfd_send_signal(descriptor, signal)
