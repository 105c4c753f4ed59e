"""subprocess's face does what subprocess does: the same cases for each, and equal results.

A case is a function of a face and an empty directory; what it returns or raises is compared with
what subprocess itself makes of it. They go through the documentation of the module section by
section. What is different at a distance, or has no counterpart, is in `test_popen_edges`.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import os
import select
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    CompletedProcess,
    SubprocessError,
    TimeoutExpired,
)
from typing import Any

import pytest
from faces import SUBPROCESS, Face, face, stdio
from helpers import SECONDS, Task, blocked, gone, listening

import wsep_sync

Case = Callable[[Face, Path], Any]

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    assert function.__name__ not in CASES
    CASES[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as listener:
        yield listener.url


@pytest.fixture(params=["local", "remote"])
def tested(request: pytest.FixtureRequest, url: str) -> Face:
    return face(url if request.param == "remote" else None)


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_subprocess_does(name: str, tested: Face, tmp_path: Path) -> None:
    assert outcome(CASES[name], tested, tmp_path) == outcome(CASES[name], SUBPROCESS, tmp_path)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120


def outcome(case: Case, face: Face, tmp_path: Path) -> str:
    """What a case returned or raised, in words that do not depend on where it ran."""
    directory = tmp_path / ("reference" if face is SUBPROCESS else "tested")
    directory.mkdir()
    try:
        result = show(case(face, directory))
    except Exception as error:
        result = show(error)
    return result.replace(str(directory), "DIRECTORY")


def show(value: Any) -> str:
    if isinstance(value, BaseException):
        # The package's own classes are subclasses of the ones that people know.
        known = next(c for c in type(value).__mro__ if c.__module__ in ("builtins", "subprocess"))
        details: list[Any] = []
        if isinstance(value, CalledProcessError):
            details = [value.cmd, value.returncode, value.output, value.stderr, str(value)]
        elif isinstance(value, TimeoutExpired):
            # Its timeout is what was left of it, when subprocess has it from a wait within.
            details = [value.cmd, value.output, value.stderr]
        elif isinstance(value, BrokenPipeError):
            details = [value.errno]
        elif isinstance(value, OSError):
            name = value.filename
            details = [value.errno, value.strerror, name if name is None else os.fsdecode(name)]
        return f"{known.__name__}({', '.join(map(show, details))})"
    if isinstance(value, CompletedProcess):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(show, value))})"
    return repr(value)


def raised(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call raises, as a value."""
    try:
        return "returned", call(*args, **kwargs)
    except Exception as error:
        return show(error)


# Runs until it is told to end by its input, and says what it was told.
ECHO = ["sh", "-c", 'while read line; do echo "got $line"; done']


# run()


@case
def run_a_list(face: Face, tmp: Path) -> Any:
    return face.run(["echo", "a  b", "c"], stdout=PIPE)


@case
def run_a_string(face: Face, tmp: Path) -> Any:
    return face.run("true", stdout=PIPE)


@case
def run_a_string_with_spaces_is_one_name(face: Face, tmp: Path) -> Any:
    return face.run("echo a", stdout=PIPE)


@case
def run_a_tuple(face: Face, tmp: Path) -> Any:
    return face.run(("echo", "a"), stdout=PIPE)


@case
def run_bytes(face: Face, tmp: Path) -> Any:
    return face.run([b"echo", b"\xff\xfe"], stdout=PIPE)


@case
def run_a_path(face: Face, tmp: Path) -> Any:
    (tmp / "script").write_text('#!/bin/sh\necho "$0" "$@"\n')
    (tmp / "script").chmod(0o700)
    return face.run([tmp / "script", tmp], stdout=PIPE), face.run(tmp / "script", stdout=PIPE)


@case
def run_with_odd_arguments(face: Face, tmp: Path) -> Any:
    arguments = ["", " ", "'", '"', "\\", "$x", "\n", "*", "é", "-n", "--"]
    return face.run(["printf", "<%s>", *arguments], stdout=PIPE)


@case
def run_without_capturing(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "exit 3"])


@case
def run_with_check(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=True, capture_output=True)


@case
def run_with_check_and_success(face: Face, tmp: Path) -> Any:
    return face.run(["true"], check=True)


@case
def run_with_capture_output(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "echo out; echo err >&2"], capture_output=True)


@case
def run_with_capture_output_and_stdout(face: Face, tmp: Path) -> Any:
    return face.run(["true"], capture_output=True, stdout=PIPE)


@case
def run_with_capture_output_and_stderr(face: Face, tmp: Path) -> Any:
    return face.run(["true"], capture_output=True, stderr=DEVNULL)


@case
def run_with_input(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input=b"a\0b\r\n", stdout=PIPE)


@case
def run_with_input_of_other_types(face: Face, tmp: Path) -> Any:
    return [face.run(["cat"], input=kind(b"abc"), stdout=PIPE) for kind in (bytearray, memoryview)]


@case
def run_with_text_input(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input="aé\n", stdout=PIPE, text=True)


@case
def run_with_empty_input(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input=b"", stdout=PIPE)


@case
def run_with_input_and_stdin(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input=b"", stdin=PIPE)


@case
def run_with_input_nobody_reads(face: Face, tmp: Path) -> Any:
    return face.run(["true"], input=bytes(1 << 20), stdout=PIPE)


@case
def run_with_input_half_read(face: Face, tmp: Path) -> Any:
    return face.run(["head", "-c", "5"], input=b"0123456789" * 100_000, stdout=PIPE)


@case
def run_in_time(face: Face, tmp: Path) -> Any:
    return face.run(["echo", "a"], stdout=PIPE, timeout=30)


@case
def run_out_of_time(face: Face, tmp: Path) -> Any:
    return face.run(["sleep", "1000"], timeout=0.05)


def _until_told(face: Face, tmp: Path, **options: Any) -> Any:
    """Run something that writes and then sleeps, with a timeout that it reaches for sure."""
    for timeout in (0.2, 1, 5):  # a slow machine may not get to writing
        script = "echo out; printf errö >&2; exec sleep 1000"
        with contextlib.suppress(FileNotFoundError):
            (tmp / "pid").unlink()
        try:
            face.run(["sh", "-c", f"echo $$ > {tmp / 'pid'}; {script}"], timeout=timeout, **options)
        except TimeoutExpired as error:
            pid = (tmp / "pid").read_text() if (tmp / "pid").exists() else ""
            if error.stderr or (not options and pid):
                gone(int(pid))
                error.cmd, error.timeout = "", 0
                return error
    return "never wrote anything"


@case
def run_out_of_time_has_the_output_so_far(face: Face, tmp: Path) -> Any:
    return _until_told(face, tmp, capture_output=True)


@case
def run_out_of_time_has_bytes_even_of_text(face: Face, tmp: Path) -> Any:
    return _until_told(face, tmp, capture_output=True, text=True)


@case
def run_out_of_time_ends_the_command(face: Face, tmp: Path) -> Any:
    return _until_told(face, tmp, stderr=PIPE)


@case
def run_out_of_time_with_input(face: Face, tmp: Path) -> Any:
    return face.run(["sleep", "1000"], input=bytes(1 << 22), stdout=PIPE, timeout=0.05)


# CompletedProcess


@case
def completed_process_is_subprocess_s(face: Face, tmp: Path) -> Any:
    return type(face.run(["true"])) is CompletedProcess


@case
def completed_process_has_the_args(face: Face, tmp: Path) -> Any:
    return face.run(["echo", "a"], stdout=PIPE).args, face.run("exit 1", shell=True).args


@case
def completed_process_of_a_signal(face: Face, tmp: Path) -> Any:
    return [face.run(["sh", "-c", f"kill -{n} $$"]).returncode for n in ("KILL", "TERM", "HUP")]


@case
def completed_process_with_both_in_one(face: Face, tmp: Path) -> Any:
    done = face.run(["sh", "-c", "echo out; echo err >&2"], stdout=PIPE, stderr=STDOUT)
    return done.stdout, done.stderr


@case
def completed_process_check_returncode(face: Face, tmp: Path) -> Any:
    return face.run(["true"]).check_returncode(), face.run(["false"]).check_returncode()


@case
def completed_process_every_status(face: Face, tmp: Path) -> Any:
    return [face.run(["sh", "-c", f"exit {n}"]).returncode for n in (0, 1, 2, 126, 127, 255)]


# DEVNULL, PIPE, STDOUT


@case
def devnull_as_stdin(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], stdin=DEVNULL, stdout=PIPE)


@case
def devnull_as_outputs(face: Face, tmp: Path) -> Any:
    script = "echo out; echo err >&2; exit 4"
    return face.run(["sh", "-c", script], stdout=DEVNULL, stderr=DEVNULL)


@case
def devnull_takes_any_amount(face: Face, tmp: Path) -> Any:
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 4"
    return face.run(["sh", "-c", script], stdout=DEVNULL, stderr=DEVNULL)


@case
def devnull_as_one_output(face: Face, tmp: Path) -> Any:
    script = "head -c 300000 /dev/zero >&2; echo out"
    return face.run(["sh", "-c", script], stdout=PIPE, stderr=DEVNULL)


@case
def stdout_as_stderr_keeps_the_order(face: Face, tmp: Path) -> Any:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    return face.run(["sh", "-c", script], stdout=PIPE, stderr=STDOUT)


@case
def stdout_as_stderr_in_a_file(face: Face, tmp: Path) -> Any:
    with open(tmp / "both", "wb") as both:
        done = face.run(["sh", "-c", "echo out; echo err >&2"], stdout=both, stderr=STDOUT)
    return done, (tmp / "both").read_bytes()


@case
def stdout_as_stderr_to_nowhere(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "echo out; echo err >&2"], stdout=DEVNULL, stderr=STDOUT)


@case
def stdout_as_stderr_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.run(["no-such-command", "x"], stdout=PIPE, stderr=STDOUT)


@case
def stdout_as_stderr_of_a_missing_file(face: Face, tmp: Path) -> Any:
    return face.run(["./missing"], stdout=PIPE, stderr=STDOUT, cwd=tmp)


@case
def stdout_as_stderr_of_a_file_without_permission(face: Face, tmp: Path) -> Any:
    (tmp / "plain").write_text("#!/bin/sh\n")
    return face.run([tmp / "plain"], stdout=PIPE, stderr=STDOUT)


@case
def stdout_as_stderr_in_a_missing_directory(face: Face, tmp: Path) -> Any:
    return face.run(["true"], stdout=PIPE, stderr=STDOUT, cwd=tmp / "missing")


@case
def stdout_as_stderr_keeps_the_status(face: Face, tmp: Path) -> Any:
    codes = ["exit 0", "exit 7", "exit 127", "kill -TERM $$"]
    return [face.run(["sh", "-c", c], stdout=PIPE, stderr=STDOUT).returncode for c in codes]


@case
def stdout_as_stderr_keeps_the_pid_and_the_arguments(face: Face, tmp: Path) -> Any:
    script = 'echo $$ >&2; printf "<%s>" "$@"'
    arguments = ["", "a b", "*", "-x", "$y"]
    with face.Popen(["sh", "-c", script, "sh", *arguments], stdout=PIPE, stderr=STDOUT) as process:
        out, _ = process.communicate()
    pid, _, rest = out.partition(b"\n")
    return int(pid) == process.pid, rest


@case
def stdout_cannot_be_stdin(face: Face, tmp: Path) -> Any:
    try:
        face.Popen(["true"], stdin=STDOUT)
    except (ValueError, OSError):
        return "refused"


# Exceptions


@case
def exceptions_have_one_base(face: Face, tmp: Path) -> Any:
    caught = []
    for script, timeout in (("exit 1", None), ("exec sleep 1000", 0.01)):
        try:
            face.run(["sh", "-c", script], check=True, timeout=timeout)
        except SubprocessError as error:
            caught.append(error)
    return caught


@case
def exceptions_of_a_signal_say_so(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "kill -KILL $$"], check=True)


@case
def exceptions_timeout_is_subprocess_s(face: Face, tmp: Path) -> Any:
    try:
        face.run(["sleep", "1000"], timeout=0.01)
    except TimeoutExpired as error:
        return error.cmd, error.output, error.stdout, error.stderr


@case
def exceptions_called_process_error_is_subprocess_s(face: Face, tmp: Path) -> Any:
    try:
        face.run(["sh", "-c", "echo a; exit 9"], stdout=PIPE, check=True)
    except CalledProcessError as error:
        return error.cmd, error.returncode, error.output, error.stdout, error.stderr


@case
def exceptions_no_such_command(face: Face, tmp: Path) -> Any:
    return face.Popen(["no-such-command"])


@case
def exceptions_no_such_file(face: Face, tmp: Path) -> Any:
    return face.Popen([str(tmp / "missing")])


@case
def exceptions_a_file_that_cannot_be_run(face: Face, tmp: Path) -> Any:
    (tmp / "plain").write_text("#!/bin/sh\n")
    return face.Popen([str(tmp / "plain")])


@case
def exceptions_a_directory_cannot_be_run(face: Face, tmp: Path) -> Any:
    return face.Popen([str(tmp)])


@case
def exceptions_a_file_is_no_directory(face: Face, tmp: Path) -> Any:
    (tmp / "plain").write_text("")
    return face.Popen([str(tmp / "plain" / "x")])


@case
def exceptions_not_a_program(face: Face, tmp: Path) -> Any:
    (tmp / "text").write_text("no program\n")
    (tmp / "text").chmod(0o700)
    return face.Popen([str(tmp / "text")])


@case
def exceptions_arguments_too_long(face: Face, tmp: Path) -> Any:
    return face.Popen(["true", "x" * (1 << 22)])


@case
def exceptions_a_nul_byte(face: Face, tmp: Path) -> Any:
    return raised(face.Popen, ["true", "a\0b"]), raised(face.Popen, "a\0b")


@case
def exceptions_arguments_of_the_wrong_type(face: Face, tmp: Path) -> Any:
    return [raised(face.Popen, args) for args in (5, [5], [None], None, [])]


@case
def exceptions_bufsize_of_the_wrong_type(face: Face, tmp: Path) -> Any:
    return face.Popen(["true"], bufsize="1")


@case
def exceptions_a_file_without_a_descriptor(face: Face, tmp: Path) -> Any:
    return [
        raised(face.Popen, ["true"], **{name: io.BytesIO()})
        for name in ("stdin", "stdout", "stderr")
    ]


@case
def exceptions_a_descriptor_that_is_not_open(face: Face, tmp: Path) -> Any:
    return raised(face.Popen, ["true"], stdin=9999)


# Frequently used arguments: text


@case
def text(face: Face, tmp: Path) -> Any:
    return face.run(["printf", "é\\n"], capture_output=True, text=True)


@case
def text_by_its_old_name(face: Face, tmp: Path) -> Any:
    return face.run(["printf", "é\\n"], capture_output=True, universal_newlines=True)


@case
def text_by_both_names(face: Face, tmp: Path) -> Any:
    return raised(face.run, ["true"], text=True, universal_newlines=False)


@case
def text_by_an_encoding(face: Face, tmp: Path) -> Any:
    return [
        face.run(["cat"], input="aé", stdout=PIPE, encoding=encoding)
        for encoding in ("latin-1", "utf-8", "utf-16")
    ]


@case
def text_by_errors(face: Face, tmp: Path) -> Any:
    return [
        face.run(["printf", "a\\377b"], stdout=PIPE, errors=errors)
        for errors in ("replace", "ignore", "surrogateescape", "backslashreplace")
    ]


@case
def text_that_cannot_be_decoded(face: Face, tmp: Path) -> Any:
    return face.run(["printf", "a\\377b"], stdout=PIPE, encoding="utf-8")


@case
def text_that_cannot_be_encoded(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input="é", stdout=PIPE, encoding="ascii")


@case
def text_in_an_encoding_that_is_none(face: Face, tmp: Path) -> Any:
    return face.run(["true"], stdout=PIPE, encoding="no-such-encoding")


@case
def text_has_its_newlines_translated(face: Face, tmp: Path) -> Any:
    with face.Popen(["printf", "a\\r\\nb\\rc\\n\\n"], stdout=PIPE, text=True) as process:
        lines = list(process.stdout)
    return lines, face.run(["printf", "a\\r\\nb\\rc\\n\\n"], stdout=PIPE, text=True)


@case
def text_that_is_written_has_the_newlines_it_has(face: Face, tmp: Path) -> Any:
    return face.run(["od", "-c"], input="a\r\nb\n", stdout=PIPE, text=True)


@case
def text_has_streams_of_text(face: Face, tmp: Path) -> Any:
    with face.Popen(
        ["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE, encoding="latin-1", errors="ignore"
    ) as process:
        streams = process.stdin, process.stdout, process.stderr
        assert all(isinstance(s, io.TextIOWrapper) for s in streams)
        return [(s.encoding, s.errors, s.line_buffering) for s in streams]


@case
def text_reads_a_character_that_came_in_halves(face: Face, tmp: Path) -> Any:
    script = "printf 'a\\303'; echo half >&2; read line; printf '\\251b\\n'"
    with face.Popen(
        ["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE, encoding="utf-8"
    ) as process:
        half = process.stderr.readline()
        process.stdin.write("go on\n")
        process.stdin.flush()
        return half, process.stdout.readline()


@case
def text_communicates_a_character_that_came_in_halves(face: Face, tmp: Path) -> Any:
    # A prime number of bytes for each write, so that characters are cut everywhere.
    script = 'read all; i=0; while [ $i -lt 300 ]; do printf %s "$all"; i=$((i + 1)); done'
    return face.run(["sh", "-c", script], input="aéà€𝄞\n", stdout=PIPE, encoding="utf-8")


@case
def text_mixes_reading_and_communicating(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "5"], stdout=PIPE, text=True) as process:
        return process.stdout.readline(), process.communicate()


@case
def binary_mixes_reading_and_communicating(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "5"], stdout=PIPE) as process:
        return process.stdout.readline(), process.communicate()


# Frequently used arguments: shell


@case
def shell(face: Face, tmp: Path) -> Any:
    return face.run('echo "a  b" | tr a x; exit 3', shell=True, stdout=PIPE)


@case
def shell_with_a_list(face: Face, tmp: Path) -> Any:
    return face.run(['echo "$0" "$1"', "zero", "one"], shell=True, stdout=PIPE)


@case
def shell_with_bytes(face: Face, tmp: Path) -> Any:
    return face.run(b"printf '\xff'", shell=True, stdout=PIPE)


@case
def shell_with_both_in_one(face: Face, tmp: Path) -> Any:
    return face.run("echo out; echo err >&2; nosuch", shell=True, stdout=PIPE, stderr=STDOUT)


@case
def shell_without_the_command(face: Face, tmp: Path) -> Any:
    return face.run("exec no-such-command 2> /dev/null", shell=True)


@case
def shell_without_permission(face: Face, tmp: Path) -> Any:
    (tmp / "plain").write_text("")
    return face.run(f"exec {tmp / 'plain'} 2> /dev/null", shell=True)


@case
def shell_of_another_kind(face: Face, tmp: Path) -> Any:
    return face.run('echo "${BASH:+bash}"', shell=True, executable="/bin/bash", stdout=PIPE)


@case
def shell_that_is_not_there(face: Face, tmp: Path) -> Any:
    return face.run("true", shell=True, executable=tmp / "missing")


# Popen constructor: streams


@case
def stdin_from_a_file(face: Face, tmp: Path) -> Any:
    (tmp / "file").write_bytes(b"from a file\n" * 10_000)
    with open(tmp / "file", "rb") as file:
        return face.run(["cksum"], stdin=file, stdout=PIPE)


@case
def stdin_from_the_middle_of_a_file(face: Face, tmp: Path) -> Any:
    (tmp / "file").write_bytes(b"0123456789")
    with open(tmp / "file", "rb", buffering=0) as file:
        file.read(4)
        return face.run(["cat"], stdin=file, stdout=PIPE)


@case
def stdin_from_a_file_that_is_closed_meanwhile(face: Face, tmp: Path) -> Any:
    (tmp / "file").write_bytes(b"x" * 1_000_000)
    with open(tmp / "file", "rb") as file:
        process = face.Popen(["sh", "-c", "read go; wc -c"], stdin=file, stdout=PIPE)
    with process:
        return process.communicate()


@case
def stdin_from_a_descriptor(face: Face, tmp: Path) -> Any:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"):
        os.write(writer, b"through a pipe")
        os.close(writer)
        return face.run(["cat"], stdin=reader, stdout=PIPE)


@case
def stdin_from_a_pipe_that_stays_open(face: Face, tmp: Path) -> Any:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb"):
        return face.run(["echo", "did not read"], stdin=reader, stdout=PIPE)


@case
def stdout_to_a_file(face: Face, tmp: Path) -> Any:
    with open(tmp / "out", "wb") as out, open(tmp / "err", "wb") as err:
        done = face.run(["sh", "-c", "seq 30000; echo e >&2"], stdout=out, stderr=err)
    return done, len((tmp / "out").read_bytes()), (tmp / "err").read_bytes()


@case
def stdout_to_the_end_of_a_file(face: Face, tmp: Path) -> Any:
    (tmp / "out").write_text("before\n")
    with open(tmp / "out", "ab") as out:
        face.run(["echo", "one"], stdout=out)
        face.run(["echo", "two"], stdout=out)
    return (tmp / "out").read_text()


@case
def stdout_to_a_text_file(face: Face, tmp: Path) -> Any:
    with open(tmp / "out", "w") as out:
        face.run(["echo", "text"], stdout=out)
    return (tmp / "out").read_text()


@case
def stdout_to_a_descriptor(face: Face, tmp: Path) -> Any:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as end:
        with os.fdopen(writer, "wb"):
            done = face.run(["echo", "a"], stdout=writer)
        return done, end.read()


@case
def stdout_and_stderr_to_the_same_file(face: Face, tmp: Path) -> Any:
    with open(tmp / "both", "wb") as both:
        done = face.run(["sh", "-c", "echo one; echo two >&2"], stdout=both, stderr=both)
    return done, sorted((tmp / "both").read_bytes().splitlines())


BY_TURNS = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"


@case
def stdout_and_stderr_to_the_same_file_keep_their_order(face: Face, tmp: Path) -> Any:
    results: list[Any] = []
    for _ in range(3):
        with open(tmp / "one", "wb") as file:
            face.run(BY_TURNS, shell=True, stdout=file, stderr=file)
        with open(tmp / "two", "wb") as file:
            copy = os.dup(file.fileno())
            face.run(["sh", "-c", BY_TURNS], stdout=file, stderr=copy)
            os.close(copy)
        results += [(tmp / "one").read_bytes(), (tmp / "two").read_bytes()]
    return results


@case
def stdout_and_stderr_to_the_same_pipe_keep_their_order(face: Face, tmp: Path) -> Any:
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        face.run(BY_TURNS, shell=True, stdout=writer, stderr=writer)
        os.close(writer)
        return file.read()


@case
def stdout_and_stderr_inherited_as_one_keep_their_order(face: Face, tmp: Path) -> Any:
    with stdio(tmp):
        os.dup2(1, 2)
        statuses = [face.call(BY_TURNS, shell=True) for _ in range(3)]
        statuses.append(raised(face.call, ["no-such-command"]))
    return statuses, (tmp / "out").read_bytes(), (tmp / "err").read_bytes()


@case
def stdout_to_a_pipe_that_nobody_reads(face: Face, tmp: Path) -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb"):
        return face.run(["yes"], stdout=writer)


@case
def stdout_has_what_was_written_when_run_returns(face: Face, tmp: Path) -> Any:
    with open(tmp / "out", "w+b") as out:
        lengths = []
        for _ in range(5):
            face.run(["head", "-c", "100000", "/dev/zero"], stdout=out)
            lengths.append(os.fstat(out.fileno()).st_size)
    return lengths


@case
def stdio_is_inherited(face: Face, tmp: Path) -> Any:
    with stdio(tmp, b"in"):
        done = face.run(["sh", "-c", "cat; echo out; echo err >&2; exit 2"])
    return done, (tmp / "out").read_bytes(), (tmp / "err").read_bytes()


@case
def stdio_is_inherited_one_by_one(face: Face, tmp: Path) -> Any:
    results = []
    for options in ({"stdout": PIPE}, {"stderr": PIPE}, {"stdin": DEVNULL}, {"input": b"x"}):
        with stdio(tmp, b"in"):
            done = face.run(["sh", "-c", "cat; echo out; echo err >&2"], **options)
        results += [done, (tmp / "out").read_bytes(), (tmp / "err").read_bytes()]
    return results


@case
def stdio_is_inherited_with_both_in_one(face: Face, tmp: Path) -> Any:
    with stdio(tmp):
        done = face.run(["sh", "-c", "echo out; echo err >&2"], stderr=STDOUT)
    return done, (tmp / "out").read_bytes(), (tmp / "err").read_bytes()


@case
def stdio_that_is_inherited_comes_in_order(face: Face, tmp: Path) -> Any:
    with stdio(tmp):
        for number in range(5):
            os.write(1, b"we %d\n" % number)
            face.run(["echo", "they", str(number)])
    return (tmp / "out").read_bytes()


@case
def stdio_that_is_closed_is_nothing(face: Face, tmp: Path) -> Any:
    with stdio(tmp):
        os.close(0)
        try:
            return face.run(["echo", "a"], stdout=PIPE)
        finally:
            os.open(os.devnull, os.O_RDONLY)  # 0, the lowest that is free


@case
def stdio_outlives_the_command(face: Face, tmp: Path) -> Any:
    # Whoever the command left behind may still write; a pipe tells when that has been read.
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as end:
        with os.fdopen(writer, "wb"):
            fifo = tmp / "fifo"
            os.mkfifo(fifo)
            script = f"(read line < {fifo}; echo late) & echo early"
            with face.Popen(["sh", "-c", script], stdout=writer):
                early = end.readline()
                fifo.write_text("now\n")
        return early, end.read()


# Popen constructor: buffers


@case
def bufsize_and_what_the_streams_are(face: Face, tmp: Path) -> Any:
    results: list[Any] = []
    for bufsize in (-1, 0, 512, None):
        with face.Popen(["cat"], bufsize, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            for stream in (process.stdin, process.stdout, process.stderr):
                kind = (io.BufferedReader, io.BufferedWriter, io.RawIOBase)
                results.append([isinstance(stream, k) for k in kind])
    return results


@case
def bufsize_0_writes_at_once(face: Face, tmp: Path) -> Any:
    with face.Popen(ECHO, bufsize=0, stdin=PIPE, stdout=PIPE) as process:
        count = process.stdin.write(b"a\n")
        return count, process.stdout.readline(), process.stdout.closed


@case
def bufsize_1_writes_lines_of_text(face: Face, tmp: Path) -> Any:
    with face.Popen(ECHO, bufsize=1, stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("a\n")
        first = process.stdout.readline()
        process.stdin.write("b\nc\n")
        return first, process.stdout.readline(), process.stdout.readline()


@case
def bufsize_1_of_bytes_is_a_mistake(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with face.Popen(["cat"], bufsize=1, stdin=PIPE, stdout=DEVNULL) as process:
            return {w.category for w in caught}, process.stdin.write(b"x")


@case
def bufsize_0_of_text(face: Face, tmp: Path) -> Any:
    with face.Popen(ECHO, bufsize=0, stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("a\n")
        return process.stdout.readline()


@case
def bufsize_of_many_bytes_waits_for_a_flush(face: Face, tmp: Path) -> Any:
    with face.Popen(ECHO, bufsize=1 << 16, stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"a\n")
        ready = select.select([process.stdout], [], [], 0.1)[0]
        process.stdin.flush()
        return ready, process.stdout.readline()


# Popen constructor: everything else


@case
def cwd(face: Face, tmp: Path) -> Any:
    kinds = (tmp, str(tmp), os.fsencode(tmp))
    return [face.run(["pwd", "-P"], cwd=kind, stdout=PIPE) for kind in kinds]


@case
def cwd_that_is_missing(face: Face, tmp: Path) -> Any:
    return face.run(["true"], cwd=str(tmp / "missing"))


@case
def cwd_that_is_empty(face: Face, tmp: Path) -> Any:
    return face.run(["true"], cwd="")


@case
def cwd_that_is_a_file(face: Face, tmp: Path) -> Any:
    (tmp / "file").write_text("")
    return face.run(["true"], cwd=str(tmp / "file"))


@case
def cwd_and_a_relative_program(face: Face, tmp: Path) -> Any:
    (tmp / "script").write_text("#!/bin/sh\necho here\n")
    (tmp / "script").chmod(0o700)
    return face.run(["./script"], cwd=tmp, stdout=PIPE)


@case
def env(face: Face, tmp: Path) -> Any:
    options = face.more(A="1", B="a b\nc", C="")
    return face.run(["sh", "-c", 'echo "$A|$B|$C|${HOME:+home}"'], stdout=PIPE, **options)


@case
def env_of_bytes(face: Face, tmp: Path) -> Any:
    options = face.only(A=b"\xff", PATH=os.environ["PATH"])
    return face.run(["printenv", "A"], stdout=PIPE, **options)


@case
def env_alone(face: Face, tmp: Path) -> Any:
    done = face.run(["/usr/bin/env"], stdout=PIPE, **face.only(A="1", B="x y", HOME="é"))
    return sorted(done.stdout.splitlines())


@case
def env_of_nothing(face: Face, tmp: Path) -> Any:
    return face.run(["/usr/bin/env"], stdout=PIPE, **face.only())


@case
def env_alone_and_the_search_for_a_program(face: Face, tmp: Path) -> Any:
    (tmp / "program").write_text("#!/bin/sh\necho found\n")
    (tmp / "program").chmod(0o700)
    return [
        face.run(["program"], stdout=PIPE, **face.only(PATH=f"/none:{tmp}")),
        raised(face.run, ["program"], stdout=PIPE, **face.only(PATH="/none")),
        raised(face.run, ["program"], stdout=PIPE, **face.only()),
    ]


@case
def env_alone_with_both_in_one(face: Face, tmp: Path) -> Any:
    options = face.only(A="1")
    return face.run(["/usr/bin/env"], stdout=PIPE, stderr=STDOUT, **options)


@case
def env_with_names_that_are_none(face: Face, tmp: Path) -> Any:
    return raised(face.run, ["true"], env={"a=b": "1"}), raised(face.run, ["true"], env={"a": "\0"})


@case
def executable_is_the_program(face: Face, tmp: Path) -> Any:
    return face.run(["/bin/echo", "a"], executable="/bin/echo", stdout=PIPE)


@case
def umask(face: Face, tmp: Path) -> Any:
    done = face.run(["sh", "-c", "umask; : > file"], umask=0o027, cwd=tmp, stdout=PIPE)
    return done, oct((tmp / "file").stat().st_mode)


@case
def umask_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.run(["no-such-command"], umask=0o027, capture_output=True)


@case
def umask_leaves_the_streams_alone(face: Face, tmp: Path) -> Any:
    options = {"umask": 0o077, "capture_output": True, "input": b"in"}
    return [face.run(["sh", "-c", "cat; echo e >&2"], bufsize=n, **options) for n in (-1, 0, 100)]


@case
def start_new_session(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], start_new_session=True, stdin=PIPE) as process:
        return os.getsid(process.pid) == process.pid, os.getpgid(process.pid) == process.pid


@case
def group_and_user(face: Face, tmp: Path) -> Any:
    script = "id -u; id -g"
    with_both = {"user": 65534, "group": 65533, "extra_groups": []}
    if not face.is_subprocess:
        del with_both["extra_groups"]
    return [
        face.run(["sh", "-c", script], user=65534, stdout=PIPE),
        face.run(["sh", "-c", script], group=65533, stdout=PIPE),
        face.run(["sh", "-c", script], stdout=PIPE, **with_both),
    ]


@case
def group_and_user_that_are_none(face: Face, tmp: Path) -> Any:
    return [
        raised(face.run, ["true"], **{name: who})
        for name in ("user", "group")
        for who in (-1, 1.5, b"root")
    ]


@case
def children_do_not_ignore_sigpipe(face: Face, tmp: Path) -> Any:
    script = "grep SigIgn /proc/self/status; ls /proc/self/fd"
    return face.run(["sh", "-c", script], stdin=DEVNULL, capture_output=True, text=True)


@case
def popen_is_a_context_manager(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        before = process.returncode
    streams = process.stdin, process.stdout, process.stderr
    return before, process.returncode, [stream.closed for stream in streams]


@case
def popen_leaves_its_block_by_an_exception(face: Face, tmp: Path) -> Any:
    with pytest.raises(ZeroDivisionError), face.Popen(["cat"], stdin=PIPE) as process:
        raise ZeroDivisionError
    return process.returncode


@case
def popen_leaves_its_block_with_output_unread(face: Face, tmp: Path) -> Any:
    # Closing the output is what ends this.
    with face.Popen(["yes"], stdout=PIPE) as process:
        process.stdout.readline()
    return process.returncode


@case
def popen_leaves_its_block_with_input_unread(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exec 0<&-; echo closed"], stdin=PIPE, stdout=PIPE) as process:
        process.stdout.readline()
        process.wait()
        process.stdin.write(b"x")
        return raised(process.stdin.close)


@case
def popen_in_words(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        before = repr(process)
    return before, repr(process)


@case
def popen_in_words_is_not_too_long(face: Face, tmp: Path) -> Any:
    with face.Popen(["true", *map(str, range(100))]) as process:
        pass
    return repr(process)


@case
def popen_that_is_dropped(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process = face.Popen(["cat"], stdin=PIPE, stdout=PIPE)
        pid, stdin, stdout = process.pid, process.stdin, process.stdout
        del process
        gc.collect()
        categories = {w.category for w in caught}
        caught.clear()  # a warning has its source
        with stdin, stdout:
            # The command runs on, and so do the streams.
            stdin.write(b"still there")
            stdin.close()
            out = stdout.read()
        _reap(face, pid)
        return categories, out


@case
def popen_that_is_dropped_at_once(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with face.Popen(["sh", "-c", "echo $$; seq 100000"], stdout=PIPE, text=True).stdout as out:
            pid = int(out.readline())
            lines = list(out)
        gc.collect()
        _reap(face, pid)
        return len(lines)


def _reap(face: Face, pid: int) -> None:
    """Wait for the end of a command that subprocess would not reap before another one starts."""
    if "url" not in face.options:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    gone(pid)


@case
def popen_that_has_ended_can_be_dropped(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process = face.Popen(["true"], stdin=PIPE)
        process.wait()
        process.stdin.close()
        del process
        gc.collect()
    return caught


# Popen objects


@case
def args_are_as_given(face: Face, tmp: Path) -> Any:
    with face.Popen("exit 0", shell=True) as one, face.Popen(("true",)) as other:
        return one.args, other.args


@case
def pid_is_the_command_s(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "echo $$"], stdout=PIPE) as process:
        return int(process.stdout.read()) == process.pid


@case
def streams_are_none_unless_piped(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"], stdin=DEVNULL, stderr=STDOUT) as process:
        return process.stdin, process.stdout, process.stderr


@case
def returncode_is_none_until_somebody_looks(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"], stdout=PIPE) as process:
        process.stdout.read()
        before = process.returncode
        process.wait()
        return before, process.returncode


@case
def poll(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "read line; exit 3"], stdin=PIPE) as process:
        before = process.poll()
        process.stdin.close()
        while process.poll() is None:
            time.sleep(0.001)
        return before, process.poll(), process.returncode


@case
def wait(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit 3"]) as process:
        return process.wait(), process.wait(), process.wait(timeout=0), process.returncode


@case
def wait_with_a_timeout(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        expired = [raised(process.wait, timeout) for timeout in (0, 0.01, -1)]
        process.stdin.close()
        return expired, process.wait(timeout=30)


@case
def wait_in_two_threads(face: Face, tmp: Path) -> Any:
    with (
        face.Popen(["sh", "-c", "read line; exit 3"], stdin=PIPE) as process,
        Task(process.wait) as one,
        Task(process.wait, 30) as other,
    ):
        blocked(one)
        process.stdin.close()
        return one.result(), other.result(), process.returncode


@case
def communicate(face: Face, tmp: Path) -> Any:
    with face.Popen(
        ["sh", "-c", "cat; echo err >&2"], stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as process:
        results = process.communicate(b"in")
        streams = process.stdin, process.stdout, process.stderr
        return results, process.returncode, [stream.closed for stream in streams]


@case
def communicate_with_nothing_piped(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit 3"]) as process:
        return process.communicate(), process.returncode


@case
def communicate_with_one_output(face: Face, tmp: Path) -> Any:
    results = []
    for name in ("stdout", "stderr"):
        with face.Popen(["sh", "-c", "echo out; echo err >&2"], **_others(name)) as process:
            results.append(process.communicate())
    return results


def _others(name: str) -> dict[str, int]:
    return {"stdout": DEVNULL, "stderr": DEVNULL, name: PIPE}


@case
def communicate_with_input_alone(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit $(wc -c)"], stdin=PIPE) as process:
        return process.communicate(b"abc"), process.returncode


@case
def communicate_without_input(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        return process.communicate()


@case
def communicate_text(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as process:
        return process.communicate("a\né\n")


@case
def communicate_a_lot_both_ways(face: Face, tmp: Path) -> Any:
    data = os.urandom(1 << 16) * 64
    with face.Popen(["sh", "-c", "tee /dev/stderr"], **_piped()) as process:
        out, err = process.communicate(data)
        return len(out), out == data, err == data


def _piped() -> dict[str, int]:
    return {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}


@case
def communicate_input_that_nobody_reads(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit 5"], **_piped()) as process:
        return process.communicate(bytes(1 << 22)), process.returncode


@case
def communicate_after_writing(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("first ")
        return process.communicate("second")


@case
def communicate_input_of_the_wrong_type(face: Face, tmp: Path) -> Any:
    results = []
    for text, data in ((False, "str"), (True, b"bytes"), (False, 5)):
        with face.Popen(["cat"], stdin=PIPE, text=text) as process:
            results.append(raised(process.communicate, data))
    return results


@case
def communicate_again_after_a_timeout(face: Face, tmp: Path) -> Any:
    script = "cat > /dev/null; echo one; read line < fifo; echo two"
    os.mkfifo(tmp / "fifo")
    with face.Popen(["sh", "-c", script], **_piped(), cwd=tmp) as process:
        expired = [type(_expired(process, b"in")), raised(process.communicate, b"more")]
        expired.append(type(_expired(process)))
        (tmp / "fifo").write_text("go on\n")
        return expired, process.communicate(timeout=30)


def _expired(process: Any, *args: Any) -> TimeoutExpired:
    with pytest.raises(TimeoutExpired) as caught:
        process.communicate(*args, timeout=0.01)
    return caught.value


@case
def communicate_again_after_killing(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "echo a; exec sleep 1000"], stdout=PIPE, text=True) as process:
        while not _expired(process).output:
            pass
        process.kill()
        return process.communicate(), process.returncode


@case
def communicate_leaves_the_block_unfinished(face: Face, tmp: Path) -> Any:
    os.mkfifo(tmp / "fifo")
    script = "echo a; echo b >&2; read line < fifo; exit 6"
    with face.Popen(["sh", "-c", script], **_piped(), cwd=tmp) as process:
        expired = _expired(process)
        (tmp / "fifo").write_text("go on\n")
    return type(expired), process.returncode


@case
def send_signal(face: Face, tmp: Path) -> Any:
    codes = []
    for number in (signal.SIGTERM, signal.SIGINT, 1, signal.SIGUSR1):
        with face.Popen(["sleep", "1000"]) as process:
            process.send_signal(number)
            codes.append(process.wait())
    return codes


@case
def send_signal_that_is_caught(face: Face, tmp: Path) -> Any:
    script = 'trap "echo caught; exit 4" USR1; echo ready; read line < fifo'
    os.mkfifo(tmp / "fifo")
    # The fifo's other end, lest opening it block; a shell acts when a read is interrupted.
    keep = os.open(tmp / "fifo", os.O_RDWR)
    try:
        with face.Popen(["sh", "-c", script], stdout=PIPE, cwd=tmp) as process:
            ready = process.stdout.readline()
            process.send_signal(signal.SIGUSR1)
            return ready, process.communicate(), process.returncode
    finally:
        os.close(keep)


@case
def send_signal_that_is_no_number(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        return process.send_signal("15")


@case
def send_signal_after_the_end(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"]) as process:
        process.wait()
        return process.send_signal(signal.SIGTERM), process.terminate(), process.kill()


@case
def send_signal_0_asks_only(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        process.send_signal(0)
    return process.returncode


@case
def terminate(face: Face, tmp: Path) -> Any:
    with face.Popen(["sleep", "1000"], stdout=PIPE) as process:
        process.terminate()
        return process.communicate(), process.returncode


@case
def kill(face: Face, tmp: Path) -> Any:
    script = "trap '' TERM; echo ready; exec sleep 1000"
    with face.Popen(["sh", "-c", script], stdout=PIPE) as process:
        process.stdout.readline()
        process.terminate()
        process.kill()
        return process.wait()


# The streams of Popen objects


@case
def reading_line_by_line_while_it_runs(face: Face, tmp: Path) -> Any:
    lines = []
    with face.Popen(ECHO, stdin=PIPE, stdout=PIPE) as process:
        for word in (b"one", b"two", b"three"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            lines.append((next(iter(process.stdout)), process.poll()))
    return lines


@case
def reading_text_line_by_line_while_it_runs(face: Face, tmp: Path) -> Any:
    lines = []
    with face.Popen(ECHO, stdin=PIPE, stdout=PIPE, text=True) as process:
        for word in ("one", "twö", "three"):
            print(word, file=process.stdin, flush=True)
            lines.append((process.stdout.readline(), process.poll()))
    return lines


@case
def reading_in_every_way(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "20"], stdout=PIPE) as process:
        out = process.stdout
        buffer = bytearray(4)
        results = [out.read(2), out.readinto(buffer), bytes(buffer), out.readline()]
        results += [out.readlines(3), out.peek(1)[:1], out.read(), out.read(), out.readline()]
        return results


@case
def reading_by_iteration(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "30000"], stdout=PIPE) as process:
        return sum(int(line) for line in process.stdout)


@case
def writing_and_closing(face: Face, tmp: Path) -> Any:
    with face.Popen(["wc", "-c"], stdin=PIPE, stdout=PIPE) as process:
        counts = [process.stdin.write(bytes(n)) for n in (1, 1000, 200_000)]
        process.stdin.close()
        return counts, process.stdout.read(), process.stdin.closed


@case
def writing_lines(face: Face, tmp: Path) -> Any:
    with face.Popen(["sort"], stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.writelines(["b\n", "a\n"])
        return process.communicate()


@case
def writing_to_a_command_that_has_ended(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"], stdin=PIPE, bufsize=0) as process:
        process.wait()
        return raised(process.stdin.write, b"x")


@case
def writing_after_closing(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        process.stdin.close()
        return raised(process.stdin.write, b"x")


@case
def descriptors_can_be_selected(face: Face, tmp: Path) -> Any:
    with face.Popen(ECHO, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        before = select.select([process.stdout, process.stderr], [], [], 0)[0]
        writable = select.select([], [process.stdin], [], 30)[1] == [process.stdin]
        process.stdin.write(b"a\n")
        process.stdin.flush()
        after = select.select([process.stdout, process.stderr], [], [], 30)[0]
        return before, writable, after == [process.stdout], process.stdout.readline()


@case
def descriptors_can_be_given_to_subprocess(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "30000"], stdout=PIPE) as process:
        done = subprocess.run(["cksum"], stdin=process.stdout, stdout=PIPE, check=True)
    return done.stdout, process.returncode


@case
def descriptors_can_be_written_by_subprocess(face: Face, tmp: Path) -> Any:
    with face.Popen(["cksum"], stdin=PIPE, stdout=PIPE) as process:
        subprocess.run(["seq", "30000"], stdout=process.stdin, check=True)
        return process.communicate()


# Older high-level API


# Streams that do not block, as the io module has them


def _without_blocking(file: Any) -> Any:
    os.set_blocking(file.fileno(), False)
    return file


def _poll_to_the_end(file: Any) -> bytes:
    """Read what there is whenever there is something, as an event loop does."""
    got = b""
    while True:
        assert select.select([file], [], [], SECONDS)[0], got[-100:]
        piece = file.read()
        if piece == b"":
            return got
        got += piece or b""


@case
def not_blocking_reads(face: Face, tmp: Path) -> Any:
    results: list[Any] = []
    for options in ({}, {"bufsize": 0}, {"bufsize": 100}):
        with face.Popen(ECHO, stdin=PIPE, stdout=PIPE, **options) as process:
            out = _without_blocking(process.stdout)
            results += [out.read(), out.read(5), out.readinto(bytearray(5)), out.read()]
            process.stdin.write(b"a\n")
            process.stdin.flush()
            results += [_poll_line(out), out.read(), out.read(1)]
            process.stdin.close()
            results += [_poll_to_the_end(out), out.read(), process.wait()]
    return results


def _poll_line(file: Any) -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        assert select.select([file], [], [], SECONDS)[0], got
        got += file.read() or b""
    return got


@case
def not_blocking_reads_lose_nothing(face: Face, tmp: Path) -> Any:
    script = "i=0; while [ $i -lt 20 ]; do seq 5000; sleep 0.001; i=$((i+1)); done"
    with face.Popen(["sh", "-c", script], stdout=PIPE) as process:
        got = _poll_to_the_end(_without_blocking(process.stdout))
    return len(got), hashlib.sha256(got).hexdigest(), process.returncode


@case
def not_blocking_writes(face: Face, tmp: Path) -> Any:
    os.mkfifo(tmp / "fifo")
    command = ["sh", "-c", 'read line <"$1"; wc -c', "sh", tmp / "fifo"]
    with face.Popen(command, bufsize=0, stdin=PIPE, stdout=PIPE) as process:
        stdin = _without_blocking(process.stdin)
        taken = 0
        # How much is taken differs: until nothing has been for a while.
        while select.select([], [stdin], [], 0.2)[1]:
            taken += stdin.write(bytes(1 << 20)) or 0
        refused = stdin.write(b"a")
        (tmp / "fifo").write_text("go\n")
        stdin.close()
        return taken > 0, refused, int(process.stdout.read()) == taken


@case
def not_blocking_writes_through_a_buffer(face: Face, tmp: Path) -> Any:
    os.mkfifo(tmp / "fifo")
    command = ["sh", "-c", 'read line <"$1"; wc -c', "sh", tmp / "fifo"]
    with face.Popen(command, stdin=PIPE, stdout=PIPE) as process:
        stdin = _without_blocking(process.stdin)
        taken = 0
        try:
            while True:
                taken += stdin.write(bytes(1 << 20))
        except BlockingIOError as error:
            taken += error.characters_written
        (tmp / "fifo").write_text("go\n")
        while True:
            assert select.select([], [stdin], [], SECONDS)[1]
            with contextlib.suppress(BlockingIOError):
                stdin.flush()
                break
        stdin.close()
        return int(process.stdout.read()) == taken


@case
def not_blocking_communicates(face: Face, tmp: Path) -> Any:
    data = bytes(range(256)) * 20_000
    script = "sleep 0.05; cat; echo end >&2"
    with face.Popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        for file in (process.stdin, process.stdout, process.stderr):
            _without_blocking(file)
        out, err = process.communicate(data)
        return out == data, err, process.returncode


@case
def not_blocking_communicates_in_time(face: Face, tmp: Path) -> Any:
    os.mkfifo(tmp / "fifo")
    script = "echo one; read line < fifo; echo two"
    with face.Popen(["sh", "-c", script], stdout=PIPE, cwd=tmp) as process:
        select.select([_without_blocking(process.stdout)], [], [], SECONDS)
        expired = _expired(process)
        (tmp / "fifo").write_text("go on\n")
        return expired.output, process.communicate()


@case
def call(face: Face, tmp: Path) -> Any:
    return face.call(["true"]), face.call(["sh", "-c", "exit 3"]), face.call("exit 4", shell=True)


@case
def call_in_time(face: Face, tmp: Path) -> Any:
    return face.call(["true"], timeout=30), raised(face.call, ["sleep", "1000"], timeout=0.01)


@case
def call_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.call(["no-such-command"])


@case
def check_call(face: Face, tmp: Path) -> Any:
    return face.check_call(["true"]), raised(face.check_call, ["sh", "-c", "exit 3"])


@case
def check_call_in_time(face: Face, tmp: Path) -> Any:
    return raised(face.check_call, ["sleep", "1000"], timeout=0.01)


@case
def check_output(face: Face, tmp: Path) -> Any:
    return face.check_output(["echo", "a"]), face.check_output("echo é", shell=True, text=True)


@case
def check_output_of_a_failure(face: Face, tmp: Path) -> Any:
    return face.check_output("echo out; exit 3", shell=True)


@case
def check_output_with_the_errors(face: Face, tmp: Path) -> Any:
    return face.check_output("echo out; echo err >&2", shell=True, stderr=STDOUT)


@case
def check_output_with_input(face: Face, tmp: Path) -> Any:
    return face.check_output(["cat"], input=b"abc"), face.check_output(
        ["cat"], input="é", text=True
    )


@case
def check_output_with_input_none(face: Face, tmp: Path) -> Any:
    return [
        face.check_output(["cat"], input=None, **options)
        for options in ({}, {"text": True}, {"encoding": "utf-8"})
    ]


@case
def check_output_with_stdout(face: Face, tmp: Path) -> Any:
    return face.check_output(["true"], stdout=PIPE)


@case
def check_output_out_of_time(face: Face, tmp: Path) -> Any:
    return face.check_output(["sleep", "1000"], timeout=0.01)


# Legacy shell invocation


@case
def getstatusoutput(face: Face, tmp: Path) -> Any:
    return [face.getstatusoutput(f"echo out; echo err >&2; {end}") for end in ("exit 3", "true")]


@case
def getstatusoutput_of_a_signal(face: Face, tmp: Path) -> Any:
    return face.getstatusoutput("echo a; kill -KILL $$")


@case
def getstatusoutput_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.getstatusoutput("no-such-command")[0]


@case
def getoutput(face: Face, tmp: Path) -> Any:
    return [face.getoutput(c) for c in ("echo a", "printf a", "printf 'a\\n\\n'", "printf '\\n'")]


@case
def getoutput_in_an_encoding(face: Face, tmp: Path) -> Any:
    # Keyword arguments since Python 3.11.
    if face.is_subprocess:
        text = subprocess.check_output("printf '\\351'", shell=True, encoding="latin-1")
        return text, text
    return (
        face.getoutput("printf '\\351'", encoding="latin-1"),
        face.getstatusoutput("printf '\\351'", encoding="latin-1")[1],
    )


# Replacing older functions with the subprocess module


@case
def replacing_backquotes(face: Face, tmp: Path) -> Any:
    return face.check_output(["basename", "/a/b"])


@case
def replacing_a_pipeline(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "50000"], stdout=PIPE) as one:
        with face.Popen(["grep", "9"], stdin=one.stdout, stdout=PIPE) as other:
            one.stdout.close()
            out, _ = other.communicate()
        return len(out), one.wait(), other.wait()


@case
def replacing_a_pipeline_whose_end_has_had_enough(face: Face, tmp: Path) -> Any:
    with face.Popen(["yes"], stdout=PIPE) as one:
        with face.Popen(["head", "-n", "2"], stdin=one.stdout, stdout=PIPE) as other:
            one.stdout.close()  # lets it have SIGPIPE
            out, _ = other.communicate()
        return out, one.wait(), other.wait()


@case
def replacing_a_pipeline_of_text(face: Face, tmp: Path) -> Any:
    with (
        face.Popen(["echo", "é"], stdout=PIPE, text=True) as one,
        face.Popen(["cat"], stdin=one.stdout, stdout=PIPE, text=True) as other,
    ):
        one.stdout.close()
        return other.communicate()


@case
def replacing_os_system(face: Face, tmp: Path) -> Any:
    return face.call("exit 3", shell=True), face.call("kill -TERM $$", shell=True)


@case
def replacing_os_spawn(face: Face, tmp: Path) -> Any:
    process = face.Popen(["sh", "-c", "exit 3"])
    return process.wait()


@case
def replacing_os_popen(face: Face, tmp: Path) -> Any:
    with face.Popen("tr a b", shell=True, stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("abc")
        process.stdin.close()
        return process.stdout.read(), process.wait()


# Ctrl-C. The commands wait for a word, which they get when our call waits for them: with subprocess
# a Ctrl-C is lost that comes just before the main thread blocks.


@contextlib.contextmanager
def _word_when_waiting(tmp: Path) -> Iterator[None]:
    """Write a line to the command's FIFO once the command reads it, and the main thread waits."""

    def go() -> None:
        with open(tmp / "fifo", "w") as fifo:
            blocked(threading.main_thread())
            fifo.write("go\n")

    with Task(go):
        yield


def _interrupted(face: Face, tmp: Path, call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Make a call that a Ctrl-C interrupts, and wait for the end of its command."""
    os.mkfifo(tmp / "fifo")
    with warnings.catch_warnings(), _word_when_waiting(tmp):
        # subprocess kills the command, and leaves it to be reaped one day.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return f"returned {call(*args, **kwargs)}"
        except KeyboardInterrupt:
            pass
        gc.collect()
    _reap(face, int((tmp / "pid").read_text()))
    return "interrupted, and ended"


@case
def ctrl_c_during_run(face: Face, tmp: Path) -> Any:
    script = "echo $$ > pid; read line < fifo; kill -INT $PPID; exec sleep 1000"
    command = ["sh", "-c", script]
    return _interrupted(face, tmp, face.run, command, input=b"go\n", stdout=PIPE, cwd=tmp)


@case
def ctrl_c_during_call(face: Face, tmp: Path) -> Any:
    script = "echo $$ > pid; read line < fifo; kill -INT $PPID; exec sleep 1000"
    return _interrupted(face, tmp, face.call, ["sh", "-c", script], cwd=tmp)


@case
def ctrl_c_during_wait(face: Face, tmp: Path) -> Any:
    script = "read line < fifo; kill -INT $PPID; read line; exit 7"
    os.mkfifo(tmp / "fifo")
    with face.Popen(["sh", "-c", script], stdin=PIPE, bufsize=0, cwd=tmp) as process:
        with _word_when_waiting(tmp), pytest.raises(KeyboardInterrupt):
            process.wait()
        running = process.returncode
        process.stdin.write(b"end\n")
        return running, process.wait()


@case
def ctrl_c_during_wait_lets_it_go_on(face: Face, tmp: Path) -> Any:
    # Not at once: an interrupt between the kernel's answer and the next bytecode makes subprocess
    # lose the status, as it does when the machine is so busy that the interrupt comes late.
    script = "read line < fifo; kill -INT $PPID; sleep 1; exit 7"
    os.mkfifo(tmp / "fifo")
    with face.Popen(["sh", "-c", script], cwd=tmp) as process:
        with _word_when_waiting(tmp), pytest.raises(KeyboardInterrupt):
            process.wait()
        return process.wait()


@case
def ctrl_c_during_communicate(face: Face, tmp: Path) -> Any:
    script = "read line; echo a; read line < fifo; kill -INT $PPID; read line < end; echo b"
    os.mkfifo(tmp / "fifo")
    os.mkfifo(tmp / "end")
    with face.Popen(["sh", "-c", script], **_piped(), cwd=tmp) as process:
        with _word_when_waiting(tmp), pytest.raises(KeyboardInterrupt):
            process.communicate(b"go\n")
        running = process.returncode
        (tmp / "end").write_text("end\n")
        return running, process.wait()


# The signature


def test_the_signature_is_subprocess_s_and_more() -> None:
    import inspect

    ours = inspect.signature(wsep_sync.Popen).parameters
    theirs = inspect.signature(subprocess.Popen).parameters
    added = {"execer", "url", "tty", "size", "id", "clean_env"}
    # process_group came with Python 3.11.
    assert set(ours) - added - {"process_group"} == set(theirs) - {"process_group"}
    for name in theirs:
        assert ours[name].kind == theirs[name].kind
        assert ours[name].default == theirs[name].default
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in added)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert [n for n in ours if ours[n].kind is positional] == [
        n for n in theirs if theirs[n].kind is positional
    ]


def test_the_names_are_subprocess_s_own() -> None:
    for name in ("PIPE", "STDOUT", "DEVNULL", "CompletedProcess", "CalledProcessError"):
        assert getattr(wsep_sync, name) is getattr(subprocess, name)
    assert wsep_sync.TimeoutExpired is subprocess.TimeoutExpired
