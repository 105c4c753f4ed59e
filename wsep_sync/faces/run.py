"""subprocess's functions over any execer: :func:`run` and those that are made of it."""

from __future__ import annotations

from subprocess import PIPE, STDOUT, CalledProcessError, CompletedProcess
from typing import TYPE_CHECKING, Any, cast, overload

from .copying import deadline_in, remaining
from .ending import ending

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from _typeshed import StrOrBytesPath
    from typing_extensions import Unpack

    from ..process import Execer
    from .options import (
        AnyInput,
        AnyOptions,
        CommandLine,
        File,
        InputInBytes,
        InputWithEncoding,
        InputWithErrors,
        InputWithNewlines,
        InputWithText,
        RunAny,
        RunInBytes,
        RunWithEncoding,
        RunWithErrors,
        RunWithNewlines,
        RunWithText,
    )

__all__ = [
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "run",
]


@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunWithText],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunWithEncoding],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunWithErrors],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunWithNewlines],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunInBytes],
) -> CompletedProcess[bytes]: ...
@overload
def run(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[RunAny],
) -> CompletedProcess[Any]: ...
def run(
    *popenargs: Any,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **kwargs: Any,
) -> Any:
    """Run a command to its end; see :func:`subprocess.run`, and :class:`Popen` for the arguments.

    Blocks until the command has ended. One that has not in time, or whose run is interrupted, is
    killed. A Ctrl-C is passed on to it a moment before.

    Args:
        input: What to write to its stdin.
        capture_output: Pipe stdout and stderr.
        timeout: Seconds it may take, connecting to where it runs included, except by ``execer``.
        check: Raise ``CalledProcessError`` unless it ends with status 0.

    Raises:
        TimeoutExpired: It took longer, or no connection was made in time.
        CalledProcessError: It failed, and ``check`` is true.
        ExitMissing: The connection ended before the exit status came.
        OSError, ConnectError, ValueError: As :class:`Popen`.
    """
    if input is not None:
        if kwargs.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        kwargs["stdin"] = PIPE
    if capture_output:
        if kwargs.get("stdout") is not None or kwargs.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        kwargs["stdout"] = kwargs["stderr"] = PIPE
    deadline = deadline_in(timeout)
    with ending(*popenargs, within=timeout, **kwargs) as process:
        out, err = process.communicate(input, remaining(deadline))
    code = process.returncode
    assert code is not None
    if check and code:
        raise CalledProcessError(code, process.args, out, err)
    return CompletedProcess(process.args, code, out, err)


def call(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[AnyOptions],
) -> int:
    """Run a command to its end and return its exit status; as :func:`run` in all else."""
    timeout = options.pop("timeout", None)
    deadline = deadline_in(timeout)
    streams = (stdin, stdout, stderr)
    with ending(args, bufsize, executable, *streams, within=timeout, **options) as process:
        return process.wait(remaining(deadline))


def check_call(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    **options: Unpack[AnyOptions],
) -> int:
    """Run a command to its end; as :func:`call`, but raise ``CalledProcessError`` if it fails."""
    code = call(args, bufsize, executable, stdin, stdout, stderr, **options)
    if code:
        raise CalledProcessError(code, args)
    return 0


@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    **options: Unpack[InputWithText],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    **options: Unpack[InputWithEncoding],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    **options: Unpack[InputWithErrors],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    **options: Unpack[InputWithNewlines],
) -> str: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    **options: Unpack[InputInBytes],
) -> bytes: ...
@overload
def check_output(
    args: CommandLine,
    bufsize: int = -1,
    executable: StrOrBytesPath | None = None,
    stdin: File = None,
    *,
    stderr: File = None,
    **options: Unpack[AnyInput],
) -> Any: ...
def check_output(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> Any:
    """Run a command to its end and return its output; as :func:`run` in all else.

    Raises:
        CalledProcessError: It failed; ``output`` is what it wrote.
    """
    for name in ("stdout", "check"):
        if name in kwargs:
            raise ValueError(f"{name} argument not allowed, it will be overridden.")
    if "input" in kwargs and kwargs["input"] is None:
        # No input is an empty one here, not ours; the type has to fit.
        is_text = any(map(kwargs.get, ("text", "universal_newlines", "encoding", "errors")))
        kwargs["input"] = "" if is_text else b""
    kwargs |= {"stdout": PIPE, "timeout": timeout, "check": True}
    return cast("Any", run)(*popenargs, **kwargs).stdout


def getstatusoutput(
    cmd: str | bytes,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    execer: Execer | None = None,
    url: str | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> tuple[int, str]:
    """Run a shell's command line; return its exit status and all its output, errors included.

    One newline at the end is taken off. Blocks and raises as :func:`run`.
    """
    result = run(
        cmd,
        shell=True,
        text=True,
        stdout=PIPE,
        stderr=STDOUT,
        encoding=encoding,
        errors=errors,
        execer=execer,
        url=url,
        token=token,
        headers=headers,
        ssl_context=ssl_context,
    )
    return result.returncode, result.stdout.removesuffix("\n")


def getoutput(
    cmd: str | bytes,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    execer: Execer | None = None,
    url: str | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> str:
    """Return what :func:`getstatusoutput` does, without the exit status."""
    return getstatusoutput(
        cmd,
        encoding=encoding,
        errors=errors,
        execer=execer,
        url=url,
        token=token,
        headers=headers,
        ssl_context=ssl_context,
    )[1]
