"""pexpect's face: :class:`spawn` drives a command on a terminal, here or on another machine.

It is a ``pexpect.spawnbase.SpawnBase`` over the terminal process of any execer. What is expected,
and how patterns match, is pexpect's own code; reading, sending, signals, sizes and the end of the
command are a :class:`.Process`'s. (``pexpect.fdpexpect.fdspawn`` over the process's descriptors was
rejected: a lost connection would be an EOF to it, and a remote output has no descriptor without
one more copy of every byte.)
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import os
import signal as signals
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pexpect
from pexpect import EOF, TIMEOUT, ExceptionPexpect
from pexpect.spawnbase import SpawnBase

from ..dropped import Hold, later
from ..errors import ExitError, ExitMissing, OutputUnread, WsepError, suppress_system
from ..execers.prelude import Prelude
from ..process import Execer, Process, ended
from ..protocol.command import Command
from ..streams.files import close_quietly
from ..streams.wakeup import READ, wait_for
from .awaiting import Awaiting
from .interaction import Filter, Interaction
from .keyboard import Keyboard, Typing
from .starting import Place
from .terminal import Terminal

if TYPE_CHECKING:
    import ssl

__all__ = [
    "EOF",
    "TIMEOUT",
    "ExceptionPexpect",
    "spawn",
    "spawnu",
]

# How many seconds after its output a command may end and still have its status known at EOF. It
# closes its files before it becomes a zombie, so this is a moment for all but those few that
# close their terminal and live on.
_EXIT_GRACE = 1.0

# How much is read at once where nobody said how much.
_CHUNK = 1 << 16

# The commands of those that are there. So no cycle of garbage has a command in it: its descriptors
# would be closed before it is.
_spawned: set[Process] = set()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_spawned.clear)  # they are the parent's


class spawn(Typing, Terminal, SpawnBase):  # type: ignore[misc] # pexpect has no types
    """A command on a terminal, and pexpect's methods to drive it.

    As in pexpect, an object is for one thread at a time; :meth:`close` may come from another, and
    what blocks there sees the end of the output. Used as a context manager, it is closed at the
    end of the block.

    Args:
        command: The program; without ``args``, a command line that is split as pexpect does
            (quotes and backslashes, but no shell). ``None`` leaves it to a subclass to start one
            later, by ``_spawn(command, args)``, as ``pexpect.pxssh`` does.
        args: The program's arguments.
        timeout: Seconds that expecting may take, by default; ``None``: for ever.
        maxread: How many bytes are read at once. Raise it to 65536 for large outputs; but as in
            pexpect, what one read brings beyond ``searchwindowsize`` is not searched.
        searchwindowsize: How many characters at the end are searched; ``None``: all.
        logfile: A file for what is read and sent; ``logfile_read`` and ``logfile_send`` can be
            set for either alone. Bytes are written to it, or ``str`` if there is an ``encoding``.
        cwd: Directory to run in.
        env: Environment variables that are *added* to those of the machine the command runs on,
            where pexpect would replace them.
        echo: False turns the terminal's echo off before the command starts. A shell does this in
            the command's place, so ``sh`` and ``stty`` have to be where the command runs.
        encoding: ``None`` for bytes, or what the terminal speaks: ``"utf-8"``.
        codec_errors: What to do with bytes that are not in the encoding; see :mod:`codecs`.
        dimensions: Rows and columns of the terminal; ``None`` is (24, 80).
        execer: What runs the command.
        url: Or the server that does, ``ws://HOST:PORT``, or the SSH host, ``ssh://USER@HOST``; by
            default ``$WSEP_URL``, and without one this machine.
        id: The name under which the terminal session can be attached again.
        token, headers, ssl_context: For connecting to ``url``; as for :func:`.connect`.
        ignore_sighup: True lets the command ignore SIGHUP; by a shell, as for ``echo``.
        preexec_fn: Cannot be had at a distance.
        use_poll: Makes no difference: poll(2) is always used.

    Attributes:
        process: The :class:`.Process` underneath.
        pid: The command's process id, on the machine where it runs.
        exitstatus: The exit status once the command has ended and this has been noticed (at EOF,
            by ``isalive``, ``wait``, ``terminate`` or ``close``); ``None`` until then, and if a
            signal ended it.
        signalstatus: The number of that signal.
        status: Both, as waitpid(2) gives them.
        before, after, match, match_index, buffer: As in pexpect.
        delaybeforesend: Seconds to sleep before sending, 0.05 as in pexpect: many a program asks
            for a password first and turns the echo off afterwards, and would show one that is
            sent at once. ``None`` is no pause, for who sends no such thing.
        delayafterclose, delayafterterminate: Seconds that a signal has to end the command before
            the next one is sent: an upper bound, not a pause.

    A command that cannot be started raises what Popen does, ``FileNotFoundError`` for instance,
    where pexpect raises ``ExceptionPexpect``. A lost connection raises
    :exc:`~.errors.ExitMissing` from expecting and reading (with what had arrived in ``before``),
    ``isalive``, ``wait`` and ``terminate``: it is never an EOF, though EOF be expected.

    Raises:
        ConnectError: No connection to the server could be made.
        StartError: The command could not be started; also the matching ``OSError``.
        TypeError, ValueError: An argument is of no use.
    """

    match: Any  # of the pattern, or EOF or TIMEOUT

    def __init__(
        self,
        command: str | None,
        args: Sequence[str] | None = (),
        timeout: float | None = 30,
        maxread: int = 2000,
        searchwindowsize: int | None = None,
        logfile: Any = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        ignore_sighup: bool = False,
        echo: bool = True,
        preexec_fn: None = None,
        encoding: str | None = None,
        codec_errors: str = "strict",
        dimensions: tuple[int, int] | None = None,
        use_poll: bool = False,  # noqa: ARG002 - always
        *,
        execer: Execer | None = None,
        url: str | None = None,
        id: str = "",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            timeout=timeout,
            maxread=maxread,
            searchwindowsize=searchwindowsize,
            logfile=logfile,
            encoding=encoding,
            codec_errors=codec_errors,
        )
        if id and not echo:
            raise ValueError("a session that is attached by its id has the echo it has")
        self.pid: int | None = None
        self._place = Place(execer, url or None, token, headers, ssl_context)
        self._id = id
        # A remote terminal's lines end in this, whatever those of this machine end in.
        self.linesep = b"\n" if encoding is None else "\n"
        self.delayafterclose = self.delayafterterminate = 0.5
        self.STDIN_FILENO, self.STDOUT_FILENO, self.STDERR_FILENO = 0, 1, 2
        self.str_last_chars = 100
        self.command: str | None = None
        self.args: list[str] | None = None
        self.cwd = cwd
        self.env = env
        self.ignore_sighup = ignore_sighup
        self.echo = echo
        self.name = "<no command yet>"
        self._awaiting = Awaiting()
        # Held by who reads, so that close() in another thread does not take the files away under
        # its hands. Nobody waits for it; a signal handler may read or close where its thread reads.
        self._reading = threading.RLock()
        if command is not None:
            self._spawn(command, args or (), preexec_fn, dimensions)

    def _spawn(
        self,
        command: str,
        args: Sequence[str] = (),
        preexec_fn: None = None,
        dimensions: tuple[int, int] | None = None,
    ) -> None:
        """Start the command: the part of ``__init__`` that subclasses of pexpect's call later."""
        if self.pid is not None:
            raise ExceptionPexpect("it has had its command: one spawn is for one")
        if preexec_fn is not None:
            raise ValueError("preexec_fn does not work at a distance")
        rows, cols = dimensions or (24, 80)
        if not (rows and cols):
            raise ValueError("a terminal of 0 rows or 0 columns cannot be asked for")
        argv = _command_line(command, args)
        started = Command(
            argv[0],
            tuple(argv[1:]),
            id=self._id,
            tty=True,
            stdin=True,
            rows=rows,
            cols=cols,
            env=_environment(self.env),
            working_dir=os.fspath(self.cwd) if self.cwd is not None else "",
        )
        prelude = Prelude(echo=self.echo, ignore_hangup=self.ignore_sighup)
        self._hold = Hold()
        try:
            # From then on, without echo, nothing is echoed, however soon it is sent.
            self.process = self._place.start(
                lambda execer: prelude.start(started, execer.start), started.id
            )
        except BaseException:
            self._hold.release()
            raise
        self.command = argv[0]
        self.args = argv
        self.name = f"<{' '.join(argv)}>"
        self._size = (rows, cols)
        self._keyboard = Keyboard(self.process)
        self.pid = self.process.pid
        self.terminated = False
        self.closed = False
        _spawned.add(self.process)

    def __del__(self) -> None:
        process = getattr(self, "process", None)
        if process in _spawned:
            if not (self.closed or self.terminated):
                warnings.warn(
                    f"{self.name} was not closed", ResourceWarning, stacklevel=2, source=self
                )
                later(process.close)
            self._forget()

    def _forget(self) -> None:
        """The finalizer has nothing to do any more."""
        _spawned.discard(self.process)
        self._hold.release()

    def __enter__(self) -> spawn:
        return self

    def __str__(self) -> str:
        names = "command", "args", "after", "match", "match_index", "exitstatus", "signalstatus"
        last = self.str_last_chars
        return "\n".join(
            [
                repr(self),
                f"buffer (last {last} characters): {self.buffer[-last:]!r}",
                f"before (last {last} characters): {self.before[-last:] if self.before else ''!r}",
                *(f"{name}: {getattr(self, name)!r}" for name in names),
                *(f"{name}: {getattr(self, name)}" for name in ("pid", "flag_eof", "closed")),
                f"timeout: {self.timeout}",
            ]
        )

    # Reading

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> Any:
        """Return what there is of the output, at most ``size`` bytes, decoded.

        Args:
            timeout: Seconds to wait for some; -1 is ``self.timeout``, ``None`` is for ever.

        Raises:
            pexpect.TIMEOUT: There was none in time.
            pexpect.EOF: The output has ended. The exit status is set, unless the command has
                closed its terminal and still runs a second later.
            ExitMissing: The connection ended before the exit status came.
            ValueError: It is closed.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        data = self._receive(size, self.timeout if timeout == -1 else timeout)
        if data is None:
            raise TIMEOUT("Timeout exceeded.")
        if not data:
            self._reap(_EXIT_GRACE)
            self.flag_eof = True
            raise EOF("End Of File (EOF).")
        return self._decode(data)

    def _receive(self, size: int, timeout: float | None) -> bytes | None:
        """Return some bytes of output, none at its end, and ``None`` if the timeout passed."""
        raw: Any = self.process.stdout.raw
        if timeout is not None:
            timeout = max(0.0, timeout)
        # The files of an execer from elsewhere may have a descriptor instead.
        ready = getattr(raw, "ready", None) or (
            lambda seconds: wait_for(raw.fileno(), READ, None, seconds)
        )

        def read(seconds: float | None) -> bytes | None:
            with self._reading:
                # Who is not awaited any more by now leaves it to who expects next.
                there = ready(seconds) and not self._awaiting.left
                data: bytes | None = raw.read(size) if there else None
                return data

        try:
            return self._awaiting.wait(read, timeout)
        finally:
            if self.closed:
                self._close_files()

    def _decode(self, data: bytes) -> Any:
        text = self._decoder.decode(data, final=False)
        self._log(text, "read")
        return text

    def _keep_output(self, timeout: float) -> bool:
        """Read once into the buffer of what is still to be expected; False when all is read."""
        try:
            data = self._receive(_CHUNK, timeout)
        except ExitMissing:
            if not ended(self.process, 0):
                raise  # as all other exceptions, it is one of a signal's handler
            return False  # expecting will say what it is
        except ValueError:
            if not (self.closed or self.process.stdout.closed):
                raise
            return False
        if data:
            text = self._decode(data)
            self._before.write(text)
            self._buffer.write(text)
        return data != b""

    def expect_list(self, pattern_list: Any, *args: Any, async_: bool = False, **kw: Any) -> Any:
        """As in pexpect; with ``async_=True``, what it returns is to be awaited."""
        return self._expect(super().expect_list, pattern_list, *args, async_=async_, **kw)

    def expect_exact(self, pattern_list: Any, *args: Any, async_: bool = False, **kw: Any) -> Any:
        """As in pexpect; with ``async_=True``, what it returns is to be awaited."""
        return self._expect(super().expect_exact, pattern_list, *args, async_=async_, **kw)

    def _expect(
        self, expect: Callable[..., Any], patterns: Any, *args: Any, async_: bool, **kw: Any
    ) -> Any:
        # The third of pexpect's positional arguments, and the older name of the keyword.
        *args_before, later = args if len(args) > 2 else (*args, False)
        if async_ or later or kw.pop("async", False):
            return self._awaiting.run(functools.partial(expect, patterns, *args_before, **kw))
        return expect(patterns, *args_before, **kw)

    def eof(self) -> bool:
        """Return whether the end of the output has been read."""
        return bool(self.flag_eof)

    def fileno(self) -> int:
        """Raise ``io.UnsupportedOperation``: a remote terminal has no descriptor here."""
        raise io.UnsupportedOperation("a remote terminal has no descriptor on this machine")

    def isatty(self) -> bool:
        """Return True until it is closed: there is always a terminal."""
        return not self.closed

    # A person

    def interact(
        self,
        escape_character: str | None = chr(29),
        input_filter: Filter | None = None,
        output_filter: Filter | None = None,
    ) -> None:
        """Let the person at this terminal type at the command, and see what it shows.

        Ends when the escape character is typed, when the command's output ends, or when the
        input does. The terminal (descriptors 0 and 1; ``STDIN_FILENO`` and ``STDOUT_FILENO``) is
        raw meanwhile and what it was afterwards, whatever happens. As in pexpect, a change of its
        size is not passed on: call :meth:`setwinsize` in a SIGWINCH handler.

        Args:
            escape_character: What ends it, Ctrl-] by default; ``None``: nothing.
            input_filter: Called with the bytes typed; returns what is sent, and searched for the
                escape character.
            output_filter: Called with the bytes to be shown; returns what is shown.

        Raises:
            termios.error: The input is not a terminal.
            ExitMissing: The connection ended before the exit status came.
        """
        interaction = Interaction(
            self.process,
            keyboard=self.STDIN_FILENO,
            screen=self.STDOUT_FILENO,
            receive=self._receive,
            log=self._log,
            new_decoder=self._log_decoder,
        )
        # Where a character of the output is split, reading goes on with it, before and after.
        decoder = self._log_decoder()
        if self.encoding is not None:
            decoder.setstate(self._decoder.getstate())
        try:
            interaction.run(
                self._take_buffer, decoder, escape_character, input_filter, output_filter
            )
        finally:
            if self.encoding is not None:
                self._decoder.setstate(decoder.getstate())

    def _take_buffer(self) -> bytes:
        """Return, and forget, what has been read and not been matched."""
        data = self.buffer
        self._buffer = self.buffer_type()
        self._before = self.buffer_type()
        if self.encoding is None:
            return bytes(data)
        partial: bytes = self._decoder.getstate()[0]
        return bytes(data.encode(self.encoding, self.codec_errors)) + partial

    def _log_decoder(self) -> Any:
        """Return what makes bytes into what is logged, one piece after the other."""
        if self.encoding is None:
            return self._decoder  # which leaves them as they are
        return codecs.getincrementaldecoder(self.encoding)("replace")

    # The end

    def _reap(self, timeout: float | None) -> bool:
        """Wait for the command's end and set its status; False if the timeout passed."""
        if self.terminated:
            return True
        if not ended(self.process, timeout):
            return False
        code, signal = 0, None
        try:
            self.process.wait(0)
        except ExitError as error:
            code, signal = error.exit_code, error.signal
        # wait(2) keeps eight bits of it, by which 256 would be a success.
        self.status = (code if 0 <= code < 256 else 255) << 8 if signal is None else signal
        self.exitstatus = code if signal is None else None
        self.signalstatus = signal
        self.terminated = True
        self._forget()
        return True

    def isalive(self) -> bool:
        """Return whether the command runs; if not, its status is set. Does not block.

        A remote command is alive until its output has arrived, which may have to be read first.

        Raises:
            ExitMissing: The connection ended before the exit status came.
        """
        return not self._reap(0)

    def wait(self) -> int | None:
        """Block until the command has ended; return its exit status, ``None`` after a signal.

        As in pexpect, nothing is read: a command that has more to say waits for ever.

        Raises:
            ExitMissing: The connection ended before the exit status came.
            OutputUnread: The wait would never end: nothing has ever been read, and the output of
                a remote command is full.
        """
        self._reap(None)
        return self.exitstatus

    def kill(self, sig: int) -> None:
        """Send a signal to the command's process group; do nothing if it has ended.

        Raises:
            ValueError: No such signal.
            io.UnsupportedOperation: The server has no way to do it (the reference has none).
            ExitMissing: The connection ended before the exit status came.
        """
        if self.isalive():
            self.process.send_signal(sig)

    def terminate(self, force: bool = False) -> bool:
        """End the command: SIGHUP, SIGCONT, SIGINT, each if the one before it has not.

        What it still puts out is kept for ``expect``.

        Args:
            force: And then SIGKILL.

        Returns:
            Whether it has ended.

        Raises:
            As :meth:`kill`.
        """
        names = ["SIGHUP", "SIGCONT", "SIGINT", *(["SIGKILL"] if force else [])]
        for name in names:
            self.kill(_number(name))
            if self._drain(self.delayafterterminate):
                return True
        return False

    def _drain(self, timeout: float) -> bool:
        """Keep what comes until the command has ended; False if it has not in time."""
        deadline = time.monotonic() + timeout
        rest = timeout
        while rest > 0 and not self.terminated and self._keep_output(rest):
            rest = deadline - time.monotonic()
        return self._reap(max(0.0, deadline - time.monotonic()))

    def close(self, force: bool = True) -> None:
        """End the command with SIGHUP, and with SIGTERM and SIGKILL if it does not end.

        Then release everything. What the command still puts out is dropped. The exit status is
        set, and stays ``None`` if it never came: the reference's server has no signals and is
        hung up on. Blocks 3 seconds, and a little more where a connection has to be closed, at
        most. Calling it again is harmless.

        Args:
            force: False ends it as :meth:`terminate` does, and leaves it open if that fails.

        Raises:
            pexpect.ExceptionPexpect: ``force`` is False, and the command has not ended.
        """
        if self.closed:
            return
        if force:
            # A connection that is lost or knows no signals; a command that is not ours any more.
            with suppress_system(OSError, WsepError, ValueError):
                self.kill(_number("SIGHUP"))
                self.kill(_number("SIGCONT"))
            with contextlib.suppress(OutputUnread):
                ended(self.process, self.delayafterclose)
        elif not self.terminate():
            raise ExceptionPexpect("Could not terminate the child.")
        self.process.close()
        self._keyboard.released(1.0)
        with contextlib.suppress(WsepError):
            self._reap(0)
        self.closed = True
        self._forget()
        self._close_files()

    def _close_files(self) -> None:
        if self._reading.acquire(blocking=False):  # else who reads does it, having seen the end
            try:
                close_quietly(self.process.stdout)
                close_quietly(self.process.stderr)
            finally:
                self._reading.release()


class spawnu(spawn):
    """A :class:`spawn` of text, in UTF-8 unless something else is said: pexpect's older name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("encoding", "utf-8")
        super().__init__(*args, **kwargs)


def _command_line(command: object, args: Sequence[str]) -> list[str]:
    if not isinstance(command, str):
        raise ExceptionPexpect(
            f"the command is no string, but {command!r}; if that is a descriptor, "
            "maybe you want to use fdpexpect.fdspawn of pexpect"
        )
    if isinstance(args, (str, bytes)):
        raise TypeError("args must be a list of strings")
    argv = [command, *args] if args else pexpect.split_command_line(command)
    if not argv:
        raise ValueError("no command")
    return argv


def _environment(env: Mapping[str, str] | None) -> tuple[str, ...]:
    for name in env or ():
        if not name or "=" in name:
            raise ValueError(f"{name!r} is not the name of an environment variable")
    return tuple(f"{name}={value}" for name, value in (env or {}).items())


def _number(name: str) -> int:
    """Return a signal's number; Windows, whose commands run elsewhere, does not know them all."""
    return int(getattr(signals, name, {"SIGHUP": 1, "SIGKILL": 9, "SIGCONT": 18}.get(name, 2)))
