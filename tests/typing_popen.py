"""What the types of subprocess's face are: checked by mypy in tox's `type`, and never run.

An `ignore` is a mistake that has to be found: with `--strict`, one that finds nothing is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any, assert_type

import wsep_sync
from wsep_sync import (
    PIPE,
    STDOUT,
    Command,
    Execer,
    Outcome,
    Popen,
    call,
    check_call,
    check_output,
    getoutput,
    getstatusoutput,
    run,
)


def popen(flag: bool, encoding: str | None, execer: Execer) -> None:
    assert_type(Popen(["a"]), Popen[bytes])
    assert_type(Popen("a", stdout=PIPE, text=False), Popen[bytes])
    assert_type(Popen(b"a", text=None, encoding=None), Popen[bytes])
    assert_type(Popen(Path("a"), text=True), Popen[str])
    assert_type(Popen(["a", b"b", Path("c")], encoding="utf-8"), Popen[str])
    assert_type(Popen(["a"], errors="replace"), Popen[str])
    assert_type(Popen(["a"], universal_newlines=True), Popen[str])
    assert_type(Popen(["a"], -1, None, PIPE, PIPE, STDOUT, text=True), Popen[str])
    assert_type(Popen(["a"], text=flag), Popen[Any])
    assert_type(Popen(["a"], encoding=encoding), Popen[Any])
    assert_type(
        Popen(
            ["a"],
            text=True,
            execer=execer,
            tty=True,
            size=(24, 80),
            id="x",
            clean_env=True,
            env={"A": "1"},
            cwd=Path(),
            shell=True,
            umask=0o22,
            user="me",
            group=5,
        ),
        Popen[str],
    )
    assert_type(Popen(["a"], url="ws://127.0.0.1"), Popen[bytes])
    assert_type(Popen(["a"], url="ws://a", token="x", headers={}, timeout=1.5), Popen[bytes])
    Popen(["a"], "1")  # type: ignore[call-overload]
    Popen(["a"], input=b"")  # type: ignore[call-overload]
    Popen(["a"], umask="022")  # type: ignore[call-overload]


def commands() -> None:
    assert_type(Command("ls", ["-la"]).args, tuple[str, ...])
    Command(Path("ls"), iter("ab"), env={"A": "a"}, working_dir=Path(), discard=["stdout"])
    Command("ls", env=["A=a"])
    Command("ls", argv0="-ls", user="me", group="us", groups=["a", 1], restore_signals=False)
    Command(b"ls")  # type: ignore[arg-type]
    Command("ls", [5])  # type: ignore[list-item]
    wsep_sync.Popem  # type: ignore[attr-defined]  # noqa: B018


def streams(text: Popen[str], binary: Popen[bytes]) -> None:
    assert_type(text.stdin, IO[str] | None)
    assert_type(binary.stdout, IO[bytes] | None)
    assert_type(binary.stderr, IO[bytes] | None)
    assert_type(binary.returncode, int | None)
    assert_type(binary.poll(), int | None)
    assert_type(binary.wait(1.5), int)
    assert_type(binary.pid, int)
    assert_type(text.communicate("a", timeout=1), tuple[Any, Any])
    binary.communicate(b"a")
    binary.communicate("a")  # type: ignore[arg-type]
    text.communicate(b"a")  # type: ignore[arg-type]
    with text as same:
        assert_type(same, Popen[str])
    if text.stdout is not None:
        for line in text.stdout:
            assert_type(line, str)


def runs(flag: bool, execer: Execer) -> None:
    assert_type(run(["a"]), CompletedProcess[bytes])
    assert_type(run(["a"], input=b"", capture_output=True, check=True), CompletedProcess[bytes])
    assert_type(run(["a"], input=bytearray(), timeout=1), CompletedProcess[bytes])
    assert_type(run("a", shell=True, text=True, input=""), CompletedProcess[str])
    assert_type(run(["a"], encoding="utf-8", stdout=PIPE), CompletedProcess[str])
    assert_type(run(["a"], errors="ignore"), CompletedProcess[str])
    assert_type(run(["a"], universal_newlines=True), CompletedProcess[str])
    assert_type(run(["a"], text=flag), CompletedProcess[Any])
    assert_type(run(["a"], execer=execer, tty=True), CompletedProcess[bytes])
    assert_type(run(["a"], -1, None, PIPE, PIPE, STDOUT, text=True), CompletedProcess[str])
    assert_type(run(["a"], 0, stdin=PIPE), CompletedProcess[bytes])
    run(["a"], no_such_argument=1)  # type: ignore[call-overload]
    run(["a"], timeout="1")  # type: ignore[call-overload]
    run(["a"], stderr="err")  # type: ignore[call-overload]
    run(5)  # type: ignore[call-overload]


def others(flag: bool) -> None:
    assert_type(call(["a"], timeout=1, url="ws://127.0.0.1"), int)
    assert_type(check_call("a", shell=True, text=True), int)
    assert_type(check_output(["a"]), bytes)
    assert_type(check_output(["a"], text=True, stderr=STDOUT), str)
    assert_type(check_output(["a"], encoding="utf-8", input="x"), str)
    assert_type(check_output(["a"], text=flag), Any)
    assert_type(getoutput("a", url="ws://127.0.0.1"), str)
    assert_type(getstatusoutput("a"), tuple[int, str])
    check_output(["a"], stdout=PIPE)  # type: ignore[call-overload]
    check_output(["a"], check=True)  # type: ignore[call-overload]
    check_output(["a"], capture_output=True)  # type: ignore[call-overload]
    call(["a"], input=b"")  # type: ignore[call-arg]


def fan_out(urls: list[str], flag: bool, execer: Execer) -> None:
    assert_type(wsep_sync.map(["a"], urls), Iterator[Outcome[bytes]])
    assert_type(wsep_sync.map("a", urls, 5, text=True, progress=True), Iterator[Outcome[str]])
    assert_type(wsep_sync.map("a", urls, text=flag), Iterator[Outcome[Any]])
    assert_type(wsep_sync.map("a", urls, stdin=None, input=b""), Iterator[Outcome[bytes]])
    assert_type(wsep_sync.map("a", [execer, "ws://a"]), Iterator[Outcome[bytes]])
    wsep_sync.map("a", urls, capture_output=True)  # type: ignore[call-overload]
    for outcome in wsep_sync.map(["a"], iter(urls), max_workers=5, encoding="utf-8"):
        assert_type(outcome.url, str)
        assert_type(outcome.error, Exception | None)
        assert_type(outcome.result, CompletedProcess[str] | None)
