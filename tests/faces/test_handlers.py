"""What a signal's handler raises while a call waits is raised by that call, whatever it is.

Timeouts, broken pipes and exit statuses are exceptions, too. None may be taken for the call's own
because it has the same type: a timeout of the caller's would become one of the command, or vanish.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SECONDS, Task, blocked, gone, scripted
from measured import unmeasured

import wsep_sync
from wsep_sync import DEVNULL, PIPE, ExitError, ExitMissing, LocalExecer, Popen, spawn
from wsep_sync.protocol.messages import CloseStdin, ExitCode, Pid, Stdin, decode_client_message
from wsep_sync.transports.base import Transport


class Ours(Exception):
    """An exception of the caller's own."""


RAISED: dict[str, type[BaseException]] = {
    "timeout": TimeoutError,
    "own": Ours,
    "interrupt": KeyboardInterrupt,
    "pipe": BrokenPipeError,
    "value": ValueError,
    "exit": ExitError,  # of another command
    "lost": ExitMissing,
}

TEXT = "the caller's"

INTERRUPTED = Path(__file__).parents[1] / "support" / "interrupted.py"


@pytest.fixture(params=["local", "remote"])
def where(request: pytest.FixtureRequest, url: str) -> dict[str, Any]:
    return {"url": url} if request.param == "remote" else {"execer": LocalExecer()}


@contextlib.contextmanager
def raised(kind: str) -> Iterator[None]:
    """Raise it in the main thread, from a handler, once that sleeps; see it come out."""

    def handler(*_: object) -> None:
        raise RAISED[kind](TEXT)

    def send() -> None:
        blocked(threading.main_thread())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(RAISED[kind]) as caught, Task(send):
            yield
        assert caught.type is RAISED[kind]
        assert caught.value.args[0] == TEXT
    finally:
        signal.signal(signal.SIGUSR1, before)


# Writes its process id, so that it can be seen to have ended, and goes on for ever.
FOR_EVER = 'echo $$ > "$0"; exec sleep 1000'

Call = Callable[[list[str], dict[str, Any], Path], Any]


def with_popen(call: Callable[[Popen[bytes]], Any], **options: Any) -> Call:
    def waits(command: list[str], where: dict[str, Any], tmp: Path) -> None:
        process: Popen[bytes] = Popen(command, **options, **where)
        try:
            call(process)
        finally:
            assert process.returncode is None
            process.kill()
            with process:
                pass
            assert process.returncode == -signal.SIGKILL

    return waits


def with_spawn(call: Callable[[Any], Any]) -> Call:
    def waits(command: list[str], where: dict[str, Any], tmp: Path) -> None:
        with spawn(command[0], command[1:], **where) as child:
            call(child)

    return waits


def with_run(name: str = "run", **options: Any) -> Call:
    def waits(command: list[str], where: dict[str, Any], tmp: Path) -> None:
        with open(tmp / "out", "wb") as file:
            given = {k: file if v == "a file" else v for k, v in options.items()}
            getattr(wsep_sync, name)(command, **given, **where)

    return waits


PIPES = {"stdout": PIPE, "stderr": PIPE}

CALLS: dict[str, Call] = {
    "run": with_run(stdin=DEVNULL, stdout=DEVNULL),
    "run in time": with_run(stdin=DEVNULL, stdout=DEVNULL, timeout=60),
    "run capturing": with_run(capture_output=True),
    "run capturing in time": with_run(capture_output=True, timeout=60),
    "run one output": with_run(stdout=PIPE, text=True),
    "run with input": with_run(input=bytes(5_000_000)),
    "run with input and output": with_run(input=bytes(5_000_000), stdout=PIPE),
    "run copying": with_run(stdout="a file", stderr="a file"),
    "call": with_run("call"),
    "call in time": with_run("call", timeout=60),
    "check_output": with_run("check_output"),
    "wait": with_popen(lambda process: process.wait()),
    "wait in time": with_popen(lambda process: process.wait(60), **PIPES),
    "communicate": with_popen(lambda process: process.communicate(), **PIPES),
    "communicate in time": with_popen(lambda process: process.communicate(timeout=60), **PIPES),
    "read": with_popen(lambda process: process.stdout and process.stdout.read(), stdout=PIPE),
    "write": with_popen(
        lambda process: process.stdin and process.stdin.write(bytes(5_000_000)), stdin=PIPE
    ),
    "expect": with_spawn(lambda child: child.expect("never")),
    "expect for ever": with_spawn(lambda child: child.expect("never", timeout=None)),
    "spawn's read": with_spawn(lambda child: child.read()),
    "spawn's wait": with_spawn(lambda child: child.wait()),
    "spawn's send": with_spawn(lambda child: [child.send("a" * 100_000) for _ in range(100)]),
}


# All kinds, and those that need not be seen on every version of Python.
KINDS = [
    pytest.param(
        kind, marks=[] if kind in ("timeout", "own", "interrupt") else pytest.mark.thorough
    )
    for kind in RAISED
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_what_a_handler_raises_is_raised(
    call: str, kind: str, where: dict[str, Any], tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    with raised(kind):
        CALLS[call](["sh", "-c", FOR_EVER, str(pid_file)], where, tmp_path)
    if pid_file.exists() and (pid := pid_file.read_text()):
        gone(int(pid))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_raises_leaves_map(kind: str, url: str, tmp_path: Path) -> None:
    script = 'echo $$ >> "$0"; exec sleep 1000'
    with raised(kind):
        list(wsep_sync.map(["sh", "-c", script, str(tmp_path / "pids")], [url] * 3, timeout=60))
    gone(*map(int, (tmp_path / "pids").read_text().split()))


@pytest.mark.parametrize("kind", KINDS)
def test_communicating_goes_on_after_a_handler_has_raised(
    kind: str, where: dict[str, Any], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = "echo one; read line < fifo; echo two"
    with Popen(["sh", "-c", script], cwd=tmp_path, **PIPES, **where) as process:
        with raised(kind):
            process.communicate()
        (tmp_path / "fifo").write_text("go on\n")
        assert process.communicate() == (b"one\ntwo\n", b"")
        assert process.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_closing_a_spawn(kind: str, where: dict[str, Any]) -> None:
    # Which waits for a command that ignores SIGHUP.
    with spawn("sh", ["-c", "trap '' HUP; echo ready; exec sleep 1000"], **where) as child:
        child.expect("ready")
        child.delayafterclose = 60
        with raised(kind):
            child.close()
        child.delayafterclose = 0.1
        child.close()
        assert not child.isalive()


@pytest.mark.parametrize("kind", KINDS)
def test_starting_a_command(kind: str) -> None:
    # At a server that never answers.
    ended = threading.Event()

    def never(transport: Any) -> None:
        transport.receive()
        ended.wait(30)

    with scripted(never) as url:
        try:
            with raised(kind):
                wsep_sync.run(["true"], url=url)
        finally:
            ended.set()


# In a process of its own: a command whose start was interrupted may be left, as by subprocess.
STRANGERS = """
import os, signal, threading, time
from wsep_sync import run

class Ours(Exception): pass

def interrupt(*_):
    raise Ours

def open_and_read():
    while not over.is_set():
        try:
            opened = [os.open("/dev/zero", os.O_RDONLY) for _ in range(6)]
            for descriptor in opened:
                os.read(descriptor, 1)
                os.close(descriptor)
        except OSError as error:
            print("stranger:", error)

over = threading.Event()
threading.Thread(target=open_and_read).start()
signal.signal(signal.SIGALRM, interrupt)
for attempt in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + attempt % 20 * 0.0005)
        run(["sleep", "0.02"])
        time.sleep(1)
    except Ours:
        pass
over.set()
"""


@pytest.mark.thorough
def test_what_a_handler_raises_closes_nothing_of_others() -> None:
    # Descriptors that were closed twice were another thread's by the second time.
    done = subprocess.run(
        [sys.executable, "-c", STRANGERS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    # Python itself may complain of a thread whose start was interrupted.
    assert b"stranger" not in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_whole_after_a_handler_has_raised(kind: str) -> None:
    # It was sent in part when the handler of a signal raised: what is sent next must not be taken
    # for the rest of it.
    reads = threading.Event()
    bodies = []

    def server(transport: Transport) -> None:
        transport.receive()
        transport.send(Pid(1).encode())
        reads.wait(SECONDS)
        while isinstance(message := decode_client_message(transport.receive()), Stdin):
            bodies.append(bytes(message.body))
        assert isinstance(message, CloseStdin)
        transport.send(ExitCode(0).encode())

    data = bytes(range(251)) * 100_000
    with (
        scripted(server) as url,
        wsep_sync.connect(url) as execer,
        execer.start(wsep_sync.Command("cat", stdin=True)) as process,
    ):
        try:
            with raised(kind):
                process.stdin.raw.write(data)
        finally:
            reads.set()
        process.stdin.raw.close()
        process.wait(SECONDS)
    assert bodies
    assert data.startswith(b"".join(bodies))


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["TimeoutError", "BrokenPipeError"])
@pytest.mark.parametrize("place", ["local", "remote"])
def test_what_a_handler_raises_anywhere_is_raised(place: str, kind: str, url: str) -> None:
    # One that raises in the first function that a call enters, then in the second, and so on.
    done = subprocess.run(
        [
            *(sys.executable, "-X", "faulthandler"),
            *(
                str(Path(__file__).parents[1] / "support" / "interrupted.py"),
                "local" if place == "local" else url,
            ),
            kind,
        ],
        env=unmeasured(),  # it is itself what traces
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=9 * SECONDS,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 0
