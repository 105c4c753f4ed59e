"""pexpect's face: the same cases on `pexpect.spawn` and on ours, here and over a WebSocket."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pexpect
import pytest
from helpers import (
    SECONDS,
    MemoryExecer,
    Task,
    alive,
    blocked,
    eventually,
    gone,
    listening,
    scripted,
    state,
)
from pexpect.replwrap import REPLWrapper

from wsep_sync import Command, Execer, ExitMissing, LocalExecer, Process, StartError, spawn
from wsep_sync.protocol.messages import STDOUT_HEADER, Pid, decode_client_message
from wsep_sync.transports.base import Transport

Start: TypeAlias = Callable[..., Any]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSEP_URL", raising=False)
    # The newer REPL paints its lines with escape sequences.
    monkeypatch.setenv("PYTHON_BASIC_REPL", "1")


def starter(kind: str, stack: contextlib.ExitStack) -> Start:
    """A function that spawns; what it spawned is closed by the stack."""
    if kind == "remote":
        url = stack.enter_context(listening()).url

    def start(*args: Any, **kwargs: Any) -> Any:
        if kind == "pexpect":
            with warnings.catch_warnings():
                # It forks, in a process that may have threads.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = pexpect.spawn(*args, **kwargs)
        elif kind == "local":
            child = spawn(*args, **kwargs)
        else:
            child = spawn(*args, url=url, **kwargs)
        stack.callback(child.close)
        return child

    return start


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


def shell(script: str) -> tuple[str, list[str]]:
    return "sh", ["-c", script]


# A command that ends when it is told to, and shows nothing of what is typed.
QUIET = "stty -echo; echo ready; "

# Goes on until a trap ends it: a shell runs its traps between two commands.
FOREVER = "while :; do sleep 0.05; done"


# Expecting


def test_a_pattern_divides_the_output(start: Start) -> None:
    child = start(*shell("echo one two three; cat"))
    assert child.expect("t(w)o") == 0
    assert (child.before, child.after) == (b"one ", b"two")
    assert child.match.group(1) == b"w"
    assert child.match_index == 0
    child.expect("\r\n")
    assert child.before == b" three"
    assert child.buffer == b""


def test_the_first_in_the_stream_wins_and_then_the_first_in_the_list(start: Start) -> None:
    child = start(*shell("echo foobar; cat"), encoding="utf-8")
    child.expect("(?=r\r\n)")  # all of it is there
    child.buffer = "foobar"
    assert child.expect(["bar", "foo", "foobar"]) == 1
    assert child.after == "foo"
    assert child.expect(["nothing", re.compile("B(A)R", re.IGNORECASE), pexpect.EOF]) == 1
    assert child.match.group(1) == "a"


def test_exact_strings(start: Start) -> None:
    child = start(*shell("echo 'a.c (abc) [x]'; cat"))
    assert child.expect_exact("(abc)") == 0
    assert (child.before, child.after, child.match) == (b"a.c ", b"(abc)", b"(abc)")
    assert child.expect_exact(["nothing", b"[x]", pexpect.EOF]) == 1
    assert child.before == b" "


def test_ignoring_case(start: Start) -> None:
    child = start(*shell("echo HELLO; cat"))
    child.ignorecase = True
    assert child.expect(["hello"]) == 0


def test_compiled_lists(start: Start) -> None:
    child = start(*shell("printf '1\\n2\\n3\\n'"))
    patterns = child.compile_pattern_list([r"\d\r\n", pexpect.EOF])
    assert [child.expect_list(patterns) for _ in range(4)] == [0, 0, 0, 1]


def test_what_is_no_pattern(start: Start) -> None:
    child = start("cat")
    with pytest.raises(TypeError, match="as pattern"):
        child.expect(3)
    with pytest.raises(TypeError):
        child.expect_exact([object()])


def test_a_timeout_is_raised(start: Start) -> None:
    child = start(*shell("echo some; cat"))
    child.expect("so")
    with pytest.raises(pexpect.TIMEOUT, match="nothing of the kind"):
        child.expect("nothing of the kind", timeout=0.2)
    assert child.before.strip() == b"me"
    assert (child.after, child.match, child.match_index) == (pexpect.TIMEOUT, None, None)
    assert child.isalive()
    child.expect("me")  # nothing was lost


def test_a_timeout_is_expected(start: Start) -> None:
    child = start("cat", timeout=0.1)
    assert child.timeout == 0.1
    assert child.expect(["nothing", pexpect.TIMEOUT]) == 1
    assert (child.before, child.after, child.match) == (b"", pexpect.TIMEOUT, pexpect.TIMEOUT)
    assert child.expect_exact([pexpect.EOF, pexpect.TIMEOUT], timeout=0) == 1
    assert child.expect([pexpect.TIMEOUT], timeout=0.05) == 0


def test_no_timeout_waits(start: Start) -> None:
    child = start(*shell("sleep 0.3; echo late"), timeout=0.05)
    assert child.expect("late", timeout=None) == 0


def test_the_end_is_raised(start: Start) -> None:
    child = start(*shell("echo last words"))
    assert not child.eof()
    with pytest.raises(pexpect.EOF, match="last words"):
        child.expect("nothing of the kind")
    assert child.before == b"last words\r\n"
    assert (child.after, child.match, child.match_index) == (pexpect.EOF, None, None)
    assert child.eof()
    assert child.flag_eof
    with pytest.raises(pexpect.EOF):
        child.expect("again")
    assert child.before == b""


def test_the_end_is_expected(start: Start) -> None:
    child = start(*shell("echo last words; exit 5"))
    assert child.expect(["nothing", pexpect.EOF, pexpect.TIMEOUT]) == 1
    assert (child.before, child.after) == (b"last words\r\n", pexpect.EOF)
    assert child.match is pexpect.EOF
    assert not child.isalive()
    assert child.exitstatus == 5


def test_only_the_end_of_what_was_read_is_searched(start: Start) -> None:
    child = start(*shell("printf 'needle%0100d\\n' 0; cat"), searchwindowsize=20)
    assert child.expect([pexpect.TIMEOUT, "needle"], timeout=0.3) == 0
    assert child.expect(["needle", pexpect.TIMEOUT], timeout=0.1, searchwindowsize=None) == 0
    assert child.before == b""


def test_a_window_for_one_call(start: Start) -> None:
    child = start(*shell("printf 'needle%0100d\\n' 0; cat"))
    assert child.expect([pexpect.TIMEOUT, "needle"], timeout=0.3, searchwindowsize=10) == 0
    assert child.expect_exact(["needle", pexpect.TIMEOUT], timeout=0.1) == 0


def test_the_message_shows_where_it_stands(start: Start) -> None:
    child = start(*shell("echo so far; cat"))
    child.expect("so")
    assert child.expect([pexpect.TIMEOUT, "nothing"], timeout=0.2) == 0
    for part in ("command: ", "args: ", "buffer (last 100 char", "before (last", "far", "pid: "):
        assert part in str(child)


# Reading as from a file


def test_reading_all(start: Start) -> None:
    child = start(*shell("seq 3"))
    assert child.read() == b"1\r\n2\r\n3\r\n"
    assert child.read() == b""


def test_reading_some(start: Start) -> None:
    child = start(*shell("printf 0123456789"), encoding="ascii")
    assert child.read(0) == ""
    assert [child.read(4) for _ in range(4)] == ["0123", "4567", "89", ""]


def test_reading_lines(start: Start) -> None:
    child = start(*shell("seq 5; printf end"))
    assert child.readline() == b"1\r\n"
    assert next(iter(child)) == b"2\r\n"
    assert child.readlines() == [b"3\r\n", b"4\r\n", b"5\r\n", b"end"]


def test_reading_without_blocking(start: Start) -> None:
    child = start(*shell(QUIET + "read x; printf 0123456789; read x; printf end"))
    child.expect("ready\r\n")
    with pytest.raises(pexpect.TIMEOUT):
        child.read_nonblocking(10, timeout=0)
    with pytest.raises(pexpect.TIMEOUT):
        child.read_nonblocking(10, timeout=0.05)
    child.sendline()
    got = child.read_nonblocking(4, timeout=SECONDS)
    while len(got) < 10:
        got += child.read_nonblocking(4, timeout=None)
    assert got == b"0123456789"
    child.sendline()
    assert child.read_nonblocking(100, -1) == b"end"
    with pytest.raises(pexpect.EOF):
        child.read_nonblocking(100, -1)
    assert child.flag_eof


def test_large_output(start: Start) -> None:
    child = start("seq 200000", maxread=65536)
    assert child.read() == b"".join(b"%d\r\n" % i for i in range(1, 200001))


def test_text_is_not_split_within_a_character(start: Start) -> None:
    child = start(*shell(QUIET + r"printf '\342\202'; read x; printf '\254\n'"), encoding="utf-8")
    child.expect("ready\r\n")
    got = ""
    while not child._decoder.getstate()[0]:
        got += child.read_nonblocking(10, timeout=SECONDS)
    assert got == ""
    child.sendline()
    assert child.expect("€\r\n") == 0
    assert child.before == ""


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_encodings(start: Start, encoding: str) -> None:
    child = start(
        *shell("stty raw -echo; printf r; cat"), encoding=encoding, codec_errors="replace"
    )
    assert child.encoding == encoding
    while not child.read_nonblocking(1, timeout=SECONDS) and encoding != "utf-16-le":
        pass
    child._decoder.reset()
    assert child.send("äöü") == len("äöü".encode(encoding))
    child.expect("äöü")


def test_bytes_that_are_not_in_the_encoding(start: Start) -> None:
    script = r"printf 'a\377b'; cat"
    with pytest.raises(UnicodeDecodeError):
        start(*shell(script), encoding="utf-8").expect("b")
    child = start(*shell(script), encoding="utf-8", codec_errors="replace")
    child.expect("b")
    assert child.before == "a\N{REPLACEMENT CHARACTER}"


def test_str_and_bytes(start: Start) -> None:
    child = start("cat")
    child.sendline("both")
    child.sendline(b"go")
    assert child.expect("both") == 0
    assert child.expect(b"go") == 0
    text = start("cat", encoding="utf-8")
    with pytest.raises(TypeError):
        text.sendline(b"no")
    with pytest.raises(TypeError):
        text.expect(b"no")


# Sending


def test_typing(start: Start) -> None:
    child = start(*shell(QUIET + "cat"))
    child.expect("ready\r\n")
    assert child.linesep == b"\n"
    assert child.send("ab") == 2
    assert child.sendline("cd") == 3
    assert child.write("ef") is None
    assert child.writelines(["gh", b"ij"]) is None
    assert child.sendline() == 1
    child.expect("abcd\r\nefghij\r\n")
    assert child.before == b""


def test_the_terminal_echoes(start: Start) -> None:
    child = start("cat")
    assert child.echo
    child.sendline("twice")
    child.expect("twice\r\n")
    child.expect("twice\r\n")


def test_control_characters(start: Start) -> None:
    child = start(*shell("stty raw -echo; printf ready; od -An -v -tx1 -N7 -w7"))
    child.expect("ready")
    assert [child.sendcontrol(char) for char in "aZ@[?_"] == [1] * 6
    child.sendcontrol("^")
    child.expect(" 01 1a 00 1b 7f 1f 1e")


def test_end_of_file(start: Start) -> None:
    child = start(*shell(QUIET + "cat; echo and on; cat"))
    child.expect("ready\r\n")
    child.sendline("in")
    child.expect("in\r\n")
    child.sendeof()
    child.expect("and on\r\n")
    child.sendcontrol("d")
    child.expect(pexpect.EOF)
    assert child.wait() == 0


def test_interrupt(start: Start) -> None:
    child = start(*shell(f"trap 'echo caught; exit 3' INT; echo ready; {FOREVER}"))
    child.expect("ready\r\n")
    child.sendintr()
    child.expect("caught\r\n")
    child.expect(pexpect.EOF)
    assert child.wait() == 3
    assert (child.exitstatus, child.signalstatus) == (3, None)


def cksum(data: bytes) -> bytes:
    run = subprocess.run(["cksum"], input=data, stdout=subprocess.PIPE, check=True)
    return run.stdout.strip()


def test_what_is_sent_is_whole(start: Start) -> None:
    data = os.urandom(300_000)
    script = f"stty raw -echo; printf ready; head -c {len(data)} | cksum"
    child = start(*shell(script))
    child.expect("ready")
    assert child.send(data) == len(data)
    child.expect_exact(cksum(data))


def test_sending_to_a_command_that_answers_before_it_reads_on(ours: Start) -> None:
    # Its output, were it not read meanwhile, would hold it up, and it the sender: pexpect hangs.
    child = ours("cat", echo=False, maxread=65536)
    data = b"".join(b"%0999d\n" % i for i in range(5000))
    assert child.send(data) == len(data)
    child.sendeof()
    assert child.read().replace(b"\r\n", b"\n") == data
    assert child.exitstatus == 0


def test_the_rest_of_an_interrupted_send_goes_before_the_next(ours: Start) -> None:
    data, tail = os.urandom(4_000_000), b"the next"
    count = len(data + tail)
    child = ours(*shell(f"stty raw -echo; printf ready; kill -STOP $$; head -c {count} | cksum"))
    child.expect("ready")

    def interrupt() -> None:
        eventually(
            lambda: any(thread.name.startswith("wsep-send") for thread in threading.enumerate()),
            "a thread that sends",
        )
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Task(interrupt), pytest.raises(KeyboardInterrupt):
        child.send(data)
    os.kill(child.pid, signal.SIGCONT)
    assert child.send(tail) == len(tail)
    child.expect_exact(cksum(data + tail))


def test_sending_to_a_command_that_has_ended(ours: Start) -> None:
    child = ours("true")
    child.expect(pexpect.EOF)
    with pytest.raises(BrokenPipeError):
        child.send("too late")
    with pytest.raises(BrokenPipeError):
        child.sendcontrol("c")
    child.close()
    with pytest.raises(ValueError, match="closed"):
        child.send("too late")


def test_a_pause_before_sending_is_there_for_who_sets_it(
    ours: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = ours("cat")
    assert child.delaybeforesend is None
    slept: list[float] = []
    monkeypatch.setattr("wsep_sync.faces.expect.time.sleep", slept.append)
    child.sendline("now")
    assert slept == []
    child.delaybeforesend = 0.05
    child.sendline("then")
    monkeypatch.undo()
    assert slept == [0.05]


def test_no_such_control_character(ours: Start) -> None:
    child = ours("cat")
    for char in "1 é\x7f":
        with pytest.raises(ValueError, match="no Ctrl-"):
            child.sendcontrol(char)


# Logs


def test_logging_bytes(start: Start) -> None:
    log, read, sent = io.BytesIO(), io.BytesIO(), io.BytesIO()
    child = start(*shell(QUIET + "cat"), logfile=log)
    child.logfile_read, child.logfile_send = read, sent
    child.expect("ready\r\n")
    child.sendline("one")
    child.expect("one\r\n")
    child.sendeof()
    child.expect(pexpect.EOF)
    assert log.getvalue() == b"ready\r\none\none\r\n\x04"
    assert sent.getvalue() == b"one\n\x04"
    assert read.getvalue() == b"ready\r\none\r\n"


def test_logging_text(start: Start) -> None:
    read, sent = io.StringIO(), io.StringIO()
    child = start(*shell(QUIET + "cat"), encoding="utf-8")
    child.logfile_read, child.logfile_send = read, sent
    child.expect("ready\r\n")
    child.sendline("drüben")
    child.expect("drüben\r\n")
    child.sendcontrol("d")
    child.expect(pexpect.EOF)
    assert sent.getvalue() == "drüben\n\x04"
    assert read.getvalue() == "ready\r\ndrüben\r\n"


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
    with pytest.raises(ValueError, match="ignore_sighup"):
        ours("true", ignore_sighup=True)
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


def test_no_echo_without_stty(ours: Start, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="stty"):
        ours("/bin/true", echo=False, env={"PATH": str(tmp_path)})


def test_changing_the_echo(here: Start) -> None:
    child = here(*shell("echo ready; read x; stty -echo; read x; stty echo; cat"))
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


def test_the_echo_of_another_machine() -> None:
    with listening() as listener, spawn("cat", url=listener.url) as child:
        for call in (child.getecho, lambda: child.setecho(False), child.waitnoecho):
            with pytest.raises(io.UnsupportedOperation, match="echo=False"):
                call()


def test_no_descriptor_and_no_coroutines(ours: Start) -> None:
    child = ours("cat")
    with pytest.raises(io.UnsupportedOperation, match="descriptor"):
        child.fileno()
    for call in (child.expect, child.expect_exact):
        with pytest.raises(io.UnsupportedOperation, match="thread"):
            call("x", async_=True)
        with pytest.raises(io.UnsupportedOperation, match="thread"):
            call("x", **{"async": True})
    child.sendline("and on")
    assert child.expect("on", SECONDS, None) == 0
    assert child.expect_exact(["on"], SECONDS, 10) == 0


# The end


def test_exit_status(start: Start) -> None:
    child = start(*shell("exit 7"))
    assert child.wait() == 7
    assert (child.exitstatus, child.signalstatus, child.terminated) == (7, None, True)
    assert os.waitstatus_to_exitcode(child.status) == 7
    assert not child.isalive()
    assert child.wait() == 7


def test_end_by_a_signal(start: Start) -> None:
    child = start(*shell("kill -TERM $$"))
    child.expect(pexpect.EOF)
    assert child.wait() is None
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(child.status) == -signal.SIGTERM


def test_kill(start: Start) -> None:
    child = start("cat")
    child.kill(signal.SIGKILL)
    assert child.wait() is None
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGKILL)
    child.kill(signal.SIGKILL)  # is harmless
    assert not child.isalive()


def test_a_signal_that_is_caught(start: Start) -> None:
    child = start(
        *shell("trap 'echo caught; exit 4' USR1; echo ready; while :; do sleep 0.05; done")
    )
    child.expect("ready\r\n")
    child.kill(signal.SIGUSR1)
    child.expect("caught\r\n")
    child.expect(pexpect.EOF)
    assert child.wait() == 4  # at the end of its output the command may yet run
    assert (child.exitstatus, child.signalstatus) == (4, None)


def test_terminate(start: Start) -> None:
    child = start("cat")
    assert child.terminate()
    assert not child.isalive()
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGHUP)
    assert child.terminate()


STUBBORN = "trap '' HUP INT; echo ready; exec cat"


def test_terminate_what_will_not(start: Start) -> None:
    child = start(*shell(STUBBORN))
    child.expect("ready\r\n")
    child.delayafterterminate = 0.1
    assert not child.terminate()
    assert child.isalive()
    assert child.terminate(force=True)
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGKILL)


def test_terminate_what_talks_without_end(start: Start) -> None:
    child = start("yes", maxread=65536)
    child.expect("y\r\n")
    assert child.terminate(force=True)
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGHUP)


def test_what_was_said_before_the_end_is_kept(ours: Start) -> None:
    child = ours(*shell(f"trap 'echo last words; exit 6' HUP; echo ready; {FOREVER}"))
    child.expect("ready\r\n")
    assert child.terminate()
    assert child.expect(["last words\r\n", pexpect.EOF]) == 0
    child.expect(pexpect.EOF)
    assert child.exitstatus == 6


def test_close(start: Start) -> None:
    child = start("cat")
    pid = child.pid
    child.close()
    assert child.closed
    assert not child.isalive()
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGHUP)
    gone(pid)
    child.close()
    with pytest.raises(ValueError, match="closed"):
        child.read_nonblocking(1, timeout=0)


def test_close_after_the_end(start: Start) -> None:
    child = start(*shell("exit 9"))
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.signalstatus) == (9, None)
    assert child.wait() == 9


def test_close_with_force(start: Start) -> None:
    child = start(*shell("trap '' HUP INT TERM; echo ready; exec cat"))
    child.expect("ready\r\n")
    if hasattr(child, "process"):
        # pexpect closes the terminal first, so that cat sees its end.
        child.sendeof()
    child.close(force=True)
    assert not child.isalive()


def test_close_without_force(ours: Start) -> None:
    child = ours(*shell(STUBBORN))
    child.expect("ready\r\n")
    child.delayafterterminate = 0.05
    with pytest.raises(pexpect.ExceptionPexpect, match="terminate"):
        child.close(force=False)
    assert not child.closed
    child.sendline("still there")
    child.expect("still there\r\nstill there\r\n")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close(force=False)
    assert child.closed
    assert child.exitstatus == 0


def test_the_block_closes(start: Start) -> None:
    with start("cat") as child:
        child.sendline("x")
        pid = child.pid
    assert child.closed
    gone(pid)


def test_a_shell_and_its_job_end_with_it(start: Start) -> None:
    child = start("bash", ["--norc", "--noprofile", "--noediting"])
    child.sendline("sh -c 'echo job $$; exec sleep 1000'")
    child.expect(r"job (\d+)\r\n")
    job = int(child.match.group(1))
    assert alive(job)
    child.close()
    gone(child.pid, job)


def test_closing_from_another_thread(ours: Start) -> None:
    child = ours("cat")
    with Task(child.expect, [pexpect.EOF, "nothing"], None) as task:
        blocked(task)
        child.close()
        assert task.result() == 0


def test_a_command_that_closes_its_terminal_and_lives_on() -> None:
    child = spawn(*shell("trap '' HUP; exec sleep 1000 </dev/null >/dev/null 2>&1"))
    assert child.expect([pexpect.EOF]) == 0
    assert child.isalive()
    assert child.exitstatus is None
    child.close()
    assert child.signalstatus in (signal.SIGTERM, signal.SIGKILL)


def test_dropping_one_that_runs() -> None:
    with listening() as listener:
        children = [spawn("cat"), spawn("cat", url=listener.url)]
        pids = [child.pid for child in children]
        with pytest.warns(ResourceWarning) as warned:
            children.clear()
        assert [str(w.message) for w in warned] == 2 * ["<cat> was not closed"]
        del warned  # which has kept them
        gone(*pids)


def test_dropping_one_that_has_ended(ours: Start) -> None:
    child = spawn("true")
    child.expect(pexpect.EOF)
    del child


# Lost connections


def lose(transport: Transport) -> None:
    """Run a command that says something, and be gone."""
    decode_client_message(transport.receive())
    transport.send(Pid(4321).encode())
    transport.send(STDOUT_HEADER, b"half a wor")
    transport.abort()


def test_a_lost_connection_is_no_end() -> None:
    with scripted(lose) as url, spawn("sleep 100", url=url) as child:
        with pytest.raises(ExitMissing):
            child.expect(["word", pexpect.EOF, pexpect.TIMEOUT])
        assert child.before == b"half a wor"
        assert (child.after, child.match, child.match_index) == (None, None, None)
        assert not child.eof()
        for call in (child.read, child.isalive, child.wait, child.terminate):
            with pytest.raises(ExitMissing):
                call()
        with pytest.raises(BrokenPipeError):
            child.send("anybody?")
        child.close()
        assert child.closed
        assert (child.exitstatus, child.signalstatus) == (None, None)
        with pytest.raises(ExitMissing):
            child.wait()


def test_a_lost_connection_before_the_command_runs() -> None:
    with scripted(lose) as url, pytest.raises((ExitMissing, StartError)):
        spawn("cat", echo=False, url=url)


def test_a_server_without_signals() -> None:
    left = threading.Event()

    def serve(transport: Transport) -> None:
        decode_client_message(transport.receive())
        transport.send(Pid(4321).encode())
        try:
            while True:
                transport.receive()
        finally:
            left.set()
            transport.close()

    with contextlib.suppress(Exception), scripted(serve) as url:
        child = spawn("cat", url=url)
        with pytest.raises(io.UnsupportedOperation, match="signals"):
            child.kill(signal.SIGTERM)
        with pytest.raises(io.UnsupportedOperation, match="signals"):
            child.terminate(force=True)
        assert child.isalive()
        child.close()
        assert child.closed
        assert (child.exitstatus, child.signalstatus) == (None, None)
        assert left.wait(SECONDS)
    assert left.is_set()


# The REPL wrapper


def when_it_waits(child: Any) -> Any:
    """Let signals be sent only when the command sleeps, as when it waits for a key.

    A REPL that is signalled between showing its prompt and waiting for input may sleep on.
    """
    kill = child.kill

    def kill_later(sig: int) -> None:
        eventually(lambda: state(child.pid) != "R", "a REPL that waits for input")
        kill(sig)

    child.kill = kill_later
    return child


def test_a_python_in_the_repl_wrapper(start: Start) -> None:
    child = start(sys.executable, ["-q"], echo=False, encoding="utf-8")
    repl = REPLWrapper(when_it_waits(child), ">>> ", "import sys; sys.ps1={0!r}; sys.ps2={1!r}")
    assert repl.run_command("6 * 7").strip() == "42"
    assert repl.run_command("for i in range(3):\n  print(i)\n").split() == ["0", "1", "2"]
    with pytest.raises(ValueError, match="incomplete"):
        repl.run_command("for i in range(3):")
    assert repl.run_command("'and' + ' on'").strip() == "'and on'"


def test_a_shell_in_the_repl_wrapper(start: Start) -> None:
    child = start("bash", ["--norc", "--noprofile"], echo=False, encoding="utf-8")
    no_paste = "bind 'set enable-bracketed-paste off'; "
    repl = REPLWrapper(when_it_waits(child), r"[$#] ", no_paste + "PS1='{0}' PS2='{1}'")
    repl.run_command("true")
    assert repl.run_command("echo $((6 * 7))").strip() == "42"
    assert repl.run_command("for i in 1 2\ndo echo $i\ndone").split() == ["1", "2"]
    with pytest.raises(ValueError, match="incomplete"):
        repl.run_command("echo '")
    assert repl.run_command("stty size").split() == ["24", "80"]


def test_the_repl_wrapper_cannot_turn_the_echo_off_far_away() -> None:
    with (
        listening() as listener,
        spawn("cat", url=listener.url, encoding="utf-8") as child,
        pytest.raises(io.UnsupportedOperation, match="echo=False"),
    ):
        REPLWrapper(child, ">>> ", None)


# Interacting


class Person:
    """Somebody at a terminal: what they type and see, and a spawn that interacts there."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.mode = termios.tcgetattr(self.slave)
        self.seen = b""

    def sees(self, what: bytes) -> None:
        deadline = time.monotonic() + SECONDS
        while what not in self.seen:
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f"{what!r} is not in {self.seen!r}"
            self.seen += os.read(self.master, 4096)

    def types(self, keys: bytes) -> None:
        assert os.write(self.master, keys) == len(keys)

    def interacts(self, child: Any, *args: Any, **kwargs: Any) -> Task:
        child.STDIN_FILENO = child.STDOUT_FILENO = self.slave
        task = Task(lambda: child.interact(*args, **kwargs))
        eventually(self.is_raw, "a raw terminal")
        return task

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def has_it_back(self) -> bool:
        return termios.tcgetattr(self.slave) == self.mode

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.slave)
        os.close(self.master)


def test_interacting(start: Start) -> None:
    log = io.BytesIO()
    with Person() as person:
        child = start(*shell(QUIET + "cat"))
        child.expect("ready\r\n")
        child.logfile_send = log
        with person.interacts(child) as task:
            person.types(b"hello\n")
            person.sees(b"hello\r\n")
            person.types(b"last\n\x1d")
            task.result()
        assert person.has_it_back()
        assert log.getvalue() == b"hello\nlast\n"
        child.logfile_send = None
        child.sendline("on")
        child.expect("on\r\n")


def test_interacting_with_filters(start: Start) -> None:
    with Person() as person:
        child = start(*shell(QUIET + "cat"), encoding="utf-8")
        child.expect("ready\r\n")
        upper: dict[str, Any] = {"input_filter": bytes.upper}
        with person.interacts(child, "Q", output_filter=lambda data: data * 2, **upper) as task:
            person.types(b"x\n")
            person.sees(b"X\r\nX\r\n")
            person.types(b"q")
            task.result()
        assert person.has_it_back()


def test_interacting_until_the_end(ours: Start) -> None:
    # pexpect does not show what it has not read when it sees that the command has ended.
    with Person() as person:
        child = ours(*shell(QUIET + "read x; echo bye"))
        child.expect("ready\r\n")
        with person.interacts(child, None) as task:
            person.types(b"\x1d\n")
            person.sees(b"bye\r\n")
            task.result()
        assert person.has_it_back()
        assert child.wait() == 0


def test_interacting_shows_what_was_read_before(ours: Start) -> None:
    with Person() as person:
        child = ours(*shell(r"printf 'one two \303'; cat"), encoding="utf-8")
        child.expect("two")
        eventually(
            lambda: child._keep_output(0.05) and child._decoder.getstate()[0], "half a character"
        )
        with person.interacts(child) as task:
            person.sees(b" \303")
            person.types(b"\x1d")
            task.result()
        assert child.buffer == ""


def test_a_filter_that_fails(ours: Start) -> None:
    def fail(data: bytes) -> bytes:
        raise RuntimeError("no")

    with Person() as person:
        child = ours(*shell(QUIET + "cat"))
        child.expect("ready\r\n")
        for name in ("input_filter", "output_filter"):
            with person.interacts(child, **{name: fail}) as task:
                person.types(b"x\n")
                with pytest.raises(RuntimeError, match="no"):
                    task.result()
            assert person.has_it_back()


def test_logging_text_that_is_split_while_interacting(ours: Start) -> None:
    with Person() as person:
        child = ours(
            *shell(QUIET + r"printf '\342\202'; read x; printf '\254\n'"), encoding="utf-8"
        )
        child.expect("ready\r\n")
        child.logfile_read = io.StringIO()
        with person.interacts(child) as task:
            person.sees(b"\342\202")
            person.types(b"\n")
            task.result()
        assert child.logfile_read.getvalue() == "€\r\n"


def test_losing_the_connection_while_interacting() -> None:
    typed = threading.Event()

    def serve(transport: Transport) -> None:
        decode_client_message(transport.receive())
        transport.send(Pid(4321).encode())
        assert typed.wait(SECONDS)
        transport.abort()

    with Person() as person, scripted(serve) as url, spawn("cat", url=url) as child:
        with person.interacts(child) as task:
            typed.set()
            with pytest.raises(ExitMissing):
                task.result()
        assert person.has_it_back()


def test_interacting_needs_a_terminal(ours: Start) -> None:
    child = ours(*shell(QUIET + "cat"))
    child.expect("rea")
    with open(os.devnull) as null:
        child.STDIN_FILENO = null.fileno()
        with pytest.raises(termios.error):
            child.interact()
    child.expect("dy\r\n")


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
