"""pexpect's face: where and how commands start, and the terminal they get."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from helpers import SECONDS, MemoryExecer, listening, scripted
from spawns import FOREVER, QUIET, Start, shell

from wsep_sync import (
    Command,
    Execer,
    LocalExecer,
    Process,
    StartError,
    TransportClosed,
    connect,
    spawn,
)
from wsep_sync.protocol.messages import Pid, decode_client_message
from wsep_sync.transports.base import Transport

# Starting


def test_a_command_line_is_split(start: Start) -> None:
    child = start("""printf '%s;' "a b" c\\ d 'e"f'""")
    assert child.read() == b'a b;c d;e"f;'
    assert child.args[1:] == ["%s;", "a b", "c d", 'e"f']


def test_arguments_are_not_split(start: Start) -> None:
    child = start("printf", ["%s;", "a b", "'c'", "*", "$HOME"])
    assert child.read() == b"a b;'c';*;$HOME;"


def test_arguments_have_to_be_a_list(start: Start) -> None:
    with pytest.raises(TypeError):
        start("printf", "%s")


def test_directory(start: Start, tmp_path: Path) -> None:
    assert start("pwd", cwd=str(tmp_path)).read() == os.fsencode(tmp_path) + b"\r\n"


def test_environment(start: Start) -> None:
    child = start("printenv NAME", env={**os.environ, "NAME": "a=b c"})
    assert child.read() == b"a=b c\r\n"


def test_pid_and_state(start: Start) -> None:
    child = start(*shell("echo $$; cat"))
    assert int(child.readline()) == child.pid
    assert child.isalive()
    assert child.isatty()
    assert (child.closed, child.terminated) == (False, False)
    assert (child.exitstatus, child.signalstatus) == (None, None)


def test_a_missing_command(ours: Start, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for echo in (True, False):
        with pytest.raises(FileNotFoundError) as missing:
            ours("no-such-command", ["x"], echo=echo)
        assert missing.value.filename == "no-such-command"
        with pytest.raises(FileNotFoundError):
            ours(str(tmp_path / "missing"), echo=echo)
        with pytest.raises(PermissionError) as denied:
            ours(str(plain), echo=echo)
        assert denied.value.filename == str(plain)
        with pytest.raises(PermissionError):
            ours(str(tmp_path), echo=echo)
        with pytest.raises(NotADirectoryError):
            ours("true", cwd=plain, echo=echo)
        with pytest.raises(FileNotFoundError):
            ours("true", cwd=tmp_path / "missing", echo=echo)


def test_what_pexpect_raises_for_a_missing_command() -> None:
    with pytest.raises(pexpect.ExceptionPexpect):
        pexpect.spawn("no-such-command")


def test_arguments_that_are_of_no_use(ours: Start) -> None:
    with pytest.raises(ValueError, match="preexec_fn"):
        ours("true", preexec_fn=print)
    with pytest.raises(ValueError, match="has the echo it has"):
        ours("true", id="name", echo=False)
    with pytest.raises(ValueError, match="no command"):
        ours("")
    for dimensions in ((0, 0), (0, 80), (24, 0)):
        with pytest.raises(ValueError, match="0 rows or"):
            ours("true", dimensions=dimensions)
    with pytest.raises(ValueError, match="environment variable"):
        ours("true", env={"A=B": "C"})
    with pytest.raises(ValueError, match="both"):
        spawn("true", execer=LocalExecer(), url="ws://127.0.0.1:1")


def test_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(LocalExecer):
        commands: list[Command]

        def start(self, command: Command) -> Process:
            self.commands.append(command)
            return super().start(command)

    execer = Counting()
    execer.commands = []
    with spawn("true", execer=execer) as child:
        child.expect(pexpect.EOF)
    assert [command.command for command in execer.commands] == ["true"]
    with listening(execer) as listener:
        monkeypatch.setenv("WSEP_URL", listener.url)
        with spawn("false", []) as child:
            child.expect(pexpect.EOF)
        with spawn("cat", execer=LocalExecer()) as child:
            assert child.isalive()
        monkeypatch.setenv("WSEP_URL", "")
        with spawn("true", url=listener.url) as child:
            child.expect(pexpect.EOF)
        with spawn("cat") as child:
            assert child.isalive()
    assert [command.command for command in execer.commands] == ["true", "false", "true"]


def test_over_a_connection_in_memory() -> None:
    with MemoryExecer() as execer, spawn("cat", execer=execer) as child:
        child.sendline("hello")
        child.expect("hello\r\nhello\r\n")


def test_attaching_to_a_session() -> None:
    with (
        listening() as listener,
        spawn("cat", id="a name", url=listener.url) as first,
    ):
        first.sendline("hello")
        first.expect("hello\r\nhello\r\n")
        with spawn("cat", id="a name", url=listener.url) as second:
            second.expect("hello\r\nhello\r\n")
            second.sendline("both")
            for child in (first, second):
                child.expect("both\r\nboth\r\n")
            second.sendeof()
            for child in (first, second):
                child.expect(pexpect.EOF)
                assert child.exitstatus == 0


class _FromElsewhere(Process):
    """A process of somebody else's execer, whose files are the io module's."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid
        self.stdin = process.stdin
        self.stderr = process.stderr
        self.stdout = io.BufferedReader(io.FileIO(os.dup(process.stdout.fileno())))
        self.resize = process.resize  # type: ignore[method-assign]
        self.send_signal = process.send_signal  # type: ignore[method-assign]
        self.wait = process.wait  # type: ignore[method-assign]
        self.kill = process.kill  # type: ignore[method-assign]

    def resize(self, rows: int, cols: int) -> None: ...
    def send_signal(self, signal: int) -> None: ...
    def wait(self, timeout: float | None = None) -> None: ...
    def kill(self) -> None: ...

    def close(self) -> None:
        self._process.close()
        self._process.stdout.close()


class _Elsewhere(Execer):
    def start(self, command: Command) -> Process:
        return _FromElsewhere(LocalExecer().start(command))


def test_over_the_files_of_another_execer() -> None:
    with spawn("cat", execer=_Elsewhere()) as child:
        child.sendline("hello")
        child.expect("hello\r\nhello\r\n")
        with pytest.raises(pexpect.TIMEOUT):
            child.read_nonblocking(1, timeout=0.05)


# The terminal


def test_size(start: Start) -> None:
    child = start(*shell(QUIET + "stty size; read x; stty size"))
    child.expect("ready\r\n24 80\r\n")
    assert child.getwinsize() == (24, 80)
    child.setwinsize(50, 132)
    assert child.getwinsize() == (50, 132)
    child.sendline()
    child.expect("50 132\r\n")


def test_dimensions(start: Start) -> None:
    child = start(*shell("stty size"), dimensions=(10, 20))
    assert child.getwinsize() == (10, 20)
    assert child.read() == b"10 20\r\n"


def test_a_new_size_is_signalled(start: Start) -> None:
    child = start(*shell(f"trap 'stty size; exit' WINCH; echo ready; {FOREVER}"))
    child.expect("ready\r\n")
    child.setwinsize(30, 100)
    child.expect("30 100\r\n")


def test_a_size_out_of_range(ours: Start) -> None:
    child = ours("cat")
    with pytest.raises(ValueError, match="65535"):
        child.setwinsize(65536, 80)
    assert child.getwinsize() == (24, 80)


def test_no_echo_from_the_start(start: Start) -> None:
    child = start("cat", echo=False)
    assert not child.echo
    for word in ("one", "two"):
        child.sendline(word)
        child.expect_exact(f"{word}\r\n")
        assert child.before == b""
    child.sendeof()
    assert child.read() == b""


def test_no_echo_keeps_the_command_as_it_is(ours: Start) -> None:
    child = ours(*shell('echo $$; printf "%s;" "$@"; stty size'), echo=False, dimensions=(7, 9))
    assert int(child.readline()) == child.pid
    assert child.args == ["sh", "-c", 'echo $$; printf "%s;" "$@"; stty size']
    assert child.name.startswith("<sh -c echo")
    assert child.read() == b";7 9\r\n"


def test_nobody_waits_for_the_echo_of_who_has_ended(ours: Start) -> None:
    child = ours(*shell("read x"))
    child.sendline()
    child.expect(pexpect.EOF)
    assert child.waitnoecho(timeout=None) is False


def test_no_echo_without_stty(ours: Start, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="stty"):
        ours("/bin/true", echo=False, env={"PATH": str(tmp_path)})


def test_changing_the_echo(start: Start) -> None:
    child = start(*shell("echo ready; read x; stty -echo; read x; stty echo; cat"))
    child.expect("ready\r\n")
    assert child.getecho()
    assert not child.waitnoecho(timeout=0.1)
    child.sendline()
    assert child.waitnoecho()
    assert not child.getecho()
    child.setecho(True)
    assert child.getecho()
    child.setecho(False)
    assert not child.getecho()
    child.setecho(1)
    assert child.getecho()
    child.setecho(0)
    assert not child.getecho()


def without_echo(child: Any) -> None:
    for call in (child.getecho, lambda: child.setecho(False), child.waitnoecho):
        with pytest.raises(io.UnsupportedOperation, match="echo=False"):
            call()


def test_the_echo_at_a_server_without_additions() -> None:
    def serve(transport: Transport) -> None:
        decode_client_message(transport.receive())
        transport.send(Pid(4321).encode())
        with contextlib.suppress(TransportClosed):
            while True:
                transport.receive()
        transport.close()

    with scripted(serve) as url, spawn("cat", url=url) as child:
        without_echo(child)


def test_the_echo_further_on() -> None:
    with (
        listening() as last,
        connect(last.url) as execer,
        listening(execer) as first,
        spawn("cat", url=first.url) as child,
    ):
        without_echo(child)


def test_the_echo_of_a_session() -> None:
    with listening() as listener, spawn("cat", id="echo", url=listener.url) as child:
        assert child.getecho()
        child.setecho(False)
        with spawn("cat", id="echo", url=listener.url) as second:
            assert not second.getecho()
            second.process.kill()


def test_the_echo_of_a_command_that_has_ended(ours: Start) -> None:
    child = ours("true")
    child.expect(pexpect.EOF)
    child.close()
    with pytest.raises((ValueError, BrokenPipeError)):
        child.getecho()
    child = ours(*shell("kill -9 $$"))
    assert child.waitnoecho(timeout=0.5) is False


def test_no_descriptor(ours: Start) -> None:
    child = ours("cat")
    with pytest.raises(io.UnsupportedOperation, match="descriptor"):
        child.fileno()
    child.sendline("and on")
    assert child.expect("on", SECONDS, None) == 0
    assert child.expect_exact(["on"], SECONDS, 10) == 0


# The import


def test_pexpect_is_imported_when_it_is_asked_for() -> None:
    script = (
        "import sys, wsep_sync\n"
        "assert 'spawn' in dir(wsep_sync) and 'spawn' in wsep_sync.__all__\n"
        "assert 'pexpect' not in sys.modules\n"
        "spawn = wsep_sync.spawn\n"
        "from wsep_sync.expect import spawn as same\n"
        "assert spawn is same is wsep_sync.spawn and 'pexpect' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
