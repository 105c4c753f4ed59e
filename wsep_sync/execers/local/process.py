"""A command on this machine, from its start to its end: :class:`LocalProcess`."""

from __future__ import annotations

import contextlib
import io
import os
import signal as signals
import sys
import threading
import time

from ... import process, streams
from ...errors import ExitError, suppress_system
from ...process import Awaited
from ...protocol.command import Command
from ...protocol.messages import (
    FEATURE_CLOSE_OUTPUT,
    FEATURE_DISCARD,
    FEATURE_ECHO,
    FEATURE_SIGNAL,
    Resize,
)
from ...protocol.words import signal_message
from ...streams.wakeup import READ, Wakeup, wait_for

if sys.platform != "win32":
    from . import pty as local_pty
from .commands import ChildCommand
from .session import ProcessSession
from .spawn import is_launched, launch_command, make_pipe, spawn

__all__ = ["UNKNOWN", "ExitWatch", "LocalProcess"]


# In place of a status: the command was reaped by somebody else, such as an os.wait() of the program
# around us, or by the kernel where SIGCHLD is ignored. subprocess says 0 then, for success.
UNKNOWN = -1


# How often those who are left of a session are killed. Each time there may be some who were being
# forked; after so many, they are not to be killed: somebody else's, or waiting for a disk.
_KILL_ROUNDS = 20

# Bytes that are read ahead of whoever reads a terminal: it gives 4 KiB at once.
_TERMINAL_BUFFER = 1 << 12


class LocalProcess(Awaited):
    """A command on this machine. Made by :class:`LocalExecer`."""

    features = frozenset((FEATURE_SIGNAL, FEATURE_CLOSE_OUTPUT, FEATURE_DISCARD))
    _place = "on this machine"

    def __init__(self, command: Command, environment: dict[str, str] | None) -> None:
        # Guards _status and _watch, and keeps the pid from being reaped between a look at _status
        # and a signal: a pid that was reaped may be somebody else's.
        self._lock = threading.Lock()
        self._status: int | None = None  # as waitpid gives it, or UNKNOWN
        self._closed = False
        self._terminal: local_pty.LocalTerminal | None = None
        # One for all who wait, and not one for each: a Ctrl-C likes to come when a wait begins,
        # and a descriptor between two bytecodes belongs to nobody. Let go of when reaped.
        self._watch: ExitWatch | None
        with contextlib.ExitStack() as undo:
            undo.callback(self._end_unfinished)
            # Before the command, as all that can fail: of the input, and of each output, which can
            # be stopped alone.
            self._stop = Wakeup()
            self._output_stops = [Wakeup() for _ in range(1 if command.tty else 2)]
            if command.tty:
                self.features = self.features | {FEATURE_ECHO}
                assert environment is not None
                self._start_on_terminal(command, environment, undo)
            else:
                self._start_on_pipes(command, environment, undo)
            self.pid = self._child.pid
            undo.pop_all()

    def _end_unfinished(self) -> None:
        """End the command if there is one: a signal's handler has raised while this was made."""
        if hasattr(self, "_child"):
            self._child.kill()
            self._child.wait()

    def _start_on_pipes(
        self, command: Command, environment: dict[str, str] | None, undo: contextlib.ExitStack
    ) -> None:
        with contextlib.ExitStack() as childs:

            def null(flags: int) -> int:
                descriptor = os.open(os.devnull, flags)
                childs.callback(os.close, descriptor)
                return descriptor

            size = command.pipesize if isinstance(command, ChildCommand) else -1
            readers: list[streams.Handover | None] = []
            pipes = []  # the command's ends
            if command.stdin:
                child_stdin, stdin = make_pipe(childs, undo, size)
                pipes.append(child_stdin.fileno())
            stdio = [child_stdin.fileno() if command.stdin else null(os.O_RDONLY)]
            for name in ("stdout", "stderr"):
                if name == "stderr" and command.merge:
                    readers.append(None)
                    stdio.append(stdio[1])
                elif name in command.discard:
                    readers.append(None)
                    stdio.append(null(os.O_WRONLY))
                else:
                    reader, writer = make_pipe(undo, childs, size)
                    readers.append(reader)
                    stdio.append(writer.fileno())
                    pipes.append(writer.fileno())
            if is_launched(command):
                assert environment is not None
                if command.uid:
                    # As a terminal is the user's own: to open /dev/stdout, say, is to open the
                    # pipe anew. But /dev/null is everybody's.
                    for end in pipes:
                        os.fchown(end, command.uid, -1)
                self._child = launch_command(stdio, command, environment)
            else:
                argv = [command.argv0 or command.command, *command.args]
                self._child = spawn(argv, stdio, command, environment, leader=True)
        self._watch = ExitWatch(self._child.pid)
        if command.stdin:
            self.stdin = streams.buffered_writer(streams.DescriptorWriter(stdin, self._stop))
        else:
            self.stdin = streams.no_writer()
        self.stdout, self.stderr = (
            streams.empty_reader()
            if reader is None
            else streams.buffered_reader(streams.DescriptorReader(reader, stop))
            for reader, stop in zip(readers, self._output_stops, strict=True)
        )

    def _start_on_terminal(
        self, command: Command, environment: dict[str, str], undo: contextlib.ExitStack
    ) -> None:
        launched = is_launched(command)
        if not launched:
            local_pty.find_program(command.command, environment, command.working_dir)
        terminal = local_pty.LocalTerminal(*command.terminal_size, command.uid)
        undo.callback(terminal.close)
        try:
            # All that can fail comes before the command: then there is nothing to be ended.
            for_reading = streams.Handover(terminal.duplicate_master())
            undo.callback(for_reading.close)
            for_writing = streams.Handover(terminal.duplicate_master())
            undo.callback(for_writing.close)
            stdio = [terminal.slave] * 3
            if launched:
                self._child = launch_command(stdio, command, environment)
            else:
                argv, leader = terminal.wrap([command.command, *command.args])
                self._child = spawn(argv, stdio, command, environment, leader)
        finally:
            terminal.close_slave()
        self._terminal = terminal
        writer = streams.DescriptorWriter(for_writing, self._stop, last=terminal.end_of_file)
        self.stdin = streams.buffered_writer(writer)
        self._watch = ExitWatch(self._child.pid)
        end = self._watch if self._watch.fileno() >= 0 else None
        reader = streams.DescriptorReader(
            for_reading, self._output_stops[0], terminal=True, end=end
        )
        self.stdout = streams.buffered_reader(reader, _TERMINAL_BUFFER)
        self.stderr = streams.empty_reader()

    def wait_for_terminal(self) -> None:
        """Block until what is typed reaches the command; at once without a terminal."""
        if self._terminal is not None:
            self._terminal.wait_until_taken()

    def resize(self, rows: int, cols: int) -> None:
        Resize(rows, cols)  # raises what is wrong with them
        with self._lock:
            if self._terminal is not None and not self._closed:
                self._terminal.resize(rows, cols)

    def echo(self, on: bool | None = None) -> bool:
        if self._terminal is None:
            raise io.UnsupportedOperation("there is no terminal, and so no echo")
        with self._lock:
            if self._closed:
                raise ValueError("the terminal is closed")
            return self._terminal.echo(on)

    def send_signal(self, signal: int) -> None:
        # 0 is none, and harmless, as for kill(2).
        if signal and signal not in signals.valid_signals():
            raise ValueError(f"no such signal: {signal}")
        with self._lock:
            if self._status is None:
                self._signal_group(signal)

    def _signal_group(self, signal: int) -> None:
        """Signal the group; requires holding the lock, with the child not reaped."""
        assert self._lock.locked()
        try:
            os.killpg(self.pid, signal)
        except ProcessLookupError:
            # setsid(1) is there, but has not made the group yet.
            with suppress_system(ProcessLookupError):
                os.kill(self.pid, signal)
        except PermissionError:  # pragma: no cover - macOS
            # Of a group that has nothing but a zombie.
            if self._poll() is None:
                raise

    def _end_with(self, signal: signals.Signals) -> None:
        """Signal the group, and the job that a shell runs in the foreground: another group."""
        with suppress_system(PermissionError):  # sudo, say: closing its stdio has to do
            self.send_signal(signal)
        with self._lock:
            if self._terminal is not None and not self._closed:
                group = self._terminal.foreground_group()
                if group is not None and group != self.pid:
                    with suppress_system():
                        os.killpg(group, signal)

    def _poll(self) -> int | None:
        """Reap the child if it has ended; requires holding the lock."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, UNKNOWN
            if pid == self.pid:
                self._status = status
                # For its finalizer, which would reap and warn.
                self._child.returncode = -1
                self._watch = None
        return self._status

    def _check_status(self) -> None:
        status = self._status
        assert status is not None
        if status == UNKNOWN:
            raise ExitError(
                -1, "exit status unknown: somebody else has reaped it, or SIGCHLD is ignored"
            )
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            raise ExitError(-1, signal_message(number, os.WCOREDUMP(status)), number)
        code = os.WEXITSTATUS(status)
        if code:
            raise ExitError(code, f"exit status {code}")

    def ended(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._poll() is not None:
                    return True
                watch = self._watch
            assert watch is not None
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not watch.wait(rest):
                return False

    def exit_watch(self) -> ExitWatch | None:
        """Return what tells of the end, to be polled; ``None`` once that is known."""
        return self._watch

    def kill(self) -> None:
        with self._lock:
            if self._status is not None:
                return
            # Before the signal: somebody else may reap it at once, or the kernel.
            session = ProcessSession(self.pid)
            self._signal_group(signals.SIGKILL)
        # What was just being forked is there the next time.
        for _ in range(_KILL_ROUNDS):
            if not session.kill():
                break

    def finish(self) -> None:
        if self._terminal is not None:
            for stop in self._output_stops:
                stop.set()

    def hang_up(self) -> None:
        with self._lock:
            # As in kill().
            session = ProcessSession(self.pid) if self._status is None else None
        with suppress_system(PermissionError):
            self.send_signal(signals.SIGHUP)
        self._close(session)

    def close(self) -> None:
        with self._lock:
            session = ProcessSession(self.pid) if self._status is None else None
        self._close(session)

    def _close(self, session: ProcessSession | None) -> None:
        """End the command's session and release everything.

        Args:
            session: ``None`` if the command was seen to have ended: what it left running, in its
                group too, it may have left on purpose, as a shell does with "&".
        """
        deadline = time.monotonic() + process.CLOSE_GRACE
        if session is not None:
            # What has a group of its own, as "set -m" gives each job; the others are signalled
            # together. Those of an interactive shell are told by it, too.
            session.signal_others(signals.SIGHUP, signals.SIGTERM)
            if self._terminal is not None:
                self._end_with(signals.SIGHUP)
            self._end_with(signals.SIGTERM)
            if self._terminal is not None and not self.ended(process.CLOSE_GRACE / 4):
                # bash sleeps through one that comes when it is just about to wait for a key. It
                # would have to be killed, and could not pass the signal on to its jobs.
                self._end_with(signals.SIGHUP)
            if not self.ended(deadline - time.monotonic()):
                self._end_with(signals.SIGKILL)
                self.ended(process.KILL_GRACE)
            # What the command left in its group and session may still be tidying up. While one of
            # them is there, the kernel gives the number to nobody else.
            pause = 0.005
            kills = 0
            while session.lives() and kills < _KILL_ROUNDS:
                if time.monotonic() > deadline:
                    kills += 1
                    session.kill()
                time.sleep(pause)  # nothing tells of the end of a process that is not our child
                pause = min(2 * pause, 0.1)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._terminal is not None:
                self._terminal.close()
        self._stop.set()
        for stop in self._output_stops:
            stop.set()
        # Without this, what is still in its buffer would be an error when it is collected.
        streams.close_quietly(self.stdin)


class ExitWatch:
    """Tells when a child has ended without reaping it. To be made while it is not reaped.

    Safe to use from several threads. Closed when nobody refers to it any more, so that nobody can
    be polling a number that has become another file's.
    """

    _fd = -1  # for the finalizer, even if its start was interrupted

    def __init__(self, pid: int) -> None:
        if hasattr(os, "pidfd_open"):  # Linux
            try:
                self._fd = os.pidfd_open(pid)
            except OSError as error:  # an old kernel, or a sandbox, without it
                if error.errno is None:  # raised by the handler of a signal
                    raise

    def fileno(self) -> int:
        """Return a descriptor that is readable when the child has ended, or -1."""
        return self._fd

    def wait(self, timeout: float | None) -> bool:
        """Block until there is reason to look again; False once the timeout has passed."""
        if timeout is not None and timeout <= 0:
            return False
        if self._fd >= 0:
            return wait_for(self._fd, READ, None, timeout)
        time.sleep(0.02 if timeout is None else min(timeout, 0.02))  # pragma: no cover - macOS
        return True  # pragma: no cover - macOS

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
