"""All that is written to a process and read from it, to its end: :class:`Communication`.

:class:`CommandLost` is raised when that end never comes.
"""

from __future__ import annotations

import io
from subprocess import SubprocessError
from typing import IO, Any

from ..errors import ExitMissing
from ..process import Process, ended
from ..streams.bounded_pipe import wait_a_while
from .copying import Collector, Feeder, remaining

__all__ = [
    "CommandLost",
    "Communication",
]


class CommandLost(ExitMissing, SubprocessError):
    """What the exit status is missing of was started by subprocess's face.

    Here, where subprocess is there anyway: an import of it costs a client more than the rest does.
    """


class Communication:
    """What ``communicate`` does with the streams that are piped and open.

    Args:
        process: Whose they are.
        stdin, stdout, stderr: The streams.
        input: What to write.

    Attributes:
        jobs: One for each stream, of the input first.
    """

    def __init__(
        self,
        process: Process,
        stdin: IO[Any] | None,
        stdout: IO[Any] | None,
        stderr: IO[Any] | None,
        input: Any,
    ) -> None:
        self._process = process
        self._feeder: Feeder | None = None
        if stdin is not None and not stdin.closed:
            data: Any = input
            if input is None:
                data = b""
            elif isinstance(stdin, io.TextIOWrapper):
                if not isinstance(input, str):
                    raise TypeError(f"input must be a str, not {type(input).__name__}")
                data = input.encode(stdin.encoding, stdin.errors or "strict")
            self._feeder = Feeder(stdin, memoryview(data).cast("B"))
        self._out, self._err = (
            Collector(file) if file is not None and not file.closed else None
            for file in (stdout, stderr)
        )
        jobs = (self._feeder, self._out, self._err)
        self.jobs = [job for job in jobs if job is not None]

    def run(self, deadline: float | None) -> bool:
        """Run what is to be done, the last output in this thread; False if not in time."""
        jobs = [job for job in (self._feeder, self._err, self._out) if job is not None]
        waiting = [job for job in jobs if job.thread is None and not job.done.is_set()]
        mine = None
        last = waiting[-1] if waiting else None
        if isinstance(last, Collector) and (deadline is None or last.timed()):
            mine = last
            waiting.pop()
        for job in waiting:
            job.start()
        if mine is not None:
            try:
                mine.run(deadline)
            except ExitMissing as error:
                if not ended(self._process, 0):
                    raise  # what a handler of a signal raises, as all other exceptions here
                mine.fail(error)
        for job in jobs:
            while not wait_a_while(job.done, remaining(deadline)):
                if remaining(deadline) == 0:
                    return False
        return True

    def busy(self) -> list[Feeder | Collector]:
        """Return the jobs whose threads are at work."""
        return [job for job in self.jobs if job.thread is not None and not job.done.is_set()]

    def so_far(self) -> tuple[bytes | None, bytes | None]:
        """Return what has come from stdout and from stderr until now."""
        out, err = (c.so_far() if c else None for c in (self._out, self._err))
        return out, err

    def result(self) -> tuple[Any, Any]:
        """Return what came from stdout and from stderr, ``None`` for one that is not piped."""
        out, err = (c.result() if c else None for c in (self._out, self._err))
        return out, err
