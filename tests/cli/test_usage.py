"""The command line: help, wrong usage, and how arguments are taken."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import signal
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest
from helpers import SECONDS, Task
from peers import listening_socket, read_head
from programs import environment, has_one_line, run, server_process

from wsep_sync.cli.arguments import parser

SCRIPT = Path(sysconfig.get_path("scripts"), "wsep-sync")


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


@pytest.mark.parametrize("subcommand", ["", "serve", "notty", "tty", "sessions", "kill"])
def test_help_has_a_usage_line_and_examples_that_can_be_parsed(subcommand: str) -> None:
    text = run(*subcommand.split(), "--help").stdout.decode()
    usage, _, _ = text.partition("\n\n")
    assert usage.startswith(f"usage: wsep-sync {subcommand or 'SUBCOMMAND'} [OPTION...]")
    assert "\n" not in usage
    _, _, examples = text.partition("\nexamples:\n")
    assert examples.count("wsep-sync ") > 0
    for line in examples.splitlines():
        if "--token-file" not in line:  # which would be read
            _, _, words = line.partition("wsep-sync ")
            assert parser().parse_args(shlex.split(words)).subcommand in line


def test_version() -> None:
    done = run("--version")
    version = importlib.metadata.version("wsep-sync")
    assert (done.returncode, done.stdout.decode()) == (0, f"wsep-sync {version}\n")


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
        "serve --max-sessions 0",
        "notty",
        "notty -n --",
        "notty --timeout nan true",
        "notty --nothing true",
        "notty --url wss://127.0.0.1:1 --tls-key /k true",
        "tty --escape ab true",
        "sessions",
        "kill",
        "kill somebody",
        "notty --env NAME true",
        "notty --header nothing true",
        "notty --user :staff true",
        "notty --user me: true",
        "notty --rows 24 true",
        "tty --rows 0 true",
        "tty --cols 65536 true",
        "serve --log-level loud",
    ],
)
def test_wrong_usage(arguments: str) -> None:
    done = run(*arguments.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: wsep-sync")
    assert b"Traceback" not in done.stderr
    assert b"invalid _" not in done.stderr  # the name of a function of ours


@pytest.mark.parametrize("subcommand", ["notty", "tty", "sessions", "kill"])
@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://127.0.0.1",
        "ws://",
        "ws://127.0.0.1:port",
        "ws+unix:relative",
        "ws://me:s3cret@127.0.0.1:1",
        "http://me:s3cret@127.0.0.1:1",
        "ssh://me:s3cret@127.0.0.1:port",
        "ssh://me:s3cret@127.0.0.1",
        "ssh://127.0.0.1:port",
        "ssh://",
    ],
)
def test_a_malformed_url(subcommand: str, url: str) -> None:
    done = run(subcommand, "--url", url, *([] if subcommand == "sessions" else ["x"]))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"usage: wsep-sync {subcommand} ".encode())
    assert b"URL" in done.stderr.splitlines()[-1]
    assert b"s3cret" not in done.stderr
    assert b"Traceback" not in done.stderr


# Ctrl-C while it starts

# Interrupts the program at one of its imports.
INTERRUPTING = """
import os, signal, sys
left = int(os.environ["INTERRUPT_AT"])
started = False
def look(event, arguments):
    global left, started
    if event == "import":
        started = started or arguments[0] == "wsep_sync.cli.program"
        if started:
            if left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            left -= 1
sys.addaudithook(look)
"""


@pytest.mark.parametrize("subcommand", ["notty", "serve", "sessions"])
@pytest.mark.parametrize("at", [0, 1, 10, 40, 80])
def test_ctrl_c_at_any_import_says_nothing(tmp_path: Path, at: int, subcommand: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    arguments = {"notty": ["cat"], "serve": ["--port", "0"]}.get(subcommand, ["--url", "ws://x"])
    env = environment(PYTHONPATH=str(tmp_path), INTERRUPT_AT=str(at))
    done = run(subcommand, *arguments, env=env)
    assert b"Traceback" not in done.stderr, done.stderr
    if at == 0:
        # As of any program: no status, but the signal.
        assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


# Options of what connects


def test_variables_and_the_directory(at_server: list[str], tmp_path: Path) -> None:
    script = 'pwd; echo "$ONE|$TWO|$THREE"'
    variables = ["--env", "ONE=1", "--env=TWO=a b=c", "--env", "THREE="]
    done = run("notty", *at_server, *variables, "--cwd", str(tmp_path), "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [str(tmp_path), "1|a b=c|"]
    done = run("notty", *at_server, "--cwd", "/no/such/directory", "--", "ls")
    assert (done.returncode, done.stdout) == (127, b"")
    has_one_line(done.stderr, "/no/such/directory: No such file")


def test_a_user_and_a_group(at_server: list[str]) -> None:
    for user, ids in (("nobody:nogroup", "65534 65534"), ("nobody", f"65534 {os.getgid()}")):
        done = run("notty", *at_server, "--user", user, "--", "sh", "-c", "echo $(id -u) $(id -g)")
        assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{ids}\n", b"")
    done = run("notty", *at_server, "--user", "no-such-user", "--", "id")
    assert (done.returncode, done.stdout) == (126, b"")
    has_one_line(done.stderr, "no-such-user")


def test_headers_are_sent_by_whatever_connects() -> None:
    for arguments in (["notty", "x"], ["tty", "x"], ["sessions"], ["kill", "x"]):
        with listening_socket() as sock, Task(refuse, sock) as head:
            url = f"ws://127.0.0.1:{sock.getsockname()[1]}"
            headers = ["--header", "X-One: 1", "--header", "X-Two:a: b"]
            run(arguments[0], "--url", url, *headers, *arguments[1:])
            lines = head.result().splitlines()
        assert "X-One: 1" in lines
        assert "X-Two: a: b" in lines


def refuse(listening: socket.socket) -> str:
    peer, _ = listening.accept()
    with peer:
        peer.settimeout(SECONDS)
        head = read_head(peer)[0]
        peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    return head


def test_a_line_for_a_shell_is_no_program(at_server: list[str]) -> None:
    done = run("notty", *at_server, "ls -la")
    assert (done.returncode, done.stdout) == (127, b"")
    has_one_line(done.stderr, "ls -la: No such file", "sh -c 'ls -la'")
    for command in (["no-such-program"], ["no such program", "argument"]):
        done = run("notty", *at_server, *command)
        assert done.returncode == 127
        assert b"sh -c" not in done.stderr


def test_what_is_logged_with_v() -> None:
    with server_process() as (url, _):
        done = run("notty", "-v", "--url", url, "--", "echo", "out")
        assert (done.returncode, done.stdout) == (0, b"out\n")
        assert f"connect url={url}" in done.stderr.decode()
        assert "started pid=" in done.stderr.decode()
        done = run("sessions", "-v", "--url", url)
        assert f"connect url={url}" in done.stderr.decode()


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
