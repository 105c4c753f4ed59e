"""Readers: both kinds, each with a function that writes to it and one that ends it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

from wsep_sync.streams.bounded_pipe import BoundedPipe, PipeReader
from wsep_sync.streams.descriptors import DescriptorReader, Handover
from wsep_sync.streams.files import buffered_reader
from wsep_sync.streams.wakeup import Wakeup


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
