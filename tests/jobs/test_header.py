"""Wsep-Session-Id, by which a proxy finds a session: what is said on the wire, and when."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from helpers import Task, listening
from peers import BINARY, RawPeer, accept_raw, listening_socket, read_head
from programs import run

from wsep_sync import Command, Popen, connect, spawn
from wsep_sync.execers.remote.execer import session_headers

PID = b'{"type":"pid","pid":7}\n'
EXIT_0 = b'{"type":"exit_code","exit_code":0,"error":""}\n'

SESSION = Command("any", tty=True, id="work")
PLAIN = Command("any")

NOT_SAID = "not said"


class HandMade:
    """A server by hand, whose commands end at once.

    Attributes:
        url: Where it is.
        connected: The header of each connection, in the order in which they came.
        started: Those of the connections over which a command was started.
    """

    def __init__(self, listening: socket.socket) -> None:
        self.url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        self.connected: list[str] = []
        self.started: list[str] = []
        self._listening = listening
        self._threads: list[threading.Thread] = []

    def accept(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                peer = accept_raw(self._listening)
                said = peer.headers.get("wsep-session-id", NOT_SAID)
                self.connected.append(said)
                thread = threading.Thread(target=self._serve, args=(peer, said), name="test-peer")
                self._threads.append(thread)
                thread.start()
        for thread in self._threads:
            thread.join()

    def _serve(self, peer: RawPeer, said: str) -> None:
        with peer, contextlib.suppress(EOFError):
            if peer.receive().opcode == BINARY:
                self.started.append(said)
                peer.send(BINARY, PID)
                peer.send(BINARY, EXIT_0)
            peer.send_close()


@pytest.fixture
def server() -> Iterator[HandMade]:
    with listening_socket() as listening:
        server = HandMade(listening)
        with Task(server.accept):
            yield server
            listening.shutdown(socket.SHUT_RDWR)


def test_a_connection_for_nothing_in_particular(server: HandMade) -> None:
    with connect(server.url) as execer, execer.start(PLAIN) as process:
        process.wait()
    assert server.connected == server.started == [NOT_SAID]


def test_a_connection_for_a_session(server: HandMade) -> None:
    with connect(server.url, session_id="work") as execer, execer.start(SESSION) as process:
        process.wait()
    assert server.connected == server.started == ["work"]


def test_every_connection_is_for_its_command(server: HandMade) -> None:
    other = Command("any", tty=True, id="other")
    with connect(server.url) as execer:
        for command in (SESSION, other, PLAIN, SESSION, PLAIN):
            execer.start(command).wait()
    assert server.started == ["work", "other", NOT_SAID, "work", NOT_SAID]
    # The first one was for none of them.
    assert server.connected == [NOT_SAID, *server.started]


def test_a_session_first(server: HandMade) -> None:
    with connect(server.url, session_id="work") as execer:
        for command in (PLAIN, SESSION):
            execer.start(command).wait()
    assert server.started == [NOT_SAID, "work"]
    assert server.connected == ["work", NOT_SAID, "work"]


def test_the_faces_of_others(server: HandMade) -> None:
    with Popen("any", url=server.url, tty=True, id="work") as process:
        process.wait()
    with spawn("any", url=server.url, id="other") as child:
        child.wait()
    assert server.connected == server.started == ["work", "other"]


def test_the_command_line(server: HandMade) -> None:
    assert run("tty", "--url", server.url, "--id", "my work", "--", "any").returncode == 0
    assert run("notty", "--url", server.url, "--", "any").returncode == 0
    assert server.connected == server.started == ["my%20work", NOT_SAID]


def test_the_command_that_ends_a_session() -> None:
    heads: list[str] = []

    def answer(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock:
            heads.append(read_head(sock)[0])
            sock.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    with listening_socket() as listening, Task(answer, listening):
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        assert run("kill", "--url", url, "my work").returncode == 0
    lines = heads[0].split("\r\n")
    assert lines[0] == "DELETE /sessions/my%20work HTTP/1.1"
    assert "Wsep-Session-Id: my%20work" in lines


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("work", "work"),
        ('/a?b=c&d:e;f,g"h\\i', '/a?b=c&d:e;f,g"h\\i'),
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("x\r\nSet-Cookie: y", "x%0D%0ASet-Cookie:%20y"),
        ("\t\x1b\x7f", "%09%1B%7F"),
        ("käse", "k%C3%A4se"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
    ],
)
def test_what_is_said_of_an_id(server: HandMade, id: str, said: str) -> None:
    assert unquote(said) == id
    with connect(server.url, session_id=id) as execer:
        execer.start(Command("any", tty=True, id=id)).wait()
    assert server.connected == server.started == [said]


def test_what_is_said_of_an_id_that_is_not_utf_8() -> None:
    (one, other) = (session_headers(os.fsdecode(name)) for name in (b"\xff", b"\xfe"))
    assert one != other
    assert all(0x21 <= ord(character) <= 0x7E for character in one["Wsep-Session-Id"])


def test_a_long_id() -> None:
    # A header as long as this would be refused.
    command = Command("cat", tty=True, id="ä" * 1000)
    with listening(max_head=4096) as listener, connect(listener.url) as execer:
        with execer.start(command) as process:
            assert not process.reattached
        with execer.start(command) as process:
            assert process.reattached
            process.kill()
