"""What is logged, as a server's operator reads it."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SECONDS, RawClient, eventually, listening, scripted, serving, sh, start_message

from wsep_sync import (
    Command,
    ExitError,
    ExitMissing,
    Options,
    Process,
    ProtocolError,
    RestrictedExecer,
    Server,
    StartError,
    connect,
)
from wsep_sync.execers.local.execer import LocalExecer
from wsep_sync.log import JSONFormatter, TextFormatter, log, log_event
from wsep_sync.protocol.messages import Pid, decode_client_message, decode_server_message
from wsep_sync.transports.base import Transport
from wsep_sync.web.access import Access
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """The records of the package, from INFO on."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    former = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)
    log.setLevel(former)


def events(records: list[logging.LogRecord], count: int) -> list[tuple[str, dict[str, object]]]:
    """Wait for that many events; return each one's name and fields."""

    def found() -> list[tuple[str, dict[str, object]]]:
        return [
            (record.event, record.fields)  # type: ignore[attr-defined]
            for record in list(records)
            if hasattr(record, "event")
        ]

    eventually(lambda: len(found()) >= count, "the events")
    assert len(found()) == count
    return found()


def test_a_command(records: list[logging.LogRecord]) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        port = client.ws.sock.getsockname()[1]
        pid = client.start(sh("cat; echo oops >&2; exit 3", stdin=True))
        client.send({"type": "stdin"}, b"12345")
        client.send({"type": "close_stdin"})
        client.receive_all("exit_code")
        client.ws.send_close()
        client.receive_all()
        start, end = events(records, 2)
    common = {"peer": f"127.0.0.1:{port}", "pid": pid, "command": "sh"}
    assert start == ("start", common)
    seconds = end[1].pop("seconds")
    assert isinstance(seconds, float)
    assert 0 <= seconds < SECONDS
    assert end == ("exit", {**common, "stdin": 5, "stdout": 5, "stderr": 5, "exit": 3})


def test_a_signal(records: list[logging.LogRecord]) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.start(sh("kill -9 $$"))
        client.receive_all("exit_code")
        client.ws.send_close()
        client.receive_all()
        name, fields = events(records, 2)[1]
    assert (name, fields["exit"], fields["signal"]) == ("exit", -1, 9)


def test_a_session(records: list[logging.LogRecord]) -> None:
    server = Server()
    command = Command("cat", tty=True, id="s")
    with listening(server=server) as listener, connect(listener.url) as execer:
        with execer.start(command) as one:
            with execer.start(command) as other:
                assert other.reattached
                assert other.pid == one.pid
            attach = events(records, 3)
        assert [name for name, _ in attach] == ["start", "attach", "leave"]
        assert [fields["id"] for _, fields in attach] == ["s", "s", "s"]
        assert "exit" not in attach[2][1]
        server.close()
        fields = dict(events(records, 5))["end"]
    assert fields.pop("seconds") >= 0  # type: ignore[operator]
    expected = {"id": "s", "pid": one.pid, "command": "cat", "exit": -1, "signal": 1}
    assert fields == {**expected, "reason": "the server ends"}


def test_the_clock_is_put_back(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    now = time.time
    with listening(server=server) as listener, connect(listener.url) as execer:
        with execer.start(sh("read line", tty=True, id="s")) as process:
            # Only root may put the real one back, and for the whole machine.
            monkeypatch.setattr(time, "time", lambda: now() - 3600)
            process.stdin.write(b"on\n")
            process.stdin.flush()
            process.wait(SECONDS)
        found = dict(events(records, 3))
    for event in ("end", "exit"):
        seconds = found[event]["seconds"]
        assert isinstance(seconds, float)
        assert 0 <= seconds < SECONDS, event


def test_a_session_that_ends_by_itself(records: list[logging.LogRecord]) -> None:
    server = Server()
    with listening(server=server) as listener, connect(listener.url) as execer:
        with execer.start(sh("read line; exit 3", tty=True, id="s")) as process:
            process.stdin.write(b"on\n")
            process.stdin.flush()
            with pytest.raises(ExitError):
                process.wait(SECONDS)
        found = dict(events(records, 3))
    assert sorted(found) == ["end", "exit", "start"]
    assert (found["end"]["exit"], found["exit"]["exit"]) == (3, 3)
    assert "reason" not in found["end"]


def test_a_command_whose_client_goes(records: list[logging.LogRecord]) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.start(Command("cat", stdin=True))
        client.reset()
        name, fields = events(records, 2)[1]
    assert (name, fields["reason"]) == ("exit", "the connection ended")
    assert "exit" not in fields


def test_a_refusal(records: list[logging.LogRecord]) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.send(b'{"type":"start","command":{"command":"/no/such/command"}}')
        client.receive_all()
        ((name, fields),) = events(records, 1)
    assert name == "refusal"
    assert "no such file or directory" in str(fields["reason"])
    assert records[0].levelno == logging.WARNING


def test_a_refusal_before_the_upgrade(records: list[logging.LogRecord]) -> None:
    app = application(Server(), LocalExecer(), access=Access("s3cret"))
    with serving(Listener(app)) as listener:
        with pytest.raises(ConnectionError, match="401"):
            connect(listener.url, token="wr0ng")
        ((name, fields),) = events(records, 1)
    assert (name, fields["status"]) == ("refusal", "401")
    assert str(fields["peer"]).startswith("127.0.0.1")
    assert not [r for r in records if "wr0ng" in r.getMessage() or "s3cret" in r.getMessage()]


@pytest.mark.parametrize("wanted", [False, True])
def test_arguments_and_environment(records: list[logging.LogRecord], wanted: bool) -> None:
    options = Options(log_arguments=wanted)
    with (
        serving(Listener(application(Server(), LocalExecer(), options))) as listener,
        RawClient(listener.url) as client,
    ):
        client.start(Command("echo", ["argu ment"], env=["VARIABLE=value"]))
        client.receive_all("exit_code")
        client.ws.send_close()
        client.receive_all()
        events(records, 2)
    text = "\n".join(record.getMessage() for record in records)
    assert ("argu ment" in text) is wanted
    assert "VARIABLE" not in text


# What a secret may be wrapped in that went into the wrong field.
SECRET = "hunter2-4711"
WRONG: list[Any] = [
    SECRET,
    f"{SECRET}\0",
    [SECRET],
    [f"{SECRET}\0"],
    [[SECRET]],
    [{SECRET: SECRET}],
    {SECRET: [SECRET]},
    47114711471147114711,
    -4711471147,
    4711.4711,
    True,
]
# What is right, or named in any case: what is to run, and where.
NAMED = {("command", SECRET), ("working_dir", SECRET), ("id", SECRET)}


def wrong_messages(of: str) -> Iterator[bytes]:
    """Messages to one side with each field wrong in each way, and what is no message."""
    fields = {
        "client": {
            "start": "command args stdin tty rows cols uid gid env working_dir id",
            "attach": "id rows cols",
            "resize": "rows cols",
            "signal": "signal",
            "taken": "stdout stderr window",
            "close_output": "stream",
        },
        "server": {
            "pid": "pid features",
            "exit_code": "exit_code error signal",
            "ended": "exit_code error signal",
            "taken": "stdin closed",
        },
    }[of]
    for type, names in fields.items():
        for name in names.split():
            for value in WRONG:
                if isinstance(value, str) and (name, value) in NAMED:
                    continue
                if name in ("args", "env", "features") and value == [SECRET]:
                    continue  # that is right
                header: dict[str, Any] = {"type": type, name: value}
                if type == "start":
                    header = {"type": type, "command": {"command": "true", name: value}}
                    if name == "id":
                        header = {"type": type, "id": value, "command": {"command": "true"}}
                yield json.dumps(header).encode()
    for text in ('{"type":"%s', '{"type":["%s"]}', '"%s"', '["%s"]', "%s", '{"type":"start"}\n%s'):
        yield (text % SECRET).encode()
    yield b'{"type":"start","command":"%s"}' % SECRET.encode()
    yield b'{"type":"\xff%s"}' % SECRET.encode()
    yield b"[" * 60_000


def quoted(text: str) -> bool:
    return SECRET in text or "4711" in text


@pytest.mark.parametrize("of", ["client", "server"])
def test_no_refusal_of_a_message_quotes_it(of: str) -> None:
    decode: Callable[[bytes], Any] = {
        "client": decode_client_message,
        "server": decode_server_message,
    }[of]
    refusals = []
    for message in wrong_messages(of):
        try:
            decode(message)
        except ProtocolError as error:
            refusals.append(str(error))
    assert len(refusals) > 50 if of == "client" else 20
    for refusal in refusals:
        assert not quoted(refusal), refusal
        assert len(refusal) < 123


def test_no_log_line_quotes_what_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, log.name)
    with listening() as listener:
        # One of each field: all are tried above.
        for message in list(wrong_messages("client"))[::7]:
            with RawClient(listener.url) as client:
                client.send(message)
                client.receive_all("pid")
                assert client.code in (None, 1011), message
                assert not quoted(client.reason), client.reason
        for name in ("Host", "Origin", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
            heads = {
                "Host": f"127.0.0.1:{listener.server_port}",
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Version": "13",
                name: f"{SECRET} \xff",
            }
            lines = [f"GET /{SECRET}?{SECRET} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in heads.items()]
            with socket.create_connection(("127.0.0.1", listener.server_port), SECONDS) as sock:
                sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
                assert sock.recv(4096).startswith(b"HTTP/1.1 4"), name
        for head in (f"{SECRET}\r\n\r\n", f"GET / HTTP/1.1\r\n{SECRET} x\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", listener.server_port), SECONDS) as sock:
                sock.sendall(head.encode())
                assert sock.recv(4096).startswith(b"HTTP/1.1 4")
    assert "refusal" in caplog.text
    for line in caplog.text.splitlines():
        assert SECRET not in line, line


def test_no_line_of_a_client_quotes_its_server() -> None:
    messages = [b"%b\n" % message for message in wrong_messages("server")][::5]
    errors = []

    def serve(conn: Transport) -> None:
        conn.receive()
        message = messages.pop()
        if b'"pid"' not in message:
            conn.send(Pid(1).encode())
        conn.send(message)
        conn.close()

    with scripted(serve) as url:
        while messages:
            try:
                with connect(url) as execer, execer.start(Command("x")) as process:
                    process.wait(SECONDS)
            except (StartError, ExitMissing) as error:
                errors.append(str(error))
            except ExitError:
                pass  # a status that was as it should be
    assert errors
    assert not any(map(quoted, errors)), errors


def test_an_error_that_nobody_foresaw_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(LocalExecer):
        def start(self, command: Command) -> Process:
            raise LookupError(f"what nobody foresaw: {command.env}")

    def break_down(command: Command) -> Command:
        raise LookupError(f"what nobody foresaw: {command.env}")

    start = start_message(Command("true", env=[f"TOKEN={SECRET}"]))
    for execer in (Broken(), RestrictedExecer(LocalExecer(), break_down)):
        for level, traceback in ((logging.INFO, False), (logging.DEBUG, True)):
            caplog.clear()
            caplog.set_level(level, log.name)
            with listening(execer) as listener, RawClient(listener.url) as client:
                client.send(start)
                client.receive_all()
                assert client.reason.endswith("internal error")
            lines = [record.getMessage() for record in caplog.records if record.levelno > level]
            assert any("LookupError" in line for line in lines)
            assert not any(SECRET in line for line in lines)
            assert ("Traceback" in caplog.text) is traceback
            caplog.clear()  # the traceback holds the connection


def test_lines(records: list[logging.LogRecord]) -> None:
    command = "a b\n\x1b]0;t\x07"
    log_event(logging.INFO, "start", id="", pid=7, command=command, args=["x"], share=0.5)
    (record,) = records
    line = TextFormatter().format(record)
    assert line.isprintable()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO start pid=7 "
        r'command="a b\\n\\u001b\]0;t\\u0007" args=\["x"\] share=0\.500',
        line,
    )
    entry = json.loads(JSONFormatter().format(record))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "event": "start",
        "pid": 7,
        "command": command,
        "args": ["x"],
        "share": 0.5,
    }


def test_an_exception(records: list[logging.LogRecord]) -> None:
    try:
        raise RuntimeError("what went wrong")
    except RuntimeError:
        log.exception("internal error")
    (record,) = records
    assert "RuntimeError: what went wrong" in TextFormatter().format(record)
    line = JSONFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("error", "internal error")
    assert "RuntimeError: what went wrong" in entry["exception"]
