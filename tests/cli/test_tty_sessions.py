"""`wsep-sync tty`: sessions that are left, cut off, and come back to."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SECONDS, alive, eventually, listening, scripted, serving
from parts import need
from programs import WSEP_SYNC, Relay, environment, run, server_process
from terminal_judges import shown_by_pyte, too_long_for_some
from terminal_windows import BASH, COLUMNS, ROWS, Outer, bash, text, typed

from wsep_sync import Server
from wsep_sync.protocol.messages import FEATURES, Pid
from wsep_sync.transports.base import Transport
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import UPGRADED

# Sessions


def test_leaving_a_session_and_coming_back(server: str) -> None:
    with bash("--url", server, "--id", "s") as outer:
        typed(outer, "kept=so; echo ou$((0))put", "ou0put")
        outer.send("~.")
        outer.expect_exact("left session s")
        assert outer.end() == 0
    with Outer("tty", "--url", server, "--id", "s", "--", *BASH) as outer:
        outer.expect_exact("ou0put\r\n")
        outer.expect_exact("$ ")
        typed(outer, "echo $kept", "so\r\n")
        outer.sendline("exit 6")
        assert outer.end() == 6


def test_leaving_a_session_that_floods(server: str) -> None:
    with Outer("tty", "--url", server, "--id", "s", "--", "yes", "flood") as outer:
        outer.expect_exact("flood\r\n" * 100)
        outer.send("~.")
        assert outer.end() == 0


def test_a_signal_leaves_a_session(server: str) -> None:
    with bash("--url", server, "--id", "s") as outer:
        outer.sendline("echo pid $$")
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        outer.process.send_signal(signal.SIGTERM)
        assert outer.end() == 128 + signal.SIGTERM
        assert alive(pid)


def test_no_modes_stay_after_leaving_vim(server: str, tmp_path: Path) -> None:
    need("vim")
    path = tmp_path / "file"
    path.write_text("text in the file\n")
    with bash("--url", server, "--id", "s") as outer:
        # Mouse, bracketed paste, focus events, and a region that scrolls.
        outer.sendline(f"vim -u NONE -N -c 'set mouse=a ttymouse=sgr | split' {path}")
        shown = outer.wait_until_shown(
            lambda rows: rows.count("text in the file") == 2, "the file, twice"
        )
        assert shown.in_alt
        outer.send("\r~.")
        outer.expect_exact("left session s")
        assert outer.end() == 0
        after, new = outer.shown(), shown_by_pyte(b"", ROWS, COLUMNS)
        assert not after.in_alt
        assert after.modes == new.modes
        assert after.margins == new.margins
        assert private_modes(outer.output.getvalue()) <= {7, 25}
        assert too_long_for_some(outer.output.getvalue()) == []
        assert "text in the file" not in text(after)
        assert any("vim -u NONE" in row for row in text(after))


def test_modes_that_are_set_together_do_not_stay(server: str) -> None:
    script = r"printf '\033[?1049;6h\033[?2004;6;1000hready'; exec cat"
    with Outer("tty", "--url", server, "--id", "s", "--", "sh", "-c", script) as outer:
        outer.expect_exact("ready")
        outer.send("\r~.")
        assert outer.end() == 0
        assert private_modes(outer.output.getvalue()) <= {7, 25}


def private_modes(data: bytes) -> set[int]:
    """The private modes that are set at the end, those which pyte does not know included."""
    modes = set()
    for numbers, action in re.findall(rb"\x1b\[\?([0-9;]+)([hl])", data):
        for number in map(int, numbers.split(b";")):
            (modes.add if action == b"h" else modes.discard)(number)
    return modes


def test_the_same_shell_after_the_connection_was_cut(server: str) -> None:
    with Relay(server) as relay, bash("--url", relay.url, "--id", "s") as outer:
        typed(outer, "kept=so; echo ou$((0))put", "ou0put")
        relay.cut()
        outer.expect_exact("connection lost, attempt 1 in 0.5 s")
        # Redrawn, not repeated: the line about the connection is gone.
        shown = outer.wait_until_shown(
            lambda rows: rows[2:4] == ["$", ""] and rows[1] == "ou0put", "the redraw"
        )
        assert not any("connection" in row for row in text(shown))
        outer.expect_exact("$ ")
        typed(outer, "echo $kept", "so\r\n")
        outer.set_size(30, 90)
        outer.wait_until_shown(lambda rows: True, "anything")
        eventually(lambda: size_there(outer) == "30 90", "the new size")
        outer.sendline("exit 7")
        assert outer.end() == 7


def test_who_comes_back_has_the_size_of_now() -> None:
    # Not that of the start, for a moment: what is shown would be drawn for that.
    firsts: list[dict[str, Any]] = []

    def serve(conn: Transport) -> None:
        firsts.append(json.loads(conn.receive()))
        conn.send(Pid(1, FEATURES).encode())
        if len(firsts) == 1:
            conn.send(b'{"type":"stdout"}\nrunning')
            while json.loads(bytes(conn.receive()).partition(b"\n")[0])["type"] != "resize":
                pass
            conn.abort()
        else:
            conn.send(b'{"type":"exit_code","exit_code":7}\n')

    with scripted(serve) as url, bash_at(url) as outer:
        outer.expect_exact("running")
        outer.set_size(30, 100)
        assert outer.end() == 7
    start, attach = firsts
    assert (start["command"]["rows"], start["command"]["cols"]) == (ROWS, COLUMNS)
    assert attach["type"] == "attach"
    assert (attach["rows"], attach["cols"]) == (30, 100)


def size_there(outer: Outer) -> str:
    outer.sendline("stty size")
    outer.expect(r"(\d+ \d+)\r\n")
    return outer.match[1].decode()


def test_attempts_are_told_on_one_line_until_ctrl_c(server: str) -> None:
    with Relay(server) as relay, bash("--url", relay.url, "--id", "s") as outer:
        outer.sendline("echo pid $$")
        outer.expect(r"pid (\d+)\r\n")
        pid = int(outer.match[1])
        relay.cut(refuse=True)
        for attempt, pause in ((1, "0.5"), (2, "1"), (3, "2")):
            outer.expect_exact(f"connection lost, attempt {attempt} in {pause} s")
        assert relay.accepted == 3
        assert sum("connection lost" in row for row in text(outer.shown())) == 1
        outer.send("not typed to anybody\r")
        outer.press("c")
        assert outer.end() == 128 + signal.SIGINT
        assert alive(pid)


@pytest.mark.parametrize("hangs", [False, True], ids=["between attempts", "in an attempt"])
def test_a_session_is_left_while_its_connection_is_lost(server: str, hangs: bool) -> None:
    options = ["--id", "s", "--timeout", "1000"]
    with Relay(server) as relay, bash("--url", relay.url, *options) as outer:
        outer.send("half a line")
        outer.expect_exact("half a line")
        relay.cut(refuse=True)
        outer.expect_exact("attempt 2")
        if hangs:
            relay.hang()
            eventually(lambda: relay.accepted == 3, "the attempt")
        outer.send("~.")
        outer.expect_exact("left session s")
        assert outer.end() == 0


def test_ctrl_c_while_an_attempt_hangs(server: str) -> None:
    options = ["--id", "s", "--timeout", "1000"]
    with Relay(server) as relay, bash("--url", relay.url, *options) as outer:
        relay.cut(refuse=True)
        outer.expect_exact("attempt 2")
        relay.hang()
        eventually(lambda: relay.accepted == 3, "the attempt")
        outer.press("c")
        assert outer.end() == 128 + signal.SIGINT


def test_a_session_that_went_with_its_server() -> None:
    with server_process() as (url, server), bash("--url", url, "--id", "s") as outer:
        typed(outer, "gone=so; echo ou$((0))put", "ou0put")
        server.process.kill()
        server.process.wait()
        outer.expect_exact("connection lost, attempt 1")
        port = url.rpartition(":")[2]
        with server_process_on(port):
            outer.expect_exact("session s is gone, and how its command ended is not known")
            assert outer.end() == 255
            assert run("sessions", "--url", url).stdout == b""


def test_no_command_runs_twice(tmp_path: Path) -> None:
    log = tmp_path / "deployed"
    server = Server()
    script = f"echo deployed >>{log}; echo running; exec sleep 1000"
    with (
        listening(server=server) as listener,
        Relay(listener.url) as relay,
        Outer("tty", "--url", relay.url, "--id", "s", "--", "sh", "-c", script) as outer,
    ):
        outer.expect_exact("running")
        relay.cut(refuse=True)
        outer.expect_exact("attempt 2")
        server.close_session("s")
        relay.accept_again()
        outer.expect_exact("session s is gone")
        assert outer.end() == 255
        assert server.session_count() == 0
        server.close()
    assert log.read_text() == "deployed\n"


def test_a_server_that_cannot_attach_without_starting() -> None:
    # As the reference, which would start the command again if it has ended.
    starts = []

    def serve(conn: Transport) -> None:
        starts.append(bytes(conn.receive()))
        conn.send(b'{"type":"pid","pid":1}\n')
        conn.send(b'{"type":"stdout"}\nrunning')
        conn.abort()

    with scripted(serve) as url, bash_at(url) as outer:
        outer.expect_exact("running")
        outer.expect_exact("whether session s goes on is not known")
        assert outer.end() == 255
    assert len(starts) == 1
    assert b"started anew" not in outer.output.getvalue()


@contextlib.contextmanager
def bash_at(url: str) -> Iterator[Outer]:
    with Outer("tty", "--url", url, "--id", "s", "--", *BASH) as outer:
        yield outer


def answering(*answers: str) -> Any:
    """An application that cuts its first WebSocket, and then answers with these."""
    rest = ["", *answers]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        status = rest.pop(0)
        if not status:
            environ[UPGRADED] = True
            transport = accept_websocket(environ)
            transport.receive()
            transport.send(Pid(1, FEATURES).encode())
            transport.abort()
            return []
        if status == "1011":
            environ[UPGRADED] = True
            transport = accept_websocket(environ)
            transport.receive()
            transport.close(1011, "enough sessions")
            return []
        start_response(status, [("Content-Length", "9")])
        return [b"no entry\n"]

    return app


@pytest.mark.parametrize(
    "answer", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "302 Found", "200 OK", "1011"]
)
def test_a_refusal_is_no_lost_connection(answer: str) -> None:
    with serving(Listener(answering(answer))) as listener, bash_at(listener.url) as outer:
        outer.expect_exact("connection lost, attempt 1")
        assert outer.end() == 255
        # The last line may have been wrapped.
        last = [row for row in "".join(text(outer.shown())).split("wsep-sync: ") if row][-1]
        assert ("enough sessions" if answer == "1011" else f"HTTP {answer[:3]}") in last
        assert b"attempt 2" not in outer.output.getvalue()


def test_a_server_that_will_come_back_is_waited_for() -> None:
    answers = ["503 Service Unavailable", "502 Bad Gateway", "401 Unauthorized"]
    with serving(Listener(answering(*answers))) as listener, bash_at(listener.url) as outer:
        outer.expect_exact("attempt 2 in 1 s (Ctrl-C ends): HTTP 503")
        outer.expect_exact("attempt 3 in 2 s (Ctrl-C ends): HTTP 502")
        outer.expect_exact("HTTP 401")
        assert outer.end() == 255


@contextlib.contextmanager
def server_process_on(port: str) -> Iterator[None]:
    with subprocess.Popen(
        [*WSEP_SYNC, "serve", "--port", port], stdout=subprocess.PIPE, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening")
            yield
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_no_reconnect(server: str) -> None:
    with (
        Relay(server) as relay,
        bash("--url", relay.url, "--id", "s", "--no-reconnect") as outer,
    ):
        relay.cut()
        assert outer.end() == 255
        outer.read_now()
        rows = [row for row in text(outer.shown()) if row]
        assert any(row.startswith("wsep-sync: no exit status") for row in rows)
        assert relay.accepted == 1
