"""The command line: ``wsep-sync serve``, ``notty``, ``tty``, ``sessions`` and ``kill``."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from .errors import (
    ConnectError,
    ExitError,
    ExitMissing,
    StartError,
    StartNotFoundError,
    StartOSError,
    TransportClosed,
    WsepError,
)
from .wakeup import READ, WRITE, Wakeup, wait_for

if TYPE_CHECKING:
    from .messages import Command
    from .process import Process

__all__ = ["main"]

_Result = TypeVar("_Result")

# As of the shell and of ssh.
_CANNOT_RUN = 126
_NOT_FOUND = 127
_SIGNALLED = 128  # plus the number of the signal
_NO_CONNECTION = 255

# Pieces in which input and output are passed on, in bytes: a message's body.
_PIECE = 63_982


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: The arguments; by default those of the process.
    """
    _open_standard_streams()
    try:
        try:
            arguments = _parser().parse_args(argv)
            run: Callable[[argparse.Namespace, _Signals], int] = arguments.run
            with _Signals() as signals:
                return run(arguments, signals)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except _Ended as ended:
        return _SIGNALLED + ended.signal
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python would complain when it flushes.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _SIGNALLED + getattr(signal, "SIGPIPE", 13)
    except (ConnectError, StartError, TransportClosed, ExitMissing) as error:
        return _explain(error)
    except OSError as error:  # of our own input or output, as when a disk is full
        _complain(error.strerror or error)
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsep-sync",
        description="Run a command on another machine over one WebSocket.",
        epilog="Exit status of notty and tty: the command's own; 128+N if signal N ended it; 127 "
        "if it was not found, 126 if it could not be run, 255 if the connection failed.",
    )
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")

    serve = commands.add_parser(
        "serve",
        help="run commands for clients",
        description="Run commands for whoever connects. It prints one line, "
        "'listening on ws://HOST:PORT', when it can be connected to, and ends on SIGINT or "
        "SIGTERM with all that it has started. Anyone who can connect can run commands as the "
        "user who started it: keep it on the loopback interface.",
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    serve.add_argument(
        "--port", type=_port, default=8080, help="port, 0 picks one (default: %(default)s)"
    )
    serve.add_argument(
        "--session-timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long a terminal lives on without a client (default: 300)",
    )
    serve.set_defaults(run=_serve)

    notty = commands.add_parser(
        "notty",
        help="run a command on pipes",
        description="Run a command with this command's standard input, output and error output. "
        "Ctrl-C interrupts the command; a second one hangs up.",
    )
    notty.add_argument(
        "-n", action="store_true", dest="no_stdin", help="do not forward standard input"
    )
    tty = commands.add_parser(
        "tty",
        help="run a command on a terminal",
        description="Run a command on a terminal of its own, shown on this one.",
    )
    tty.add_argument("--id", default="", help="name of the session to create or to attach to")
    tty.add_argument(
        "--escape",
        type=_escape,
        default=b"~",
        metavar="CHARACTER",
        help="what, followed by a dot at the start of a line, leaves; or none (default: ~)",
    )
    tty.add_argument(
        "--no-reconnect",
        action="store_true",
        help="end when the connection of a session drops, rather than connect again",
    )
    for client in (notty, tty):
        _add_url(
            client,
            "the server, ws://HOST:PORT or wss://HOST:PORT (default: $WSEP_URL; without either, a "
            "server inside this command)",
        )
        client.add_argument(
            "command",
            nargs=argparse.REMAINDER,
            metavar="[--] COMMAND ARG...",
            help="what to run, after -- if it begins with a dash",
        )
        client.set_defaults(fail=client.error)
    notty.set_defaults(run=_notty)
    tty.set_defaults(run=_tty)

    sessions = commands.add_parser(
        "sessions",
        help="list a server's sessions",
        description="List the terminals that a server keeps, one line each: id, process id, "
        "size, how many clients are attached, and the command.",
    )
    sessions.set_defaults(run=_sessions)
    kill = commands.add_parser(
        "kill", help="end a session", description="End a session and what runs in it."
    )
    kill.add_argument("id", metavar="ID")
    kill.set_defaults(run=_kill)
    for manager in (sessions, kill):
        _add_url(manager, "the server, ws://HOST:PORT or wss://HOST:PORT (default: $WSEP_URL)")
        manager.set_defaults(fail=manager.error)
    return parser


def _add_url(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--url", default=os.environ.get("WSEP_URL") or None, help=text)
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long connecting may take (default: 10)",
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 0xFFFF:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return port


def _escape(text: str) -> bytes:
    if text == "none":
        return b""
    if len(text) != 1 or not text.isascii():
        raise argparse.ArgumentTypeError("must be one ASCII character, or none")
    return text.encode()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return seconds


class _Ended(BaseException):
    """A signal has asked this command to end; a BaseException, as KeyboardInterrupt is one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class _Signals:
    """The signals that ask this command to end, and how the main thread waits for other threads.

    All that takes its time is done by other threads, while the main thread waits here: only here
    does a signal raise :exc:`_Ended`, and only one. What was begun is then undone, which takes
    some seconds at most; cut short, it would leave commands behind, or a terminal in raw mode.

    Handlers that raise were tried and rejected. They may do so at any point, and a signal that
    comes just before a thread blocks for a lock is not noticed until the thread has got it. What
    Python writes to the wakeup descriptor ends poll(2) in any case.

    Attributes:
        handlers: What a signal does instead of ending this command, by its number.
    """

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[], None]] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> _Signals:
        with contextlib.ExitStack() as cleanup:
            self._reader, writer = socket.socketpair()
            for end in (self._reader, writer):
                cleanup.enter_context(end)
                end.setblocking(False)
            former = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            cleanup.callback(signal.set_wakeup_fd, former)
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGWINCH"):
                number = getattr(signal, name, None)
                # One that is ignored, as nohup does it, stays so.
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    handler = signal.signal(number, _do_nothing)
                    cleanup.callback(signal.signal, number, handler)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def wait(self, done: Wakeup) -> None:
        """Block until ``done`` is set; raise :exc:`_Ended` at a signal. For the main thread."""
        while wait_for(self._reader.fileno(), READ, done):
            for number in self._reader.recv(4096):
                handler = self.handlers.get(number)
                if handler is not None:
                    handler()
                elif number != getattr(signal, "SIGWINCH", None):
                    raise _Ended(number)

    def wait_for_call(self, call: Callable[[], _Result]) -> _Result:
        """Do a call in another thread; return or raise what it does, or :exc:`_Ended`."""
        done = Wakeup()
        results: list[_Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(call())
            except BaseException as error:
                errors.append(error)
            done.set()

        # A daemon: when a signal ends this command, it may be connecting to a server that does
        # not answer, or writing to somebody who does not read.
        threading.Thread(target=run, name="wsep-work", daemon=True).start()
        self.wait(done)
        for error in errors:
            raise error
        return results[0]


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _complain(text: object) -> None:
    if sys.stderr is not None:  # as it is when it was closed
        with contextlib.suppress(OSError):
            print(f"wsep-sync: {_one_line(text)}", file=sys.stderr, flush=True)


def _one_line(text: object) -> str:
    """Make one line of what a server may have said, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))


# serve


def _serve(arguments: argparse.Namespace, signals: _Signals) -> int:
    with contextlib.ExitStack() as cleanup:
        serving = _serving(arguments.host, arguments.port, arguments.session_timeout)
        try:
            url = cleanup.enter_context(serving)
        except OSError as error:
            reason = error.strerror or error
            _complain(f"cannot listen on {arguments.host} port {arguments.port}: {reason}")
            return 1
        with contextlib.suppress(_Ended):
            print(f"listening on {url}", flush=True)
            signals.wait(Wakeup())
    return 0


@contextlib.contextmanager
def _serving(host: str, port: int, session_timeout: float = 300.0) -> Iterator[str]:
    """Run a server in this process and give its URL; end it, and all it started, at the end."""
    from .listener import Listener
    from .local import LocalExecer
    from .server import Options, Server
    from .wsgi import application

    server = Server()
    app = application(server, LocalExecer(), Options(session_timeout=session_timeout))
    with contextlib.ExitStack() as cleanup:
        listener = cleanup.enter_context(Listener(app, host, port))
        # Before the connections are cut, so that those who are attached learn how it ended.
        cleanup.callback(server.close)
        # It ends when the listener is shut down. A daemon, for a signal that comes while it is
        # being started must not leave something that keeps this process.
        accepting = threading.Thread(target=listener.serve_forever, name="wsep-accept", daemon=True)

        @cleanup.callback
        def stop() -> None:
            listener.shutdown()
            if accepting.is_alive():
                accepting.join()

        accepting.start()
        yield listener.url


# The clients


@contextlib.contextmanager
def _server_url(url: str | None) -> Iterator[str]:
    """Give the URL to connect to: that of a server in this process if none was given."""
    if url is not None:
        yield url
        return
    with _serving("127.0.0.1", 0) as own:
        yield own


def _client_command(arguments: argparse.Namespace, **options: object) -> Command:
    from .messages import Command

    argv = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not argv:
        arguments.fail("a command is needed")
    try:
        return Command(argv[0], argv[1:], **options)  # type: ignore[arg-type]
    except ValueError as error:
        arguments.fail(str(error))
        raise


def _start(arguments: argparse.Namespace, url: str, command: Command) -> Process:
    from .remote import connect

    try:
        with connect(url, timeout=arguments.timeout) as execer:
            return execer.start(command)
    except ValueError as error:
        raise ConnectError(url, str(error)) from error


def _status(process: Process) -> int:
    """Wait for the command; return what is to be this command's exit status."""
    try:
        process.wait()
    except ExitError as error:
        return _SIGNALLED + error.signal if error.signal is not None else error.exit_code & 0xFF
    return 0


def _explain(error: WsepError) -> int:
    """Say in one line why there is no exit status of a command; return the one to give."""
    if isinstance(error, StartOSError):
        _complain(f"{error.filename}: {error.strerror}")
        return _NOT_FOUND if isinstance(error, StartNotFoundError) else _CANNOT_RUN
    _complain(error)
    # Of a start, the server said that it failed; or it said nothing, or nonsense.
    refused = isinstance(error, StartError) and isinstance(error.__cause__, TransportClosed)
    return _CANNOT_RUN if refused else _NO_CONNECTION


def _notty(arguments: argparse.Namespace, signals: _Signals) -> int:
    command = _client_command(arguments, stdin=not arguments.no_stdin)
    with (
        _server_url(arguments.url) as url,
        signals.wait_for_call(lambda: _start(arguments, url, command)) as process,
    ):
        if command.stdin:
            # A daemon: it may be reading from a terminal when the command has ended.
            threading.Thread(
                target=_forward_input, args=(process,), name="wsep-stdin", daemon=True
            ).start()

        def interrupt() -> None:
            # The first Ctrl-C is the command's, as it would be if it ran here. A daemon, as the
            # server may take nothing more: then the second one is not held up.
            del signals.handlers[signal.SIGINT]
            threading.Thread(
                target=_forward_interrupt, args=(process,), name="wsep-interrupt", daemon=True
            ).start()

        signals.handlers[signal.SIGINT] = interrupt
        return signals.wait_for_call(lambda: _copy_outputs(process))


def _forward_interrupt(process: Process) -> None:
    try:
        process.send_signal(signal.SIGINT)
    except io.UnsupportedOperation:
        # A server without signals can only be hung up on: as if this were the second Ctrl-C.
        os.kill(os.getpid(), signal.SIGINT)


def _forward_input(process: Process) -> None:
    raw = process.stdin.raw
    # OSError: the command does not read any more, or has ended. Its status will tell.
    with contextlib.suppress(OSError, ValueError):
        while data := _read(0):
            raw.write(data)
    with contextlib.suppress(OSError, ValueError):
        process.stdin.close()


def _copy_outputs(process: Process) -> int:
    """Copy both outputs to their ends; return the status."""
    failures: list[OSError] = []

    def copy_errors() -> None:
        try:
            _copy_output(process.stderr, 2)
        except OSError as error:
            # It cannot be written: a command that ran here would end of that.
            failures.append(error)
            process.close()
        except WsepError:
            pass  # the connection is lost, as the other output tells as well

    # Ends with the error output, which closing the process ends in any case. A daemon, as above.
    errors = threading.Thread(target=copy_errors, name="wsep-stderr", daemon=True)
    errors.start()
    _copy_output(process.stdout, 1)
    errors.join()
    for failure in failures:
        raise failure
    return _status(process)


def _copy_output(file: io.BufferedReader, descriptor: int) -> None:
    raw = file.raw
    buffer = memoryview(bytearray(_PIECE))
    while count := raw.readinto(buffer):
        _write(descriptor, buffer[:count])


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _PIECE)
        except BlockingIOError:
            # Whoever shares the terminal or pipe with us has made it non-blocking.
            wait_for(descriptor, READ, None)


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            wait_for(descriptor, WRITE, None)


# The terminal

# Sent when a terminal is left while its program runs on, so that what the program has set does
# not stay. ECMA-48, DEC's VT510 manual, xterm's ctlseqs, kitty's keyboard protocol.
_RESET_MODES = (
    b"\x1b[<99u\x1b[>4m"  # the keyboard's ways
    b"\x1b[?1;5;9;45;66;69;1000;1001;1002;1003;1004;1005;1006;1007;1015;1016l"
    b"\x1b[?2004;2026;2031;2048l\x1b[?7;25h\x1b[4;20l\x1b>"
    b"\x1b7\x1b[r\x1b8"  # no margins, which moves the cursor
    b"\x1b[0 q\x1b]8;;\x1b\\\x1b[m\x1b(B\x1b)B\x0f"
)

# What switches between the normal and the alternate screen.
_SWITCH_SCREEN = re.compile(rb"\x1b\[\?(?:\d+;)*(?:47|1047|1049)(?:;\d+)*([hl])")
_LONGEST_SWITCH = 32  # in bytes: whoever sets modes in one sequence sets some few

# Pauses between attempts to connect again, in seconds; the last one is repeated.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

_ESCAPE_HELP = (
    b"\r\nSupported escape sequences, at the start of a line:\r\n"
    b" ~.   leave; a session goes on and can be attached again by its id\r\n"
    b" ~?   this help\r\n"
    b" ~~   send one tilde\r\n"
)


def _tty(arguments: argparse.Namespace, signals: _Signals) -> int:
    rows, cols = _terminal_size()
    term = os.environ.get("TERM")
    command = _client_command(
        arguments,
        id=arguments.id,
        tty=True,
        rows=rows,
        cols=cols,
        env=[f"TERM={term}"] if term else [],
    )
    with _server_url(arguments.url) as url:
        return _TerminalClient(arguments, url, command).run(signals)


def _terminal_size() -> tuple[int, int]:
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.lines and size.columns:
                return size.lines, size.columns
    return 24, 80


class _TerminalClient:
    """Shows a remote terminal on this one, and connects again when a session's connection drops.

    One thread shows, one reads the keyboard, and one passes on the size of this terminal.
    """

    def __init__(self, arguments: argparse.Namespace, url: str, command: Command) -> None:
        self._arguments = arguments
        self._url = url
        self._command = command
        self._escapes = _Escapes(arguments.escape if os.isatty(0) else b"")
        # What is shown; replaced by the thread that shows, used by the others. None while there
        # is no connection.
        self._process: Process | None = None
        self._left = False  # by ~.
        self._in_alt = False  # the alternate screen is shown
        self._screen = threading.Lock()  # held while something is shown; guards _over
        self._over = False  # nothing more is to be shown
        self._resized = threading.Event()  # this terminal; or it is over

    def run(self, signals: _Signals) -> int:
        self._process = signals.wait_for_call(self._start)
        try:
            with _raw_terminal():
                # A daemon: it may be stuck in sending when this command ends.
                threading.Thread(target=self._resize, name="wsep-resize", daemon=True).start()
                signals.handlers[signal.SIGWINCH] = self._resized.set
                self._resized.set()  # perhaps it was, before
                # A daemon: it is reading from the terminal when the command ends.
                threading.Thread(target=self._type, name="wsep-keyboard", daemon=True).start()
                try:
                    return signals.wait_for_call(self._show)
                except BaseException:
                    # Not for long: it may be stuck with a terminal that takes nothing.
                    locked = self._screen.acquire(timeout=1.0)
                    self._over = True
                    if locked:
                        self._screen.release()
                    self._leave_modes()
                    raise
        finally:
            self._over = True
            self._resized.set()
            if self._process is not None:
                self._process.close()

    def _start(self) -> Process:
        return _start(self._arguments, self._url, self._command)

    def _show(self) -> int:
        while True:
            assert self._process is not None
            try:
                self._copy(self._process)
                if not self._left:
                    return _status(self._process)
            except ExitMissing as error:
                lost = error
            if self._left:
                self._leave_modes()
                if self._command.id:
                    self._say(f"left session {_one_line(self._command.id)}")
                    return 0
                return _NO_CONNECTION
            if not self._command.id or self._arguments.no_reconnect:
                raise lost
            self._leave_modes()
            process, self._process = self._process, None
            process.close()
            self._process = self._connect_again()
            self._resized.set()  # perhaps, meanwhile

    def _copy(self, process: Process) -> None:
        raw = process.stdout.raw
        buffer = memoryview(bytearray(_PIECE))
        tail = b""
        while count := raw.readinto(buffer):
            self._put(1, buffer[:count])
            shown = tail + buffer[:count]
            for switch in _SWITCH_SCREEN.finditer(shown):
                self._in_alt = switch[1] == b"h"
            tail = shown[-_LONGEST_SWITCH:]

    def _put(self, descriptor: int, data: memoryview | bytes) -> None:
        with self._screen:
            if not self._over:
                _write(descriptor, memoryview(data))

    def _connect_again(self) -> Process:
        """Try until there is a connection; the user ends it with Ctrl-C."""
        attempt = 0
        while True:
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            attempt += 1
            text = f"connection lost, attempt {attempt} in {pause:g} s (Ctrl-C ends)"
            self._put(2, f"\r\x1b[K[wsep-sync: {text}]".encode())
            time.sleep(pause)
            try:
                process = self._start()
            except StartOSError:
                raise  # it is not the connection that is to blame
            except (ConnectError, TransportClosed, StartError):
                continue
            self._put(2, b"\r\x1b[K")
            if not process.reattached:
                self._say(f"session {_one_line(self._command.id)} was gone, started anew")
            self._escapes.start_line()
            return process

    def _type(self) -> None:
        last = b""
        with contextlib.suppress(OSError):  # the terminal has gone
            while data := _read(0):
                last = data[-1:]
                process = self._process
                typed, leave = self._escapes.feed(data)
                if process is None:
                    # There is nobody to type to, but an interrupt is for us.
                    if leave or b"\x03" in data:
                        os.kill(os.getpid(), signal.SIGINT)
                    continue
                with contextlib.suppress(OSError, ValueError):
                    process.stdin.raw.write(typed)
                if leave:
                    self._left = True
                    process.close()
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError, ValueError):
                if last not in b"\r\n":
                    # In the midst of a line, the end-of-file character only sends the line off
                    # (POSIX, canonical mode), so it takes two.
                    process.stdin.raw.write(b"\x04")
                process.stdin.close()

    def _resize(self) -> None:
        while self._resized.wait() and not self._over:
            self._resized.clear()
            process = self._process
            if process is not None:
                process.resize(*_terminal_size())

    def _leave_modes(self) -> None:
        """Undo what a program that was left has set on this terminal."""
        # Not if the terminal takes nothing: it must not keep us from ending.
        if os.isatty(1) and wait_for(1, WRITE, None, 1.0):
            # Out of any sequence, first.
            left = b"\x18\x1b\\" + (b"\x1b[<99u\x1b[?1049l" if self._in_alt else b"")
            self._in_alt = False
            with contextlib.suppress(OSError):
                _write(1, memoryview(left + _RESET_MODES + b"\r\n"))

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._put(2, f"[wsep-sync: {text}]\r\n".encode())


class _Escapes:
    """Finds ssh's escape sequences in what is typed.

    Args:
        character: The escape character, or b"" for none.
    """

    def __init__(self, character: bytes) -> None:
        self._character = character
        self._at_start = True  # of a line
        self._pending = False  # the character was typed there, and what follows decides

    def start_line(self) -> None:
        """What is typed next is at the start of a line."""
        self._at_start, self._pending = True, False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to send of what was typed, and whether the user wants to leave."""
        if not self._character:
            return data, False
        typed = bytearray()
        for code in data:
            key = bytes((code,))
            if self._pending:
                self._pending = False
                if key == b".":
                    return bytes(typed), True
                if key == b"?":
                    _write(2, memoryview(_ESCAPE_HELP.replace(b"~", self._character)))
                    continue
                if key != self._character:
                    typed += self._character
            elif self._at_start and key == self._character:
                self._pending = True
                continue
            typed += key
            self._at_start = key in b"\r\n"
        return bytes(typed), False


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Put the terminal into raw mode, and back whatever happens."""
    if not os.isatty(0):
        yield
        return
    import termios
    import tty

    former = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal has gone
            # Not TCSADRAIN, which waits for a terminal that may have stopped its output.
            termios.tcsetattr(0, termios.TCSANOW, former)


# Sessions


def _sessions(arguments: argparse.Namespace, signals: _Signals) -> int:
    status, body = _request(arguments, signals, "GET", "/sessions")
    if status != 200:
        _complain(f"{arguments.url}: {body[:200] or 'no sessions here'} (HTTP {status})")
        return 1
    import json
    import shlex

    try:
        lines = [
            (
                info["id"],
                info["pid"],
                f"{info['rows']}x{info['cols']}",
                f"{info['clients']} attached",
                shlex.join(info["command"]),
            )
            for info in json.loads(body)
        ]
    except (KeyError, TypeError, ValueError):
        _complain(f"{arguments.url}: the server's answer is no list of sessions")
        return 1
    for line in lines:
        print(*map(_one_line, line), sep="\t")
    return 0


def _kill(arguments: argparse.Namespace, signals: _Signals) -> int:
    from urllib.parse import quote

    status, body = _request(
        arguments, signals, "DELETE", f"/sessions/{quote(arguments.id, safe='')}"
    )
    if status == 204:
        return 0
    _complain(f"{arguments.id}: {body[:200]} (HTTP {status})")
    return 1


def _request(
    arguments: argparse.Namespace, signals: _Signals, method: str, path: str
) -> tuple[int, str]:
    """Ask the server something over HTTP; return the status and the body."""
    if arguments.url is None:
        arguments.fail("--url or $WSEP_URL is needed")
    return signals.wait_for_call(lambda: _http(arguments.url, arguments.timeout, method, path))


def _http(url: str, timeout: float, method: str, path: str) -> tuple[int, str]:
    import http.client
    from urllib.parse import urlsplit

    kinds = {"ws": http.client.HTTPConnection, "wss": http.client.HTTPSConnection}
    try:
        parts = urlsplit(url)
        if parts.scheme not in kinds or not parts.hostname:
            raise ValueError("not a WebSocket URL (ws://HOST:PORT or wss://HOST:PORT)")
        connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, parts.path.rstrip("/") + path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace").strip()
    except TimeoutError as error:
        raise ConnectError(url, f"no answer within {timeout:g} seconds") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectError(url, str(error) or type(error).__name__) from error
