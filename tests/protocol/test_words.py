"""Signals, and starts that failed, in words."""

from __future__ import annotations

import errno
import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_values import names

from wsep_sync import Command, StartError
from wsep_sync.errors import StartOSError, not_allowed, start_error
from wsep_sync.protocol import messages
from wsep_sync.protocol.messages import FEATURES, ExitCode, decode_server_message
from wsep_sync.protocol.words import (
    signal_from_message,
    signal_message,
    start_error_from_reason,
    start_failure,
)
from wsep_sync.transports.base import close_reason

pytestmark = pytest.mark.thorough


# Signals in words


def test_every_signal_can_be_told_in_words() -> None:
    for number in range(1, 65):
        assert signal_from_message(signal_message(number)) == number
        assert signal_from_message(signal_message(number, core_dumped=True)) == number


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("signal: killed", 9),
        ("signal: terminated", 15),
        ("signal: hangup", 1),
        ("signal: segmentation fault (core dumped)", 11),
        ("signal: signal 34", 34),
        ("exit status 2", None),
        ("", None),
        ("signal: ", None),
        ("signal: signal -1", None),
        ("signal: signal 0", None),
        ("signal: signal 65", None),
        ("signal: signal 99999", None),
        ("signal: signal ²", None),
        ("killed", None),
    ],
)
def test_the_references_words_name_the_signal(words: str, number: int | None) -> None:
    assert signal_from_message(words) == number
    header = {"type": "exit_code", "exit_code": -1, "error": words}
    assert decode_server_message(json.dumps(header).encode()) == ExitCode(-1, words, number)


def test_the_number_counts_more_than_the_words() -> None:
    raw = b'{"type":"exit_code","exit_code":-1,"error":"signal: killed","signal":15}'
    assert decode_server_message(raw) == ExitCode(-1, "signal: killed", 15)


# Starts that failed

LONG_NAMES = [
    "x" * 123,
    "x" * 4000,
    "/" + "directory/" * 30 + "prog",
    "ä" * 200,
    "€" * 200,
    "😀" * 200,
    os.fsdecode(b"\xff" * 200),
    "x" * 20 + ": " * 60,
    "prog",
    "no such: thing",
    "😀 " * 7,
]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC])
@pytest.mark.parametrize("name", LONG_NAMES, ids=lambda name: ascii(name[:12]))
def test_the_cause_fits_into_a_close_reason(name: str, number: int) -> None:
    command = Command(name)
    error = start_error(number, name)
    reason = close_reason(start_failure(error, command))
    assert len(reason.encode()) <= 123
    again = start_error_from_reason(reason, command)
    assert type(again) is type(error)
    assert isinstance(again, StartOSError)
    assert (again.errno, again.filename) == (number, name)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR])
@pytest.mark.parametrize("name", LONG_NAMES, ids=lambda name: ascii(name[:12]))
def test_a_directory_is_told_from_a_command(name: str, number: int) -> None:
    command = Command("prog" * 50, working_dir=name)
    reason = close_reason(start_failure(start_error(number, name), command))
    again = start_error_from_reason(reason, command)
    assert isinstance(again, StartOSError)
    assert (again.errno, again.filename) == (number, name)


# ETOOMANYREFS, which no start fails with, has a colon in its words.
@given(st.sampled_from(sorted(n for n in errno.errorcode if ": " not in os.strerror(n))), names)
def test_every_errno_survives_the_way_to_the_client(number: int, name: str) -> None:
    command = Command(name)
    reason = close_reason(start_failure(start_error(number, name), command))
    again = start_error_from_reason(reason, command)
    assert isinstance(again, StartOSError)
    # Two numbers may have the same words.
    assert os.strerror(again.errno or 0) == os.strerror(number)


def test_a_failure_without_an_errno_keeps_its_words() -> None:
    reason = start_failure(StartError("no command"), Command(""))
    assert reason == "start command: no command"
    again = start_error_from_reason(reason, Command(""))
    assert type(again) is StartError
    assert "no command" in str(again)
    assert str(start_error_from_reason("", Command("x")))


def test_a_refusal_keeps_its_words() -> None:
    reason = start_failure(not_allowed("/bin/sh"), Command("/bin/sh"))
    assert reason == "start command: exec /bin/sh: not allowed"
    again = start_error_from_reason(reason, Command("/bin/sh"))
    assert isinstance(again, PermissionError)
    assert str(again) == str(not_allowed("/bin/sh"))
    assert (again.errno, again.strerror) == (errno.EACCES, "Not allowed")


@pytest.mark.parametrize(
    ("reason", "kind", "filename"),
    [
        ("start command: chdir /nope: no such file or directory", FileNotFoundError, "/nope"),
        (
            'start command: exec: "prog": executable file not found in $PATH',
            FileNotFoundError,
            "prog",
        ),
        ("start command: fork/exec prog: exec format error", OSError, "prog"),
        ("start command: fork/exec prog: permission denied", PermissionError, "prog"),
        ("start command: fork/exec prog: operation not permitted", PermissionError, "prog"),
        ("start command: chdir /nope: not a directory", NotADirectoryError, "/nope"),
    ],
)
def test_the_references_reasons_are_understood(
    reason: str, kind: type[OSError], filename: str
) -> None:
    error = start_error_from_reason(reason, Command("prog", working_dir="/nope"))
    assert isinstance(error, kind)
    assert isinstance(error, StartError)
    assert error.filename == filename


def test_the_module_knows_no_sockets_threads_or_clocks() -> None:
    used = {name for name, value in vars(messages).items() if type(value) is type(sys)}
    assert used <= {"errno", "json", "os"}
    assert FEATURES == ("taken", "ended", "close_output", "discard", "attach")


@pytest.mark.parametrize("cause", ["no such file or directory", "not a directory"])
def test_the_reference_has_found_the_program_whose_path_it_names(cause: str) -> None:
    # Of a start that fails in the child, Go names the program; which it had found in PATH.
    reason = f"start command: fork/exec /usr/bin/ls: {cause}"
    for command, filename in (
        (Command("ls", working_dir="/nope"), "/nope"),
        (Command("ls"), "ls"),
        (Command("/usr/bin/ls", working_dir="/nope"), "/usr/bin/ls"),
    ):
        error = start_error_from_reason(reason, command)
        assert isinstance(error, OSError)
        assert error.filename == filename
