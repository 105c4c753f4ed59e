"""Text instead of bytes, and the shell."""

from __future__ import annotations

import io
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

from faces import Face

from popen_cases.cases import case, raised

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
