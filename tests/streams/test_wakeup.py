"""Waiting for a descriptor, and being woken."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from helpers import Task, blocked

from wsep_sync.streams.wakeup import READ, WRITE, Wakeup, wait_for


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    with closing(os.fdopen(reader, "rb", 0)), closing(os.fdopen(writer, "wb", 0)):
        yield reader, writer


def fill(writer: int) -> None:
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(65536))
    except BlockingIOError:
        pass


def readable(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def test_is_readable_while_set() -> None:
    wakeup = Wakeup()
    assert not readable(wakeup)
    wakeup.set()
    wakeup.set()
    assert readable(wakeup)
    assert readable(wakeup)
    wakeup.clear()
    assert not readable(wakeup)


def test_clearing_what_is_not_set_does_not_block() -> None:
    Wakeup().clear()


def test_setting_it_any_number_of_times_does_not_block() -> None:
    wakeup = Wakeup()
    # An eventfd counts; one short of its largest number, the next set would block.
    os.write(wakeup.fileno(), (2**64 - 2).to_bytes(8, "little"))
    wakeup.set()
    wakeup.set()
    assert readable(wakeup)
    wakeup.clear()
    assert not readable(wakeup)


def test_its_descriptor_is_closed_with_it_and_not_inherited() -> None:
    wakeup = Wakeup()
    descriptor = wakeup.fileno()
    assert not os.get_inheritable(descriptor)
    del wakeup
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_readable_when_there_are_bytes(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    assert not wait_for(reader, READ, None, 0)
    os.write(writer, b"x")
    assert wait_for(reader, READ, None, None)


def test_readable_at_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.dup2(reader, writer)  # closes the writing end, and keeps the number in use
    assert wait_for(reader, READ, Wakeup(), None)


def test_writable_while_there_is_room(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    assert wait_for(writer, WRITE, None, None)
    fill(writer)
    assert not wait_for(writer, WRITE, None, 0)


def test_woken_while_it_waits_for_bytes(pipe: tuple[int, int]) -> None:
    wakeup = Wakeup()
    with Task(wait_for, pipe[0], READ, wakeup) as waiting:
        blocked(waiting)
        wakeup.set()
        assert waiting.result() is False


def test_woken_while_it_waits_for_room(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    wakeup = Wakeup()
    with Task(wait_for, pipe[1], WRITE, wakeup) as waiting:
        blocked(waiting)
        wakeup.set()
        assert waiting.result() is False


def test_one_wakeup_wakes_every_thread(pipe: tuple[int, int]) -> None:
    wakeup = Wakeup()
    waiting = [Task(wait_for, pipe[0], READ, wakeup) for _ in range(5)]
    for task in waiting:
        blocked(task)
    wakeup.set()
    assert [task.result() for task in waiting] == [False] * 5


def test_a_descriptor_that_is_ready_counts_though_woken(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"x")
    wakeup = Wakeup()
    wakeup.set()
    assert wait_for(reader, READ, wakeup, None)


def test_a_timeout_is_not_shorter_than_asked_for(pipe: tuple[int, int]) -> None:
    # poll(2) counts whole milliseconds: rounding down would make callers spin.
    for timeout in (0.0004, 0.0016, 0.02):
        before = time.monotonic()
        assert not wait_for(pipe[0], READ, Wakeup(), timeout)
        assert time.monotonic() - before >= timeout


def test_a_terminal_that_everybody_left_is_readable_and_takes_little() -> None:
    master, slave = os.openpty()
    with closing(os.fdopen(master, "rb", 0)):
        os.close(slave)
        assert wait_for(master, READ, None, None)
        # The kernel goes on taking what nobody will read, up to its buffer's size; and it makes
        # room once or twice when it moves bytes from one buffer to the next behind our back.
        while wait_for(master, WRITE, None, None):
            fill(master)


def test_waits_in_many_threads_while_it_is_set_and_cleared(pipe: tuple[int, int]) -> None:
    wakeup = Wakeup()
    stop = threading.Event()

    def wait_often() -> None:
        while not stop.is_set():
            assert not wait_for(pipe[0], READ, wakeup, 1)

    waiting = [Task(wait_often) for _ in range(3)]
    for _ in range(200):
        wakeup.set()
        wakeup.clear()
    stop.set()
    wakeup.set()
    for task in waiting:
        task.result()
