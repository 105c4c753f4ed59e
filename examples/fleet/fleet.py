"""Three servers behind HAProxy, on this machine: sessions are found, drained and lost.

    python fleet.py

It needs haproxy 2.6 or later (apt install haproxy), and uses haproxy.cfg as it is but for the
addresses in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from wsep_sync import Command, ExitMissing, RemoteExecer, connect

CONFIGURATION = Path(__file__).parent / "haproxy.cfg"
NAMES = ("one", "two", "three")


class Fleet:
    """Servers, each in a process of its own, and HAProxy in front of them.

    Attributes:
        url: Where clients connect.
        urls: Of the servers themselves, by name.
        servers: Their processes, by name.
    """

    def __init__(self) -> None:
        program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if program is None:
            raise FileNotFoundError("haproxy is missing: install it, as with apt install haproxy")
        self.urls: dict[str, str] = {}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        with contextlib.ExitStack() as cleanup:
            directory = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wsep-fleet-"))
            for name in NAMES:
                self._start_server(name, cleanup)
            for name, server in self.servers.items():
                assert server.stdout is not None
                line = server.stdout.readline().decode()
                self.urls[name] = line.removeprefix("listening on ").strip()
            # Listens from now on, for HAProxy, and no port can be taken meanwhile.
            listening = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
            self._admin = f"{directory}/admin"
            configuration = Path(directory, "haproxy.cfg")
            configuration.write_text(self._configuration(listening.fileno()))
            proxy = subprocess.Popen(
                [program, "-q", "-db", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
            )
            cleanup.callback(_end, proxy)
            self.url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
            listening.close()
            self._cleanup = cleanup.pop_all()

    def _start_server(self, name: str, cleanup: contextlib.ExitStack) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsep_sync", "serve", "--port", "0"],
            # For the commands, which find it in their environment.
            env={**os.environ, "FLEET_SERVER": name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the log
        )
        cleanup.callback(_end, process)
        self.servers[name] = process

    def _configuration(self, listening: int) -> str:
        text = CONFIGURATION.read_text()
        replaced = {
            "stats socket /run/haproxy/wsep.sock": f"stats socket {self._admin}",
            "bind 127.0.0.1:8080": f"bind fd@{listening}",
        }
        for number, name in enumerate(NAMES, 1):
            replaced[f"10.0.0.{number}:8080"] = self.urls[name].removeprefix("ws://")
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, new)
        return text

    def set_state(self, name: str, state: str) -> None:
        """Tell HAProxy how to use a server: `drain` or `ready`."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._admin)
            sock.sendall(f"set server sessions/{name} state {state}\n".encode())
            answer = b""
            while piece := sock.recv(4096):
                answer += piece
        if answer.strip():
            raise RuntimeError(answer.decode())

    def health(self, name: str) -> dict[str, int]:
        """Ask a server itself how it is."""
        url = self.urls[name].replace("ws://", "http://") + "/healthz"
        with urllib.request.urlopen(url, timeout=10) as response:
            health: dict[str, int] = json.load(response)
            return health

    def kill(self, name: str) -> None:
        """Let a server vanish."""
        self.servers[name].kill()
        self.servers[name].wait()

    def close(self) -> None:
        self._cleanup.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # for SIGTERM a server waits for what runs
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def server_of_a_command(execer: RemoteExecer) -> str:
    """Run a command without an id; return the name of the server that ran it."""
    with execer.start(Command("sh", ["-c", "echo $FLEET_SERVER"])) as process:
        name = process.stdout.read().decode().strip()
        process.wait()
        return name


def visit(execer: RemoteExecer, id: str) -> tuple[str, bool]:
    """Attach to a session, or begin it, and leave it.

    Returns:
        The name of its server, and whether it was there before.
    """
    with execer.start(session(id)) as process:
        # Whoever comes back is shown what the terminal shows.
        for line in process.stdout:
            if found := re.search(rb"server=(\w+)", line):
                return found[1].decode(), process.reattached
        raise AssertionError("the session has ended")


def session(id: str) -> Command:
    script = "stty -echo; echo server=$FLEET_SERVER; exec cat"
    return Command("sh", ["-c", script], tty=True, id=id)


def main() -> None:
    ids = [f"job-{number}" for number in range(12)]
    with Fleet() as fleet, connect(fleet.url, timeout=30) as execer:
        commands = Counter(server_of_a_command(execer) for _ in range(12))
        print("12 commands:", *(f"{commands[name]} on {name}," for name in NAMES))

        where = {id: visit(execer, id)[0] for id in ids}
        spread = Counter(where.values())
        print("12 sessions:", *(f"{spread[name]} on {name}," for name in NAMES))
        found = sum(visit(execer, id) == (where[id], True) for id in ids)
        print(f"{found} of 12 are found again")

        fleet.set_state("two", "drain")
        found = sum(visit(execer, id) == (where[id], True) for id in ids)
        new = Counter(visit(execer, f"new-{number}")[0] for number in range(12))
        print(f"two drains: {found} of 12 are found, new ones are on {', '.join(sorted(new))}")
        fleet.set_state("two", "ready")

        lost = next(id for id in ids if where[id] == "three")
        with execer.start(session(lost)) as process:
            fleet.kill("three")
            try:
                process.wait(30)
            except ExitMissing as error:
                print(f"three is killed: {lost}: {error}")
        began = time.monotonic()
        name, reattached = visit(execer, lost)
        assert not reattached
        print(f"{lost} is begun anew on {name}, {time.monotonic() - began:.1f} seconds later")
        others = [id for id in ids if where[id] != "three"]
        found = sum(visit(execer, id) == (where[id], True) for id in others)
        print(f"{found} of the other {len(others)} are found")


if __name__ == "__main__":
    main()
