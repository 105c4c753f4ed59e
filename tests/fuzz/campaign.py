"""Numbered cases, each made from a seed, in several threads; and what is said of one that fails."""

from __future__ import annotations

import faulthandler
import itertools
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable

__all__ = ["Case", "CaseFailed", "Check", "run_cases", "say", "shortened"]

# How long a case may take before it is said to hang. The longest of ours should have is 10 s.
_HANGS_AFTER = 60.0

# Of the notes of a case that failed, all together, so many characters are shown; and of what it
# raised.
_SHOWN = 4000


class CaseFailed(AssertionError):
    """A case found something; the text says what, and all that is needed to do it again."""


class Case:
    """One generated case.

    Attributes:
        number: Within its run.
        chance: Where everything random in it comes from.
    """

    def __init__(self, kind: str, seed: int, number: int) -> None:
        self.kind = kind
        self.seed = seed
        self.number = number
        self.chance = random.Random(f"{seed}/{kind}/{number}")
        self.began = time.monotonic()
        self._notes: list[tuple[str, object]] = []

    def note(self, what: str, data: object) -> None:
        """Remember what the case consists of, for the report."""
        self._notes.append((what, data))

    def describe(self, shown: int = _SHOWN) -> str:
        """Return what is needed to do it again, with so many characters of all notes."""
        again = f"--seed {self.seed} --only {self.kind} --case {self.number}"
        lines = [f"{self.kind}, case {self.number}; again, from tests/: python -m fuzz {again}"]
        for what, data in self._notes:
            lines.append(f"  {what}: {shortened(repr(data), shown // len(self._notes))}")
        return "\n".join(lines)


#: Does one case; whatever it raises has been found.
Check = Callable[[Case], None]


def run_cases(
    kind: str,
    seed: int,
    numbers: Iterable[int],
    check: Check,
    *,
    workers: int = 4,
    on_hang: Callable[[], str] = lambda: "",
) -> int:
    """Do cases in several threads at once; return how many there were.

    Args:
        kind: The name of the kind.
        seed: The run's.
        numbers: Which cases.
        check: Does one case.
        workers: How many threads. Cases of different threads meet in the server.
        on_hang: Called when a case seems to hang; what it returns goes into the report.

    Raises:
        CaseFailed: The first that failed. The other threads end after the case they are in.
    """
    campaign = _Campaign(kind, seed, numbers, check)
    # What a thread of the code under test dies of is found, too.
    former, threading.excepthook = threading.excepthook, campaign.note_death
    try:
        campaign.run(workers, on_hang)
    finally:
        threading.excepthook = former
    if campaign.failures:
        raise CaseFailed("\n\n".join(campaign.failures))
    return campaign.done


class _Campaign:
    def __init__(self, kind: str, seed: int, numbers: Iterable[int], check: Check) -> None:
        self._kind, self._seed, self._check = kind, seed, check
        self._lock = threading.Lock()  # guards what follows
        self._rest = iter(numbers)
        self._running: dict[int, Case] = {}  # by thread
        self.failures: list[str] = []
        self.done = 0

    def run(self, workers: int, on_hang: Callable[[], str]) -> None:
        """Block until all is done, one has failed, or one hangs."""
        ended = threading.Semaphore(0)  # a permit for each thread that has ended

        def work() -> None:
            try:
                self._work()
            finally:
                ended.release()

        # Daemons: one that hangs must not keep the program.
        threads = [
            threading.Thread(target=work, name=f"fuzz-{self._kind}-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            if ended.acquire(timeout=1):
                left -= 1
            elif hanging := self._hanging():
                raise CaseFailed(f"{hanging}\nhangs.\n{_own_stacks()}\n{on_hang()}")
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                number = next(self._rest, None)
                if number is None or self.failures:
                    return
                case = self._running[me] = Case(self._kind, self._seed, number)
            try:
                self._check(case)
            except Exception:
                with self._lock:
                    others = [c.number for c in self._running.values() if c is not case]
                    self.failures.append(
                        f"{case.describe()}\n{shortened(traceback.format_exc(), _SHOWN)}\n"
                        f"at the same time there were cases {others}"
                    )
            with self._lock:
                del self._running[me]
                self.done += 1

    def _hanging(self) -> str:
        """Describe the cases that take too long."""
        with self._lock:
            return "\n".join(
                case.describe()
                for case in self._running.values()
                if time.monotonic() - case.began > _HANGS_AFTER
            )

    def note_death(self, args: threading.ExceptHookArgs) -> None:
        """Be the hook for what a thread dies of."""
        text = "".join(
            traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        )
        with self._lock:
            cases = "\n".join(case.describe(shown=400) for case in self._running.values())
            self.failures.append(f"a thread died in one of these cases:\n{cases}\n{text}")


def shortened(text: str, shown: int) -> str:
    """Return a text, or so many characters of its beginning and its end."""
    if len(text) <= shown:
        return text
    return f"{text[: shown // 2]} ... {text[-shown // 2 :]} ({len(text)} characters)"


def _own_stacks() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def batches(numbers: Iterable[int], size: int) -> Iterable[list[int]]:
    """Cut into lists of a size, the last perhaps shorter."""
    rest = iter(numbers)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True, file=sys.stdout)
