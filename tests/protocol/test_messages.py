"""The messages: what is written, what is read, and that nothing read can do harm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_values import Decoder, names, start
from message_values import command as any_command

from wsep_sync import Command, ProtocolError
from wsep_sync.protocol.command import ADDITIONS
from wsep_sync.protocol.messages import (
    MAX_BODY,
    MAX_MESSAGE,
    STDERR_HEADER,
    STDIN_HEADER,
    STDOUT_HEADER,
    Attach,
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
from wsep_sync.protocol.words import signal_message

pytestmark = pytest.mark.thorough


def as_json(message: bytes) -> Any:
    """Return the header of a message without a body."""
    header, _, body = message.partition(b"\n")
    assert not body
    return json.loads(header)


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


ADDED = {
    "merge": True,
    "umask": 0o27,
    "clean_env": True,
    "argv0": "other",
    "user": "nobody",
    "group": "daemon",
    "groups": [7, "daemon"],
    "restore_signals": False,
}


@pytest.mark.parametrize("name", ADDED)
def test_an_addition_is_said_to_who_names_it(name: str) -> None:
    command = Command("ls", **{name: ADDED[name]})
    assert command.additions == {ADDITIONS[name]}
    assert as_json(Start(command).encode()) == as_json(Start(Command("ls")).encode())
    encoded = Start(command, command.additions).encode()
    assert as_json(encoded)["command"][name] == ADDED[name]
    assert decode_client_message(encoded) == Start(command)
    with pytest.raises(ProtocolError, match=name):
        decode_client_message(start(**{name: {}}))


def test_every_addition_is_among_these() -> None:
    assert ADDED.keys() == ADDITIONS.keys()


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
        (Echo(), b'{"type":"echo"}\n'),
        (Echo(False), b'{"type":"echo","on":false}\n'),
        (EchoIs(7, True), b'{"type":"echo","answers":7,"on":true}\n'),
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

commands = st.builds(
    any_command,
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
    st.builds(Echo, st.none() | st.booleans()),
)
statuses = st.one_of(
    st.builds(ExitCode, st.integers(0, 255), names),
    st.builds(ExitCode, st.just(-1), names.filter(lambda t: not t.startswith("signal"))),
    st.integers(1, 64).map(lambda number: ExitCode(-1, signal_message(number), number)),
)
server_messages = st.one_of(
    st.builds(EchoIs, st.integers(0, 2**48 - 1), st.booleans()),
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


def test_a_command_takes_paths_and_a_mapping_of_variables() -> None:
    made = Command(Path("/bin/ls"), working_dir=Path("/tmp"), env={"A": "b=c", "D": ""})
    assert made == Command("/bin/ls", working_dir="/tmp", env=["A=b=c", "D="])
    assert replace(made, working_dir=Path("/")).working_dir == "/"
    for name in ("", "A=B"):
        with pytest.raises(ValueError, match=r"^env: illegal environment variable name"):
            Command("a", env={name: "x"})
    with pytest.raises(TypeError, match=r"^command must be a string"):
        Command(b"ls")  # type: ignore[arg-type]
    # No client of any language could have meant that.
    with pytest.raises(ProtocolError, match=r"^start message: env must be a list of strings"):
        decode_client_message(start(env={"A": "b"}))


def test_an_id_is_for_a_terminal() -> None:
    with pytest.raises(ValueError, match=r"^id .* needs tty=True"):
        Command("sh", id="work")
    # What the reference's clients send is taken as the reference takes it.
    raw = b'{"type":"start","id":"work","command":{"command":"sh"}}'
    assert decode_client_message(raw) == Start(Command("sh"))
    with pytest.raises(ProtocolError, match=r"^start message: id must be a string"):
        decode_client_message(raw.replace(b'"work"', b"7"))


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
