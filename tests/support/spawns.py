"""What spawns for the tests of pexpect's face, and what they spawn."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import pexpect
from helpers import listening

from wsep_sync import spawn

Start: TypeAlias = Callable[..., Any]


def starter(kind: str, stack: contextlib.ExitStack) -> Start:
    """A function that spawns; what it spawned is closed by the stack."""
    if kind == "remote":
        url = stack.enter_context(listening()).url

    def start(*args: Any, **kwargs: Any) -> Any:
        if kind == "pexpect":
            with warnings.catch_warnings():
                # It forks, in a process that may have threads.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = pexpect.spawn(*args, **kwargs)
        elif kind == "local":
            child = spawn(*args, **kwargs)
        else:
            child = spawn(*args, url=url, **kwargs)
        stack.callback(child.close)
        return child

    return start


def shell(script: str) -> tuple[str, list[str]]:
    return "sh", ["-c", script]


# A command that ends when it is told to, and shows nothing of what is typed.
QUIET = "stty -echo; echo ready; "

# Goes on until a trap ends it: a shell runs its traps between two commands.
FOREVER = "while :; do sleep 0.05; done"
