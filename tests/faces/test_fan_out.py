"""One command on many servers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError, CompletedProcess, TimeoutExpired
from typing import Any

import pytest
from helpers import Task, eventually, gone, listening

import wsep_sync
from wsep_sync import ConnectError, LocalExecer, Outcome

# Nobody listens there.
NOWHERE = "ws://127.0.0.1:1"


def test_each_server_has_an_outcome() -> None:
    with listening() as one, listening() as other:
        outcomes = list(wsep_sync.map(["echo", "a"], [one.url, other.url]))
    assert {outcome.url for outcome in outcomes} == {one.url, other.url}
    for outcome in outcomes:
        assert outcome.error is None
        assert isinstance(outcome.result, CompletedProcess)
        result = outcome.result
        assert (result.args, result.returncode) == (["echo", "a"], 0)
        assert (result.stdout, result.stderr) == (b"a\n", b"")


def test_outcomes_come_as_they_come(url: str, tmp_path: Path) -> None:
    # Two commands: one ends only when the other's outcome is here.
    os.mkfifo(tmp_path / "fifo")
    script = "mkdir first 2> /dev/null && { read word < fifo; echo $word; } || echo at once"
    outcomes = wsep_sync.map(script, [url, url], shell=True, cwd=tmp_path, text=True)
    assert output(next(outcomes)) == "at once\n"
    (tmp_path / "fifo").write_text("later\n")
    assert [output(outcome) for outcome in outcomes] == ["later\n"]


def output(outcome: Outcome[Any]) -> Any:
    assert outcome.result is not None, outcome.error
    return outcome.result.stdout


def test_failures_are_values(url: str) -> None:
    outcomes = {o.url: o for o in wsep_sync.map(["echo", "a"], [NOWHERE, url])}
    assert outcomes[NOWHERE].result is None
    assert isinstance(outcomes[NOWHERE].error, ConnectError)
    assert output(outcomes[url]) == b"a\n"

    (missing,) = wsep_sync.map(["no-such-command"], [url])
    assert isinstance(missing.error, FileNotFoundError)
    assert missing.error.filename == "no-such-command"

    (late,) = wsep_sync.map("echo a; exec sleep 1000", [url], shell=True, timeout=0.5)
    assert isinstance(late.error, TimeoutExpired)


def test_a_status_is_a_failure_only_if_it_is_checked(url: str) -> None:
    (outcome,) = wsep_sync.map(["sh", "-c", "echo a; exit 3"], [url])
    assert outcome.result is not None
    assert outcome.result.returncode == 3
    (outcome,) = wsep_sync.map(["sh", "-c", "echo a; exit 3"], [url], check=True)
    assert isinstance(outcome.error, CalledProcessError)
    assert outcome.error.output == b"a\n"


def test_the_options_are_those_of_run(url: str, tmp_path: Path) -> None:
    (outcome,) = wsep_sync.map("cat; pwd -P >&2", [url], shell=True, input="é", text=True, cwd="/")
    assert outcome.result is not None
    assert (outcome.result.stdout, outcome.result.stderr) == ("é", "/\n")
    with open(tmp_path / "out", "wb") as out:
        (outcome_of_file,) = wsep_sync.map(["echo", "a"], [url], stdout=out)
    assert output(outcome_of_file) is None
    assert (tmp_path / "out").read_bytes() == b"a\n"


def test_stdin_is_empty_unless_it_is_given(url: str) -> None:
    (outcome,) = wsep_sync.map(["cat"], [url])
    assert output(outcome) == b""


def test_servers_are_taken_as_they_are_needed(url: str) -> None:
    taken = []

    def urls() -> Iterator[str]:
        for number in range(20):
            taken.append(number)
            yield url

    outcomes = wsep_sync.map(["true"], urls(), max_workers=3)
    assert taken == []
    next(outcomes)
    assert len(taken) <= 6  # three that ran, and three for those that may have ended together
    assert len(list(outcomes)) == 19
    assert len(taken) == 20


def test_no_servers_no_outcomes() -> None:
    assert list(wsep_sync.map(["true"], [])) == []


def test_leaving_early_ends_the_commands(url: str, tmp_path: Path) -> None:
    script = "mkdir first 2> /dev/null && echo done || { echo $$ > $$.pid; exec sleep 1000; }"
    outcomes = wsep_sync.map(script, [url] * 4, shell=True, cwd=tmp_path)
    next(outcomes)
    eventually(lambda: len(pids(tmp_path)) == 3, "three commands that sleep")
    with contextlib.closing(outcomes):  # type: ignore[type-var]
        pass
    gone(*pids(tmp_path))


def pids(directory: Path) -> list[int]:
    return [int(text) for file in directory.glob("*.pid") if (text := file.read_text().strip())]


def test_ctrl_c_ends_the_commands(url: str, tmp_path: Path) -> None:
    script = "echo $$ > $$.pid; exec sleep 1000"

    def interrupt() -> None:
        eventually(lambda: len(pids(tmp_path)) == 2, "two commands that sleep")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Task(interrupt), pytest.raises(KeyboardInterrupt):
        list(wsep_sync.map(script, [url] * 2, shell=True, cwd=tmp_path))
    gone(*pids(tmp_path))


def test_arguments_that_make_no_sense(url: str) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        wsep_sync.map(["true"], [url], max_workers=0)
    with pytest.raises(ValueError, match="execer"):
        wsep_sync.map(["true"], [url], execer=LocalExecer())
    with pytest.raises(ValueError, match="url"):
        wsep_sync.map(["true"], [url], url=url)
    with pytest.raises(ValueError, match="stdin"):
        wsep_sync.map(["true"], [url], input=b"", stdin=0)


def test_a_progress_bar(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(wsep_sync.map(["true"], [url] * 3, progress=True))) == 3
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert list(wsep_sync.map(["true"], iter([url]), progress=True))
    assert "1server" in capsys.readouterr().err.replace(" ", "")


def test_a_progress_bar_without_tqdm(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install .*\[progress\]"):
        wsep_sync.map(["true"], [url], progress=True)
