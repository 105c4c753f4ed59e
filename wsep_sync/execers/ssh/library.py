"""paramiko, which is imported here alone, and what all that use it have in common.

It is not imported before the first connection is made: that takes a third of a second.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import Any

from ...lazy import importing

__all__ = [
    "PIECE",
    "close_quietly",
    "load_paramiko",
    "lost",
    "send_all",
]


# How much is read, and written, at once, in bytes. What fits a packet of paramiko's, and sshd's.
PIECE = 1 << 15


def load_paramiko() -> Any:
    """Return paramiko."""
    try:
        with importing:
            import paramiko
    except ImportError as error:
        raise ImportError(
            "SSH needs paramiko: pip install '.[ssh]' in the clone (see README)",
            name="paramiko",
        ) from error
    # It logs what is also raised, with tracebacks, which would go to stderr in a program that has
    # not set up any logging.
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return paramiko


def lost() -> tuple[type[Exception], ...]:
    """Return what paramiko raises when a channel or its connection has ended."""
    return (EOFError, OSError, load_paramiko().SSHException)


def close_quietly(channel: Any) -> None:
    with contextlib.suppress(*lost()):
        channel.close()


def send_all(channel: Any, data: bytes | memoryview) -> None:
    """Send all of it, however long that takes.

    Raises:
        OSError: The channel is closed.
    """
    view = memoryview(data)
    while view:
        sent = channel.send(bytes(view[:PIECE]))
        if not sent:
            raise BrokenPipeError(errno.EPIPE, "the channel is closed")
        view = view[sent:]
