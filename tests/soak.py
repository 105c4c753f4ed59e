"""A soak: many clients that do this and that for a long time, and what a server holds afterwards.

    python soak.py --seconds 600 --clients 50 --seed 1

The server is `wsep-sync serve` in a process of its own, with the options it has by default. The
clients are threads of this process; each does one action after the other, chosen at random: plain
commands, terminals, sessions that are left and come back to, two clients on one session, signals,
kills, connections that break, clients that do not read, commands that do not read. The outcome of
each is checked, and the first that is not as it should be fails the run.

The time is cut into four parts. Each begins with all clients beginning sessions at once, and ends
with an idle server: then its threads, descriptors, children and sessions have to be what they were
before the first client came, and this process's threads and descriptors as well.

The first two are the warm-up: what the interpreter and the libraries need once, and the gaps in
pages that are shared with what lasts, they keep. That takes some 2,000 actions: in ten parts of a
minute each, the server held 38.9 MB, then 40.8, and 40.9 to 41.1 after all the others. After the
last part, the server's resident memory has to be within 5 % of what it was after the warm-up.
Nobody tells the server to collect garbage for that; nothing that it drops may have to wait for it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect

sys.path.insert(0, str(Path(__file__).parent / "support"))

from helpers import SECONDS, RawClient, Task, read_until, sh
from session_clients import Client, attach_message, session
from watched import Stock, WatchedServer, settled, watched_server

from wsep_sync import Command, ExitError, Process, StartError, TimeoutExpired, connect, run, spawn

PARTS = 4
WARM_UP = 2  # of them

# How many a client keeps.
SESSIONS = 3

# How much the server's resident memory may have grown.
MAY_GROW = 0.05


class Soak:
    """The clients, and what has come of them.

    Attributes:
        counts: How often each action was done.
        failures: What went wrong, the first of it first.
    """

    def __init__(self, server: WatchedServer, clients: int, seed: int) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._seed = seed
        self._clients = clients
        self._lock = threading.Lock()  # guards counts and failures
        self._idle = server.stock()
        self._idle_here = Stock.of(os.getpid())

    def part(self, number: int, seconds: float) -> None:
        """Let the clients do what they do for so long; then see that nothing of it is left."""
        until = time.monotonic() + seconds
        # Each ends when the time has come, after the action it is at.
        threads = [
            threading.Thread(target=self._be_client, args=(number, i, until), name=f"soak-{i}")
            for i in range(self._clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            return
        try:
            self.server.check()
            sessions = self.server.sessions()
            assert not sessions, f"sessions are left: {sessions}"
            self.server.settled(self._idle)
            settled(os.getpid(), self._idle_here)
        except AssertionError as error:
            self.failures.append(f"after part {number}: {error}")

    def _be_client(self, part: int, number: int, until: float) -> None:
        chance = random.Random(f"{self._seed}/{part}/{number}")
        worker = Worker(self.server, f"{part}.{number}", chance)
        actions, weights = list(ACTIONS), list(ACTIONS.values())
        action: Callable[[Worker], None] = begin_session
        counts: Counter[str] = Counter()
        try:
            for _ in range(SESSIONS):
                begin_session(worker)
            action = actions[number % len(actions)]  # so that each is done in every part
            while True:
                action(worker)
                counts[action.__name__] += 1
                if time.monotonic() >= until or self.failures:
                    break
                action = chance.choices(actions, weights)[0]
            worker.end_sessions()
        except BaseException:
            with self._lock:
                failure = f"client {worker.name} in {action.__name__}:\n{traceback.format_exc()}"
                self.failures.append(failure)
        with self._lock:
            self.counts += counts


@dataclass
class Kept:
    """A session that a client will come back to: what its shell has to know then."""

    id: str
    pid: int
    secret: int


class Worker:
    """One client of many: what it knows from one action to the next."""

    def __init__(self, server: WatchedServer, name: str, chance: random.Random) -> None:
        self.server = server
        self.name = name
        self.chance = chance
        self.sessions: list[Kept] = []
        self._count = 0

    @contextlib.contextmanager
    def started(self, command: Command) -> Iterator[Process]:
        """A command at the server, ended at the end of the block."""
        with connect(self.server.url, timeout=SECONDS) as execer, execer.start(command) as process:
            try:
                yield process
            finally:
                for file in (process.stdout, process.stderr):
                    file.close()

    def attached(self, id: str) -> Client:
        """A client of a session."""
        chance = self.chance
        command = session(id, rows=chance.randint(5, 60), cols=chance.randint(40, 200))
        with connect(self.server.url, timeout=SECONDS) as execer:
            return Client(execer.start(command))

    def number(self) -> int:
        """A number that this client has not had yet."""
        self._count += 1
        return self._count

    def any_session(self) -> Kept:
        """One of the sessions that were left."""
        return self.chance.choice(self.sessions)

    def come_back(self, kept: Kept) -> Client:
        """Attach to a session again, and see that it is the same."""
        client = self.attached(kept.id)
        try:
            assert client.process.reattached
            assert client.process.pid == kept.pid
            ask(client, self.number(), kept)
        except BaseException:
            client.leave()
            raise
        return client

    def end_sessions(self) -> None:
        for kept in self.sessions:
            assert self.server.end_session(kept.id) == 204
        self.sessions.clear()


def ask(client: Client, number: int, kept: Kept) -> None:
    """See that the shell of a session is the one, and what it shows is seen."""
    client.run(b'echo "<$((%d)):$secret>"' % number, b"<%d:%d>" % (number, kept.secret))


def ends_with(process: Process, exit_code: int, *signals: int) -> None:
    """Wait for a command's end, and see that it is this one, by one of these signals if any."""
    ended: tuple[int, int | None] = (0, None)
    try:
        process.wait(SECONDS)
    except ExitError as error:
        ended = (error.exit_code, error.signal)
    assert ended in [(exit_code, signal) for signal in signals or (None,)], ended


# The actions


def hash_input(worker: Worker) -> None:
    """Input of any size arrives whole."""
    data = worker.chance.randbytes(worker.chance.choice((0, 1, 1000, 64_000, 300_000)))
    with worker.started(Command("sha256sum", stdin=True)) as process:
        process.stdin.write(data)
        process.stdin.close()
        assert process.stdout.read().split()[0].decode() == hashlib.sha256(data).hexdigest()
        ends_with(process, 0)


def echo_twice(worker: Worker) -> None:
    """So does output, of both kinds."""
    data = worker.chance.randbytes(worker.chance.choice((1, 5000, 100_000)))
    with worker.started(Command("tee", ["/dev/stderr"], stdin=True)) as process:
        with Task(process.stderr.read) as errors, Task(process.stdout.read) as output:
            process.stdin.write(data)
            process.stdin.close()
            digests = {hashlib.sha256(task.result()).digest() for task in (output, errors)}
        assert digests == {hashlib.sha256(data).digest()}
        ends_with(process, 0)


def fail(worker: Worker) -> None:
    code = worker.chance.randint(1, 255)
    with worker.started(sh("echo $1 >&2; exit $1", str(code))) as process:
        assert process.stderr.read() == b"%d\n" % code
        ends_with(process, code)


def die(worker: Worker) -> None:
    signal = worker.chance.choice((1, 2, 9, 15))
    with worker.started(sh("kill -$1 $$", str(signal))) as process:
        ends_with(process, -1, signal)


def find_nothing(worker: Worker) -> None:
    command = worker.chance.choice(
        (Command("/no/such/program"), Command("true", working_dir="/no"))
    )
    try:
        with worker.started(command):
            raise AssertionError("it was started")
    except StartError as error:
        if not isinstance(error, FileNotFoundError):
            raise


def use_run(worker: Worker) -> None:
    """As scripts do, with a timeout that is kept or not."""
    url = worker.server.url
    lines = [b"%d" % worker.chance.randrange(1000) for _ in range(100)]
    done = run(["sort", "-n"], input=b"\n".join(lines), capture_output=True, url=url)
    assert done.returncode == 0
    assert done.stdout.split() == sorted(lines, key=int)
    if worker.chance.random() < 0.3:
        try:
            run(["sleep", "1000"], timeout=0.1, url=url)
        except TimeoutExpired:
            return
        raise AssertionError("the timeout has not passed")


def use_expect(worker: Worker) -> None:
    script = "read x; echo got $x; read y; exit $y"
    with spawn("sh", ["-c", script], timeout=SECONDS, url=worker.server.url) as child:
        child.sendline("abc")
        child.expect_exact("got abc")
        child.sendline("3")
        child.expect(pexpect.EOF)
        assert child.wait() == 3


def end_it(worker: Worker) -> None:
    """A command that would go on is ended, in one of the ways there are."""
    way = worker.chance.choice(("kill", "signal", "close"))
    with worker.started(Command("sleep", ["1000"])) as process:
        if way == "kill":
            process.kill()
        elif way == "signal":
            process.send_signal(15)
        else:
            process.close()
        ends_with(process, -1, 9 if way == "kill" else 15)


def catch_signal(worker: Worker) -> None:
    script = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.1; done"
    with worker.started(sh(script)) as process:
        assert read_until(process.stdout, b"\n") == b"ready\n"
        process.send_signal(10)
        assert process.stdout.read() == b"caught\n"
        ends_with(process, 7)


def ignore_signals(worker: Worker) -> None:
    """A command that will not end is killed after a while."""
    with worker.started(sh("trap '' TERM HUP; echo ready; while :; do sleep 1; done")) as process:
        assert read_until(process.stdout, b"\n") == b"ready\n"
        process.close()
        ends_with(process, -1, 9)


def break_off(worker: Worker) -> None:
    """The connection ends while the command is at something, without a word or with one."""
    chance = worker.chance
    command = chance.choice(
        (
            Command("sleep", ["1000"]),
            Command("yes"),
            Command("cat", stdin=True),
            Command("cat", tty=True),
            Command("yes", tty=True),
        )
    )
    raw = RawClient(worker.server.url)
    try:
        if chance.random() < 0.9:
            raw.send({"type": "start", "command": _fields(command)})
            for _ in range(chance.randrange(4) if command.command == "yes" else 0):
                raw.receive()
            if command.stdin and chance.random() < 0.5:
                raw.send({"type": "stdin"}, bytes(chance.choice((1, 60_000))))
    finally:
        getattr(raw, chance.choice(("reset", "finish", "hang_up")))()


def _fields(command: Command) -> dict[str, object]:
    return {
        "command": command.command,
        "args": command.args,
        "stdin": command.stdin,
        "tty": command.tty,
    }


def read_nothing(worker: Worker) -> None:
    """A client does not read what it asked for, and then does, or goes."""
    size = 5_000_000
    with worker.started(Command("head", ["-c", str(size), "/dev/zero"])) as process:
        if worker.chance.random() < 0.5:
            process.kill()
        else:
            total = 0
            while piece := process.stdout.read(1 << 20):
                total += len(piece)
            assert total == size
            ends_with(process, 0)


def be_ignored(worker: Worker) -> None:
    """A command does not read what it is sent, and ends."""
    with worker.started(Command("sleep", ["1000"], stdin=True)) as process:

        def write() -> None:
            # Once it has ended, what comes is dropped until the client knows.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.raw.write(bytes(3_000_000))

        with Task(write) as writing:
            if worker.chance.random() < 0.5:
                process.resize(10, 10)
            process.kill()
            writing.result()
        ends_with(process, -1, 9)


def use_terminal(worker: Worker) -> None:
    rows, cols = worker.chance.randint(1, 200), worker.chance.randint(1, 200)
    command = Command("stty", ["size"], tty=True, rows=rows, cols=cols)
    with worker.started(command) as process:
        assert process.stdout.read() == b"%d %d\r\n" % (rows, cols)
        ends_with(process, 0)


def begin_session(worker: Worker) -> None:
    """A session is begun, and left."""
    kept = Kept(f"{worker.name} {worker.number()}", 0, worker.chance.randrange(10**6))
    client = worker.attached(kept.id)
    try:
        assert not client.process.reattached
        kept.pid = client.process.pid
        client.run(b"secret=%d; echo $((%d + 1)) is set" % (kept.secret, 41), b"42 is set")
        worker.sessions.append(kept)
        ask(client, worker.number(), kept)
    finally:
        client.leave()


def return_to_session(worker: Worker) -> None:
    kept = worker.any_session()
    client = worker.come_back(kept)
    try:
        if worker.chance.random() < 0.5:
            rows, cols = worker.chance.randint(5, 60), worker.chance.randint(40, 200)
            client.process.resize(rows, cols)
            client.run(b"stty size", b"%d %d\r\n" % (rows, cols))
        if worker.chance.random() < 0.3:
            client.run(b"seq $((%d)) 20000; echo $((%d + 1))" % (1, 41), b"\r\n20000\r\n42\r\n")
    finally:
        client.leave()


def drop_session(worker: Worker) -> None:
    """A session's connection breaks, perhaps while there is much to show."""
    chance = worker.chance
    kept = worker.any_session()
    raw = RawClient(worker.server.url)
    try:
        raw.send(attach_message(kept.id))
        header, _ = raw.receive()
        assert (header["pid"], header["reattached"]) == (kept.pid, True), header
        if chance.random() < 0.5:
            raw.send({"type": "stdin"}, b"seq 5000\r")
            for _ in range(chance.randrange(3)):
                raw.receive()
    finally:
        getattr(raw, chance.choice(("reset", "finish", "hang_up")))()
    worker.come_back(kept).leave()


def share_session(worker: Worker) -> None:
    """Two clients on one session see the same."""
    kept = worker.any_session()
    first = worker.come_back(kept)
    try:
        second = worker.come_back(kept)
        try:
            number = worker.number()
            start = first.size
            ask(second, number, kept)
            first.until(b"<%d:%d>" % (number, kept.secret), start)
        finally:
            second.leave()
        ask(first, worker.number(), kept)
    finally:
        first.leave()


def end_session(worker: Worker) -> None:
    """A session ends, by itself or because somebody wants it to, and another begins."""
    kept = worker.any_session()
    way = worker.chance.choice(("exit", "kill", "request"))
    client = worker.come_back(kept)
    try:
        worker.sessions.remove(kept)
        if way == "exit":
            client.type(b"exit 3\r")
        elif way == "kill":
            client.process.kill()
        else:
            assert worker.server.end_session(kept.id) == 204
        # A shell that is slow to act on SIGHUP is killed.
        ends_with(client.process, *{"exit": (3,), "kill": (-1, 9), "request": (-1, 1, 9)}[way])
    finally:
        client.leave()
    ids = [info["id"] for info in worker.server.sessions()]
    assert kept.id not in ids
    assert {other.id for other in worker.sessions} <= set(ids)
    begin_session(worker)


# How often each is chosen, compared with the others.
ACTIONS: dict[Callable[[Worker], None], int] = {
    hash_input: 10,
    echo_twice: 8,
    fail: 8,
    die: 4,
    find_nothing: 4,
    use_run: 8,
    use_expect: 5,
    end_it: 6,
    catch_signal: 4,
    ignore_signals: 1,
    break_off: 10,
    read_nothing: 4,
    be_ignored: 4,
    use_terminal: 5,
    return_to_session: 10,
    drop_session: 6,
    share_session: 5,
    end_session: 5,
}


def soak(seconds: float, clients: int, seed: int) -> bool:
    """Do it all, and print how it goes; return whether all was well."""
    say(f"{clients} clients, {seconds:g} seconds, seed {seed}")
    with watched_server() as server:
        soaking = Soak(server, clients, seed)
        say(f"before: {describe(server, server.resident())}")
        memory = []
        for number in range(PARTS):
            soaking.part(number, seconds / PARTS)
            if soaking.failures:
                break
            memory.append(server.resident())
            holds = describe(server, memory[-1])
            say(f"part {number}: {soaking.counts.total()} actions, then {holds}")
        else:
            grown = memory[-1] / memory[WARM_UP - 1] - 1
            say(f"resident memory: {grown:+.2%} since part {WARM_UP - 1}")
            if grown > MAY_GROW:
                soaking.failures.append("that is more than it may have grown")
        for name, count in soaking.counts.most_common():
            say(f"{count:8} {name}")
        # What one runs into, others do as well.
        for failure in soaking.failures[:3]:
            say(f"FAILED: {failure}")
    return not soaking.failures


def describe(server: WatchedServer, resident: int) -> str:
    """Return what the server holds, in numbers."""
    stock = server.stock()
    return (
        f"{stock.threads} threads, {stock.descriptors} descriptors, {stock.children} children, "
        f"{len(server.sessions())} sessions, {resident} bytes resident"
    )


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Many clients at one server, for a long time.")
    parser.add_argument("--seconds", type=float, default=600, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="of all that is random (default: a random one)")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    return 0 if soak(arguments.seconds, arguments.clients, seed) else 1


if __name__ == "__main__":
    sys.exit(main())
