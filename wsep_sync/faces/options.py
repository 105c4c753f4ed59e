"""The types of what people pass to run a command, each option spelled out once.

None of this is needed when it runs. The result has text or bytes in it, as four options say, any of
which means text: so there is a set of options for each, for type checkers to tell them apart.

What may be given by its position has no place in a set: the overloads of :class:`.Popen` and of
:func:`.run` and its kin have that, and have to have it once more for each set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import ssl

    from _typeshed import ReadableBuffer, StrOrBytesPath
    from typing_extensions import Required

    from ..process import Execer

__all__ = [
    "AnyInput",
    "AnyOptions",
    "CommandLine",
    "Env",
    "File",
    "InputInBytes",
    "InputWithEncoding",
    "InputWithErrors",
    "InputWithNewlines",
    "InputWithText",
    "MapAny",
    "MapInBytes",
    "MapWithEncoding",
    "MapWithText",
    "OptionsInBytes",
    "OptionsWithEncoding",
    "OptionsWithErrors",
    "OptionsWithNewlines",
    "OptionsWithText",
    "RunAny",
    "RunInBytes",
    "RunWithEncoding",
    "RunWithErrors",
    "RunWithNewlines",
    "RunWithText",
]

CommandLine: TypeAlias = "StrOrBytesPath | Sequence[StrOrBytesPath]"
Env: TypeAlias = "Mapping[str, StrOrBytesPath] | Mapping[bytes, StrOrBytesPath]"
File: TypeAlias = "int | IO[Any] | None"


# What every call takes.


class _Options(TypedDict, total=False):
    """What has no part in the type of the result."""

    preexec_fn: Callable[[], Any] | None
    close_fds: bool
    shell: bool
    cwd: StrOrBytesPath | None
    env: Env | None
    startupinfo: Any
    creationflags: int
    restore_signals: bool
    start_new_session: bool
    pass_fds: Sequence[int]
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    pipesize: int
    process_group: int | None
    execer: Execer | None
    url: str | None
    tty: bool
    size: tuple[int, int] | None
    id: str
    clean_env: bool
    token: str | None
    headers: Mapping[str, str] | None
    ssl_context: ssl.SSLContext | None
    timeout: float | None


class OptionsWithText(_Options, total=False):
    text: Required[Literal[True]]
    universal_newlines: bool | None
    encoding: str | None
    errors: str | None


class OptionsWithEncoding(_Options, total=False):
    text: bool | None
    universal_newlines: bool | None
    encoding: Required[str]
    errors: str | None


class OptionsWithErrors(_Options, total=False):
    text: bool | None
    universal_newlines: bool | None
    encoding: str | None
    errors: Required[str]


class OptionsWithNewlines(_Options, total=False):
    text: bool | None
    universal_newlines: Required[Literal[True]]
    encoding: str | None
    errors: str | None


class OptionsInBytes(_Options, total=False):
    text: Literal[False] | None
    universal_newlines: Literal[False] | None
    encoding: None
    errors: None


class AnyOptions(_Options, total=False):
    text: bool | None
    universal_newlines: bool | None
    encoding: str | None
    errors: str | None


# What those take that see a command to its end.


class _Text(TypedDict, total=False):
    input: str | None


class _Bytes(TypedDict, total=False):
    input: ReadableBuffer | None


class _Any(TypedDict, total=False):
    input: ReadableBuffer | str | None


class InputWithText(OptionsWithText, _Text):
    pass


class InputWithEncoding(OptionsWithEncoding, _Text):
    pass


class InputWithErrors(OptionsWithErrors, _Text):
    pass


class InputWithNewlines(OptionsWithNewlines, _Text):
    pass


class InputInBytes(OptionsInBytes, _Bytes):
    pass


class AnyInput(AnyOptions, _Any):
    pass


# run()


class _Run(TypedDict, total=False):
    capture_output: bool
    check: bool


class RunWithText(InputWithText, _Run):
    pass


class RunWithEncoding(InputWithEncoding, _Run):
    pass


class RunWithErrors(InputWithErrors, _Run):
    pass


class RunWithNewlines(InputWithNewlines, _Run):
    pass


class RunInBytes(InputInBytes, _Run):
    pass


class RunAny(AnyInput, _Run):
    pass


# map()


class _Map(TypedDict, total=False):
    progress: bool
    check: bool
    stdin: File
    stdout: File
    stderr: File


class MapWithText(InputWithText, _Map):
    pass


class MapWithEncoding(InputWithEncoding, _Map):
    pass


class MapInBytes(InputInBytes, _Map):
    pass


class MapAny(AnyInput, _Map):
    pass
