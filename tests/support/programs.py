"""The command line run as the program it is, for the tests of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

from helpers import SECONDS

# Warnings are errors in there, too.
WSEP_SYNC = [sys.executable, "-W", "error", "-m", "wsep_sync"]


def environment(**variables: str) -> dict[str, str]:
    """What the programs get: a URL or a token only when the test says one."""
    ours = ("WSEP_URL", "WSEP_TOKEN")
    return {k: v for k, v in os.environ.items() if k not in ours} | variables


def run(
    *arguments: str | bytes, input: bytes | None = b"", **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end."""
    if "stdin" not in options and input is not None:
        options["input"] = input
    for stream in ("stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    options.setdefault("env", environment())
    return subprocess.run([*WSEP_SYNC, *arguments], timeout=SECONDS, check=False, **options)


@contextlib.contextmanager
def running(
    *arguments: str, seconds: float = SECONDS, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program beside the test, on pipes; it is killed if it still runs at the end."""
    for stream in ("stdin", "stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    options.setdefault("env", environment())
    with subprocess.Popen([*WSEP_SYNC, *arguments], **options) as process:
        alarm = threading.Timer(seconds, process.kill)  # also wakes who reads from it
        alarm.start()
        try:
            yield process
        finally:
            alarm.cancel()
            alarm.join()
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Let the program come to its end: its status, and what was left of its outputs."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def first_number(process: subprocess.Popen[bytes]) -> int:
    """Read a line with a number, such as the process id of a command that says it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.strip().isdigit(), (line, process.stderr and process.stderr.read())
    return int(line)


class ServerProcess:
    """`wsep-sync serve`, run beside the test.

    Attributes:
        process: It.
        url: Where clients connect.
        pid: Its process id.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.send_signal = process.send_signal
        self._log = log
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        match = re.fullmatch(r"listening on (wss?://\S+:\d+)\n", line)
        assert match, (line, self.log())
        self.url = match[1]

    def log(self) -> str:
        """What it has logged so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    def finish(self) -> str:
        """Wait until it ends, and well; return what it has logged."""
        status, out, _ = finish(self.process)
        log = self.log()
        assert (status, out) == (0, b""), log
        assert "Traceback" not in log, log
        return log


@contextlib.contextmanager
def server_process(
    *options: str, host: str = "", **popen: Any
) -> Iterator[tuple[str, ServerProcess]]:
    """Run `serve` on a free port; yield its URL and process, and see it end well."""
    where = ["--host", host] if host else []
    # Not a pipe, which would hold it up when nobody reads.
    with (
        tempfile.TemporaryFile() as log,
        running("serve", "--port", "0", *where, *options, stderr=log, **popen) as process,
    ):
        server = ServerProcess(process, log)
        yield server.url, server
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # which does not wait for what runs
            server.finish()


class Relay:
    """A TCP relay in front of a server, to be cut while the server lives.

    Attributes:
        url: Where clients connect.
        accepted: How many connections there have been.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("ws://").rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()  # guards the two below
        self._sockets: list[socket.socket] = []
        self._refusing = self._hanging = False
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listening.getsockname()[1]}"
        self.accepted = 0
        self._start(self._accept)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="test-relay")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                if self._hanging:
                    self._sockets.append(near)
                    continue
                if self._refusing:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
            self._start(self._copy, near, far)
            self._start(self._copy, far, near)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def cut(self, refuse: bool = False) -> None:
        """End all connections; with `refuse`, new ones end at once, too."""
        with self._lock:
            self._refusing = refuse
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def accept_again(self) -> None:
        with self._lock:
            self._refusing = False

    def hang(self) -> None:
        """Let new connections be, and never say anything."""
        with self._lock:
            self._hanging = True

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut(refuse=True)
        # The first accepts, and starts the others.
        for thread in self._threads:
            thread.join(SECONDS)
        for sock in self._sockets:
            sock.close()


def has_one_line(error: bytes, *words: str) -> None:
    """Check that a program has said one clear line, with these words in it, and nothing else."""
    text = error.decode()
    assert text.startswith("wsep-sync: "), text
    assert text.count("\n") == 1, text
    assert text.endswith("\n"), text
    assert text[:-1].isprintable(), text
    for word in words:
        assert word in text, text
