"""The files that are read, as the io module and its users treat files."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import Task, blocked
from stream_sources import SOURCES, Source

from wsep_sync.streams.bounded_pipe import BoundedPipe, PipeReader
from wsep_sync.streams.descriptors import DescriptorReader, Handover
from wsep_sync.streams.files import buffered_reader
from wsep_sync.streams.wakeup import Wakeup


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    with SOURCES[request.param]() as source:
        yield source
        vars(source).clear()  # pytest keeps it, and with it the descriptor of stop, for longer


def test_read_blocks_for_all_it_was_asked_for(source: Source) -> None:
    source.feed(b"ab")
    with Task(source.reader.read, 4) as reading:
        blocked(reading)
        source.feed(b"cdef")
        assert reading.result() == b"abcd"
    source.end()
    assert source.reader.read(4) == b"ef"
    assert source.reader.read(4) == b""


def test_read1_gives_what_there_is(source: Source) -> None:
    source.feed(b"ab")
    assert source.reader.read1(100) == b"ab"
    with Task(source.reader.read1) as reading:
        blocked(reading)
        source.feed(b"cd")
        assert reading.result() == b"cd"


def test_read_to_the_end(source: Source) -> None:
    with Task(source.reader.read) as reading:
        source.feed(b"ab")
        blocked(reading)
        source.feed(b"cd")
        blocked(reading)
        source.end()
        assert reading.result() == b"abcd"


def test_lines(source: Source) -> None:
    source.feed(b"one\ntwo\n\nla")
    source.feed(b"st")
    source.end()
    assert source.reader.readline() == b"one\n"
    assert source.reader.readline(2) == b"tw"
    assert list(source.reader) == [b"o\n", b"\n", b"last"]


def test_a_line_arrives_before_the_end(source: Source) -> None:
    source.feed(b"one\ntw")
    assert source.reader.readline() == b"one\n"
    with Task(source.reader.readline) as reading:
        blocked(reading)
        source.feed(b"o\n")
        assert reading.result() == b"two\n"


def test_readlines_and_iteration_end(source: Source) -> None:
    source.feed(b"a\nb\n")
    source.end()
    assert source.reader.readlines() == [b"a\n", b"b\n"]
    assert next(source.reader, None) is None


def test_readinto(source: Source) -> None:
    buffer = bytearray(6)
    source.feed(b"abcd")
    assert source.reader.readinto1(buffer) == 4
    assert buffer == b"abcd\0\0"
    source.feed(b"123")
    source.end()
    assert source.reader.readinto(memoryview(buffer)[1:]) == 3
    assert buffer == b"a123\0\0"
    assert source.reader.readinto(buffer) == 0


def test_readinto_of_numbers(source: Source) -> None:
    import array

    numbers = array.array("I", [0, 0])
    source.feed(b"\1\0\0\0\2\0\0\0")
    source.end()
    assert source.reader.readinto(numbers) == 8
    assert list(numbers) == [1, 2]


def test_peek_takes_nothing(source: Source) -> None:
    source.feed(b"abc")
    assert source.reader.peek(1) == b"abc"
    assert source.reader.read1(1) == b"a"
    assert source.reader.peek() == b"bc"
    source.end()
    assert source.reader.read() == b"bc"


def test_reading_nothing_does_not_block(source: Source) -> None:
    assert source.reader.read(0) == b""
    assert source.reader.read1(0) == b""
    assert source.reader.readinto(bytearray()) == 0
    assert source.reader.raw.readinto(bytearray()) == 0
    assert source.reader.raw.read(0) == b""


def test_text(source: Source) -> None:
    source.feed("zwei Wörter\r\nund €".encode()[:-1])
    text = io.TextIOWrapper(source.reader, encoding="utf-8")
    assert text.readline() == "zwei Wörter\n"
    source.feed("€".encode()[-1:])
    source.end()
    assert text.read() == "und €"
    text.close()
    assert source.reader.closed


def test_copyfileobj(source: Source) -> None:
    data = os.urandom(300_000)
    into = io.BytesIO()

    def write() -> None:
        for start in range(0, len(data), 50_000):
            rest = memoryview(data)[start : start + 50_000]
            while rest:
                rest = rest[source.feed(rest) or len(rest) :]
        source.end()

    with Task(write) as writing:
        shutil.copyfileobj(source.reader, into)
        writing.result()
    assert into.getvalue() == data


def test_the_end_stays_the_end(source: Source) -> None:
    source.end()
    for _ in range(3):
        assert source.reader.read() == b""
        assert source.reader.read1() == b""
        assert source.reader.readline() == b""
        assert source.reader.raw.read(10) == b""
        assert source.reader.raw.readall() == b""


@pytest.mark.parametrize("method", ["read", "read1", "readline", "peek"])
def test_stopping_wakes_a_reader(source: Source, method: str) -> None:
    with Task(getattr(source.reader, method)) as reading:
        blocked(reading)
        source.stop()
        assert reading.result() == b""


def test_what_had_arrived_is_read_after_stopping(source: Source) -> None:
    source.feed(b"abc")
    assert source.reader.read(1) == b"a"
    source.stop()
    assert source.reader.read() == b"bc"


def test_a_closed_reader_says_so(source: Source) -> None:
    with source.reader as reader:
        assert reader.readable()
        assert not reader.writable()
        assert not reader.seekable()
        assert not reader.closed
        assert reader.raw.mode == "rb"  # type: ignore[attr-defined]
    assert reader.closed
    reader.close()
    for use in (reader.read, reader.readline, reader.read1, reader.peek):
        with pytest.raises(ValueError, match="closed"):
            use()
    for use in (reader.raw.readall, lambda: reader.raw.readinto(bytearray(1))):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match="closed"):
        reader.fileno()


def test_nothing_else_can_be_done_with_a_reader(source: Source) -> None:
    with pytest.raises(io.UnsupportedOperation):
        source.reader.write(b"x")
    with pytest.raises(OSError):  # noqa: PT011 - what is said differs between Pythons
        source.reader.seek(0)


def test_ready_tells_whether_reading_would_block(source: Source) -> None:
    raw: Any = source.reader.raw
    assert raw.ready(0) is False
    with Task(raw.ready, None) as waiting:
        blocked(waiting)
        source.feed(b"x")
        assert waiting.result() is True
    assert source.reader.read1() == b"x"
    assert raw.ready(0.001) is False
    with Task(raw.ready, None) as waiting:
        blocked(waiting)
        source.stop()
        assert waiting.result() is True
    assert source.reader.read() == b""


def test_ctrl_c_interrupts_a_read() -> None:
    code = """
import os, sys
from wsep_sync.streams import *
from wsep_sync.streams.wakeup import Wakeup
pipe = BoundedPipe()
reading, writing = os.pipe()
files = {"memory": PipeReader(pipe), "pipe": DescriptorReader(Handover(reading), Wakeup())}
with buffered_reader(files[sys.argv[1]]) as file:
    try:
        print("reading", flush=True)
        file.read()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
os.close(writing)
"""
    for kind in ("memory", "pipe"):
        command = [sys.executable, "-W", "error", "-c", code, kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "reading\n"
            child.send_signal(signal.SIGINT)
            assert child.stdout.read() == "interrupted\n"
        assert child.returncode in (0, 1)


@pytest.mark.parametrize("kind", ["memory", "pipe"])
def test_a_ctrl_c_that_does_not_wake_the_main_thread_is_acted_on(kind: str) -> None:
    # As is one that comes just before the thread blocks: here another thread takes the signal.
    pipe = BoundedPipe()
    reading, writing = os.pipe()
    file = PipeReader(pipe) if kind == "memory" else DescriptorReader(Handover(reading), Wakeup())

    def interrupt() -> None:
        blocked(threading.main_thread())
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    with buffered_reader(file) as reader, Task(interrupt), pytest.raises(KeyboardInterrupt):
        reader.read()
    os.close(writing)
    if kind == "memory":
        os.close(reading)
