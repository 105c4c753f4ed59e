"""What coverage.py does not see by itself, and what it is not to look at."""

from __future__ import annotations

import contextlib
import os
import site
import sys
import threading
from collections.abc import Iterator, Mapping

# How a Python that is started learns that it is to be measured, and how.
_VARIABLE = "COVERAGE_PROCESS_CONFIG"

# Runs before a helper that is isolated, without site-packages, and killed in the end: what is known
# of it is saved after each answer.
_SAVING = """
import os, socket, sys
sys.path += {path!r}
os.environ[{variable!r}] = {config!r}
import coverage
measured = coverage.process_startup()

class Socket(socket.socket):
    def sendall(self, data):
        super().sendall(data)
        measured.save()

socket.socket = Socket
"""


def measured_helper(program: str) -> str:
    """Return the helper's program, measured if this process is."""
    config = os.environ.get(_VARIABLE)
    if config is None:
        return program
    path = site.getsitepackages()
    return _SAVING.format(path=path, variable=_VARIABLE, config=config) + program


def unmeasured(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process that traces by itself, or whose memory or speed is measured."""
    return {name: value for name, value in environment.items() if name != _VARIABLE}


@contextlib.contextmanager
def unmeasured_code() -> Iterator[None]:
    """Measure neither this thread nor any that starts meanwhile.

    Of each thread that was measured something is kept for good; and what computes takes three times
    as long.
    """
    ours, others = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(others)  # type: ignore[arg-type]
        sys.settrace(ours)
