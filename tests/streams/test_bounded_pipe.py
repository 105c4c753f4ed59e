"""A pipe in memory that holds so much and no more."""

from __future__ import annotations

import io
import os
import shutil
import threading
import tracemalloc
from collections.abc import Callable

import pytest
from helpers import Task, blocked, eventually
from hypothesis import given
from hypothesis import strategies as st

from wsep_sync.errors import ExitMissing
from wsep_sync.streams.bounded_pipe import BoundedPipe, PipeReader
from wsep_sync.streams.files import buffered_reader

# BoundedPipe


def fed(pipe: BoundedPipe, *chunks: bytes) -> BoundedPipe:
    for chunk in chunks:
        pipe.feed(chunk)
    return pipe


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 30)), st.integers(1, 100))
def test_whatever_the_pieces_the_bytes_are_the_same(
    chunks: list[bytes], sizes: list[int], rest: int
) -> None:
    pipe = fed(BoundedPipe(1 << 20), *chunks)
    pipe.feed_eof()
    got = b""
    for size in [*sizes, *[rest] * (len(b"".join(chunks)) // rest + 1)]:
        buffer = bytearray(size)
        count = pipe.readinto(buffer)
        assert count or got == b"".join(chunks)
        got += buffer[:count]
    assert got + pipe.read_all() == b"".join(chunks)


def test_feeding_blocks_at_the_limit_and_goes_on_when_read() -> None:
    pipe = fed(BoundedPipe(10_000), bytes(9000))
    with Task(pipe.feed, bytes(2000)) as feeding:
        blocked(feeding)
        assert pipe.readinto(bytearray(999)) == 999
        blocked(feeding)
        assert pipe.readinto(bytearray(1)) == 1
        feeding.result()
    assert pipe.readinto(bytearray(20_000)) == 10_000


def test_one_chunk_may_exceed_the_limit_or_nothing_would_ever_come() -> None:
    pipe = fed(BoundedPipe(10), bytes(64_000))
    with Task(pipe.feed, b"x") as feeding:
        blocked(feeding)
        assert pipe.readinto(bytearray(64_000)) == 64_000
        feeding.result()


def test_feeding_nothing_neither_blocks_nor_counts() -> None:
    pipe = fed(BoundedPipe(10), bytes(10), b"", b"")
    assert pipe.readinto(bytearray(20)) == 10


def test_tiny_chunks_are_bounded_too() -> None:
    # A command that writes byte by byte makes a message of each; every one costs some 300 bytes.
    pipe = BoundedPipe(1 << 17)
    fed_bytes = 0

    def feed() -> None:
        nonlocal fed_bytes
        while not done.is_set():
            pipe.feed(memoryview(b'{"type":"stdout"}\n' + b"x")[18:])
            fed_bytes += 1

    done = threading.Event()
    tracemalloc.start()
    try:
        with Task(feed) as feeding:
            blocked(feeding)
            assert tracemalloc.get_traced_memory()[0] < 1 << 19
            done.set()
            pipe.close_reader()
            feeding.result()
    finally:
        tracemalloc.stop()
    assert fed_bytes > 100


def test_closing_the_reader_wakes_who_feeds_and_drops_the_rest() -> None:
    pipe = fed(BoundedPipe(10), bytes(10))
    reader = buffered_reader(PipeReader(pipe))
    with Task(pipe.feed, bytes(10)) as feeding:
        blocked(feeding)
        reader.close()
        feeding.result()
    for _ in range(3):
        pipe.feed(bytes(10))  # never blocks again


def test_what_is_dropped_counts_as_taken() -> None:
    taken: list[int] = []
    told: list[str] = []
    pipe = BoundedPipe(400, taken.append, lambda: told.append("closed"))
    fed(pipe, bytes(90))
    pipe.close_reader()  # perhaps in a finaliser, so nothing is sent by it
    assert (taken, told) == ([], ["closed"])
    pipe.tell_taken()
    assert taken == [90]
    fed(pipe, bytes(60), bytes(60))
    assert taken == [90, 210]


def test_who_takes_the_rest_wakes_who_feeds_and_keeps_it() -> None:
    pipe = fed(BoundedPipe(10), bytes(10))
    with Task(pipe.feed, b"x" * 10) as feeding:
        blocked(feeding)
        pipe.take_the_rest()
        feeding.result()
    pipe.feed_eof()
    assert pipe.read_all() == bytes(10) + b"x" * 10


def test_the_end_wakes_who_feeds() -> None:
    pipe = fed(BoundedPipe(10), b"0123456789")
    with Task(pipe.feed, b"late") as feeding:
        blocked(feeding)
        pipe.feed_eof()
        feeding.result()
    pipe.feed(b"later")
    assert pipe.read_all() == b"0123456789"


def test_closing_the_pipe_wakes_who_reads() -> None:
    for read in (BoundedPipe.read_all, lambda pipe: pipe.readinto(bytearray(1))):
        pipe = BoundedPipe()
        with Task(read, pipe) as reading:
            blocked(reading)
            pipe.close_reader()
            assert not reading.result()


def test_every_reader_is_woken_by_the_end() -> None:
    pipe = BoundedPipe()
    reading = [Task(pipe.readinto, bytearray(1)) for _ in range(4)]
    for task in reading:
        blocked(task)
    pipe.feed_eof()
    assert [task.result() for task in reading] == [0] * 4


def test_several_readers_share_what_comes() -> None:
    pipe = BoundedPipe(1000)
    counts = [0, 0, 0]

    def read(number: int) -> None:
        while count := pipe.readinto(bytearray(7)):
            counts[number] += count

    reading = [Task(read, number) for number in range(3)]
    for _ in range(500):
        pipe.feed(bytes(100))
    pipe.feed_eof()
    for task in reading:
        task.result()
    assert sum(counts) == 50_000


def test_an_error_comes_after_the_data_and_stays() -> None:
    pipe = fed(BoundedPipe(), b"abc")
    reader = buffered_reader(PipeReader(pipe))
    pipe.feed_eof(ExitMissing("lost"))
    pipe.feed_eof(ExitMissing("too late to count"))
    assert reader.read(3) == b"abc"
    for use in (reader.read, reader.read1, reader.readline, reader.raw.readall):
        with pytest.raises(ExitMissing, match="lost"):
            use()
    reader.close()


def test_an_error_wakes_who_reads() -> None:
    pipe = BoundedPipe()
    with Task(pipe.readinto, bytearray(1)) as reading:
        blocked(reading)
        pipe.feed_eof(ExitMissing("lost"))
        with pytest.raises(ExitMissing, match="lost"):
            reading.result()


def test_an_error_costs_no_data() -> None:
    pipe = fed(BoundedPipe(), b"abc")
    pipe.feed_eof(ExitMissing("lost"))
    with buffered_reader(PipeReader(pipe)) as reader:
        assert reader.read1(2) == b"ab"
        assert reader.read1(2) == b"c"
        with pytest.raises(ExitMissing, match="lost"):
            reader.read1(2)


def test_no_error_for_who_has_closed() -> None:
    pipe = fed(BoundedPipe(), b"abc")
    pipe.feed_eof(ExitMissing("lost"))
    pipe.close_reader()
    assert pipe.readinto(bytearray(5)) == 0
    assert pipe.read_all() == b""


def test_an_error_that_is_raised_holds_no_frames() -> None:
    error = ExitMissing("lost")
    pipe = BoundedPipe()
    pipe.feed_eof(error)
    with pytest.raises(ExitMissing) as caught:
        pipe.readinto(bytearray(1))
    assert caught.value is not error
    assert error.__traceback__ is None


def test_it_tells_when_nobody_ever_reads() -> None:
    pipe = fed(BoundedPipe(1000), bytes(1000))
    assert pipe.unread_for() is None  # full, but nobody is held up
    with Task(pipe.feed, b"x") as feeding:
        eventually(lambda: pipe.unread_for() is not None, "a pipe that is full and unread")
        first = pipe.unread_for()
        assert first is not None
        eventually(lambda: (pipe.unread_for() or 0) > first, "time to pass")
        pipe.readinto(bytearray(1))
        feeding.result()
    # A reader that is slow is no reader that is missing.
    with Task(pipe.feed, b"x") as feeding:
        blocked(feeding)
        assert pipe.unread_for() is None
        pipe.close_reader()
        feeding.result()


def test_what_is_fed_is_not_copied() -> None:
    data = bytearray(b"abc")
    pipe = fed(BoundedPipe(), data)
    data[0] = ord("x")
    buffer = bytearray(3)
    pipe.readinto(buffer)
    assert buffer == b"xbc"


def run_in_threads(*functions: Callable[[], object]) -> None:
    for task in [Task(function) for function in functions]:
        task.result()


def test_megabytes_through_a_small_pipe() -> None:
    data = os.urandom(3_000_000)
    pipe = BoundedPipe(100_000)
    got = io.BytesIO()

    def feed() -> None:
        for start in range(0, len(data), 63_982):
            pipe.feed(data[start : start + 63_982])
        pipe.feed_eof()

    with buffered_reader(PipeReader(pipe)) as reader:
        run_in_threads(feed, lambda: shutil.copyfileobj(reader, got))
    assert got.getvalue() == data
