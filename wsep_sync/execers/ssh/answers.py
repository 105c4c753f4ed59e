"""What a host says of the start of a command: :class:`Answers`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ...errors import StartError
from .library import PIECE

if TYPE_CHECKING:
    from .connection import Connection

__all__ = [
    "Answers",
]


# How much a login shell may say, in bytes, before the command is started.
_MOST_GREETING = 1 << 18


class Answers:
    """Reads what is said of a start, before the command itself says something.

    Attributes:
        rest: What the command has said already.
    """

    def __init__(self, connection: Connection, channel: Any, mark: bytes, timeout: float) -> None:
        self.mark = mark
        self.rest = b""
        self._connection = connection
        self._channel = channel
        self._deadline = time.monotonic() + timeout

    def receive(self) -> list[str]:
        """Block until there is another answer; return its words.

        What the login shell says, when it reads its files, comes before it and is dropped.

        Raises:
            StartError: There is none.
            TimeoutError: Not in time.
        """
        while True:
            answer, newline, rest = self.rest.partition(self.mark)[2].partition(b"\n")
            if newline:
                self.rest = rest
                return answer.decode(errors="replace").split()
            if len(self.rest) > _MOST_GREETING:
                raise StartError("the login shell says too much before it starts the command")
            left = self._deadline - time.monotonic()
            self._channel.settimeout(max(left, 0.001))
            piece = self._channel.recv(PIECE)
            if not piece:
                raise self._failure()
            self.rest += piece

    def _failure(self) -> Exception:
        if self._connection.has_ended():
            return EOFError("the connection ended")
        lines = (self.rest + b"\n" + self._channel.recv_stderr(PIECE)).decode(errors="replace")
        said = next((line.strip() for line in reversed(lines.splitlines()) if line.strip()), "")
        return StartError(f"the login shell did not start it{': ' if said else ''}{said:.200}")
