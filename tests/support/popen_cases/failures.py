"""Exceptions."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from subprocess import PIPE, CalledProcessError, SubprocessError, TimeoutExpired
from typing import Any

from faces import Face

from popen_cases.cases import case, raised


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


@case
def exceptions_path_for_a_shell(face: Face, tmp: Path) -> Any:
    return [
        raised(face.run, Path("true"), shell=True),
        raised(face.run, Path("true"), shell=True, executable="/bin/sh"),
        face.run(b"exit 3", shell=True),
    ]


@case
def exceptions_lines_of_bytes(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with face.Popen(["true"], bufsize=1, stdout=PIPE):
            pass
    return [(w.category, str(w.message)) for w in caught]
