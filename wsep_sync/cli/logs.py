"""What is logged goes to error output: :func:`log_to_stderr`."""

from __future__ import annotations

import logging
import sys

from .. import log

__all__ = ["log_to_stderr"]


def log_to_stderr(level: int | str, format: str = "text") -> None:
    """Log what is of this level or more serious, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log.JSONFormatter() if format == "json" else log.TextFormatter())
    log.log.addHandler(handler)
    log.log.setLevel(level)
