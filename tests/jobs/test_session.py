"""Sessions: their states, attaching, sizes, and what is told about them."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from urllib.parse import quote

import pytest
from helpers import SECONDS, RawClient, Task, alive, blocked, eventually, gone, read_past
from session_clients import Client, Hub, attach_message, hub, session
from session_commands import STUBBORN, Gate, close_files, local_session, request, tty

from wsep_sync import Command, ExitError, LocalExecer, Server, StartError
from wsep_sync.errors import SessionClosed
from wsep_sync.jobs.options import State
from wsep_sync.jobs.session import Session
from wsep_sync.transports.memory import memory_pair

# States


def test_a_session_needs_a_terminal() -> None:
    with pytest.raises(ValueError, match="terminal"):
        Session(Command("true"), LocalExecer())


@pytest.mark.usefixtures("short_grace")
def test_states_only_move_forward() -> None:
    with local_session(tty(STUBBORN)) as session:
        seen = [session.state]
        with pytest.raises(TimeoutError, match="STARTING"):
            session.wait_for_state(State.READY, 0.01)
        client = session.attach()
        seen.append(session.state)
        read_past(client.stdout, b"ready")
        with Task(session.close, "test") as closing:
            seen.append(session.wait_for_state(State.CLOSING, SECONDS))
            with pytest.raises(SessionClosed):
                session.attach()
            # It is as far as any state before; and waits for one to come.
            assert session.wait_for_state(State.STARTING) is State.CLOSING
            seen.append(session.wait_for_state(State.DONE, SECONDS))
            closing.result()
        assert seen == [State.STARTING, State.READY, State.CLOSING, State.DONE]
        session.close()
        assert session.state is State.DONE
        with pytest.raises(SessionClosed):
            session.attach()
        with pytest.raises(ExitError, match="killed") as caught:
            session.wait()
        assert caught.value.signal == signal.SIGKILL
        with pytest.raises(ExitError):
            client.wait()
        close_files(client)


def test_a_session_that_ends_by_itself_is_done() -> None:
    with local_session(tty("exit 3")) as session:
        client = session.attach()
        assert session.wait_for_state(State.DONE, SECONDS) is State.DONE
        with pytest.raises(ExitError) as caught:
            session.wait()
        assert caught.value.exit_code == 3
        client.resize(10, 10)
        client.send_signal(signal.SIGTERM)
        client.kill()
        with pytest.raises(BrokenPipeError):
            client.stdin.raw.write(b"x")
        close_files(client)


def test_closed_before_it_began() -> None:
    session = Session(tty("exit 3"), LocalExecer())
    session.close()
    assert session.state is State.DONE
    with pytest.raises(SessionClosed):
        session.attach()


def test_closed_while_it_starts() -> None:
    execer = Gate()
    with local_session(tty("echo ready; exec sleep 1000"), execer=execer) as session:
        with Task(session.attach) as attaching:
            assert execer.asked.wait(SECONDS)
            with Task(session.close) as closing:
                blocked(closing)
                execer.opened.set()
                closing.result()
            client = attaching.result()
        assert session.state is State.DONE
        gone(client.pid)
        close_files(client)


def test_a_start_that_fails_is_told_to_everybody_who_waits() -> None:
    execer = Gate()
    with hub(execer) as sessions, contextlib.ExitStack() as stack:
        command = session("x", "/no/such/program")
        first = stack.enter_context(Task(sessions.start, command))
        assert execer.asked.wait(SECONDS)
        waiting = [stack.enter_context(Task(sessions.start, command)) for _ in range(5)]
        execer.opened.set()
        for task in [first, *waiting]:
            with pytest.raises(StartError) as caught:
                task.result()
            assert isinstance(caught.value, FileNotFoundError)
        assert sessions.server.session_count() == 0
        client = sessions.attach("x")
        assert not client.process.reattached


def test_without_an_id_or_a_terminal_it_is_a_plain_process(sessions: Hub) -> None:
    for command in (
        Command("sh", ["-c", "echo ready; exec sleep 1000"], tty=True, rows=24, cols=80),
        Command("sh", ["-c", "echo ready; exec sleep 1000"]),
    ):
        process = sessions.start(command)
        read_past(process.stdout, b"ready")
        assert sessions.server.session_count() == 0
        process.close()
        gone(process.pid)
        close_files(process)


# Attaching


def test_coming_back_finds_the_same_shell(sessions: Hub) -> None:
    first = sessions.attach("x")
    assert not first.process.reattached
    first.run(b"word=here; echo set$((1 + 1))", b"set2")
    first.leave()
    sessions.left()
    again = sessions.attach("x", "another", "command")
    assert again.process.reattached
    assert again.process.pid == first.process.pid
    again.run(b"echo $word$((1 + 1))", b"here2")
    assert sessions.server.session_count() == 1


def test_all_clients_see_and_type(sessions: Hub) -> None:
    clients = [sessions.attach("x") for _ in range(4)]
    for i, client in enumerate(clients):
        client.type(b"echo from$((%d + 0))\r" % i)
        for other in clients:
            other.until(b"from%d" % i)


@pytest.mark.parametrize("count", [2, 20])
def test_many_that_create_the_same_id_at_once_get_one_process(sessions: Hub, count: int) -> None:
    together = threading.Barrier(count)

    def attach() -> Client:
        together.wait(SECONDS)
        return sessions.attach("x")

    with contextlib.ExitStack() as stack:
        tasks = [stack.enter_context(Task(attach)) for _ in range(count)]
        clients = [task.result() for task in tasks]
    assert len({client.process.pid for client in clients}) == 1
    assert sorted(client.process.reattached for client in clients) == [False] + [True] * (count - 1)
    assert sessions.server.session_count() == 1
    clients[0].type(b"echo all$((1 + 1))\r")
    for client in clients:
        client.until(b"all2")


@pytest.mark.usefixtures("short_grace")
def test_an_id_whose_session_is_closing_waits_and_starts_anew(sessions: Hub) -> None:
    old = sessions.attach("x", "sh", "-c", STUBBORN)
    old.until(b"ready")
    with Task(sessions.server.close_session, "x") as closing:
        eventually(
            lambda: sessions.server._sessions["x"].state is State.CLOSING, "the session is closing"
        )
        new = sessions.attach("x")
        assert not alive(old.process.pid)
        assert closing.result()
    assert not new.process.reattached
    assert new.process.pid != old.process.pid
    assert old.exit_code() == -1
    new.run(b"echo new$((1 + 1))", b"new2")


def test_attaching_to_one_that_is_just_exiting_never_hangs(sessions: Hub) -> None:
    for round in range(20):
        first = sessions.attach("x", "sh", "-c", "echo ready; read line; exit 3")
        first.until(b"ready")
        together = threading.Barrier(2)

        def attach(together: threading.Barrier = together) -> Client:
            together.wait(SECONDS)
            return sessions.attach("x", "sh", "-c", "exit 4")

        with Task(attach) as attaching:
            together.wait(SECONDS)
            if round % 2:
                first.process.kill()
            else:
                first.type(b"\r")
            second = attaching.result()
        same = second.process.pid == first.process.pid
        assert second.process.reattached == same
        assert first.exit_code() == (-1 if round % 2 else 3)
        assert second.exit_code() == (first.exit_code() if same else 4)
        second.ended()
        assert sessions.server.session_count() == 0


@pytest.mark.parametrize("how", ["hang_up", "reset", "finish"])
def test_attach_and_leave_at_once(sessions: Hub, how: str) -> None:
    client = sessions.attach("x")
    for _ in range(20):
        raw = RawClient(sessions.url)
        raw.send(attach_message("x"))
        getattr(raw, how)()
    sessions.left(but=1)
    client.run(b"echo still$((1 + 1))", b"still2")
    # The same for the first client of a session, if it got as far as to begin one.
    raw = RawClient(sessions.url)
    raw.send(attach_message("y"))
    getattr(raw, how)()
    other = sessions.attach("y")
    other.run(b"echo still$((1 + 1))", b"still2")


def test_a_client_that_leaves_is_no_error() -> None:
    server = Server()
    client, conn = memory_pair()
    with Task(server.serve, conn, LocalExecer()) as serving:
        client.send(json.dumps(attach_message("x")).encode())
        while b"$ " not in bytes(client.receive()):
            pass
        client.close(1000)
        assert serving.result() is None
    assert server.session_count() == 1
    conn.abort()
    conn.close()
    server.close()


def test_what_a_client_that_has_left_can_do() -> None:
    with local_session(tty("echo ready; exec sleep 1000")) as session:
        client, other = session.attach(), session.attach()
        with Task(client.wait) as waiting, Task(client.stdout.read) as reading:
            blocked(waiting)
            client.close()
            with pytest.raises(SessionClosed):
                waiting.result()
            assert b"ready" in reading.result() + b"ready"
        with pytest.raises(BrokenPipeError):
            client.stdin.raw.write(b"x")
        # A shell would take the end of its input for the end of everything.
        client.stdin.close()
        assert session.state is State.READY
        with pytest.raises(TimeoutError):
            other.wait(0.01)
        close_files(client)
        close_files(other)


# What is told about sessions


def test_snapshot(sessions: Hub) -> None:
    assert sessions.server.sessions() == []
    before = time.time()
    one = sessions.attach("one", rows=30, cols=100)
    one.until(b"$ ")
    sessions.attach("two", "sh", "-c", "echo ready; exec sleep 1000").until(b"ready")
    sessions.attach("one")
    first, second = sessions.server.sessions()
    assert (first.id, second.id) == ("one", "two")
    assert first.pid == one.process.pid
    assert first.command == ("bash", "--norc", "--noprofile", "-i")
    assert (first.rows, first.cols) == (24, 80)
    assert (first.clients, second.clients) == (2, 1)
    assert before <= first.created <= first.last_activity <= time.time()
    # The snapshot does not change; the next one does.
    one.run(b"echo more$((1 + 1))", b"more2")
    assert sessions.server.sessions()[0].last_activity > first.last_activity
    assert sessions.server.session_count() == 2
    one.type(b"exit\r")
    one.exit_code()
    assert sessions.server.session_count() == 1


ODD = [
    "plain",
    "a/b",
    "/",
    "ünï 日本",
    "50%",
    "%2F",
    "a?b=c",
    "#",
    "../x",
    "/x",
    "a b+c",
    "\n",
    "ID",
]


def test_sessions_over_http(sessions: Hub) -> None:
    status, body = request(sessions, "GET", "/sessions")
    assert (status, json.loads(body)) == (200, [])
    clients = {}
    for id in ODD:
        clients[id] = sessions.attach(id, "sh", "-c", "echo ready; exec sleep 1000")
    status, body = request(sessions, "GET", "/sessions")
    infos = json.loads(body)
    assert status == 200
    assert [info["id"] for info in infos] == ODD
    assert infos[0] == {
        "id": "plain",
        "pid": clients["plain"].process.pid,
        "command": ["sh", "-c", "echo ready; exec sleep 1000"],
        "rows": 24,
        "cols": 80,
        "clients": 1,
        "created": infos[0]["created"],
        "last_activity": infos[0]["last_activity"],
    }
    for path in ("/sessions/", "/sessions/no", "/sessions/" + quote("%", safe="")):
        assert request(sessions, "DELETE", path)[0] == 404
    for left, id in reversed(list(enumerate(ODD))):
        assert request(sessions, "DELETE", "/sessions/" + quote(id, safe="")) == (204, b"")
        assert [s.id for s in sessions.server.sessions()] == ODD[:left]
        assert request(sessions, "DELETE", "/sessions/" + quote(id, safe=""))[0] == 404
        assert clients[id].exit_code() == -1
        gone(clients[id].process.pid)


# Size and environment


def test_the_latest_size_wins(sessions: Hub) -> None:
    def size() -> tuple[int, int]:
        (info,) = sessions.server.sessions()
        return info.rows, info.cols

    one = sessions.attach("x", rows=24, cols=80)
    one.run(b"stty size", b"24 80\r\n")
    two = sessions.attach("x", rows=30, cols=100)
    one.run(b"stty size", b"30 100\r\n")
    one.process.resize(40, 90)
    eventually(lambda: size() == (40, 90), "the size")
    two.run(b"stty size", b"40 90\r\n")
    # One that does not know its size leaves it.
    three = sessions.attach("x", rows=0, cols=0)
    three.run(b"stty size", b"40 90\r\n")
    two.process.resize(0, 0)
    two.process.resize(50, 60)
    eventually(lambda: size() == (50, 60), "the size")
    three.run(b"stty size", b"50 60\r\n")


def test_sizes_of_many_clients_at_once(sessions: Hub) -> None:
    clients = [sessions.attach("x") for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for i, client in enumerate(clients):

            def resize(client: Client = client, first: int = 10 * (i + 1)) -> None:
                for rows in range(first, first + 10):
                    client.process.resize(rows, 80)

            stack.enter_context(Task(resize))
    for i, client in enumerate(clients):
        # By now, what this one sent before has arrived.
        client.run(b"echo seen$((%d + 0))" % i, b"seen%d" % i)
    clients[0].process.resize(33, 44)
    clients[0].run(b"stty size", b"33 44\r\n")
    (info,) = sessions.server.sessions()
    assert (info.rows, info.cols) == (33, 44)


def test_no_size_is_the_references(sessions: Hub) -> None:
    client = sessions.attach("x", rows=0, cols=0)
    client.run(b"stty size", b"80 24\r\n")
    (info,) = sessions.server.sessions()
    assert (info.rows, info.cols) == (80, 24)


def test_term_is_that_of_the_client_who_began(sessions: Hub) -> None:
    one = sessions.attach("x", env=("TERM=vt220",))
    two = sessions.attach("x", env=("TERM=linux",))
    two.run(b"echo $TERM,$WSEP_TTY", b"vt220,true\r\n")
    one.until(b"vt220,true\r\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TERM", raising=False)
        process = sessions.start(Command("sh", ["-c", "echo $TERM"], id="y", tty=True))
        read_past(process.stdout, b"xterm-256color")
        close_files(process)
