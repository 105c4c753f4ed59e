"""How a row is measured: its contenders in turns, several times, and what is said of the times.

A row is one job that several contenders do: wsep_sync, the limit (the same job with nothing
around it), and others. A repetition of a contender gives all the row's figures. Contenders take
turns, so that what else the machine does meets all of them; each value is compared with the
limit's of the same turn, and medians are taken of what comes out.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench import Bench

__all__ = [
    "LIMIT",
    "OTHER",
    "OURS",
    "Absent",
    "Broken",
    "Contender",
    "Figure",
    "Row",
    "Spread",
    "Target",
    "measure",
]

# What a contender is in the table.
LIMIT, OURS, OTHER = "limit", "ours", "other"


class Broken(Exception):
    """What came out is wrong, whatever time it took."""


class Absent(Exception):
    """Something to compare with is not here, or does not work; says why."""


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the quartiles below and above it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    @property
    def relative(self) -> float:
        """The distance of the quartiles, as a part of the median."""
        return (self.high - self.low) / abs(self.median) if self.median else 0.0


@dataclass(frozen=True)
class Figure:
    """One number of a row.

    Attributes:
        name: What it is called in what a repetition gives.
        title: What it is, where the row's title does not say it.
        unit: Its unit.
        compare: How it is compared with the limit's: "ratio", "difference", or "" for not at all.
    """

    name: str
    unit: str
    title: str = ""
    compare: str = "ratio"
    higher_is_better: bool = False


@dataclass(frozen=True)
class Target:
    """What a median is to be: at least, or at most, this.

    Attributes:
        of: What is meant: the "ratio" to the limit, the "difference" from it, or the "value".
    """

    bound: float
    of: str = "ratio"


@dataclass(frozen=True)
class Contender:
    """One that does a row's job.

    Attributes:
        measure: Does it once, and returns the figures by their names.
        role: LIMIT, OURS or OTHER. An OTHER that fails is left out, with the reason.
        targets: By the names of figures.
        absent: Why it cannot take part.
    """

    name: str
    measure: Callable[[], Mapping[str, float]]
    role: str = OURS
    targets: Mapping[str, Target] = field(default_factory=dict)
    absent: str = ""

    @classmethod
    def missing(cls, name: str, reason: object) -> Contender:
        return cls(name, dict, OTHER, absent=str(reason))


@dataclass(frozen=True)
class Row:
    """One job.

    Attributes:
        key: Its name on the command line.
        title: What is done.
        set_up: Starts what the contenders need, which the stack ends, and returns them.
    """

    key: str
    title: str
    figures: tuple[Figure, ...]
    set_up: Callable[[Bench, ExitStack], list[Contender]]


def measure(row: Row, bench: Bench) -> dict[str, Any]:
    """Measure a row; return it as it stands in the JSON file.

    Raises:
        Broken: A result is wrong.
    """
    with ExitStack() as stack:
        contenders = row.set_up(bench, stack)
        missing = {c.name: c.absent for c in contenders if c.absent}
        taking_part = [c for c in contenders if not c.absent]
        samples: dict[str, list[Mapping[str, float]]] = {c.name: [] for c in taking_part}
        for turn in range(-1, bench.scale.repetitions):
            # Each begins a turn as often as the others, as what runs first may find things cold.
            first = turn % len(taking_part)
            for contender in taking_part[first:] + taking_part[:first]:
                if contender.name in missing:
                    continue
                try:
                    figures = contender.measure()
                except (Broken, Absent) as error:
                    if contender.role != OTHER:
                        raise Broken(f"{row.key}, {contender.name}: {error}") from error
                    missing[contender.name] = _reason(error)
                    continue
                if turn >= 0:  # the first one warms up
                    samples[contender.name].append(figures)
    return {
        "key": row.key,
        "title": row.title,
        "figures": [
            {
                "name": figure.name,
                "title": figure.title,
                "unit": figure.unit,
                "higher_is_better": figure.higher_is_better,
                "lines": [
                    {"role": c.role, "name": c.name, "absent": missing[c.name]}
                    if c.name in missing
                    else _line(figure, c, taking_part, samples)
                    for c in contenders
                    # The limit may have no part in it.
                    if c.name in missing or figure.name in samples[c.name][0]
                ],
            }
            for figure in row.figures
        ],
    }


def _reason(error: Exception) -> str:
    """Return an error's words; of a traceback, the last line without the exception's name."""
    return re.sub(r"^[\w.]+: ", "", str(error).strip().splitlines()[-1])


def _line(
    figure: Figure,
    contender: Contender,
    contenders: list[Contender],
    samples: Mapping[str, list[Mapping[str, float]]],
) -> dict[str, Any]:
    values = [float(sample[figure.name]) for sample in samples[contender.name]]
    line: dict[str, Any] = {
        "role": contender.role,
        "name": contender.name,
        "samples": values,
        "value": vars(Spread.of(values)),
    }
    limits = [c.name for c in contenders if c.role == LIMIT]
    if limits and figure.compare and contender.role != LIMIT:
        pairs = zip(values, samples[limits[0]], strict=True)
        compared = [
            value / limit[figure.name] if figure.compare == "ratio" else value - limit[figure.name]
            for value, limit in pairs
        ]
        line[figure.compare] = vars(Spread.of(compared))
    target = contender.targets.get(figure.name)
    if target is not None:
        median = line[target.of]["median"]
        line["target"] = {
            "of": target.of,
            "bound": target.bound,
            "holds": median >= target.bound if figure.higher_is_better else median <= target.bound,
        }
    return line
