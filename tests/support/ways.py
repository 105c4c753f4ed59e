"""Every way to run a command, and what the contract's tests share.

To put another under the contract, add a context manager that yields it to `EXECERS`. Its commands
have to run on this machine, as this user: the tests look at their processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from certificates import certificates
from helpers import SECONDS, MemoryExecer, Task, listening, sh
from sshd import sshd
from wsgi_servers import Programs

from wsep_sync import Command, Execer, ExitError, LocalExecer, Process, RemoteExecer, connect

# Runs until the signal in its first argument comes; then says so, and exits with 5. A shell acts
# on a signal while it waits for a job, not while it runs a command.
TRAP = """
    trap 'kill -9 $! 2> /dev/null; echo got; exit 5' $1
    sleep 1000 & echo ready
    while :; do wait; done
"""


@contextlib.contextmanager
def over_a_socket() -> Iterator[Execer]:
    with listening() as listener, connect(listener.url) as execer:
        yield execer


@contextlib.contextmanager
def over_tls() -> Iterator[Execer]:
    contexts = certificates()
    with (
        listening(ssl_context=contexts.server) as listener,
        connect(listener.url, ssl_context=contexts.client) as execer,
    ):
        yield execer


@contextlib.contextmanager
def over_two_hops() -> Iterator[Execer]:
    with (
        listening() as back,
        listening(lambda: connect(back.url)) as front,
        connect(front.url) as execer,
    ):
        yield execer


@contextlib.contextmanager
def over_ssh() -> Iterator[Execer]:
    with sshd() as host, host.connect() as execer:
        yield execer


# Servers that run as they would anywhere, each in a process of its own for all tests.
PROGRAMS = Programs()


def over(name: str) -> Callable[[], RemoteExecer]:
    return lambda: connect(PROGRAMS.url(name), timeout=SECONDS)


EXECERS: dict[str, Callable[[], AbstractContextManager[Execer]]] = {
    "local": LocalExecer,
    "memory": MemoryExecer,
    "socket": over_a_socket,
    "tls": over_tls,
    "chain": over_two_hops,
    "ssh": over_ssh,
    **{name: over(name) for name in PROGRAMS.names},
}

# What has parts that have to be installed, and take their time to start.
LONG = {"ssh", *PROGRAMS.names}


def params(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in names]


def not_over(*names: str) -> pytest.MarkDecorator:
    """For a test that cannot hold over some execers; the test says why."""
    others = [name for name in EXECERS if name not in names]
    return pytest.mark.parametrize("way", params(others), indirect=True, scope="session")


def run(execer: Execer, command: Command, data: bytes = b"") -> tuple[bytes, bytes]:
    """Run a command to a good end; return its two outputs."""
    with execer.start(command) as process, Task(process.stderr.read) as stderr:
        if command.stdin:
            writing = Task(feed, process, data)
        out = process.stdout.read()
        if command.stdin:
            writing.result()
        process.wait(SECONDS)
        return out, stderr.result()


def feed(process: Process, data: bytes) -> None:
    process.stdin.write(data)
    process.stdin.close()


def failure(process: Process) -> ExitError:
    """Wait for a command that does not end well, and say how it ended."""
    with pytest.raises(ExitError) as caught:
        process.wait(SECONDS)
    return caught.value


def sends(process: Process, text: bytes) -> None:
    process.stdin.write(text)
    process.stdin.flush()


def terminal(execer: Execer, script: str, *args: str, **fields: object) -> Process:
    return execer.start(sh(script, *args, tty=True, **fields))
