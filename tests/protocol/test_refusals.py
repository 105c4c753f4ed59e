"""The messages: what is refused, and that nothing read can do harm."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_values import DECODERS, Decoder, start

from wsep_sync import Command, ProtocolError
from wsep_sync.protocol.messages import MAX_MESSAGE, decode_client_message, decode_server_message

pytestmark = pytest.mark.thorough


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
        '{"type":"echo","on":1}',
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
