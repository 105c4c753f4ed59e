"""What is logged, under the name ``wsep_sync``: one line for each event, or one JSON object.

The events of a connection are ``start`` or ``attach``, then ``exit`` or, from a session that goes
on, ``leave``; or else ``refusal``. That of a session is its ``end``; that of a listener which is
short of something, ``failure``. At the level of debugging, a client tells of ``connect``,
``connected`` and ``started``. A record's message has the form ``event key=value …``; the same
stands in its attributes ``event`` and ``fields``, for handlers that want more than text.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from datetime import datetime, timezone
from types import TracebackType

__all__ = [
    "JSONFormatter",
    "TextFormatter",
    "Warnings",
    "log",
    "log_bug",
    "log_event",
]

#: The package's logger.
log = logging.getLogger("wsep_sync")
# Without a handler of the program's, warnings would go to its error output.
log.addHandler(logging.NullHandler())

# What needs no quotes. All else is quoted as JSON does it, which leaves nothing that a terminal
# would obey, or that looks like another line.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,~\[\]-]+")


def log_event(level: int, event: str, **fields: object) -> None:
    """Log an event; fields that are ``None`` or "" are left out.

    Args:
        level: As in :mod:`logging`.
        event: What happened, in one word.
        fields: Strings, numbers and lists of them.
    """
    if not log.isEnabledFor(level):
        return
    fields = {name: value for name, value in fields.items() if value not in (None, "")}
    words = (f"{name}={_word(value)}" for name, value in fields.items())
    log.log(level, "%s", " ".join((event, *words)), extra={"event": event, "fields": fields})


def log_bug(what: str, error: BaseException) -> None:
    """Log an exception that nobody foresaw: one line; the traceback at the level of debugging."""
    # Of the error only its kind, and where: its text may quote what a peer has sent.
    reason = f"{what}: {type(error).__name__}{_place(error.__traceback__)}"
    log_event(logging.ERROR, "failure", reason=reason)
    log.debug("%s", what, exc_info=error)


def _place(traceback: TracebackType | None) -> str:
    """Return the innermost place that a traceback tells of, as `` at FILE:LINE``."""
    place = ""
    while traceback is not None:
        name = os.path.basename(traceback.tb_frame.f_code.co_filename)
        place = f" at {name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return json.dumps(value)
    return str(value)


# Seconds between two warnings about the same thing.
_INTERVAL = 1.0


class Warnings:
    """Logs warnings that anybody could cause in masses, and so fill a disk. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        # By what is wrong: when it was logged, and how many were left out since.
        self._logged: dict[str, tuple[float, int]] = {}

    def log(self, event: str, *, peer: str = "", status: str = "", reason: str) -> None:
        """Log a warning, unless there was one with this status just now, or without one but with
        this reason: what a status is given for may hold words of the peer's, without end.
        """
        key, now = status or reason, time.monotonic()
        with self._lock:
            last, left_out = self._logged.get(key, (-_INTERVAL, 0))
            if now - last < _INTERVAL:
                self._logged[key] = (last, left_out + 1)
                return
            self._logged[key] = (now, 0)
        fields = {"peer": peer, "status": status, "reason": reason, "left_out": left_out or None}
        log_event(logging.WARNING, event, **fields)


class TextFormatter(logging.Formatter):
    """One line: when (ISO 8601), how serious, and the message; a traceback follows, if any."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_time(record)} {record.levelname} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JSONFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``message`` or ``event``, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {"time": _time(record), "level": record.levelname.lower()}
        event = getattr(record, "event", None)
        if event is None:
            entry["message"] = record.getMessage()
        else:
            entry["event"] = event
            entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
