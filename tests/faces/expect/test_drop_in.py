"""pexpect's face as `import wsep_sync.expect as pexpect`: what scripts take from pexpect itself."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from helpers import SECONDS, listening
from spawns import FOREVER, QUIET, Start, shell

import wsep_sync.expect as face

# The names


def test_the_names_are_pexpects_own() -> None:
    for name in ("EOF", "TIMEOUT", "ExceptionPexpect"):
        assert getattr(face, name) is getattr(pexpect, name)
    for name in ("spawn", "spawnu", "run", "runu"):
        assert callable(getattr(face, name))
        assert name in face.__all__


def test_spawnu(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as listener:
        monkeypatch.setenv("WSEP_URL", listener.url)
        with face.spawnu("echo ä") as child:
            assert isinstance(child, face.spawn)
            assert child.read() == "ä\r\n"


@pytest.fixture(params=["pexpect", "local", "remote"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """pexpect's own run, ours on this machine, and ours over a WebSocket."""
    if request.param == "pexpect":
        yield pexpect.run
    elif request.param == "local":
        yield face.run
    else:
        with listening() as listener:
            monkeypatch.setenv("WSEP_URL", listener.url)
            yield face.run


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_running(run: Any, tmp_path: Path) -> None:
    assert run("echo it is") == b"it is\r\n"
    assert run("sh -c 'echo so; exit 3'", withexitstatus=True) == (b"so\r\n", 3)
    assert run("pwd", cwd=str(tmp_path), encoding="utf-8") == f"{tmp_path}\r\n"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_answering_what_a_command_asks(run: Any) -> None:
    asks = "sh -c 'stty -echo; for i in 1 2 3; do echo which?; read x; echo got $x; done'"
    seen: list[Any] = []

    def answer(variables: dict[str, Any]) -> Any:
        seen.append((variables["event_count"], variables["extra_args"]))
        return "last\n" if len(seen) == 2 else "next\n"

    output = run(asks, events={"which": answer}, extra_args="mine", encoding="utf-8")
    assert "got next" in output
    assert "got last" in output
    assert seen == [(0, "mine"), (1, "mine"), (2, "mine")]
    assert b"got fixed" in run(asks, events=[("which", "fixed\n")])
    assert b"got" not in run(asks, events={"which": lambda _variables: True})
    with pytest.raises(TypeError):
        run(asks, events={"which": 1})


def test_a_run_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as listener:
        monkeypatch.setenv("WSEP_URL", listener.url)
        output, status = face.run(
            "sh -c 'echo begun; exec sleep 1000'", timeout=0.5, withexitstatus=True
        )
    assert (output, status) == (b"begun\r\n", None)


# Commands that begin later


def test_a_command_that_is_started_later(start: Start) -> None:
    child = start(None, None)
    assert (child.pid, child.command, child.args) == (None, None, None)
    str(child)
    child._spawn("printf", ["later"])
    assert child.read() == b"later"
    with pytest.raises((face.ExceptionPexpect, AssertionError)):
        child._spawn("true")


def test_what_cannot_be_done_before_there_is_a_command(ours: Start) -> None:
    child = ours(None)
    assert not child.isalive()
    for call in (child.read, lambda: child.send("x"), lambda: child.sendcontrol("c")):
        with pytest.raises(ValueError, match="closed"):
            call()
    child.close()


FAKE_SSH = """#!/bin/sh
stty -echo
printf 'password: '
read password
stty echo
echo welcome
exec sh -i
"""


def test_pxssh_as_a_subclass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "ssh"
    fake.write_text(FAKE_SSH)
    fake.chmod(0o755)
    monkeypatch.setenv("PS1", "$ ")
    monkeypatch.setattr(pexpect, "spawn", face.spawn)
    monkeypatch.delitem(sys.modules, "pexpect.pxssh", raising=False)
    pxssh = importlib.import_module("pexpect.pxssh")
    monkeypatch.delitem(sys.modules, "pexpect.pxssh")
    assert issubclass(pxssh.pxssh, face.spawn)
    with listening() as listener:
        monkeypatch.setenv("WSEP_URL", listener.url)
        with pxssh.pxssh(encoding="utf-8") as session:
            assert session.login("host", "me", "secret", cmd=str(fake))
            session.sendline("echo $((6 * 7))")
            assert session.prompt()
            assert "42" in session.before
            session.logout()


def test_a_command_that_is_no_string(start: Start) -> None:
    with pytest.raises(pexpect.ExceptionPexpect, match="fdspawn"):
        start(1)


# SIGHUP


@pytest.mark.parametrize("ignored", [True, False])
def test_ignoring_sighup(start: Start, ignored: bool) -> None:
    child = start(*shell(f"{QUIET} {FOREVER}"), ignore_sighup=ignored)
    child.expect("ready\r\n")
    child.kill(signal.SIGHUP)
    if not ignored:
        child.expect(pexpect.EOF)
        assert child.wait() is None or child.signalstatus == signal.SIGHUP
    else:
        child.kill(signal.SIGTERM)
        child.expect(pexpect.EOF)
        child.wait()
        assert child.signalstatus == signal.SIGTERM


# Coroutines


def test_expecting_in_a_coroutine(start: Start) -> None:
    async def script() -> None:
        child = start(*shell(f"{QUIET} read x; echo got $x; exit 3"))
        assert await child.expect(["never", "ready"], async_=True) == 1
        with pytest.raises(pexpect.TIMEOUT):
            await child.expect("got", timeout=0.1, async_=True)
        assert await child.expect_exact(["got", pexpect.TIMEOUT], timeout=0, async_=True) == 1
        child.sendline("it")
        assert await child.expect_exact(b"got it", **{"async": True}) == 0
        with pytest.raises(pexpect.EOF):
            await child.expect("more", -1, None, True)

    asyncio.run(script())


def test_the_loop_goes_on_while_something_is_expected(ours: Start) -> None:
    async def script() -> None:
        child = ours(*shell(f"{QUIET} read x; echo got $x; cat"))
        await child.expect("ready", async_=True)
        expected = asyncio.ensure_future(child.expect("got it", timeout=SECONDS, async_=True))
        await asyncio.sleep(0)
        child.sendline("it")  # which it waits for
        assert await expected == 0

    asyncio.run(script())


def test_what_is_not_awaited_any_more_takes_nothing(ours: Start) -> None:
    async def script() -> None:
        child = ours(*shell(f"{QUIET} read x; echo got $x; cat"))
        await child.expect("ready", async_=True)
        for timeout in (None, SECONDS):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(child.expect("x", timeout=timeout, async_=True), 0.2)
        child.sendline("it")
        assert child.expect("got it") == 0

    asyncio.run(script())


def test_what_comes_while_it_is_cancelled_is_for_who_expects_next(
    ours: Start, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def script() -> None:
        child = ours(*shell(f"{QUIET} read x < {tmp_path}/fifo; echo hit; cat"))
        await child.expect("ready", async_=True)
        task = asyncio.ensure_future(child.expect("hit", timeout=None, async_=True))
        while child._awaiting._left is None:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert child._awaiting.left
        (tmp_path / "fifo").write_text("\n")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert child.expect("hit") == 0

    asyncio.run(script())
