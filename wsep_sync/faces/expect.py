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
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pexpect
from pexpect.spawnbase import SpawnBase

from ..dropped import Hold, later
from ..errors import ExitError, ExitMissing, OutputUnread, WsepError, suppress_system
from ..execers.dial import dial
from ..execers.local.execer import LocalExecer
from ..execers.prelude import Prelude
from ..lazy import importing
from ..process import Execer, Process, ended
from ..protocol.command import Command
from ..streams.bounded_pipe import wait_a_while
from ..streams.descriptors import DescriptorWriter
from ..streams.files import close_quietly
from ..streams.wakeup import READ, Wakeup, wait_for
from ..threads import start_thread

__all__ = [
    "spawn",
]

Text: TypeAlias = "str | bytes"
Filter: TypeAlias = "Callable[[bytes], bytes]"

# How many seconds after its output a command may end and still have its status known at EOF. It
# closes its files before it becomes a zombie, so this is a moment for all but those few that
# close their terminal and live on.
_EXIT_GRACE = 1.0

# How much is read at once where nobody said how much.
_CHUNK = 1 << 16

# The characters that a new terminal has for them (POSIX leaves it open; every system has these).
_INTERRUPT = b"\x03"
_END_OF_FILE = b"\x04"

# The commands of those that are there. So no cycle of garbage has a command in it: its descriptors
# would be closed before it is.
_spawned: set[Process] = set()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_spawned.clear)  # they are the parent's


class spawn(SpawnBase):  # type: ignore[misc] # pexpect has no types
    """A command on a terminal, and pexpect's methods to drive it.

    As in pexpect, an object is for one thread at a time; :meth:`close` may come from another, and
    what blocks there sees the end of the output. Used as a context manager, it is closed at the
    end of the block.

    Args:
        command: The program; without ``args``, a command line that is split as pexpect does
            (quotes and backslashes, but no shell).
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
        ignore_sighup, preexec_fn: Cannot be had at a distance.
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
        delaybeforesend: Seconds to sleep before sending. ``None`` here: a password that is sent
            the moment its prompt appears may be echoed, if the program prompts first and turns
            the echo off afterwards; then set it.
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

    def __init__(
        self,
        command: str,
        args: Sequence[str] = (),
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
    ) -> None:
        super().__init__(
            timeout=timeout,
            maxread=maxread,
            searchwindowsize=searchwindowsize,
            logfile=logfile,
            encoding=encoding,
            codec_errors=codec_errors,
        )
        if ignore_sighup:
            raise ValueError("ignore_sighup does not work at a distance")
        if preexec_fn is not None:
            raise ValueError("preexec_fn does not work at a distance")
        if id and not echo:
            raise ValueError("a session that is attached by its id has the echo it has")
        if isinstance(args, (str, bytes)):
            raise TypeError("args must be a list of strings")
        rows, cols = dimensions or (24, 80)
        if not (rows and cols):
            raise ValueError("a terminal of 0 rows or 0 columns cannot be asked for")
        argv = [command, *args] if args else pexpect.split_command_line(command)
        if not argv:
            raise ValueError("no command")
        # A remote terminal's lines end in this, whatever those of this machine end in.
        self.linesep = b"\n" if encoding is None else "\n"
        self.delaybeforesend: float | None = None
        self.delayafterclose = self.delayafterterminate = 0.5
        self.STDIN_FILENO, self.STDOUT_FILENO, self.STDERR_FILENO = 0, 1, 2
        self.str_last_chars = 100
        self.command = argv[0]
        self.args = argv
        self.cwd = cwd
        self.env = env
        self.echo = echo
        self.name = f"<{' '.join(argv)}>"
        self._size = (rows, cols)
        # Set once all that was sent is written. (Not Thread.join, after which a thread that a
        # Ctrl-C ran past counts as ended in Python 3.10 to 3.12, though it runs.)
        self._written = threading.Event()
        self._written.set()
        # Held by who reads, so that close() in another thread does not take the files away under
        # its hands. Nobody waits for it; a signal handler may read or close where its thread reads.
        self._reading = threading.RLock()
        started = Command(
            argv[0],
            tuple(argv[1:]),
            id=id,
            tty=True,
            stdin=True,
            rows=rows,
            cols=cols,
            env=_environment(env),
            working_dir=os.fspath(cwd) if cwd is not None else "",
        )
        self._hold = Hold()
        try:
            # From then on, without echo, nothing is echoed, however soon it is sent.
            self.process = Prelude(echo=echo).start(
                started, functools.partial(_start, execer=execer, url=url)
            )
        except BaseException:
            self._hold.release()
            raise
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
            raise pexpect.TIMEOUT("Timeout exceeded.")
        if not data:
            self._reap(_EXIT_GRACE)
            self.flag_eof = True
            raise pexpect.EOF("End Of File (EOF).")
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
        try:
            with self._reading:
                data: bytes | None = raw.read(size) if ready(timeout) else None
                return data
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
        _refuse_async(async_, kw, args)
        return super().expect_list(pattern_list, *args, **kw)

    def expect_exact(self, pattern_list: Any, *args: Any, async_: bool = False, **kw: Any) -> Any:
        _refuse_async(async_, kw, args)
        return super().expect_exact(pattern_list, *args, **kw)

    def eof(self) -> bool:
        """Return whether the end of the output has been read."""
        return bool(self.flag_eof)

    def fileno(self) -> int:
        """Raise ``io.UnsupportedOperation``: a remote terminal has no descriptor here."""
        raise io.UnsupportedOperation("a remote terminal has no descriptor on this machine")

    def isatty(self) -> bool:
        """Return True until it is closed: there is always a terminal."""
        return not self.closed

    # Sending

    def send(self, s: Text) -> int:
        """Type a string, all of it, and return how many bytes that were.

        Blocks while the command does not read. What it puts out meanwhile is read and kept for
        ``expect``, so that a command that answers before it reads on is not stuck. Ctrl-C ends
        the waiting; the rest is then typed while the script goes on.

        A terminal in its ordinary (canonical) mode takes lines of 4095 bytes at most on Linux,
        and drops what is longer.

        Raises:
            BrokenPipeError: The command has ended, or the connection.
            ValueError: It is closed.
        """
        if self.delaybeforesend is not None:
            time.sleep(self.delaybeforesend)
        s = self._coerce_send_string(s)
        self._log(s, "send")
        return self._write(self._encoder.encode(s, final=False))

    def _write(self, data: bytes) -> int:
        self._wait_until_written()  # what an interrupted send left
        self._written = written = threading.Event()
        raw = self.process.stdin.raw
        failures: list[Exception] = []

        def write() -> None:
            try:
                _write_all(raw.write, data)
            except (OSError, ValueError) as error:
                failures.append(error)
            written.set()

        def died(error: Exception) -> None:
            failures.append(error)
            written.set()

        # Blocks where the command does not read, while this thread reads what it puts out. It
        # ends when all is written, or when the command ends or is closed. A daemon, so that a
        # script that was interrupted can end.
        try:
            start_thread(write, name=f"wsep-send-{self.pid}", died=died)
        except RuntimeError:  # there are too many
            written.set()
            raise
        self._wait_until_written()
        if failures:
            raise failures.pop()
        return len(data)

    def _wait_until_written(self) -> None:
        written = self._written
        reading = not written.wait(0.01)  # nearly always long enough: then nothing is read
        while not written.is_set():
            if reading:
                reading = self._keep_output(0.01)
            else:
                wait_a_while(written)

    def sendline(self, s: Text = "") -> int:
        """Type a string and a newline; return how many bytes were sent."""
        return self.send(self._coerce_send_string(s) + self.linesep)

    def write(self, s: Text) -> None:
        """Type a string, as :meth:`send`."""
        self.send(s)

    def writelines(self, sequence: Iterable[Text]) -> None:
        """Type the strings one after the other, with nothing in between."""
        for s in sequence:
            self.write(s)

    def sendcontrol(self, char: str) -> int:
        """Type a control character: ``"c"`` for Ctrl-C, ``"["`` for Escape, ``"?"`` for Delete.

        Raises:
            ValueError: There is no such control character.
        """
        code = ord(char)
        # ECMA-48 and ECMA-6: the columns of letters, folded onto the column of controls.
        if not (0x40 <= code < 0x7F or char == "?"):
            raise ValueError(f"there is no Ctrl-{char}")
        return self._send_control(bytes([0x7F if char == "?" else code & 0x1F]))

    def sendintr(self) -> None:
        """Type the interrupt character, Ctrl-C."""
        self._send_control(_INTERRUPT)

    def sendeof(self) -> None:
        """Type the end-of-file character, Ctrl-D: the end of the input, at the start of a line."""
        self._send_control(_END_OF_FILE)

    def _send_control(self, character: bytes) -> int:
        self._log(character if self.encoding is None else character.decode("ascii"), "send")
        return self._write(character)

    # The terminal

    def setwinsize(self, rows: int, cols: int) -> None:
        """Give the terminal a new size, of which SIGWINCH tells the command."""
        self.process.resize(rows, cols)
        self._size = (rows, cols)

    def getwinsize(self) -> tuple[int, int]:
        """Return the size that the terminal was given last, as (rows, columns)."""
        return self._size

    def getecho(self) -> bool:
        """Return whether the terminal of a local command echoes.

        Raises:
            io.UnsupportedOperation: The terminal is on another machine.
        """
        with importing:
            import termios  # not on Windows

        return bool(termios.tcgetattr(self._terminal())[3] & termios.ECHO)

    def setecho(self, state: bool) -> None:
        """Turn the echo of a local command's terminal on or off.

        Raises:
            io.UnsupportedOperation: The terminal is on another machine: ``echo=False`` turns it
                off from the start, and the command ``stty`` at any time.
        """
        with importing:
            import termios

        terminal = self._terminal()
        attributes = termios.tcgetattr(terminal)
        if state:
            attributes[3] |= termios.ECHO
        else:
            attributes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        self.echo = state

    def waitnoecho(self, timeout: float | None = -1) -> bool:
        """Wait until a local command has turned the echo off, as for a password.

        Args:
            timeout: Seconds; -1 is ``self.timeout``, ``None`` is for ever.

        Returns:
            False if it has not in time.

        Raises:
            io.UnsupportedOperation: The terminal is on another machine.
        """
        if timeout == -1:
            timeout = self.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.getecho():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.02)  # nobody tells
        return True

    def _terminal(self) -> int:
        raw = self.process.stdin.raw
        if isinstance(raw, DescriptorWriter):
            return raw.fileno()
        raise io.UnsupportedOperation(
            "the echo of a terminal on another machine can be neither seen nor set; "
            "spawn(..., echo=False) turns it off from the start"
        )

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
        with importing:
            import termios
            import tty

        mode = termios.tcgetattr(self.STDIN_FILENO)
        sys.stdout.flush()
        self._show(self._take_buffer())
        try:
            tty.setraw(self.STDIN_FILENO)
            self._interact(escape_character, input_filter, output_filter)
        finally:
            with contextlib.suppress(termios.error):  # it was hung up
                termios.tcsetattr(self.STDIN_FILENO, termios.TCSAFLUSH, mode)

    def _take_buffer(self) -> bytes:
        """Return, and forget, what has been read and not been matched."""
        data = self.buffer
        self._buffer = self.buffer_type()
        self._before = self.buffer_type()
        if self.encoding is None:
            return bytes(data)
        partial: bytes = self._decoder.getstate()[0]
        return bytes(data.encode(self.encoding, self.codec_errors)) + partial

    def _show(self, data: bytes) -> None:
        _write_all(lambda piece: os.write(self.STDOUT_FILENO, piece), data)

    def _interact(
        self,
        escape_character: str | None,
        input_filter: Filter | None,
        output_filter: Filter | None,
    ) -> None:
        ended = Wakeup()  # set when the output has
        left = threading.Event()  # set when the person has
        failures: list[BaseException] = []

        # Where a character of the output is split, reading goes on with it, before and after.
        received, filtered = self._log_decoder(), self._log_decoder()
        if self.encoding is not None:
            received.setstate(self._decoder.getstate())

        def show_output() -> None:
            try:
                while not left.is_set():
                    data = self._receive(_CHUNK, 0.1)
                    if data is None:
                        continue
                    if not data:
                        return
                    text = received.decode(data)
                    if output_filter is not None:
                        data = output_filter(data)
                        text = filtered.decode(data)
                    self._log(text, "read")
                    self._show(data)
            except BaseException as error:
                failures.append(error)
            finally:
                ended.set()

        def died(error: Exception) -> None:
            failures.append(error)
            ended.set()

        # Shows the output while this thread waits for the keyboard, so that a command that does
        # not read cannot keep what it shows from being seen. This thread ends it, below.
        output = start_thread(show_output, name=f"wsep-show-{self.pid}", died=died)
        try:
            self._send_keys(escape_character, input_filter, ended)
        finally:
            left.set()
            output.join()
            if self.encoding is not None:
                self._decoder.setstate(received.getstate())
        if failures:
            raise failures.pop()

    def _send_keys(
        self, escape_character: str | None, input_filter: Filter | None, ended: Wakeup
    ) -> None:
        decoder = self._log_decoder()
        escape = None if escape_character is None else escape_character.encode("latin-1")
        write = self.process.stdin.raw.write
        escaped = False
        while not escaped and wait_for(self.STDIN_FILENO, READ, ended):
            data = os.read(self.STDIN_FILENO, _CHUNK)
            if not data:
                return
            if input_filter is not None:
                data = input_filter(data)
            if escape is not None:
                data, found, _ = data.partition(escape)
                escaped = bool(found)
            self._log(decoder.decode(data), "send")
            try:
                _write_all(write, data)
            except BrokenPipeError:  # the command has ended: the last of its output is on its way
                wait_for(ended.fileno(), READ, None)
                return

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
            raise pexpect.ExceptionPexpect("Could not terminate the child.")
        self.process.close()
        self._written.wait(1.0)
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


def _start(command: Command, execer: Execer | None, url: str | None) -> Process:
    if execer is not None:
        if url is not None:
            raise ValueError("execer and url cannot both be given")
        return execer.start(command)
    url = url or os.environ.get("WSEP_URL")
    if not url:
        return LocalExecer().start(command)
    with dial(url, session_id=command.id) as remote:
        return remote.start(command)


def _environment(env: Mapping[str, str] | None) -> tuple[str, ...]:
    for name in env or ():
        if not name or "=" in name:
            raise ValueError(f"{name!r} is not the name of an environment variable")
    return tuple(f"{name}={value}" for name, value in (env or {}).items())


def _number(name: str) -> int:
    """Return a signal's number; Windows, whose commands run elsewhere, does not know them all."""
    return int(getattr(signals, name, {"SIGHUP": 1, "SIGKILL": 9, "SIGCONT": 18}.get(name, 2)))


def _write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) or 0 :]


def _refuse_async(async_: bool, kw: dict[str, Any], args: tuple[Any, ...]) -> None:
    # The third of pexpect's positional arguments, and the older name of the keyword.
    if async_ or kw.pop("async", False) or any(args[2:]):
        raise io.UnsupportedOperation("there are no coroutines here: expect in a thread instead")
