"""Credit, `ended` and `close_output` on the wire, asked for by clients that are not the package's.

What a client of the package makes of them stands in execers/remote/ and in the contract.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from helpers import SECONDS, MemoryExecer, RawClient, Task, eventually, gone, listening, sh

from wsep_sync import Command, connect
from wsep_sync.protocol.command import ADDITIONS
from wsep_sync.protocol.messages import FEATURES, Start

WINDOW = 100_000

CLOSE_STDIN = {"type": "close_stdin"}


@pytest.fixture(params=["one server", "two hops"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with listening() as back:
        if request.param == "one server":
            yield back.url
        else:
            with listening(lambda: connect(back.url)) as front:
                yield front.url


def start(client: RawClient, command: Command, window: int | None = WINDOW) -> dict[str, Any]:
    client.send(Start(command, frozenset(FEATURES), window).encode())
    header, _ = client.receive()
    assert header["type"] == "pid", header
    return header


def output(client: RawClient, size: int, name: str = "stdout") -> None:
    """Receive so much of an output, and nothing else."""
    got = 0
    while got < size:
        header, body = client.receive()
        assert header == {"type": name}
        got += len(body)
    assert got == size


def refused(client: RawClient) -> str:
    client.receive_all()
    assert client.code == 1011
    return client.reason


def test_the_handshake_and_the_pid_name_what_there_is(
    url: str, request: pytest.FixtureRequest
) -> None:
    with RawClient(url) as client:
        named = client.ws.getheaders()["wsep-features"].split()
        # A server further on is asked too late for what a start may ask for.
        here = "two hops" not in request.node.name
        assert named == [*FEATURES, *(sorted(set(ADDITIONS.values())) if here else ())]
        assert start(client, Command("true"))["features"] == ["signal", *FEATURES]


def test_no_more_is_sent_than_the_window(url: str) -> None:
    with RawClient(url) as client:
        start(client, Command("yes"))
        output(client, WINDOW)
        client.send({"type": "taken", "stdout": 30_000})
        output(client, 30_000)
        client.send({"type": "taken", "stdout": 10_000, "stderr": 0})  # says nothing new
        client.send({"type": "signal", "signal": 15})
        # It is told of its end at once; and then nothing follows that was not asked for.
        ended = {"type": "ended", "exit_code": -1, "error": "signal: terminated", "signal": 15}
        assert client.receive()[0] == ended
        assert client.receive()[0] == {"type": "eof", "stream": "stderr"}
        # Then the rest of it, which is what a pipe and a server further on hold: it depends on how
        # far `yes` had come.
        position = 130_000
        while True:
            allowed = position + WINDOW
            client.send({"type": "taken", "stdout": position})
            header, body = client.receive()
            if header["type"] != "stdout":
                break
            position += len(body)
            assert position <= allowed
        assert header == ended | {"type": "exit_code"}


def test_an_output_ends_though_the_other_waits(url: str) -> None:
    with RawClient(url) as client:
        start(client, Command("yes"))
        output(client, WINDOW)
        client.send({"type": "signal", "signal": 9})
        assert client.receive()[0]["type"] == "ended"
        assert client.receive()[0] == {"type": "eof", "stream": "stderr"}
        client.send({"type": "close_output", "stream": "stdout"})
        assert client.receive()[0]["type"] == "exit_code"


def test_a_full_window_holds_up_that_output_alone(url: str) -> None:
    with RawClient(url) as client:
        start(client, sh("yes & read x; echo err >&2; read x; kill $!; exit 3", stdin=True))
        output(client, WINDOW)
        client.send({"type": "stdin"}, b"\n")
        output(client, 4, "stderr")
        client.send({"type": "stdin"}, b"\n")
        assert client.receive_until("ended")["exit_code"] == 3


def test_a_window_that_is_told_late(url: str) -> None:
    with RawClient(url) as client:
        start(client, sh("read x; yes", stdin=True), window=None)
        client.send({"type": "taken", "window": WINDOW})
        client.send({"type": "stdin"}, b"\n")
        output(client, WINDOW)
        client.send({"type": "signal", "signal": 9})
        assert client.receive_until("ended")["signal"] == 9


def test_who_tells_of_no_window_is_sent_nothing_that_the_reference_does_not(url: str) -> None:
    with RawClient(url) as client:
        start(client, sh("head -c 3000000 /dev/zero; cat", stdin=True), window=None)
        for _ in range(50):
            client.send({"type": "stdin"}, bytes(60_000))
        client.send(CLOSE_STDIN)
        headers, out, _ = client.receive_all("exit_code")
        assert len(out) == 6_000_000
        assert {header["type"] for header in headers} == {"stdout", "exit_code"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "taken", "stdout": 1 << 40}, "stdout has not come as far"),
        ({"type": "taken", "stderr": 1}, "stderr has not come as far"),
        ({"type": "taken", "stdout": 1 << 60}, "stdout"),
        ({"type": "taken", "stdout": -1}, "stdout"),
        ({"type": "taken", "stdout": True}, "stdout"),
        ({"type": "taken", "stdout": "1"}, "stdout"),
        ({"type": "taken", "window": 0}, "window"),
        ({"type": "taken", "window": -5}, "window"),
        ({"type": "taken", "window": 1.5}, "window"),
        ({"type": "close_output"}, "stream"),
        ({"type": "close_output", "stream": "stdin"}, "stdout or stderr"),
        ({"type": "close_output", "stream": ["stdout"]}, "stream"),
    ],
)
def test_what_makes_no_sense_is_refused(message: dict[str, Any], reason: str) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        pid = start(client, Command("sleep", ["1000"]))["pid"]
        client.send(message)
        assert reason in refused(client)
        gone(pid)


@pytest.mark.parametrize("window", [0, -1, 1 << 60, "1", True])
def test_a_window_that_makes_no_sense_is_refused(window: Any) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        header = json.loads(Start(Command("true")).encode())
        client.send(header | {"window": window})
        assert "start message: window" in refused(client)


def test_a_flood_of_what_says_nothing_new(url: str) -> None:
    with RawClient(url) as client:
        start(client, Command("yes"))
        output(client, WINDOW)
        for _ in range(5000):
            client.send({"type": "taken", "stdout": 0})
            client.send({"type": "taken"})
        client.send({"type": "signal", "signal": 9})
        assert client.receive()[0]["type"] == "ended"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_output_is_closed_for_the_command(url: str, name: str) -> None:
    number = 1 if name == "stdout" else 2
    with RawClient(url) as client:
        # One that reads nothing, and one that has what is to be read behind a full window.
        start(client, sh(f"echo ready; read x; yes >&{number}", stdin=True))
        output(client, 6)
        for _ in range(2):
            client.send({"type": "close_output", "stream": name})
        client.send({"type": "stdin"}, b"\n")
        # The shell's words for it.
        assert client.receive_until("ended")["exit_code"] in (-1, 141)
        assert client.receive_until("exit_code")["exit_code"] in (-1, 141)


def test_a_closed_output_that_is_full_is_closed_for_the_command(url: str) -> None:
    with RawClient(url) as client:
        start(client, Command("yes"))
        output(client, WINDOW)
        client.send({"type": "close_output", "stream": "stdout"})
        assert client.receive_until("ended")["signal"] == 13
        assert client.receive_until("exit_code")["signal"] == 13


def test_a_command_that_ignores_sigpipe_is_told(url: str) -> None:
    script = "trap '' PIPE; while echo x; do :; done 2> /dev/null; echo told >&2; exit 7"
    with RawClient(url) as client:
        start(client, Command("bash", ["-c", script]))
        client.receive_until("stdout")
        client.send({"type": "close_output", "stream": "stdout"})
        headers, _, err = client.receive_all("exit_code")
        assert err == b"told\n"
        assert headers[-1]["exit_code"] == 7


def test_an_output_that_is_closed_need_not_end() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        start(client, sh("sleep 1000 2> /dev/null & echo $! >&2; exit 0"))
        pid = b""
        while not pid:  # the end may be told before
            header, body = client.receive()
            assert header["type"] in ("stderr", "ended")
            pid = body
        client.send({"type": "close_output", "stream": "stdout"})
        assert client.receive_until("exit_code")["exit_code"] == 0
        client.ws.close()
        os.kill(int(pid), 9)  # it was left on purpose, and lives on


def test_what_a_terminal_shows_is_dropped_once_it_is_closed() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        script = "echo ready; read x; head -c 300000 /dev/zero; exit 3"
        start(client, sh(script, tty=True))
        client.receive_until("stdout")
        client.send({"type": "close_output", "stream": "stdout"})
        client.send({"type": "close_output", "stream": "stderr"})
        client.send({"type": "stdin"}, b"\n")
        assert client.receive_until("ended")["exit_code"] == 3
        assert client.receive_until("exit_code")["exit_code"] == 3


def test_only_this_view_of_a_session_is_closed() -> None:
    with listening() as listener, RawClient(listener.url) as one, RawClient(listener.url) as other:
        command = sh("while read x; do echo got; done", id="shared", tty=True)
        start(one, command)
        start(other, command)
        one.send({"type": "close_output", "stream": "stdout"})
        one.send({"type": "stdin"}, b"x\n")
        while b"got" not in other.receive()[1]:
            pass
        other.send({"type": "signal", "signal": 9})
        assert other.receive_until("exit_code")["signal"] == 9
        assert one.receive_until("exit_code")["signal"] == 9


def test_how_much_input_was_given_to_the_command(url: str) -> None:
    with RawClient(url) as client:
        start(client, sh("head -c 600000 > /dev/null; echo; sleep 1000", stdin=True))
        for _ in range(10):
            client.send({"type": "stdin"}, bytes(60_000))
        taken = [0]
        while taken[-1] <= 600_000 - (1 << 18):
            taken.append(client.receive_until("taken")["stdin"])
        assert all(after - before >= 1 << 18 for before, after in pairwise(taken))
        assert taken[-1] <= 600_000


def test_that_the_command_has_closed_its_input(url: str) -> None:
    with RawClient(url) as client:
        start(client, sh("exec <&-; echo; exec sleep 1000", stdin=True))
        output(client, 1)

        def told() -> bool:
            client.send({"type": "stdin"}, b"x")
            return bool(select.select([client.ws.sock], [], [], 0)[0])

        eventually(told, "word that nobody reads")
        header, _ = client.receive()
        assert (header["type"], header["closed"]) == ("taken", True)


def test_the_end_of_who_left_somebody_with_the_input(url: str) -> None:
    """Its input goes on; where nobody has it, that is said ahead of the end."""
    with RawClient(url) as client:
        start(client, sh("exec 3<&0; cat <&3 & exit 0", stdin=True))
        assert client.receive()[0]["type"] == "ended"
        client.send({"type": "stdin"}, b"late")
        output(client, 4)
        client.send(CLOSE_STDIN)
        client.receive_until("exit_code")
    with RawClient(url) as client:
        start(client, sh("exit 0", stdin=True))
        assert client.receive()[0] == {"type": "taken", "stdin": 0, "closed": True}
        assert client.receive()[0]["type"] == "ended"


@pytest.mark.parametrize("window", [None, WINDOW])
def test_a_terminal_ends_with_its_command(window: int | None) -> None:
    with listening() as listener, RawClient(listener.url) as client:
        # It has the terminal, but no part in the session.
        script = "setsid sh -c 'trap \"\" HUP; echo $$; exec sleep 1000' & sleep 0.2; echo last"
        start(client, sh(script, tty=True), window)
        headers, out, _ = client.receive_all("exit_code")
        assert headers[-1]["exit_code"] == 0
        assert out.endswith(b"last\r\n")
        os.kill(int(out.split()[0]), 9)


def test_a_terminal_whose_job_goes_on_writing() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        start(client, sh("setsid yes & sleep 0.2", tty=True), None)
        client.receive_until("exit_code")


def test_what_is_discarded_is_the_null_device(url: str) -> None:
    with RawClient(url) as client:
        start(client, sh("exec 3>&1; readlink /proc/$$/fd/3 >&2; exit 3", discard=["stdout"]))
        headers, out, err = client.receive_all("exit_code")
        assert (out, err) == (b"", b"/dev/null\n")
        assert headers[-1]["exit_code"] == 3


def test_a_little_at_a_time_through_a_tiny_window() -> None:
    with (
        MemoryExecer() as memory,
        memory.connect(output_limit=1) as execer,
        execer.start(sh("printf 0123456789; printf abc >&2")) as process,
        Task(process.stderr.read) as err,
    ):
        assert process.stdout.read() == b"0123456789"
        assert err.result() == b"abc"
        process.wait(SECONDS)


@pytest.mark.thorough
def test_a_terminal_loses_nothing_that_is_long_on_its_way() -> None:
    # The end overtakes what waits in each of the servers, and is told the last of them.
    size = 3_150_000  # as much as waits there
    command = sh(f"stty raw; head -c {size} /dev/zero", tty=True)
    with (
        listening() as last,
        listening(lambda: connect(last.url)) as third,
        listening(lambda: connect(third.url)) as second,
        listening(lambda: connect(second.url)) as first,
        connect(first.url) as execer,
        execer.start(command) as process,
    ):
        with contextlib.suppress(TimeoutError):
            process.wait(1)  # it fills what there is on the way, and may have ended
        assert sum(map(len, iter(lambda: process.stdout.read1(1 << 16), b""))) == size
        process.wait(SECONDS)
