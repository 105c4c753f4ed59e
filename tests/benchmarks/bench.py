"""What is the same for all rows of a run: how much is done, with what, and the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from harness import LIMIT, OTHER, Absent, Contender, Target
from openssh import openssh
from processes import Variant, Worker, server

__all__ = ["LONG", "SHORT", "Bench", "Scale"]

MB = 1_000_000

OPENSSH, REFERENCE = "OpenSSH", "reference"

#: A function that the process of a worker calls: see `processes.Worker`.
Job: TypeAlias = "Callable[..., dict[str, float]]"


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        repetitions: Of each contender.
        data: Bytes that go through pipes and sockets in one repetition.
        terminal_data: Bytes that a program prints on a terminal.
        commands: Commands that are run one after the other.
        keys: Keys that are typed.
        programs: Programs that are run one after the other, where each is a Python's start.
        terminals: Terminals that are held at once.
        seconds: How long a repetition may take.
    """

    repetitions: int
    data: int
    terminal_data: int
    commands: int
    keys: int
    programs: int
    terminals: int
    seconds: float


LONG = Scale(
    repetitions=7,
    data=500 * MB,
    terminal_data=64 * MB,
    commands=100,
    keys=2000,
    programs=5,
    terminals=300,
    seconds=300.0,
)

#: As little as shows whether the results are right.
SHORT = Scale(
    repetitions=2,
    data=3 * MB,
    terminal_data=MB,
    commands=3,
    keys=20,
    programs=1,
    terminals=10,
    seconds=50.0,
)


class Bench:
    """A run.

    Args:
        scale: How much is done.
        variants: The installations that are measured.
        directory: For files, for the time of the run.
        reference: The URL of another wsep server on this machine, to compare with.
    """

    def __init__(
        self, scale: Scale, variants: list[Variant], directory: Path, reference: str | None
    ) -> None:
        self.scale = scale
        self.variants = variants
        self.directory = directory
        self.reference = reference

    def worker(
        self, stack: ExitStack, job: Job, variant: Variant | None = None, **arguments: Any
    ) -> Worker:
        """Start a process that does a job, until the stack ends it."""
        worker = Worker(job, self.scale.seconds, variant or Variant(), **arguments)
        return stack.enter_context(worker)

    def limit(self, stack: ExitStack, job: Job, name: str, **arguments: Any) -> Contender:
        """Return the limit, whose repetitions a process of its own does."""
        return Contender(name, self.worker(stack, job, **arguments).call, LIMIT)

    def ours(
        self,
        stack: ExitStack,
        job: Job,
        targets: Mapping[str, Target] | None = None,
        fast: Mapping[str, Target] | None = None,
        **arguments: Any,
    ) -> list[Contender]:
        """Return a contender for each server, which is given to the job as `url`.

        Args:
            targets: What they are to reach.
            fast: What those with the extra "speed" are to reach, if it is something else.
        """
        contenders = []
        for variant in self.variants:
            url = stack.enter_context(server(variant)).url
            worker = self.worker(stack, job, variant, url=url, **arguments)
            aims = fast if variant.fast and fast is not None else targets
            contenders.append(Contender(variant.name, worker.call, targets=aims or {}))
        if self.reference is not None:
            worker = self.worker(stack, job, url=self.reference, **arguments)
            contenders.append(Contender(REFERENCE, worker.call, OTHER))
        return contenders

    def openssh(self, stack: ExitStack, job: Job, **arguments: Any) -> Contender:
        """Return OpenSSH, whose command line is given to the job as `command`."""
        try:
            command = stack.enter_context(openssh())
        except Absent as error:
            return Contender.missing(OPENSSH, error)
        worker = self.worker(stack, job, command=command, **arguments)
        return Contender(OPENSSH, worker.call, OTHER)

    def data(self) -> str:
        """Return a file of what goes through pipes and sockets, no two blocks of it alike."""
        path = self.directory / "data"
        if not path.exists():
            block = os.urandom(MB - 8)
            with path.open("wb") as file:
                for number in range(self.scale.data // MB):
                    file.write(number.to_bytes(8, "big") + block)
                # Now, and not while something is measured.
                file.flush()
                os.fsync(file)
        return str(path)

    def part(self, parts: int) -> str:
        """Return a file of an equal part of the data, for each of some clients at once."""
        path = self.directory / "part"
        if not path.exists():
            with open(self.data(), "rb") as data:
                path.write_bytes(data.read(self.scale.data // parts))
        return str(path)

    def text(self) -> str:
        """Return a file of lines, the last of which tells that it is."""
        path = self.directory / "text"
        if not path.exists():
            with path.open("wb") as file:
                for number in range(1, self.scale.terminal_data // LINE + 1):
                    file.write(b"%08d %s\n" % (number, b"text, which asks nothing; " * 2))
        return str(path)


#: The length of a line of :meth:`Bench.text`, in bytes.
LINE = 62
