"""examples/fleet: three servers behind a real HAProxy, with the configuration that is shown."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import SECONDS, Task, alive, eventually
from parts import need
from programs import run

from wsep_sync import Command, ExitMissing, RemoteExecer, connect

# Four programs have to start for each.
pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

DIRECTORY = Path(__file__).parents[2] / "examples" / "fleet"

IDS = [f"job-{number}" for number in range(12)]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fleet", DIRECTORY / "fleet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load()


@pytest.fixture
def fleet() -> Iterator[Any]:
    need("haproxy")
    with example.Fleet() as fleet:
        yield fleet


@pytest.fixture
def execer(fleet: Any) -> Iterator[RemoteExecer]:
    with connect(fleet.url, timeout=SECONDS) as execer:
        yield execer


def begin(execer: RemoteExecer) -> dict[str, str]:
    """Begin a session of each id; return their servers."""
    where = {}
    for id in IDS:
        where[id], reattached = example.visit(execer, id)
        assert not reattached
    return where


def found(execer: RemoteExecer, where: dict[str, str]) -> None:
    """Check that each session is where it was."""
    for id, name in where.items():
        assert example.visit(execer, id) == (name, True)


def test_the_configuration_as_it_is() -> None:
    command = [need("haproxy"), "-c", "-f", str(DIRECTORY / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_the_example() -> None:
    need("haproxy")
    command = [sys.executable, "-W", "error", str(DIRECTORY / "fleet.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[2:4] == [
        "12 of 12 are found again",
        "two drains: 12 of 12 are found, new ones are on one, three",
    ]
    assert "three is killed" in lines[4]
    assert "no exit status" in lines[4]
    assert "begun anew on" in lines[5]
    assert len(lines) == 7


def test_without_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example.shutil, "which", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match="haproxy is missing"):
        example.Fleet()


def test_commands_without_an_id_are_spread(fleet: Any, execer: RemoteExecer) -> None:
    processes = [execer.start(Command("cat", stdin=True)) for _ in range(6)]
    try:
        assert [fleet.health(name)["connections"] for name in example.NAMES] == [2, 2, 2]
    finally:
        for process in processes:
            process.close()


def test_sessions_are_spread_and_found(fleet: Any, execer: RemoteExecer) -> None:
    where = begin(execer)
    assert set(where.values()) == set(example.NAMES)
    found(execer, where)
    for name in example.NAMES:
        assert fleet.health(name)["sessions"] == list(where.values()).count(name)
    # By whichever way a client comes.
    assert run("kill", "--url", fleet.url, IDS[0]).returncode == 0
    name, reattached = example.visit(execer, IDS[0])
    assert (name, reattached) == (where[IDS[0]], False)


def test_two_clients_of_one_session(fleet: Any, execer: RemoteExecer) -> None:
    command = example.session("shared")
    with (
        connect(fleet.url, session_id="shared", timeout=SECONDS) as other,
        execer.start(command) as one,
        other.start(command) as two,
    ):
        assert two.reattached
        two.stdin.write(b"said by two\n")
        two.stdin.flush()
        for line in one.stdout:
            if b"said by two" in line:
                break
        one.kill()


def test_draining_moves_new_sessions_alone(fleet: Any, execer: RemoteExecer) -> None:
    where = begin(execer)
    fleet.set_state("two", "drain")
    found(execer, where)
    others = {"one", "three"}
    assert {example.visit(execer, f"new-{id}")[0] for id in IDS} == others
    assert {example.server_of_a_command(execer) for _ in range(6)} <= others
    # Those that ended there begin elsewhere.
    ended = next(id for id in IDS if where[id] == "two")
    with execer.start(example.session(ended)) as process:
        process.kill()
    eventually(
        lambda: fleet.health("two")["sessions"] == list(where.values()).count("two") - 1, "its end"
    )
    fleet.set_state("two", "ready")
    eventually(lambda: example.server_of_a_command(execer) == "two", "a command for two")


def test_a_server_that_dies_takes_its_own_sessions(fleet: Any, execer: RemoteExecer) -> None:
    where = begin(execer)
    lost, kept = ([id for id in IDS if (where[id] == "two") == is_two] for is_two in (True, False))
    with (
        execer.start(example.session(lost[0])) as process,
        execer.start(example.session(kept[0])) as other,
    ):
        with Task(process.wait, SECONDS) as waiting:
            fleet.kill("two")
            with pytest.raises(ExitMissing, match="no exit status: connection closed"):
                waiting.result()
        assert alive(other.pid)
        with pytest.raises(TimeoutError):
            other.wait(0)
    found(execer, {id: where[id] for id in kept})
    # At once: nobody has to wait until the health checks have found out.
    for id in lost:
        name, reattached = example.visit(execer, id)
        assert name != "two"
        assert not reattached
        assert example.visit(execer, id) == (name, True)
    assert {example.server_of_a_command(execer) for _ in range(6)} <= {"one", "three"}
