"""Ctrl-C.

The commands wait for a word, which they get when our call waits for them: with subprocess a Ctrl-C
is lost that comes just before the main thread blocks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from faces import Face
from helpers import Task, blocked

from popen_cases.cases import case, piped, reap


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
    reap(face, int((tmp / "pid").read_text()))
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
    with face.Popen(["sh", "-c", script], **piped(), cwd=tmp) as process:
        with _word_when_waiting(tmp), pytest.raises(KeyboardInterrupt):
            process.communicate(b"go\n")
        running = process.returncode
        (tmp / "end").write_text("end\n")
        return running, process.wait()
