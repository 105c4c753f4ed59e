"""From the arguments to the exit status: :func:`run`."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ConnectError, ExitMissing, StartError, TransportClosed
from .arguments import parser
from .client import explain
from .console import SIGNALLED, complain
from .signals import Ended, Signals

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]

# The module that a subcommand's function is in, if it is not its own: who runs the one need not
# wait for the others to be imported.
_MODULES = {"kill": "sessions"}


def run(argv: Sequence[str] | None) -> int:
    """Run the command line, and return its exit status."""
    _open_standard_streams()
    try:
        try:
            arguments = parser().parse_args(argv)
            name = arguments.subcommand
            module = importlib.import_module(f".{_MODULES.get(name, name)}", __package__)
            subcommand: Callable[[argparse.Namespace, Signals], int] = getattr(module, name)
            with Signals() as signals:
                return subcommand(arguments, signals)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except Ended as ended:
        return SIGNALLED + ended.signal
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python would complain when it flushes.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return SIGNALLED + getattr(signal, "SIGPIPE", 13)
    except (ConnectError, StartError, TransportClosed, ExitMissing) as error:
        return explain(error)
    except OSError as error:  # of our own input or output, as when a disk is full
        complain(error.strerror or error)
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except RuntimeError as error:
        # To the kernel threads are processes, and it may have enough of them.
        if str(error) != "can't start new thread":
            raise
        complain(error)
        return 1


def _open_standard_streams() -> None:
    """Open those that are closed: a socket that got such a number would be taken for them.

    Input is at its end then, writing output fails, and error output is dropped.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # What is opened gets the lowest number that is free, and that is this one.
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
