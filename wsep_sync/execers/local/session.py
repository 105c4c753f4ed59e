"""The processes of a command's session, as /proc shows them: :class:`ProcessSession`."""

from __future__ import annotations

import contextlib
import os
import signal as signals
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

    def signal(self, signal: signals.Signals, others: bool = False) -> bool:
        """Signal all of it but the leader; return whether there was anybody who had not ended.

        Args:
            others: Not those of the leader's group.
        """
        members = self._members()
        if members is None:
            return False
        if not others:
            with suppress_system():
                os.killpg(self._leader, signal)
        for pid, stat in members.items():
            if stat.group != self._leader:
                _signal_process(pid, stat.began, signal)
        return bool(members)

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
        found = {}
        for entry in os.listdir("/proc"):
            stat = _stat(int(entry)) if entry.isdecimal() else None
            if stat is None or stat.session != self._leader:
                continue
            if int(entry) != self._leader:
                # Orphans that have ended still count until process 1 reaps them, which is late in
                # many a container, if ever.
                if not stat.ended:
                    found[int(entry)] = stat
            elif stat.began != self._began:
                return {}  # another's session
        return found


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
