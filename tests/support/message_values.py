"""Messages that are made up, and what reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from wsep_sync import Command
from wsep_sync.protocol.messages import (
    ClientMessage,
    ServerMessage,
    decode_client_message,
    decode_server_message,
)

DECODERS = [decode_client_message, decode_server_message]
Decoder = Callable[[bytes], "ClientMessage | ServerMessage | None"]


def start(**command: Any) -> bytes:
    return json.dumps({"type": "start", "command": {"command": "x", **command}}).encode()


def command(*args: Any, id: str, tty: bool, **fields: Any) -> Command:
    return Command(*args, id=id if tty else "", tty=tty, **fields)


# Everything a file name or an argument can be on POSIX, in the form that os.fsdecode gives it.
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    st.binary(max_size=30).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
)
