"""The contract: much data, and many commands."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess

import pytest
from helpers import SECONDS, Task, eventually, sh
from ways import failure, feed, run, sends

from wsep_sync import Command, Execer, Process

# Much


@pytest.fixture(scope="module")
def fifty_megabytes() -> tuple[str, str]:
    """A script that writes 50 MB of numbers, and the digest of them."""
    script = "seq 8000000 | head -c 50000000"
    out = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout
    assert len(out) == 50_000_000
    return script, hashlib.sha256(out).hexdigest()


def digest(file: io.BufferedReader) -> str:
    sha = hashlib.sha256()
    while piece := file.read1():
        sha.update(piece)
    return sha.hexdigest()


def test_much_output(execer: Execer, fifty_megabytes: tuple[str, str]) -> None:
    script, expected = fifty_megabytes
    with execer.start(sh(script)) as process:
        assert digest(process.stdout) == expected
        process.wait(SECONDS)


def test_both_outputs_at_full_speed(execer: Execer, fifty_megabytes: tuple[str, str]) -> None:
    script, expected = fifty_megabytes
    with execer.start(sh(f"({script} >&2) & {script}; wait")) as process:
        with Task(digest, process.stderr) as stderr:
            assert digest(process.stdout) == expected
            assert stderr.result() == expected
        process.wait(SECONDS)


def test_many_commands_at_once(execer: Execer) -> None:
    with contextlib.ExitStack() as stack:

        def start(number: int) -> Process:
            command = sh("cat; exit $1", str(number), stdin=True)
            return stack.enter_context(execer.start(command))

        def use(process: Process, number: int) -> None:
            data = os.urandom(100_000 + number)
            with Task(feed, process, data):
                assert process.stdout.read() == data
            assert failure(process).exit_code == number

        starting = [Task(start, number) for number in range(1, 21)]
        processes = [task.result() for task in starting]
        using = [Task(use, process, number) for number, process in enumerate(processes, 1)]
        for task in using:
            task.result()


def test_commands_do_not_wait_for_each_other(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as first:
        with execer.start(sh("yes")) as flood:  # nobody reads it
            eventually(lambda: flood.stdout.peek(1), "the flood")
            assert run(execer, Command("echo", ["third"]))[0] == b"third\n"
        sends(first, b"well\n")
        assert first.stdout.readline() == b"well\n"
