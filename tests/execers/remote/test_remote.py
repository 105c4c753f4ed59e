"""Commands at the other end of a WebSocket: what goes beyond the contract."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websocket
from certificates import certificates
from helpers import (
    SECONDS,
    MemoryExecer,
    RawClient,
    Task,
    alive,
    blocked,
    ends_processes,
    eventually,
    gone,
    listening,
    numbers,
    read_until,
    scripted,
    sh,
)
from peers import BINARY, accept_raw, listening_socket
from sshd import sshd

from wsep_sync import (
    Command,
    ConnectError,
    ExitError,
    ExitMissing,
    OutputUnread,
    Popen,
    Process,
    RemoteExecer,
    Server,
    SSHExecer,
    StartError,
    TransportClosed,
    connect,
    run,
)
from wsep_sync.execers.dial import dial
from wsep_sync.execers.remote import process as remote
from wsep_sync.process import CLOSE_GRACE
from wsep_sync.protocol.messages import FEATURES, Ended, ExitCode, Pid
from wsep_sync.transports import sockets
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair

Script = Callable[[Transport], None]

PID = b'{"type":"pid","pid":7}\n'
PID_WITH_ALL = Pid(7, ("signal", *FEATURES)).encode()
EXIT_0 = b'{"type":"exit_code","exit_code":0,"error":""}\n'


def stdout(body: bytes) -> bytes:
    return b'{"type":"stdout"}\n' + body


def stderr(body: bytes) -> bytes:
    return b'{"type":"stderr"}\n' + body


@pytest.fixture
def url() -> Iterator[str]:
    with listening() as listener:
        yield listener.url


@contextlib.contextmanager
def against(script: Script, command: Command | None = None) -> Iterator[Process]:
    """A process at a server that says the pid, and then does what the script says."""

    def serve(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        script(transport)

    with (
        scripted(serve) as url,
        connect(url) as execer,
        execer.start(command or Command("any", stdin=True)) as process,
    ):
        yield process


def drained(transport: Transport) -> list[bytes]:
    """Receive until the end; return the messages, and at last the close code."""
    messages = []
    try:
        while True:
            messages.append(bytes(transport.receive()))
    except TransportClosed as closed:
        messages.append(b"%d" % closed.code)
    return messages


# A server that is the reference


def hung_up_on(end: Callable[[Process], None]) -> tuple[list[bytes], Process]:
    """Return what a reference server received when a process was ended, and the process."""
    received: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
    with against(lambda transport: received.put(drained(transport))) as process:
        assert process.pid == 7
        end(process)
        return received.get(timeout=SECONDS), process


def test_close_hangs_up_on_a_server_without_signals() -> None:
    received, process = hung_up_on(lambda process: process.close())
    assert received == [b"1000"]
    with pytest.raises(ExitMissing):
        process.wait(SECONDS)
    assert process.stdout.read() == b""


def test_close_of_a_process_whose_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.1)
    with listening_socket() as listening, Task(accept_raw, listening) as accepting:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        with connect(url) as execer, accepting.result() as server:
            with Task(execer.start, Command("any")) as starting:
                server.receive()
                server.send(BINARY, PID)
                process = starting.result()
            with process:
                process.close()
                with pytest.raises(ExitMissing):
                    process.wait(SECONDS)
                assert process.stdout.read() == b""


def test_kill_hangs_up_on_a_server_without_signals() -> None:
    received, process = hung_up_on(lambda process: process.kill())
    assert received == [b"1006"]
    with pytest.raises(ExitMissing):
        process.wait(SECONDS)


def test_no_signal_is_sent_to_a_server_without_signals() -> None:
    def end(process: Process) -> None:
        with pytest.raises(io.UnsupportedOperation):
            process.send_signal(signal.SIGTERM)
        process.close()

    assert hung_up_on(end)[0] == [b"1000"]


def test_nothing_but_input_is_sent_to_a_server_without_credit() -> None:
    data = os.urandom(2_000_000)

    def echo(transport: Transport) -> None:
        got = b""
        while (message := bytes(transport.receive())) != b'{"type":"close_stdin"}\n':
            header, _, body = message.partition(b"\n")
            assert json.loads(header) == {"type": "stdin"}
            assert len(message) <= 64_000
            got += body
        assert got == data
        transport.send(EXIT_0)

    with against(echo) as process:
        process.stdin.write(data)
        process.stdin.close()
        process.wait(SECONDS)


def test_the_signal_in_words_alone() -> None:
    def script(transport: Transport) -> None:
        transport.send(b'{"type":"exit_code","exit_code":-1,"error":"signal: killed"}\n')

    with against(script) as process, pytest.raises(ExitError) as caught:
        process.wait(SECONDS)
    assert (caught.value.exit_code, caught.value.signal) == (-1, signal.SIGKILL)


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


# A server further on that is the reference


@contextlib.contextmanager
def before_the_reference(script: Script, features: tuple[str, ...] = ()) -> Iterator[str]:
    """A server that passes commands on to one which says the pid, and does what is said."""

    def serve(transport: Transport) -> None:
        with contextlib.suppress(TransportClosed):
            transport.receive()
            transport.send(Pid(7, features).encode())
            script(transport)

    with (
        scripted(serve) as back,
        contextlib.closing(Server()) as server,
        listening(lambda: connect(back), server=server) as front,
    ):
        yield front.url


@pytest.mark.parametrize(
    ("behind", "tty", "named"),
    [
        ((), False, {"taken", "ended", "attach"}),
        # It reads what a terminal shows, and drops it, by itself.
        ((), True, {"taken", "ended", "attach", "close_output"}),
        (("signal",), False, {"signal", "taken", "ended", "attach"}),
        (("close_output",), False, {"taken", "ended", "attach", "close_output"}),
        (("discard", "new"), False, {"taken", "ended", "attach", "discard"}),
    ],
)
def test_a_front_names_what_the_process_behind_can(
    behind: tuple[str, ...], tty: bool, named: set[str]
) -> None:
    with (
        before_the_reference(drained_quietly, behind) as url,
        connect(url) as execer,
        execer.start(Command("any", tty=tty)) as process,
    ):
        assert process.features == named
        if "signal" not in behind:
            with pytest.raises(io.UnsupportedOperation):
                process.send_signal(signal.SIGINT)


def test_the_front_of_a_session_names_what_its_process_can() -> None:
    with before_the_reference(drained_quietly) as url:
        for _ in range(2):
            with connect(url) as execer, execer.start(Command("any", tty=True, id="x")) as process:
                assert process.features == {"taken", "ended", "attach", "close_output"}


def writing_until_signalled(transport: Transport) -> None:
    """Be a command that writes without end, at a server that knows of signals and no more."""
    got: list[bytes] = []

    def receive() -> None:
        with contextlib.suppress(TransportClosed):
            while b'"signal"' not in (message := bytes(transport.receive())):
                assert json.loads(message)["type"] not in ("close_output", "taken")
            got.append(message)

    with Task(receive) as receiving:
        while not got and receiving.running:
            transport.send(stdout(bytes(10_000)))
            time.sleep(0.001)  # it need not be a flood
    number = json.loads(got[0])["signal"]
    transport.send(ExitCode(-1, f"signal {number}", number).encode())


@pytest.mark.parametrize("way", ["direct", "front"])
@pytest.mark.parametrize("read", [10, 3_000_000])
def test_a_command_that_is_not_told_of_a_closed_output_gets_sigpipe(way: str, read: int) -> None:
    with contextlib.ExitStack() as stack:
        if way == "front":
            url = stack.enter_context(before_the_reference(writing_until_signalled, ("signal",)))
        else:

            def serve(transport: Transport) -> None:
                transport.receive()
                transport.send(Pid(7, ("signal",)).encode())
                writing_until_signalled(transport)

            url = stack.enter_context(scripted(serve))
        process = stack.enter_context(Popen(["any"], stdout=subprocess.PIPE, url=url))
        assert process.stdout is not None
        assert len(process.stdout.read(read)) == read
        process.stdout.close()
        assert process.wait(SECONDS) == -signal.SIGPIPE


@pytest.mark.long
def test_a_front_before_an_ssh_host_passes_on_a_signal_for_a_closed_output() -> None:
    with sshd() as host, listening(host.connect) as front:
        process = Popen(["yes"], stdout=subprocess.PIPE, url=front.url)
        assert "close_output" not in process.process.features
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(SECONDS) == -signal.SIGPIPE


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_a_closed_output_that_the_command_cannot_be_told_of_is_dropped(
    full: bool, tty: bool
) -> None:
    """The command, and the credit for its output, are not held up."""
    go_on = threading.Event()

    def script(transport: Transport) -> None:
        if not full:
            transport.send(stdout(b"first"))
            assert go_on.wait(SECONDS)
        for _ in range(160):
            transport.send(stdout(bytes(50_000)))
        transport.send(ExitCode(3, "exit status 3").encode())
        drained(transport)

    with (
        before_the_reference(script) as url,
        connect(url) as execer,
        execer.start(Command("any", tty=tty)) as process,
    ):
        if full:
            with pytest.raises(TimeoutError):
                process.wait(0.5)
        else:
            process.stdout.read1()
        process.stdout.close()
        go_on.set()
        with pytest.raises(ExitError, match="exit status 3"):
            process.wait(SECONDS)


def test_what_is_discarded_is_dropped_behind_a_front() -> None:
    exit_3 = ExitCode(3, "exit status 3").encode()
    with before_the_reference(flooding(stdout(b""), stderr(b"err"), exit_3)) as url:
        done = run(
            ["any"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=SECONDS, url=url
        )
    assert (done.returncode, done.stderr) == (3, b"err")


@pytest.mark.parametrize("way", ["direct", "front"])
def test_a_kill_that_hangs_up_is_not_held_up_by_unread_output(way: str) -> None:
    def serve(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        with contextlib.suppress(TransportClosed):
            flooding(stdout(b""))(transport)

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(scripted(serve))
        if way == "front":
            back = url
            url = stack.enter_context(listening(lambda: connect(back))).url
        execer = stack.enter_context(connect(url))
        process = stack.enter_context(execer.start(Command("any")))
        with pytest.raises(TimeoutError):
            process.wait(0.5)
        process.kill()
        with pytest.raises(ExitMissing):
            process.wait(SECONDS)


@pytest.mark.parametrize("features", [(), ("signal", "close_output")])
def test_a_client_relies_on_the_pid_alone(features: tuple[str, ...]) -> None:
    """The handshake says what may be asked for: what runs the command was not known then."""
    client, server = memory_pair()

    def serve() -> list[bytes]:
        server.receive()
        server.send(Pid(7, features).encode())
        server.send(stdout(bytes(1000)))
        server.send(EXIT_0)
        return drained(server)

    with Task(serve) as serving:
        with RemoteExecer(client).start(Command("any")) as process:
            assert process.features == frozenset(features)
            assert process.stdout.read() == bytes(1000)
            process.wait(SECONDS)
        assert serving.result() == [b"1000"]


def drained_quietly(transport: Transport) -> None:
    drained(transport)


@pytest.mark.parametrize(
    "kill", [lambda p: p.kill(), lambda p: p.send_signal(signal.SIGKILL)], ids=["kill", "signal"]
)
def test_kill_through_a_front_hangs_up(kill: Callable[[Process], None]) -> None:
    hung_up = threading.Event()

    def script(transport: Transport) -> None:
        drained(transport)
        hung_up.set()

    with (
        before_the_reference(script) as url,
        connect(url) as execer,
        execer.start(Command("any")) as process,
    ):
        kill(process)
        with pytest.raises(ExitMissing):
            process.wait(1)
        assert hung_up.wait(SECONDS)


def test_sigkill_of_a_raw_client_is_passed_on_as_kill() -> None:
    hung_up = threading.Event()

    def script(transport: Transport) -> None:
        drained(transport)
        hung_up.set()

    with before_the_reference(script) as url, RawClient(url) as client:
        client.start(Command("any"))
        client.send({"type": "signal", "signal": 9})
        assert hung_up.wait(SECONDS)
        client.receive_all()
        assert client.code == 1011


def test_a_timeout_through_a_front_ends_in_time() -> None:
    with before_the_reference(drained_quietly) as url:
        began = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            run(["any"], timeout=0.2, capture_output=True, stdin=subprocess.DEVNULL, url=url)
        assert time.monotonic() - began < CLOSE_GRACE  # none of the graces was waited for


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


def flooding(header: bytes, *then: bytes) -> Script:
    """What a server sends that is the reference, of a command that writes much."""

    def script(transport: Transport) -> None:
        for _ in range(160):
            transport.send(header + bytes(50_000))
        for message in then:
            transport.send(message)
        drained(transport)

    return script


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
        assert 1_000_000 <= taken() < 2_000_000


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
