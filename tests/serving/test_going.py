"""The server: clients that go away, and what they leave behind, which is nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import RawClient, ends_processes, eventually, gone, sh, start_message, state

from wsep_sync import Command

# A client that goes away

GOING = {
    "with a close frame": RawClient.hang_up,
    "with a FIN": RawClient.finish,
    "with a reset": RawClient.reset,
}


@pytest.fixture(params=GOING)
def go(request: pytest.FixtureRequest) -> Callable[[RawClient], None]:
    return GOING[request.param]


def read_numbers(client: RawClient, count: int) -> list[int]:
    """The first lines of the output, each a number."""
    out = b""
    while out.count(b"\n") < count:
        header, body = client.receive()
        if header["type"] == "stdout":
            out += body
    return [int(line) for line in out.split(b"\n")[:count]]


def test_an_idle_command_ends_with_its_client(url: str, go: Callable[[RawClient], None]) -> None:
    with RawClient(url) as client:
        pid = client.start(sh("sleep 1000 & echo $!; sleep 1000 & echo $!; wait"))
        pids = [pid, *read_numbers(client, 2)]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_a_terminal_ends_with_its_client(url: str, go: Callable[[RawClient], None]) -> None:
    with RawClient(url) as client:
        pid = client.start(sh("sleep 1000 & echo $!; wait", tty=True))
        pids = [pid, *read_numbers(client, 1)]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_an_interactive_shell_ends_with_its_client_and_its_job(
    url: str, go: Callable[[RawClient], None]
) -> None:
    with RawClient(url) as client:
        pid = client.start(Command("bash", ["--norc", "--noprofile", "-i"], tty=True))
        client.send({"type": "stdin"}, b"sh -c 'echo :$$:; exec sleep 1000'\n")
        out = b""
        while len(words := out.split(b":")) < 3 or not words[-2].isdigit():
            out += client.receive()[1]
        pids = [pid, int(words[-2])]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_a_command_that_writes_ends_with_its_client(
    url: str, go: Callable[[RawClient], None]
) -> None:
    with RawClient(url) as client:
        pid = client.start(sh("sh -c 'echo $$; exec yes' & exec yes >&2"))
        child = read_numbers(client, 1)[0]
        with ends_processes(pid, child):
            for _ in range(20):
                client.receive()
            go(client)
            gone(pid, child)


def test_a_command_whose_client_does_not_read_ends_with_it(
    url: str, go: Callable[[RawClient], None]
) -> None:
    with RawClient(url) as client:
        pid = client.start(Command("yes"))
        with ends_processes(pid):
            # Until everything on the way is full, the command writes.
            eventually(lambda: sleeps(pid), "a full pipe")
            go(client)
            gone(pid)


def sleeps(pid: int) -> bool:
    for _ in range(20):
        if state(pid) != "S":
            return False
        time.sleep(0.005)
    return True


def test_a_command_that_ignores_all_but_sigkill(
    url: str, go: Callable[[RawClient], None], short_grace: None
) -> None:
    with RawClient(url) as client:
        script = "trap '' HUP TERM; sleep 1000 & echo $!; wait; wait"
        pid = client.start(sh(script))
        pids = [pid, *read_numbers(client, 1)]
        with ends_processes(*pids):
            go(client)
            gone(*pids)


def test_sighup_comes_first(url: str, tmp_path: Any) -> None:
    script = """
        trap '' TERM  # which comes at once after it
        trap 'kill -9 $!; echo hup > "$1"; exit' HUP
        sleep 1000 & echo $$
        while :; do wait; done
    """
    with RawClient(url) as client:
        pid = client.start(sh(script, str(tmp_path / "seen")))
        read_numbers(client, 1)
        with ends_processes(pid):
            client.hang_up()
            gone(pid)
    assert (tmp_path / "seen").read_text() == "hup\n"


def test_megabytes_of_input_that_nobody_reads(url: str, go: Callable[[RawClient], None]) -> None:
    # A client without marks, that sends nearly all that the server takes. (Loopback's kernel gives
    # a socket with something unread no window for more, so that not even a FIN would come behind.)
    with RawClient(url) as client:
        pid = client.start(Command("sleep", ["1000"], stdin=True))
        with ends_processes(pid):
            for _ in range(55):
                client.send({"type": "stdin"}, bytes(20_000))
            go(client)
            gone(pid)


def test_input_that_even_the_socket_does_not_take(url: str) -> None:
    # A reset overtakes what the client's kernel still holds back. A FIN would stand behind it, and
    # no server could see it that keeps its memory flat: only clients with marks are safe there.
    with RawClient(url) as client:
        pid = client.start(Command("sleep", ["1000"], stdin=True))
        with ends_processes(pid):
            client.send_until_full(b'{"type":"stdin"}\n' + bytes(50_000))
            client.reset()
            gone(pid)


@pytest.mark.parametrize("tty", [False, True])
def test_our_client_killed_while_its_input_waits(url: str, tty: bool) -> None:
    script = """if True:
        import sys
        from wsep_sync import Command, connect
        with connect(sys.argv[1]) as execer:
            script = "stty raw; echo ready; sleep 1000" if sys.argv[2] else "echo ready; sleep 1000"
            command = Command("sh", ["-c", script], stdin=True, tty=bool(sys.argv[2]))
            process = execer.start(command)
            process.stdout.readline()
            print(process.pid, flush=True)
            process.stdin.write(bytes(10_000_000))
    """
    command = [sys.executable, "-c", script, url, "tty" if tty else ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        with ends_processes(pid, client.pid):
            eventually(lambda: sleeps(client.pid), "the client to block")
            client.kill()
            gone(pid)


def test_a_client_that_goes_before_the_pid(url: str, go: Callable[[RawClient], None]) -> None:
    for _ in range(5):
        with RawClient(url) as client:
            client.send(start_message(Command("sleep", ["1000"])))
            go(client)
    # The fixtures see to it that nothing is left.


def test_a_client_that_goes_before_the_start(url: str, go: Callable[[RawClient], None]) -> None:
    with RawClient(url) as client:
        go(client)
