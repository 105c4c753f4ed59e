"""The files that are written, terminals, and files that are none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import select
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import Task, blocked
from stream_sources import descriptor_source

from wsep_sync.streams.descriptors import DescriptorReader, DescriptorWriter, Handover
from wsep_sync.streams.files import (
    buffered_reader,
    buffered_writer,
    close_quietly,
    empty_reader,
    no_writer,
)
from wsep_sync.streams.wakeup import Wakeup

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
