"""What a case is, and what is compared of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, CalledProcessError, CompletedProcess, TimeoutExpired
from typing import Any

import pytest
from faces import SUBPROCESS, Face
from helpers import gone

Case = Callable[[Face, Path], Any]

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    assert function.__name__ not in CASES
    CASES[function.__name__] = function
    return function


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


def piped() -> dict[str, int]:
    return {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}


def timed_out(process: Any, *args: Any) -> TimeoutExpired:
    with pytest.raises(TimeoutExpired) as caught:
        process.communicate(*args, timeout=0.01)
    return caught.value


def reap(face: Face, pid: int) -> None:
    """Wait for the end of a command that subprocess would not reap before another one starts."""
    if "url" not in face.options:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    gone(pid)
