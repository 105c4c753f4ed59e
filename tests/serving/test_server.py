"""The server: how connections end, and what they leave behind, which is nothing."""

from __future__ import annotations

import contextlib
import fcntl
import select
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import (
    SECONDS,
    MemoryExecer,
    RawClient,
    Task,
    ends_processes,
    eventually,
    gone,
    listening,
    serving,
    sh,
    start_message,
    state,
)

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
    process,
)
from wsep_sync.serving import connection as server
from wsep_sync.transports.memory import memory_pair
from wsep_sync.transports.sockets import SocketTransport
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

CLOSE_STDIN = {"type": "close_stdin"}


@pytest.fixture(params=["one server", "two hops"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server, which still serves when the test has done its worst."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(listening()).url
        if request.param == "two hops":
            back = url
            url = stack.enter_context(listening(lambda: connect(back))).url
        yield url
        with connect(url) as execer, execer.start(Command("echo", ["next"])) as started:
            assert started.stdout.read() == b"next\n"
            started.wait(SECONDS)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_GRACE", 0.3)


@pytest.fixture
def short_close_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CLOSE_WAIT", 0.2)


# A client that goes away

GOING = {
    "with a close frame": RawClient.hang_up,
    "with a FIN": RawClient.finish,
    "with a reset": RawClient.reset,
}


@pytest.fixture(params=GOING)
def go(request: pytest.FixtureRequest) -> Callable[[RawClient], None]:
    return GOING[request.param]


def read_numbers(client: RawClient, count: int) -> list[int]:
    """The first lines of the output, each a number."""
    out = b""
    while out.count(b"\n") < count:
        header, body = client.receive()
        if header["type"] == "stdout":
            out += body
    return [int(line) for line in out.split(b"\n")[:count]]


def test_an_idle_command_ends_with_its_client(url: str, go: Callable[[RawClient], None]) -> None:
    with RawClient(url) as client:
        pid = client.start(sh("sleep 1000 & echo $!; sleep 1000 & echo $!; wait"))
        pids = [pid, *read_numbers(client, 2)]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_a_terminal_ends_with_its_client(url: str, go: Callable[[RawClient], None]) -> None:
    with RawClient(url) as client:
        pid = client.start(sh("sleep 1000 & echo $!; wait", tty=True))
        pids = [pid, *read_numbers(client, 1)]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_an_interactive_shell_ends_with_its_client_and_its_job(
    url: str, go: Callable[[RawClient], None]
) -> None:
    with RawClient(url) as client:
        pid = client.start(Command("bash", ["--norc", "--noprofile", "-i"], tty=True))
        client.send({"type": "stdin"}, b"sh -c 'echo :$$:; exec sleep 1000'\n")
        out = b""
        while len(words := out.split(b":")) < 3 or not words[-2].isdigit():
            out += client.receive()[1]
        pids = [pid, int(words[-2])]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_a_command_that_writes_ends_with_its_client(
    url: str, go: Callable[[RawClient], None]
) -> None:
    with RawClient(url) as client:
        pid = client.start(sh("sh -c 'echo $$; exec yes' & exec yes >&2"))
        child = read_numbers(client, 1)[0]
        with ends_processes(pid, child):
            for _ in range(20):
                client.receive()
            go(client)
            gone(pid, child)


def test_a_command_whose_client_does_not_read_ends_with_it(
    url: str, go: Callable[[RawClient], None]
) -> None:
    with RawClient(url) as client:
        pid = client.start(Command("yes"))
        with ends_processes(pid):
            # Until everything on the way is full, the command writes.
            eventually(lambda: sleeps(pid), "a full pipe")
            go(client)
            gone(pid)


def sleeps(pid: int) -> bool:
    for _ in range(20):
        if state(pid) != "S":
            return False
        time.sleep(0.005)
    return True


def test_a_command_that_ignores_all_but_sigkill(
    url: str, go: Callable[[RawClient], None], short_grace: None
) -> None:
    with RawClient(url) as client:
        script = "trap '' HUP TERM; sleep 1000 & echo $!; wait; wait"
        pid = client.start(sh(script))
        pids = [pid, *read_numbers(client, 1)]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_sighup_comes_first(url: str, tmp_path: Any) -> None:
    script = """
        trap '' TERM  # which comes at once after it
        trap 'kill -9 $!; echo hup > "$1"; exit' HUP
        sleep 1000 & echo $$
        while :; do wait; done
    """
    with RawClient(url) as client:
        pid = client.start(sh(script, str(tmp_path / "seen")))
        read_numbers(client, 1)
        with ends_processes(pid):
            client.hang_up()
            gone(pid)
    assert (tmp_path / "seen").read_text() == "hup\n"


def test_megabytes_of_input_that_nobody_reads(url: str, go: Callable[[RawClient], None]) -> None:
    # A client without marks, that sends nearly all that the server takes. (Loopback's kernel gives
    # a socket with something unread no window for more, so that not even a FIN would come behind.)
    with RawClient(url) as client:
        pid = client.start(Command("sleep", ["1000"], stdin=True))
        with ends_processes(pid):
            for _ in range(55):
                client.send({"type": "stdin"}, bytes(20_000))
            go(client)
            gone(pid)


def test_input_that_even_the_socket_does_not_take(url: str) -> None:
    # A reset overtakes what the client's kernel still holds back. A FIN would stand behind it, and
    # no server could see it that keeps its memory flat: only clients with marks are safe there.
    with RawClient(url) as client:
        pid = client.start(Command("sleep", ["1000"], stdin=True))
        with ends_processes(pid):
            client.send_until_full(b'{"type":"stdin"}\n' + bytes(50_000))
            client.reset()
            gone(pid)


@pytest.mark.parametrize("tty", [False, True])
def test_our_client_killed_while_its_input_waits(url: str, tty: bool) -> None:
    script = """if True:
        import sys
        from wsep_sync import Command, connect
        with connect(sys.argv[1]) as execer:
            script = "stty raw; echo ready; sleep 1000" if sys.argv[2] else "echo ready; sleep 1000"
            command = Command("sh", ["-c", script], stdin=True, tty=bool(sys.argv[2]))
            process = execer.start(command)
            process.stdout.readline()
            print(process.pid, flush=True)
            process.stdin.write(bytes(10_000_000))
    """
    command = [sys.executable, "-c", script, url, "tty" if tty else ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        with ends_processes(pid, client.pid):
            eventually(lambda: sleeps(client.pid), "the client to block")
            client.kill()
            gone(pid)


def test_a_client_that_goes_before_the_pid(url: str, go: Callable[[RawClient], None]) -> None:
    for _ in range(5):
        with RawClient(url) as client:
            client.send(start_message(Command("sleep", ["1000"])))
            go(client)
    # The fixtures see to it that nothing is left.


def test_a_client_that_goes_before_the_start(url: str, go: Callable[[RawClient], None]) -> None:
    with RawClient(url) as client:
        go(client)


# The end of a command


def test_a_client_that_does_not_close_is_closed(url: str, short_close_wait: None) -> None:
    with RawClient(url) as client:
        client.start(Command("echo", ["text"]))
        headers, out, _ = client.receive_all()
        assert headers[-1] == {"type": "exit_code", "exit_code": 0, "error": ""}
        assert out == b"text\n"
        assert client.code == 1000


def test_a_client_that_never_answers_the_close(url: str, short_close_wait: None) -> None:
    client = RawClient(url)
    client.start(Command("true"))
    client.receive_until("exit_code")
    # It does nothing any more; the server must come to its end all the same, with the fixture.
    with (
        client,
        pytest.raises(EOFError),
    ):
        client.receive()


def test_messages_after_the_end_are_dropped(url: str) -> None:
    with RawClient(url) as client:
        client.start(Command("true", stdin=True))
        client.receive_until("exit_code")
        for _ in range(50):
            client.send({"type": "stdin"}, bytes(60_000))
        client.send({"type": "resize", "rows": 1, "cols": 1})
        client.send({"type": "signal", "signal": 15})
        client.send({"type": "taken", "stdout": 0})
        client.send({"type": "close_output", "stream": "stdout"})
        client.send(CLOSE_STDIN)
        client.ws.send_close(1000)
        client.receive_all()
        assert client.code == 1000


def test_the_exit_status_comes_after_all_output(url: str) -> None:
    with RawClient(url) as client:
        client.start(sh("(sleep 0.1; head -c 500000 /dev/zero) & exit 4"))
        sizes = 0
        while True:
            header, body = client.receive()
            if header["type"] == "exit_code":
                break
            sizes += len(body)
        assert header == {"type": "exit_code", "exit_code": 4, "error": "exit status 4"}
        assert sizes == 500_000


def test_the_exit_status_names_the_signal(url: str) -> None:
    with RawClient(url) as client:
        client.start(sh("kill -9 $$"))
        assert client.receive_until("exit_code") == {
            "type": "exit_code",
            "exit_code": -1,
            "error": "signal: killed",
            "signal": 9,
        }


def test_no_message_is_longer_than_the_limit(url: str) -> None:
    with RawClient(url) as client:
        client.start(sh("head -c 2000000 /dev/zero; head -c 2000000 /dev/zero >&2"))
        total = 0
        while True:
            _, data = client.ws.recv_data()
            assert len(data) <= 64_000
            header, _, body = data.partition(b"\n")
            if b"exit_code" in header:
                break
            total += len(body)
        assert total == 4_000_000


# Signals, marks


def test_a_signal_message(url: str) -> None:
    with RawClient(url) as client:
        client.start(Command("sleep", ["1000"]))
        client.send({"type": "signal", "signal": 10})
        assert client.receive_until("exit_code")["signal"] == 10


@pytest.mark.parametrize("number", [65, 1000, -1, "15", 1.5, True])
def test_a_signal_that_is_none(url: str, number: object) -> None:
    with RawClient(url) as client:
        pid = client.start(Command("sleep", ["1000"]))
        client.send({"type": "signal", "signal": number})
        client.receive_all()
        assert client.code == 1011
        assert "signal" in client.reason
        gone(pid)


def test_signal_0_is_harmless(url: str) -> None:
    with RawClient(url) as client:
        client.start(Command("cat", stdin=True))
        client.send({"type": "signal", "signal": 0})
        client.send({"type": "stdin"}, b"text")
        client.send(CLOSE_STDIN)
        headers, out, _ = client.receive_all("exit_code")
        assert out == b"text"
        assert headers[-1]["exit_code"] == 0


# Execers


class Recording(Execer):
    """Runs commands here, and keeps a record of what becomes of it."""

    def __init__(self, record: list[str]) -> None:
        self.record = record
        self.local = LocalExecer()

    def start(self, command: Command) -> Process:
        self.record.append("start")
        return self.local.start(command)

    def close(self) -> None:
        self.record.append("close")


def test_a_factory_makes_an_execer_for_each_connection() -> None:
    record: list[str] = []
    with MemoryExecer(lambda: Recording(record)) as execer:
        for _ in range(2):
            with execer.start(Command("true")) as started:
                started.wait(SECONDS)
        with pytest.raises(StartError):
            execer.start(Command("/no/such/command"))
    assert sorted(record) == ["close"] * 3 + ["start"] * 3
    assert record[-1] == "close"


def test_an_execer_is_not_closed() -> None:
    record: list[str] = []
    with MemoryExecer(Recording(record)) as execer:
        for _ in range(2):
            with execer.start(Command("true")) as started:
                started.wait(SECONDS)
    assert record == ["start"] * 2


def test_a_factory_that_fails() -> None:
    def fail() -> Execer:
        raise ConnectError("ws://back", "nobody there")

    with listening(fail) as listener, RawClient(listener.url) as client:
        client.send(start_message(Command("true")))
        client.receive_all()
        assert client.code == 1011
        assert "nobody there" in client.reason


def test_a_factory_with_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Execer:
        raise ZeroDivisionError("a secret")

    with listening(fail) as listener, RawClient(listener.url) as client:
        client.send(start_message(Command("true")))
        client.receive_all()
        assert (client.code, client.reason) == (1011, "internal error")
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()  # the traceback's frames hold the connection


def test_a_server_further_on_that_goes_away() -> None:
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(listening(lambda: connect(back.url)))
        with listening() as back:
            client = stack.enter_context(RawClient(front.url))
            client.start(Command("sleep", ["1000"]))
        client.receive_all()
        assert client.code == 1011
        assert "no exit status" in client.reason
        # And one that isn't there from the beginning.
        with RawClient(front.url) as other:
            other.send(start_message(Command("true")))
            other.receive_all()
            assert other.code == 1011
            assert "cannot connect" in other.reason


def test_a_start_that_fails_further_on(url: str) -> None:
    with RawClient(url) as client:
        client.send(start_message(Command("/no/such/command")))
        client.receive_all()
        assert client.code == 1011
        assert "no such file or directory" in client.reason


# serve


@contextlib.contextmanager
def served(execer: Any = None, options: Options | None = None) -> Iterator[tuple[Any, Any, Task]]:
    """The client's end, the server's end, and serve() in a task."""
    client, conn = memory_pair()
    with Task(Server().serve, conn, execer or LocalExecer(), options) as serving:
        try:
            yield client, conn, serving
        finally:
            client.abort()


def test_serve_leaves_closing_to_its_caller(short_close_wait: None) -> None:
    with served() as (client, conn, serving):
        client.send(start_message(Command("true")))
        assert b'"pid"' in client.receive()
        assert b'"exit_code"' in client.receive()
        assert serving.result() is None
        conn.send(b"still open")
        assert client.receive() == b"still open"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"no json", 1011),
        (b'{"type":"stdin"}\ntext', 1011),
        (start_message(command=""), 1011),
        (start_message(command="/no/such/command"), 1011),
        (b" " * 64_001, 1009),
    ],
)
def test_serve_raises_what_it_refuses(message: bytes, code: int) -> None:
    with served() as (client, conn, serving):
        client.send(message)
        with pytest.raises(ProtocolError) as caught:
            serving.result()
        assert caught.value.close_code == code
        assert str(caught.value)
        conn.send(b"still open")
        assert client.receive() == b"still open"


def test_serve_tells_why_a_start_failed() -> None:
    with served() as (client, _, serving):
        client.send(start_message(command="/no/such/command"))
        with pytest.raises(ProtocolError) as caught:
            serving.result()
        assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_serve_raises_nothing_when_the_client_goes() -> None:
    for end in (lambda client: client.abort(), lambda client: client.close(1001, "away")):
        with served() as (client, _, serving):
            client.send(start_message(Command("sleep", ["1000"])))
            client.receive()
            end(client)
            assert serving.result() is None


def test_serve_returns_when_the_client_goes_before_it_starts_anything() -> None:
    with served() as (client, _, serving):
        client.close()
        assert serving.result() is None


def test_serve_ends_the_command_of_a_client_that_breaks_the_rules() -> None:
    with served() as (client, _, serving):
        client.send(start_message(Command("sleep", ["1000"])))
        pid = int(client.receive().split(b'"pid":')[1].split(b",")[0])
        client.send(start_message(Command("true")))
        with pytest.raises(ProtocolError, match="already started"):
            serving.result()
        gone(pid)


def test_many_connections_at_once(url: str) -> None:
    ready = threading.Barrier(16)

    def one(number: int) -> None:
        with RawClient(url) as client:
            pid = client.start(sh("read x; echo $x; exit $1", str(number), stdin=True))
            ready.wait(SECONDS)
            if number % 4 == 0:
                client.reset()
                gone(pid)
            else:
                client.send({"type": "stdin"}, b"%d\n" % number)
                assert client.receive()[1] == b"%d\n" % number
                assert client.receive_until("exit_code")["exit_code"] == number

    for task in [Task(one, number) for number in range(1, 17)]:
        task.result()


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
    receive = conn.receive

    def receive_late() -> bytes:
        try:
            return receive()
        except TimeoutError:
            if server.closed:
                eventually(
                    lambda: all(thread.name != "wsep-output" for thread in threading.enumerate()),
                    "the end of the session's output",
                )
            raise

    conn.receive = receive_late  # type: ignore[method-assign]
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
