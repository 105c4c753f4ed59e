"""The command line: ``wsep-sync serve``, ``notty``, ``tty``, ``sessions`` and ``kill``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from .errors import (
    ConnectError,
    ExitError,
    ExitMissing,
    StartError,
    StartNotFoundError,
    TransportClosed,
    WsepError,
)

if TYPE_CHECKING:
    from .messages import Command
    from .process import Process
    from .remote import RemoteExecer

__all__ = ["main"]

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
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        with _ending_signals():
            return run(arguments)
    except _Ended as ended:
        return _SIGNALLED + ended.signal
    except KeyboardInterrupt:
        return _SIGNALLED + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python would complain when it flushes.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _SIGNALLED + getattr(signal, "SIGPIPE", 13)
    except ConnectError as error:
        return _explain(error)
    except OSError as error:  # of our own input or output, as when a disk is full
        _complain(error.strerror or error)
        return 1


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
    """A signal that asks this command to end; a BaseException, as KeyboardInterrupt is one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextlib.contextmanager
def _ending_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that what was begun is undone."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise _Ended(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # One that is ignored, as nohup does it, stays so.
    former = {n: signal.signal(n, end) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _complain(text: object) -> None:
    print(f"wsep-sync: {text}", file=sys.stderr, flush=True)


# serve


def _serve(arguments: argparse.Namespace) -> int:
    try:
        with _serving(arguments.host, arguments.port, arguments.session_timeout) as url:
            print(f"listening on {url}", flush=True)
            with contextlib.suppress(KeyboardInterrupt, _Ended):
                threading.Event().wait()
    except OSError as error:
        _complain(f"cannot listen on {arguments.host} port {arguments.port}: {error.strerror}")
        return 1
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
    with Listener(app, host, port) as listener:
        # A thread of its own for accepting: signals then find the main thread at no delicate
        # place. It ends when the listener is shut down below, whatever happens.
        accepting = threading.Thread(target=listener.serve_forever, name="wsep-accept")
        accepting.start()
        try:
            yield listener.url
        finally:
            listener.shutdown()
            accepting.join()
            server.close()


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


def _connect(arguments: argparse.Namespace, url: str) -> RemoteExecer:
    from .remote import connect

    return connect(url, timeout=arguments.timeout)


def _status(process: Process) -> int:
    """Wait for the command; return what is to be this command's exit status."""
    try:
        process.wait()
    except ExitError as error:
        return _SIGNALLED + error.signal if error.signal is not None else error.exit_code & 0xFF
    return 0


def _explain(error: WsepError | ValueError | OSError) -> int:
    """Say in one line why there is no exit status of a command; return the one to give."""
    if isinstance(error, StartError):
        if isinstance(error, OSError) and error.strerror:
            _complain(f"{error.filename}: {error.strerror}")
        else:
            _complain(error)
        return _NOT_FOUND if isinstance(error, StartNotFoundError) else _CANNOT_RUN
    _complain(error)
    return _NO_CONNECTION


def _notty(arguments: argparse.Namespace) -> int:
    forward = not arguments.no_stdin and _is_open(0)
    command = _client_command(arguments, stdin=forward)
    try:
        with (
            _server_url(arguments.url) as url,
            _connect(arguments, url) as execer,
            execer.start(command) as process,
            _forwarded_interrupt(process),
        ):
            if forward:
                # A daemon: it may be reading from a terminal when the command has ended.
                threading.Thread(
                    target=_forward_input, args=(process,), name="wsep-stdin", daemon=True
                ).start()
            errors = threading.Thread(
                # Ends with the error output, which closing the process ends in any case.
                target=_copy_output,
                args=(process.stderr, 2),
                name="wsep-stderr",
            )
            errors.start()
            try:
                _copy_output(process.stdout, 1)
            except BaseException:
                process.close()
                raise
            finally:
                errors.join()
            return _status(process)
    except (ConnectError, StartError, TransportClosed, ExitMissing, ValueError) as error:
        return _explain(error)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _forwarded_interrupt(process: Process) -> Iterator[None]:
    """Let the first Ctrl-C interrupt the command, as it would if the command ran here."""
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        try:
            process.send_signal(signal.SIGINT)
        except OSError:  # this server has no signals: hanging up is all there is
            raise KeyboardInterrupt from None

    former = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _forward_input(process: Process) -> None:
    raw = process.stdin.raw
    try:
        while data := os.read(0, _PIECE):
            raw.write(data)
    except (OSError, ValueError):
        pass  # the command does not read any more, or has ended: its status will tell
    with contextlib.suppress(OSError, ValueError):
        process.stdin.close()


def _copy_output(file: object, descriptor: int) -> None:
    raw = file.raw  # type: ignore[attr-defined]
    buffer = memoryview(bytearray(_PIECE))
    while count := raw.readinto(buffer):
        _write(descriptor, buffer[:count])


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Whoever shares the terminal or pipe with us has made it non-blocking.
            from .wakeup import WRITE, wait_for

            wait_for(descriptor, WRITE, None)


# The terminal

# Sent when a terminal is left while its program runs on, so that what the program has set does
# not stay: mouse, bracketed paste, focus events and application keys off; cursor shown; attributes
# and character set as usual.
_RESET_MODES = (
    b"\x1b[?9;1000;1001;1002;1003;1004;1005;1006;1007;1015;1016;2004;2026l"
    b"\x1b[?1;66l\x1b>\x1b[?25h\x1b[?7h\x1b[4;20l\x1b[m\x1b(B\x0f"
)

# Pauses between attempts to connect again, in seconds; the last one is repeated.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

_ESCAPE_HELP = (
    b"\r\nSupported escape sequences, at the start of a line:\r\n"
    b" ~.   leave; a session goes on and can be attached again by its id\r\n"
    b" ~?   this help\r\n"
    b" ~~   send one tilde\r\n"
)


def _tty(arguments: argparse.Namespace) -> int:
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
    try:
        with _server_url(arguments.url) as url:
            return _TerminalClient(arguments, url, command).run()
    except (ConnectError, StartError, TransportClosed, ExitMissing, ValueError) as error:
        return _explain(error)


def _terminal_size() -> tuple[int, int]:
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.lines and size.columns:
                return size.lines, size.columns
    return 24, 80


class _TerminalClient:
    """Shows a remote terminal on this one, and connects again when a session's connection drops.

    The main thread shows; a thread reads the keyboard.
    """

    def __init__(self, arguments: argparse.Namespace, url: str, command: Command) -> None:
        self._arguments = arguments
        self._url = url
        self._command = command
        self._escapes = _Escapes(arguments.escape if os.isatty(0) else b"")
        # The process that is shown; replaced by the main thread, read by the keyboard's.
        self._process: Process | None = None
        self._left = threading.Event()  # by ~., or by Ctrl-C while there is no connection
        self._in_alt = False  # the alternate screen is shown, as far as can be told

    def run(self) -> int:
        self._process = self._start()
        try:
            with _raw_terminal(), self._resizing():
                # A daemon: it is reading from the terminal when the command ends.
                threading.Thread(target=self._type, name="wsep-keyboard", daemon=True).start()
                try:
                    return self._show()
                except BaseException:
                    self._leave_modes()
                    raise
        finally:
            if self._process is not None:
                self._process.close()

    def _start(self) -> Process:
        execer = _connect(self._arguments, self._url)
        with execer:
            return execer.start(self._command)

    def _show(self) -> int:
        while True:
            assert self._process is not None
            try:
                self._copy(self._process)
                if not self._left.is_set():
                    return _status(self._process)
            except ExitMissing as error:
                lost = error
            if self._left.is_set():
                self._leave_modes()
                if self._command.id:
                    self._say(f"left session {self._command.id}")
                    return 0
                return _NO_CONNECTION
            if not self._command.id or self._arguments.no_reconnect:
                raise lost
            self._leave_modes()
            self._process.close()
            self._process = None
            self._process = self._connect_again()
            if self._process is None:
                raise lost

    def _copy(self, process: Process) -> None:
        raw = process.stdout.raw
        buffer = memoryview(bytearray(_PIECE))
        while count := raw.readinto(buffer):
            shown = bytes(buffer[:count])
            _write(1, memoryview(shown))
            entered = max(shown.rfind(b"\x1b[?1049h"), shown.rfind(b"\x1b[?47h"))
            left = max(shown.rfind(b"\x1b[?1049l"), shown.rfind(b"\x1b[?47l"))
            if entered != left:
                self._in_alt = entered > left

    def _connect_again(self) -> Process | None:
        """Try until there is a connection; ``None`` when the user has had enough."""
        attempt = 0
        while True:
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            attempt += 1
            text = f"connection lost, attempt {attempt} in {pause:g} s (Ctrl-C ends)"
            _write(2, memoryview(f"\r\x1b[K[wsep-sync: {text}]".encode()))
            if self._left.wait(pause):
                _write(2, memoryview(b"\r\n"))
                return None
            try:
                process = self._start()
            except (ConnectError, TransportClosed, StartError):
                continue
            _write(2, memoryview(b"\r\x1b[K"))
            if not process.reattached:
                self._say(f"session {self._command.id} was gone, started anew")
            # The size may have changed meanwhile.
            process.resize(*_terminal_size())
            return process

    def _type(self) -> None:
        try:
            while data := os.read(0, _PIECE):
                process = self._process
                if process is None:
                    # Not connected: there is nobody to type to, but an interrupt is for us.
                    if b"\x03" in data or self._escapes.feed(data)[1]:
                        self._left.set()
                    continue
                typed, leave = self._escapes.feed(data)
                with contextlib.suppress(BrokenPipeError, ValueError):
                    process.stdin.raw.write(typed)
                if leave:
                    self._left.set()
                    process.close()
        except OSError:
            pass  # the terminal has gone
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError, ValueError):
                process.stdin.close()

    @contextlib.contextmanager
    def _resizing(self) -> Iterator[None]:
        def resize(_number: int, _frame: FrameType | None) -> None:
            if self._process is not None:
                self._process.resize(*_terminal_size())

        former = signal.signal(signal.SIGWINCH, resize)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, former)

    def _leave_modes(self) -> None:
        """Undo what a program that was left has set on this terminal."""
        if os.isatty(1):
            with contextlib.suppress(OSError):
                if self._in_alt:
                    _write(1, memoryview(b"\x1b[?1049l"))
                    self._in_alt = False
                _write(1, memoryview(_RESET_MODES + b"\r\n"))

    @staticmethod
    def _say(text: str) -> None:
        with contextlib.suppress(OSError):
            _write(2, memoryview(f"[wsep-sync: {text}]\r\n".encode()))


class _Escapes:
    """Finds ssh's escape sequences in what is typed.

    Args:
        character: The escape character, or b"" for none.
    """

    def __init__(self, character: bytes) -> None:
        self._character = character
        self._at_start = True  # of a line
        self._pending = False  # the character was typed there, and what follows decides

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
        # Not TCSADRAIN, which waits for a terminal that may have stopped its output.
        termios.tcsetattr(0, termios.TCSANOW, former)


# Sessions


def _sessions(arguments: argparse.Namespace) -> int:
    status, body = _request(arguments, "GET", "/sessions")
    if status != 200:
        _complain(f"{arguments.url}: the server answered HTTP {status}: {body.strip()[:200]}")
        return 1
    import json

    for info in json.loads(body):
        print(
            info["id"],
            info["pid"],
            f"{info['rows']}x{info['cols']}",
            f"{info['clients']} attached",
            " ".join(info["command"]),
            sep="\t",
        )
    return 0


def _kill(arguments: argparse.Namespace) -> int:
    from urllib.parse import quote

    status, body = _request(arguments, "DELETE", f"/sessions/{quote(arguments.id, safe='')}")
    if status == 204:
        return 0
    _complain(f"{arguments.id}: {body.strip()[:200] or f'the server answered HTTP {status}'}")
    return 1


def _request(arguments: argparse.Namespace, method: str, path: str) -> tuple[int, str]:
    """Ask the server something over HTTP; return the status and the body."""
    import http.client
    from urllib.parse import urlsplit

    if arguments.url is None:
        arguments.fail("--url or $WSEP_URL is needed")
    parts = urlsplit(arguments.url)
    kinds = {"ws": http.client.HTTPConnection, "wss": http.client.HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        arguments.fail(f"not a WebSocket URL: {arguments.url}")
    connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=arguments.timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise ConnectError(arguments.url, str(error) or type(error).__name__) from error
    finally:
        connection.close()
