"""The limits of the kernel are reached: descriptors, and processes, which threads are as well.

A limit is lowered so far that a certain number of descriptors or processes can still be had, then
one more, and so on: so whatever the code asks for fails once. Each time the client has a clear
error, nothing is left of the attempt, and those who were there before do not notice anything.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import programs
import pytest
from faults import rest, site, status
from helpers import NOBODY, SECONDS, eventually, gone, listening, read_until, sh
from programs import environment, has_one_line, server_process
from session_clients import session

from wsep_sync import Command, connect
from wsep_sync.errors import ConnectError, ExitMissing, StartError, TransportClosed, WsepError

COMMANDS = {
    "pipes": sh("read -r line; exit 3", stdin=True),
    "terminal": sh("read -r line; exit 3", tty=True),
    "session": session("new", "sh", "-c", "exit 3"),
}

# As another user, which needs a launcher.
OTHERS = {
    "pipes of nobody": sh("read -r line; exit 3", stdin=True, uid=NOBODY),
    "terminal of nobody": sh("read -r line; exit 3", tty=True, uid=NOBODY),
}


@dataclass(frozen=True)
class Stock:
    """What a process has."""

    descriptors: int
    threads: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Stock:
        children = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                children += len((task / "children").read_text().split())
        return cls(
            len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")), children
        )


def attempt(url: str, command: Command, timeout: float) -> WsepError | None:
    """Run a command; return the error that it was refused with."""
    try:
        # For the id from the start: another connection would take the place of the command.
        connection = connect(url, timeout=timeout, session_id=command.id)
        with connection as execer, execer.start(command) as process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.raw.write(b"text\n")
            process.stdin.close()
            rest(process.stdout)
            assert status(process) == 3
    except (ConnectError, StartError, TransportClosed, ExitMissing) as error:
        return error
    return None


@dataclass(frozen=True)
class Limited:
    """A server whose limits can be lowered.

    Attributes:
        url: Where it listens.
        pid: Its process.
        user: What a program is started with so that it runs as the server's user.
    """

    url: str
    pid: int
    user: tuple[str, ...] = ()

    @contextlib.contextmanager
    def lowered(self, name: str, limit: int) -> Iterator[None]:
        """Lower a limit, called as prlimit(1) does, for a while."""
        former = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[0]
        self.set(name, limit)
        try:
            yield
        finally:
            self.set(name, former)

    def set(self, name: str, limit: int) -> None:
        value = "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
        # By another program, for it has to be of the server's user.
        subprocess.run(
            [*self.user, "prlimit", f"--pid={self.pid}", f"--{name}={value}:"], check=True
        )

    def descriptors(self, spare: int) -> int:
        """The limit that leaves it so many descriptors."""
        used = {int(name) for name in os.listdir(f"/proc/{self.pid}/fd")}
        limit = 0
        while spare or limit in used:
            spare -= limit not in used
            limit += 1
        return limit

    def processes(self, spare: int) -> int:
        """The limit that leaves its user so many processes, threads included."""
        return spare + _tasks(_user(self.pid))

    def sweep(self, command: Command, name: str, limit: Callable[[int], int]) -> list[WsepError]:
        """Try a command with nothing to spare, then with one more, until it works.

        Returns:
            The errors that there were.
        """
        stock = Stock.of(self.pid)
        errors = []
        for spare in range(50):
            with self.lowered(name, limit(spare)):
                # With nothing at all to spare, it may get no answer.
                error = attempt(self.url, command, SECONDS if spare else 0.5)
            self._given_back(stock)
            assert attempt(self.url, command, SECONDS) is None
            self._given_back(stock)
            if error is None:
                return errors
            errors.append(error)
        raise AssertionError(f"it never works: {errors[-1]}")

    def _given_back(self, stock: Stock) -> None:
        try:
            eventually(lambda: Stock.of(self.pid) == stock, "all to be given back", SECONDS / 2)
        except AssertionError as error:
            raise AssertionError(f"{Stock.of(self.pid)} was {stock}") from error


def _user(pid: int | str) -> int:
    """The real user id of a process, see proc_pid_status(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nUid:\t")[2].split()[0])


def _tasks(uid: int) -> int:
    count = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _user(name) == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


@contextlib.contextmanager
def old_client(url: str) -> Iterator[Callable[[], None]]:
    """A client that is there already; what it yields sees that it is served."""
    with (
        connect(url, timeout=SECONDS) as execer,
        execer.start(Command("cat", stdin=True)) as process,
    ):

        def served() -> None:
            process.stdin.raw.write(b"a line\n")
            assert process.stdout.readline() == b"a line\n"

        served()
        yield served
        served()
        process.stdin.close()
        assert status(process) == 0


# Descriptors


@pytest.mark.parametrize("kind", [*COMMANDS, *OTHERS])
def test_the_server_has_no_more_descriptors(kind: str) -> None:
    if kind in OTHERS and os.geteuid():
        pytest.skip("to run something as somebody else, one has to be root")
    with server_process() as (url, server), old_client(url) as served:
        limited = Limited(url, server.pid)
        command = (COMMANDS | OTHERS)[kind]
        errors = limited.sweep(command, "nofile", limited.descriptors)
        # With no descriptor for the connection, it waits until there is one again.
        assert "no answer" in str(errors[0])
        starts = [error for error in errors if isinstance(error, StartError)]
        # The others are about the connection, which comes first.
        assert errors[-len(starts) :] == starts
        # It is refused, with the reason, and not accepted and then cut.
        refused = errors[1 : -len(starts)]
        assert [getattr(error, "status", error) for error in refused] == [503] * len(refused)
        assert refused
        assert len(starts) > 3
        assert all("Too many open files" in str(error) for error in starts)
        served()


def test_clients_beyond_the_limit_of_descriptors() -> None:
    with server_process() as (url, server), contextlib.ExitStack() as stack:
        limited = Limited(url, server.pid)
        with limited.lowered("nofile", limited.descriptors(60)):
            clients: list[tuple[contextlib.ExitStack, Callable[[], None]]] = []
            errors = 0
            while errors < 3:
                try:
                    client = contextlib.ExitStack()
                    served = client.enter_context(old_client(url))
                except (ConnectError, StartError, TransportClosed):
                    errors += 1
                else:
                    stack.push(client)
                    clients.append((client, served))
            assert len(clients) > 3
            for _, served in clients:
                served()
            # One goes, and another one can come.
            clients[0][0].close()
            eventually(
                lambda: attempt(url, COMMANDS["pipes"], SECONDS) is None, "the room for another"
            )


# Processes, and threads

_users = itertools.count()


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What a program is started with so that it runs as a user whom nobody else is.

    The limit is on all that a user runs, and does not hold for root.
    """
    if os.geteuid():
        pytest.skip("to be another user, one has to be root")
    # Not even a test before, whose processes may not be quite gone.
    uid = 1_000_000 + 100 * os.getpid() + next(_users)
    user = (
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        # Python itself may lie where only root can look.
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
        "--bounding-set=-all,+dac_override",
    )
    monkeypatch.setattr(programs, "WSEP_SYNC", [*user, *programs.WSEP_SYNC])
    return user


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_server_has_no_more_processes(kind: str, user: tuple[str, ...]) -> None:
    with server_process() as (url, server), old_client(url) as served:
        limited = Limited(url, server.pid, user)
        errors = limited.sweep(COMMANDS[kind], "nproc", limited.processes)
        # First there is no thread for the connection; then nothing for the command; and last no
        # threads for its outputs and its input.
        assert isinstance(errors[0], ConnectError)
        assert errors[0].status == 503
        assert isinstance(errors[1], StartError)
        assert "Resource temporarily unavailable" in str(errors[1])
        for error in errors[2:]:
            assert isinstance(error, (StartError, ExitMissing))
            assert re.search("temporarily unavailable|can't start new thread", str(error))
        served()


def test_typing_while_there_are_no_more_threads(user: tuple[str, ...]) -> None:
    script = 'stty -echo; echo ready; read -r line; echo "got $line"; exit 3'
    with (
        server_process() as (url, server),
        connect(url, timeout=SECONDS) as execer,
        execer.start(session("s", "sh", "-c", script)) as process,
    ):
        read_until(process.stdout, b"ready\r\n")
        limited = Limited(url, server.pid, user)
        with limited.lowered("nproc", limited.processes(0)):
            process.stdin.raw.write(b"text\n")
            assert rest(process.stdout) == (b"got text\r\n", True)
        assert status(process) == 3


def test_input_that_has_to_wait_while_there_are_no_more_threads(
    user: tuple[str, ...], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    # Until somebody writes to the FIFO, nothing is read from the terminal.
    part = 'read -r line < "$1"; head -c 500000 | wc -c'
    script = f"stty raw -echo; echo on; read -r line; echo ready; {part}; {part}; exit 3"
    command = session("s", "sh", "-c", script, "sh", str(tmp_path / "fifo"))

    def threads() -> int:
        return len(os.listdir(f"/proc/{server.pid}/task"))

    with (
        server_process() as (url, server),
        connect(url, timeout=SECONDS) as execer,
        execer.start(command) as process,
    ):
        read_until(process.stdout, b"on\n")
        # Whoever takes this has started all threads of the connection.
        process.stdin.raw.write(b"\n")
        read_until(process.stdout, b"ready\n")
        before = threads()
        process.stdin.raw.write(bytes(500_000))
        (tmp_path / "fifo").write_text("go\n")
        read_until(process.stdout, b"500000\n")
        assert threads() == before  # which wait for everything
        limited = Limited(url, server.pid, user)
        with limited.lowered("nproc", limited.processes(0)):
            process.stdin.raw.write(bytes(500_000))
            with pytest.raises(TimeoutError):
                process.wait(0.1)
        (tmp_path / "fifo").write_text("go\n")
        assert rest(process.stdout) == (b"500000\n", True)
        assert status(process) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_server_while_there_are_no_more_threads(
    number: signal.Signals, user: tuple[str, ...]
) -> None:
    with server_process("--grace", "0.1") as (url, server), contextlib.ExitStack() as stack:
        pids = []
        for id in ("one", "two"):
            execer = stack.enter_context(connect(url, timeout=SECONDS))
            process = stack.enter_context(execer.start(session(id, "sh", "-c", "echo on; cat")))
            read_until(process.stdout, b"on\r\n")
            pids.append(process.pid)
        limited = Limited(url, server.pid, user)
        limited.set("nproc", 0)
        server.send_signal(number)
        gone(*pids)
        server.finish()


# At the client

CLIENT = """if True:
    import os, resource, sys, time
    from wsep_sync import Command, WsepError, connect

    url, name = sys.argv[1:]
    kind = getattr(resource, f"RLIMIT_{name.upper()}")

    def attempt():
        with connect(url, timeout=30) as execer:
            with execer.start(Command("cat", stdin=True)) as process:
                process.stdin.write(b"text")
                process.stdin.close()
                assert process.stdout.read() == b"text"
                process.wait()

    def stock():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    def limit(spare):
        if name == "nproc":
            return spare + len(os.listdir("/proc/self/task"))
        used, number = set(map(int, os.listdir("/proc/self/fd"))), 0
        while spare or number in used:
            spare -= number not in used
            number += 1
        return number

    def settled():
        # A thread that was joined may still be seen for a moment.
        deadline = time.monotonic() + 20
        while stock() != before:
            assert time.monotonic() < deadline, (spare, error, before, stock())
            time.sleep(0.005)

    before = stock()
    spare = error = None
    attempt()
    for spare in range(50):
        settled()
        former = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit(spare), former[1]))
        error = None
        try:
            attempt()
        except (WsepError, OSError, RuntimeError) as caught:
            error = f"{type(caught).__name__}: {caught}"
        finally:
            resource.setrlimit(kind, former)
        settled()
        attempt()
        if error is None:
            break
        print(error)
"""


@pytest.mark.parametrize("name", ["nofile", "nproc"])
def test_the_client_has_no_more(name: str, request: pytest.FixtureRequest) -> None:
    with listening() as listener:
        user = request.getfixturevalue("user") if name == "nproc" else ()
        done = subprocess.run(
            [*user, sys.executable, "-W", "error", "-c", CLIENT, listener.url, name],
            capture_output=True,
            timeout=SECONDS,
            env=environment(),
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    errors = done.stdout.decode().splitlines()
    words = {"nofile": "Too many open files", "nproc": "can't start new thread"}[name]
    assert errors
    assert all(words in error for error in errors), errors


@pytest.mark.parametrize("subcommand", ["notty", "tty"])
def test_the_command_line_has_no_more_threads(subcommand: str, user: tuple[str, ...]) -> None:
    with site() as place:
        for limit in range(1, 20):
            client = [*programs.WSEP_SYNC, subcommand, "--url", place.url, "--timeout", "30"]
            done = subprocess.run(
                ["prlimit", f"--nproc={limit}:", *client, "--", "sh", "-c", "read -r line; exit 3"],
                input=b"text\n",
                capture_output=True,
                timeout=SECONDS,
                env=environment(),
                check=False,
            )
            if done.returncode == 3:
                break
            assert done.returncode == 1
            has_one_line(done.stderr, "can't start new thread")
            place.settled()
        assert done.returncode == 3
        assert limit > 1
