"""Threads that die of what nobody foresaw: whoever waits for them is told."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import wsep_sync
from wsep_sync.threads import start_thread

_PACKAGE = Path(wsep_sync.__file__).parent


class _Bug(Exception):
    """What nobody foresaw."""


def test_who_waits_is_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Exception] = []

    def target(what: str) -> None:
        raise _Bug(what)

    with caplog.at_level(logging.INFO, "wsep_sync"):
        start_thread(target, "a secret", name="wsep-some", died=told.append).join()
    assert [repr(error) for error in told] == ["_Bug('a secret')"]
    (line,) = caplog.messages
    assert line.startswith('failure reason="internal error in wsep-some: _Bug at ')
    assert "secret" not in line


def test_the_traceback_is_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    def target() -> None:
        raise _Bug

    with caplog.at_level(logging.DEBUG, "wsep_sync"):
        start_thread(target, name="wsep-some", died=lambda _: None).join()
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_telling_may_fail_too(caplog: pytest.LogCaptureFixture) -> None:
    def target() -> None:
        raise _Bug

    def died(_: Exception) -> None:
        raise KeyError

    with caplog.at_level(logging.INFO, "wsep_sync"):
        start_thread(target, name="wsep-some", died=died).join()
    assert [message.split()[5] for message in caplog.messages] == ["_Bug", "KeyError"]


def test_who_waits_is_told_though_the_log_fails() -> None:
    told: list[Exception] = []

    def target() -> None:
        raise _Bug

    def fails(_: logging.LogRecord) -> bool:
        raise KeyError

    logger = logging.getLogger("wsep_sync")
    logger.addFilter(fails)
    try:
        start_thread(target, name="wsep-some", died=told.append).join()
    finally:
        logger.removeFilter(fails)
    assert [type(error) for error in told] == [_Bug]


def test_every_thread_is_started_so() -> None:
    bare = [
        f"{path.relative_to(_PACKAGE)}:{node.lineno}"
        for path in _PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Thread", "Timer"))
    ]
    bare = [place for place in bare if not place.startswith("threads.py")]
    assert not bare
