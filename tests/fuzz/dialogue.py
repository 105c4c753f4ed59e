"""Schedules of the two sides of a connection, joined in memory: what may happen, in any order."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable, Sequence

from fuzz.campaign import Case, CaseFailed, say, shortened
from fuzz.joined import CLIENTS, FEATURE_SETS, NONSENSE, STATUSES, Joined, Setup

__all__ = ["explore", "run"]

# How many steps are tried in one schedule; most that cannot happen yet, or any more, cost nothing.
_STEPS = (5, 20, 40, 80)

_NAMES = ("stdout", "stderr")

# Of input, in bytes: pieces of what is typed, messages that are full, and more than the window.
_INPUT = (1, 10, 5000, 64_000, 64_000, 300_000, 2_000_000)

# What may happen: with its arguments, drawn from a generator.
_Step = tuple[str, Callable[[random.Random, Setup], tuple[object, ...]]]


def _few(chance: random.Random, setup: Setup) -> tuple[int]:
    return (chance.choice((1, 1, 2, 3, 100)),)


def _input(chance: random.Random, setup: Setup) -> tuple[int]:
    return (chance.choice(_INPUT),)


def _output(chance: random.Random, setup: Setup) -> tuple[str, int]:
    window = setup.window
    return chance.choice(_NAMES), chance.choice((1, window // 3 + 1, window, 3 * window))


def _name(chance: random.Random, setup: Setup) -> tuple[str]:
    return (chance.choice(_NAMES),)


def _nothing(chance: random.Random, setup: Setup) -> tuple[()]:
    return ()


_USUAL: tuple[_Step, ...] = (
    ("client_receives", _few),
    ("client_reads", _output),
    ("client_writes", _input),
    ("client_resizes", _nothing),
    ("client_signals", _nothing),
    ("client_ends_input", _nothing),
    ("client_closes_output", _name),
    ("client_says_nothing_new", _nothing),
    ("server_receives", _few),
    ("server_starts", _nothing),
    ("server_says", _nothing),
    ("server_prints", _output),
    ("server_prints", _output),
    ("server_notes_closing", _name),
    ("command_prints", _output),
    ("command_ends_output", _name),
    ("command_reads", _input),
    ("command_closes_input", _nothing),
    (
        "command_ends",
        lambda chance, setup: (chance.choice(STATUSES), setup.tty or chance.random() < 0.5),
    ),
)

# What moves the connection on has to come often enough for the rest to mean something.
_OFTEN = frozenset(
    ("client_receives", "server_receives", "server_starts", "server_says", "server_prints")
)

# What may come between.
_DISTURBANCES: tuple[_Step, ...] = (
    ("cut", lambda chance, setup: (chance.randrange(4), chance.randrange(4))),
    ("client_errs", lambda chance, setup: (chance.choice(NONSENSE),)),
    ("client_leaves", _nothing),
    ("server_cannot_start", _nothing),
    ("server_goes_away", _nothing),
    ("server_has_waited", _nothing),
    (
        "command_ends_output",
        lambda chance, setup: (chance.choice(_NAMES), chance.choice(("", "lost"))),
    ),
)


def _setup(chance: random.Random) -> Setup:
    return Setup(
        client=chance.choice(CLIENTS),
        window=chance.choice((1, 2, 10, 100, 1000, 70_000)),
        features=chance.choice(FEATURE_SETS),
        stdin=chance.random() < 0.7,
        tty=chance.random() < 0.3,
        attach=chance.random() < 0.1,
        eager=chance.random() < 0.3,
        greedy=chance.random() < 0.2,
        capacity=chance.choice((1, 100, 1 << 18, 1 << 22)),
    )


def _steps(chance: random.Random) -> list[_Step]:
    # Some things often and others never, or else every schedule is much like the others.
    weights = [chance.choice((3, 10) if name in _OFTEN else (0, 1, 3, 10)) for name, _ in _USUAL]
    steps = chance.choices(_USUAL, weights, k=chance.choice(_STEPS))
    if chance.random() < 0.5:
        for _ in range(chance.choice((1, 1, 2, 3))):
            steps.insert(chance.randrange(len(steps) + 1), chance.choice(_DISTURBANCES))
    return steps


def explore(case: Case) -> Joined:
    """Do one schedule, and what follows of it; return what it was done over."""
    chance = case.chance
    setup = _setup(chance)
    case.note("setup", setup)
    schedule: list[tuple[object, ...]] = []
    case.note("schedule", schedule)
    joined = Joined(setup)
    if chance.random() < 0.95:
        joined.client_starts()
    for name, draw in _steps(chance):
        arguments = draw(chance, setup)
        schedule.append((name, *arguments))
        getattr(joined, name)(*arguments)
    joined.run_on()
    return joined


def run(seed: int, numbers: Sequence[int]) -> int:
    """Run cases; return how many there were.

    Raises:
        CaseFailed: One has failed.
    """
    ends: Counter[str] = Counter()
    for number in numbers:
        case = Case("dialogue", seed, number)
        try:
            joined = explore(case)
        except Exception:
            text = shortened(traceback.format_exc(), 4000)
            raise CaseFailed(f"{case.describe(16_000)}\n{text}") from None
        ends[joined.client.state.name + (", disturbed" if joined.disturbed else "")] += 1
    say(f"dialogue: ends of clients: {dict(ends)}")
    return len(numbers)
