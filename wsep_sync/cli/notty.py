"""``wsep-sync notty``: a command on pipes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
from typing import TYPE_CHECKING

from ..errors import WsepError
from ..faces.copying import check_readable, is_null_device
from ..threads import start_thread
from .client import client_command, exit_status, target
from .console import PIECE, read, write
from .signals import Signals

if TYPE_CHECKING:
    from ..process import Process

__all__ = ["notty"]


def notty(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run a command with our own input and outputs; return its exit status."""
    command = client_command(arguments, stdin=not arguments.no_stdin)
    # nohup(1) opens the null device for writing only, in place of a terminal: that is no input.
    no_input = is_null_device(0)
    if command.stdin and not no_input:
        try:
            check_readable(0)
        except OSError as error:
            raise _input_failure(error) from error
    with (
        target(arguments) as server,
        signals.wait_for_call(lambda: server.start(command)) as process,
    ):
        failures: list[Exception] = []  # of our own input and outputs
        if command.stdin and no_input:
            _close_input(process)
        elif command.stdin:
            # A daemon: it may be reading from a terminal when the command has ended.
            start_thread(
                _forward_input,
                process,
                failures,
                name="wsep-stdin",
                died=lambda error: _end_with(error, process, failures),
            )

        def interrupt() -> None:
            # The first Ctrl-C is the command's, as it would be if it ran here. A daemon, as the
            # server may take nothing more: then the second one is not held up.
            del signals.handlers[signal.SIGINT]
            start_thread(
                _forward_interrupt,
                process,
                name="wsep-interrupt",
                died=lambda error: _end_with(error, process, failures),
            )

        signals.handle(signal.SIGINT, interrupt)
        return signals.wait_for_call(lambda: _copy_outputs(process, failures))


def _end_with(error: Exception, process: Process, failures: list[Exception]) -> None:
    """End the command because one of our own ends has failed, which is what is told then."""
    # Without the traceback, which refers to all that refers to this list.
    failures.append(error.with_traceback(None))
    process.close()


def _forward_interrupt(process: Process) -> None:
    try:
        process.send_signal(signal.SIGINT)
    except io.UnsupportedOperation:
        # A server without signals can only be hung up on: as if this were the second Ctrl-C.
        os.kill(os.getpid(), signal.SIGINT)


def _forward_input(process: Process, failures: list[Exception]) -> None:
    raw = process.stdin.raw
    # Asked beforehand: one that has hung up does not know any more that it is a terminal.
    terminal = os.isatty(0)
    while True:
        try:
            data = read(0)
        except OSError as error:
            if terminal and error.errno == errno.EIO:
                break  # it has hung up
            # The end of its input would let the command take what it got for the whole.
            _end_with(_input_failure(error), process, failures)
            return
        if not data:
            break
        try:
            raw.write(data)
        except (OSError, ValueError):
            break  # the command does not read any more, or has ended: its status will tell
    _close_input(process)


def _close_input(process: Process) -> None:
    with contextlib.suppress(OSError, ValueError):
        process.stdin.close()


def _input_failure(error: OSError) -> OSError:
    return OSError(error.errno, f"standard input: {error.strerror}")


def _copy_outputs(process: Process, failures: list[Exception]) -> int:
    """Copy both outputs to their ends; return the status, or raise what has failed."""

    def copy_errors() -> None:
        try:
            _copy_output(process.stderr, 2)
        except OSError as error:
            # It cannot be written: a command that ran here would end of that.
            _end_with(error, process, failures)
        except WsepError as error:
            # The connection is lost, and the other output may have ended.
            failures.append(error.with_traceback(None))

    # Ends with the error output, which closing the process ends in any case. A daemon, as above.
    errors = start_thread(
        copy_errors, name="wsep-stderr", died=lambda error: _end_with(error, process, failures)
    )
    _copy_output(process.stdout, 1)
    errors.join()
    if failures:
        raise failures.pop(0)
    return exit_status(process)


def _copy_output(file: io.BufferedReader, descriptor: int) -> None:
    raw = file.raw
    buffer = memoryview(bytearray(PIECE))
    while count := raw.readinto(buffer):
        write(descriptor, buffer[:count])
