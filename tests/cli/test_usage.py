"""The command line: help, wrong usage, and how arguments are taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
from pathlib import Path

import pytest
from helpers import SECONDS
from programs import environment, run

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
