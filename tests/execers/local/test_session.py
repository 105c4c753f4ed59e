"""The end of many commands at once: how often all processes are looked at for it."""

from __future__ import annotations

import threading

import pytest
from helpers import SECONDS, Task, eventually

from wsep_sync import Command, ExitError, LocalExecer
from wsep_sync.execers.local import session
from wsep_sync.execers.local.session import ProcessSession

COUNT = 20


class Looks:
    """Holds up the first look at /proc, and counts them all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.count = 0
        self._take = session._Look.take
        monkeypatch.setattr(session._Look, "take", lambda look: self._taken(look))

    def _taken(self, look: session._Look) -> None:
        self.count += 1
        self.begun.set()
        self.opened.wait()
        self._take(look)


def test_those_who_wait_share_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "sleep 1000 & echo; wait"
    execer = LocalExecer()
    processes = [execer.start(Command("bash", ["-c", script])) for _ in range(COUNT)]
    try:
        members = []
        for process in processes:
            assert process.stdout.read(1) == b"\n"
            members.append(ProcessSession(process.pid))
        looks = Looks(monkeypatch)
        with Task(members[0].lives) as first:
            try:
                assert looks.begun.wait(SECONDS)
                others = [Task(one.lives) for one in members[1:]]
                wanted = {process.pid for process in processes[1:]}
                eventually(lambda: session._table._next.sessions == wanted, "all of them")
            finally:
                looks.opened.set()
            assert first.result()
            assert all(task.result() for task in others)
        assert looks.count == 2
    finally:
        for process in processes:
            process.close()
            process.stdout.close()
            process.stderr.close()
    assert not any(one.lives() for one in members)


def test_a_handler_ends_a_command_in_the_midst_of_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    execer = LocalExecer()
    one, other = (execer.start(Command("sleep", ["1000"])) for _ in range(2))
    stat, handled = session._stat, []

    def interrupted(pid: int) -> session._Stat | None:
        if session._table._looking._is_owned() and not handled:  # type: ignore[attr-defined]
            handled.append(pid)
            other.close()
        return stat(pid)

    monkeypatch.setattr(session, "_stat", interrupted)
    one.close()
    assert handled
    for process in (one, other):
        with pytest.raises(ExitError):
            process.wait(0)
        process.stdout.close()
        process.stderr.close()


def test_a_look_that_fails_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalExecer().start(Command("bash", ["-c", "sleep 1000 & echo; wait"])) as process:
        assert process.stdout.read(1) == b"\n"
        members = ProcessSession(process.pid)
        with monkeypatch.context() as patch:
            patch.setattr("os.listdir", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                members.lives()
        assert members.lives()
        process.close()
        process.stdout.close()
        process.stderr.close()
        assert not members.lives()
