"""A bug in any thread of the package: whoever waits for that thread is told, and the rest goes on.

The bug is an exception raised where a thread stands: at its first line, or at the first that it
comes to in the midst of a conversation.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pexpect
import pytest
from helpers import SECONDS, eventually, listening, read_until, sh
from session_clients import hub, session
from sshd import sshd

import wsep_sync
from wsep_sync import PIPE, ExitMissing, Popen, WsepError, connect
from wsep_sync.faces.expect import spawn
from wsep_sync.process import Process

_PACKAGE = os.path.dirname(wsep_sync.__file__)
_STARTER = os.path.join(_PACKAGE, "threads.py")


class _Bug(Exception):
    """What nobody foresaw."""


class _Saboteur:
    """Raises a bug in the next thread of a name that is started, once it is armed."""

    def __init__(self, name: str, armed: bool) -> None:
        self._name = name
        self._armed = threading.Event()
        if armed:
            self._armed.set()
        self._lock = threading.Lock()  # guards the strike: there is one
        self.struck = threading.Event()

    def arm(self) -> None:
        self._armed.set()

    def trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        path = frame.f_code.co_filename
        # Before its first line in the package, a thread may not know its own name yet.
        if not path.startswith(_PACKAGE) or path == _STARTER:
            return self.trace
        if not threading.current_thread().name.startswith(self._name):
            return None
        if event == "line" and self._armed.is_set():
            with self._lock:
                if not self.struck.is_set():
                    self.struck.set()
                    raise _Bug(self._name)
        return self.trace


@contextlib.contextmanager
def _bug_in(name: str, armed: bool) -> Iterator[_Saboteur]:
    saboteur = _Saboteur(name, armed)
    former = threading.gettrace()
    threading.settrace(saboteur.trace)
    try:
        yield saboteur
    finally:
        threading.settrace(former)  # type: ignore[arg-type]
    assert saboteur.struck.wait(SECONDS), f"no thread {name} came by"


@pytest.fixture
def url() -> Iterator[str]:
    with listening() as listener:
        yield listener.url
        # The server serves the next client.
        with connect(listener.url) as execer, execer.start(sh("echo next")) as process:
            assert process.stdout.read() == b"next\n"


def _fails(process: Process) -> None:
    """Both reading and waiting end, and with an error that says what is the matter."""
    with pytest.raises(ExitMissing, match="internal error"):
        process.stdout.read()
    with pytest.raises(ExitMissing, match="internal error"):
        process.wait(SECONDS)


@pytest.mark.parametrize("armed", [True, False], ids=["start", "middle"])
@pytest.mark.parametrize("name", ["wsep-connection", "wsep-receive"])
def test_what_serves_a_command(
    url: str, name: str, armed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if armed and name == "wsep-connection":
        with _bug_in(name, armed), pytest.raises(WsepError):
            connect(url, timeout=SECONDS)
        return
    with (
        _bug_in(name, armed) as saboteur,
        connect(url, timeout=SECONDS) as execer,
        execer.start(sh("cat", stdin=True)) as process,
    ):
        if not armed:
            process.stdin.write(b"one\n")
            process.stdin.flush()
            assert read_until(process.stdout, b"\n") == b"one\n"
            saboteur.arm()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"two\n")
                process.stdin.flush()
        _fails(process)
    assert any("internal error" in line for line in caplog.messages)


@pytest.mark.long
@pytest.mark.parametrize("armed", [True, False], ids=["start", "middle"])
@pytest.mark.parametrize("name", ["wsep-ssh-out", "wsep-ssh-err"])
def test_what_reads_from_an_ssh_host(name: str, armed: bool) -> None:
    command = sh("read a; echo $a; echo $a >&2; sleep 1000", stdin=True)
    with (
        sshd() as host,
        host.connect() as execer,
        _bug_in(name, armed) as saboteur,
        execer.start(command) as process,
    ):
        saboteur.arm()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"one\n")
            process.stdin.close()
        _fails(process)


@pytest.mark.parametrize("armed", [True, False], ids=["start", "middle"])
@pytest.mark.parametrize("name", ["wsep-session"])
def test_what_serves_a_session(name: str, armed: bool) -> None:
    with hub() as place, _bug_in(name, armed) as saboteur:
        if armed:
            with pytest.raises(WsepError):  # noqa: PT012 - it may have begun, or not
                process = place.start(session("s", "cat"))
                process.stdout.read()
                process.wait(SECONDS)
        else:
            with place.start(session("s", "cat")) as process:
                process.stdin.write(b"one\n")
                process.stdin.flush()
                assert read_until(process.stdout, b"one\r\none\r\n")
                saboteur.arm()
                process.stdin.write(b"\x04")  # the end of cat
                process.stdin.flush()
                with pytest.raises(ExitMissing):
                    process.wait(SECONDS)
        eventually(lambda: not place.server.sessions(), "the end of the session")
        with place.start(session("s", "true")) as process:
            process.wait(SECONDS)


@pytest.mark.parametrize("name", ["wsep-stdin", "wsep-end"])
def test_what_blocks_in_place_of_a_server_s_loop(url: str, name: str) -> None:
    # For what has no descriptor, as on a server further on.
    with (
        _bug_in(name, armed=True),
        listening(lambda: connect(url, timeout=SECONDS)) as front,
        connect(front.url, timeout=SECONDS) as execer,
        execer.start(sh("exec sleep 1000", stdin=True)) as process,
    ):
        process.stdin.raw.write(bytes(1 << 18))  # more than its pipe holds
        _fails(process)


@pytest.mark.parametrize("file", ["stdin", "stdout"])
def test_what_fills_or_empties_a_descriptor(url: str, file: str) -> None:
    with (
        _bug_in("wsep-fileno", armed=True) as saboteur,
        connect(url, timeout=SECONDS) as execer,
        execer.start(sh("cat", stdin=True)) as process,
    ):
        descriptor = getattr(process, file).fileno()
        assert saboteur.struck.wait(SECONDS)
        if file == "stdout":
            with pytest.raises(WsepError, match="internal error"):
                process.stdout.read()
        else:
            with pytest.raises(BrokenPipeError):  # noqa: PT012 - until the pipe is seen to break
                while True:
                    os.write(descriptor, b"what is lost")
            process.kill()


@pytest.mark.parametrize("what", ["stdin", "stdout"])
def test_what_copies_to_a_file(url: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    name = {"stdin": "wsep-copy-input", "stdout": "wsep-copy-output"}[what]
    with (
        path.open("r+b") as file,
        _bug_in(name, armed=True),
        Popen(["cat"], url=url, **{"stdin": PIPE, what: file}) as process,
    ):
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is None or process.stdin.close() is None
        with pytest.raises(OSError, match="internal error"):
            process.wait(SECONDS)


def test_what_communicates(url: str) -> None:
    with (
        _bug_in("wsep-communicate", armed=True),
        Popen(["cat"], url=url, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process,
        pytest.raises(_Bug),
    ):
        process.communicate(b"some", timeout=SECONDS)


def test_what_types(url: str) -> None:
    with (
        _bug_in("wsep-send", armed=True),
        spawn("cat", url=url, timeout=SECONDS) as child,
        pytest.raises(_Bug),
    ):
        child.sendline("some")


# The command line, in a process of its own

_MAIN = """
import os, sys, threading
import wsep_sync.threads
from wsep_sync.cli import main

package = os.path.dirname(wsep_sync.__file__)

def trace(frame, event, argument):
    path = frame.f_code.co_filename
    if event == "line" and path.startswith(package) and path != wsep_sync.threads.__file__:
        if threading.current_thread().name.startswith(os.environ["BUG"]):
            raise KeyError("nobody foresaw it")
    return trace

threading.settrace(trace)
sys.exit(main())
"""


@pytest.mark.parametrize("name", ["wsep-stdin", "wsep-stderr", "wsep-work"])
def test_notty(url: str, name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _MAIN, "notty", "--url", url, "--", "sleep", "1000"],
        input=b"some",
        env={**os.environ, "BUG": name},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode not in (0, None)
    assert b"nobody foresaw it" in result.stderr


@pytest.mark.parametrize("name", ["wsep-keyboard", "wsep-resize"])
def test_tty(url: str, name: str) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-c", _MAIN, "tty", "--url", url, "--", "sleep", "1000"],
        env={**os.environ, "BUG": name},
        timeout=SECONDS,
    )
    try:
        child.expect("nobody foresaw it")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus not in (0, None)
    finally:
        child.close(force=True)


def test_serve() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _MAIN, "serve", "--port", "0"],
        env={**os.environ, "BUG": "wsep-accept"},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 1
    assert b"connections are not accepted any more" in result.stderr
