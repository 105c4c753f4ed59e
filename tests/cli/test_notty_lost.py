"""The command line: `notty` without a connection, and what signals do to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest
from command_lines import STAYING, STUBBORN, in_shell, tcp_server
from helpers import SECONDS, ends_processes, gone, listening, scripted
from pexpect import EOF
from programs import finish, first_number, has_one_line, run, running, server_process

from wsep_sync import ExitMissing, Popen, TransportClosed
from wsep_sync.faces.expect import spawn
from wsep_sync.transports.base import Transport


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
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"usage: ")
        assert b"URL" in done.stderr.splitlines()[-1]


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


def test_the_first_interrupt_is_the_commands(at_server: list[str]) -> None:
    script = "trap 'echo trapped; exit 7' INT; echo $$; while :; do sleep 0.01; done"
    with running("notty", *at_server, "--", "sh", "-c", script) as process:
        first_number(process)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (7, b"trapped\n", b"")


def test_an_interrupt_ends_a_command_that_does_not_care(at_server: list[str]) -> None:
    with running("notty", *at_server, "--", "sh", "-c", STAYING) as process:
        first_number(process)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (128 + signal.SIGINT, b"", b"")


def test_the_second_interrupt_hangs_up(at_server: list[str]) -> None:
    script = "trap 'echo trapped' INT; echo $$; while :; do sleep 0.01; done"
    with running("notty", *at_server, "--", "sh", "-c", script) as process:
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
    at_server: list[str], number: signal.Signals
) -> None:
    script = "sh -c 'echo $$; exec sleep 1000' & " + STAYING
    with running("notty", *at_server, "--", "sh", "-c", script) as process:
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
