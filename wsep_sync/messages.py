"""The messages of the wire: frozen values, how each is written, how each is read.

Each message is one WebSocket message: a JSON header, a newline, a body of raw bytes. This module
knows nothing of sockets, threads or clocks.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

from .errors import ProtocolError, StartError, not_allowed, start_error

__all__ = [
    "FEATURES",
    "FEATURE_ATTACH",
    "FEATURE_SIGNAL",
    "MAX_BODY",
    "MAX_MESSAGE",
    "MAX_WINDOW",
    "NO_SESSION",
    "STDERR_HEADER",
    "STDIN_HEADER",
    "STDOUT_HEADER",
    "Attach",
    "ClientMessage",
    "CloseOutput",
    "CloseStdin",
    "Command",
    "Ended",
    "Eof",
    "ExitCode",
    "Pid",
    "Resize",
    "ServerMessage",
    "Signal",
    "Start",
    "Stderr",
    "Stdin",
    "StdinTaken",
    "Stdout",
    "Taken",
    "decode_client_message",
    "decode_server_message",
    "nameless",
    "signal_from_message",
    "signal_message",
    "start_error_from_reason",
    "start_failure",
    "variables",
]

Buffer: TypeAlias = "bytes | bytearray | memoryview"

#: The longest message in bytes, header and newline included. A reader closes with 1009 on a
#: longer one; a writer splits bodies.
MAX_MESSAGE = 64_000

STDIN_HEADER = b'{"type":"stdin"}\n'
STDOUT_HEADER = b'{"type":"stdout"}\n'
STDERR_HEADER = b'{"type":"stderr"}\n'

#: The longest body in bytes that fits beside each of the three stream headers.
MAX_BODY = MAX_MESSAGE - len(STDOUT_HEADER)

#: Additions to the reference's protocol. The server names those that a first message may ask for in
#: the handshake's answer, in the header ``Wsep-Features``, and all that hold of a command in its
#: ``pid`` message: what it does itself, and what the process that it has can do. A client relies on
#: the latter alone.
FEATURE_SIGNAL = "signal"
FEATURE_TAKEN = "taken"
FEATURE_ENDED = "ended"
FEATURE_CLOSE_OUTPUT = "close_output"
FEATURE_DISCARD = "discard"
FEATURE_ATTACH = "attach"
FEATURES = (
    FEATURE_TAKEN,
    FEATURE_ENDED,
    FEATURE_CLOSE_OUTPUT,
    FEATURE_DISCARD,
    FEATURE_ATTACH,
)

#: The largest position in a stream, and so the largest window, in bytes: 256 TiB.
MAX_WINDOW = _MAX_POSITION = 0xFFFF_FFFF_FFFF

_OUTPUTS = ("stdout", "stderr")

# As in the reference, which has the two swapped: 80 rows of 24 columns.
_DEFAULT_ROWS = 80
_DEFAULT_COLS = 24


@dataclass(frozen=True)
class Command:
    """What to run, and how.

    For a server, all of it has to fit one message of 64,000 bytes. Longer, it cannot be started:
    that is the error of an argument list that is too long, ``E2BIG``.

    Args:
        command: The program: a path, or a name that is looked up in the ``PATH`` of the
            environment it will run in.
        args: Its arguments, without the program's own name.
        id: On a terminal: the name under which the session can be attached again.
        tty: Run it on a terminal of its own rather than on three pipes. Its output, errors
            included, then comes as ``stdout``.
        rows: Height of the terminal in rows, 0 to 65535.
        cols: Width of the terminal in columns, 0 to 65535. 0 rows make 80 of them, and 0 columns
            24, as in the reference.
        stdin: Give the command an input to write to. Otherwise it reads ``/dev/null``. A
            terminal can be typed at either way.
        uid: Numeric user to run as; 0 keeps the server's.
        gid: Numeric group to run as; 0 keeps the server's. Changing either drops the
            supplementary groups.
        env: ``NAME=VALUE`` strings, added to the server's environment; the last of a name wins.
            Others are passed on as they are, as in the reference.
        working_dir: Directory to run in; "" keeps the server's.
        discard: Which of ``stdout`` and ``stderr`` nobody wants: without a terminal, the command
            has the null device for it.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field cannot be sent or run: a NUL byte, a number out of range.
    """

    command: str
    args: tuple[str, ...] = ()
    _: KW_ONLY
    id: str = ""
    tty: bool = False
    rows: int = 0
    cols: int = 0
    stdin: bool = False
    uid: int = 0
    gid: int = 0
    env: tuple[str, ...] = ()
    working_dir: str = ""
    discard: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A frozen dataclass is filled through object.__setattr__; this makes the lists that
        # callers (and JSON) give into tuples.
        object.__setattr__(self, "args", _strings("args", self.args))
        object.__setattr__(self, "env", _strings("env", self.env))
        object.__setattr__(self, "discard", _strings("discard", self.discard))
        for name in ("command", "id", "working_dir"):
            _check_string(name, getattr(self, name))
        for name in ("tty", "stdin"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be true or false, not {_kind(getattr(self, name))}")
        for name in ("rows", "cols"):
            _check_number(name, getattr(self, name), 0xFFFF)
        for name in ("uid", "gid"):
            _check_number(name, getattr(self, name), 0xFFFF_FFFF)
        for name in self.discard:
            _check_output("discard", name)

    @property
    def terminal_size(self) -> tuple[int, int]:
        """The rows and columns that its terminal has, if it is to have one."""
        return self.rows or _DEFAULT_ROWS, self.cols or _DEFAULT_COLS


def variables(entries: Iterable[str]) -> dict[str, str]:
    """Return the variables of an environment, without the entries that are none.

    A name may begin with ``=``, as in the reference: Windows keeps the current directories of its
    drives in such variables.
    """
    found = {}
    for entry in entries:
        end = entry.find("=", 1)
        if end > 0:
            found[entry[:end]] = entry[end + 1 :]
    return found


def nameless(entries: Iterable[str]) -> list[str]:
    """Return the entries of an environment that are no variables, and not empty."""
    return [entry for entry in entries if entry and entry.find("=", 1) < 0]


@dataclass(frozen=True)
class Start:
    """Client to server, first and once: run this.

    Attributes:
        features: What the server has named so far. What is not among them is not said.
        window: The client uses ``taken`` and ``ended``, and this many bytes of each output may be
            on the way to it, and wait there; see :class:`Taken`.
    """

    command: Command
    features: frozenset[str] = frozenset()
    window: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            _check_window(self.window)

    def encode(self) -> bytes:
        c = self.command
        command: dict[str, Any] = {
            "command": c.command,
            "args": c.args,
            "stdin": c.stdin,
            "tty": c.tty,
            "rows": c.rows,
            "cols": c.cols,
            "uid": c.uid,
            "gid": c.gid,
            "env": c.env or None,
            "working_dir": c.working_dir,
        }
        if c.discard and FEATURE_DISCARD in self.features:
            command["discard"] = c.discard
        header: dict[str, Any] = {"type": "start", "id": c.id, "command": command}
        if self.window is not None:
            header["window"] = self.window
        return _encode(header)


@dataclass(frozen=True)
class Attach:
    """Client to server, instead of a start: show me the session of this id.

    It never starts anything. A server that does not know it, as it did not name ``attach``,
    ignores it.

    Attributes:
        window: As of :class:`Start`.
    """

    id: str
    rows: int = 0
    cols: int = 0
    window: int | None = None

    def __post_init__(self) -> None:
        _check_string("id", self.id)
        _check_number("rows", self.rows, 0xFFFF)
        _check_number("cols", self.cols, 0xFFFF)
        if self.window is not None:
            _check_window(self.window)

    def encode(self) -> bytes:
        header = {"type": "attach", "id": self.id, "rows": self.rows, "cols": self.cols}
        if self.window is not None:
            header["window"] = self.window
        return _encode(header)


@dataclass(frozen=True)
class Stdin:
    """Client to server: bytes for the command's input."""

    body: Buffer


@dataclass(frozen=True)
class CloseStdin:
    """Client to server: the input ends here. On a terminal: its end-of-file character."""

    def encode(self) -> bytes:
        return b'{"type":"close_stdin"}\n'


@dataclass(frozen=True)
class Resize:
    """Client to server: the terminal now has this many rows and columns."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        _check_number("rows", self.rows, 0xFFFF)
        _check_number("cols", self.cols, 0xFFFF)

    def encode(self) -> bytes:
        return _encode({"type": "resize", "rows": self.rows, "cols": self.cols}) + b"\n"


@dataclass(frozen=True)
class Signal:
    """Client to server, if it named ``signal``: send this signal to the command's group."""

    signal: int

    def __post_init__(self) -> None:
        _check_number("signal", self.signal, 64)

    def encode(self) -> bytes:
        return _encode({"type": "signal", "signal": self.signal}) + b"\n"


@dataclass(frozen=True)
class Taken:
    """Client to server, if it named ``taken``: how much of each output has been read.

    The server sends no more of an output than the client's window beyond that. So what is not
    output, such as the command's end, never waits behind output that nobody reads.

    Attributes:
        stdout, stderr: Positions in bytes from the beginning; ``None`` says nothing new.
        window: As in :class:`Start`, from a client that did not know of it yet then.
    """

    stdout: int | None = None
    stderr: int | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        for name in _OUTPUTS:
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), _MAX_POSITION)
        if self.window is not None:
            _check_window(self.window)

    def encode(self) -> bytes:
        header: dict[str, Any] = {"type": "taken"}
        for name in (*_OUTPUTS, "window"):
            if getattr(self, name) is not None:
                header[name] = getattr(self, name)
        return _encode(header) + b"\n"


@dataclass(frozen=True)
class StdinTaken:
    """Server to client, if that has told of a window: how much input the command was given.

    A client that keeps only so many bytes beyond it on the way can always get a resize, a signal
    or a hang-up through, however little the command reads.

    Attributes:
        stdin: A position in bytes from the beginning.
        closed: The command has closed its input: what it had not read is dropped, as all that
            follows will be.
    """

    stdin: int
    closed: bool = False

    def __post_init__(self) -> None:
        _check_number("stdin", self.stdin, _MAX_POSITION)

    def encode(self) -> bytes:
        return _encode({"type": "taken", "stdin": self.stdin, "closed": self.closed}) + b"\n"


@dataclass(frozen=True)
class CloseOutput:
    """Client to server, if it named ``close_output``: nobody reads this output any more."""

    stream: str

    def __post_init__(self) -> None:
        _check_output("stream", self.stream)

    def encode(self) -> bytes:
        return _encode({"type": "close_output", "stream": self.stream}) + b"\n"


@dataclass(frozen=True)
class Pid:
    """Server to client, first: the command runs.

    ``features`` and ``reattached`` are additions to the reference; they are written only when
    there is something to say.
    """

    pid: int
    features: tuple[str, ...] = ()
    reattached: bool = False

    def encode(self) -> bytes:
        header: dict[str, Any] = {"type": "pid", "pid": self.pid}
        if self.features:
            header["features"] = self.features
        if self.reattached:
            header["reattached"] = True
        return _encode(header) + b"\n"


@dataclass(frozen=True)
class Stdout:
    """Server to client: bytes the command wrote to its output or terminal."""

    body: Buffer


@dataclass(frozen=True)
class Stderr:
    """Server to client: bytes the command wrote to its error output."""

    body: Buffer


@dataclass(frozen=True)
class ExitCode:
    """Server to client, last, after both outputs ended: how the command ended.

    ``signal`` is an addition to the reference, which says it only in ``error``.
    """

    exit_code: int
    error: str = ""
    signal: int | None = None

    def encode(self) -> bytes:
        return _encode_status("exit_code", self)


@dataclass(frozen=True)
class Ended:
    """Server to client, if that has told of a window: how the command ended, ahead of its output.

    It is said at once, and again as :class:`ExitCode` when the outputs have ended.
    """

    status: ExitCode

    def encode(self) -> bytes:
        return _encode_status("ended", self.status)


@dataclass(frozen=True)
class Eof:
    """Server to client, after :class:`Ended`: this output has ended, while the other goes on."""

    stream: str

    def __post_init__(self) -> None:
        _check_output("stream", self.stream)

    def encode(self) -> bytes:
        return _encode({"type": "eof", "stream": self.stream}) + b"\n"


def _encode_status(kind: str, status: ExitCode) -> bytes:
    header: dict[str, Any] = {"type": kind, "exit_code": status.exit_code, "error": status.error}
    if status.signal is not None:
        header["signal"] = status.signal
    return _encode(header) + b"\n"


ClientMessage: TypeAlias = (
    "Start | Attach | Stdin | CloseStdin | Resize | Signal | Taken | CloseOutput"
)
ServerMessage: TypeAlias = "Pid | Stdout | Stderr | StdinTaken | Ended | Eof | ExitCode"


def decode_client_message(data: Buffer) -> ClientMessage | None:
    """Read a message that a client sent.

    Returns:
        The message; ``None`` for a type that is not known, which the protocol says to ignore.
        A body is a view of ``data``, not a copy.

    Raises:
        ProtocolError: ``data`` is no message, or a known one with a field that does not fit.
    """
    # What carries data comes first and without a look at its JSON: this runs for every message.
    if data[: len(STDIN_HEADER)] == STDIN_HEADER:
        return Stdin(memoryview(data)[len(STDIN_HEADER) :])
    kind, header, body = _decode(data)
    try:
        if kind == "stdin":
            return Stdin(body)
        if kind == "close_stdin":
            return CloseStdin()
        if kind == "resize":
            return Resize(_number(header, "rows"), _number(header, "cols"))
        if kind == "signal":
            return Signal(_number(header, "signal"))
        if kind == "taken":
            return Taken(header.get("stdout"), header.get("stderr"), header.get("window"))
        if kind == "close_output":
            _check_output("stream", header.get("stream"))
            return CloseOutput(header["stream"])
        if kind == "start":
            if bytes(body).strip():
                raise ValueError("a body after the header")
            return Start(_command(header), window=header.get("window"))
        if kind == "attach":
            return Attach(
                header.get("id", ""),
                _number(header, "rows"),
                _number(header, "cols"),
                header.get("window"),
            )
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{kind} message: {error}") from error
    return None


def decode_server_message(data: Buffer) -> ServerMessage | None:
    """Read a message that a server sent; as :func:`decode_client_message` in all else."""
    if data[: len(STDOUT_HEADER)] == STDOUT_HEADER:
        return Stdout(memoryview(data)[len(STDOUT_HEADER) :])
    if data[: len(STDERR_HEADER)] == STDERR_HEADER:
        return Stderr(memoryview(data)[len(STDERR_HEADER) :])
    kind, header, body = _decode(data)
    try:
        if kind == "stdout":
            return Stdout(body)
        if kind == "stderr":
            return Stderr(body)
        if kind == "taken":
            return StdinTaken(_number(header, "stdin"), header.get("closed") is True)
        if kind == "pid":
            features = header.get("features") or ()
            return Pid(
                _number(header, "pid"),
                _strings("features", features),
                header.get("reattached") is True,
            )
        if kind == "exit_code":
            return _status(header)
        if kind == "ended":
            return Ended(_status(header))
        if kind == "eof":
            _check_output("stream", header.get("stream"))
            return Eof(header["stream"])
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{kind} message: {error}") from error
    return None


def _status(header: Mapping[str, Any]) -> ExitCode:
    """Read how a command ended. What says two things at once is refused, lest it be a success."""
    message = header.get("error")
    if message is None:
        message = ""
    _check_string("error", message)
    if header.get("exit_code") is None:
        raise ValueError("exit_code is missing")
    code = _number(header, "exit_code")
    if code < -1:
        raise ValueError("exit_code is no status")
    signal = header.get("signal")
    if signal is not None:
        _check_number("signal", signal, 64)
        if not signal:
            raise ValueError("signal 0 ends nothing")
        if code >= 0:
            raise ValueError("exit_code and signal contradict each other")
    elif code < 0:
        signal = signal_from_message(message)
    return ExitCode(code, message, signal)


# The words of Go's syscall.Signal.String on Linux, which the reference puts into exit_code.
_SIGNAL_WORDS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}
_SIGNAL_NUMBERS = {word: number for number, word in _SIGNAL_WORDS.items()}


def signal_message(signal: int, core_dumped: bool = False) -> str:
    """Return the reference's words for an end by a signal: ``signal: killed`` for 9."""
    word = _SIGNAL_WORDS.get(signal, f"signal {signal}")
    return f"signal: {word}{' (core dumped)' if core_dumped else ''}"


def signal_from_message(message: str) -> int | None:
    """Return the signal that :func:`signal_message`'s words name, or ``None``.

    A server that is the reference says the signal in words alone.
    """
    if not message.startswith("signal: "):
        return None
    word = message.removeprefix("signal: ").removesuffix(" (core dumped)")
    if word in _SIGNAL_NUMBERS:
        return _SIGNAL_NUMBERS[word]
    digits = word.removeprefix("signal ")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
    return number if 0 < number <= 64 else None


# What the reference, which is Go on Linux, and strerror on other systems say of an errno.
_ERRNO_WORDS = {os.strerror(number).lower(): number for number in errno.errorcode} | {
    "no such file or directory": errno.ENOENT,
    "executable file not found in $path": errno.ENOENT,
    "permission denied": errno.EACCES,
    "operation not permitted": errno.EPERM,
    "not a directory": errno.ENOTDIR,
    "exec format error": errno.ENOEXEC,
    "argument list too long": errno.E2BIG,
}

#: The reason to close with when there is no session to attach to.
NO_SESSION = "no such session"

# How a reason begins that tells of a ConnectError or of TransportClosed.
_OF_A_CONNECTION = ("cannot connect to ", "connection closed (")

# How many bytes of UTF-8 a close frame has for the reason (RFC 6455, section 5.5).
_MAX_REASON = 123


def start_failure(error: StartError, command: Command) -> str:
    """Return the close reason for a start that failed, in the manner of the reference.

    The cause stands last, where :func:`start_error_from_reason` finds it: a long name is
    shortened rather than let a close frame's 123 bytes cut the cause off.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return f"start command: {error}"
    chdir = error.filename == command.working_dir and command.working_dir
    prefix = f"start command: {'chdir' if chdir else 'exec'} "
    cause = f": {error.strerror.lower()}"
    name = str(error.filename or command.command)
    encoded = name.encode(errors="replace")
    room = _MAX_REASON - len(prefix) - len(cause.encode())
    if len(encoded) > room:
        half = max(2, room - len("...")) // 2
        start, end = encoded[:half], encoded[-half:]
        name = f"{start.decode(errors='ignore')}...{end.decode(errors='ignore')}"
    return prefix + name + cause


def start_error_from_reason(reason: str, command: Command) -> StartError:
    """Return the error that a server's close reason tells of."""
    cause = reason.rpartition(": ")[2].lower()
    if cause == "not allowed":
        return not_allowed(command.command)
    number = _ERRNO_WORDS.get(cause)
    # The connections of a server that passes commands on end with the words of an errno, too; but
    # it is not the command's, and there is no file to blame. Each server on the way has put its
    # own words in front.
    if number is None or reason.replace("start command: ", "").startswith(_OF_A_CONNECTION):
        return StartError(reason or "the server gave no reason")
    chdir = "chdir " in reason.partition(": ")[2][:6]
    return start_error(number, command.working_dir if chdir else command.command)


def _encode(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A file name that is not UTF-8 came through os.fsdecode with lone surrogates. JSON can
        # carry those escaped, and our server's os.fsencode makes the same bytes of them again.
        return json.dumps(header, separators=(",", ":")).encode()


def _decode(data: Buffer) -> tuple[str, dict[str, Any], memoryview]:
    """Split a message into its type ("" if it has none), its header and its body."""
    raw = bytes(data)
    end = raw.find(b"\n")
    if end < 0:
        end = len(raw)
    try:
        header = json.loads(raw[:end].decode())
    except (ValueError, RecursionError) as error:
        # ValueError: no UTF-8, no JSON, or a number of thousands of digits. RecursionError: nested
        # too deep. Their words would quote what has come.
        place = f", at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ProtocolError(f"the header is not JSON{place}") from error
    if not isinstance(header, dict):
        raise ProtocolError("the header is not a JSON object")
    header = _fold(header)
    kind = header.get("type")
    if kind is None:
        kind = ""
    if not isinstance(kind, str):
        raise ProtocolError("the header's type is not a string")
    return kind, header, memoryview(raw)[end + 1 :]


def _fold(fields: Mapping[str, Any]) -> dict[str, Any]:
    # Go's encoding/json matches keys in any case, and the last one wins.
    return {key.lower(): value for key, value in fields.items()}


def _command(header: Mapping[str, Any]) -> Command:
    fields = header.get("command")
    if not isinstance(fields, dict):
        raise TypeError("command must be an object")
    fields = _fold(fields)
    names = (
        "command",
        "args",
        "tty",
        "rows",
        "cols",
        "stdin",
        "uid",
        "gid",
        "env",
        "working_dir",
        "discard",
    )
    # In Go, null leaves a field at its zero.
    known = {name: fields[name] for name in names if fields.get(name) is not None}
    if header.get("id") is not None:
        known["id"] = header["id"]
    return Command(**{"command": "", **known})


# What is refused may be a secret that went into the wrong field, and refusals are logged: so they
# name the field and what was wrong with it, and never what was in it.


def _kind(value: object) -> str:
    """Return what kind of value it is, in JSON's words."""
    if isinstance(value, Mapping):
        return "an object"
    kinds = {bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "a list"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def _strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {_kind(values)}")
    strings = tuple(values)
    for string in strings:
        _check_string(name, string)
    return strings


def _check_string(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {_kind(value)}")
    if "\0" in value:
        raise ValueError(f"{name} has a NUL byte in it")


def _check_number(name: str, value: object, largest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {_kind(value)}")
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must be 0 to {largest}")


def _check_window(value: object) -> None:
    _check_number("window", value, _MAX_POSITION)
    if not value:
        raise ValueError("window must be above 0")


def _check_output(name: str, value: object) -> None:
    _check_string(name, value)
    if value not in _OUTPUTS:
        raise ValueError(f"{name} must be stdout or stderr")


def _number(header: Mapping[str, Any], name: str) -> int:
    value = header.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {_kind(value)}")
    return value
