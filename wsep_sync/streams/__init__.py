"""File objects over descriptors and over memory, and what blocks on them.

:mod:`.descriptors` has the ends of a local command's pipes and terminal. :mod:`.bounded_pipe` is a
pipe in memory, which a thread that receives messages fills. :mod:`.sent_input` is the input of a
command on another machine. :mod:`.files` puts the io module's own buffers on top, so that ``read``,
``read1``, ``readline``, iteration, ``readinto``, ``peek``, ``io.TextIOWrapper`` and
``shutil.copyfileobj`` behave as on any file. :mod:`.wakeup` wakes a thread that blocks on one of
them.
"""

from __future__ import annotations

from .bounded_pipe import (
    DEFAULT_LIMIT,
    TELL_EVERY,
    BoundedPipe,
    Buffer,
    PipeReader,
    wait_a_while,
)
from .descriptors import (
    Descriptor,
    DescriptorReader,
    DescriptorWriter,
    Handover,
    broken,
    hung_up,
    write_to,
)
from .files import (
    READ_BUFFER,
    RawFile,
    RawInput,
    RawOutput,
    Reader,
    TextFile,
    Writer,
    buffered_reader,
    buffered_writer,
    close_quietly,
    empty_reader,
    no_writer,
    read_all,
)

__all__ = [
    "DEFAULT_LIMIT",
    "READ_BUFFER",
    "TELL_EVERY",
    "BoundedPipe",
    "Buffer",
    "Descriptor",
    "DescriptorReader",
    "DescriptorWriter",
    "Handover",
    "PipeReader",
    "RawFile",
    "RawInput",
    "RawOutput",
    "Reader",
    "TextFile",
    "Writer",
    "broken",
    "buffered_reader",
    "buffered_writer",
    "close_quietly",
    "empty_reader",
    "hung_up",
    "no_writer",
    "read_all",
    "wait_a_while",
    "write_to",
]
