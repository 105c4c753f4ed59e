"""Rows of starting: a command, the command line, and the import."""

from __future__ import annotations

import statistics
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from bench import Bench
from harness import Broken, Contender, Figure, Row, Target
from processes import Variant, server

from wsep_sync import Command, connect

__all__ = ["ROWS"]


# Jobs: what the processes of workers do.


def run_commands(url: str, count: int) -> dict[str, float]:
    """Connect and run `true`, again and again."""
    known, closed = [], []
    for _ in range(count):
        started = time.perf_counter()
        with connect(url) as execer, execer.start(Command("true")) as process:
            process.wait()
            known.append(time.perf_counter() - started)
        closed.append(time.perf_counter() - started)
    return {"exit": statistics.median(known) * 1e3, "close": statistics.median(closed) * 1e3}


def run_programs(command: list[str], count: int) -> dict[str, float]:
    """Run a program, again and again."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        times.append(time.perf_counter() - started)
        if done.returncode or done.stdout or done.stderr:
            raise Broken(f"{command[0]} ended with {done}")
    time_ms = statistics.median(times) * 1e3
    return {"exit": time_ms, "close": time_ms}


def run_by_ssh(command: list[str], count: int) -> dict[str, float]:
    return run_programs([*command, "true"], count)


# Rows


def set_up_commands(bench: Bench, stack: ExitStack) -> list[Contender]:
    count = bench.scale.commands
    targets = {"exit": Target(1.6)}
    return [
        bench.limit(stack, run_programs, "subprocess.run", command=["true"], count=count),
        *bench.ours(stack, run_commands, targets, count=count),
        # It takes half a second.
        bench.openssh(stack, run_by_ssh, count=bench.scale.programs),
    ]


def set_up_command_line(bench: Bench, stack: ExitStack) -> list[Contender]:
    count = bench.scale.programs
    contenders = [python(bench, stack)]
    for variant in bench.variants:
        url = stack.enter_context(server(variant)).url
        # What an installation puts there; nothing is hidden from it.
        script = Path(variant.python).with_name("wsep-sync")
        command = [str(script), "notty", "--url", url, "--", "true"]
        worker = bench.worker(stack, run_programs, command=command, count=count)
        targets = {"exit": Target(120, "difference")}
        contenders.append(Contender(variant.name, worker.call, targets=targets))
    return contenders


def set_up_import(bench: Bench, stack: ExitStack) -> list[Contender]:
    count = bench.scale.programs
    contenders = [python(bench, stack)]
    for variant in bench.variants:
        command = [variant.python, "-c", "import wsep_sync"]
        worker = bench.worker(stack, run_programs, command=command, count=count)
        targets = {"exit": Target(60, "difference")}
        contenders.append(Contender(variant.name, worker.call, targets=targets))
    return contenders


def python(bench: Bench, stack: ExitStack) -> Contender:
    command = [Variant().python, "-c", "pass"]
    return bench.limit(
        stack, run_programs, "python -c pass", command=command, count=bench.scale.programs
    )


PROGRAM = (Figure("exit", "ms", compare="difference"),)

ROWS = [
    Row(
        "command",
        "A command: connect, start and end of true",
        (
            Figure("exit", "ms", "until its end is known"),
            Figure("close", "ms", "until all is closed"),
        ),
        set_up_commands,
    ),
    Row("command-line", "wsep-sync notty -- true", PROGRAM, set_up_command_line),
    Row("import", "import wsep_sync", PROGRAM, set_up_import),
]
