"""A bug in one of a session's threads: its clients get an error, and never wait, nor a success."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SECONDS, MemoryExecer, Task, eventually, gone
from session_clients import Client, hub, session

from wsep_sync import Command, Execer, LocalExecer, Process, WsepError
from wsep_sync.errors import ExitError, ExitMissing, StartError
from wsep_sync.jobs.input import SharedInput
from wsep_sync.jobs.options import State
from wsep_sync.jobs.session import Session

SAYS = ("sh", "-c", "echo ready; while read -r line; do echo got $line; done; exit 0")


class Bug(Exception):
    """What nobody foresaw."""


def breaks(*_: object, **__: object) -> Any:
    raise Bug


def breaks_after(call: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Let so many calls pass, and raise in those after."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count -= 1
        if count < 0:
            raise Bug
        return call(*args, **kwargs)

    return broken


@pytest.mark.parametrize("passing", [0, 1], ids=["at its start", "in the midst"])
@pytest.mark.parametrize("what", ["output", "clock", "input"])
def test_a_thread_that_dies_ends_the_session_with_an_error(
    what: str, passing: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    where, name = {
        "output": (Session, "_distribute"),
        "clock": (Session, "_look_at_clock"),
        "input": (SharedInput, "moved"),
    }[what]
    monkeypatch.setattr(where, name, breaks_after(getattr(where, name), passing))
    with hub() as sessions, caplog.at_level(logging.ERROR, "wsep_sync"):
        one = sessions.attach("x", *SAYS)
        pid = one.process.pid
        two = sessions.attach("x")
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            for _ in range(3):
                one.type(b"line\n")
        for client in (one, two):
            with Task(client.process.wait) as waiting, pytest.raises(ExitMissing) as caught:
                waiting.result()
            assert "internal error" in str(caught.value)
            client.ended()
        gone(pid)
        eventually(lambda: not sessions.server.session_count(), "the session has ended")
        assert "internal error in wsep-session: Bug" in caplog.text
        # The id is free, and its next session works.
        monkeypatch.undo()
        again = sessions.attach("x", *SAYS)
        again.until(b"ready")
        again.type(b"\x04")
        assert again.exit_code() == 0


def test_a_clean_exit_after_a_failure_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_distribute", breaks)
    live = Session(
        session("x", "sh", "-c", "trap 'exit 0' HUP; echo ready; sleep 1000"), LocalExecer()
    )
    client = Client(live.attach())
    with pytest.raises(WsepError, match="internal error") as caught:
        live.wait(SECONDS)
    assert not isinstance(caught.value, (ExitError, StartError))
    assert live.state is State.DONE
    with pytest.raises(WsepError, match="internal error"):
        client.process.wait(SECONDS)
    client.leave()
    live.close()


class _FromElsewhere(Process):
    """A process of somebody else's execer, whose files offer what the io module says, no more."""

    def __init__(self) -> None:
        self.pid = 4711
        self.stdin = io.BufferedWriter(io.FileIO(os.open(os.devnull, os.O_WRONLY), "w"))
        self.stderr = io.BufferedReader(io.FileIO(os.open(os.devnull, os.O_RDONLY)))
        reading, writing = os.pipe()
        os.write(writing, b"shown")
        os.close(writing)
        self.stdout = io.BufferedReader(io.FileIO(reading))

    def resize(self, rows: int, cols: int) -> None: ...
    def send_signal(self, signal: int) -> None: ...
    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> None:
        raise ExitError(3, "exit status 3")

    def close(self) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            file.close()


class _Elsewhere(Execer):
    def start(self, command: Command) -> Process:
        return _FromElsewhere()


@pytest.mark.parametrize("id", ["", "x"])
def test_the_files_of_another_execer(id: str) -> None:
    with (
        MemoryExecer(_Elsewhere()) as execer,
        execer.start(Command("any", tty=True, id=id)) as process,
    ):
        assert process.features == {"signal", "taken", "ended", "attach", "close_output"}
        assert process.stdout.read() == b"shown"
        with pytest.raises(ExitError, match="exit status 3"):
            process.wait(SECONDS)
