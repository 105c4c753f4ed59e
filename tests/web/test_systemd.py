"""What a service manager hands over: sockets to listen on, and a socket to report to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import SECONDS
from programs import WSEP_SYNC, environment

from wsep_sync.web import systemd
from wsep_sync.web.systemd import listen_sockets, notify

# Reporting


@pytest.fixture(autouse=True)
def nobody_to_report_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(systemd, "_notify_address", "")


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's socket; "@" begins an abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sock.settimeout(SECONDS)
        yield sock


@pytest.fixture
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:  # a short one: a socket's path has 107 bytes
        yield name


@pytest.mark.parametrize("abstract", [False, True])
def test_reports(monkeypatch: pytest.MonkeyPatch, directory: str, abstract: bool) -> None:
    address = f"@{directory}" if abstract else f"{directory}/socket"
    with manager(address) as sock:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify("READY=1\nSTATUS=all is well…") is True
        assert sock.recv(1000) == "READY=1\nSTATUS=all is well…".encode()
        assert "NOTIFY_SOCKET" not in os.environ  # or commands could report, too
        assert notify("STOPPING=1") is True
        assert sock.recv(1000) == b"STOPPING=1"


def test_nobody_wants_a_report() -> None:
    assert notify("READY=1") is False


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1234", "/no/such/directory/socket", "/" + 200 * "x", "@x"]
)
def test_addresses_where_nobody_is(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify("READY=1") is False
    assert "NOTIFY_SOCKET" not in os.environ


def test_a_manager_that_is_gone(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/socket")
    with manager(f"{directory}/socket"):
        assert notify("READY=1") is True
    assert notify("STOPPING=1") is False  # the path is there, but nobody is behind it
    Path(directory, "socket").unlink()
    assert notify("STOPPING=1") is False


def test_a_manager_that_does_not_read(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.setattr(systemd, "_NOTIFY_TIMEOUT", 0.1)
    monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/socket")
    with manager(f"{directory}/socket"):
        sent = 0
        while notify("STATUS=busy"):
            sent += 1
        assert sent > 0


def test_a_report_that_is_too_long(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/socket")
    with manager(f"{directory}/socket"):
        assert notify("STATUS=" + 10_000_000 * "x") is False


def test_a_report_that_is_no_unicode(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/socket")
    with manager(f"{directory}/socket") as sock:
        assert notify(f"STATUS={os.fsdecode(b'/tmp/' + bytes([0xFF]))}") is True
        assert sock.recv(1000) == b"STATUS=/tmp/?"


# Sockets

PYTHON = [sys.executable, "-W", "error", "-c"]

# As sd_listen_fds(3) says it, descriptors are passed from 3 on, and LISTEN_PID is the pid of who
# gets them, which only that process itself can know before it runs another program.
PASS = """
import fcntl, os, sys
out_of_the_way = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1:3]]
for number, descriptor in enumerate(out_of_the_way, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"""

PRINT = """
import os, sys
from wsep_sync.web.systemd import listen_sockets
try:
    sockets = listen_sockets()
except OSError as error:
    print(type(error).__name__, error.strerror)
else:
    for sock in sockets:
        inherited = os.get_inheritable(sock.fileno())
        print(sock.fileno(), sock.family.name, sock.getsockname(), inherited)
        sock.close()
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
print(listen_sockets())
"""


def passed(
    first: socket.socket | int, second: socket.socket | int | None = None, **variables: str
) -> list[str]:
    """Pass descriptors to a process that takes them; return the lines it prints."""
    first = first if isinstance(first, int) else first.fileno()
    second = first if second is None else second if isinstance(second, int) else second.fileno()
    ran = subprocess.run(
        [*PYTHON, PASS, str(first), str(second), *PYTHON, PRINT],
        env={**os.environ, **variables},
        pass_fds=[first, second],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=SECONDS,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


NOTHING_LEFT = ["[]", "[]"]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_no_sockets_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert listen_sockets() == []


def test_a_socket_is_passed(listening: socket.socket) -> None:
    lines = passed(listening, LISTEN_FDS="1", LISTEN_FDNAMES="web", LISTEN_PIDFDID="1")
    assert lines == [f"3 AF_INET {listening.getsockname()} False", *NOTHING_LEFT]


def test_two_sockets_are_passed(listening: socket.socket, directory: str) -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(f"{directory}/socket")
        local.listen()
        assert passed(listening, local, LISTEN_FDS="2") == [
            f"3 AF_INET {listening.getsockname()} False",
            f"4 AF_UNIX {directory}/socket False",
            *NOTHING_LEFT,
        ]


@pytest.mark.parametrize("count", ["0", "", "-1", "one", "1.0"])
def test_no_number_of_sockets(listening: socket.socket, count: str) -> None:
    assert passed(listening, LISTEN_FDS=count) == NOTHING_LEFT


def test_what_is_passed_is_no_socket() -> None:
    with open(os.devnull) as file:
        error, *rest = passed(file.fileno(), LISTEN_FDS="1")
    assert error == "OSError descriptor 3, from LISTEN_FDS, is no socket"
    assert rest == NOTHING_LEFT


def test_nothing_is_where_a_socket_is_to_be(listening: socket.socket) -> None:
    error, *rest = passed(listening, LISTEN_FDS="1000000000")
    assert "from LISTEN_FDS, is no" in error
    assert rest == NOTHING_LEFT


def test_sockets_that_do_not_listen(listening: socket.socket) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket() as idle,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as connection,
    ):
        for sock in (datagrams, idle, client, connection):
            # The one before it is closed again.
            error, *rest = passed(listening, sock, LISTEN_FDS="2")
            text = "descriptor 4, from LISTEN_FDS, is no stream socket that listens"
            assert error == f"OSError {text}"
            assert rest == NOTHING_LEFT


def test_sockets_for_another_process(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert listen_sockets() == []
    # Nor are they for the commands of this one.
    assert "LISTEN_FDS" not in os.environ
    assert "LISTEN_PID" not in os.environ


def test_what_serve_cannot_take(listening: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, open(os.devnull) as file:
        for second, words in (
            (other, "one socket is all"),
            (file, "descriptor 4, from LISTEN_FDS"),
        ):
            descriptors = [listening.fileno(), second.fileno()]
            done = subprocess.run(
                [*PYTHON, PASS, *map(str, descriptors), *WSEP_SYNC, "serve"],
                env=environment(LISTEN_FDS="2"),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                text=True,
                check=False,
            )
            assert done.returncode == 2, done.stderr
            assert "socket activation: " in done.stderr
            assert words in done.stderr
