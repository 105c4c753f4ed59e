"""What the tests of faults share: a server that is watched, and a dialogue to be broken.

After a fault, the server has to be as it was before: the command has ended, no thread, process or
descriptor is left, and the next client is served.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import ssl
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from helpers import SECONDS, alive, eventually, gone, serving, sh
from tcp_proxy import AFTER, CUTS, DOWN, PARTS, UP, Fault, Proxy

from wsep_sync import Command, Execer, LocalExecer, Options, Process, RemoteExecer, Server, connect
from wsep_sync.errors import ConnectError, ExitError, ExitMissing, StartError, TransportClosed
from wsep_sync.serving.server import ExecerFactory
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

# A message by where it goes, what it is, and which of its kind.
Step: TypeAlias = "tuple[str, str, int]"


class Remembering(Execer):
    """Runs commands on this machine.

    Attributes:
        pids: The process ids of all that it has started.
    """

    def __init__(self) -> None:
        self.pids: list[int] = []

    def start(self, command: Command) -> Process:
        process = LocalExecer().start(command)
        self.pids.append(process.pid)
        return process


class Site:
    """A server in this process.

    Attributes:
        server: Keeps its sessions.
        url: Where it listens.
        execer: Runs its commands, unless it passes them on to another server.
    """

    def __init__(
        self, server: Server, url: str, execer: Remembering, context: ssl.SSLContext | None
    ) -> None:
        self.server = server
        self.url = url
        self.execer = execer
        self._context = context
        self._take_stock()

    def _take_stock(self) -> None:
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()

    @contextlib.contextmanager
    def proxy(self, *faults: Fault, **options: Any) -> Iterator[Proxy]:
        """Put a proxy in front of it."""
        with Proxy(self.url, *faults, **options) as proxy:
            self._take_stock()
            yield proxy
        self._take_stock()

    def connect(self, url: str = "", session_id: str = "") -> RemoteExecer:
        return connect(
            url or self.url, timeout=SECONDS, session_id=session_id, ssl_context=self._context
        )

    def settled(self, *running: int) -> None:
        """Wait until nothing is left of the clients there were; then serve one more.

        Args:
            running: Process ids of the sessions that have to live on, with nobody attached.
        """
        if not running:
            _gone_again(lambda: set(threading.enumerate()) - self._threads)
            _gone_again(lambda: _descriptors() - self._descriptors)
        eventually(lambda: not any(s.clients for s in self.server.sessions()), "clients to leave")
        gone(*(pid for pid in self.execer.pids if pid not in running))
        assert [session.pid for session in self.server.sessions()] == list(running)
        assert all(alive(pid) for pid in running)
        self.serves()

    def serves(self) -> None:
        """Run a command over a connection of its own."""
        with self.connect() as execer, execer.start(sh("cat; exit 7", stdin=True)) as process:
            process.stdin.write(b"the next client")
            process.stdin.close()
            assert process.stdout.read() == b"the next client"
            assert status(process) == 7


def _descriptors() -> set[tuple[str, str]]:
    """The numbers and names of what is open, but for files: those are pytest's."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed the directory
            name = os.readlink(f"/proc/self/fd/{number}")
            if not name.startswith("/") or name.startswith("/dev/pt"):
                found.add((number, name))
    return found


def _gone_again(left: Callable[[], Collection[object]]) -> None:
    """Wait until nothing is left."""
    try:
        eventually(lambda: not left(), "the end of all that is left", SECONDS / 2)
    except AssertionError as error:
        raise AssertionError(f"left behind: {left()}") from error


class _Complaints(logging.Handler):
    """Collects what is logged that no daily event is worth."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


@contextlib.contextmanager
def site(
    factory: ExecerFactory | None = None,
    server_context: ssl.SSLContext | None = None,
    client_context: ssl.SSLContext | None = None,
) -> Iterator[Site]:
    """Serve; at the end, look whether anything was logged that only a bug would cause.

    Args:
        factory: Makes what commands are passed on to, if they are not to run here.
    """
    server = Server()
    execer = Remembering()
    complaints = _Complaints()
    logging.getLogger("wsep_sync").addHandler(complaints)
    try:
        # Clients may be slow here.
        app = application(server, factory or execer, Options(start_timeout=SECONDS))
        listener = Listener(app, ssl_context=server_context, head_timeout=SECONDS)
        with serving(listener):
            try:
                yield Site(server, listener.url, execer, client_context)
            finally:
                server.close()
    finally:
        logging.getLogger("wsep_sync").removeHandler(complaints)
    assert not complaints.lines, "\n".join(complaints.lines)


def status(process: Process) -> int:
    """Wait for the command's end; its exit status."""
    try:
        process.wait(SECONDS)
    except ExitError as error:
        return error.exit_code
    return 0


def rest(file: Any) -> tuple[bytes, bool]:
    """Read what is left of an output; return it, and whether it ended as it should."""
    got = b""
    try:
        while data := file.read1(1 << 16):
            got += data
    except ExitMissing:
        return got, False
    return got, True


# A dialogue that has every kind of message that a command on pipes has

# Answers a line on each output, copies what follows, and fails.
SCRIPT = 'read -r a; echo "$a"; read -r b; echo "$b" >&2; cat; exit 3'

# What passes while it runs, one after the other: nobody says anything before the other has.
DIALOGUE: list[Step] = [
    (UP, "request", 1),
    (DOWN, "answer", 1),
    (UP, "start", 1),
    (DOWN, "pid", 1),
    (UP, "stdin", 1),
    (DOWN, "stdout", 1),
    (UP, "stdin", 2),
    (DOWN, "stderr", 1),
    (UP, "stdin", 3),
    (DOWN, "stdout", 2),
    (UP, "close_stdin", 1),
    (DOWN, "ended", 1),
    (DOWN, "exit_code", 1),
    (UP, "close", 1),
    (DOWN, "close", 1),
]


@dataclass
class Told:
    """What a dialogue came to, as the client has it."""

    out: bytes = b""
    err: bytes = b""
    ended: bool = False  # both outputs, as they should
    # Why there was no command, or how it ended; the exception itself would keep descriptors.
    error: type[Exception] | None = None


def talk(place: Site, url: str) -> Told:
    """Have the dialogue, as far as it goes."""
    told = Told()
    try:
        with place.connect(url) as execer, execer.start(sh(SCRIPT, stdin=True)) as process:
            told.out, told.err, told.ended = converse(process)
            told.error = how_ended(process)
            assert how_ended(process) is told.error
            useless(process)
    except (ConnectError, StartError, TransportClosed) as error:
        told.error = type(error)
    return told


def how_ended(process: Process) -> type[Exception]:
    """Wait for the end of a command; what it raises, which never is a success here."""
    try:
        process.wait(SECONDS)
    except ExitMissing:
        return ExitMissing
    except ExitError as error:
        if error.exit_code == 3:
            return ExitError
        raise
    raise AssertionError("a success")


def converse(process: Process) -> tuple[bytes, bytes, bool]:
    """The client's part: both outputs, and whether they ended as they should."""
    out = err = b""
    with contextlib.suppress(BrokenPipeError, ExitMissing):
        process.stdin.raw.write(b"one\n")
        out += process.stdout.readline()
        process.stdin.raw.write(b"two\n")
        err += process.stderr.readline()
        process.stdin.raw.write(b"three\n")
        out += process.stdout.readline()
        process.stdin.close()
    more_out, out_ended = rest(process.stdout)
    more_err, err_ended = rest(process.stderr)
    return out + more_out, err + more_err, out_ended and err_ended


def useless(process: Process) -> None:
    """Check that nothing can be done with a command that is over, or lost, and does no harm."""
    if not process.stdin.closed:
        with pytest.raises(BrokenPipeError):
            process.stdin.raw.write(b"more")
    process.resize(24, 80)
    process.send_signal(15)
    process.kill()


def expected(whole: list[Step]) -> Told:
    """What the dialogue comes to when no more than this has passed."""
    told = Told()
    if (DOWN, "answer", 1) not in whole:
        told.error = ConnectError
    elif (DOWN, "pid", 1) not in whole:
        told.error = TransportClosed
    else:
        told.error = ExitMissing
    if (DOWN, "stdout", 1) in whole:
        told.out += b"one\n"
    if (DOWN, "stderr", 1) in whole:
        told.err += b"two\n"
    if (DOWN, "stdout", 2) in whole:
        told.out += b"three\n"
    if (DOWN, "ended", 1) in whole:
        told.error = ExitError
    if (DOWN, "exit_code", 1) in whole:
        told.ended = True
    return told


def passed(proxy: Proxy) -> list[Step]:
    """What has passed whole, as the dialogue has it."""
    counts: dict[tuple[str, str], int] = {}
    found: list[Step] = []
    for unit in proxy.units:
        key = unit.direction, unit.name
        if unit.name == "eof":  # whether one output ends sooner than the other is chance
            continue
        counts[key] = counts.get(key, 0) + 1
        found.append((*key, counts[key]))
    return found


# A connection that has ended before anything was asked on it is replaced with another one.
REPLACED = [(DOWN, "answer", 1, AFTER)]


def name(step: Step) -> str:
    """A step in the name of a test."""
    return " ".join(map(str, step[: 2 + (step[2] > 1)]))


def cuts(dialogue: list[Step]) -> Any:
    """Every way to cut it, but where the client would connect again."""
    return pytest.mark.parametrize(
        ("step", "part", "how"),
        [
            pytest.param(step, part, how, id=f"{how} {part} {name(step)}")
            for step, part, how in itertools.product(dialogue, PARTS, CUTS)
            if (*step, part) not in REPLACED
        ],
    )
