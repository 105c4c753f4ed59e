"""The processes of a run: the servers, and those that do the measured work."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Broken

__all__ = ["SPEED", "Server", "Variant", "Worker", "hides", "relay", "server", "variants"]

HERE = Path(__file__).parent

#: The modules that the extra "speed" installs.
SPEED = ("websockets",)

# How long a process may take to start, or to end when it was asked to, in seconds.
_PATIENCE = 30.0

# What `wsep-sync serve` exits with after SIGINT.
_INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True)
class Variant:
    """An installation of wsep_sync.

    Attributes:
        name: What it is called in the table.
        python: Its Python.
        hidden: Modules that cannot be imported.
        fast: It has the extra "speed".
    """

    name: str = "wsep_sync"
    python: str = sys.executable
    hidden: tuple[str, ...] = SPEED
    fast: bool = False

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command that runs one of our modules, or one that is installed."""
        return [self.python, str(HERE / "launch.py"), ",".join(self.hidden), module, *arguments]


def variants(against: str | None) -> list[Variant]:
    """Return the installations to be measured.

    Args:
        against: The Python of one more.
    """
    found = [Variant()]
    if SPEED and all(map(importlib.util.find_spec, SPEED)):
        found.append(Variant("wsep_sync[speed]", hidden=(), fast=True))
    if against is not None:
        found.append(Variant("the other installation", against, hidden=()))
    return found


def hides(variant: Variant, name: str, *modules: str) -> Variant:
    """Return a variant of another name, in which some more modules cannot be imported."""
    return Variant(name, variant.python, (*variant.hidden, *modules), variant.fast)


def environment() -> dict[str, str]:
    """Return the environment of all that is measured: nothing in it leads elsewhere."""
    return {k: v for k, v in os.environ.items() if k not in ("WSEP_URL", "WSEP_TOKEN")}


class _Lines:
    """Reads the lines of a process's output, each within some time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._fd = process.stdout.fileno()
        self._buffer = b""

    def next(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            rest = max(0.0, deadline - time.monotonic())
            if not select.select([self._fd], [], [], rest)[0]:
                raise Broken(f"nothing came within {seconds:g} seconds")
            piece = os.read(self._fd, 1 << 16)
            if not piece:
                raise Broken(f"it ended, with status {self._process.wait()}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


@contextlib.contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that leads a group, and end all of the group that is left at the end."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        # Python looks for modules in the current directory before those that are installed.
        cwd=tempfile.gettempdir(),
        env=environment(),
        **options,
    ) as process:
        try:
            yield process
        finally:
            # Once it is reaped, the number may be somebody else's.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


class Worker:
    """A process that does one job, each time that it is called.

    Args:
        job: A function of one of these modules. What it returns must be for JSON.
        seconds: How long it may take.
        variant: The installation to do it with.
        arguments: What it is called with; likewise.
    """

    def __init__(
        self, job: Callable[..., Any], seconds: float, variant: Variant, **arguments: Any
    ) -> None:
        name = f"{job.__module__}:{job.__name__}"
        self._command = variant.command("worker", name, json.dumps(arguments))
        self._seconds = seconds
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Worker:
        self._process = self._cleanup.enter_context(_running(self._command, stdin=subprocess.PIPE))
        self._lines = _Lines(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with self._cleanup:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)

    def start(self) -> None:
        """Let it begin; whatever several do at once begins at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def result(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._lines.next(self._seconds))
        if "error" in answer:
            raise Broken(answer["error"])
        return answer

    def call(self) -> dict[str, Any]:
        self.start()
        return self.result()


@dataclass(frozen=True)
class Server:
    """A server under test.

    Attributes:
        url: Where clients connect.
        pid: Its process.
    """

    url: str
    pid: int


@contextlib.contextmanager
def server(variant: Variant) -> Iterator[Server]:
    """Run `wsep-sync serve`."""
    with (
        tempfile.TemporaryFile() as log,
        _running(variant.command("wsep_sync", "serve", "--port", "0"), stderr=log) as process,
    ):
        try:
            line = _Lines(process).next(_PATIENCE)
            match = re.fullmatch(r"listening on (ws://\S+)", line)
            if not match:
                raise Broken(f"the server says {line!r}")
            yield Server(match[1], process.pid)
            if process.poll() is not None:
                raise Broken(f"the server ended, with status {process.returncode}")
            process.send_signal(signal.SIGINT)
            if process.wait(_PATIENCE) not in (0, _INTERRUPTED):
                raise Broken(f"the server ended, with status {process.returncode}")
        except Broken as error:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise Broken(f"{error}\nThe server's log:\n{said}") from error


@contextlib.contextmanager
def relay() -> Iterator[int]:
    """Run the relay; yield its port."""
    with _running(Variant().command("relay")) as process:
        yield int(_Lines(process).next(_PATIENCE))
