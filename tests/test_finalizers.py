"""Finalizers start no thread, wait for nothing and take no lock.

The garbage collector calls them wherever it happens to run: in a thread that holds the very lock,
or at the end of the interpreter, when no thread can be had any more.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import io
import pkgutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SECONDS, eventually, gone, listening, read_until, sh
from sshd import sshd

import wsep_sync
from wsep_sync import PIPE, LocalExecer, Popen, spawn
from wsep_sync.execers.remote.execer import RemoteExecer
from wsep_sync.jobs.session import Session
from wsep_sync.serving.server import Server
from wsep_sync.streams.bounded_pipe import BoundedPipe, PipeReader
from wsep_sync.streams.files import buffered_reader, no_writer
from wsep_sync.transports.memory import memory_pair

PACKAGE = Path(wsep_sync.__file__).parent

# Each with what it does, which is all that it may do.
FINALIZERS = {
    "faces/expect.py:spawn.__del__": "warns; leaves the rest to a thread",
    "execers/local/process.py:ExitWatch.__del__": "closes a descriptor",
    "execers/remote/receiver.py:Receiver.__del__": "lets a thread end, by a queue for that",
    "execers/local/pty.py:LocalTerminal.__del__": "closes descriptors",
    "faces/popen.py:Popen.__del__": "warns",
    "streams/files.py:RawFile.__del__": "closes a descriptor, or leaves the rest to a thread",
    "streams/files.py:Reader.__del__": "that of its raw file",
    "streams/files.py:TextFile.__del__": "nothing",
    "streams/files.py:Writer.__del__": "that of its raw file, and flushes nothing",
    "streams/wakeup.py:Wakeup.__del__": "closes a descriptor",
}

# What else calls back when something goes: none of it is used.
CALLBACKS = {"finalize", "atexit", "ref"}


def test_all_of_them_are_known() -> None:
    found, callbacks = set(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found |= {
                    f"{name}:{node.name}.__del__"
                    for function in node.body
                    if isinstance(function, ast.FunctionDef) and function.name == "__del__"
                }
            elif isinstance(node, ast.Import):
                callbacks += [f"{name}: {a.name}" for a in node.names if a.name in CALLBACKS]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "weakref":
                callbacks += [f"{name}: {node.attr}"] if node.attr in CALLBACKS else []
    assert found == FINALIZERS.keys()
    assert callbacks == []


# The io module's files that end with a flush when they are dropped.
BUFFERED = {"BufferedReader", "BufferedWriter", "BufferedRandom", "BufferedRWPair", "TextIOWrapper"}


def test_no_file_has_the_finalizer_of_the_io_module() -> None:
    made = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BUFFERED
    ]
    assert made == []
    for module in pkgutil.walk_packages(wsep_sync.__path__, "wsep_sync."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not there
                importlib.import_module(module.name)
    files, found = [io.IOBase], []
    while files:
        files += (subclasses := files.pop().__subclasses__())
        found += [f for f in subclasses if f.__module__.startswith("wsep_sync.")]
    assert len(found) > 10
    theirs = [f for f in found if f.__del__.__module__ != "wsep_sync.streams.files"]  # type: ignore[attr-defined]
    assert theirs == []


@contextlib.contextmanager
def at_once(*locks: Any) -> Iterator[Callable[[Callable[[], object]], None]]:
    """What drops something is called in another thread, while all of this is locked by us."""

    def call(drop: Callable[[], object]) -> None:
        thread = threading.Thread(target=drop, daemon=True)
        with contextlib.ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            thread.start()
            thread.join(SECONDS)
            stuck = thread.is_alive()
        thread.join(SECONDS)
        assert not stuck

    yield call


FILES = [{}, {"encoding": "utf-8"}]
NAMES = ["buffered", "text"]


@pytest.mark.filterwarnings("ignore:process .* is still running:ResourceWarning")
@pytest.mark.parametrize("options", FILES, ids=NAMES)
def test_an_input_that_is_collected_by_a_thread_that_is_sending(options: dict[str, Any]) -> None:
    # The lock is held by the very thread: whoever waits for it would wait for ever.
    with listening() as listener:
        outputs: list[Any] = []

        def drop() -> None:
            process = Popen(["cat"], stdin=PIPE, stdout=PIPE, url=listener.url, **options)
            outputs.append(process.stdout)
            process.stdin.write("a" if "encoding" in options else b"a")
            process.me = process  # type: ignore[attr-defined]
            lock = process.process._transport._stream._send_lock  # type: ignore[attr-defined]
            del process
            with lock:
                gc.collect()

        with at_once() as call:
            call(drop)
        # The command is told. What was not flushed is lost.
        (output,) = outputs
        with output:
            assert not output.read()


@pytest.mark.parametrize("options", FILES, ids=NAMES)
def test_files_of_a_remote_command_wait_for_no_lock(options: dict[str, Any]) -> None:
    with (
        listening() as listener,
        Popen(["yes"], stdin=PIPE, stdout=PIPE, url=listener.url, **options) as process,
    ):
        remote: Any = process.process
        locks = remote._transport._stream._send_lock, remote._out._lock, remote._input._changed
        with at_once(*locks) as call:
            call(lambda: setattr(process, "stdin", None))
            call(lambda: setattr(process, "stdout", None))
        # It is told that nobody reads.
        assert process.wait(SECONDS) == -13


def fill(raw: Any) -> None:
    for size in (1000, 1):
        while raw.write_now(b"\n" * size):
            pass


@pytest.mark.parametrize("options", FILES, ids=NAMES)
def test_a_writer_over_a_full_pipe_does_not_flush(options: dict[str, Any]) -> None:
    with Popen(["sleep", "100"], stdin=PIPE, **options) as process:
        file: Any = process.stdin
        fill(file.buffer.raw if options else file.raw)
        file.write("a" if options else b"a")
        del file
        with at_once() as call:
            call(lambda: setattr(process, "stdin", None))
        process.kill()


def test_an_input_that_is_dropped_is_at_its_end() -> None:
    with Popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        assert process.stdin
        process.stdin.write(b"a")
        process.stdin = None
        assert process.stdout
        assert process.stdout.read() == b"a"
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("full", [False, True])
def test_a_terminal_that_is_full_is_told_of_no_end(full: bool) -> None:
    script = "stty raw; echo ready; exec sleep 100" if full else "echo ready; exec cat"
    with LocalExecer().start(sh(script, tty=True)) as process:
        read_until(process.stdout, b"ready")
        if full:
            fill(process.stdin.raw)
            process.stdin.write(b"a")
        with at_once() as call:
            call(lambda: setattr(process, "stdin", no_writer()))
        if not full:
            process.wait(SECONDS)


def test_an_output_waits_for_no_lock() -> None:
    pipe = BoundedPipe()
    pipe.feed(b"a")
    files = [buffered_reader(PipeReader(pipe))]
    with at_once(pipe._lock) as call:
        call(files.clear)


def test_a_client_of_a_session_waits_for_no_lock() -> None:
    session = Session(sh("cat", id="x", tty=True, rows=24, cols=80), LocalExecer())
    try:
        client = session.attach()
        with at_once(session._lock) as call:
            call(lambda: setattr(client, "stdin", no_writer()))
            call(lambda: setattr(client, "stdout", buffered_reader(PipeReader(BoundedPipe()))))
        client.close()
    finally:
        session.close()


def test_files_over_ssh_wait_for_no_lock() -> None:
    with (
        sshd() as host,
        host.connect() as execer,
        Popen(["cat"], stdin=PIPE, stdout=PIPE, execer=execer) as process,
    ):
        assert process.stdin
        process.stdin.write(b"a")
        remote: Any = process.process
        with at_once(remote._channel.lock, remote._channel.transport.lock) as call:
            call(lambda: setattr(process, "stdin", None))
        assert process.stdout
        assert process.stdout.read() == b""
        assert process.wait(SECONDS) == 0


# A spawn that is dropped ends its command, whatever that does.


def dropped(child: list[spawn]) -> None:
    """Drop a spawn; its command is gone, some time soon."""
    (pid,) = (c.pid for c in child)
    with pytest.warns(ResourceWarning, match="was not closed"):
        child.clear()
    gone(pid)


def test_a_spawn_whose_command_ignores_signals() -> None:
    child = [spawn("sh", ["-c", "trap '' HUP TERM; echo ready; while :; do sleep 0.1; done"])]
    child[0].expect("ready")
    dropped(child)


@pytest.mark.parametrize("command", ["sleep 300", "yes"])
def test_a_spawn_over_ssh(command: str) -> None:
    with sshd() as host, host.connect() as execer:
        dropped([spawn(command, execer=execer)])


@pytest.mark.parametrize("features", [True, False], ids=["credit", "no_credit"])
def test_a_spawn_whose_output_is_full(features: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not features:
        monkeypatch.setattr("wsep_sync.protocol.dialogue.FEATURES", ())
    ours, theirs = memory_pair() if features else memory_pair(())
    serving = threading.Thread(target=Server().serve_and_close, args=(theirs, LocalExecer()))
    serving.start()
    child = [spawn("yes", execer=RemoteExecer(ours))]
    out: Any = child[0].process._out  # type: ignore[attr-defined]
    # Without credit, the thread that receives is stuck with what comes next.
    eventually(
        lambda: out._size > out.limit - 100_000 if features else out._full_since, "a full output"
    )
    dropped(child)
    serving.join(SECONDS)
    assert not serving.is_alive()


def test_a_spawn_in_a_cycle() -> None:
    child = [spawn("cat")]
    child[0].me = child[0]
    pid = child[0].pid
    child.clear()
    with pytest.warns(ResourceWarning, match="was not closed"):
        gc.collect()
    gone(pid)


def test_a_spawn_of_the_parent_process_is_left_alone() -> None:
    script = """
        import os, warnings
        from wsep_sync import spawn

        warnings.simplefilter("ignore")
        child = spawn("cat")
        pid = os.fork()
        if not pid:
            del child
            another = spawn("true")  # with which the thread is there again
            another.close()
            os._exit(0)
        os.waitpid(pid, 0)
        child.sendline("a")
        child.expect("a.*a")  # the terminal's echo, and cat's
        child.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=SECONDS)


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize(
    "forgotten",
    [
        "spawn('cat', **where)",
        "spawn('cat', **where); kept.append(kept)",
        "Popen(['cat'], stdin=PIPE, stdout=PIPE, **where)",
        "Popen(['yes'], stdout=PIPE, **where); kept.append(kept)",
        "Popen(['cat'], stdin=PIPE, **where); kept[0].stdin.write(b'a')",
        "Popen(['cat'], stdin=PIPE, text=True, **where); kept[0].stdin.write('a')",
        "start(Command('cat', tty=True))",
    ],
)
def test_what_is_forgotten_does_not_hold_up_the_end_of_python(forgotten: str, where: str) -> None:
    script = f"""
        import sys, threading
        from wsep_sync import PIPE, Command, LocalExecer, Popen, connect, spawn

        url = sys.argv[1]
        where = {{"url": url}} if {where!r} == "remote" else {{}}

        def start(command):
            return (connect(url) if where else LocalExecer()).start(command)

        kept = []
        class Late:
            # As what a module's global refers to is finalized last.
            def __del__(self):
                kept.clear()

        late = Late()
        def forget():
            made = {forgotten.replace(";", chr(10) + " " * 12 + "kept.append(made);", 1)}
            kept.append(made)
        forget()
    """
    with listening() as listener:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), listener.url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
