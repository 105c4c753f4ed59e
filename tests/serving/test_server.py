"""The server: commands, signals, execers, and serving one connection."""

from __future__ import annotations

import contextlib
import threading

import pytest
from helpers import SECONDS, MemoryExecer, RawClient, Task, gone, listening, sh, start_message
from served import served

from wsep_sync import (
    Command,
    ConnectError,
    Execer,
    LocalExecer,
    Process,
    ProtocolError,
    RemoteExecer,
    Server,
    StartError,
    connect,
    serve,
)
from wsep_sync.transports.memory import memory_pair

CLOSE_STDIN = {"type": "close_stdin"}


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


# How it is made


def test_a_server_of_less_than_no_sessions() -> None:
    with pytest.raises(ValueError, match="max_sessions"):
        Server(max_sessions=-1)


def test_serving_without_a_server_is_deprecated() -> None:
    client, conn = memory_pair()

    def use() -> bytes:
        with (
            RemoteExecer(client, timeout=SECONDS) as execer,
            execer.start(Command("echo", ["text"])) as process,
        ):
            return process.stdout.read()

    with Task(use) as using:
        with pytest.warns(DeprecationWarning, match=r"use Server\(\)\.serve"):
            serve(conn, LocalExecer())
        conn.close(1000)
        assert using.result() == b"text\n"
    conn.abort()
