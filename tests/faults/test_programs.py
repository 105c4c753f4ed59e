"""Faults that programs meet: they are killed, stopped, cut off, or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import in_shell
from faults import DIALOGUE, SCRIPT, Site, Step, expected, how_ended, name, rest, useless
from helpers import SECONDS, ends_processes, eventually, gone, read_until, sh, state
from programs import WSEP_SYNC, environment, first_number, has_one_line, running, server_process
from session_clients import session
from tcp_proxy import AFTER, BODY, DOWN, FIN, HEADER, RST, UP, Fault
from terminal_windows import Outer, text

import wsep_sync
from wsep_sync import Command, connect
from wsep_sync.errors import ConnectError, ExitMissing

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


def at(url: str) -> list[str]:
    """The options for a server, on a machine that may be slow."""
    return ["--timeout", str(SECONDS), "--url", url]


# The server is killed

RUNNING = {
    "idle": sh("echo $$; exec cat", stdin=True),
    "flood": sh("echo $$; exec yes", stdin=True),
    "terminal": sh("stty -echo; echo $$; exec cat", tty=True),
    "session": session("s", "sh", "-c", "stty -echo; echo $$; exec cat"),
}


@pytest.mark.parametrize("kind", RUNNING)
def test_a_server_that_is_killed(kind: str) -> None:
    with (
        server_process() as (url, server),
        connect(url, timeout=SECONDS) as execer,
        execer.start(RUNNING[kind]) as process,
        ends_processes(process.pid),
    ):
        assert int(process.stdout.readline()) == process.pid
        server.process.kill()
        got, ended = rest(process.stdout)
        assert not ended
        assert got == (b"y\n" * len(got))[: len(got)]
        assert how_ended(process) is ExitMissing
        useless(process)
        server.process.wait(SECONDS)
        with pytest.raises(ConnectError, match="refused"):
            execer.start(sh("exit"))
        gone(process.pid)  # its output, or its terminal, has gone


def test_a_server_that_is_killed_while_many_are_there() -> None:
    with contextlib.ExitStack() as stack:
        url, server = stack.enter_context(server_process())
        processes = []
        for _ in range(20):
            execer = stack.enter_context(connect(url, timeout=SECONDS))
            process = stack.enter_context(execer.start(Command("cat", stdin=True)))
            stack.enter_context(ends_processes(process.pid))
            processes.append(process)
        server.process.kill()
        for process in processes:
            assert how_ended(process) is ExitMissing
        gone(*(process.pid for process in processes))


def test_a_server_that_is_stopped_and_goes_on() -> None:
    # It is slow, not gone: nothing of this may be given up by itself.
    with (
        server_process() as (url, server),
        connect(url, timeout=SECONDS) as execer,
        execer.start(Command("cat", stdin=True)) as process,
    ):
        server.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: state(server.pid) == "T", "the server to stop")
            process.stdin.raw.write(b"text")
            with pytest.raises(TimeoutError):
                process.wait(0.1)
            with pytest.raises(ConnectError, match="no answer"):
                connect(url, timeout=0.1)
        finally:
            server.send_signal(signal.SIGCONT)
        process.stdin.close()
        assert process.stdout.read() == b"text"
        process.wait(SECONDS)


# A client is killed

# Says the processes that are to end: the leader of the group, and a job of it.
FAMILY = "sleep 1000 & echo $$; echo $!; "


@pytest.mark.parametrize("rest", ["wait", "exec yes >&2", "exec cat"])
def test_a_client_that_is_killed(place: Site, rest: str) -> None:
    with running("notty", *at(place.url), "--", "sh", "-c", FAMILY + rest) as client:
        pids = [first_number(client), first_number(client)]
        with ends_processes(*pids):
            client.kill()
            gone(*pids)
    place.settled()


def test_a_client_of_a_session_that_is_killed(place: Site) -> None:
    command = ["tty", *at(place.url), "--id", "s", "--", "sh", "-c", "echo $$; exec cat"]
    with running(*command) as client:
        pid = first_number(client)
        client.kill()
        place.settled(pid)

    def end() -> None:
        with place.connect() as execer, execer.start(session("s", "none")) as process:
            assert (process.pid, process.reattached) == (pid, True)
            read_until(process.stdout, b"%d\r\n" % pid)
            process.kill()
            gone(pid)

    end()
    place.settled()


def test_a_client_that_is_killed_while_it_starts_commands(place: Site) -> None:
    script = """if True:
        import sys, threading
        from wsep_sync import Command, connect
        with connect(sys.argv[1], timeout=30) as execer:
            for number in range(1000):
                process = execer.start(Command("sleep", ["1000"], tty=number % 2 == 0))
                print(process.pid, flush=True)
    """
    command = [sys.executable, "-c", script, place.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        pids = [int(client.stdout.readline()) for _ in range(10)]
        client.kill()
        gone(*pids)
    place.settled()


# The command line, cut off

# Says a line, and ends with the next one that is typed.
TERMINAL = 'stty -echo; echo ready; read -r line; echo "$line"; exit 3'


def statuses(step: Step, part: str) -> tuple[int, bytes, bytes]:
    """The status of notty, and its outputs, when this is cut."""
    told = expected(DIALOGUE[: DIALOGUE.index(step) + (part == AFTER)])
    # That the command has ended is not enough: there might have been more output.
    return (3 if told.ended else 255), told.out, told.err


def notty(url: str) -> tuple[int, bytes, bytes]:
    """Have the dialogue by the command line, as far as it goes."""
    with running("notty", *at(url), "--", "sh", "-c", SCRIPT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        out = err = b""
        with contextlib.suppress(BrokenPipeError):
            os.write(client.stdin.fileno(), b"one\n")
            out += client.stdout.readline()
            if out:
                os.write(client.stdin.fileno(), b"two\n")
                err += client.stderr.readline()
                if err == b"two\n":
                    os.write(client.stdin.fileno(), b"three\n")
                    out += client.stdout.readline()
            client.stdin.close()
        out += client.stdout.read()
        err += client.stderr.read()
        return client.wait(SECONDS), out, err


@pytest.mark.parametrize(
    ("step", "how", "part"),
    # One cut each, for every case starts a program.
    [(step, *((FIN, HEADER), (RST, BODY))[i % 2]) for i, step in enumerate(DIALOGUE)],
    ids=map(name, DIALOGUE),
)
def test_notty_is_cut_off(place: Site, step: Step, how: str, part: str) -> None:
    with place.proxy(Fault(how, *step, part)) as proxy:
        status, out, err = notty(proxy.url)
        assert proxy.struck.wait(SECONDS)
        expected_status, expected_out, expected_err = statuses(step, part)
        assert (status, out) == (expected_status, expected_out)
        assert err.startswith(expected_err)
        if status == 255:
            has_one_line(err.removeprefix(expected_err))
        else:
            assert err == expected_err
        place.settled()


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        ((DOWN, "answer", 1), []),
        ((DOWN, "pid", 1), []),
        ((DOWN, "stdout", 1), []),
        ((UP, "stdin", 1), ["ready"]),
        ((DOWN, "exit_code", 1), ["ready", "bye"]),
    ],
    ids=lambda value: name(value) if isinstance(value, tuple) else "",
)
def test_tty_is_cut_off(place: Site, step: Step, shown: list[str]) -> None:
    with place.proxy(Fault(RST, *step, BODY)) as proxy:
        with Outer("tty", *at(proxy.url), "--", "sh", "-c", TERMINAL) as outer:
            if shown:
                outer.expect_exact("ready\r\n")
                outer.sendline("bye")
            assert outer.end() == 255
            rows = [row for row in text(outer.shown()) if row]
        said = len(shown)
        assert rows[:said] == shown
        # One line, which a terminal may have broken.
        assert "".join(rows[said:]).startswith("wsep-sync: ")
        assert "".join(rows).count("wsep-sync: ") == 1
        place.settled()


@pytest.mark.parametrize("name", ["request", "answer", "attach", "pid", "stdout"])
def test_tty_is_cut_off_while_it_attaches_again(place: Site, name: str) -> None:
    direction = UP if name in ("request", "attach") else DOWN
    with place.proxy() as proxy:
        with Outer("tty", *at(proxy.url), "--id", "s", "--", "sh", "-c", TERMINAL) as outer:
            outer.expect_exact("ready\r\n")
            proxy.add(Fault(FIN, direction, name, part=HEADER))
            proxy.strike(FIN)
            # The first attempt is cut as well; the next finds the session, and redraws it.
            outer.expect_exact("ready\r\n")
            assert proxy.struck.is_set()
            outer.sendline("bye")
            outer.expect_exact("bye\r\n")
            assert outer.end() == 3
            assert [row for row in text(outer.shown()) if row] == ["ready", "bye"]
        place.settled()
    assert len(place.execer.pids) == 2


# The disk is full


@pytest.mark.parametrize("output", ["", ">&2"])
def test_a_full_device(place: Site, output: str) -> None:
    to = "2>/dev/full" if output else ">/dev/full"
    done = in_shell(f'"$@" notty --timeout 30 --url {place.url} -- sh -c "yes {output}" {to}')
    assert (done.returncode, done.stdout) == (1, b"")
    if output:
        assert done.stderr == b""  # there is no place to say it
    else:
        has_one_line(done.stderr, "No space left on device")
    place.settled()


def test_a_full_file_system(place: Site, tmp_path: Path) -> None:
    # A file system of its own, in a mount namespace of its own, which goes with the shell.
    script = f"""
        mount -t tmpfs -o size=64k none {tmp_path} || exit 99
        "$@" notty --timeout 30 --url {place.url} -- yes > {tmp_path}/out
        echo "status $?, $(stat -c %s {tmp_path}/out) bytes, $(uniq {tmp_path}/out)"
    """
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", script, "bash", *WSEP_SYNC],
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )
    if done.returncode in (1, 99):
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode()}")
    assert done.stdout == b"status 1, 65536 bytes, y\n"
    has_one_line(done.stderr, "No space left on device")
    place.settled()


def test_a_full_device_below_the_face_of_subprocess(place: Site) -> None:
    with open("/dev/full", "wb") as full, pytest.raises(OSError, match="No space") as caught:
        wsep_sync.run(["sh", "-c", "echo out; exec sleep 0.1"], stdout=full, url=place.url)
    assert caught.value.errno == errno.ENOSPC
    del caught
    place.settled()
