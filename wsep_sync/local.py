"""Commands on this machine: :class:`LocalExecer`."""

from __future__ import annotations

import contextlib
import fnmatch
import marshal
import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from . import local_launch, process, streams
from .errors import ExitError, StartError, start_error, suppress_system
from .messages import (
    FEATURE_CLOSE_OUTPUT,
    FEATURE_DISCARD,
    FEATURE_SIGNAL,
    Command,
    Resize,
    nameless,
    signal_message,
    variables,
)
from .process import Awaited, Execer, Process
from .wakeup import READ, Wakeup, wait_for

if sys.platform != "win32":
    from . import local_pty

__all__ = ["LocalExecer", "LoginCommand", "MergedCommand"]

# In place of a status: the command was reaped by somebody else, such as an os.wait() of the program
# around us, or by the kernel where SIGCHLD is ignored. subprocess says 0 then, for success.
_UNKNOWN = -1

# How often those who are left of a session are killed. Each time there may be some who were being
# forked; after so many, they are not to be killed: somebody else's, or waiting for a disk.
_KILL_ROUNDS = 20

# What the server takes its token from. Whoever has it can start commands.
_TOKEN = "WSEP_TOKEN"


@dataclass(frozen=True)
class LoginCommand(Command):
    """A command with what a login gives besides its user, which no server can be told.

    Args:
        groups: Supplementary groups to have, if ``uid`` or ``gid`` is given.
        home: Directory to run in, or ``/`` if it cannot be entered. A relative ``working_dir``
            is relative to it.
    """

    groups: tuple[int, ...] = ()
    home: str = ""


@dataclass(frozen=True)
class MergedCommand(Command):
    """A command whose error output goes where its output goes, in one pipe.

    No server can be told; see :class:`.Prelude`. Its process's ``stderr`` is at its end.
    """


class LocalExecer(Execer):
    """Starts commands on this machine.

    Each command leads a session and a process group of its own, has this process's environment
    and what :attr:`.Command.env` adds, and inherits no descriptor but its three. A terminal has
    ``WSEP_TTY=true`` in its environment, whatever was given, ``TERM=xterm-256color`` if there is
    no ``TERM``, and not this process's ``LINES`` and ``COLUMNS``. ``WSEP_TOKEN``, which the server
    takes its token from, is passed on to none.

    A command with a ``uid`` or ``gid`` has none of this process's rights already when its working
    directory is entered and its program searched for. That takes a Python of its own, started
    from :data:`sys.executable`, some 12 ms; so does an entry of :attr:`.Command.env` that is not
    ``NAME=VALUE``, or whose name begins with ``=``, for Python's own calls refuse these.

    Spawning is safe in a process full of threads: no Python code runs between fork and exec.

    The exit status of a command that somebody else reaps, as ``os.wait()`` does or the kernel where
    SIGCHLD is ignored, cannot be known: it is :exc:`.ExitError` with -1 and no signal, which says
    so, and never a success.

    On Windows the class can be imported and made; starting a command raises ``StartError``.

    Args:
        child_process_priority: Niceness of the commands, -20 to 19; ``None`` leaves it. It is
            set right after the start, as in the reference.
        pass_env: Names of the variables of this process's environment that commands are given,
            with ``*``, ``?`` and ``[]`` as in :mod:`fnmatch`; such as
            ``["PATH", "LANG", "LC_*"]``. Without ``PATH``, programs are searched for in
            :data:`os.defpath`. ``None`` passes all on, as in the reference.

    Raises:
        TypeError: ``pass_env`` is one string.
        ValueError: No such niceness.
    """

    def __init__(
        self,
        child_process_priority: int | None = None,
        *,
        pass_env: Collection[str] | None = None,
    ) -> None:
        if child_process_priority is not None and not -20 <= child_process_priority <= 19:
            raise ValueError(
                f"child_process_priority must be -20 to 19, not {child_process_priority}"
            )
        if isinstance(pass_env, str):
            raise TypeError(f"pass_env must be a collection of names, not {pass_env!r}")
        self._priority = child_process_priority
        self._pass_env = None if pass_env is None else tuple(pass_env)

    def start(self, command: Command) -> Process:
        if sys.platform == "win32":
            raise StartError("commands can be run on POSIX systems only, not on Windows itself")
        if not command.command:
            raise StartError("no command")
        environment = self._environment(command)
        try:
            started = LocalProcess(command, environment)
        except OSError as error:
            if error.errno is None:
                raise  # none of the system's: that of a signal's handler
            raise _translate(error, command) from error
        except (ValueError, subprocess.SubprocessError) as error:
            raise StartError(str(error)) from error
        try:
            started.wait_for_terminal()
        except BaseException:  # Ctrl-C
            started.kill()
            started.close()
            raise
        if self._priority is not None:
            try:
                os.setpriority(os.PRIO_PROCESS, started.pid, self._priority)
            except ProcessLookupError:  # it has ended already
                pass
            except OSError as error:
                started.kill()
                started.close()
                raise StartError(f"set priority {self._priority}: {error.strerror}") from error
        return started

    def _environment(self, command: Command) -> dict[str, str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            # None is what an entry has that begins with "=": Python would refuse it in a child's.
            if name
            and (
                self._pass_env is None
                or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._pass_env)
            )
        }
        environment.pop(_TOKEN, None)
        if command.tty:
            environment.setdefault("TERM", "xterm-256color")
            # They would tell programs the size of another terminal, and of none that can be
            # resized.
            environment.pop("LINES", None)
            environment.pop("COLUMNS", None)
        environment |= variables(command.env)
        if command.tty:
            # As in the reference it comes last, and nothing that was given changes it.
            environment.pop("WSEP_TTY", None)
            environment["WSEP_TTY"] = "true"
        return environment


def _translate(error: OSError, command: Command) -> StartError:
    assert error.errno is not None
    # What was raised says which of the two could not be reached, by the directory's name.
    directory = command.working_dir
    filename = directory if directory and error.filename == directory else command.command
    return start_error(error.errno, filename)


class LocalProcess(Awaited):
    """A command on this machine. Made by :class:`LocalExecer`."""

    features = frozenset((FEATURE_SIGNAL, FEATURE_CLOSE_OUTPUT, FEATURE_DISCARD))

    def __init__(self, command: Command, environment: dict[str, str]) -> None:
        # Guards _status and _watch, and keeps the pid from being reaped between a look at _status
        # and a signal: a pid that was reaped may be somebody else's.
        self._lock = threading.Lock()
        self._status: int | None = None  # as waitpid gives it, or _UNKNOWN
        self._closed = False
        self._terminal: local_pty.LocalTerminal | None = None
        # One for all who wait, and not one for each: a Ctrl-C likes to come when a wait begins,
        # and a descriptor between two bytecodes belongs to nobody. Let go of when reaped.
        self._watch: _ExitWatch | None
        with contextlib.ExitStack() as undo:
            # Before the command, as all that can fail: of the input, and of each output, which can
            # be stopped alone.
            self._stop = Wakeup()
            self._output_stops = [Wakeup() for _ in range(1 if command.tty else 2)]
            if command.tty:
                self._start_on_terminal(command, environment, undo)
            else:
                self._start_on_pipes(command, environment, undo)
            undo.pop_all()
        self.pid = self._child.pid

    def _start_on_pipes(
        self, command: Command, environment: dict[str, str], undo: contextlib.ExitStack
    ) -> None:
        with contextlib.ExitStack() as childs:

            def null(flags: int) -> int:
                descriptor = os.open(os.devnull, flags)
                childs.callback(os.close, descriptor)
                return descriptor

            readers: list[streams.Handover | None] = []
            pipes = []  # the command's ends
            if command.stdin:
                child_stdin, stdin = _pipe(childs, undo)
                pipes.append(child_stdin.fileno())
            stdio = [child_stdin.fileno() if command.stdin else null(os.O_RDONLY)]
            for name in ("stdout", "stderr"):
                if name == "stderr" and isinstance(command, MergedCommand):
                    readers.append(None)
                    stdio.append(stdio[1])
                elif name in command.discard:
                    readers.append(None)
                    stdio.append(null(os.O_WRONLY))
                else:
                    reader, writer = _pipe(undo, childs)
                    readers.append(reader)
                    stdio.append(writer.fileno())
                    pipes.append(writer.fileno())
            if _is_launched(command):
                if command.uid:
                    # As a terminal is the user's own: to open /dev/stdout, say, is to open the
                    # pipe anew. But /dev/null is everybody's.
                    for end in pipes:
                        os.fchown(end, command.uid, -1)
                self._child = _launch(stdio, command, environment)
            else:
                argv = [command.command, *command.args]
                self._child = _spawn(argv, stdio, command, environment, leader=True)
        self._watch = _ExitWatch(self._child.pid)
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
        launched = _is_launched(command)
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
                self._child = _launch(stdio, command, environment)
            else:
                argv, leader = terminal.wrap([command.command, *command.args])
                self._child = _spawn(argv, stdio, command, environment, leader)
        finally:
            terminal.close_slave()
        self._terminal = terminal
        writer = streams.DescriptorWriter(for_writing, self._stop, last=terminal.end_of_file)
        self.stdin = streams.buffered_writer(writer)
        self._watch = _ExitWatch(self._child.pid)
        end = self._watch if self._watch.fileno() >= 0 else None
        reader = streams.DescriptorReader(
            for_reading, self._output_stops[0], terminal=True, end=end
        )
        self.stdout = streams.buffered_reader(reader)
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
        except PermissionError:
            # macOS: of a group that has nothing but a zombie.
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
                pid, status = self.pid, _UNKNOWN
            if pid == self.pid:
                self._status = status
                # For its finalizer, which would reap and warn.
                self._child.returncode = -1
                self._watch = None
        return self._status

    def _check_status(self) -> None:
        status = self._status
        assert status is not None
        if status == _UNKNOWN:
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

    def kill(self) -> None:
        with self._lock:
            if self._status is not None:
                return
            # Before the signal: somebody else may reap it at once, or the kernel.
            session = _Session(self.pid)
            self._signal_group(signals.SIGKILL)
        # What was just being forked is there the next time.
        for _ in range(_KILL_ROUNDS):
            if not session.signal(signals.SIGKILL):
                break

    def finish(self) -> None:
        if self._terminal is not None:
            for stop in self._output_stops:
                stop.set()

    def hang_up(self) -> None:
        with self._lock:
            # As in kill().
            session = _Session(self.pid) if self._status is None else None
        with suppress_system(PermissionError):
            self.send_signal(signals.SIGHUP)
        self._close(session)

    def close(self) -> None:
        with self._lock:
            session = _Session(self.pid) if self._status is None else None
        self._close(session)

    def _close(self, session: _Session | None) -> None:
        """End the command's session and release everything.

        Args:
            session: ``None`` if the command was seen to have ended: what it left running, in its
                group too, it may have left on purpose, as a shell does with "&".
        """
        deadline = time.monotonic() + process.CLOSE_GRACE
        if session is not None:
            # What has a group of its own, as "set -m" gives each job; the others are signalled
            # together. Those of an interactive shell are told by it, too.
            session.signal(signals.SIGHUP, others=True)
            session.signal(signals.SIGTERM, others=True)
            if self._terminal is not None:
                self._end_with(signals.SIGHUP)
            self._end_with(signals.SIGTERM)
            if self._terminal is not None and not self.ended(process.CLOSE_GRACE / 4):
                # bash sleeps through one that comes when it is just about to wait for a key. It
                # would have to be killed, and could not pass the signal on to its jobs.
                self._end_with(signals.SIGHUP)
            if not self.ended(deadline - time.monotonic()):
                self._end_with(signals.SIGKILL)
                # One that cannot even be killed waits for a disk or a file server, or is somebody
                # else's. Nothing here can wait for that.
                self.ended(process.CLOSE_GRACE)
            # What the command left in its group and session may still be tidying up. While one of
            # them is there, the kernel gives the number to nobody else.
            pause = 0.005
            kills = 0
            while session.lives() and kills < _KILL_ROUNDS:
                if time.monotonic() > deadline:
                    kills += 1
                    session.signal(signals.SIGKILL)
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


class _ExitWatch:
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
        time.sleep(0.02 if timeout is None else min(timeout, 0.02))
        return True

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class _Session:
    """The processes of a command's session, its group among them. To be made before it is reaped.

    On Linux /proc tells of them. Elsewhere only the group is known, by its number.

    A process is signalled only after a look at when it began, through a descriptor of it: its
    number may have become another's meanwhile. So may the session's own, once all of it has ended
    and the leader was reaped; then there is a leader that began at another time.
    """

    def __init__(self, leader: int) -> None:
        self._leader = leader
        stat = _stat(leader)
        self._began = None if stat is None else stat.began

    def signal(self, signal: signals.Signals, others: bool = False) -> bool:
        """Signal all of it but the leader; return whether there was anybody who had not ended.

        Args:
            others: Not those of the leader's group.
        """
        members = self._members()
        if members is None:
            return False
        if not others:
            with suppress_system():
                os.killpg(self._leader, signal)
        for pid, stat in members.items():
            if stat.group != self._leader:
                _signal_process(pid, stat.began, signal)
        return bool(members)

    def lives(self) -> bool:
        """Whether there is anybody, besides the leader, who has not ended."""
        members = self._members()
        if members is not None:
            return bool(members)
        try:
            os.killpg(self._leader, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _members(self) -> dict[int, _Stat] | None:
        """Return those who have not ended, or ``None`` where that cannot be known."""
        if self._began is None:
            return None
        found = {}
        for entry in os.listdir("/proc"):
            stat = _stat(int(entry)) if entry.isdecimal() else None
            if stat is None or stat.session != self._leader:
                continue
            if int(entry) != self._leader:
                # Orphans that have ended still count until process 1 reaps them, which is late in
                # many a container, if ever.
                if not stat.ended:
                    found[int(entry)] = stat
            elif stat.began != self._began:
                return {}  # another's session
        return found


@dataclass(frozen=True)
class _Stat:
    """What Linux tells of a process; see proc_pid_stat(5)."""

    ended: bool
    group: int
    session: int
    began: int


def _stat(pid: int) -> _Stat | None:
    """Return what is known of a process, if it is there and not hidden (the option hidepid)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The name before the last parenthesis may hold spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0] in (b"Z", b"X"), int(fields[2]), int(fields[3]), int(fields[19]))


def _signal_process(pid: int, began: int, signal: signals.Signals) -> None:
    """Signal a process if it is the one that began then."""
    with suppress_system(), contextlib.ExitStack() as cleanup:
        if not hasattr(os, "pidfd_open") or not hasattr(signals, "pidfd_send_signal"):
            os.kill(pid, signal)
            return
        descriptor = os.pidfd_open(pid)
        cleanup.callback(os.close, descriptor)
        stat = _stat(pid)
        if stat is not None and stat.began == began:
            signals.pidfd_send_signal(descriptor, signal)


def _pipe(
    readers: contextlib.ExitStack, writers: contextlib.ExitStack
) -> tuple[streams.Handover, streams.Handover]:
    """Make a pipe whose ends the two stacks close, unless somebody takes them over."""
    reader, writer = map(streams.Handover, os.pipe())
    readers.callback(reader.close)
    writers.callback(writer.close)
    return reader, writer


def _spawn(
    argv: list[str],
    stdio: Sequence[int],
    command: Command,
    environment: dict[str, str],
    leader: bool,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        cwd=command.working_dir or None,
        env=environment,
        start_new_session=leader,
    )


def _is_launched(command: Command) -> bool:
    """Whether the command needs :mod:`.local_launch` to become what it is."""
    return (
        bool(command.uid or command.gid)
        or isinstance(command, LoginCommand)
        # subprocess refuses what is not NAME=VALUE, and names that begin with "=".
        or any(entry.find("=") < 1 for entry in command.env if entry)
    )


def _launch(
    stdio: Sequence[int], command: Command, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Spawn the command by way of :mod:`.local_launch`; return when it runs.

    Raises:
        OSError: What the launcher met; its filename is the working directory if it was that.
        StartError: The launcher itself could not be started, or has ended.
    """
    login = command if isinstance(command, LoginCommand) else None
    program = os.fsencode(command.command)
    directories = [] if os.sep in command.command else os.get_exec_path(environment)
    request = {
        # Encoded here: the launcher ignores what Python's environment says about encodings.
        "programs": [os.path.join(os.fsencode(d), program) for d in directories] or [program],
        "argv": [os.fsencode(word) for word in (command.command, *command.args)],
        "environment": {
            os.fsencode(name): os.fsencode(value) for name, value in environment.items()
        },
        "nameless": [os.fsencode(entry) for entry in nameless(command.env)],
        "uid": command.uid,
        "gid": command.gid,
        # A user or group that is given up must not be kept through a supplementary group.
        "groups": list(login.groups) if login else [],
        "home": os.fsencode(login.home if login else ""),
        "working_dir": os.fsencode(command.working_dir),
        "terminal": command.tty,
    }
    with (
        contextlib.ExitStack() as launchers,
        contextlib.ExitStack() as sender,
        contextlib.ExitStack() as receiver,
    ):
        request_reader, request_writer = _pipe(launchers, sender)
        answer_reader, answer_writer = _pipe(receiver, launchers)
        try:
            child = subprocess.Popen(
                # Isolated (-I) and without site (-S): Python's own library is all it imports.
                [
                    *(sys.executable or "", "-I", "-S", local_launch.__file__),
                    *(str(request_reader.fileno()), str(answer_writer.fileno())),
                ],
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                pass_fds=(request_reader.fileno(), answer_writer.fileno()),
                start_new_session=True,
            )
        except OSError as error:
            if error.filename is None:
                raise
            raise StartError(f"cannot start Python to become the command: {error}") from error
        try:
            launchers.close()
            # Broken when the launcher has ended, which the answer tells.
            with (
                suppress_system(BrokenPipeError),
                open(request_writer.fileno(), "wb", closefd=False) as writer,
            ):
                writer.write(marshal.dumps(request))
            sender.close()
            with open(answer_reader.fileno(), "rb", closefd=False) as reader:
                answer = reader.read()
            if answer != local_launch.READY:
                raise _launch_failure(answer, command)
        except BaseException:
            child.kill()
            child.wait()
            raise
    return child


def _launch_failure(answer: bytes, command: Command) -> Exception:
    """Return the error that the launcher tells of."""
    step, _, number = answer.removeprefix(local_launch.READY).partition(b" ")
    if not number:
        return StartError("the Python that was to become the command has ended")
    filename = command.working_dir if step == b"chdir" else None
    return OSError(int(number), os.strerror(int(number)), filename)
