"""The streams of Popen objects."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import subprocess
from pathlib import Path
from subprocess import PIPE
from typing import Any

from faces import Face
from helpers import SECONDS

from popen_cases.cases import ECHO, case, raised, timed_out

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
        expired = timed_out(process)
        (tmp / "fifo").write_text("go on\n")
        return expired.output, process.communicate()
