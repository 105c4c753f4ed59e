"""What the message layer makes of bytes, with hypothesis."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

from wsep_sync.errors import ProtocolError
from wsep_sync.protocol.command import ADDITIONS, Command
from wsep_sync.protocol.messages import (
    MAX_MESSAGE,
    CloseOutput,
    CloseStdin,
    Echo,
    EchoIs,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    Signal,
    Start,
    Stderr,
    Stdin,
    StdinTaken,
    Stdout,
    Taken,
    decode_client_message,
    decode_server_message,
)
from wsep_sync.transports.base import close_reason

_CLIENT = (Start, Stdin, CloseStdin, Resize, Signal, Taken, CloseOutput, Echo)
_SERVER = (Pid, Stdout, Stderr, Ended, Eof, ExitCode, StdinTaken, EchoIs)

# CPU seconds that one message may take: thousands of times what any should.
_SLOW = 5.0

# hypothesis keeps what it has tried, so it begins anew from time to time.
_ROUND = 5000

# One message in so many is kept, and read again and again to see whether that takes memory.
_KEPT = 20

# JSON, right and odd

_strings = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Lu"]), max_size=5),
    st.sampled_from(["", "x", "A=b", "=b", "A", "a\0b", "signal: killed", "signal: signal 9"]),
)
_numbers = st.one_of(
    st.integers(-10, 300),
    st.integers(),
    st.floats(),
    st.sampled_from([2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**63, 2**64, 10**400]),
)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _strings),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_strings, inner, max_size=4)
    ),
    max_leaves=8,
)
_types = st.sampled_from(
    (
        *("start", "stdin", "close_stdin", "resize", "signal", "taken", "close_output", "echo"),
        *("pid", "stdout", "stderr", "ended", "exit_code", "x", "START"),
    )
)
_names = st.sampled_from(
    (
        *("type", "id", "command", "args", "stdin", "tty", "rows", "cols", "uid", "gid", "env"),
        *(
            "working_dir",
            "signal",
            "window",
            "discard",
            "stream",
            "closed",
            "pid",
            "features",
            "reattached",
            "exit_code",
            "error",
            *ADDITIONS,
        ),
    )
)


@st.composite
def _written(draw: Any, value: Any) -> str:
    """JSON as somebody may write it: keys in any case, twice, spaces, escapes, other numbers."""
    if isinstance(value, dict):
        pairs = []
        for key, item in value.items():
            for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2]))):
                name = draw(st.sampled_from([key, key, key.upper(), key.title(), key + " "]))
                text = draw(_written(item))
                pairs.append(f"{json.dumps(name)}{draw(_spaces)}:{draw(_spaces)}{text}")
        return "{" + ",".join(pairs) + draw(st.sampled_from(["}", "}", "}", ",}", "", "}}"]))
    if isinstance(value, list):
        return "[" + ",".join(draw(_written(item)) for item in value) + "]"
    if isinstance(value, str) and draw(st.booleans()):
        return '"' + "".join(f"\\u{min(ord(c), 0xFFFF):04x}" for c in value) + '"'
    if isinstance(value, int):
        text = json.dumps(value)
        longer = [text + "0" * 4299, text + "0" * 4300]  # Python's limit is 4300 digits
        return draw(st.sampled_from([text, text, text + ".0", text + "e0", "0" + text, *longer]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


_spaces = st.sampled_from(["", "", "", " ", "\t", "\r", "\x0b", "\xa0", "\ufeff"])

_headers = st.builds(
    lambda kind, fields, command: {
        "type": kind,
        **fields,
        **({"command": {"command": "x", **command}} if kind == "start" else {}),
    },
    st.one_of(_types, _values),
    st.dictionaries(_names, _values, max_size=4),
    st.dictionaries(_names, _values, max_size=4),
)
_bodies = st.one_of(st.just(b""), st.binary(max_size=20), st.sampled_from([b"\n", b"\n\n", b"{}"]))
_ends = st.sampled_from([b"\n", b"\n", b"\n", b"", b"\r\n", b"\0", b"\n\n"])

_messages = st.builds(
    lambda text, end, body: text.encode(errors="surrogatepass") + end + body,
    _headers.flatmap(_written),
    _ends,
    _bodies,
)

# Right ones, and what a byte or two make of them


def command(*args: Any, id: str, tty: bool, **fields: Any) -> Command:
    return Command(*args, id=id if tty else "", tty=tty, **fields)


_fields = st.text(st.characters(exclude_characters="\0"), max_size=10)
_commands = st.builds(
    command,
    _fields,
    st.lists(_fields, max_size=3),
    id=_fields,
    tty=st.booleans(),
    rows=st.integers(0, 0xFFFF),
    cols=st.integers(0, 0xFFFF),
    stdin=st.booleans(),
    uid=st.integers(0, 0xFFFF_FFFF),
    gid=st.integers(0, 0xFFFF_FFFF),
    env=st.lists(st.tuples(_fields, _fields).map(lambda pair: f"N{pair[0]}={pair[1]}"), max_size=3),
    working_dir=_fields,
)
_right = st.one_of(
    st.builds(Start, _commands),
    st.just(CloseStdin()),
    st.builds(Resize, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    st.builds(Signal, st.integers(0, 64)),
    st.builds(Taken, st.integers(0, 2**48 - 1), st.none(), st.none() | st.integers(1, 2**48 - 1)),
    st.builds(CloseOutput, st.sampled_from(("stdout", "stderr"))),
    st.builds(StdinTaken, st.integers(0, 2**48 - 1), st.booleans()),
    st.builds(Echo, st.none() | st.booleans()),
    st.builds(EchoIs, st.integers(0, 2**48 - 1), st.booleans()),
    st.builds(Pid, st.integers(0, 2**31), st.lists(_fields, max_size=3).map(tuple), st.booleans()),
    st.builds(ExitCode, st.integers(-1, 255), _fields, st.integers(0, 64)),
)


@st.composite
def _mutated(draw: Any) -> bytes:
    data = bytearray(draw(_right).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 3))
        data[at : at + size] = draw(st.one_of(st.binary(max_size=3), st.sampled_from(_INSERTED)))
    return bytes(data)


_INSERTED = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\0", b"\xff", b"\xed\xa0\x80"),
    *(b"NaN", b"-Infinity", b"1e999", b"null", b"true", b"\xef\xbb\xbf", b"\\ud800", b"/**/"),
)

# The largest, and what is meant to be expensive

_large = st.sampled_from(
    [
        head + filler * ((size - len(head) - len(tail)) // len(filler)) + tail
        for size in (MAX_MESSAGE, MAX_MESSAGE + 1)
        for head, filler, tail in (
            (b'{"type":"stdin"}\n', b"x", b""),
            (b'{"type":"stdout"}\n', b"\n", b""),
            (b"[", b"[", b""),
            (b'{"type":', b'{"type":', b""),
            (b'{"type":"resize","rows":', b"1", b"}"),
            (b'{"type":"exit_code","exit_code":-', b"9", b"}"),
            (b'{"type":"resize","rows":0.', b"1", b"e-1}"),
            (b'{"type":"start","command":{"command":"', b"x", b'"}}'),
            (b'{"type":"start","command":{"command":"', b"\\u0041", b'"}}'),
            (b'{"type":"start","command":{"command":"', b"\xc3\xa9", b'"}}'),
            (b'{"type":"start","command":{"command":"x","args":[', b'"",', b'""]}}'),
            (b'{"type":"start","command":{"command":"x","args":', b"[", b""),
            (b'{"type":"start","command":{"command":"x","env":[', b'"A=",', b'"A"]}}'),
            (b'{"type":"x"', b',"x":0', b"}"),
            (b'{"type":"pid","features":[', b'"x",', b'"x"]}'),
            (b'{"type":"pid"}', b" ", b"\n"),
            (b"\n", b"\n", b""),
        )
    ]
)
_deep = st.builds(
    lambda depth, opening, closing, field: (
        b'{"type":"start","command":{"command":"x","%s":' % field
        + opening * depth
        + b"0"
        + closing * depth
        + b"}}"
    ),
    st.integers(1, 3000),
    st.sampled_from([b"[", b'{"a":']),
    st.sampled_from([b"]", b"}"]),
    st.sampled_from([b"args", b"env", b"rows", b"id", b"x"]),
)

_cheap = st.one_of(_messages, _mutated(), _right.map(lambda m: m.encode()), st.binary(max_size=100))
data = st.integers(0, 49).flatmap(lambda n: _large if n == 0 else _deep if n == 1 else _cheap)


def check(data: bytes) -> None:
    """Read a message as both ends do."""
    for decode, kinds in ((decode_client_message, _CLIENT), (decode_server_message, _SERVER)):
        began = time.thread_time()
        try:
            message = decode(data)
        except ProtocolError as error:
            _check_refusal(error)
            continue
        took = time.thread_time() - began
        assert took < _SLOW, f"{took:g} seconds"
        assert message is None or type(message) in kinds
        _check_forms(decode, data, message)
        if message is not None and not isinstance(message, (Stdin, Stdout, Stderr)):
            # What is read can be written, and is then read as the same.
            assert decode(message.encode()) == message


def _check_refusal(error: ProtocolError) -> None:
    assert error.close_code == 1011
    assert len(close_reason(str(error)).encode()) <= 123


def _check_forms(decode: Callable[[Any], Any], data: bytes, message: Any) -> None:
    for form in (bytearray(data), memoryview(data)):
        assert decode(form) == message
    if isinstance(message, (Stdin, Stdout, Stderr)):
        assert data.endswith(bytes(message.body))


def run(cases: int, seed: int) -> int:
    """Let hypothesis make so many messages; return how many were tried.

    Raises:
        AssertionError: One of them found something.
    """
    tried = 0
    kept: list[bytes] = []
    for number in range(0, cases, _ROUND):
        for message in _search(min(_ROUND, cases - number), seed + number):
            tried += 1
            if tried % _KEPT == 0:
                kept.append(message)
    _check_memory(kept)
    return tried


def _search(cases: int, seed: int) -> list[bytes]:
    """Let hypothesis begin a search; return all that it has tried."""
    tried = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(data)
    def one(message: bytes) -> None:
        tried.append(message)
        try:
            check(message)
        except Exception as error:
            raise AssertionError(f"seed {seed}, message {message!r}") from error

    one()
    return tried


def _check_memory(messages: list[bytes]) -> None:
    """See that reading leaves nothing behind."""

    def again(times: int) -> int:
        for _ in range(times):
            for message in messages:
                check(message)
        gc.collect()
        return sys.getallocatedblocks()

    before = again(2)
    grown = again(3) - before
    # A block for each message would be three times their number.
    assert grown < len(messages) / 2 + 1000, f"{grown} blocks of memory more"
