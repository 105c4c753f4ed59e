"""Connections that are lost, and outputs and inputs that nobody reads."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SECONDS, MemoryExecer, Task, alive, blocked, listening, numbers, read_until, sh
from remote_servers import EXIT_0, PID, against, flooding, stderr, stdout

from wsep_sync import (
    Command,
    ConnectError,
    ExitError,
    ExitMissing,
    OutputUnread,
    Process,
    RemoteExecer,
    connect,
)
from wsep_sync.execers.remote import process as remote
from wsep_sync.protocol.messages import ExitCode
from wsep_sync.transports import sockets
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair

# The connection is lost


@pytest.mark.parametrize("end", ["cut", 1000, 1001, 1011])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="after the pid"),
        pytest.param([stdout(b"out")], id="after an output"),
        pytest.param([stderr(b"err"), stdout(b"out")], id="after both outputs"),
    ],
)
def test_the_connection_is_lost(before: list[bytes], end: str | int) -> None:
    def script(transport: Transport) -> None:
        for message in before:
            transport.send(message)
        if isinstance(end, int):
            transport.close(end, "the reason")
        else:
            transport.abort()

    with against(script) as process:
        with pytest.raises(ExitMissing) as caught:
            process.wait(SECONDS)
        if isinstance(end, int):
            assert str(end) in str(caught.value)
            assert "the reason" in str(caught.value)
        # What had come can still be read; then the loss shows, and no end of the file.
        for file, message in ((process.stdout, stdout(b"out")), (process.stderr, stderr(b"err"))):
            if message in before:
                assert file.read1() == message[-3:]
            for _ in range(2):
                with pytest.raises(ExitMissing):
                    file.read1()
        with pytest.raises(BrokenPipeError):
            process.stdin.write(b"text") and process.stdin.flush()
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)


def test_the_loss_wakes_who_reads_and_who_waits() -> None:
    lose = threading.Event()

    def script(transport: Transport) -> None:
        lose.wait(SECONDS)
        transport.abort()

    with (
        against(script) as process,
        Task(process.stdout.read) as out,
        Task(process.stderr.readline) as err,
        Task(process.wait) as waiting,
    ):
        for task in (out, err, waiting):
            blocked(task)
        lose.set()
        for task in (out, err, waiting):
            with pytest.raises(ExitMissing):
                task.result()


def test_the_loss_wakes_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 10 * SECONDS)  # does not count here
    lose = threading.Event()

    def script(transport: Transport) -> None:
        lose.wait(SECONDS)
        transport.abort()

    with against(script) as process, Task(process.stdin.write, bytes(50_000_000)) as writing:
        blocked(writing)
        lose.set()
        with pytest.raises(BrokenPipeError):
            writing.result()


def test_a_real_server_that_goes_away() -> None:
    with contextlib.ExitStack() as stack:
        with listening() as listener:
            execer = stack.enter_context(connect(listener.url))
            process = stack.enter_context(execer.start(sh("echo $$; sleep 1000")))
            assert numbers(process.stdout, 1) == [process.pid]
        assert not alive(process.pid)
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)
        with pytest.raises(ConnectError):
            execer.start(Command("true"))


# Outputs that nobody reads


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_UNREAD_AFTER", 0.1)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_wait_tells_of_an_unread_output(name: str, impatient: None) -> None:
    """Of a server without credit: what nobody reads hides the end."""
    exit_3 = ExitCode(3, "exit status 3").encode()
    with against(flooding(b'{"type":"%s"}\n' % name.encode(), exit_3)) as process:
        for _ in range(2):
            with pytest.raises(OutputUnread) as caught:
                process.wait()
            assert caught.value.stream == name
            assert name in str(caught.value)
        # As it says, closing the output lets the command finish.
        getattr(process, name).close()
        with pytest.raises(ExitError) as ended:
            process.wait(SECONDS)
        assert ended.value.exit_code == 3


def test_reading_lets_the_command_finish(impatient: None) -> None:
    script = flooding(stderr(b""), stdout(b"done\n"), EXIT_0)
    with against(script) as process, Task(process.stdout.read) as reading:
        with pytest.raises(OutputUnread, match="stderr"):
            process.wait()
        assert len(process.stderr.read()) == 8_000_000
        assert reading.result() == b"done\n"
        process.wait(SECONDS)


def test_what_nobody_reads_does_not_hide_the_end(url: str, impatient: None) -> None:
    with connect(url) as execer, execer.start(Command("yes")) as process:
        with pytest.raises(TimeoutError):
            process.wait(0.5)
        process.kill()
        for _ in range(2):
            with pytest.raises(ExitError) as ended:
                process.wait(SECONDS)
            assert ended.value.signal == signal.SIGKILL
        assert len(process.stdout.read()) >= 1 << 20


def test_an_output_that_is_read_slowly_is_no_unread_one(url: str, impatient: None) -> None:
    with (
        connect(url) as execer,
        execer.start(sh("head -c 8000000 /dev/zero")) as process,
    ):
        process.stdout.read(1)
        with pytest.raises(TimeoutError):
            process.wait(2.0)
        assert len(process.stdout.read()) == 7_999_999
        process.wait(SECONDS)


@pytest.mark.parametrize("limit", [100_000, 1_000_000])
def test_output_limit(limit: int) -> None:
    client, server = memory_pair(features=())
    sent = 0

    def flood() -> None:
        nonlocal sent
        server.receive()
        server.send(PID)
        for _ in range(300):
            server.send(stdout(bytes(10_000)))
            sent += 10_000
        server.send(EXIT_0)

    with (
        Task(flood) as flooding,
        RemoteExecer(client, output_limit=limit).start(Command("any")) as process,
    ):
        blocked(flooding)
        # What waits beside the output itself: 16 messages in the transport, and one in hand.
        assert limit <= sent <= limit + 17 * 10_000
        assert len(process.stdout.read()) == 3_000_000
        process.wait(SECONDS)


# Input that nobody reads


@pytest.fixture(params=["memory", "socket", "chain"])
def execer(request: pytest.FixtureRequest) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            yield stack.enter_context(MemoryExecer())
            return
        url = stack.enter_context(listening()).url
        if request.param == "chain":
            back = url
            url = stack.enter_context(listening(lambda: connect(back))).url
        yield stack.enter_context(connect(url))


@contextlib.contextmanager
def flooded(process: Process) -> Iterator[Callable[[], int]]:
    """Write without end to a command that does not read; yields how much has been taken."""
    taken = 0

    def write() -> None:
        nonlocal taken
        piece = bytes(50_000)
        with contextlib.suppress(BrokenPipeError):
            while True:
                process.stdin.write(piece)
                taken += len(piece)

    with Task(write) as writing:
        blocked(writing)
        try:
            yield lambda: taken
        finally:
            process.close()


def test_input_that_waits_is_bounded(execer: RemoteExecer) -> None:
    with (
        execer.start(Command("sleep", ["1000"], stdin=True)) as process,
        flooded(process) as taken,
    ):
        assert 1_000_000 <= taken() < 2_300_000  # a window for each hop, and a pipe


def test_a_signal_gets_past_input_that_waits(execer: RemoteExecer) -> None:
    script = "trap 'echo got' USR1; echo ready; while :; do sleep 0.01; done"
    with execer.start(sh(script, stdin=True)) as process:
        read_until(process.stdout, b"ready\n")
        with flooded(process):
            process.send_signal(signal.SIGUSR1)
            read_until(process.stdout, b"got\n")


def test_a_resize_gets_past_input_that_waits(execer: RemoteExecer) -> None:
    script = """
        stty raw -echo
        trap 'stty size' WINCH
        sleep 1000 & echo ready
        while :; do wait; done
    """
    with execer.start(sh(script, tty=True, rows=24, cols=80)) as process:
        read_until(process.stdout, b"ready\n")
        with flooded(process):
            process.resize(50, 100)
            read_until(process.stdout, b"50 100\n")


def test_kill_gets_past_input_that_waits(execer: RemoteExecer) -> None:
    with execer.start(sh("trap '' TERM; echo ready; sleep 1000", stdin=True)) as process:
        read_until(process.stdout, b"ready\n")
        with flooded(process):
            process.kill()
            with pytest.raises(ExitError) as caught:
                process.wait(SECONDS)
            assert caught.value.signal == signal.SIGKILL


def test_what_waited_is_not_lost(execer: RemoteExecer) -> None:
    with execer.start(sh("kill -STOP $$; cat", stdin=True)) as process:
        data = os.urandom(5_000_000)
        with Task(process.stdin.write, data) as writing:
            blocked(writing)
            process.send_signal(signal.SIGCONT)
            assert process.stdout.read(4_900_000) == data[:4_900_000]
            writing.result()
            process.stdin.close()
            assert process.stdout.read() == data[4_900_000:]
        process.wait(SECONDS)
