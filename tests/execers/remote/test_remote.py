"""Commands at the other end of a WebSocket: what goes beyond the contract."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
import websocket
from certificates import certificates
from helpers import (
    SECONDS,
    MemoryExecer,
    RawClient,
    ends_processes,
    eventually,
    gone,
    listening,
    scripted,
    sh,
    start_message,
)
from remote_servers import EXIT_0, PID, against, drained, stdout

from wsep_sync import (
    Command,
    ConnectError,
    ExitError,
    ExitMissing,
    RemoteExecer,
    SSHExecer,
    StartError,
    TransportClosed,
    connect,
)
from wsep_sync.execers.dial import dial
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair

# What comes from the server


def test_unknown_messages_and_fields_are_ignored() -> None:
    def script(transport: Transport) -> None:
        transport.send(b'{"type":"weather","pid":8}\nrain')
        transport.send(b'{"type":"stdout","colour":"red"}\na')
        transport.send(b'{"TYPE":"stdout"}\nb')
        transport.send(b'{"no":"type"}\n')
        transport.send(stdout(b""))
        transport.send(EXIT_0)

    with against(script) as process:
        assert process.stdout.read() == b"ab"
        process.wait(SECONDS)


def test_what_comes_after_the_exit_status_is_dropped() -> None:
    def script(transport: Transport) -> None:
        transport.send(stdout(b"early"))
        transport.send(EXIT_0)
        with contextlib.suppress(TransportClosed):
            transport.send(stdout(b"late"))
            transport.send(b'{"type":"exit_code","exit_code":9,"error":"late"}\n')

    with against(script) as process:
        process.wait(SECONDS)
        assert process.stdout.read() == b"early"
        process.wait(SECONDS)


def test_the_client_closes_after_the_exit_status() -> None:
    received: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()

    def script(transport: Transport) -> None:
        transport.send(EXIT_0)
        received.put(drained(transport))

    with against(script):
        assert received.get(timeout=SECONDS) == [b"1000"]


@pytest.mark.parametrize(
    ("nonsense", "code"),
    [
        (b"no json\n", 1011),
        (b"[]\n", 1011),
        (b'{"type":1}\n', 1011),
        (b'{"type":"exit_code","exit_code":"0"}\n', 1011),
        (b'{"type":"exit_code","exit_code":0,"signal":"TERM"}\n', 1011),
        (b"\xff\xfe", 1011),
        (b"", 1011),
        (stdout(bytes(64_000)), 1009),
    ],
)
def test_nonsense_from_the_server(nonsense: bytes, code: int) -> None:
    received: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()

    def script(transport: Transport) -> None:
        transport.send(stdout(b"sense"))
        transport.send(nonsense)
        received.put(drained(transport))

    with against(script) as process:
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)
        assert received.get(timeout=SECONDS) == [b"%d" % code]
        assert process.stdout.read(5) == b"sense"
        with pytest.raises(ExitMissing):
            process.stdout.read(1)


# Starts that fail


@pytest.mark.parametrize(
    ("reason", "kind", "filename"),
    [
        ("start command: exec any: permission denied", PermissionError, "any"),
        (
            'start command: exec: "any": executable file not found in $PATH',
            FileNotFoundError,
            "any",
        ),
        ("start command: fork/exec /bin/any: exec format error", OSError, "any"),
        ("start command: chdir /dir: not a directory", NotADirectoryError, "/dir"),
        ("start command: chdir /dir: no such file or directory", FileNotFoundError, "/dir"),
    ],
)
def test_a_refusal_with_a_cause(reason: str, kind: type[OSError], filename: str) -> None:
    def refuse(transport: Transport) -> None:
        transport.receive()
        transport.close(1011, reason)

    with scripted(refuse) as url, connect(url) as execer:
        with pytest.raises(StartError) as caught:
            execer.start(Command("any", working_dir="/dir"))
        assert isinstance(caught.value, kind)
        assert caught.value.filename == filename


def test_a_refusal_in_other_words() -> None:
    def refuse(transport: Transport) -> None:
        transport.receive()
        transport.close(1011, "not on a Monday")

    with (
        scripted(refuse) as url,
        connect(url) as execer,
        pytest.raises(StartError, match="not on a Monday"),
    ):
        execer.start(Command("any"))


def test_the_connection_ends_before_the_pid() -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.abort()

    with scripted(script) as url, connect(url) as execer:
        with pytest.raises(TransportClosed) as caught:
            execer.start(Command("any"))
        assert caught.value.code == 1006


def test_the_connection_ended_before_the_start() -> None:
    with (
        scripted(lambda transport: transport.close(1001, "enough")) as url,
        connect(url) as execer,
        pytest.raises(TransportClosed) as caught,
    ):
        execer.start(Command("any"))
    assert caught.value.code == 1001


def test_no_pid_within_the_timeout() -> None:
    with (
        scripted(lambda transport: drained(transport) and None) as url,
        connect(url, timeout=0.2) as execer,
        pytest.raises(StartError, match="no answer"),
    ):
        execer.start(Command("any"))


@pytest.mark.parametrize(
    "first", [stdout(b"out"), EXIT_0, b"HTTP/1.1 200 OK", b'{"type":"pid","pid":"7"}\n']
)
def test_something_else_instead_of_the_pid(first: bytes) -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(first)
        assert drained(transport) == [b"1011"]

    with (
        scripted(script) as url,
        connect(url) as execer,
        pytest.raises(StartError, match="not a wsep server"),
    ):
        execer.start(Command("any"))


def test_unknown_messages_before_the_pid_are_ignored() -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(b'{"type":"weather"}\n')
        transport.send(PID)
        transport.send(EXIT_0)

    with (
        scripted(script) as url,
        connect(url) as execer,
        execer.start(Command("any")) as process,
    ):
        assert process.pid == 7
        process.wait(SECONDS)


def test_a_start_that_fits_no_message(url: str) -> None:
    with connect(url) as execer:
        with pytest.raises(StartError) as caught:
            execer.start(Command("echo", ["x" * 100] * 640))
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == errno.E2BIG
        # Nothing was sent, and the connection is as good as before.
        with execer.start(Command("echo", ["x" * 100] * 600)) as process:
            assert len(process.stdout.read()) == 60_600


# Connections


def test_a_websocket_of_the_users_own(url: str) -> None:
    ws = websocket.create_connection(url, http_no_proxy=["*"])
    with RemoteExecer(ws) as execer:
        with execer.start(sh("cat; exit 3", stdin=True)) as process:
            process.stdin.write(b"text")
            process.stdin.close()
            assert process.stdout.read() == b"text"
            with pytest.raises(ExitError, match="exit status 3"):
                process.wait(SECONDS)
        with pytest.raises(StartError, match="one command"):
            execer.start(Command("true"))


def test_a_websocket_that_is_not_connected() -> None:
    with pytest.raises(ValueError, match="not connected"):
        RemoteExecer(websocket.WebSocket())


def test_a_connection_in_memory_carries_one_command() -> None:
    with MemoryExecer() as server, server.connect() as execer:
        with execer.start(Command("true")) as process:
            process.wait(SECONDS)
        with pytest.raises(StartError, match="one command"):
            execer.start(Command("true"))


def test_a_closed_execer_leaves_its_commands_alone(url: str) -> None:
    execer = connect(url)
    process = execer.start(Command("cat", stdin=True))
    execer.close()
    execer.close()
    with process:
        process.stdin.close()
        process.wait(SECONDS)


def test_a_connection_that_was_never_used(url: str) -> None:
    connect(url).close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        connect(f"ws://127.0.0.1:{port}")
    assert caught.value.status is None
    assert str(port) in str(caught.value)


def test_a_server_that_never_answers() -> None:
    # The kernel accepts the TCP connection, and nobody else does.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectError, match="no answer within"),
    ):
        connect(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:80", "ws://", ""])
def test_no_url_of_a_websocket(url: str) -> None:
    with pytest.raises(ValueError, match="WebSocket URL"):
        connect(url)


# What is dropped


def test_a_process_that_ended_can_be_dropped(url: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with connect(url) as execer:
        for _ in range(5):
            process = execer.start(sh("echo; exit 3", stdin=True))
            with pytest.raises(ExitError):
                process.wait(SECONDS)
            del process

    def closed() -> bool:
        gc.collect()
        return len(os.listdir("/proc/self/fd")) <= before

    eventually(closed, "the end of the connections")


def test_processes_do_not_keep_a_script_from_ending() -> None:
    script = """if True:
        import sys
        from wsep_sync import Command, connect
        process = connect(sys.argv[1]).start(Command("sleep", ["1000"]))
        print(process.pid)
    """
    with listening() as listener:
        command = [sys.executable, "-c", script, listener.url]
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=SECONDS).stdout
        with ends_processes(int(out)):
            gone(int(out))


# What a program does that forks while commands run.
_FORK = """
import os, sys
from wsep_sync import PIPE, Command, ExitMissing, Popen, connect

parent = os.getpid()

def child(do):
    pid = os.fork()
    if pid == 0:
        do()
        sys.exit(0)  # and so through every with block, as multiprocessing does not
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def fails(do, *errors):
    try:
        do()
    except errors:
        return
    sys.exit(f"{do} has worked")

url, context = sys.argv[1], None
if url.startswith("wss:"):
    import ssl
    context = ssl.create_default_context(cadata=sys.argv[2])
with connect(url, ssl_context=context) as execer:
    child(lambda: execer.start(Command("true")).wait())
    try:
        with Popen(["cat"], stdin=PIPE, stdout=PIPE, execer=execer) as popen:
            child(lambda: None)
            child(popen.stdin.close)
            child(popen.kill)
            child(lambda: fails(popen.stdout.read, ConnectionError, ExitMissing))
            assert popen.communicate(b"still here") == (b"still here", None)
    except ConnectionError:
        assert os.getpid() != parent
        sys.exit(0)
    with execer.start(Command("cat", stdin=True)) as process:
        child(process.close)
        child(execer.close)
        child(lambda: fails(process.wait, ExitMissing))
        child(lambda: fails(lambda: process.stdin.raw.write(b"the child's"), BrokenPipeError))
        child(lambda: execer.start(Command("true")).wait())
        process.stdin.write(b"and here")
        process.stdin.close()
        assert process.stdout.read() == b"and here"
        process.wait()
"""


@pytest.mark.parametrize("tls", [False, True])
def test_a_forked_child_leaves_the_connections_to_its_parent(tls: bool) -> None:
    with listening(ssl_context=certificates().server if tls else None) as listener:
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORK, listener.url),
                *([certificates().authority] if tls else []),
            ],
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("timeout", [0, -1, -0.5, float("nan"), float("inf"), 1e30, "10", None])
def test_a_timeout_that_is_none_leaves_no_socket(url: str, timeout: Any) -> None:
    # Python's own socket.create_connection() would leave one.
    transport, _ = memory_pair()
    for call in (
        lambda: connect(url, timeout=timeout),
        lambda: dial(url, timeout=timeout),
        lambda: dial("ssh://127.0.0.1:1", timeout=timeout),
        lambda: SSHExecer("127.0.0.1", 1, timeout=timeout),
        lambda: RemoteExecer(transport, timeout=timeout),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^timeout must be a number of seconds"):
            call()


def starting_thread(name: str) -> bool:
    return any(thread.name.startswith(name) for thread in threading.enumerate())


def test_a_start_that_failed_keeps_no_thread_while_its_error_is_kept(url: str) -> None:
    with connect(url) as execer:
        with pytest.raises(StartError) as caught:
            execer.start(Command("/no/such/program"))
        eventually(lambda: not starting_thread("wsep-receive"), "the thread has ended")
    assert caught.value.__traceback__ is not None  # with all that its frames refer to


def test_no_more_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "wsep-receive":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with listening() as back, connect(back.url) as execer:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            execer.start(Command("true"))
        # And of a server in between.
        with listening(lambda: connect(back.url)) as front, RawClient(front.url) as raw:
            raw.send(start_message(Command("true")))
            with pytest.raises(EOFError, match="1011: start command: can't start new thread"):
                raw.receive()


@pytest.mark.parametrize("kind", [ValueError, UnicodeError, OSError, TimeoutError, RuntimeError])
def test_what_a_signals_handler_raises_while_connecting_comes_out(kind: type[Exception]) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise kind("the caller's")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        former = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(kind, match="the caller's") as caught:
                connect(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout=SECONDS)
            assert type(caught.value) is kind
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
