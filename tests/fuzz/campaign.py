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
    lock = threading.Lock()  # guards what follows
    rest = iter(numbers)
    running: dict[int, Case] = {}  # by thread
    failures: list[str] = []
    done = 0
    ended = threading.Semaphore(0)  # a permit for each thread that has ended

    def work() -> None:
        nonlocal done
        me = threading.get_ident()
        try:
            while True:
                with lock:
                    number = next(rest, None)
                    if number is None or failures:
                        return
                    case = running[me] = Case(kind, seed, number)
                try:
                    check(case)
                except Exception:
                    with lock:
                        others = [c.number for c in running.values() if c is not case]
                        failures.append(
                            f"{case.describe()}\n{shortened(traceback.format_exc(), _SHOWN)}\n"
                            f"at the same time there were cases {others}"
                        )
                with lock:
                    del running[me]
                    done += 1
        finally:
            ended.release()

    # Daemons: one that hangs must not keep the program.
    threads = [
        threading.Thread(target=work, name=f"fuzz-{kind}-{i}", daemon=True) for i in range(workers)
    ]
    # What a thread of the code under test dies of is found, too.
    former = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        text = "".join(
            traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        )
        with lock:
            cases = "\n".join(case.describe(shown=400) for case in running.values())
            failures.append(f"a thread died in one of these cases:\n{cases}\n{text}")

    threading.excepthook = hook
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            if ended.acquire(timeout=1):
                left -= 1
                continue
            with lock:
                hanging = [
                    case
                    for case in running.values()
                    if time.monotonic() - case.began > _HANGS_AFTER
                ]
                described = "\n".join(case.describe() for case in hanging)
            if hanging:
                raise CaseFailed(f"{described}\nhangs.\n{_own_stacks()}\n{on_hang()}")
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = former
    if failures:
        raise CaseFailed("\n\n".join(failures))
    return done


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
