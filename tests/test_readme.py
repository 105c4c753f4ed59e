"""What README.md shows is run as it stands there, but for addresses and places."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import SECONDS, listening
from programs import environment

from wsep_sync import Command, Server, connect

README = Path(__file__).parent.parent / "README.md"


class Block(NamedTuple):
    language: str
    code: str


def blocks(language: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*match) for match in found if match[0] == language]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that holds what the examples need, `make` among it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "file").write_text("a file\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin" / "make"
    make.write_text('#!/bin/sh\necho "made $1 in $PWD"\n')
    make.chmod(0o755)
    return tmp_path


def variables(place: Path, **more: str) -> dict[str, str]:
    scripts = sysconfig.get_path("scripts")
    return environment(PATH=f"{place}/bin:{scripts}:{os.environ['PATH']}", **more)


# The program that is shown, by a part of it, and what it prints.
PRINTED = {
    'Command("ls", ["-la"])': r"total .*\bproject\b.*",
    'Command("sort", ["-u"]': r"b'a\\nb\\n'\n",
    "LocalExecer().start(": r"made test in .*/project\n\n",
    'run(["uname", "-s"]': r"Linux\nLOUDER\n",
    'spawn("cat"': r"there is\n",
    'id="work"': r"True True\n",
    "access = Access(": r"",
}


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.code.split("\n")[-2])
def test_python(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "serve_forever" in block.code:
        serve(block.code)
        return
    printed = [value for key, value in PRINTED.items() if key in block.code]
    assert len(printed) == 1, "say above what this prints"
    monkeypatch.chdir(place)  # where the server's commands run
    with listening() as listener:
        code = re.sub(r'"wss?://[^"]*"', f'"{listener.url}"', block.code)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            env=variables(place),
            timeout=SECONDS,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(printed[0], done.stdout, re.DOTALL), done.stdout


def serve(code: str) -> None:
    """Run a program that serves until Ctrl-C, and have it run a command."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert code.count("8080") == 1
    # That it listens is not printed; the connection itself tells.
    code = code.replace("8080", str(port)).replace(
        "    listener.serve_forever()", "    print(flush=True)\n    listener.serve_forever()"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"\n", process.stderr.read()
            with (
                connect(f"ws://127.0.0.1:{port}") as execer,
                execer.start(Command("echo", ["served"])) as command,
            ):
                assert command.stdout.read() == b"served\n"
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
            assert process.stderr.read().endswith(b"KeyboardInterrupt\n")
        finally:
            process.kill()


def shell(command: str, place: Path, **more: str) -> str:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=place,
        input="exit\n",  # for a shell
        capture_output=True,
        text=True,
        env=variables(place, **more),
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return done.stdout


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.code.splitlines()]


def test_the_command_for_a_fresh_machine(place: Path) -> None:
    lines = [line for line in shell_lines() if "notty -- ls -la" in line]
    assert len(lines) == 1
    # What comes before makes an environment and installs, as was done for these tests.
    make, install, run = lines[0].split(" && ")
    assert make == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -q ."
    assert "project" in shell(run.removeprefix(".venv/bin/"), place)


@contextlib.contextmanager
def session(url: str, id: str) -> Iterator[None]:
    with connect(url) as execer, execer.start(Command("cat", tty=True, id=id)):
        yield


def test_the_command_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks("sh") if "wsep-sync serve" in block.code]
    lines = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    assert lines[:2] == [
        ["wsep-sync", "serve", "--port", "8080"],
        ["export", "WSEP_URL=ws://127.0.0.1:8080"],
    ]
    printed = {
        "wsep-sync notty -- make test": f"made test in {place}\n",
        "tar c src | wsep-sync notty -- tar x -C /tmp": "",
        "wsep-sync tty -- bash": None,
        "wsep-sync tty --id work -- bash": None,
        "wsep-sync sessions": r"work\t\d+\t80x24\t1 attached\tcat\n",
        "wsep-sync kill work": "",
    }
    commands = [line.split("  ")[0] for line in block.code.splitlines()[2:]]
    assert commands == list(printed)
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", variables(place)["PATH"])  # the server's, and so its commands'
    server = Server()
    with listening(server=server) as listener:
        for command, expected in printed.items():
            with contextlib.ExitStack() as cleanup:
                if command.split()[1] in ("sessions", "kill"):
                    cleanup.enter_context(session(listener.url, "work"))
                out = shell(
                    command.replace("/tmp", str(place / "there")), place, WSEP_URL=listener.url
                )
            if expected is not None:
                assert re.fullmatch(expected, out), (command, out)
        server.close()
    assert (place / "there" / "src" / "file").read_text() == "a file\n"
