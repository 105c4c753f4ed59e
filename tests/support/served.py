"""One connection that is served in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from helpers import Task

from wsep_sync import LocalExecer, Options, Server
from wsep_sync.transports.memory import memory_pair


@contextlib.contextmanager
def served(execer: Any = None, options: Options | None = None) -> Iterator[tuple[Any, Any, Task]]:
    """The client's end, the server's end, and serve() in a task."""
    client, conn = memory_pair()
    with Task(Server().serve, conn, execer or LocalExecer(), options) as serving:
        try:
            yield client, conn, serving
        finally:
            client.abort()
