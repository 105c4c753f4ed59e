"""How commands end at the other end of a WebSocket: statuses that lie, ends ahead of the output."""

from __future__ import annotations

import contextlib
import gc
import select
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest
from helpers import SECONDS, Task, eventually, listening, scripted
from remote_servers import EXIT_0, PID_WITH_ALL, against, drained, stdout

from wsep_sync import Command, ExitError, ExitMissing, Popen, connect
from wsep_sync.protocol.messages import Ended, ExitCode, Pid
from wsep_sync.transports.base import Transport

# How a status may lie


@pytest.mark.parametrize(
    "fields",
    [
        '"exit_code":0,"error":"failed to get reader: EOF"',
        '"exit_code":0,"error":"signal: killed"',
        '"error":""',
        '"exit_code":null,"error":""',
        '"exit_code":true',
        '"exit_code":"0"',
        '"exit_code":0.0',
        '"exit_code":-2,"error":"what"',
        '"exit_code":0,"signal":9',
        '"exit_code":0,"signal":0',
        '"exit_code":-1,"signal":0',
        '"exit_code":3,"signal":9',
        '"exit_code":0,"error":7',
    ],
)
@pytest.mark.parametrize("kind", ["exit_code", "ended"])
def test_a_status_that_lies_is_missing(kind: str, fields: str) -> None:
    def script(transport: Transport) -> None:
        transport.send(stdout(b"out"))
        transport.send(b'{"type":"%s",%s}\n' % (kind.encode(), fields.encode()))
        transport.send(b'{"type":"exit_code",%s}\n' % fields.encode())
        drained(transport)

    with against(script) as process:
        for _ in range(2):
            with pytest.raises(ExitMissing, match="no exit status") as caught:
                process.wait(SECONDS)
        if "failed" in fields:
            assert str(caught.value) == "no exit status: failed to get reader: EOF"
        assert process.stdout.read1() == b"out"
        with pytest.raises(ExitMissing):
            process.stdout.read1()


@pytest.mark.parametrize("end", ["kill", "close", "hang_up"])
def test_a_server_that_takes_nothing_holds_nobody_up(end: str) -> None:
    over = threading.Event()

    def serve(transport: Transport) -> None:
        transport.receive()
        transport.send(Pid(1, ("signal",)).encode())
        assert over.wait(SECONDS)

    command = Command("any", stdin=True)
    with scripted(serve) as url, connect(url) as execer, execer.start(command) as process:
        sock = process._transport._stream.socket
        with Task(process.stdin.raw.write, bytes(1 << 25)) as writing:
            eventually(lambda: not select.select([], [sock], [], 0)[1], "nothing to be taken")
            for name in (end, "close"):
                with Task(getattr(process, name)) as ending:
                    ending.result()
            with pytest.raises(BrokenPipeError):
                writing.result()
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)
        over.set()


def test_a_status_that_contradicts_the_one_before_is_no_good_end() -> None:
    def script(transport: Transport) -> None:
        transport.send(Ended(ExitCode(3, "exit status 3")).encode())
        transport.send(EXIT_0)
        drained(transport)

    with against(script) as process:
        with contextlib.suppress(ExitError, ExitMissing):  # as far as it is known
            process.wait(SECONDS)
        with pytest.raises(ExitMissing, match="nonsense"):
            process.stdout.read()
        with pytest.raises(ExitMissing, match="two"):
            process.wait(SECONDS)


# The end, ahead of the output


def ended_and(transport: Transport, end: Callable[[], None]) -> None:
    transport.send(stdout(b"out"))
    transport.send(Ended(ExitCode(0)).encode())
    end()


def test_a_connection_that_is_lost_after_the_end() -> None:
    with against(lambda transport: ended_and(transport, transport.abort)) as process:
        process.wait(SECONDS)
        assert process.stdout.read1() == b"out"
        for file in (process.stdout, process.stderr):
            for _ in range(2):
                with pytest.raises(ExitMissing, match="not all of its output came"):
                    file.read1()
        process.wait(SECONDS)


@pytest.mark.parametrize("target", [subprocess.PIPE, None])
def test_popen_is_told_that_output_was_lost_after_the_end(target: int | None) -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID_WITH_ALL)
        ended_and(transport, transport.abort)

    with scripted(script) as url:
        process = Popen(["any"], stdout=target, stderr=subprocess.PIPE, url=url)
        with pytest.raises(ExitMissing):
            process.communicate()
        assert process.poll() == 0


def test_a_server_further_on_that_is_lost_after_the_end() -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID_WITH_ALL)
        ended_and(transport, transport.abort)

    with (
        scripted(script) as back,
        listening(lambda: connect(back)) as front,
        connect(front.url) as execer,
        execer.start(Command("any")) as process,
        pytest.raises(ExitMissing),
    ):
        process.stdout.read()


def test_close_after_the_end_does_not_wait_for_the_output(url: str) -> None:
    with connect(url) as execer, execer.start(Command("yes")) as process:
        process.kill()
        with pytest.raises(ExitError):
            process.wait(SECONDS)
        process.close()
        assert process.stdout.read(1) in (b"", b"y")


def test_a_file_that_is_dropped_is_closed(url: str) -> None:
    """As a pipe is; whoever collects it waits for nothing."""
    with connect(url) as execer:
        process = execer.start(Command("yes"))
        raw = process.stdout.detach()
        process.stdout = process.stderr
        assert raw.read(10) == b"y\n" * 5
        del raw
        gc.collect()
        with pytest.raises(ExitError) as caught:
            process.wait(SECONDS)
        assert caught.value.signal == signal.SIGPIPE
        process.close()
