"""Popen's constructor: what the streams are, and how they are buffered."""

from __future__ import annotations

import io
import os
import select
import warnings
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

from faces import Face, stdio

from popen_cases.cases import ECHO, case, raised

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
