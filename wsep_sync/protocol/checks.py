"""What a message's fields may be: checks that name the field, and never its value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "MAX_POSITION",
    "MAX_WINDOW",
    "OUTPUTS",
    "check_groups",
    "check_number",
    "check_output",
    "check_string",
    "check_strings",
    "check_token",
    "check_url",
    "check_window",
    "flag_of",
    "kind_of",
    "number_of",
]


#: The largest position in a stream, and so the largest window, in bytes: 256 TiB.
MAX_WINDOW = MAX_POSITION = 0xFFFF_FFFF_FFFF


OUTPUTS = ("stdout", "stderr")


# What a header can hold of a token (RFC 6750).
_TOKEN = re.compile(r"[!-~]+")

# A URL's beginning with a user, and perhaps a password, be the rest of it well formed or not.
_USER = re.compile(r"(?:[^/?#]*//)?[^/?#]*@")


def kind_of(value: object) -> str:
    """Return what kind of value it is, in JSON's words."""
    if isinstance(value, Mapping):
        return "an object"
    kinds = {bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "a list"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def check_strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {kind_of(values)}")
    strings = tuple(values)
    for string in strings:
        check_string(name, string)
    return strings


def check_string(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {kind_of(value)}")
    if "\0" in value:
        raise ValueError(f"{name} has a NUL byte in it")


def check_groups(name: str, values: Iterable[int | str]) -> tuple[int | str, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of names and numbers, not {kind_of(values)}")
    groups = tuple(values)
    for group in groups:
        if isinstance(group, str):
            check_string(name, group)
        else:
            check_number(name, group, 0xFFFF_FFFF)
    return groups


def check_number(name: str, value: object, largest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {kind_of(value)}")
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must be 0 to {largest}")


def check_window(value: object) -> None:
    check_number("window", value, MAX_POSITION)
    if not value:
        raise ValueError("window must be above 0")


def check_output(name: str, value: object) -> None:
    check_string(name, value)
    if value not in OUTPUTS:
        raise ValueError(f"{name} must be stdout or stderr")


def number_of(header: Mapping[str, Any], name: str) -> int:
    value = header.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {kind_of(value)}")
    return value


def check_token(token: str) -> str:
    """Return a token as it can be sent in a header, without the line's end that a file adds.

    Raises:
        ValueError: It cannot. The message does not contain it.
    """
    token = token.rstrip("\r\n")
    if not token:
        raise ValueError("the token is empty")
    if not _TOKEN.fullmatch(token):
        raise ValueError("a token must be printable ASCII characters, and no spaces")
    return token


def check_url(url: str) -> None:
    """Refuse a user and a password in the URL of a server, which would be sent nowhere.

    Raises:
        ValueError: They are there. The message does not contain them.
    """
    if _USER.match(url):
        raise ValueError(
            "a URL is no place for a user and a password: a server takes a token (token=, "
            "--token-file, $WSEP_TOKEN), a proxy in front of it perhaps the header Authorization"
        )


def flag_of(header: Mapping[str, Any], name: str) -> bool | None:
    value: bool | None = header.get(name)
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, not {kind_of(value)}")
    return value
