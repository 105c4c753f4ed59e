"""Servers that have none of our additions, at the other end of a WebSocket or further on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from helpers import SECONDS, RawClient, Task, listening, scripted
from peers import BINARY, accept_raw, listening_socket
from remote_servers import EXIT_0, PID, Script, against, drained, flooding, stderr, stdout
from sshd import sshd

from wsep_sync import (
    Command,
    ExitError,
    ExitMissing,
    Popen,
    Process,
    RemoteExecer,
    Server,
    TransportClosed,
    connect,
    run,
)
from wsep_sync import process as process_module
from wsep_sync.process import CLOSE_GRACE
from wsep_sync.protocol.messages import ExitCode, Pid
from wsep_sync.transports import sockets
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair

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
    behind: tuple[str, ...], tty: bool, named: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "CLOSE_GRACE", 0.1)  # the command ends by no signal
    monkeypatch.setattr(process_module, "KILL_GRACE", 0.1)
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
