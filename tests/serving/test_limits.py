"""The server: its limits, its end, and the memory for outputs."""

from __future__ import annotations

import contextlib
import fcntl
import select
import threading
import tracemalloc

import pytest
from helpers import (
    SECONDS,
    RawClient,
    Task,
    eventually,
    gone,
    listening,
    serving,
    sh,
    start_message,
)
from served import served

from wsep_sync import (
    Command,
    ConnectError,
    Execer,
    ExitError,
    ExitMissing,
    LocalExecer,
    Options,
    Process,
    ProtocolError,
    RemoteExecer,
    Server,
    StartError,
    TransportClosed,
    connect,
)
from wsep_sync.serving import connection as server
from wsep_sync.transports.memory import memory_pair
from wsep_sync.transports.sockets import SocketTransport
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

# Limits


def test_a_client_that_does_not_say_what_to_run() -> None:
    with served(options=Options(start_timeout=0.1)) as (_, _, serving):
        with pytest.raises(ProtocolError, match=r"no start within 0\.1 seconds") as caught:
            serving.result()
        assert caught.value.close_code == 1008


def test_the_time_to_start_does_not_end_what_was_started() -> None:
    with served(options=Options(start_timeout=2.0)) as (client, _, serving):
        client.send(start_message(Command("cat", stdin=True)))
        client.receive()
        serving.thread.join(2.2)  # longer than the server waits for a start
        assert serving.running


@pytest.mark.parametrize("seen", [False, True], ids=["crossing", "seen"])
def test_a_connection_that_waited_too_long_is_replaced(seen: bool) -> None:
    app = application(Server(), LocalExecer(), Options(start_timeout=1.0))
    with serving(Listener(app)) as listener, connect(listener.url) as execer:
        transport = execer._transport
        assert isinstance(transport, SocketTransport)
        # Until the server has given it up.
        assert select.select([transport._stream.socket], [], [], SECONDS)[0]
        if seen:
            with pytest.raises(TransportClosed, match="no start within"):
                transport.receive()
        with execer.start(Command("echo", ["late"])) as started:
            assert started.stdout.read() == b"late\n"


@pytest.mark.parametrize("options", [{"start_timeout": 0}, {"session_timeout": -1.0}])
def test_times_that_are_none(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Options(**options)


def test_more_sessions_than_allowed() -> None:
    server = Server(max_sessions=2)
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        url = stack.enter_context(listening(server=server)).url
        execer = stack.enter_context(connect(url))
        first, _ = (
            stack.enter_context(execer.start(Command("cat", tty=True, id=id))) for id in "ab"
        )
        with pytest.raises(StartError, match=r"^start command: 2 sessions are the limit here$"):
            execer.start(Command("cat", tty=True, id="c"))
        # Those that are there can be attached to, and commands without an id run.
        with execer.start(Command("cat", tty=True, id="b")) as again:
            assert again.reattached
        with execer.start(Command("echo", ["plain"])) as plain:
            assert plain.stdout.read() == b"plain\n"
        assert server.close_session("a")
        with pytest.raises(ExitError):
            first.wait(SECONDS)
        with execer.start(Command("cat", tty=True, id="c")) as other:
            assert not other.reattached


# The end of a server


def test_close_ends_connections_with_1001() -> None:
    server = Server()
    with listening(server=server) as listener:
        with (
            RawClient(listener.url) as plain,
            RawClient(listener.url) as session,
            RawClient(listener.url) as idle,
        ):
            pids = [plain.start(Command("cat", stdin=True))]
            session.send({"type": "start", "id": "s", "command": {"command": "cat", "tty": True}})
            header, _ = session.receive()
            pids.append(int(header["pid"]))
            assert server.session_count() == 1
            server.close()
            assert server.session_count() == 0
            for client in (plain, session, idle):
                _, out, _ = client.receive_all()
                assert (client.code, client.reason) == (1001, "the server is ending")
                assert out == b""
            gone(*pids)
        with pytest.raises(ConnectError, match="ending") as caught:
            connect(listener.url)
        assert caught.value.status == 503


def test_a_session_that_ends_with_the_server_has_no_exit_status() -> None:
    server = Server()
    client, conn = memory_pair()
    has_more = conn.has_more

    def look_late() -> bool:
        if server.closed:
            eventually(lambda: not server.session_count(), "the end of the session")
        return has_more()

    conn.has_more = look_late  # type: ignore[method-assign]
    with (
        Task(server.serve_and_close, conn, LocalExecer()),
        RemoteExecer(client) as execer,
        execer.start(Command("cat", tty=True, id="work")) as process,
    ):
        server.close()
        with pytest.raises(ExitMissing, match="the server is ending"):
            process.wait(SECONDS)


def test_close_while_a_client_does_not_read() -> None:
    server = Server()
    with listening(server=server) as listener, RawClient(listener.url) as client:
        pid = client.start(Command("yes"))
        server.close()
        gone(pid)


def test_close_while_a_command_does_not_read() -> None:
    server = Server()
    with listening(server=server) as listener, RawClient(listener.url) as client:
        pid = client.start(Command("sleep", ["1000"], stdin=True))
        client.send_until_full(b'{"type":"stdin"}\n' + bytes(60_000))
        server.close()
        gone(pid)


def test_close_while_a_command_is_started() -> None:
    starting, go_on = threading.Event(), threading.Event()

    class Slow(Execer):
        def start(self, command: Command) -> Process:
            starting.set()
            assert go_on.wait(SECONDS)
            return LocalExecer().start(command)

    server = Server()
    with listening(Slow(), server) as listener, RawClient(listener.url) as client:
        client.send(start_message(Command("cat", stdin=True)))
        assert starting.wait(SECONDS)
        server.close()
        go_on.set()
        client.receive_all()
        assert client.code == 1001


def test_drain_waits_for_sessions() -> None:
    server = Server()
    with listening(server=server) as listener, connect(listener.url) as execer:
        assert server.drain(0)
        with execer.start(Command("cat", tty=True, id="s")) as process:
            assert not server.drain(0.05)
            with Task(server.drain, SECONDS) as draining:
                process.stdin.close()  # the end-of-file character, which ends cat
                assert draining.result() is True


# The memory for outputs

PRINT_AS_ASKED = 'while read n; do head -c "$n" /dev/zero; done'


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_outputs_of_every_size_after_each_other(tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE_AFTER", 0.0)
    script = f"stty raw -echo; echo; {PRINT_AS_ASKED}" if tty else f"echo; {PRINT_AS_ASKED}"
    command = sh(script, tty=tty, stdin=True)
    with listening() as at, connect(at.url) as execer, execer.start(command) as started:
        assert started.stdout.readline() == b"\n"
        for size in (1, 4077, 4078, 4079, 1, 100_000, 4077, 63_982, 200_000, 1, 4096):
            started.stdin.write(b"%d\n" % size)
            started.stdin.flush()
            assert started.stdout.read(size) == bytes(size)


def test_an_output_that_has_become_silent_keeps_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_IDLE_AFTER", 0.05)

    def memory() -> int:
        """What the server's code has allocated, in bytes."""
        only = tracemalloc.Filter(True, server.__file__)
        snapshot = tracemalloc.take_snapshot().filter_traces([only])
        return sum(entry.size for entry in snapshot.statistics("filename"))

    tracemalloc.start()
    try:
        command = sh(PRINT_AS_ASKED, stdin=True)
        with listening() as at, connect(at.url) as execer, execer.start(command) as started:
            for size in (100_000, 100_000):
                started.stdin.write(b"%d\n" % size)
                started.stdin.flush()
                assert started.stdout.read(size) == bytes(size)
                eventually(lambda: memory() < 50_000, "the memory to be given back")
    finally:
        tracemalloc.stop()


def test_a_pipe_holds_more_while_much_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE_AFTER", 0.05)
    processes = []

    class Local(LocalExecer):
        def start(self, command: Command) -> Process:
            processes.append(super().start(command))
            return processes[-1]

    def capacity() -> int:
        return fcntl.fcntl(processes[0].stdout.raw._fd, fcntl.F_GETPIPE_SZ)

    command = sh("head -c 10000000 /dev/zero; read x", stdin=True)
    with (
        listening(Local()) as at,
        connect(at.url) as execer,
        execer.start(command) as started,
    ):
        eventually(lambda: capacity() == 1 << 18, "the pipe to be enlarged")
        assert started.stdout.read(10_000_000) == bytes(10_000_000)
        eventually(lambda: capacity() == 1 << 16, "the pipe to be what it was")
