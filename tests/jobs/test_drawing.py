"""Many clients that want a redraw at once: how often one is made, and by how many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from helpers import SECONDS, Task, eventually, read_until

from wsep_sync import Command, LocalExecer, Process
from wsep_sync.jobs import drawing
from wsep_sync.jobs.session import Session
from wsep_sync.terminals import Snapshot

COUNT = 20


class Gate:
    """Holds up every redraw, and counts them."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.opened = threading.Event()
        self.count = 0

    def draw(self, snapshot: Snapshot) -> bytes:
        self.count += 1
        self.begun.release()
        assert self.opened.wait(SECONDS)
        return b"drawn at %d columns." % snapshot.columns


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(drawing, "redraw", gate.draw)
    return gate


@pytest.fixture
def live() -> Iterator[Session]:
    yield from _session()


@pytest.fixture
def another() -> Iterator[Session]:
    yield from _session()


def _session() -> Iterator[Session]:
    live = Session(Command("sleep", ["1000"], tty=True, id="x", cols=81), LocalExecer())
    first = live.attach()
    try:
        yield live
    finally:
        live.close()
        first.close()


def drawers() -> int:
    return sum(thread.name == "wsep-redraw" for thread in threading.enumerate())


def see(process: Process) -> None:
    read_until(process.stdout, b"drawn at 81 columns.")


def test_all_who_wait_get_the_same(live: Session, gate: Gate) -> None:
    clients = [live.attach() for _ in range(COUNT)]
    tasks = [Task(see, client) for client in clients]
    try:
        assert gate.begun.acquire(timeout=SECONDS)
        eventually(
            lambda: sum(client.waits_for_redraw for client in live._audience) == COUNT, "all"
        )
        assert drawers() == 1
    finally:
        gate.opened.set()
    for task, client in zip(tasks, clients, strict=True):
        task.result()
        client.close()
    # One for those who had come when it was begun, and one for all the others.
    assert gate.count <= 2


def test_who_has_left_is_not_drawn_for(live: Session, gate: Gate) -> None:
    waiting = live.attach()
    with Task(see, waiting) as task:
        try:
            assert gate.begun.acquire(timeout=SECONDS)
            for _ in range(COUNT):
                client = live.attach()
                with Task(client.stdout.read, 1) as reading:
                    eventually(lambda: client.waits_for_redraw, "it waits")  # noqa: B023
                    client.close()
                    assert reading.result() == b""
            assert drawers() == 1
        finally:
            gate.opened.set()
        task.result()
    waiting.close()
    eventually(lambda: not drawers(), "the end of the thread")
    assert gate.count == 1


def test_each_session_has_its_turn(live: Session, another: Session, gate: Gate) -> None:
    one, other = live.attach(), another.attach()
    with Task(see, one) as task:
        try:
            assert gate.begun.acquire(timeout=SECONDS)
            with Task(see, other) as waiting:
                eventually(lambda: other.waits_for_redraw, "it waits")
                assert drawers() == 1
                gate.opened.set()
                waiting.result()
        finally:
            gate.opened.set()
        task.result()
    one.close()
    other.close()
    assert gate.count == 2


def test_a_thread_that_cannot_be_started_ends_no_other_redraw(
    live: Session, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    gate.opened.set()
    client = live.attach()
    with monkeypatch.context() as patch:
        patch.setattr(drawing, "start_thread", fail)
        with pytest.raises(MemoryError):
            client.stdout.read(1)
    client.close()
    again = live.attach()
    see(again)
    again.close()


def test_after_a_failure_there_is_live_output(
    live: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: Session) -> None:
        raise MemoryError

    monkeypatch.setattr(drawing, "_draw_for", fail)
    client = live.attach()
    with Task(client.stdout.read, 1) as reading:
        eventually(lambda: not client.stale, "the failure")
        client.stdin.write(b"x")
        client.stdin.flush()
        assert reading.result() == b"x"
    monkeypatch.undo()
    again = live.attach()
    again.close()
    client.close()
