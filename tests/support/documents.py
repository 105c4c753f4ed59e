"""Running what Markdown files show, as it stands there, but for addresses and places."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from helpers import SECONDS, gone
from programs import environment

from wsep_sync import Command, connect


class Block(NamedTuple):
    language: str
    code: str


def blocks(file: Path, language: str) -> list[Block]:
    """The fenced blocks of a language in a Markdown file."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", file.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*match) for match in found if match[0] == language]


def fill(directory: Path) -> Path:
    """Put what the examples find in a clone into a directory; return the directory."""
    (directory / "docs").mkdir()
    (directory / "docs" / "file").write_text("a file\n")
    (directory / "there").mkdir()
    return directory


def variables(**more: str) -> dict[str, str]:
    """The environment for examples: that of the tests, active."""
    scripts = sysconfig.get_path("scripts")
    return environment(PATH=f"{scripts}:{os.environ['PATH']}", **more)


def run_python(code: str, url: str, place: Path) -> str:
    """Run a program, for which the server at `url` stands in for all; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", re.sub(r'"wss?://[^"]*"', f'"{url}"', code)],
        capture_output=True,
        text=True,
        cwd=place,
        env=variables(),
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def serve(code: str) -> None:
    """Run a program that serves until a signal ends it, with what it runs then, and no word."""
    for number in (signal.SIGINT, signal.SIGTERM):
        _serve_until(number, code)


def _serve_until(number: int, code: str) -> None:
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
            path = "/exec" if '"/exec"' in code else ""
            with connect(f"ws://127.0.0.1:{port}{path}") as execer:
                with execer.start(Command("echo", ["served"])) as command:
                    assert command.stdout.read() == b"served\n"
                with execer.start(Command("cat", tty=True, id="left")) as session:
                    pass
                with execer.start(Command("cat", stdin=True)) as command:
                    process.send_signal(number)
                    assert process.wait(SECONDS) == 0, process.stderr.read()
                    gone(session.pid, command.pid)
            logged = process.stderr.read().splitlines()
            assert [line for line in logged if not line.startswith(b'{"time"')] == []
        finally:
            process.kill()


def shell(command: str, place: Path, **more: str) -> str:
    """Run a shell's command line, which has to succeed and to complain of nothing."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=place,
        input="exit\n",  # for a shell
        capture_output=True,
        text=True,
        env=variables(**more),
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (command, done.stderr)
    return done.stdout
