"""subprocess's face over any execer: :class:`Popen`, :func:`run` and their relatives.

The constants and exceptions are subprocess's own objects, so ``except subprocess.TimeoutExpired``
works here, too. What differs from a child of this process is said in :class:`Popen`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import io
import operator
import os
import signal as signals
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    CompletedProcess,
    TimeoutExpired,
)
from types import TracebackType
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    AnyStr,
    Generic,
    Literal,
    TypeAlias,
    TypedDict,
    cast,
    overload,
)

from ..errors import (
    ExitError,
    ExitMissing,
    OutputUnread,
    StartError,
    is_not_allowed,
    start_error,
    suppress_system,
)
from ..execers.dial import dial
from ..execers.local.commands import MergedCommand
from ..execers.local.execer import LocalExecer
from ..execers.prelude import Prelude
from ..lazy import importing
from ..process import CLOSE_GRACE, Execer, Process, ended
from ..protocol.command import Command
from ..protocol.messages import FEATURE_CLOSE_OUTPUT, FEATURE_ENDED
from ..streams.bounded_pipe import PipeReader, wait_a_while
from ..streams.descriptors import Handover
from ..streams.files import Reader, TextFile, Writer, close_quietly
from .copying import (
    Collector,
    Feeder,
    InputCopier,
    OutputCopier,
    WatchedReader,
    is_null_device,
    remaining,
    same_open_file,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath
    from typing_extensions import Self, Unpack

    CommandLine: TypeAlias = StrOrBytesPath | Sequence[StrOrBytesPath]
    _Env: TypeAlias = Mapping[str, StrOrBytesPath] | Mapping[bytes, StrOrBytesPath]
    File: TypeAlias = int | IO[Any] | None

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "Popen",
    "TimeoutExpired",
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "run",
]

#: The environment variable with the URL of the server to run commands at.
_URL_VARIABLE = "WSEP_URL"

_SHELL = "/bin/sh"

# As the streams of a process have it.
_READ_BUFFER = 1 << 16

# A terminal that nobody gave a size.
_ROWS, _COLS = 24, 80

# How long a command has to end by itself when Ctrl-C was pressed, as in subprocess.
_INTERRUPT_GRACE = 0.25


class Options(TypedDict, total=False):
    """What every call takes and what has no part in the type of its result."""

    preexec_fn: Callable[[], Any] | None
    close_fds: bool
    shell: bool
    cwd: StrOrBytesPath | None
    env: _Env | None
    startupinfo: Any
    creationflags: int
    restore_signals: bool
    start_new_session: bool
    pass_fds: Sequence[int]
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    pipesize: int
    process_group: int | None
    execer: Execer | None
    url: str | None
    tty: bool
    size: tuple[int, int] | None
    id: str
    clean_env: bool


class AnyOptions(Options, total=False):
    universal_newlines: bool | None
    text: bool | None
    encoding: str | None
    errors: str | None


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
    - ``umask`` and ``clean_env``, and for a remote command ``stderr=STDOUT`` or the same file for
      both outputs, let a POSIX shell start the command in its own place; ``clean_env`` also takes
      awk(1) and env(1). A program whose ``#!`` interpreter is missing is then the shell's status
      127 rather than ``FileNotFoundError``; and the variables ``IFS``, ``OPTIND``, ``PPID`` and
      ``PWD``, if they are given, are what the shell sets them to.
    - A remote command whose piped output is closed, with all copies of its descriptor, has it
      closed, too, a moment later. Where there is no ``close_output``, it gets SIGPIPE when it
      writes on, if signals can be sent; else what it writes is dropped.
    - The outputs of a remote command end with the command, at the soonest. :meth:`wait` returns
      when those that are inherited, or a file, have ended, too; from a server without ``ended``,
      when all have. When this process ends, so does a remote command.
    - What cannot be done raises ``ValueError``, which names the argument: ``preexec_fn``,
      ``close_fds=False``, ``startupinfo``, ``creationflags``, ``restore_signals=False``,
      ``pass_fds``, ``extra_groups``, ``pipesize``, ``process_group`` other than 0; ``executable``
      unless it is the shell or the program itself; a ``user`` or ``group`` by name, if remote.

    Threads may call ``wait``, ``poll`` and ``send_signal`` at any time; each stream, and
    ``communicate``, belongs to one thread at a time.

    Args:
        args: The program and its arguments, or one string: the program, or with ``shell=True``
            a shell's command line.
        bufsize: Of the piped streams: 0 unbuffered, 1 by lines if they are text, a number of
            bytes, or -1 for the default.
        executable: The shell to use instead of ``/bin/sh``.
        stdin, stdout, stderr: ``PIPE``, ``DEVNULL``, a descriptor, a file with one, or ``None``:
            ours. For stderr also ``STDOUT``.
        shell: Let a shell run ``args``.
        cwd: The directory to run in.
        env: Environment variables.
        user: The user to run as. This drops the supplementary groups. A server must be allowed
            to do it; 0 can be asked for only by a root for a command on this machine.
        group: The group to run as; as for ``user``.
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

    @overload
    def __init__(
        self: Popen[str],
        args: CommandLine,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        *,
        text: Literal[True],
        universal_newlines: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[Options],
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
        *,
        text: bool | None = None,
        universal_newlines: bool | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[Options],
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
        *,
        text: bool | None = None,
        universal_newlines: bool | None = None,
        encoding: str | None = None,
        errors: str,
        **options: Unpack[Options],
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
        *,
        text: bool | None = None,
        universal_newlines: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[Options],
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
        *,
        text: Literal[False] | None = None,
        universal_newlines: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **options: Unpack[Options],
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
        env: _Env | None = None,
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
    ) -> None:
        self._process: Process | None = None
        self.returncode = self.stdin = self.stdout = self.stderr = None
        # What communicate() is doing, once it has begun.
        self._feeder: Feeder | None = None
        self._collectors: tuple[Collector | None, Collector | None] | None = None
        # What is not piped.
        self._input: InputCopier | None = None
        self._outputs: list[OutputCopier] = []
        self._interrupt_grace: float = _INTERRUPT_GRACE
        self._forward_interrupt: bool = False
        self._lost: bool = False  # the exit status never came
        _refuse(
            preexec_fn=preexec_fn is not None,
            close_fds=not close_fds,
            startupinfo=startupinfo is not None,
            creationflags=creationflags != 0,
            restore_signals=not restore_signals,
            pass_fds=bool(pass_fds),
            extra_groups=extra_groups is not None,
            pipesize=pipesize != -1,
            process_group=process_group not in (None, 0),
        )
        if bufsize is None:
            bufsize = -1
        if not isinstance(bufsize, int):
            raise TypeError("bufsize must be an integer")
        if bufsize > sys.maxsize:
            raise OverflowError(f"bufsize is too large: {bufsize}")
        if text is not None and universal_newlines is not None and text != universal_newlines:
            raise subprocess.SubprocessError("text and universal_newlines contradict each other")
        if not tty and (size is not None or id):
            raise ValueError(f"{'id' if id else 'size'} is for a terminal: it needs tty=True")
        if execer is not None and url is not None:
            raise ValueError("execer and url exclude each other")
        if execer is None and url is None:
            url = os.environ.get(_URL_VARIABLE) or None
        self.args = args
        self._bufsize: int = bufsize
        self._text: bool = bool(text or universal_newlines or encoding or errors)
        self._encoding: str | None = encoding or (_locale_encoding() if self._text else None)
        self._errors: str | None = errors
        if self._encoding is not None:
            codecs.lookup(self._encoding)  # raises LookupError before anything runs
        if bufsize == 1 and not self._text and PIPE in (stdin, stdout, stderr):
            warnings.warn(
                "bufsize=1, buffering by lines, is for text; bytes are buffered as by default",
                RuntimeWarning,
                stacklevel=2,
            )
        program, *arguments = _command_line(args, shell, executable)
        directory = "" if cwd is None else os.fsdecode(cwd)
        if cwd is not None and not directory:  # which to a Command is that of the server
            raise start_error(errno.ENOENT, directory)
        local = url is None and (execer is None or isinstance(execer, LocalExecer))
        rows, cols = (size or (_ROWS, _COLS)) if tty else (0, 0)
        with contextlib.ExitStack() as undo:
            ours: dict[int, Handover] = {}  # the descriptors that are ours, by number
            undo.callback(_close_all, ours)
            source = _endpoint("stdin", stdin, 0, ours)
            output = _endpoint("stdout", stdout, 1, ours)
            merge = stderr == STDOUT
            error_output = DEVNULL if merge else _endpoint("stderr", stderr, 2, ours)
            # Two pipes would lose the order of what is written to one file.
            shared = output >= 0 and error_output >= 0 and same_open_file(output, error_output)
            # On a terminal they are one anyway; and where nothing is wanted, nothing is merged.
            merge = (merge or shared) and not tty and output != DEVNULL
            # Natively, unless a shell has to be there anyway.
            native = local and merge and umask < 0 and not clean_env
            outputs = {"stdout": output}
            if not merge:
                outputs["stderr"] = error_output
            command = (MergedCommand if native else Command)(
                program,
                tuple(arguments),
                id=id,
                tty=tty,
                rows=rows,
                cols=cols,
                stdin=source != DEVNULL,
                uid=_number("user", user, local),
                gid=_number("group", group, local),
                env=_environment(env),
                working_dir=directory,
                discard=tuple(name for name, target in outputs.items() if target == DEVNULL),
            )
            start = functools.partial(_start, execer, url)
            prelude = Prelude(merge and not native, umask, clean_env)
            # Nobody has asked for a shell that merges what goes to one file.
            apart = Prelude(False, umask, clean_env) if shared and prelude.merge else prelude
            if apart is not prelude and not prelude.can_wrap(command):
                prelude = apart
            try:
                process = prelude.start(command, start)
            except StartError as error:
                # A server that lets no shell through.
                if apart is prelude or not is_not_allowed(error):
                    raise
                prelude = apart
                process = prelude.start(command, start)
            merge = native or prelude.merge
            undo.pop_all()
        self._process = process
        self.pid = process.pid
        try:
            self.stdin = self._attach_input(source, process, ours)
            self.stdout = self._attach_output(output, process.stdout, tty, ours)
            if merge:
                close_quietly(process.stderr)  # it has nothing
            else:
                self.stderr = self._attach_output(error_output, process.stderr, tty, ours)
            if merge and error_output >= 0:
                ours[error_output].close()
        except BaseException:
            process.close()
            self._process = None  # it was never there
            _close_all(ours)
            raise

    def _attach_input(
        self, source: int, process: Process, ours: dict[int, Handover]
    ) -> IO[Any] | None:
        if source == DEVNULL:
            close_quietly(process.stdin)  # which a terminal is told
            return None
        if source != PIPE:
            self._input = InputCopier(ours[source], process)
            return None
        # A file of our own, as in _attach_output.
        raw = process.stdin.detach()
        size = self._bufsize if self._bufsize > 1 else io.DEFAULT_BUFFER_SIZE
        binary: Any = raw if self._bufsize == 0 else Writer(raw, size)
        if not self._text:
            return cast("IO[Any]", binary)
        return TextFile(
            binary,
            self._encoding,
            self._errors,
            line_buffering=self._bufsize == 1,
            write_through=True,
        )

    def _attach_output(
        self, target: int, file: io.BufferedReader, tty: bool, ours: dict[int, Handover]
    ) -> IO[Any] | None:
        if isinstance(file.raw, PipeReader):
            if target == DEVNULL:
                if not tty:
                    file.raw.discard()  # where it is no null device: to close it would tell
                file.close()
                return None
            if FEATURE_CLOSE_OUTPUT not in self.process.features:
                file.raw.when_unwanted(functools.partial(_break_pipe, self.process))
        if target != PIPE:
            # Where the end is told ahead of the output, that is not all there yet then.
            whole = FEATURE_ENDED in self.process.features
            descriptor = None if target == DEVNULL else ours[target]
            self._outputs.append(OutputCopier(file, descriptor, whole))
            return None
        # A file of our own: when its last user drops it, nobody reads any more, while a process
        # holds its own files for as long as it runs.
        raw = file.detach()
        if self._bufsize == 0 and not self._text:
            return cast("IO[Any]", raw)
        size = self._bufsize if self._bufsize > 1 else _READ_BUFFER
        if self._text:
            return TextFile(WatchedReader(raw, size), self._encoding, self._errors)
        return Reader(raw, size)

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
                call, and ``returncode`` stays ``None``.
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
        except ExitMissing:
            self._lost = True
            self._release_input()
            raise
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
            ExitMissing, OSError: As :meth:`wait`.
            ValueError: ``input`` after communication has begun.
        """
        if self._collectors is not None and input:
            raise ValueError("Cannot send input after starting communication")
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._collectors is None:
            self._begin(input)
        assert self._collectors is not None
        try:
            in_time = self._run_jobs(deadline) and self._wait(remaining(deadline))
        except KeyboardInterrupt:
            self._interrupted(deadline)
            raise
        if not in_time:
            assert timeout is not None
            output, errors = (c.so_far() if c else None for c in self._collectors)
            raise TimeoutExpired(self.args, timeout, output, errors)
        _raise_error(self._feeder, *self._collectors, self._input, *self._outputs)
        out, err = (c.result() if c else None for c in self._collectors)
        return out, err

    def _begin(self, input: AnyStr | None) -> None:
        if self.stdin is not None and not self.stdin.closed:
            data: Any = input
            if input is None:
                data = b""
            elif isinstance(self.stdin, io.TextIOWrapper):
                if not isinstance(input, str):
                    raise TypeError(f"input must be a str, not {type(input).__name__}")
                data = input.encode(self.stdin.encoding, self.stdin.errors or "strict")
            self._feeder = Feeder(self.stdin, memoryview(data).cast("B"))
        out, err = (
            Collector(file) if file is not None and not file.closed else None
            for file in (self.stdout, self.stderr)
        )
        self._collectors = out, err

    def _run_jobs(self, deadline: float | None) -> bool:
        """Run what is to be done, the last output in this thread; False if not in time."""
        assert self._collectors is not None
        out, err = self._collectors
        jobs = [job for job in (self._feeder, err, out) if job is not None]
        waiting = [job for job in jobs if job.thread is None and not job.done.is_set()]
        mine = None
        last = waiting[-1] if waiting else None
        if isinstance(last, Collector) and (deadline is None or last.timed()):
            mine = last
            waiting.pop()
        for job in waiting:
            job.start()
        if mine is not None:
            try:
                mine.run(deadline)
            except ExitMissing as error:
                if not ended(self.process, 0):
                    raise  # what a handler of a signal raises, as all other exceptions here
                mine.fail(error)
        for job in jobs:
            while not wait_a_while(job.done, remaining(deadline)):
                if remaining(deadline) == 0:
                    return False
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
            ValueError: No such signal.
            io.UnsupportedOperation: The server cannot send signals (the reference cannot).
        """
        if self.returncode is None and not self._lost and sig != 0:
            self.process.send_signal(operator.index(sig))

    def terminate(self) -> None:
        """Send SIGTERM; see :meth:`send_signal`."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; a server that cannot send signals is hung up on."""
        if self.returncode is None:
            self.process.kill()

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
        jobs = [
            job
            for job in (self._feeder, *(self._collectors or ()))
            if job is not None and job.thread is not None and not job.done.is_set()
        ]
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


def _refuse(**given: bool) -> None:
    for name, is_given in given.items():
        if is_given:
            raise ValueError(f"{name} cannot be done for a command at a distance")


def _locale_encoding() -> str:
    with importing:
        import locale  # takes its time

    # Named, because a TextIOWrapper without a name may ask for the file's descriptor.
    return locale.getpreferredencoding(False)


def _command_line(args: CommandLine, shell: bool, executable: StrOrBytesPath | None) -> list[str]:
    if isinstance(args, (str, bytes, os.PathLike)):
        line = [os.fsdecode(args)]
    else:
        line = [os.fsdecode(arg) for arg in args]
    if shell:
        return [os.fsdecode(executable or _SHELL), "-c", *line]
    if executable is not None and os.fsdecode(executable) != line[0]:
        raise ValueError(
            "executable cannot be done for a command at a distance, unless it is a shell: "
            "the name that a program sees as its own is that of its file"
        )
    if not line[0]:
        raise start_error(errno.ENOENT, line[0])
    return line


def _environment(env: _Env | None) -> tuple[str, ...]:
    entries = []
    for key, value in (env or {}).items():
        name = os.fsdecode(key)
        if not name or "=" in name:
            raise ValueError(f"env: illegal environment variable name {name!r}")
        entries.append(f"{name}={os.fsdecode(value)}")
    return tuple(entries)


def _number(name: str, who: str | int | None, local: bool) -> int:
    """Return a start message's uid or gid, where 0 stands for that of the server."""
    if who is None:
        return 0
    if isinstance(who, str):
        if not local:
            raise ValueError(f"{name}: {who!r} has a number that only its own machine knows")
        # Not on Windows.
        with importing:
            import grp
            import pwd

        who = pwd.getpwnam(who).pw_uid if name == "user" else grp.getgrnam(who).gr_gid
    elif not isinstance(who, int):
        raise TypeError(f"{name} must be a string or an integer, not {type(who).__name__}")
    if who < 0:
        raise ValueError(f"{name} cannot be negative, got {who}")
    if who == 0 and not (local and (os.geteuid() if name == "user" else os.getegid()) == 0):
        raise ValueError(f"{name}: 0 cannot be asked for, it stands for the server's own")
    return who


def _close_all(ours: dict[int, Handover]) -> None:
    for descriptor in ours.values():
        descriptor.close()


def _endpoint(name: str, file: File, inherited: int, ours: dict[int, Handover]) -> int:
    """Return ``PIPE``, ``DEVNULL``, or a descriptor of our own for where a stream goes.

    As for a child, the caller may close the file as soon as the command runs.

    Args:
        ours: Gets the descriptor.
    """
    if file in (PIPE, DEVNULL):
        return file
    if file == STDOUT:
        raise ValueError(f"{name}: STDOUT can only be used for stderr")
    if file is None:
        try:
            descriptor = os.dup(inherited)
        except OSError:
            return DEVNULL  # we have none ourselves
    else:
        descriptor = os.dup(file if isinstance(file, int) else file.fileno())
    if is_null_device(descriptor):
        os.close(descriptor)
        return DEVNULL
    ours[descriptor] = Handover(descriptor)
    return descriptor


def _start(execer: Execer | None, url: str | None, command: Command) -> Process:
    if execer is not None:
        return execer.start(command)
    if url is not None:
        with dial(url, session_id=command.id) as server:
            return server.start(command)
    return LocalExecer().start(command)


def _break_pipe(process: Process) -> None:
    """Do what a kernel does to a command that writes to a pipe without a reader."""
    with suppress_system(OSError, ValueError):  # no signals there: what it writes is dropped
        process.send_signal(signals.SIGPIPE)


@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    input: str | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: Literal[True],
    universal_newlines: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Unpack[Options],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    input: str | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool | None = None,
    universal_newlines: bool | None = None,
    encoding: str,
    errors: str | None = None,
    **options: Unpack[Options],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    input: str | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool | None = None,
    universal_newlines: bool | None = None,
    encoding: str | None = None,
    errors: str,
    **options: Unpack[Options],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    input: str | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool | None = None,
    universal_newlines: Literal[True],
    encoding: str | None = None,
    errors: str | None = None,
    **options: Unpack[Options],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    input: ReadableBuffer | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: Literal[False] | None = None,
    universal_newlines: Literal[False] | None = None,
    encoding: None = None,
    errors: None = None,
    **options: Unpack[Options],
) -> CompletedProcess[bytes]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    input: ReadableBuffer | str | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Unpack[AnyOptions],
) -> CompletedProcess[Any]: ...
def run(
    *popenargs: Any,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **kwargs: Any,
) -> Any:
    """Run a command to its end; see :func:`subprocess.run`, and :class:`Popen` for the arguments.

    Blocks until the command has ended. One that has not in time, or whose run is interrupted, is
    killed. A Ctrl-C is passed on to it a moment before.

    Args:
        input: What to write to its stdin.
        capture_output: Pipe stdout and stderr.
        timeout: Seconds it may take.
        check: Raise ``CalledProcessError`` unless it ends with status 0.

    Raises:
        TimeoutExpired: It took longer.
        CalledProcessError: It failed, and ``check`` is true.
        ExitMissing: The connection ended before the exit status came.
        OSError, ConnectError, ValueError: As :class:`Popen`.
    """
    if input is not None:
        if kwargs.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        kwargs["stdin"] = PIPE
    if capture_output:
        if kwargs.get("stdout") is not None or kwargs.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        kwargs["stdout"] = kwargs["stderr"] = PIPE
    with ending(*popenargs, **kwargs) as process:
        out, err = process.communicate(input, timeout)
    code = process.returncode
    assert code is not None
    if check and code:
        raise CalledProcessError(code, process.args, out, err)
    return CompletedProcess(process.args, code, out, err)


@contextlib.contextmanager
def ending(*popenargs: Any, **kwargs: Any) -> Iterator[Popen[Any]]:
    """A process that does not survive what is raised in the block."""
    with cast("Any", Popen)(*popenargs, **kwargs) as process:
        process._forward_interrupt = True
        try:
            yield process
        except BaseException:  # Ctrl-C, too
            process._abandon()
            raise


def call(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    timeout: float | None = None,
    **options: Unpack[AnyOptions],
) -> int:
    """Run a command to its end and return its exit status; as :func:`run` in all else."""
    with ending(args, bufsize, executable, stdin, stdout, stderr, **options) as process:
        return process.wait(timeout)


def check_call(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    *,
    timeout: float | None = None,
    **options: Unpack[AnyOptions],
) -> int:
    """Run a command to its end; as :func:`call`, but raise ``CalledProcessError`` if it fails."""
    code = call(args, bufsize, executable, stdin, stdout, stderr, timeout=timeout, **options)
    if code:
        raise CalledProcessError(code, args)
    return 0


@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    input: str | None = None,
    timeout: float | None = None,
    text: Literal[True],
    universal_newlines: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Unpack[Options],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    input: str | None = None,
    timeout: float | None = None,
    text: bool | None = None,
    universal_newlines: bool | None = None,
    encoding: str,
    errors: str | None = None,
    **options: Unpack[Options],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    input: str | None = None,
    timeout: float | None = None,
    text: bool | None = None,
    universal_newlines: bool | None = None,
    encoding: str | None = None,
    errors: str,
    **options: Unpack[Options],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    input: str | None = None,
    timeout: float | None = None,
    text: bool | None = None,
    universal_newlines: Literal[True],
    encoding: str | None = None,
    errors: str | None = None,
    **options: Unpack[Options],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    input: ReadableBuffer | None = None,
    timeout: float | None = None,
    text: Literal[False] | None = None,
    universal_newlines: Literal[False] | None = None,
    encoding: None = None,
    errors: None = None,
    **options: Unpack[Options],
) -> bytes: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    input: ReadableBuffer | str | None = None,
    timeout: float | None = None,
    **options: Unpack[AnyOptions],
) -> Any: ...
def check_output(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> Any:
    """Run a command to its end and return its output; as :func:`run` in all else.

    Raises:
        CalledProcessError: It failed; ``output`` is what it wrote.
    """
    for name in ("stdout", "check"):
        if name in kwargs:
            raise ValueError(f"{name} argument not allowed, it will be overridden.")
    if "input" in kwargs and kwargs["input"] is None:
        # No input is an empty one here, not ours; the type has to fit.
        is_text = any(map(kwargs.get, ("text", "universal_newlines", "encoding", "errors")))
        kwargs["input"] = "" if is_text else b""
    kwargs |= {"stdout": PIPE, "timeout": timeout, "check": True}
    return cast("Any", run)(*popenargs, **kwargs).stdout


def getstatusoutput(
    cmd: str | bytes,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    execer: Execer | None = None,
    url: str | None = None,
) -> tuple[int, str]:
    """Run a shell's command line; return its exit status and all its output, errors included.

    One newline at the end is taken off. Blocks and raises as :func:`run`.
    """
    result = run(
        cmd,
        shell=True,
        text=True,
        stdout=PIPE,
        stderr=STDOUT,
        encoding=encoding,
        errors=errors,
        execer=execer,
        url=url,
    )
    return result.returncode, result.stdout.removesuffix("\n")


def getoutput(
    cmd: str | bytes,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    execer: Execer | None = None,
    url: str | None = None,
) -> str:
    """Return what :func:`getstatusoutput` does, without the exit status."""
    return getstatusoutput(cmd, encoding=encoding, errors=errors, execer=execer, url=url)[1]
