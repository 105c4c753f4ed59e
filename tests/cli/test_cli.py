"""The command line without a terminal: `serve`, `notty`, `sessions`, `kill`, and their errors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import (
    SECONDS,
    alive,
    ends_processes,
    eventually,
    gone,
    listening,
    scripted,
    serving,
    sh,
)
from pexpect import EOF
from programs import (
    WSEP_SYNC,
    environment,
    finish,
    first_number,
    has_one_line,
    run,
    running,
    server_process,
)

from wsep_sync import (
    Command,
    ExitError,
    ExitMissing,
    LocalExecer,
    Popen,
    Server,
    TransportClosed,
    connect,
)
from wsep_sync.faces.expect import spawn
from wsep_sync.jobs.options import SessionInfo
from wsep_sync.jobs.session import Session
from wsep_sync.transports.base import Transport
from wsep_sync.web.listener import Listener

# Says its process id and its child's, which holds on as long as it can.
STUBBORN = "trap '' HUP INT TERM QUIT; sh -c 'echo $$; exec sleep 1000' & echo $$; wait; wait"
# Says its process id, and then stays.
STAYING = "echo $$; exec sleep 1000"

SCRIPT = Path(sysconfig.get_path("scripts"), "wsep-sync")


# serve


def test_serve_can_be_connected_to_when_it_says_so() -> None:
    # Whatever else it printed would be left for the end, which server_process looks at.
    with (
        server_process() as (url, _),
        connect(url) as execer,
        execer.start(Command("echo", ["served"])) as process,
    ):
        assert process.stdout.read() == b"served\n"


def test_serve_on_a_port_that_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with running("serve", "--port", str(port)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == f"listening on ws://127.0.0.1:{port}\n".encode()
        server.send_signal(signal.SIGTERM)
        assert finish(server) == (0, b"", b"")


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT"])
def test_what_serve_ignores_its_commands_do_not(name: str) -> None:
    # As nohup starts it, or a script with "&".
    number = getattr(signal, f"SIG{name}")
    with subprocess.Popen(
        ["sh", "-c", f"trap '' {name}; exec \"$@\"", "sh", *WSEP_SYNC, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().decode().split()[-1]
            server.send_signal(number)
            with connect(url) as execer, execer.start(sh(f"kill -{name} $$; echo on")) as process:
                with pytest.raises(ExitError) as ended:
                    process.wait(SECONDS)
                assert ended.value.signal == number
            assert server.poll() is None
        finally:
            server.terminate()
        assert server.wait(SECONDS) == 0


@pytest.mark.parametrize("subcommand", ["serve", "notty"])
def test_children_whose_end_was_to_be_ignored(subcommand: str) -> None:
    # As some supervisors start what they run: the kernel would forget how children ended.
    ignoring = [
        sys.executable,
        "-c",
        (
            "import os, signal, sys\n"
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"  # some shells do not ignore it
            "os.execv(sys.argv[1], sys.argv[1:])"
        ),
        *WSEP_SYNC,
    ]
    script = "grep SigIgn /proc/$$/status; exit 3"
    command = ["notty", "--", "sh", "-c", script]
    if subcommand == "notty":  # with a server inside
        done = subprocess.run(
            [*ignoring, *command], stdout=subprocess.PIPE, timeout=SECONDS, env=environment()
        )
        assert done.returncode == 3
        assert not int(done.stdout.split()[-1], 16) & 1 << signal.SIGCHLD - 1
        return
    with subprocess.Popen(
        [*ignoring, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().decode().split()[-1]
            with connect(url) as execer:
                for tty in (False, True):
                    with execer.start(sh("exit 3", tty=tty)) as process:
                        assert process.stdout.read() == b""
                        with pytest.raises(ExitError) as ended:
                            process.wait(SECONDS)
                        assert ended.value.exit_code == 3
                with execer.start(sh("kill -TERM $$")) as process:
                    with pytest.raises(ExitError) as ended:
                        process.wait(SECONDS)
                    assert ended.value.signal == signal.SIGTERM
        finally:
            server.terminate()
            status = server.wait(SECONDS)
    assert status == 0


def test_serve_on_ipv6() -> None:
    with server_process(host="::1") as (url, _):
        assert url.startswith("ws://[::1]:")
        done = run("notty", "--url", url, "--", "echo", "six")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"six\n", b"")


def test_serve_on_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        done = run("serve", "--port", port)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "127.0.0.1", port, "Address already in use")


def test_serve_on_a_host_that_is_none() -> None:
    done = run("serve", "--port", "0", "--host", "nobody.invalid", "--insecure")
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "nobody.invalid")


def test_serve_when_its_line_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        done = run("serve", "--port", "0", stdout=full)
    assert done.returncode == 1
    has_one_line(done.stderr, "No space left on device")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_ends_with_what_runs(number: signal.Signals) -> None:
    with server_process("--grace", "0") as (url, server), connect(url) as execer:
        plain = execer.start(Command("sh", ["-c", STAYING]))
        session = execer.start(Command("sh", ["-c", STAYING], tty=True, id="s"))
        with plain, session, ends_processes(plain.pid, session.pid):
            assert int(plain.stdout.readline()) == plain.pid
            assert int(session.stdout.readline()) == session.pid
            server.send_signal(number)
            server.finish()
            assert not alive(plain.pid)
            assert not alive(session.pid)
            with pytest.raises(ExitMissing):
                plain.wait()


def test_serve_leaves_no_child_that_ignores_signals_even_when_hurried() -> None:
    with server_process() as (url, server), connect(url) as execer:
        plain = execer.start(Command("sh", ["-c", STUBBORN]))
        session = execer.start(Command("sh", ["-c", STUBBORN], tty=True, id="s"))
        pids = [int(p.stdout.readline()) for p in (plain, session) for _ in range(2)]
        with plain, session, ends_processes(*pids):
            server.send_signal(signal.SIGTERM)
            # It has begun to end when it takes nobody any more.
            eventually(lambda: not can_connect(url), "the end of listening")
            server.send_signal(signal.SIGTERM)
            server.send_signal(signal.SIGINT)
            server.finish()
            assert not any(map(alive, pids))


def can_connect(url: str) -> bool:
    host, _, port = url.removeprefix("ws://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except ConnectionError:
        return False
    return True


def test_serve_ends_sessions_after_the_timeout_it_was_given() -> None:
    with server_process("--session-timeout", "0.2") as (url, _), connect(url) as execer:
        with execer.start(Command("sh", ["-c", STAYING], tty=True, id="s")) as session:
            assert int(session.stdout.readline()) == session.pid
        gone(session.pid)


# Help and usage


@pytest.mark.parametrize("subcommand", ["", "serve", "notty", "tty", "sessions", "kill"])
def test_help(subcommand: str) -> None:
    done = run(*subcommand.split(), "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert text.startswith(f"usage: wsep-sync {subcommand}".rstrip())
    options = {
        "": ["serve", "notty", "tty", "sessions", "kill", "127"],
        "serve": ["--host", "--port", "--session-timeout", "8080", "300"],
        "notty": ["--url", "--timeout", "-n", "COMMAND", "WSEP_URL"],
        "tty": ["--url", "--timeout", "--id", "--escape", "--no-reconnect", "COMMAND"],
        "sessions": ["--url", "--timeout"],
        "kill": ["--url", "--timeout", "ID"],
    }
    assert [option for option in options[subcommand] if option not in text] == []


def test_the_script_that_is_installed() -> None:
    script = subprocess.run(
        [SCRIPT, "--help"], capture_output=True, env=environment(), timeout=SECONDS, check=True
    )
    assert script.stdout == run("--help").stdout


def test_help_for_a_reader_who_has_enough() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("notty", "--help", stdout=writer)
    finally:
        os.close(writer)
    # From Python 3.11 on, argparse does not say that it could not write.
    assert done.returncode in (0, 128 + signal.SIGPIPE)
    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nothing",
        "serve surplus",
        "serve --port x",
        "serve --port 65536",
        "serve --session-timeout 0",
        "notty",
        "notty -n --",
        "notty --timeout nan true",
        "notty --nothing true",
        "tty --escape ab true",
        "sessions",
        "kill",
        "kill somebody",
    ],
)
def test_wrong_usage(arguments: str) -> None:
    done = run(*arguments.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: wsep-sync")
    assert b"Traceback" not in done.stderr


# notty: the command's arguments


@pytest.mark.parametrize(
    ("before", "command", "printed"),
    [
        (["--"], ["printf", "%s|", "-n", "--url", "x", "--", "-h"], "-n|--url|x|--|-h|"),
        ([], ["printf", "%s|", "-n", "--url", "x", "--", "--help"], "-n|--url|x|--|--help|"),
        (["-n"], ["printf", "%s|", "--", "-n"], "--|-n|"),
        (["-n", "--timeout", "5", "--"], ["printf", "%s|", "--timeout", ""], "--timeout||"),
        (["--timeout=5"], ["printf", "%s|", "a b", "*", "$HOME", "'\""], "a b|*|$HOME|'\"|"),
        (["--"], ["printf", "%s|", "--"], "--|"),
    ],
)
def test_arguments_reach_the_command_as_they_are(
    before: list[str], command: list[str], printed: str
) -> None:
    done = run("notty", *before, *command)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, printed, b"")


def test_a_command_that_begins_with_a_dash(tmp_path: Path) -> None:
    for name in ("-n", "--"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\necho "$0" "$@"\n')
        program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for name, arguments in (("-n", ["--", "-x"]), ("--", ["-x"])):
        done = run("notty", "--", name, *arguments, env=environment(PATH=path))
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode().split() == [str(tmp_path / name), *arguments]


def test_arguments_in_any_encoding() -> None:
    arguments = ["grüße 🙂".encode(), b"\xff\xe9", "日本".encode("euc-jp"), b"line\nbreak"]
    done = run("notty", "--", "printf", "%s|", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"".join(argument + b"|" for argument in arguments)


# notty: where the command runs


def test_the_url_is_the_option_or_the_variable_or_a_server_of_its_own() -> None:
    with listening() as listener, running("notty", "--", "sh", "-c", "echo $PPID; cat") as own:
        assert first_number(own) == own.pid
        for arguments, variables in (
            (["--url", listener.url], {"WSEP_URL": "ws://127.0.0.1:1"}),
            ([], {"WSEP_URL": listener.url}),
        ):
            done = run(
                "notty", *arguments, "--", "sh", "-c", "echo $PPID", env=environment(**variables)
            )
            assert (int(done.stdout), done.returncode) == (os.getpid(), 0)
        assert finish(own) == (0, b"", b"")
    done = run("notty", "--", "echo", "own", env=environment(WSEP_URL=""))
    assert (done.returncode, done.stdout) == (0, b"own\n")


# notty: streams


def test_all_three_streams_pass_as_they_are() -> None:
    data = bytes(range(256)) * 500
    script = "tee /dev/stderr; echo end of errors >&2"
    done = run("notty", "--", "sh", "-c", script, input=data)
    assert done.stdout == data
    assert done.stderr == data + b"end of errors\n"
    assert done.returncode == 0


def test_input_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"from a file" * 10_000)
    with path.open("rb") as file:
        done = run("notty", "--", "cat", stdin=file)
    assert (done.returncode, done.stdout, done.stderr) == (0, path.read_bytes(), b"")


def test_no_input() -> None:
    done = run("notty", "--", "wc", "-c", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


def in_shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in which `$@` is the program."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *WSEP_SYNC],
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )


def test_input_that_is_closed() -> None:
    done = in_shell('"$@" notty -- wc -c <&-')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("file", os.O_WRONLY | os.O_CREAT, "Bad file descriptor"),
        ("/proc/self/mem", os.O_RDONLY, "Input/output error"),  # as of a broken disk
    ],
)
def test_input_that_cannot_be_read(name: str, flags: int, words: str, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / name, flags)
    try:
        done = run("notty", "--", "cat", stdin=descriptor)
    finally:
        os.close(descriptor)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "standard input", words)


def test_input_from_the_null_device_as_nohup_opens_it() -> None:
    done = in_shell('"$@" notty -- wc -c 0>/dev/null')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


@pytest.mark.parametrize("option", [["-n"], []])
def test_input_that_never_ends(option: list[str]) -> None:
    # With -n the command's own input is at its end; without, the command does not care for it.
    command = ["wc", "-c"] if option else ["echo", "0"]
    with running("notty", *option, "--", *command) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"0\n"
        assert process.wait(SECONDS) == 0


def test_a_dialogue() -> None:
    with running("notty", "--", "sh", "-c", 'while read x; do echo "<$x>"; done') as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"<" + word + b">\n"
        assert finish(process) == (0, b"", b"")


def test_pipes_that_somebody_else_has_made_non_blocking() -> None:
    data = os.urandom(1 << 20)
    with running("notty", "--", "cat") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # The flag belongs to the pipe, so the program's ends get it too.
        for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
            end = os.open(f"/proc/{process.pid}/fd/{number}", flags)
            os.set_blocking(end, False)
            os.close(end)
        out, err = process.communicate(data, timeout=SECONDS)
        assert (process.returncode, out == data, err) == (0, True, b"")


def test_a_command_that_closes_its_output_and_runs_on() -> None:
    script = "exec >&-; read line; echo $line >&2; exit 4"
    with running("notty", "--", "sh", "-c", script) as process:
        out, err = process.communicate(b"heard\n", timeout=SECONDS)
        assert (process.returncode, out, err) == (4, b"", b"heard\n")


def test_the_end_waits_for_whoever_still_has_the_output(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = '(read line < "$1"; echo $line) & echo started; exit 5'
    with running("notty", "--", "sh", "-c", script, "sh", str(fifo)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        fifo.write_text("late\n")
        assert finish(process) == (5, b"late\n", b"")


def test_a_reader_who_has_enough() -> None:
    script = "echo $$; while :; do echo y; done 2>/dev/null"
    with running("notty", "--", "sh", "-c", script) as process:
        pid = first_number(process)
        assert process.stdout is not None
        assert process.stderr is not None
        with ends_processes(pid):
            process.stdout.close()
            assert process.wait(SECONDS) == 128 + signal.SIGPIPE
            assert process.stderr.read() == b""
            assert not alive(pid)


def test_an_error_reader_who_has_enough() -> None:
    # Not before the number has been read: behind more errors than are kept it would not come.
    script = "echo $$; read line; yes >&2; sleep 1000"
    with running("notty", "--", "sh", "-c", script) as process:
        pid = first_number(process)
        assert process.stdin is not None
        assert process.stderr is not None
        with ends_processes(pid):
            process.stdin.write(b"go\n")
            process.stdin.flush()
            process.stderr.close()
            assert process.wait(SECONDS) == 128 + signal.SIGPIPE
            assert not alive(pid)


@pytest.mark.parametrize(
    ("redirection", "words"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
)
def test_output_that_cannot_be_written(redirection: str, words: str) -> None:
    done = in_shell(f'"$@" notty -- echo hello {redirection}')
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, words)


def test_error_output_that_is_closed_is_dropped() -> None:
    done = in_shell('"$@" notty -- sh -c "echo error >&2; echo output; exit 3" 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (3, b"output\n", b"")
    done = in_shell('"$@" notty -- /nothing 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (127, b"", b"")


# notty: exit status


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_status_is_the_commands(status: int) -> None:
    done = run("notty", "--", "sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_the_status_of_a_signal(number: signal.Signals) -> None:
    done = run("notty", "--", "sh", "-c", f"kill -{number:d} $$")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


@pytest.fixture(params=["own server", "remote server"])
def server(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Options for a server in the program itself, and for another."""
    if request.param == "own server":
        yield []
        return
    with listening() as listener:
        yield ["--url", listener.url]


def test_a_command_that_cannot_be_run(server: list[str], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    for command, status, reason in (
        ("/no/such/thing", 127, "No such file or directory"),
        ("no-such-thing", 127, "No such file or directory"),
        (str(text), 126, "Permission denied"),
        (str(tmp_path), 126, "Permission denied"),
    ):
        done = run("notty", *server, "--", command)
        assert (done.returncode, done.stdout) == (status, b"")
        has_one_line(done.stderr, command, reason)


def test_more_arguments_than_a_message_holds() -> None:
    done = run("notty", "--", "true", "x" * 70_000)
    assert (done.returncode, done.stdout) == (126, b"")
    has_one_line(done.stderr, "true", "Argument list too long")


# notty: no connection


@contextlib.contextmanager
def tcp_server(answer: bytes | None) -> Iterator[str]:
    """One that reads a request and says this, or never says anything."""
    done = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            peer, _ = sock.accept()
            with peer:
                peer.recv(1 << 16)
                if answer is None:
                    done.wait(SECONDS)
                else:
                    peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            done.set()
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_url_that_is_none() -> None:
    for url in (
        "http://127.0.0.1:1",
        "ftp:x",
        "127.0.0.1:80",
        "ws://",
        "ws://127.0.0.1:99999",
        "ws://[::1",
    ):
        subcommand = "sessions" if url.startswith("http") else "notty"
        done = run(subcommand, "--url", url, *(["true"] if subcommand == "notty" else []))
        assert (done.returncode, done.stdout) == (255, b"")
        has_one_line(done.stderr, url)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    for url, reason in (
        (f"ws://127.0.0.1:{port}", "Connection refused"),
        ("ws://nobody.invalid", "nobody.invalid: "),
    ):
        for arguments in (["notty", "--url", url, "--", "true"], ["kill", "--url", url, "x"]):
            done = run(*arguments)
            assert (done.returncode, done.stdout) == (255, b"")
            has_one_line(done.stderr, url, reason)


def test_a_server_that_refuses() -> None:
    page = b"<html>\n\n\x1b[31mgo\r\n away</html>\n"
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(page)
    with tcp_server(head + page) as url:
        done = run("notty", "--url", url, "--", "true")
    assert (done.returncode, done.stdout) == (255, b"")
    has_one_line(done.stderr, url, "403", "go away")


@pytest.mark.parametrize("arguments", [["notty"], ["tty"], ["kill"]])
def test_a_server_that_never_answers(arguments: list[str]) -> None:
    with tcp_server(None) as url:
        done = run(*arguments, "--url", url, "--timeout", "0.5", "--", "true")
    assert (done.returncode, done.stdout) == (255, b"")
    has_one_line(done.stderr, url, "0.5 seconds")


def test_a_server_that_never_starts_the_command() -> None:
    with scripted(receive_all) as url:
        done = run("notty", "--url", url, "--timeout", "0.5", "--", "true")
    assert (done.returncode, done.stdout) == (255, b"")
    has_one_line(done.stderr, "0.5 seconds")


# What a status may be that is no success: as it came, and what is made of it.
STATUSES = [
    ('"exit_code":3', 3),
    ('"exit_code":255', 255),
    ('"exit_code":256', 255),
    ('"exit_code":512,"error":"exit status 512"', 255),
    ('"exit_code":3221225472', 255),  # Windows' have 32 bits
    ('"exit_code":-256', 255),
    ('"exit_code":-1', 255),
    ('"exit_code":-1,"signal":64', 192),
    ('"exit_code":-1,"error":"signal: signal 128"', 255),
    ('"exit_code":0,"signal":0', 255),
    ('"exit_code":0,"error":"failed to get reader: EOF"', 255),
    ('"exit_code":null', 255),
    ('"error":""', 255),  # no exit_code
]


@pytest.mark.parametrize("face", ["notty", "Popen", "spawn"])
def test_no_failure_becomes_a_success(face: str) -> None:
    def serve(conn: Transport) -> None:
        start = json.loads(bytes(conn.receive()).split(b"\n")[0])
        conn.send(b'{"type":"pid","pid":1}\n')
        conn.send(b'{"type":"exit_code",%s}\n' % start["command"]["args"][0].encode())
        receive_all(conn)

    def status(fields: str) -> int:
        """What a shell would make of it."""
        if face == "notty":
            return run("notty", "--url", url, "--", "x", fields).returncode
        try:
            if face == "Popen":
                with Popen(["x", fields], stdin=subprocess.DEVNULL, url=url) as process:
                    code = process.wait(SECONDS)
                assert process.returncode == code
                return 128 - code if code < 0 else min(code, 255)
            with spawn("x", [fields], url=url) as child:
                child.expect(EOF)
            assert child.exitstatus != 0
            return os.WEXITSTATUS(child.status) or 128 + os.WTERMSIG(child.status)
        except ExitMissing:
            return 255

    with scripted(serve) as url:
        for fields, expected in STATUSES:
            got = status(fields)
            # A negative number without a signal is one to subprocess.
            assert got == expected or (face == "Popen" and "-" in fields and got), (fields, got)


def receive_all(conn: Transport) -> None:
    with contextlib.suppress(TransportClosed):
        while True:
            conn.receive()


def test_a_server_that_talks_nonsense() -> None:
    with scripted(lambda conn: conn.send(b"nonsense\n")) as url:
        done = run("notty", "--url", url, "--", "true")
    assert (done.returncode, done.stdout) == (255, b"")
    has_one_line(done.stderr, "not a wsep server")


def test_a_server_that_dies() -> None:
    with server_process() as (url, server):
        with running("notty", "--url", url, "--", "sh", "-c", "echo $$; cat") as process:
            pid = first_number(process)
            server.process.kill()
            status, out, err = finish(process)
        assert (status, out) == (255, b"")
        has_one_line(err, "no exit status")
        gone(pid)  # its input has ended


# notty: signals


def test_the_first_interrupt_is_the_commands(server: list[str]) -> None:
    script = "trap 'echo trapped; exit 7' INT; echo $$; while :; do sleep 0.01; done"
    with running("notty", *server, "--", "sh", "-c", script) as process:
        first_number(process)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (7, b"trapped\n", b"")


def test_an_interrupt_ends_a_command_that_does_not_care(server: list[str]) -> None:
    with running("notty", *server, "--", "sh", "-c", STAYING) as process:
        first_number(process)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (128 + signal.SIGINT, b"", b"")


def test_the_second_interrupt_hangs_up(server: list[str]) -> None:
    script = "trap 'echo trapped' INT; echo $$; while :; do sleep 0.01; done"
    with running("notty", *server, "--", "sh", "-c", script) as process:
        pid = first_number(process)
        assert process.stdout is not None
        with ends_processes(pid):
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == b"trapped\n"
            process.send_signal(signal.SIGINT)
            status, _, err = finish(process)
            assert (status, err) == (128 + signal.SIGINT, b"")
            gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_command_with_its_group(
    server: list[str], number: signal.Signals
) -> None:
    script = "sh -c 'echo $$; exec sleep 1000' & " + STAYING
    with running("notty", *server, "--", "sh", "-c", script) as process:
        pids = [first_number(process) for _ in range(2)]
        with ends_processes(*pids):
            process.send_signal(number)
            assert finish(process) == (128 + number, b"", b"")
            gone(*pids)


def test_a_signal_ends_even_a_stubborn_command() -> None:
    with running("notty", "--", "sh", "-c", STUBBORN) as process:
        pids = [first_number(process) for _ in range(2)]
        with ends_processes(*pids):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert finish(process) == (128 + signal.SIGTERM, b"", b"")
            gone(*pids)


def test_the_end_of_a_client_is_the_end_of_its_command() -> None:
    with (
        listening() as listener,
        running("notty", "--url", listener.url, "--", "sh", "-c", STAYING) as process,
    ):
        pid = first_number(process)
        with ends_processes(pid):
            process.kill()
            gone(pid)


def test_an_interrupt_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(SECONDS)
        url = f"ws://127.0.0.1:{sock.getsockname()[1]}"
        with running("notty", "--url", url, "--", "true") as process:
            peer, _ = sock.accept()
            with peer:
                assert peer.recv(1)
                process.send_signal(signal.SIGINT)
                assert finish(process) == (128 + signal.SIGINT, b"", b"")


def test_signals_that_are_ignored_stay_so() -> None:
    # As in a script's background job, and under nohup.
    script = """trap '' INT HUP; "$@" notty -- sh -c 'kill -INT $PPID; kill -HUP $PPID; exit 3'"""
    done = in_shell(script)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")


# sessions and kill


@contextlib.contextmanager
def session(url: str, id: str, *command: str) -> Iterator[int]:
    words = command or ("sh", "-c", STAYING)
    with connect(url) as execer:
        start = Command(words[0], words[1:], tty=True, id=id, rows=24, cols=80)
        with execer.start(start) as process:
            process.stdout.read(1)  # it runs
            yield process.pid


@pytest.fixture
def sessions() -> Iterator[tuple[str, Server]]:
    """A server in this process: its URL, and itself."""
    server = Server()
    with listening(server=server) as listener:
        try:
            yield listener.url, server
        finally:
            server.close()


def test_sessions_are_listed_and_ended(sessions: tuple[str, Server]) -> None:
    url, _ = sessions
    done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with session(url, "one") as pid, session(url, "a/b c", "sh", "-c", "echo 'x y'; cat") as other:
        done = run("sessions", env=environment(WSEP_URL=url))
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode().splitlines() == [
            f"one\t{pid}\t24x80\t1 attached\tsh -c 'echo $$; exec sleep 1000'",
            f"a/b c\t{other}\t24x80\t1 attached\tsh -c 'echo '\"'\"'x y'\"'\"'; cat'",
        ]
        for id, victim in (("one", pid), ("a/b c", other)):
            assert alive(victim)
            done = run("kill", "--url", url, id)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            assert not alive(victim)
    done = run("kill", "--url", url, "one")
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, "one", "no such session")


def test_a_session_whose_name_would_do_something_to_the_terminal(
    sessions: tuple[str, Server],
) -> None:
    url, _ = sessions
    with session(url, "a\x1b]0;title\x07\nb"):
        done = run("sessions", "--url", url)
        assert done.stdout.count(b"\n") == 1
        assert re.search(rb"[\x00-\x08\x0b-\x1f]", done.stdout) is None
        done = run("kill", "--url", url, "a\x1b]0;title\x07\nb")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_longest_list_that_a_server_makes() -> None:
    """As many sessions as there may be, with the longest names and command lines there are."""
    emoji = "\U0001f600"  # JSON has no character that takes more
    command = Command("echo", [emoji] * 5000, tty=True, id=emoji * 1024)
    longest = Session(command, LocalExecer())
    info = longest.info()
    longest.close()
    infos = [replace(info, id=info.id[:-4] + f"{n:04}") for n in range(1000)]

    class Full(Server):
        def sessions(self) -> list[SessionInfo]:
            return infos

    with listening(server=Full()) as listener:
        done = run("sessions", "--url", listener.url)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "no list of sessions"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n[{"a":1}', "no list of sessions"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\ngo\naway\n", "go away (HTTP 403)"),
    ],
)
def test_sessions_of_another_kind_of_server(answer: bytes, words: str) -> None:
    with tcp_server(answer) as url:
        done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout) == (1, b"")
    has_one_line(done.stderr, url, words)


def test_a_connection_that_breaks_while_sessions_are_asked_for() -> None:
    with tcp_server(b"") as url:
        done = run("sessions", "--url", url)
    assert (done.returncode, done.stdout) == (255, b"")
    has_one_line(done.stderr, url)


def test_sessions_behind_a_path() -> None:
    asked: list[str] = []

    def app(environ: dict[str, str], start_response: Callable[..., object]) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"[]"]

    with serving(Listener(app)) as listener:  # type: ignore[arg-type]
        assert run("sessions", "--url", f"{listener.url}/there/").returncode == 0
    assert asked == ["/there/sessions"]
