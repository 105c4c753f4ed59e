"""The same cases on `pexpect.spawn` and on ours, here and over a WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from spawns import Start, starter


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSEP_URL", raising=False)
    # The newer REPL paints its lines with escape sequences.
    monkeypatch.setenv("PYTHON_BASIC_REPL", "1")


@pytest.fixture(params=["pexpect", "local", "remote"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """pexpect's spawn itself, ours on this machine, and ours over a real WebSocket."""
    with contextlib.ExitStack() as stack:
        yield starter(request.param, stack)


@pytest.fixture(params=["local", "remote"])
def ours(request: pytest.FixtureRequest) -> Iterator[Start]:
    """For what pexpect does otherwise, or not at all."""
    with contextlib.ExitStack() as stack:
        yield starter(request.param, stack)


@pytest.fixture(params=["pexpect", "local"])
def here(request: pytest.FixtureRequest) -> Iterator[Start]:
    """For what works on a terminal of this machine alone."""
    with contextlib.ExitStack() as stack:
        yield starter(request.param, stack)
