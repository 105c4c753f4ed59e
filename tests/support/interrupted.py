"""Raises in each function of the package that a call enters, as a signal's handler may.

Says what was lost, on standard output. In a process of its own, for what a start that was
interrupted leaves: a command, as subprocess does, or a socket for the collector.

Usage: python interrupted.py URL|local KIND
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import wsep_sync
from wsep_sync import Command, Execer, LocalExecer, Process, connect

PACKAGE = os.path.dirname(wsep_sync.__file__)
TEXT = "the caller's"
SECONDS = 30.0


class Interruption:
    """Raises in the ``number``-th function that is entered while this is the trace function.

    Attributes:
        where: The function, once it has; whoever called it, too.
    """

    def __init__(self, number: int, kind: type[Exception]) -> None:
        self._left = number
        self._kind = kind
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        # What a finalizer raises, nobody can be told.
        caller: FrameType | None = frame
        while caller is not None:
            if caller.f_code.co_name == "__del__":
                return
            caller = caller.f_back
        if frame.f_code.co_filename.startswith(PACKAGE):
            self._left -= 1
            if not self._left:
                caller = frame.f_back
                at = f"line {caller.f_lineno} of {caller.f_code.co_filename}" if caller else ""
                self.where = f"{frame.f_code.co_name}, from {at}"
                raise self._kind(TEXT)


def sweep(
    name: str, make: Callable[[], Any], call: Callable[[Any], object], kind: type[Exception]
) -> None:
    """Interrupt a call at each function, each time with something else that was made for it."""
    number = 1
    while True:
        with make() as made:
            interruption = Interruption(number, kind)
            before = sys.gettrace()
            sys.settrace(interruption)
            raised: BaseException | None = None
            try:
                call(made)
            except BaseException as error:
                raised = error
            finally:
                sys.settrace(before)
            if not interruption.where:
                break
            if type(raised) is not kind or raised.args != (TEXT,):
                print(f"{name}: lost in {interruption.where}: {raised!r}")
            raised = None  # it refers to this frame
        number += 1
    assert number > 1, name


CALLS: dict[str, Callable[[Process], object]] = {
    "read": lambda process: process.stdout.read(1),
    "write": lambda process: process.stdin.raw.write(b"text\n"),
    "close stdin": lambda process: process.stdin.close(),
    "close stdout": lambda process: process.stdout.close(),
    "resize": lambda process: process.resize(5, 5),
    "signal": lambda process: process.send_signal(10),
    "kill": lambda process: process.kill(),
    "hang up": lambda process: process.hang_up(),
    "close": lambda process: process.close(),
    "wait": lambda process: [process.stdin.close(), process.wait()],
}


def command(tty: bool, *words: str) -> Command:
    return Command(words[0], words[1:], tty=tty, stdin=not tty)


@contextlib.contextmanager
def started(execer: Execer, command: Command) -> Iterator[Process]:
    with execer.start(command) as process:
        try:
            yield process
        finally:
            process.kill()
            for file in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError, ValueError):
                    file.close()


def sweep_processes(execer: Execer, kind: type[Exception]) -> None:
    for tty in (False, True):

        def start(_: None, tty: bool = tty) -> None:
            process = execer.start(command(tty, "true"))
            sys.settrace(None)
            with process:
                pass

        sweep(f"start, {tty=}", contextlib.nullcontext, start, kind)
        waits = command(tty, "sh", "-c", "trap : USR1; echo ready; read line; exit 0")
        for name, call in CALLS.items():
            sweep(f"{name}, {tty=}", lambda waits=waits: started(execer, waits), call, kind)


def run(options: dict[str, Any]) -> object:
    return wsep_sync.run(["true"], **options)


def run_in_time(options: dict[str, Any]) -> object:
    return wsep_sync.run(["cat"], input=b"text", capture_output=True, timeout=SECONDS, **options)


def spawn(options: dict[str, Any]) -> None:
    with wsep_sync.spawn("cat", **options) as child:
        child.sendline("text")
        child.expect("text")


def main(where: str, name: str) -> None:
    warnings.simplefilter("ignore", ResourceWarning)
    kind = {"TimeoutError": TimeoutError, "BrokenPipeError": BrokenPipeError}[name]
    options: dict[str, Any]
    with contextlib.ExitStack() as cleanup:
        if where == "local":
            options = {"execer": LocalExecer()}
            sweep_processes(options["execer"], kind)
        else:
            options = {"url": where}
            sweep_processes(cleanup.enter_context(connect(where, timeout=SECONDS)), kind)
        for face in (run, run_in_time, spawn):
            sweep(face.__name__, lambda: contextlib.nullcontext(options), face, kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
