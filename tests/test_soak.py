"""A minute of the soak, and that it fails when it should; `tox -e soak` runs it for ten."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soak
from helpers import RawClient, sh
from session_clients import attach_message
from soak import Worker, ends_with
from watched import Stock, WatchedServer, settled

pytestmark = pytest.mark.long


@pytest.mark.timeout(180)
def test_a_minute_of_fifty_clients() -> None:
    # Nice to the tests that run beside it: it would have both cores for itself.
    command = ["nice", "-n", "5", sys.executable, "-W", "error", "soak.py", "--seconds", "60"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


# That it fails when it should


def forget_session(worker: Worker) -> None:
    """Begin a session that nobody ends."""
    with RawClient(worker.server.url) as raw:
        raw.send(attach_message("forgotten"))
        raw.receive()


def expect_wrongly(worker: Worker) -> None:
    """Take a command's end for what it is not."""
    with worker.started(sh("exit 3")) as process:
        ends_with(process, 4)


def do_nothing(_worker: Worker) -> None:
    pass


@pytest.mark.parametrize(
    ("action", "failure"),
    [
        (forget_session, r"FAILED: after part 0: sessions are left: .*forgotten"),
        (expect_wrongly, r"FAILED: client 0\.0 in expect_wrongly:(.*\n)+AssertionError: \(3, None"),
    ],
    ids=["forget_session", "expect_wrongly"],
)
def test_what_it_finds(
    action: Callable[[Worker], None],
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(soak, "ACTIONS", {action: 1})
    assert not soak.soak(0, 1, 1)
    assert re.search(failure, capsys.readouterr().out)


@pytest.mark.parametrize(("grown", "verdict"), [(1.04, True), (1.06, False)])
def test_memory_may_grow_by_so_much(
    grown: float, verdict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At the start, and after each part.
    sizes = iter([900, *[1000] * (soak.PARTS - 1), round(1000 * grown)])
    monkeypatch.setattr(soak, "ACTIONS", {do_nothing: 1})
    monkeypatch.setattr(WatchedServer, "resident", lambda _: next(sizes))
    assert soak.soak(0, 1, 1) is verdict


def test_what_a_process_holds() -> None:
    pid = os.getpid()
    before = Stock.of(pid)
    reader, writer = os.pipe()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
            more = Stock.of(pid)
            assert more.threads == before.threads + 1
            assert more.descriptors == before.descriptors + 3
            assert more.children == before.children + 1
            for kind in ("threads", "descriptors", "children"):
                than = replace(more, **{kind: getattr(before, kind)})
                with pytest.raises(AssertionError, match="still holds"):
                    settled(pid, than, 0)
            assert settled(pid, more) == more
    finally:
        done.set()
        thread.join()
        os.close(reader)
        os.close(writer)
    assert settled(pid, before) == before
