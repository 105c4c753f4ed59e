"""What a program floods its terminal with hurts nobody else: the server answers all the while."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers import SECONDS, alive, eventually, gone
from programs import server_process
from session_clients import hub
from session_floods import FLOODS, echo, flooded, request

from wsep_sync import Command, LocalExecer, StartError
from wsep_sync.jobs.session import Session

ROUNDS = 3


def listed(url: str) -> list[dict[str, object]]:
    status, body = request(url, "GET", "/sessions")
    assert status == 200
    found = json.loads(body)
    assert isinstance(found, list)
    return found


def resident(pid: int) -> int:
    """The memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("name", list(FLOODS))
def test_everybody_else_is_answered_while_it_floods(name: str) -> None:
    with server_process() as (url, server):
        before = resident(server.pid)
        with flooded(url, "flood", FLOODS[name]) as visitors:
            visitors.come(1)
            for i in range(ROUNDS):
                (info,) = listed(url)
                assert request(url, "GET", "/healthz")[0] == 200
                assert echo(url, f"unrelated {i}") == b"unrelated %d\n" % i
            visitors.come(1)
            pid = int(str(info["pid"]))
            assert alive(pid)
            assert alive(server.pid)
            # A bound for everything that it remembers, and for what waits for two clients.
            assert resident(server.pid) - before < 100_000_000
            visitors.stop()
            status, _ = request(url, "DELETE", "/sessions/flood")
            assert status == 204
        gone(pid)
        assert listed(url) == []


def test_a_flood_of_questions_does_not_fill_what_others_type_into(tmp_path: Path) -> None:
    # It asks on and on, and reads nothing, until somebody types.
    script = (
        "import os, sys, tty, time\n"
        "tty.setraw(0)\n"
        "for i in range(200): os.write(1, b'\\33[c\\33[6n' * 100)\n"
        f"open({str(tmp_path / 'asked')!r}, 'w').close()\n"
        f"while not os.path.exists({str(tmp_path / 'typed')!r}): time.sleep(.01)\n"
        "got = b''\n"
        # The last questions may be read, and answered, when somebody types.
        "while b'typed' not in got: got += os.read(0, 65536)\n"
        "os.write(1, b'answers %d.' % len(got))\n"
    )
    with hub() as sessions:
        sessions.attach("x", sys.executable, "-c", script).leave()
        eventually((tmp_path / "asked").exists, "the end of the questions")
        client = sessions.attach("x")
        client.type(b"typed")
        (tmp_path / "typed").touch()
        answers = int(client.until(b".").rpartition(b"answers ")[2].split(b".")[0])
        # What a terminal's own buffer takes, and 4 KiB more, of some 340 KB.
        assert 0 < answers < 30_000
        assert client.exit_code(SECONDS) == 0


def test_a_list_says_the_beginning_of_a_long_command_line() -> None:
    command = Command("sh", ["-c", "read line", "x" * 30_000, *[""] * 5000], tty=True, id="x")
    session = Session(command, LocalExecer())
    shown = session.info().command
    assert shown[:3] == ("sh", "-c", "read line")
    assert shown[3].endswith("x…")
    assert len("".join(shown)) <= 1025
    many = Session(Command("echo", ["a"] * 5000, tty=True, id="x"), LocalExecer()).info().command
    assert len(many) <= 1025
    assert many[:2] == ("echo", "a")
    short = Session(Command("echo", ["a", "", "b c"], tty=True, id="x"), LocalExecer())
    assert short.info().command == ("echo", "a", "", "b c")
    session.close()


def test_a_name_that_is_too_long_to_be_listed_is_refused() -> None:
    with hub() as sessions:
        with pytest.raises(StartError, match="an id of 1025 characters: 1024 are the limit"):
            sessions.attach("x" * 1025)
        client = sessions.attach("x" * 1024, "sh", "-c", "read line")
        assert [info.id for info in sessions.server.sessions()] == ["x" * 1024]
        client.type(b"\r")
        client.exit_code()
