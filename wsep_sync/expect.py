"""pexpect's names, for commands elsewhere: ``import wsep_sync.expect as pexpect``.

See :mod:`wsep_sync.faces.expect`; this is the path that users know.
"""

from __future__ import annotations

from .faces.expect import EOF, TIMEOUT, ExceptionPexpect, spawn, spawnu
from .faces.expect_run import run, runu

__all__ = [
    "EOF",
    "TIMEOUT",
    "ExceptionPexpect",
    "run",
    "runu",
    "spawn",
    "spawnu",
]
