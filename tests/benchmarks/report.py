"""What a run says: a table, sections in Markdown, a chart. All come of the JSON file's content."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import LIMIT, OTHER, OURS, Spread

__all__ = [
    "chart",
    "machine",
    "markdown",
    "noise",
    "noisy",
    "replace_section",
    "table",
    "versions",
]

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"

# By what a user decides, and the README shows: of which row which figure, and who of us, as the
# table calls them.
_SHORT = {
    ("input", "rate"): ("", "[speed]"),
    ("output", "rate"): ("",),
    ("crowd", "rate"): ("",),
    ("terminal", "rate"): ("",),
    ("echo", "median"): ("",),
    ("busy-echo", "median"): ("",),
    ("held", "memory"): ("connected", "sessions, left"),
    ("command", "exit"): ("",),
    ("command-line", "exit"): ("",),
}

# When the distance of the quartiles is more than this part of the median, a figure is not worth
# much; of the limit it means that it is the machine's doing.
_NOISY = 0.2

# How many processes per processor may want to run when a run begins.
_BUSY = 0.3


# The machine


def machine() -> dict[str, Any]:
    """Return what kind of machine this is. Its name is nobody's business."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    release = re.match(r"\d+\.\d+", platform.release())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {release[0] if release else ''}".strip(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {"Python": platform.python_version()}
    for name in ("wsep-sync", "websocket-client", "simple-websocket", "wsproto", "pyghostty"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    ssh = shutil.which("ssh")
    if ssh is not None:
        said = subprocess.run([ssh, "-V"], capture_output=True, text=True, check=False).stderr
        version = re.match(r"OpenSSH_([\w.]+)", said)
        if version:
            found["OpenSSH"] = version[1]
    return found


def noise() -> list[str]:
    """Return what is wrong with this machine before anything is measured."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    if load > _BUSY * cores:
        return [f"the load average is {load:.1f} on {cores} processors: something else runs"]
    return []


def noisy(row: Mapping[str, Any]) -> list[str]:
    """Return what was so noisy in a row that its figures are not worth much."""
    found = []
    for figure in row["figures"]:
        for line in _present(figure):
            spread = Spread(**line["value"])
            if spread.relative > _NOISY and line["role"] != OTHER:
                name = f"{row['key']}, {line['name']}"
                what = figure["title"] or figure["name"]
                found.append(f"{name}: {what} varies by {spread.relative:.0%}")
    return found


# The table


def table(row: Mapping[str, Any]) -> str:
    """Return a row for the terminal, with the quartiles in brackets."""
    lines = [row["title"]]
    for figure in row["figures"]:
        if figure["title"]:
            lines.append(f"  {figure['title']}")
        for line in figure["lines"]:
            text = f"    {line['name']:32}"
            if "absent" in line:
                lines.append(f"{text}  -  ({line['absent']})")
                continue
            value = Spread(**line["value"])
            text += f"{_number(value.median):>9} {figure['unit']:5}{_range(value):20}"
            compared, _ = _compared(line, figure)
            target = _target(line, figure)
            lines.append(f"{text}{compared:28}{target}".rstrip())
    return "\n".join(lines)


def _present(figure: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (line for line in figure["lines"] if "absent" not in line)


def _number(value: float) -> str:
    """Return a number with three digits that say something."""
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def _range(spread: Spread) -> str:
    return f"({_number(spread.low)}-{_number(spread.high)})"


def _compared(line: Mapping[str, Any], figure: Mapping[str, Any]) -> tuple[str, str]:
    """Return how a line compares with the limit: with the quartiles, and without."""
    if "ratio" in line:
        spread = Spread(**line["ratio"])
        text = f"{_number(spread.median)}x"
        return f"{text} {_range(spread)}", text
    if "difference" in line:
        spread = Spread(**line["difference"])
        text = f"{spread.median:+.3g} {figure['unit']}"
        return f"{text} {_range(spread)}", text
    return "", ""


def _target(line: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    if "target" not in line:
        return ""
    target = line["target"]
    sign = "≥" if figure["higher_is_better"] else "≤"
    bound = f"{target['bound']:.3g}"
    if target["of"] == "ratio":
        text = f"{sign} {bound}x"
    elif target["of"] == "difference":
        text = f"{sign} +{bound} {figure['unit']}"
    else:
        text = f"{sign} {target['bound']:g} {figure['unit']}"
    return f"{text}: {'holds' if target['holds'] else 'MISSED'}"


# Markdown


def markdown(run: Mapping[str, Any], *, short: bool = False, picture: str = "") -> str:
    """Return a section: about the run, its table, and what was wrong with it.

    Args:
        run: What is in the JSON file.
        short: Only with what the README shows.
        picture: Path of the chart, as seen from the file that the section is for.
    """
    figures = [
        (row, figure)
        for row in run["rows"]
        for figure in row["figures"]
        if not short or (row["key"], figure["name"]) in _SHORT
    ]
    others = list(
        dict.fromkeys(
            line["name"]
            for _, figure in figures
            for line in _present(figure)
            if line["role"] == OTHER
        )
    )
    heads = ["", "limit", "wsep_sync", "to the limit", "target", *others]
    lines = [_about(run), "", _cells(heads), _cells(["---"] * len(heads))]
    for row, figure in figures:
        named = {line["name"]: line for line in _present(figure)}
        limit = next((line for line in named.values() if line["role"] == LIMIT), None)
        ours = {_variant(line): line for line in named.values() if line["role"] == OURS}
        wanted = _SHORT[row["key"], figure["name"]] if short else tuple(ours)
        for i, (name, line) in enumerate((n, ours[n]) for n in wanted if n in ours):
            title = row["title"] + (f": {figure['title']}" if figure["title"] else "")
            cells = [f"{title} ({name})" if name else title]
            cells.append(_value(limit, figure, f" ({limit['name']})") if limit else "")
            cells += [_value(line, figure), _compared(line, figure)[1], _target(line, figure)]
            cells += [_value(named[n], figure) if n in named and not i else "" for n in others]
            lines.append(_cells(cells))
    absent = sorted(
        {
            f"{line['name']}: {line['absent']}"
            for _, figure in figures
            for line in figure["lines"]
            if "absent" in line
        }
    )
    for text in absent:
        lines += ["", f"Not measured: {text}."]
    warnings = list(run["warnings"])
    if varying := sum(len(noisy(row)) for row in run["rows"]):
        warnings.append(f"{varying} figures vary by more than {_NOISY:.0%}")
    if warnings:
        lines += ["", f"The machine was noisy: {'; '.join(warnings)}."]
    if picture:
        lines += ["", f"![The figures as a chart]({picture})"]
    return "\n".join(lines) + "\n"


def _about(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    cores = f"{machine['cores']} processors"
    where = f"{machine['cpu']}, {cores}, {machine['memory_gib']} GiB, {machine['system']}"
    with_what = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (
        f"Measured on {where}, with {with_what}. Medians of {run['repetitions']} repetitions, in "
        "turns with the limit, which is the same job with nothing around it; comparisons are "
        "medians, too, each with the limit's value of the same turn."
    )


def _variant(line: Mapping[str, Any]) -> str:
    """Return how the table calls one of ours: by what makes it another than the plain one."""
    name: str = line["name"]
    return name.removeprefix("wsep_sync").strip(", ")


def _value(line: Mapping[str, Any], figure: Mapping[str, Any], more: str = "") -> str:
    return f"{_number(line['value']['median'])} {figure['unit']}".strip() + more


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def replace_section(text: str, section: str) -> str:
    """Put a section between the two markers of a text.

    Raises:
        ValueError: The markers are not there.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"there must be one {BEGIN} and, behind it, one {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section}\n{END}{after}"


# The chart


def chart(run: Mapping[str, Any], path: str) -> None:
    """Draw what is fast, and what is soon, beside the limits. Needs matplotlib (extra `bench`)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    panels = (
        ("MB/s (more is better)", ("MB/s",), False),
        ("µs (less is better)", ("µs", "ms"), True),
    )
    drawn = [
        [
            (row, figure)
            for row in run["rows"]
            for figure in row["figures"]
            if figure["unit"] in units and any(line["role"] == OURS for line in _present(figure))
        ]
        for _, units, _ in panels
    ]
    heights = [sum(len(list(_present(f))) + 1.5 for _, f in figures) or 1 for figures in drawn]
    picture, axes = pyplot.subplots(
        len(panels), 1, figsize=(10, 1.5 + 0.22 * sum(heights)), height_ratios=heights
    )
    for axis, figures, (label, _, logarithmic) in zip(axes, drawn, panels, strict=True):
        _draw(axis, figures)
        axis.set_xlabel(label)
        if logarithmic:
            axis.set_xscale("log")
    picture.tight_layout()
    picture.savefig(path, dpi=110)
    pyplot.close(picture)


_COLORS = {LIMIT: "#b8b8b8", OURS: "#2a6fb0", OTHER: "#d9a441"}


def _draw(axis: Any, figures: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    position = 0.0
    ticks, labels = [], []
    for row, figure in figures:
        title = row["title"] + (f": {figure['title']}" if figure["title"] else "")
        axis.text(
            0, position, title, transform=axis.get_yaxis_transform(), fontsize=8, weight="bold"
        )
        scale = 1000 if figure["unit"] == "ms" else 1
        for line in _present(figure):
            position += 1
            value = Spread(**line["value"])
            median = value.median * scale
            errors = [[median - value.low * scale], [value.high * scale - median]]
            axis.barh(position, median, color=_COLORS[line["role"]], xerr=errors, height=0.8)
            ticks.append(position)
            labels.append(line["name"])
        position += 1.5
    axis.set_yticks(ticks, labels, fontsize=8)
    axis.set_ylim(position - 0.5, -1)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
