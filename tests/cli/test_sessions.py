"""The command line: `sessions` and `kill`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from command_lines import STAYING, tcp_server
from helpers import alive, listening, serving
from programs import environment, has_one_line, run

from wsep_sync import Command, LocalExecer, Server, connect
from wsep_sync.jobs.options import SessionInfo
from wsep_sync.jobs.session import Session
from wsep_sync.web.listener import Listener

# sessions and kill


@contextlib.contextmanager
def session(url: str, id: str, *command: str) -> Iterator[int]:
    words = command or ("sh", "-c", STAYING)
    with connect(url) as execer:
        start = Command(words[0], words[1:], tty=True, id=id, rows=24, cols=80)
        with execer.start(start) as process:
            process.stdout.read(1)  # it runs
            yield process.pid


@pytest.fixture
def sessions() -> Iterator[tuple[str, Server]]:
    """A server in this process: its URL, and itself."""
    server = Server()
    with listening(server=server) as listener:
        try:
            yield listener.url, server
        finally:
            server.close()


def test_sessions_are_listed_and_ended(sessions: tuple[str, Server]) -> None:
    url, _ = sessions
    done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with session(url, "one") as pid, session(url, "a/b c", "sh", "-c", "echo 'x y'; cat") as other:
        done = run("sessions", env=environment(WSEP_URL=url))
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode().splitlines() == [
            f"one\t{pid}\t24x80\t1 attached\tsh -c 'echo $$; exec sleep 1000'",
            f"a/b c\t{other}\t24x80\t1 attached\tsh -c 'echo '\"'\"'x y'\"'\"'; cat'",
        ]
        for id, victim in (("one", pid), ("a/b c", other)):
            assert alive(victim)
            done = run("kill", "--url", url, id)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            assert not alive(victim)
    done = run("kill", "--url", url, "one")
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "one", "no such session")


def test_a_session_whose_name_would_do_something_to_the_terminal(
    sessions: tuple[str, Server],
) -> None:
    url, _ = sessions
    with session(url, "a\x1b]0;title\x07\nb"):
        done = run("sessions", "--url", url)
        assert done.stdout.count(b"\n") == 1
        assert re.search(rb"[\x00-\x08\x0b-\x1f]", done.stdout) is None
        done = run("kill", "--url", url, "a\x1b]0;title\x07\nb")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_longest_list_that_a_server_makes() -> None:
    """As many sessions as there may be, with the longest names and command lines there are."""
    emoji = "\U0001f600"  # JSON has no character that takes more
    command = Command("echo", [emoji] * 5000, tty=True, id=emoji * 1024)
    longest = Session(command, LocalExecer())
    info = longest.info()
    longest.close()
    infos = [replace(info, id=info.id[:-4] + f"{n:04}") for n in range(1000)]

    class Full(Server):
        def sessions(self) -> list[SessionInfo]:
            return infos

    with listening(server=Full()) as listener:
        done = run("sessions", "--url", listener.url)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "no list of sessions"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n[{"a":1}', "no list of sessions"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\ngo\naway\n", "go away (HTTP 403)"),
    ],
)
def test_sessions_of_another_kind_of_server(answer: bytes, words: str) -> None:
    with tcp_server(answer) as url:
        done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, url, words)


def test_a_connection_that_breaks_while_sessions_are_asked_for() -> None:
    with tcp_server(b"") as url:
        done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout) == (255, b"")
    has_one_line(done.stderr, url)


def test_sessions_behind_a_path() -> None:
    asked: list[str] = []

    def app(environ: dict[str, str], start_response: Callable[..., object]) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"[]"]

    with serving(Listener(app)) as listener:  # type: ignore[arg-type]
        assert run("sessions", "--url", f"{listener.url}/there/").returncode == 0
    assert asked == ["/there/sessions"]


def test_a_proxy_is_used_as_by_the_others() -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    for arguments in (["sessions"], ["kill", "s"], ["notty", "true"]):
        with tcp_server(answer) as proxy:
            env = environment(http_proxy=proxy.replace("ws:", "http:"), no_proxy="")
            done = run(arguments[0], "--url", "ws://host.invalid", *arguments[1:], env=env)
            assert done.returncode == 255
            has_one_line(done.stderr, "ws://host.invalid", "the proxy answered HTTP 407")
