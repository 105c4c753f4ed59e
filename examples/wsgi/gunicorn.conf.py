"""Let gunicorn end what runs when it is told to end, instead of waiting for it.

Without this, gunicorn waits for all commands until its graceful_timeout is over, and then kills
their server, which leaves them running.
"""

from __future__ import annotations

import functools
import signal
import threading
from typing import Any


def post_worker_init(_worker: Any) -> None:
    """Called in the process that serves, once the application is loaded."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        gunicorn = signal.getsignal(number)
        signal.signal(number, functools.partial(_end, gunicorn))


def _end(gunicorn: Any, number: int, frame: Any) -> None:
    from app import server

    # In a thread, as it takes locks, which what was interrupted for the signal may hold.
    threading.Thread(target=server.close).start()
    gunicorn(number, frame)
