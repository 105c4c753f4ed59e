"""The messages of the wire: frozen values, how each is written, how each is read.

Each message is one WebSocket message: a JSON header, a newline, a body of raw bytes. This module
knows nothing of sockets, threads or clocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import ProtocolError
from .checks import (
    MAX_POSITION,
    OUTPUTS,
    check_number,
    check_output,
    check_string,
    check_strings,
    check_window,
    flag_of,
    number_of,
)
from .command import ADDITIONS, Command
from .words import signal_from_message

__all__ = [
    "FEATURES",
    "FEATURE_ATTACH",
    "FEATURE_CLOSE_OUTPUT",
    "FEATURE_DISCARD",
    "FEATURE_ECHO",
    "FEATURE_ENDED",
    "FEATURE_SIGNAL",
    "FEATURE_TAKEN",
    "MAX_BODY",
    "MAX_MESSAGE",
    "STDERR_HEADER",
    "STDIN_HEADER",
    "STDOUT_HEADER",
    "Attach",
    "Buffer",
    "ClientMessage",
    "CloseOutput",
    "CloseStdin",
    "Echo",
    "EchoIs",
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


FEATURE_ECHO = "echo"


FEATURES = (
    FEATURE_TAKEN,
    FEATURE_ENDED,
    FEATURE_CLOSE_OUTPUT,
    FEATURE_DISCARD,
    FEATURE_ATTACH,
)


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
            check_window(self.window)

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
        for name, feature in ADDITIONS.items():
            if feature in self.features and getattr(c, name) != getattr(Command, name):
                command[name] = getattr(c, name)
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
        check_string("id", self.id)
        check_number("rows", self.rows, 0xFFFF)
        check_number("cols", self.cols, 0xFFFF)
        if self.window is not None:
            check_window(self.window)

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
        check_number("rows", self.rows, 0xFFFF)
        check_number("cols", self.cols, 0xFFFF)

    def encode(self) -> bytes:
        return _encode({"type": "resize", "rows": self.rows, "cols": self.cols}) + b"\n"


@dataclass(frozen=True)
class Signal:
    """Client to server, if it named ``signal``: send this signal to the command's group."""

    signal: int

    def __post_init__(self) -> None:
        check_number("signal", self.signal, 64)

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
        for name in OUTPUTS:
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), MAX_POSITION)
        if self.window is not None:
            check_window(self.window)

    def encode(self) -> bytes:
        header: dict[str, Any] = {"type": "taken"}
        for name in (*OUTPUTS, "window"):
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
        check_number("stdin", self.stdin, MAX_POSITION)

    def encode(self) -> bytes:
        return _encode({"type": "taken", "stdin": self.stdin, "closed": self.closed}) + b"\n"


@dataclass(frozen=True)
class CloseOutput:
    """Client to server, if it named ``close_output``: nobody reads this output any more."""

    stream: str

    def __post_init__(self) -> None:
        check_output("stream", self.stream)

    def encode(self) -> bytes:
        return _encode({"type": "close_output", "stream": self.stream}) + b"\n"


@dataclass(frozen=True)
class Echo:
    """Client to server, if it named ``echo``: does the terminal show what is typed?

    Attributes:
        on: Let it, or let it not, before that is answered; ``None`` leaves it.
    """

    on: bool | None = None

    def encode(self) -> bytes:
        return _encode({"type": "echo"} | ({} if self.on is None else {"on": self.on})) + b"\n"


@dataclass(frozen=True)
class EchoIs:
    """Server to client: what :class:`Echo` asks for.

    Attributes:
        answers: How many of these were received before it was so, since the beginning.
        on: Whether the terminal shows what is typed.
    """

    answers: int
    on: bool

    def __post_init__(self) -> None:
        check_number("answers", self.answers, MAX_POSITION)

    def encode(self) -> bytes:
        return _encode({"type": "echo", "answers": self.answers, "on": self.on}) + b"\n"


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
        check_output("stream", self.stream)

    def encode(self) -> bytes:
        return _encode({"type": "eof", "stream": self.stream}) + b"\n"


def _encode_status(kind: str, status: ExitCode) -> bytes:
    header: dict[str, Any] = {"type": kind, "exit_code": status.exit_code, "error": status.error}
    if status.signal is not None:
        header["signal"] = status.signal
    return _encode(header) + b"\n"


ClientMessage: TypeAlias = (
    "Start | Attach | Stdin | CloseStdin | Resize | Signal | Taken | CloseOutput | Echo"
)


ServerMessage: TypeAlias = "Pid | Stdout | Stderr | StdinTaken | EchoIs | Ended | Eof | ExitCode"


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
            return Resize(number_of(header, "rows"), number_of(header, "cols"))
        if kind == "signal":
            return Signal(number_of(header, "signal"))
        if kind == "taken":
            return Taken(header.get("stdout"), header.get("stderr"), header.get("window"))
        if kind == "close_output":
            check_output("stream", header.get("stream"))
            return CloseOutput(header["stream"])
        if kind == "echo":
            return Echo(flag_of(header, "on"))
        if kind == "start":
            if bytes(body).strip():
                raise ValueError("a body after the header")
            return Start(_command(header), window=header.get("window"))
        if kind == "attach":
            return Attach(
                header.get("id", ""),
                number_of(header, "rows"),
                number_of(header, "cols"),
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
            return StdinTaken(number_of(header, "stdin"), header.get("closed") is True)
        if kind == "echo":
            return EchoIs(number_of(header, "answers"), flag_of(header, "on") is True)
        if kind == "pid":
            features = header.get("features") or ()
            return Pid(
                number_of(header, "pid"),
                check_strings("features", features),
                header.get("reattached") is True,
            )
        if kind == "exit_code":
            return _status(header)
        if kind == "ended":
            return Ended(_status(header))
        if kind == "eof":
            check_output("stream", header.get("stream"))
            return Eof(header["stream"])
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{kind} message: {error}") from error
    return None


def _status(header: Mapping[str, Any]) -> ExitCode:
    """Read how a command ended. What says two things at once is refused, lest it be a success."""
    message = header.get("error")
    if message is None:
        message = ""
    check_string("error", message)
    if header.get("exit_code") is None:
        raise ValueError("exit_code is missing")
    code = number_of(header, "exit_code")
    if code < -1:
        raise ValueError("exit_code is no status")
    signal = header.get("signal")
    if signal is not None:
        check_number("signal", signal, 64)
        if not signal:
            raise ValueError("signal 0 ends nothing")
        if code >= 0:
            raise ValueError("exit_code and signal contradict each other")
    elif code < 0:
        signal = signal_from_message(message)
    return ExitCode(code, message, signal)


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
        *ADDITIONS,
    )
    # In Go, null leaves a field at its zero.
    known = {name: fields[name] for name in names if fields.get(name) is not None}
    if isinstance(known.get("env"), dict):
        raise TypeError("env must be a list of strings, not an object")
    if header.get("id") is not None:
        check_string("id", header["id"])
        # Without a terminal it names nothing, as in the reference.
        known["id"] = header["id"] if known.get("tty") else ""
    return Command(**{"command": "", **known})
