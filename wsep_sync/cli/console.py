"""What the subcommands share: exit statuses, messages to people, and plain input and output."""

from __future__ import annotations

import contextlib
import os
import sys

from ..streams.wakeup import READ, WRITE, wait_for

__all__ = [
    "CANNOT_RUN",
    "NOT_FOUND",
    "NO_CONNECTION",
    "PIECE",
    "SIGNALLED",
    "complain",
    "one_line",
    "read",
    "write",
]

# As of the shell and of ssh.
CANNOT_RUN = 126
NOT_FOUND = 127
SIGNALLED = 128  # plus the number of the signal
NO_CONNECTION = 255

# Pieces in which input and output are passed on, in bytes: a message's body.
PIECE = 63_982


def complain(text: object) -> None:
    """Say what went wrong, in one line."""
    if sys.stderr is not None:  # as it is when it was closed
        try:
            print(f"wsep-sync: {one_line(text)}", file=sys.stderr, flush=True)
        except OSError:
            # There is no place to say it. Python would try once more, and exit with 120.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def one_line(text: object) -> str:
    """Make one line of what a server may have said, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))


def read(descriptor: int) -> bytes:
    """Block until there is something to read; b"" at the end."""
    while True:
        try:
            return os.read(descriptor, PIECE)
        except BlockingIOError:
            # Whoever shares the terminal or pipe with us has made it non-blocking.
            wait_for(descriptor, READ, None)


def write(descriptor: int, data: memoryview) -> None:
    """Write all of it; block while it is not taken."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            wait_for(descriptor, WRITE, None)
