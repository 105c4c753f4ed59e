"""One command on many servers: :func:`map`."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, CalledProcessError, CompletedProcess
from typing import TYPE_CHECKING, Any, AnyStr, Generic, overload

from ..errors import StartError, WsepError, suppress_system
from ..execers.local.execer import LocalExecer
from ..lazy import importing
from ..process import Execer, Process
from ..protocol.command import Command
from ..streams.wakeup import a_while
from .copying import deadline_in, remaining
from .ending import ending
from .popen import Popen

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import CommandLine, MapAny, MapInBytes, MapWithEncoding, MapWithText

__all__ = [
    "Outcome",
    "map",
]


@dataclass(frozen=True)
class Outcome(Generic[AnyStr]):
    """What became of the command on one server.

    Attributes:
        url: The server; "" if it was an execer.
        result: The command's status and outputs, if it ran to its end.
        error: Why it did not: ``ConnectError``, ``FileNotFoundError``, ``TimeoutExpired``,
            ``ExitMissing`` or another that :func:`~wsep_sync.run` raises.
        execer: The execer, if it was one.
    """

    url: str
    result: CompletedProcess[AnyStr] | None = None
    error: Exception | None = None
    execer: Execer | None = None


@overload
def map(
    command: CommandLine,
    urls: Iterable[str | Execer],
    max_workers: int = 32,
    **options: Unpack[MapWithText],
) -> Iterator[Outcome[str]]: ...
@overload
def map(
    command: CommandLine,
    urls: Iterable[str | Execer],
    max_workers: int = 32,
    **options: Unpack[MapWithEncoding],
) -> Iterator[Outcome[str]]: ...
@overload
def map(
    command: CommandLine,
    urls: Iterable[str | Execer],
    max_workers: int = 32,
    **options: Unpack[MapInBytes],
) -> Iterator[Outcome[bytes]]: ...
@overload
def map(
    command: CommandLine,
    urls: Iterable[str | Execer],
    max_workers: int = 32,
    **options: Unpack[MapAny],
) -> Iterator[Outcome[Any]]: ...
def map(
    command: CommandLine,
    urls: Iterable[str | Execer],
    max_workers: int = 32,
    *,
    progress: bool = False,
    **options: Any,
) -> Iterator[Outcome[Any]]:
    """Run a command on many servers at once and yield each outcome as it comes.

    Nothing runs before the first outcome is asked for. Asking for the next one blocks until there
    is one. Leaving the loop early, by an exception or Ctrl-C too, kills the commands that still
    run and starts no others; that blocks until they have ended, or for as long as a connection
    may take to be made.

    Args:
        command: As for :func:`~wsep_sync.run`.
        urls: The servers, or execers, which are left open. They are taken as they are needed, so
            there may be any number.
        max_workers: How many commands run at the same time, each with a thread of its own.
        progress: Show a progress bar on stderr; needs tqdm, the extra ``progress``.
        options: As for :func:`~wsep_sync.run`; ``timeout`` is for each command by itself,
            and for connecting to it. By default stdout and stderr are captured and stdin is empty.

    Yields:
        An :class:`Outcome` for each of them. A failure is a value, not raised; a non-zero exit
        status is one of those only with ``check=True``.

    Raises:
        ImportError: There is no tqdm to show progress with.
        TypeError: ``urls`` is one string, or an option is unknown or of the wrong type.
        ValueError: ``max_workers`` is not positive; ``execer`` or ``url`` among the options; or
            options that do not go together, wherever it be.
    """
    if isinstance(urls, (str, bytes)):
        raise TypeError(f"urls must be a list of them, not one {type(urls).__name__}")
    if max_workers < 1:
        raise ValueError(f"max_workers must be 1 or more, not {max_workers}")
    for name in ("execer", "url"):
        if options.get(name) is not None:
            raise ValueError(f"{name}: the servers are those of urls")
    fan_out = _FanOut(command, options)
    fan_out.check()
    bar = None
    if progress:
        bar = _progress_bar(len(urls) if isinstance(urls, Sized) else None)
    return _outcomes(fan_out, iter(urls), max_workers, bar)


def _outcomes(
    fan_out: _FanOut, urls: Iterator[str | Execer], max_workers: int, bar: Any
) -> Iterator[Outcome[Any]]:
    # It takes its time, which those who run one command need not spend.
    with importing:
        from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    with bar if bar is not None else contextlib.nullcontext():
        # Its threads end in shutdown(), once what they run has ended, which stop() sees to.
        pool = ThreadPoolExecutor(max_workers, thread_name_prefix="wsep-map")
        try:
            running = {pool.submit(fan_out.run, url) for url in itertools.islice(urls, max_workers)}
            while running:
                done, running = wait(running, a_while(), return_when=FIRST_COMPLETED)
                for url in itertools.islice(urls, len(done)):
                    running.add(pool.submit(fan_out.run, url))
                for future in done:
                    if bar is not None:
                        bar.update()
                    yield future.result()
        finally:
            fan_out.stop()
            pool.shutdown()


# Those of the options that execers have no use for.
_CONNECTING = ("token", "headers", "ssl_context")


class _WouldStart(Exception):
    """All is well with the options."""


class _Nowhere(LocalExecer):
    """Where nothing can be wrong with options but what is so everywhere."""

    def start(self, command: Command) -> Process:  # noqa: ARG002
        raise _WouldStart


class _FanOut:
    """The commands of one :func:`map` that run."""

    def __init__(self, command: CommandLine, options: dict[str, Any]) -> None:
        self._command = command
        self._input = options.pop("input", None)
        self._timeout: float | None = options.pop("timeout", None)
        self._check: bool = options.pop("check", False)
        self._options: dict[str, Any] = {"stdout": PIPE, "stderr": PIPE, **options}
        if self._input is None:
            self._options.setdefault("stdin", DEVNULL)
        elif self._options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        else:
            self._options["stdin"] = PIPE
        self._lock = threading.Lock()  # guards the two below
        self._running: set[Popen[Any]] = set()
        self._stopped = False

    def check(self) -> None:
        """Raise what is wrong with the options wherever the command runs; start nothing."""
        # What is for connecting has no place at an execer. A file that is missing, and a user whom
        # nobody knows here, may be there.
        options = {n: v for n, v in self._options.items() if n not in _CONNECTING}
        with contextlib.suppress(_WouldStart, OSError, StartError, KeyError):
            Popen(self._command, execer=_Nowhere(), **options)

    def run(self, where: str | Execer) -> Outcome[Any]:
        url, execer = (where, None) if isinstance(where, str) else ("", where)
        try:
            return Outcome(url, self._run(where), execer=execer)
        except Exception as error:
            return Outcome(url, error=_without_frames(error), execer=execer)

    def _run(self, where: str | Execer) -> CompletedProcess[Any]:
        options = self._options
        if isinstance(where, str):
            options = {**options, "url": where}
        else:
            options = {n: v for n, v in options.items() if n not in _CONNECTING}
            options["execer"] = where
        deadline = deadline_in(self._timeout)
        with ending(self._command, within=self._timeout, **options) as process:
            with self._lock:
                self._running.add(process)
                stopped = self._stopped
            try:
                if stopped:
                    process.kill()
                out, err = process.communicate(self._input, remaining(deadline))
            finally:
                with self._lock:
                    self._running.discard(process)
        code = process.returncode
        assert code is not None
        if self._check and code:
            raise CalledProcessError(code, process.args, out, err)
        return CompletedProcess(process.args, code, out, err)

    def stop(self) -> None:
        """End what runs, and what may yet be started, with SIGKILL."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            with suppress_system(OSError, WsepError):
                process.kill()
        for process in running:
            # Somebody whom the command left behind may hold its outputs open.
            process.process.close()


def _without_frames(error: Exception) -> Exception:
    """Take their tracebacks from an error and from all that it came of; return it.

    They would hold everything that was at work here; and that, which has the outcome, holds them.
    """
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            rest += [one.__cause__, one.__context__]
    return error


def _progress_bar(total: int | None) -> Any:
    try:
        with importing:
            from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            "progress=True needs tqdm: pip install '.[progress]' in the clone (see README)",
            name="tqdm",
        ) from error

    class Bar(tqdm):  # type: ignore[misc]
        # A thread that redraws bars which stand still, for ever: not in somebody else's program.
        monitor_interval = 0

    # tqdm's own is one for several processes, too.
    Bar.set_lock(threading.RLock())
    return Bar(total=total, unit="server")
