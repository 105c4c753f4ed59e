"""The messages: what is written, what is read, and that nothing read can do harm."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsep_sync import Command, ProtocolError, StartError
from wsep_sync.errors import StartOSError, not_allowed, start_error
from wsep_sync.protocol import messages
from wsep_sync.protocol.messages import (
    FEATURES,
    MAX_BODY,
    MAX_MESSAGE,
    STDERR_HEADER,
    STDIN_HEADER,
    STDOUT_HEADER,
    Attach,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    ServerMessage,
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
from wsep_sync.protocol.words import (
    signal_from_message,
    signal_message,
    start_error_from_reason,
    start_failure,
)
from wsep_sync.transports.base import close_reason

pytestmark = pytest.mark.thorough

DECODERS = [decode_client_message, decode_server_message]
Decoder = Callable[[bytes], "ClientMessage | ServerMessage | None"]


@pytest.fixture(params=DECODERS, ids=["client", "server"])
def decode(request: pytest.FixtureRequest) -> Decoder:
    return request.param


def as_json(message: bytes) -> Any:
    """Return the header of a message without a body."""
    header, _, body = message.partition(b"\n")
    assert not body
    return json.loads(header)


def start(**command: Any) -> bytes:
    return json.dumps({"type": "start", "command": {"command": "x", **command}}).encode()


# What is written

FULL = Command(
    "ls",
    ["-l", "ä b"],
    id="session",
    tty=True,
    rows=24,
    cols=80,
    stdin=True,
    uid=1,
    gid=2,
    env=["A=b", "C=d=e"],
    working_dir="/tmp",
)


def test_a_start_has_every_field() -> None:
    assert as_json(Start(Command("ls")).encode()) == {
        "type": "start",
        "id": "",
        "command": {
            "command": "ls",
            "args": [],
            "stdin": False,
            "tty": False,
            "rows": 0,
            "cols": 0,
            "uid": 0,
            "gid": 0,
            "env": None,
            "working_dir": "",
        },
    }
    assert as_json(Start(FULL).encode()) == {
        "type": "start",
        "id": "session",
        "command": {
            "command": "ls",
            "args": ["-l", "ä b"],
            "stdin": True,
            "tty": True,
            "rows": 24,
            "cols": 80,
            "uid": 1,
            "gid": 2,
            "env": ["A=b", "C=d=e"],
            "working_dir": "/tmp",
        },
    }


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (CloseStdin(), b'{"type":"close_stdin"}\n'),
        (Resize(24, 80), b'{"type":"resize","rows":24,"cols":80}\n'),
        (Signal(15), b'{"type":"signal","signal":15}\n'),
        (Attach("s", 2, 3), b'{"type":"attach","id":"s","rows":2,"cols":3}'),
        (Attach("s", 2, 3, 9), b'{"type":"attach","id":"s","rows":2,"cols":3,"window":9}'),
        (Taken(7), b'{"type":"taken","stdout":7}\n'),
        (Taken(7, 8, 9), b'{"type":"taken","stdout":7,"stderr":8,"window":9}\n'),
        (Taken(), b'{"type":"taken"}\n'),
        (StdinTaken(7), b'{"type":"taken","stdin":7,"closed":false}\n'),
        (StdinTaken(7, True), b'{"type":"taken","stdin":7,"closed":true}\n'),
        (CloseOutput("stderr"), b'{"type":"close_output","stream":"stderr"}\n'),
        (Eof("stderr"), b'{"type":"eof","stream":"stderr"}\n'),
        (Ended(ExitCode(0)), b'{"type":"ended","exit_code":0,"error":""}\n'),
        (
            Ended(ExitCode(-1, "signal: killed", 9)),
            b'{"type":"ended","exit_code":-1,"error":"signal: killed","signal":9}\n',
        ),
        (Pid(12), b'{"type":"pid","pid":12}\n'),
        (Pid(12, ("signal",)), b'{"type":"pid","pid":12,"features":["signal"]}\n'),
        (Pid(12, (), True), b'{"type":"pid","pid":12,"reattached":true}\n'),
        (ExitCode(0), b'{"type":"exit_code","exit_code":0,"error":""}\n'),
        (
            ExitCode(-1, "signal: killed", 9),
            b'{"type":"exit_code","exit_code":-1,"error":"signal: killed","signal":9}\n',
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bytes) else "",
)
def test_written_as_the_reference_writes(message: Any, encoded: bytes) -> None:
    assert message.encode() == encoded


def test_headers_of_streams() -> None:
    assert STDIN_HEADER == b'{"type":"stdin"}\n'
    assert STDOUT_HEADER == b'{"type":"stdout"}\n'
    assert STDERR_HEADER == b'{"type":"stderr"}\n'
    assert MAX_MESSAGE == 64_000
    for header in (STDIN_HEADER, STDOUT_HEADER, STDERR_HEADER):
        assert len(header) + MAX_BODY <= MAX_MESSAGE


# What is read

# Everything a file name or an argument can be on POSIX, in the form that os.fsdecode gives it.
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    st.binary(max_size=30).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
)
commands = st.builds(
    Command,
    names,
    st.lists(names, max_size=5),
    id=names,
    tty=st.booleans(),
    rows=st.integers(0, 0xFFFF),
    cols=st.integers(0, 0xFFFF),
    stdin=st.booleans(),
    uid=st.integers(0, 0xFFFF_FFFF),
    gid=st.integers(0, 0xFFFF_FFFF),
    env=st.lists(st.tuples(names, names).map(lambda kv: f"N{kv[0]}={kv[1]}"), max_size=5),
    working_dir=names,
)
positions = st.none() | st.integers(0, 2**48 - 1)
client_messages = st.one_of(
    st.builds(Start, commands),
    st.just(CloseStdin()),
    st.builds(Resize, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    st.builds(Signal, st.integers(0, 64)),
    st.builds(Taken, positions, positions, st.none() | st.integers(1, 2**48 - 1)),
    st.builds(CloseOutput, st.sampled_from(["stdout", "stderr"])),
)
statuses = st.one_of(
    st.builds(ExitCode, st.integers(0, 255), names),
    st.builds(ExitCode, st.just(-1), names.filter(lambda t: not t.startswith("signal"))),
    st.integers(1, 64).map(lambda number: ExitCode(-1, signal_message(number), number)),
)
server_messages = st.one_of(
    st.builds(Pid, st.integers(), st.lists(names).map(tuple), st.booleans()),
    st.builds(StdinTaken, st.integers(0, 2**48 - 1), st.booleans()),
    st.builds(Ended, statuses),
    st.builds(Eof, st.sampled_from(["stdout", "stderr"])),
    statuses,
)


@given(client_messages)
def test_a_server_reads_what_a_client_writes(message: Any) -> None:
    assert decode_client_message(message.encode()) == message


@given(server_messages)
def test_a_client_reads_what_a_server_writes(message: Any) -> None:
    assert decode_server_message(message.encode()) == message


@given(st.binary())
def test_bodies_are_bytes(body: bytes) -> None:
    for wrap in (bytes, bytearray, memoryview):
        stdin = decode_client_message(wrap(STDIN_HEADER + body))
        stdout = decode_server_message(wrap(STDOUT_HEADER + body))
        stderr = decode_server_message(wrap(STDERR_HEADER + body))
        assert isinstance(stdin, Stdin)
        assert isinstance(stdout, Stdout)
        assert isinstance(stderr, Stderr)
        assert stdin.body == stdout.body == stderr.body == body


@pytest.mark.parametrize("header", [b'{"type":"stdin"}', b'{ "Type" : "stdin", "more":{"x":[]} }'])
def test_a_header_may_be_any_json(header: bytes) -> None:
    for body in (b"", b"\n", b"a\n\nb", b"\xff\0"):
        message = decode_client_message(header + b"\n" + body)
        assert isinstance(message, Stdin)
        assert message.body == body
    message = decode_client_message(header)
    assert isinstance(message, Stdin)
    assert message.body == b""


def test_the_client_reads_any_json_too() -> None:
    message = decode_server_message(b'{ "x":1, "TYPE" : "stderr" }\nbody')
    assert isinstance(message, Stderr)
    assert message.body == b"body"
    message = decode_server_message(b'{"type" :"stdout"}')
    assert isinstance(message, Stdout)
    assert message.body == b""
    assert decode_server_message(b'{"type":"pid","pid":3}') == Pid(3)
    assert decode_server_message(b'{"PID":3,"tyPe":"pid"}\n') == Pid(3)
    assert decode_server_message(b'{"type":"exit_code","EXIT_CODE":4}\n') == ExitCode(4)


def test_keys_match_in_any_case_and_the_last_one_wins() -> None:
    raw = (
        b'{"tYPE":"start","ID":"i","COMMAND":{"Command":"a","command":"echo","ARGS":["x"],'
        b'"Tty":true,"Rows":1,"COLS":2,"Stdin":true,"UID":3,"Gid":4,"ENV":["A=b"],'
        b'"Working_Dir":"/"}}'
    )
    expected = Command(
        "echo",
        ["x"],
        id="i",
        tty=True,
        rows=1,
        cols=2,
        stdin=True,
        uid=3,
        gid=4,
        env=["A=b"],
        working_dir="/",
    )
    assert decode_client_message(raw) == Start(expected)
    assert decode_client_message(b'{"TYPE":"resize","ROWS":1,"Cols":2}') == Resize(1, 2)


def test_null_and_absent_fields_are_zero() -> None:
    names = ("args", "stdin", "tty", "rows", "cols", "uid", "gid", "env", "working_dir")
    assert decode_client_message(start(**dict.fromkeys(names))) == Start(Command("x"))
    assert decode_client_message(start()) == Start(Command("x"))
    null_id = b'{"type":"start","id":null,"command":{"command":null}}'
    assert decode_client_message(null_id) == Start(Command(""))
    assert decode_client_message(b'{"type":"resize"}') == Resize(0, 0)
    assert decode_client_message(b'{"type":"resize","rows":null,"cols":3}') == Resize(0, 3)
    assert decode_server_message(b'{"type":"pid","pid":1,"features":null}') == Pid(1)
    exit = b'{"type":"exit_code","exit_code":0,"error":null,"signal":null}'
    assert decode_server_message(exit) == ExitCode(0)


def test_a_status_that_is_missing_is_no_success() -> None:
    for raw in (b'{"type":"exit_code"}', b'{"type":"exit_code","exit_code":null,"error":""}'):
        with pytest.raises(ProtocolError, match=r"^exit_code message: exit_code is missing"):
            decode_server_message(raw)
    with pytest.raises(ProtocolError, match=r"^exit_code message: signal 0 ends nothing"):
        decode_server_message(b'{"type":"exit_code","exit_code":0,"signal":0}')


def test_unknown_types_are_ignored(decode: Decoder) -> None:
    for raw in (
        b'{"type":"nonsense"}\nbody',
        b'{"type":""}',
        b'{"type":null}',
        b"{}",
        b'{"type":"Stdin"}\nx',
        b'{"type":"STDOUT"}\nx',
    ):
        assert decode(raw) is None


def test_messages_for_the_other_side_are_ignored() -> None:
    for message in (Pid(1), ExitCode(1)):
        assert decode_client_message(message.encode()) is None
    assert decode_client_message(STDOUT_HEADER + b"x") is None
    for command in (Start(Command("x")), CloseStdin(), Resize(1, 1), Signal(1)):
        assert decode_server_message(command.encode()) is None
    assert decode_server_message(STDIN_HEADER + b"x") is None


def test_a_start_has_no_body() -> None:
    encoded = Start(Command("x")).encode()
    for blank in (b"", b"\n", b"\n\n", b"\n \t\r\n"):  # what JSON allows after a value
        assert decode_client_message(encoded + blank) == Start(Command("x"))
    with pytest.raises(ProtocolError, match="body"):
        decode_client_message(encoded + b"\nbody")


def test_features_that_are_not_known_are_kept() -> None:
    raw = b'{"type":"pid","pid":1,"features":["signal","future"],"reattached":true}\n'
    assert decode_server_message(raw) == Pid(1, ("signal", "future"), True)


# What is refused

REFUSED = [
    b"",
    b"\n",
    b"hello\n",
    b"[1,2]",
    b'"stdin"',
    b"5",
    b"null",
    b"\xff\xfe",
    b'{"type":"stdin"',
    b'{"type":5}',
    b'{"type":["stdin"]}',
    b'{"type":{}}',
    b'{"type":true}',
    b'{"type":"\xff"}',
    b'{"type":"stdin"}x\n',
    b'\xef\xbb\xbf{"type":"stdin"}',
    b'{"type":' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("raw", REFUSED, ids=lambda raw: repr(raw[:20]))
def test_what_is_no_message_is_refused(decode: Decoder, raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(raw)
    assert caught.value.close_code == 1011


WRONG = [
    ("rows", -1),
    ("rows", 65536),
    ("rows", 1.5),
    ("rows", "24"),
    ("rows", True),
    ("rows", []),
    ("cols", -1),
    ("cols", 65536),
    ("cols", "80"),
    ("uid", -1),
    ("uid", 2**32),
    ("uid", "root"),
    ("gid", -1),
    ("gid", 2**32),
    ("args", "hi"),
    ("args", [1]),
    ("args", [None]),
    ("args", {}),
    ("args", 1),
    ("args", ["a\0b"]),
    ("env", "A=b"),
    ("env", [[]]),
    ("env", ["A=\0"]),
    ("tty", 1),
    ("tty", "true"),
    ("stdin", 0),
    ("stdin", "true"),
    ("command", 5),
    ("command", ["x"]),
    ("command", "a\0b"),
    ("working_dir", 5),
    ("working_dir", "a\0b"),
    ("id", 5),
    ("id", ["x"]),
    ("id", "a\0b"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_command_names_the_field_that_is_wrong(name: str, value: object) -> None:
    fields: dict[str, Any] = {"command": "x", name: value}
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Command(**fields)


@pytest.mark.parametrize(("name", "value"), [*WRONG, ("command", 0), ("id", False), ("id", [])])
def test_a_start_that_has_a_wrong_field_is_refused(name: str, value: object) -> None:
    if name == "id":
        raw = json.dumps({"type": "start", "id": value, "command": {"command": "x"}}).encode()
    else:
        raw = start(**{name: value})
    with pytest.raises(ProtocolError, match=rf"^start message: {name}\b") as caught:
        decode_client_message(raw)
    assert caught.value.close_code == 1011
    assert len(str(caught.value)) < 300  # however large what was wrong


@pytest.mark.parametrize("value", [None, 5, "ls", ["ls"], True])
def test_a_start_without_a_command_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError, match="command"):
        decode_client_message(json.dumps({"type": "start", "command": value}).encode())
    with pytest.raises(ProtocolError, match="command"):
        decode_client_message(b'{"type":"start"}')


@pytest.mark.parametrize(
    "header",
    [
        '{"type":"resize","rows":-1,"cols":1}',
        '{"type":"resize","rows":1,"cols":65536}',
        '{"type":"resize","rows":1.0,"cols":1}',
        '{"type":"resize","rows":1e400,"cols":1}',
        '{"type":"resize","rows":NaN,"cols":1}',
        '{"type":"resize","rows":"1","cols":1}',
        '{"type":"resize","rows":true,"cols":1}',
        '{"type":"resize","rows":[],"cols":1}',
        '{"type":"resize","rows":%s,"cols":1}' % ("9" * 4000),
        '{"type":"resize","rows":%s,"cols":1}' % ("9" * 60_000),
        '{"type":"signal","signal":-1}',
        '{"type":"signal","signal":65}',
        '{"type":"signal","signal":"TERM"}',
        '{"type":"taken","stdout":-1}',
        '{"type":"taken","stderr":"1"}',
        '{"type":"taken","window":0}',
        '{"type":"start","command":{"command":"a"},"window":0}',
        '{"type":"start","command":{"command":"a","discard":["stdin"]}}',
        '{"type":"attach","id":"a","window":true}',
        '{"type":"close_output"}',
        '{"type":"close_output","stream":1}',
    ],
    ids=lambda header: header[:44],
)
def test_a_wrong_number_from_a_client_is_refused(header: str) -> None:
    with pytest.raises(ProtocolError):
        decode_client_message(header.encode())


@pytest.mark.parametrize(
    "header",
    [
        '{"type":"pid","pid":"1"}',
        '{"type":"pid","pid":1.5}',
        '{"type":"pid","pid":1,"features":"signal"}',
        '{"type":"pid","pid":1,"features":[1]}',
        '{"type":"pid","pid":1,"features":7}',
        '{"type":"exit_code","exit_code":"0"}',
        '{"type":"exit_code","exit_code":false}',
        '{"type":"exit_code","exit_code":0,"error":5}',
        '{"type":"exit_code","exit_code":0,"error":0}',
        '{"type":"exit_code","exit_code":0,"error":["x"]}',
        '{"type":"exit_code","exit_code":0,"signal":"x"}',
        '{"type":"exit_code","exit_code":0,"signal":-1}',
        '{"type":"exit_code","exit_code":-2}',
        '{"type":"ended"}',
        '{"type":"ended","exit_code":0,"signal":9}',
        '{"type":"taken","stdin":{}}',
        '{"type":"eof"}',
        '{"type":"eof","stream":"stdin"}',
        '{"type":"taken","stdin":-1}',
    ],
)
def test_a_wrong_field_from_a_server_is_refused(header: str) -> None:
    with pytest.raises(ProtocolError):
        decode_server_message(header.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FIELDS = """
type id command args env rows cols tty stdin uid gid working_dir
pid features reattached exit_code error signal window stdout stderr discard stream closed
"""
TYPES = """
start attach stdin close_stdin resize signal taken close_output pid stdout stderr ended exit_code
"""
field_names = st.sampled_from(FIELDS.split())
types = st.sampled_from(TYPES.split())
headers = st.builds(
    lambda kind, fields, command: {**fields, "type": kind, "command": command},
    types,
    st.dictionaries(field_names, json_values),
    st.dictionaries(field_names, json_values) | json_values,
)


@given(st.one_of(st.binary(), headers.map(lambda header: json.dumps(header).encode())))
def test_garbage_is_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):
            decode(raw)


def nested(kind: str, field: str, depth: int) -> bytes:
    value = "[" * depth + "]" * depth
    if kind == "start":
        return f'{{"type":"start","command":{{"command":"x","{field}":{value}}}}}'.encode()
    return f'{{"type":"{kind}","{field}":{value}}}'.encode()


def deepest() -> int:
    """Return how deeply nested a list Python's json reads in a message, about."""
    low, high = 1, 31_000
    while low < high:
        middle = (low + high + 1) // 2
        try:
            json.loads("[" * middle + "]" * middle)
            low = middle
        except RecursionError:
            high = middle - 1
    return low


@pytest.mark.parametrize(
    ("decode", "kind", "field"),
    [
        (decode_client_message, "start", "args"),
        (decode_client_message, "start", "rows"),
        (decode_client_message, "start", "working_dir"),
        (decode_client_message, "resize", "rows"),
        (decode_client_message, "nonsense", "x"),
        (decode_server_message, "pid", "features"),
        (decode_server_message, "exit_code", "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_deep_nesting_is_refused(decode: Decoder, kind: str, field: str) -> None:
    # What can just about be read must not be too deep for the words of the refusal.
    limit = deepest()
    depths = [*range(max(1, limit - 60), min(limit + 10, 31_000)), 100, limit // 2, 31_000]
    for depth in depths:
        raw = nested(kind, field, depth)
        assert len(raw) <= MAX_MESSAGE + 50
        if kind == "nonsense":
            with contextlib.suppress(ProtocolError):
                assert decode(raw) is None
        else:
            with pytest.raises(ProtocolError) as caught:
                decode(raw)
            assert len(str(caught.value)) < 300


# What a file name can be


def test_names_that_are_not_utf8_arrive_as_they_were() -> None:
    raw = b"caf\xe9 \xff"
    command = Command(os.fsdecode(raw), ["ä", os.fsdecode(raw)], working_dir=os.fsdecode(raw))
    encoded = Start(command).encode()
    encoded.decode()  # it is JSON in UTF-8 all the same
    message = decode_client_message(encoded)
    assert message == Start(command)
    assert isinstance(message, Start)
    assert os.fsencode(message.command.command) == raw


def test_text_is_written_as_it_is() -> None:
    # Escapes would make six bytes of two, and a long command line too long.
    assert "ä€😀".encode() in Start(Command("ä€😀")).encode()


# Frozen values


def test_a_command_can_be_compared_hashed_and_changed_by_replace_alone() -> None:
    assert Command("a", ["b"]) == Command("a", ("b",))
    assert hash(Command("a", ["b"])) == hash(Command("a", ("b",)))
    assert replace(FULL, rows=5).rows == 5
    with pytest.raises(AttributeError):
        FULL.rows = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^rows"):
        replace(FULL, rows=-1)


def test_a_command_takes_any_iterable_of_strings() -> None:
    assert Command("a", iter("bc")).args == ("b", "c")
    assert Command("a", env=(f"{name}=1" for name in "xy")).env == ("x=1", "y=1")


@pytest.mark.parametrize("value", ["hi", b"hi", None, 5, {"a": 1}, [b"x"]])
def test_lists_of_strings_are_not_guessed_at(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^args"):
        Command("x", value)
    with pytest.raises(TypeError, match=r"^env"):
        Command("x", env=value)


@pytest.mark.parametrize("make", [Resize, lambda rows, cols: Command("x", rows=rows, cols=cols)])
def test_a_size_is_two_16_bit_numbers(make: Callable[[Any, Any], object]) -> None:
    make(0, 0)
    make(65535, 65535)
    for rows, cols, name in ((-1, 0, "rows"), (65536, 0, "rows"), (0, -1, "cols")):
        with pytest.raises(ValueError, match=f"^{name} must be 0 to 65535"):
            make(rows, cols)
    with pytest.raises(TypeError, match=r"^rows"):
        make(1.0, 1)


# Signals in words


def test_every_signal_can_be_told_in_words() -> None:
    for number in range(1, 65):
        assert signal_from_message(signal_message(number)) == number
        assert signal_from_message(signal_message(number, core_dumped=True)) == number


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("signal: killed", 9),
        ("signal: terminated", 15),
        ("signal: hangup", 1),
        ("signal: segmentation fault (core dumped)", 11),
        ("signal: signal 34", 34),
        ("exit status 2", None),
        ("", None),
        ("signal: ", None),
        ("signal: signal -1", None),
        ("signal: signal 0", None),
        ("signal: signal 65", None),
        ("signal: signal 99999", None),
        ("signal: signal ²", None),
        ("killed", None),
    ],
)
def test_the_references_words_name_the_signal(words: str, number: int | None) -> None:
    assert signal_from_message(words) == number
    header = {"type": "exit_code", "exit_code": -1, "error": words}
    assert decode_server_message(json.dumps(header).encode()) == ExitCode(-1, words, number)


def test_the_number_counts_more_than_the_words() -> None:
    raw = b'{"type":"exit_code","exit_code":-1,"error":"signal: killed","signal":15}'
    assert decode_server_message(raw) == ExitCode(-1, "signal: killed", 15)


# Starts that failed

LONG_NAMES = [
    "x" * 123,
    "x" * 4000,
    "/" + "directory/" * 30 + "prog",
    "ä" * 200,
    "€" * 200,
    "😀" * 200,
    os.fsdecode(b"\xff" * 200),
    "x" * 20 + ": " * 60,
    "prog",
    "no such: thing",
    "😀 " * 7,
]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC])
@pytest.mark.parametrize("name", LONG_NAMES, ids=lambda name: ascii(name[:12]))
def test_the_cause_fits_into_a_close_reason(name: str, number: int) -> None:
    command = Command(name)
    error = start_error(number, name)
    reason = close_reason(start_failure(error, command))
    assert len(reason.encode()) <= 123
    again = start_error_from_reason(reason, command)
    assert type(again) is type(error)
    assert isinstance(again, StartOSError)
    assert (again.errno, again.filename) == (number, name)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR])
@pytest.mark.parametrize("name", LONG_NAMES, ids=lambda name: ascii(name[:12]))
def test_a_directory_is_told_from_a_command(name: str, number: int) -> None:
    command = Command("prog" * 50, working_dir=name)
    reason = close_reason(start_failure(start_error(number, name), command))
    again = start_error_from_reason(reason, command)
    assert isinstance(again, StartOSError)
    assert (again.errno, again.filename) == (number, name)


# ETOOMANYREFS, which no start fails with, has a colon in its words.
@given(st.sampled_from(sorted(n for n in errno.errorcode if ": " not in os.strerror(n))), names)
def test_every_errno_survives_the_way_to_the_client(number: int, name: str) -> None:
    command = Command(name)
    reason = close_reason(start_failure(start_error(number, name), command))
    again = start_error_from_reason(reason, command)
    assert isinstance(again, StartOSError)
    # Two numbers may have the same words.
    assert os.strerror(again.errno or 0) == os.strerror(number)


def test_a_failure_without_an_errno_keeps_its_words() -> None:
    reason = start_failure(StartError("no command"), Command(""))
    assert reason == "start command: no command"
    again = start_error_from_reason(reason, Command(""))
    assert type(again) is StartError
    assert "no command" in str(again)
    assert str(start_error_from_reason("", Command("x")))


def test_a_refusal_keeps_its_words() -> None:
    reason = start_failure(not_allowed("/bin/sh"), Command("/bin/sh"))
    assert reason == "start command: exec /bin/sh: not allowed"
    again = start_error_from_reason(reason, Command("/bin/sh"))
    assert isinstance(again, PermissionError)
    assert str(again) == str(not_allowed("/bin/sh"))
    assert (again.errno, again.strerror) == (errno.EACCES, "Not allowed")


@pytest.mark.parametrize(
    ("reason", "kind", "filename"),
    [
        ("start command: chdir /nope: no such file or directory", FileNotFoundError, "/nope"),
        (
            'start command: exec: "prog": executable file not found in $PATH',
            FileNotFoundError,
            "prog",
        ),
        ("start command: fork/exec prog: exec format error", OSError, "prog"),
        ("start command: fork/exec prog: permission denied", PermissionError, "prog"),
        ("start command: fork/exec prog: operation not permitted", PermissionError, "prog"),
        ("start command: chdir /nope: not a directory", NotADirectoryError, "/nope"),
    ],
)
def test_the_references_reasons_are_understood(
    reason: str, kind: type[OSError], filename: str
) -> None:
    error = start_error_from_reason(reason, Command("prog", working_dir="/nope"))
    assert isinstance(error, kind)
    assert isinstance(error, StartError)
    assert error.filename == filename


def test_the_module_knows_no_sockets_threads_or_clocks() -> None:
    used = {name for name, value in vars(messages).items() if type(value) is type(sys)}
    assert used <= {"errno", "json", "os"}
    assert FEATURES == ("taken", "ended", "close_output", "discard", "attach")
