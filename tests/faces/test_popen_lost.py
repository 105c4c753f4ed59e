"""subprocess's face when the connection is lost, or nobody reads; and servers without additions."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import pytest
from faces import Face, face
from helpers import SECONDS, Task, blocked, eventually, scripted

from wsep_sync import DEVNULL, PIPE, STDOUT, ExitMissing, OutputUnread, Popen, run
from wsep_sync.protocol.messages import ExitCode, Pid, Start, decode_client_message
from wsep_sync.transports.base import Transport

# When the connection is lost


def losing(*messages: bytes) -> Callable[[Transport], None]:
    """A server that says so much about each command, and then cuts the connection."""

    def script(transport: Transport) -> None:
        assert isinstance(decode_client_message(transport.receive()), Start)
        for message in messages:
            transport.send(message)
        transport.abort()

    return script


PID = Pid(4711).encode()
SOME_OUTPUT = b'{"type":"stdout"}\nsome'


def test_a_lost_connection_is_no_exit_status() -> None:
    with scripted(losing(PID)) as url:
        process = Popen(["a"], stdout=PIPE, url=url)
        for _ in range(2):
            for call in (process.wait, process.poll, process.communicate):
                with pytest.raises(ExitMissing):
                    call()
        assert process.returncode is None
        assert repr(process) == "<Popen: returncode: None args: ['a']>"
        process.send_signal(signal.SIGTERM)
        process.kill()


def test_a_lost_connection_is_raised_at_the_end_of_the_block() -> None:
    with scripted(losing(PID)) as url:
        with pytest.raises(ExitMissing), Popen(["a"], url=url):
            pass
        # What is being raised already says more.
        with pytest.raises(ZeroDivisionError), Popen(["a"], url=url):
            raise ZeroDivisionError


def test_a_lost_connection_reaches_everybody_who_waits() -> None:
    lost = threading.Event()

    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        lost.wait()
        transport.abort()

    with scripted(script) as url:
        process = Popen(["a"], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, url=url)
        with Task(process.wait) as one, Task(process.wait, 30) as other:
            for task in (one, other):
                blocked(task)
            lost.set()
            for task in (one, other):
                with pytest.raises(ExitMissing):
                    task.result()
        # No warning that it runs: nobody knows.
        del process
        gc.collect()


def test_lost_connections_hold_no_descriptors() -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url:
        descriptors = len(os.listdir("/proc/self/fd"))
        gc.disable()
        try:
            for _ in range(20):
                with pytest.raises(ExitMissing) as caught:
                    run(["a"], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, url=url)
                del caught
            eventually(
                lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2,
                "descriptors are closed without the garbage collector",
            )
        finally:
            gc.enable()


@pytest.mark.parametrize("call", ["run", "call", "check_call", "check_output"])
def test_a_lost_connection_fails_every_call(call: str) -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url, pytest.raises(ExitMissing):
        getattr(face(url), call)(["a"], stdin=DEVNULL, stderr=PIPE)


@pytest.mark.parametrize("call", ["run", "check_output"])
@pytest.mark.parametrize("options", [{}, {"text": True}], ids=repr)
def test_what_had_come_of_a_lost_command_is_not_lost(call: str, options: dict[str, Any]) -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url, pytest.raises(SubprocessError) as caught:
        getattr(face(url), call)(["a"], stdin=DEVNULL, stderr=PIPE, **options, **piped(call))
    lost = caught.value
    assert isinstance(lost, ExitMissing)
    # In bytes, as those of TimeoutExpired: the last character may be half there.
    assert (lost.stdout, lost.stderr) == (b"some", None)
    again = pickle.loads(pickle.dumps(lost))
    assert (type(again), again.args, again.stdout) == (type(lost), lost.args, b"some")


def piped(call: str) -> dict[str, int]:
    return {"stdout": PIPE} if call == "run" else {}


def test_a_lost_command_is_an_error_of_subprocess_s() -> None:
    with scripted(losing(PID)) as url:
        process = Popen(["a"], stdout=PIPE, url=url)
        for call in (process.wait, process.poll, process.communicate):
            with pytest.raises(SubprocessError) as caught:
                call()
            assert isinstance(caught.value, ExitMissing)
            assert caught.value.stdout is None


def test_a_lost_connection_is_an_end_to_who_reads_the_descriptor() -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url:
        process = Popen(["a"], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, bufsize=0, url=url)
        assert process.stdout is not None
        done = subprocess.run(["cat"], stdin=process.stdout, stdout=PIPE, check=True)
        assert done.stdout == b"some"
        with process.stdout, pytest.raises(ExitMissing):
            process.stdout.read(100)
        with pytest.raises(ExitMissing):
            process.wait()


def test_a_lost_connection_before_the_command_is_known_to_run() -> None:
    # A shell was started, and has not said whether it found the command.
    with scripted(losing(PID)) as url, pytest.raises(ExitMissing):
        run(["a"], stdout=PIPE, stderr=STDOUT, url=url)


def test_an_output_that_nobody_reads_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a server that has no way to tell of the end ahead of it."""
    monkeypatch.setattr("wsep_sync.execers.remote.process._UNREAD_AFTER", 0.1)

    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        for _ in range(180):
            transport.send(b'{"type":"stdout"}\n' + bytes(50_000))
        transport.send(b'{"type":"exit_code","exit_code":0,"error":""}\n')

    with scripted(script) as url, Popen(["any"], stdout=PIPE, url=url) as process:
        with pytest.raises(OutputUnread, match="stdout"):
            process.wait()
        assert len(process.communicate()[0]) == 9_000_000


def test_what_nobody_reads_does_not_hide_the_end(tested: Face) -> None:
    process = tested.Popen(["yes"], stdout=PIPE)
    process.stdout.read(1 << 20)  # what comes next fills every window
    process.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


def test_what_nobody_asked_for_need_not_end(tested: Face, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # It lives until somebody writes there, and may say what it likes.
    script = f"(read x < {fifo}; echo $x; echo $x >&2; echo $x > {tmp_path}/file) &"
    done = tested.run(script, shell=True, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    assert done.returncode == 0
    fifo.write_text("late\n")
    eventually(lambda: (tmp_path / "file").exists(), "the job in the background to go on")
    eventually(lambda: (tmp_path / "file").read_text() == "late\n", "its word")


# A server that has none of our additions


def test_a_server_without_signals() -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        with contextlib.suppress(Exception):
            transport.receive()

    with scripted(script) as url:
        process = Popen(["a"], url=url)
        with pytest.raises(io.UnsupportedOperation):
            process.terminate()
        process.kill()  # hangs up
        with pytest.raises(ExitMissing):
            process.wait()


def test_a_server_that_is_the_reference(tmp_path: Path) -> None:
    def script(transport: Transport) -> None:
        started = decode_client_message(transport.receive())
        assert isinstance(started, Start)
        transport.send(PID)
        transport.send(b'{"type":"stdout"}\n', json.dumps(started.command.args).encode())
        transport.send(ExitCode(-1, "signal: terminated").encode())
        with contextlib.suppress(Exception):
            transport.receive()

    with scripted(script) as url:
        done = run(["a", "b"], stdout=PIPE, stdin=DEVNULL, url=url)
    assert (done.stdout, done.returncode) == (b'["b"]', -15)
