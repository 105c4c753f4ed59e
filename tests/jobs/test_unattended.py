"""Sessions: programs that nobody attends to, what is typed, and sessions further on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from held_sessions import memory
from helpers import SECONDS, Task, alive, blocked, ends_processes, eventually, gone, read_past
from session_clients import Client, Hub, hub
from session_commands import WATCHING, close_files, local_session, tty

from wsep_sync import Command, ExitMissing, connect

# Programs that nobody attends to


@pytest.mark.usefixtures("engine")
def test_a_flood_with_nobody_attached(sessions: Hub, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    line = "0123456789 " * 7
    script = (
        "stty -opost; read line; for i in 1 2 3 4 5 6 7 8;"
        f" do yes '{line}' | head -c 4000000; echo $i >> {progress}; done;"
        " printf '\\nall done'; read line"
    )
    client = sessions.attach("x", "sh", "-c", f"echo ready; {script}")
    client.until(b"ready")
    client.type(b"\r")
    client.leave()

    def passed() -> int:
        return progress.read_text().count("\n") if progress.exists() else 0

    eventually(lambda: passed() >= 2, "the program goes on")
    before = memory(os.getpid())
    eventually(lambda: passed() >= 8, "the program goes on to its end")
    assert memory(os.getpid()) - before < 16_000_000  # of 24 that were printed
    again = sessions.attach("x")
    again.until(b"all done")
    assert len(again.got) < 4_000_000


ASK = """
import os, select, sys, tty
tty.setraw(0)
os.write(1, b"ready")
with open(sys.argv[1]) as fifo:
    fifo.read()
for question in (b"\\x1b[c", b"\\x1b[>c", b"\\x1b[5n", b"\\x1b[H\\x1b[3;5Habc\\x1b[6n"):
    os.write(1, question)
    answer = b""
    while not answer.endswith((b"c", b"n", b"R")):
        if not select.select([0], [], [], 20)[0]:
            answer = b"nothing"
            break
        answer += os.read(0, 100)
    with open(sys.argv[2], "a") as answers:
        answers.write(repr(answer) + "\\n")
os.read(0, 1)
"""


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("who", ["nobody", "one who reads nothing", "one who only watches"])
def test_questions_that_no_terminal_is_there_to_answer(tmp_path: Path, who: str) -> None:
    fifo, answers = tmp_path / "fifo", tmp_path / "answers"
    os.mkfifo(fifo)
    command = Command(
        sys.executable, ["-c", ASK, str(fifo), str(answers)], id="x", tty=True, rows=24, cols=80
    )
    with local_session(command) as session:
        client = session.attach()
        read_past(client.stdout, b"ready")
        close_files(client)
        other = None
        if who == "one who reads nothing":
            # It will be given a redraw, which has no questions in it.
            other = session.attach()
        elif who == "one who only watches":
            # Its terminal would answer, but nobody would listen.
            other = session.attach(options=WATCHING)
            read_past(other.stdout, b"ready")
        fifo.write_text("go")
        eventually(
            lambda: answers.exists() and answers.read_text().count("\n") == 4, "four answers"
        )
        da, da2, status, position = answers.read_text().splitlines()
        assert da.startswith(r"b'\x1b[?6")
        assert da2.startswith(r"b'\x1b[>")
        assert status == r"b'\x1b[0n'"
        assert position == r"b'\x1b[3;8R'"
        if other:
            close_files(other)


def test_an_attached_terminal_answers_for_itself(sessions: Hub, tmp_path: Path) -> None:
    fifo, answers = tmp_path / "fifo", tmp_path / "answers"
    os.mkfifo(fifo)
    client = sessions.attach("x", sys.executable, "-c", ASK, str(fifo), str(answers))
    client.until(b"ready")
    fifo.write_text("go")
    client.until(b"\x1b[c")
    client.type(b"\x1b[?1;2c")
    client.until(b"\x1b[>c")
    client.type(b"\x1b[>0;0c")
    eventually(lambda: answers.exists() and answers.read_text().count("\n") == 2, "two answers")
    assert answers.read_text().splitlines() == [r"b'\x1b[?1;2c'", r"b'\x1b[>0;0c'"]


DEAF = "stty raw -echo; echo ready; exec sleep 1000"


def test_a_client_leaves_while_it_types_what_nobody_reads(sessions: Hub) -> None:
    typist, other = (sessions.attach("x", "sh", "-c", DEAF) for _ in range(2))
    typist.until(b"ready")
    other.until(b"ready")
    with Task(typist.process.stdin.raw.write, b"x" * 4_000_000) as typing:
        blocked(typing)
        other.leave()
        eventually(lambda: sessions.server.sessions()[0].clients == 1, "the other has left")
        third = sessions.attach("x")
        third.until(b"ready")
        typist.leave()
        with pytest.raises(BrokenPipeError):
            typing.result()
        eventually(lambda: sessions.server.sessions()[0].clients == 1, "the typist has left")
        third.leave()
        sessions.left()
    assert sessions.server.session_count() == 1
    # The connections' threads are gone, not only their clients.
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name == "wsep-connection"],
        "the threads of the connections have ended",
    )


def test_leaving_wakes_a_write() -> None:
    with local_session(tty(DEAF)) as session:
        one, two = session.attach(), session.attach()
        read_past(one.stdout, b"ready")
        for client in (one, two):
            with Task(client.stdin.raw.write, b"x" * 1_000_000) as typing:
                blocked(typing)
                client.close()
                with pytest.raises(BrokenPipeError):
                    typing.result()
        with Task(two.stdin.close) as closing:
            closing.result()
        three = session.attach()
        with Task(three.stdin.raw.write, b"x") as typing:
            blocked(typing)
            three.kill()
            with pytest.raises(BrokenPipeError):
                typing.result()
        for client in (one, two, three):
            close_files(client)


def test_what_was_typed_last_arrives(sessions: Hub, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    for i in range(20):
        client = sessions.attach("x")
        client.type(b"echo %d >> %b\r" % (i, bytes(lines)))
        client.leave()
    # In any order: they come over different connections, one of which may be slow to end.
    eventually(lambda: lines.exists() and lines.read_text().count("\n") == 20, "all the lines")
    assert sorted(lines.read_text().split(), key=int) == [str(i) for i in range(20)]


def test_what_is_typed_arrives_whole_and_in_order(sessions: Hub) -> None:
    typed = b"".join(b"%06d\n" % i for i in range(20_000))
    script = f"stty raw -echo; echo ready; head -c {len(typed)} | md5sum"
    client = sessions.attach("x", "sh", "-c", script)
    client.until(b"ready")
    client.type(typed)
    client.until(hashlib.md5(typed).hexdigest().encode())


def test_what_one_client_types_stays_together(sessions: Hub) -> None:
    script = f"stty raw -echo; echo ready; exec head -c {3 * 100 * 1000}"
    clients = [sessions.attach("x", "sh", "-c", script) for _ in range(3)]
    for client in clients:
        client.until(b"ready")
    with contextlib.ExitStack() as stack:
        for name, client in zip(b"abc", clients, strict=True):

            def paste(client: Client = client, line: bytes = bytes([name]) * 999 + b"\n") -> None:
                for _ in range(100):
                    client.type(line)

            stack.enter_context(Task(paste))
    # The first, for the others begin with a redraw.
    lines = clients[0].ended().partition(b"ready")[2].split(b"\n")
    assert sorted(lines) == [b"", b"", *(bytes([c]) * 999 for c in b"abc" for _ in range(100))]


def test_end_of_file_is_sent_as_a_character(sessions: Hub) -> None:
    one, two = sessions.attach("x", "cat"), sessions.attach("x")
    two.type(b"line\r")
    one.until(b"line\r\nline\r\n")
    two.process.stdin.close()
    assert one.exit_code() == 0
    assert two.exit_code() == 0


# Sessions further on


@pytest.mark.parametrize("kind", ["fixed", "factory"])
def test_through_a_chained_execer(kind: str) -> None:
    with hub() as back, contextlib.ExitStack() as stack:
        execer = connect(back.url) if kind == "fixed" else lambda: connect(back.url)
        if kind == "fixed":
            stack.enter_context(execer)
        with hub(execer) as front:
            one = front.attach("x", rows=30, cols=100)
            one.run(b"word=here; stty size", b"30 100\r\n")
            two = front.attach("x", rows=24, cols=80)
            two.run(b"stty size", b"24 80\r\n")
            one.leave()
            two.leave()
            front.left()
            again = front.attach("x")
            assert again.process.reattached
            assert again.process.pid == one.process.pid
            again.run(b"echo $word$((1 + 1))", b"here2")
            # The session is the front's; to the back it is a plain process.
            assert front.server.session_count() == 1
            assert back.server.session_count() == 0
            again.type(b"exit 3\r")
            assert again.exit_code() == 3
            closed, left = (front.attach(id).process.pid for id in "yz")
            front.server.close_session("y")
            assert not alive(closed)
            assert alive(left)
        # The front has ended, and with it what it ran further on.
        gone(left)


FRONT = """
import sys
from wsep_sync import Server, connect
from wsep_sync.listener import Listener
from wsep_sync.wsgi import application
url = sys.argv[1]
listener = Listener(application(Server(), lambda: connect(url)))
print(listener.url, flush=True)
listener.serve_forever()
"""


def test_when_the_front_dies_the_command_further_on_ends() -> None:
    with (
        hub() as back,
        subprocess.Popen(
            [sys.executable, "-c", FRONT, back.url], stdout=subprocess.PIPE, text=True
        ) as front,
    ):
        try:
            url = front.stdout.readline().strip()
            attached, left = back.attach("x", url=url), back.attach("y", url=url)
            for client in (attached, left):
                client.until(b"$ ")
            left.leave()
        finally:
            front.kill()
        gone(attached.process.pid, left.process.pid)
        with pytest.raises(ExitMissing):
            attached.process.wait(SECONDS)


def test_when_the_back_dies_the_clients_are_told() -> None:
    with (
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                FRONT.replace("lambda: connect(url)", "LocalExecer()").replace(
                    "connect\n", "LocalExecer\n"
                ),
                "-",
            ],
            stdout=subprocess.PIPE,
            text=True,
        ) as back,
    ):
        try:
            url = back.stdout.readline().strip()
            with hub(lambda: connect(url)) as front:
                client = front.attach("x", "sh", "-c", "echo ready; exec sleep 1000")
                client.until(b"ready")
                with ends_processes(client.process.pid):
                    back.kill()
                    with pytest.raises(ExitMissing):
                        client.process.wait(SECONDS)
                    eventually(lambda: not front.server.session_count(), "the session has ended")
                gone(client.process.pid)
        finally:
            back.kill()
