"""Let gunicorn end what runs when it is told to end, instead of waiting for it.

Without this, gunicorn waits for all commands until its graceful_timeout is over, and then kills
their server, which leaves them running.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
from typing import Any


def post_worker_init(worker: Any) -> None:
    """Called in the process that serves, once the application is loaded.

    The module of the application, ``app:app`` or ``flask_app:app``, has to have a ``server``.
    """
    server = sys.modules[worker.app.app_uri.partition(":")[0]].server
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        gunicorn = signal.getsignal(number)
        signal.signal(number, functools.partial(_end, gunicorn, server))


def _end(gunicorn: Any, server: Any, number: int, frame: Any) -> None:
    # In a thread, as it takes locks, which what was interrupted for the signal may hold.
    threading.Thread(target=server.close).start()
    gunicorn(number, frame)
