"""The file objects of a process, as the io module and its users treat files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import Task, blocked, eventually
from hypothesis import given
from hypothesis import strategies as st

from wsep_sync.errors import ExitMissing
from wsep_sync.streams.bounded_pipe import BoundedPipe, PipeReader, empty_reader
from wsep_sync.streams.descriptors import DescriptorReader, DescriptorWriter, Handover
from wsep_sync.streams.files import buffered_reader, buffered_writer, close_quietly, no_writer
from wsep_sync.streams.wakeup import Wakeup

# Readers: both kinds, each with a function that writes to it and one that ends it.


class Source:
    """A buffered reader, and the other end of it."""

    def __init__(self, reader: io.BufferedReader, feed: Any, end: Any, stop: Any) -> None:
        self.reader = reader
        self.feed = feed
        self.end = end
        self.stop = stop  # as closing the process does it


@contextlib.contextmanager
def pipe_source() -> Iterator[Source]:
    pipe = BoundedPipe(1 << 20)
    reader = buffered_reader(PipeReader(pipe))
    yield Source(reader, pipe.feed, pipe.feed_eof, pipe.feed_eof)
    reader.close()


@contextlib.contextmanager
def descriptor_source() -> Iterator[Source]:
    read, write = os.pipe()
    stop = Wakeup()
    reader = buffered_reader(DescriptorReader(Handover(read), stop))
    with os.fdopen(write, "wb", 0) as writer, contextlib.closing(reader):
        yield Source(reader, writer.write, writer.close, stop.set)


@contextlib.contextmanager
def terminal_source() -> Iterator[Source]:
    master, slave = os.openpty()
    os.system(f"stty raw -echo < {os.ttyname(slave)}")
    stop = Wakeup()
    reader = buffered_reader(DescriptorReader(Handover(master), stop, terminal=True))
    with os.fdopen(slave, "wb", 0) as writer, contextlib.closing(reader):
        yield Source(reader, writer.write, writer.close, stop.set)


SOURCES = {"memory": pipe_source, "pipe": descriptor_source, "terminal": terminal_source}


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


# Writers


@contextlib.contextmanager
def pipe_writer() -> Iterator[tuple[io.BufferedWriter, Any, Wakeup]]:
    read, write = os.pipe()
    stop = Wakeup()
    writer = buffered_writer(DescriptorWriter(Handover(write), stop))
    with os.fdopen(read, "rb", 0) as reader:
        try:
            yield writer, reader, stop
        finally:
            reader.close()
            close_quietly(writer)


@pytest.mark.parametrize("ask", [False, True], ids=["non-blocking", "blocking"])
def test_writing_more_than_fits(ask: bool) -> None:
    data = os.urandom(1_000_000)
    with pipe_writer() as (writer, reader, _):
        if ask:
            assert os.get_blocking(writer.fileno())
        with Task(writer.write, data) as writing:
            got = bytearray()
            while len(got) < len(data):
                got += reader.read(100_000)
            assert writing.result() == len(data)
        assert got == data


@pytest.mark.parametrize("ask", [False, True], ids=["non-blocking", "blocking"])
def test_a_full_pipe_holds_the_writer_until_stopped(ask: bool) -> None:
    with pipe_writer() as (writer, _, stop):
        if ask:
            writer.fileno()
        with Task(writer.write, bytes(1_000_000)) as writing:
            blocked(writing)
            stop.set()
            with pytest.raises(BrokenPipeError):
                writing.result()


@pytest.mark.parametrize("ask", [False, True], ids=["non-blocking", "blocking"])
def test_a_reader_that_goes_wakes_the_writer(ask: bool) -> None:
    with pipe_writer() as (writer, reader, _):
        if ask:
            writer.fileno()
        with Task(writer.write, bytes(1_000_000)) as writing:
            blocked(writing)
            reader.close()
            with pytest.raises(BrokenPipeError):
                writing.result()


def test_what_is_written_is_kept_until_flushed() -> None:
    with pipe_writer() as (writer, reader, _):
        os.set_blocking(reader.fileno(), False)
        writer.write(b"abc")
        assert reader.read() is None
        writer.flush()
        assert reader.read() == b"abc"
        writer.write(b"def")
        writer.close()
        assert reader.read() == b"def"
        assert reader.read() == b""


def test_writing_nothing() -> None:
    with pipe_writer() as (writer, reader, _):
        assert writer.write(b"") == 0
        assert writer.raw.write(b"") == 0
        writer.close()
        assert reader.read() == b""


def test_text_can_be_written() -> None:
    with pipe_writer() as (writer, reader, _):
        with io.TextIOWrapper(writer, encoding="utf-8", line_buffering=True) as text:
            print("Wörter", file=text)
            assert reader.read(100) == "Wörter\n".encode()
        assert writer.closed
        assert reader.read() == b""


def test_numbers_can_be_written() -> None:
    import array

    with pipe_writer() as (writer, reader, _):
        assert writer.raw.write(array.array("I", [1, 2])) == 8
        writer.close()
        assert reader.read() == b"\1\0\0\0\2\0\0\0"


def test_a_closed_writer_says_so() -> None:
    with pipe_writer() as (writer, _, _):
        assert writer.writable()
        assert not writer.readable()
        assert not writer.seekable()
        assert writer.raw.mode == "wb"  # type: ignore[attr-defined]
        writer.close()
        writer.close()
        assert writer.closed
        for use in (lambda: writer.write(b"x"), writer.flush, writer.fileno):
            with pytest.raises(ValueError, match="closed"):
                use()
        with pytest.raises(ValueError, match="closed"):
            writer.raw.write(b"x")


def test_a_pipe_can_be_given_to_a_program() -> None:
    with pipe_writer() as (writer, reader, _):
        subprocess.run(["echo", "hello"], stdout=writer, check=True)
        assert reader.read(100) == b"hello\n"
    with descriptor_source() as source:
        source.feed(b"hello\n")
        source.end()
        ran = subprocess.run(["cat"], stdin=source.reader, stdout=subprocess.PIPE, check=True)
        assert ran.stdout == b"hello\n"


def test_a_pipe_can_be_selected() -> None:
    with descriptor_source() as source:
        assert select.select([source.reader], [], [], 0)[0] == []
        source.feed(b"x")
        assert select.select([source.reader], [], [])[0] == [source.reader]
        assert source.reader.read1() == b"x"
        with Task(source.reader.read1) as reading:
            blocked(reading)  # the descriptor is blocking now, and the reader can be stopped still
            source.stop()
            assert reading.result() == b""


# Terminals


class Terminal:
    """A terminal: the master's reader and writer, as a local process has them."""

    def __init__(self) -> None:
        master, self.slave = os.openpty()
        self.stop = Wakeup()
        self.reader = buffered_reader(
            DescriptorReader(Handover(os.dup(master)), self.stop, terminal=True)
        )
        self.writer = buffered_writer(
            DescriptorWriter(Handover(master), self.stop, last=lambda: b"\4")
        )

    def leave(self) -> None:
        """Do what the end of all its processes does."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.leave()
    terminal.stop.set()
    close_quietly(terminal.writer)
    terminal.reader.close()
    vars(terminal).clear()  # pytest keeps it, and with it the descriptor of stop, for longer


def test_typing(terminal: Terminal) -> None:
    terminal.writer.write(b"hello\n")
    terminal.writer.flush()
    assert os.read(terminal.slave, 100) == b"hello\n"
    assert terminal.reader.readline() == b"hello\r\n"  # the echo


def test_closing_the_input_of_a_terminal_types_its_end_of_file_character(
    terminal: Terminal,
) -> None:
    terminal.writer.write(b"hello\n")
    terminal.writer.close()
    assert os.read(terminal.slave, 100) == b"hello\n"
    assert os.read(terminal.slave, 100) == b""
    os.write(terminal.slave, b"still here\n")
    assert terminal.reader.readline() == b"hello\r\n"
    assert terminal.reader.readline() == b"still here\r\n"


def test_the_end_of_a_terminal_is_the_end_of_the_file(terminal: Terminal) -> None:
    os.write(terminal.slave, b"bye\n")
    with Task(terminal.reader.read) as reading:
        blocked(reading)
        terminal.leave()
        assert reading.result() == b"bye\r\n"


def test_more_than_a_terminal_holds(terminal: Terminal) -> None:
    os.system(f"stty raw -echo < {os.ttyname(terminal.slave)}")
    data = os.urandom(100_000)

    def write() -> None:
        with os.fdopen(os.dup(terminal.slave), "wb") as slave:
            slave.write(data)

    with Task(write) as writing:
        buffer = bytearray(len(data))
        assert terminal.reader.readinto(buffer) == len(data)
        assert buffer == data
        writing.result()


@pytest.mark.parametrize("leave_first", [True, False])
def test_a_terminal_that_everybody_left_never_blocks_a_writer(
    terminal: Terminal, leave_first: bool
) -> None:
    if leave_first:
        terminal.leave()
    with Task(terminal.writer.write, b"line\n" * 20_000) as writing:
        if not leave_first:
            blocked(writing)
            terminal.leave()
        with pytest.raises(BrokenPipeError):
            writing.result()


def test_a_terminal_that_nobody_reads_holds_the_writer_until_stopped(terminal: Terminal) -> None:
    with Task(terminal.writer.write, b"line\n" * 20_000) as writing:
        blocked(writing)
        terminal.stop.set()
        with pytest.raises(BrokenPipeError):
            writing.result()


def test_a_terminal_stays_non_blocking(terminal: Terminal) -> None:
    # Its reader and its writer have one open file, and so one flag.
    for file in (terminal.reader, terminal.writer):
        assert not os.get_blocking(file.fileno())


# Files that are none


def test_an_empty_reader() -> None:
    with empty_reader() as reader:
        assert reader.read() == b""
        assert reader.readline() == b""
        assert list(reader) == []


@pytest.mark.parametrize("data", [b"x", b"", bytes(100_000)])
def test_no_writer(data: bytes) -> None:
    writer = no_writer()
    with pytest.raises(io.UnsupportedOperation, match="stdin=True"):
        writer.write(data)
    writer.flush()
    writer.close()
    assert writer.closed


def test_closing_quietly() -> None:
    with pipe_writer() as (writer, reader, _):
        writer.write(b"x")
        reader.close()
        close_quietly(writer)  # what is in its buffer can go nowhere
        assert writer.raw.closed
        close_quietly(writer)


def test_a_broken_writer_says_epipe() -> None:
    with pipe_writer() as (writer, reader, _):
        reader.close()
        writer.write(b"x")
        with pytest.raises(BrokenPipeError) as caught:
            writer.flush()
        assert caught.value.errno == errno.EPIPE
        with contextlib.suppress(BrokenPipeError):
            writer.close()
        assert writer.raw.closed


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


def test_how_much_a_pipe_holds_can_be_asked_for() -> None:
    reading, writing = os.pipe()
    with contextlib.closing(DescriptorReader(Handover(reading), Wakeup())) as reader:
        for size in (1 << 18, 1 << 16):
            reader.set_capacity(size)
            assert fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ) == size
        os.write(writing, bytes(1 << 16))
        reader.set_capacity(4096)  # the kernel will not throw away what is in there
        assert fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ) == 1 << 16
        reader.set_capacity(1 << 60)
    os.close(writing)


def test_how_much_a_terminal_holds_cannot_be_asked_for(terminal: Terminal) -> None:
    terminal.reader.raw.set_capacity(1 << 18)


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
