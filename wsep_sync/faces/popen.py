"""subprocess's face over any execer: :class:`Popen`; :mod:`.run` has its functions.

The constants and exceptions are subprocess's own, so ``except subprocess.TimeoutExpired`` works
here, too. What differs from a child of this process is said in :class:`Popen`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import operator
import os
import signal as signals
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from subprocess import DEVNULL, PIPE, TimeoutExpired
from types import GenericAlias, TracebackType
from typing import IO, TYPE_CHECKING, Any, AnyStr, Generic, overload

from ..errors import ExitError, ExitMissing, OutputUnread, suppress_system
from ..process import CLOSE_GRACE, SIGKILL, Execer, Process, ended
from ..protocol.messages import FEATURE_CLOSE_OUTPUT, FEATURE_ENDED
from ..streams.bounded_pipe import PipeReader, wait_a_while
from ..streams.files import close_quietly
from .communication import CommandLost, Communication
from .copying import Collector, Feeder, InputCopier, OutputCopier, remaining
from .piped import Piped
from .starting import Endpoints, Place, Surroundings, command_line, refuse, start, terminal

if TYPE_CHECKING:
    import ssl

    from _typeshed import StrOrBytesPath
    from typing_extensions import Self, Unpack

    from .options import (
        AnyOptions,
        CommandLine,
        Env,
        File,
        OptionsInBytes,
        OptionsWithEncoding,
        OptionsWithErrors,
        OptionsWithNewlines,
        OptionsWithText,
    )

__all__ = [
    "Popen",
]

# How long a command has to end by itself when Ctrl-C was pressed, as in subprocess.
_INTERRUPT_GRACE = 0.25

# In subprocess's words: there are filters for them.
_NO_LINES = (
    "line buffering (buffering=1) isn't supported in binary mode, "
    "the default buffer size will be used"
)

# Of a message that sends one; no system has more.
_LAST_SIGNAL = 64


class Popen(Generic[AnyStr]):
    """A command that runs, or has run, here or at a distance; see :class:`subprocess.Popen`.

    Where it runs: with ``execer`` there; else with ``url`` at that server; else at ``$WSEP_URL``;
    else on this machine. The constructor returns as soon as the command runs.

    What is different from a child of this process:

    - The command leads a session and process group of its own; ``start_new_session`` changes
      nothing, and a Ctrl-C in our terminal does not reach it. Signals go to its whole group.
    - ``env`` *adds* to the environment there. ``clean_env=True`` replaces it, as subprocess does.
    - Its streams are copied, by a thread for each that is neither ``PIPE`` nor ``DEVNULL``. Where
      stdout and stderr are one pipe, terminal or open file, they come as one, in order. A
      stdin that is inherited or a file is read ahead; what the command left of it is gone from a
      pipe. An inherited output that was lost (a full disk), or a stdin that cannot be read (a
      bad one, which ends the command with SIGTERM), raises ``OSError`` in :meth:`wait`.
    - ``umask``, ``clean_env``, and ``stderr=STDOUT`` or the same file for both outputs, let a POSIX
      shell start a remote command in its own place, where its server does not name these features
      (the reference does not, nor does SSH); ``clean_env`` also takes awk(1) and env(1). A program
      whose ``#!`` interpreter is missing is then the shell's status 127 rather than
      ``FileNotFoundError``; variables whose names are no identifiers are refused; and ``IFS``,
      ``OPTIND``, ``PPID`` and ``PWD``, if they are given, are what the shell sets them to.
    - A remote command whose piped output is closed, with all copies of its descriptor, has it
      closed, too, a moment later. Where there is no ``close_output``, it gets SIGPIPE when it
      writes on, if signals can be sent; else what it writes is dropped.
    - The outputs of a remote command end with the command, at the soonest. :meth:`wait` returns
      when those that are inherited, or a file, have ended, too; from a server without ``ended``,
      when all have. When this process ends, so does a remote command.
    - ``executable`` (other than the shell, or the program itself), ``extra_groups``, ``user`` or
      ``group`` by name or 0, and ``restore_signals=False`` take a server that names ``argv0``,
      ``groups``, ``user`` and ``restore_signals``. Names are looked up there.
    - ``preexec_fn`` and ``pass_fds`` are for a child of this process. As with subprocess, a
      ``preexec_fn`` that needs a lock which another thread holds at that moment waits for ever. It
      is called before a ``user`` or ``group`` is taken on. At a distance, ``close_fds=False`` and
      ``pipesize`` change nothing.
    - What cannot be done raises ``ValueError``, which names the argument: the above where it cannot
      be had, ``startupinfo``, ``creationflags``, ``process_group`` other than 0.

    Threads may call ``wait``, ``poll`` and ``send_signal`` at any time; each stream, and
    ``communicate``, belongs to one thread at a time.

    Args:
        args: The program and its arguments, or one string: the program, or with ``shell=True``
            a shell's command line.
        bufsize: Of the piped streams: 0 unbuffered, 1 by lines if they are text, a number of
            bytes, or -1 for the default.
        executable: The program to run, which sees ``args[0]`` as its name; or the shell to use
            instead of ``/bin/sh``.
        stdin, stdout, stderr: ``PIPE``, ``DEVNULL``, a descriptor, a file with one, or ``None``:
            ours. For stderr also ``STDOUT``.
        shell: Let a shell run ``args``.
        cwd: The directory to run in.
        env: Environment variables.
        user: The user to run as. This drops the supplementary groups. A server must be allowed
            to do it.
        group: The group to run as; as for ``user``.
        extra_groups: The supplementary groups to have.
        umask: The file mode creation mask.
        universal_newlines, text: The piped streams are text.
        encoding, errors: The piped streams are text, coded like this.
        execer: What starts the command.
        url: The server to connect to, ``ws://HOST:PORT/PATH`` or ``wss://…``, or an SSH host,
            ``ssh://USER@HOST``.
        tty: Run it on a terminal. All it shows comes as its output.
        size: The terminal's rows and columns, by default 24 and 80.
        id: The name under which the terminal's session can be attached again.
        clean_env: The command sees the variables of ``env`` and no others.
        token, headers, ssl_context: For connecting to ``url``; as for :func:`.connect`.
        timeout: Seconds for connecting to ``url``, and again for the start there; 10 by default.

    Attributes:
        args: As given.
        pid: The process id, on the machine where it runs.
        returncode: The exit status, -N for signal N; ``None`` until ``wait``, ``poll`` or
            ``communicate`` has seen the end. -1, too, if it cannot be known: somebody else has
            reaped the command, or SIGCHLD is ignored where it ran (subprocess says 0).
        stdin, stdout, stderr: A file where ``PIPE`` was given, else ``None``. All three have a
            ``fileno()``: ``Popen(…, stdin=other.stdout)`` and ``select`` work.
        process: The process below, for :meth:`.Process.resize`. Its streams are ours.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: The command could not be started;
            ``filename`` is the command or the directory. Each is a :exc:`.StartError`, which is
            raised as such for other causes.
        ConnectError: No connection could be made.
        ValueError: Arguments that do not go together, or cannot be done at a distance.
    """

    stdin: IO[AnyStr] | None
    stdout: IO[AnyStr] | None
    stderr: IO[AnyStr] | None
    returncode: int | None
    args: CommandLine
    pid: int

    _communication: Communication | None = None  # once it has begun
    _input: InputCopier | None = None  # if it is not piped
    _interrupt_grace: float = _INTERRUPT_GRACE
    _forward_interrupt: bool = False
    _lost: bool = False  # the exit status never came

    @classmethod
    def __class_getitem__(cls, parameters: Any) -> GenericAlias:
        return GenericAlias(cls, parameters)  # as subprocess's, and not one of typing's

    @overload
    def __init__(
        self: Popen[str],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        **options: Unpack[OptionsWithText],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[str],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        **options: Unpack[OptionsWithEncoding],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[str],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        **options: Unpack[OptionsWithErrors],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[str],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        **options: Unpack[OptionsWithNewlines],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[bytes],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        **options: Unpack[OptionsInBytes],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[Any],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        **options: Unpack[AnyOptions],
    ) -> None: ...
    def __init__(
        self,
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: Callable[[], Any] | None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = None,
        env: Env | None = None,
        universal_newlines: bool | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = False,  # noqa: ARG002 - it is always so
        pass_fds: Sequence[int] = (),
        *,
        user: str | int | None = None,
        group: str | int | None = None,
        extra_groups: Iterable[str | int] | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        umask: int = -1,
        pipesize: int = -1,
        process_group: int | None = None,
        execer: Execer | None = None,
        url: str | None = None,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        id: str = "",
        clean_env: bool = False,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float | None = None,
    ) -> None:
        self._process: Process | None = None
        self.returncode = self.stdin = self.stdout = self.stderr = None
        self._outputs: list[OutputCopier] = []  # of those that are not piped
        place = Place(execer, url, token, headers, ssl_context, timeout)
        refuse(
            preexec_fn=preexec_fn is not None and not place.local,
            startupinfo=startupinfo is not None,
            creationflags=creationflags != 0,
            pass_fds=bool(pass_fds) and not place.local,
            process_group=process_group not in (None, 0),
        )
        self.args = args
        piped = Piped(bufsize, text, universal_newlines, encoding, errors)
        if bufsize == 1 and not piped.text and PIPE in (stdin, stdout, stderr):
            warnings.warn(_NO_LINES, RuntimeWarning, stacklevel=2)
        endpoints = Endpoints()
        try:
            self._process = start(
                place,
                *command_line(args, shell, executable),
                endpoints.open(stdin, stdout, stderr, tty),
                Surroundings(
                    *(cwd, env, user, group, extra_groups, umask, clean_env, restore_signals),
                    *(preexec_fn, close_fds, pass_fds, pipesize),
                ),
                terminal(tty, size, id),
                id,
            )
            self.pid = self._process.pid
            self._attach(self._process, endpoints, piped, tty)
        except BaseException:
            if self._process is not None:
                self._process.close()
                self._process = None  # it was never there
            endpoints.close()
            raise

    def _attach(self, process: Process, endpoints: Endpoints, piped: Piped, tty: bool) -> None:
        if endpoints.source == DEVNULL:
            close_quietly(process.stdin)  # which a terminal is told
        elif endpoints.source == PIPE:
            self.stdin = piped.writer(process.stdin)
        else:
            self._input = InputCopier(endpoints.handover(endpoints.source), process)
        output, errors = endpoints.output, endpoints.errors
        self.stdout = self._attach_output(output, process.stdout, endpoints, piped, tty)
        if endpoints.merged:
            close_quietly(process.stderr)  # it has nothing
            if errors >= 0:
                endpoints.handover(errors).close()
        else:
            self.stderr = self._attach_output(errors, process.stderr, endpoints, piped, tty)

    def _attach_output(
        self, target: int, file: io.BufferedReader, endpoints: Endpoints, piped: Piped, tty: bool
    ) -> IO[Any] | None:
        if isinstance(file.raw, PipeReader):
            if target == DEVNULL:
                if not tty:
                    file.raw.discard()  # where it is no null device: to close it would tell
                file.close()
                return None
            if FEATURE_CLOSE_OUTPUT not in self.process.features:
                file.raw.when_unwanted(functools.partial(_break_pipe, self.process))
        if target == PIPE:
            return piped.reader(file)
        # Where the end is told ahead of the output, that is not all there yet then.
        whole = FEATURE_ENDED in self.process.features
        descriptor = None if target == DEVNULL else endpoints.handover(target)
        self._outputs.append(OutputCopier(file, descriptor, whole))
        return None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def poll(self) -> int | None:
        """Return the exit status if the command has ended, else ``None``; does not block.

        Raises:
            ExitMissing: The connection ended before the exit status came.
        """
        if self.returncode is None:
            self._wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Block until the command has ended, and what it wrote to inherited outputs is there.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The exit status; -N for signal N.

        Raises:
            TimeoutExpired: It had not ended in time.
            ExitMissing: The connection ended before the exit status came; so does every later
                call, and ``returncode`` stays ``None``. It is a ``SubprocessError``, too.
            OutputUnread: A remote command's piped output is full and nobody has ever read it, and
                its server, one without ``ended``, could never tell of its end.
            OSError: Its output could not be written to where it was to go, or its input not be
                read; once.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            in_time = self.returncode is not None or self._wait(timeout)
        except KeyboardInterrupt:
            self._interrupted(deadline)
            raise
        if not in_time:
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout)
        _raise_error(self._input, *self._outputs)
        assert self.returncode is not None
        return self.returncode

    def _wait(self, timeout: float | None) -> bool:
        """Wait and set the return code, or raise ``ExitMissing``; False if not in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not ended(self.process, timeout):
            return False
        code = 0
        try:
            self.process.wait(0)
        except ExitError as error:
            code = error.exit_code if error.signal is None else -error.signal
        except ExitMissing as error:
            self._lost = True
            self._release_input()
            raise CommandLost(*error.args) from None
        for copier in self._outputs:
            if not copier.delivered(remaining(deadline)):
                return False
        self._release_input()
        self.returncode = code
        return True

    def _release_input(self) -> None:
        if self._input is not None:
            self._input.stop()

    def communicate(
        self, input: AnyStr | None = None, timeout: float | None = None
    ) -> tuple[Any, Any]:
        """Write ``input``, read all that is piped, and wait for the end.

        Args:
            input: For a piped stdin, text or bytes as the streams are. What the command does not
                want to read is dropped.
            timeout: Seconds. After ``TimeoutExpired`` nothing is lost: call it again, without
                input, to go on.

        Returns:
            What came from stdout and from stderr, ``None`` for one that is not piped.

        Raises:
            TimeoutExpired: It had not ended in time; with ``output`` and ``stderr`` as far as
                they had come, in bytes.
            ExitMissing: As :meth:`wait`; with ``stdout`` and ``stderr`` as far as they had come, in
                bytes.
            OSError: As :meth:`wait`.
            ValueError: ``input`` after communication has begun.
        """
        if self._communication is not None and input:
            raise ValueError("Cannot send input after starting communication")
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._communication is None:
            self._communication = Communication(
                self.process, self.stdin, self.stdout, self.stderr, input
            )
        try:
            in_time = self._communication.run(deadline)
        except KeyboardInterrupt:
            self._interrupted(deadline)
            raise
        if in_time:
            in_time = self._wait_for_communication(self._communication, deadline)
        if not in_time:
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout, *self._communication.so_far())
        _raise_error(*self._communication.jobs, self._input, *self._outputs)
        return self._communication.result()

    def _wait_for_communication(self, done: Communication, deadline: float | None) -> bool:
        """Call :meth:`wait`, which subclasses override; False if it was not in time."""
        try:
            self.wait(remaining(deadline))
        except TimeoutExpired:
            if deadline is None or time.monotonic() < deadline:
                raise  # that of a signal's handler
            return False
        except CommandLost as lost:
            lost.stdout, lost.stderr = done.so_far()
            raise
        return True

    def _interrupted(self, deadline: float | None) -> None:
        """Ctrl-C: let the command end by itself for a moment, once."""
        grace, self._interrupt_grace = self._interrupt_grace, 0.0
        if self._forward_interrupt:
            # A terminal would have sent it to a child; and the alternative is SIGKILL.
            with suppress_system(OSError, ValueError):
                self.process.send_signal(signals.SIGINT)
        if deadline is not None:
            grace = min(grace, deadline - time.monotonic())
        if grace > 0:
            with contextlib.suppress(ExitMissing, OutputUnread):
                self._wait(grace)

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command's process group; do nothing if it has ended, or is lost.

        Raises:
            TypeError: It is no whole number.
            OSError: No such signal.
            io.UnsupportedOperation: The server cannot send signals (the reference cannot). It is
                hung up on for SIGKILL.
        """
        if self.returncode is not None or self._lost or sig == 0:
            return
        number = operator.index(sig)
        if not 0 < number <= _LAST_SIGNAL:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if number == SIGKILL:
            self.process.kill()
        else:
            self.process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM; see :meth:`send_signal`."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; see :meth:`send_signal`."""
        self.send_signal(SIGKILL)

    def _abandon(self) -> None:
        """End the command whatever it does, within a few seconds."""
        self.kill()
        try:
            with contextlib.suppress(ExitMissing, OutputUnread):
                self._wait(CLOSE_GRACE)
        finally:
            self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the piped streams and wait for the command to end."""
        # Those of a communicate() that timed out: its threads are at work on these files.
        jobs = self._communication.busy() if self._communication is not None else []
        busy = [job.file for job in jobs]
        try:
            for file in (self.stdout, self.stderr, self.stdin):
                if file is not None and not any(file is other for other in busy):
                    file.close()  # writes what is in stdin's buffer, and may raise
        finally:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                if self.returncode is None and not self._lost:
                    self._interrupted(None)
            else:
                self._finish(jobs, kind is not None)

    def _finish(self, jobs: Sequence[Feeder | Collector], failing: bool) -> None:
        for job in jobs:
            if isinstance(job, Collector):
                job.discard()
        try:
            self.wait()
        except ExitMissing:
            if not failing:  # what is being raised already says more
                raise
        finally:
            if jobs:
                # Somebody whom the command left behind may hold the streams.
                self.process.close()
                for job in jobs:
                    while not wait_a_while(job.done):
                        pass

    def __del__(self) -> None:
        if getattr(self, "_process", None) is None:
            return  # it never started
        if self.returncode is None and not self._lost:
            warnings.warn(
                f"process {self.pid} is still running", ResourceWarning, stacklevel=2, source=self
            )
        # It goes on by itself, and so do the streams, if somebody has kept them.

    def __repr__(self) -> str:
        text = f"<{type(self).__name__}: returncode: {self.returncode} args: {self.args!r}>"
        return text if len(text) <= 80 else f"{text[:76]}...>"


def _raise_error(*works: Feeder | Collector | InputCopier | OutputCopier | None) -> None:
    """Raise, once, what went wrong with one of them."""
    for work in works:
        if work is not None and work.error is not None:
            error, work.error = work.error, None
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other


def _break_pipe(process: Process) -> None:
    """Do what a kernel does to a command that writes to a pipe without a reader."""
    with suppress_system(OSError, ValueError):  # no signals there: what it writes is dropped
        process.send_signal(signals.SIGPIPE)
