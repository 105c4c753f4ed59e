"""How fast wsep_sync is, beside what the machine could do.

    python tests/benchmarks/run.py [--short] [--only ROW] [--json FILE] [--chart FILE]

Prints a table. It takes some minutes, on a machine that should do nothing else meanwhile. Each
value is a median, its quartiles in brackets; `x` the ratio to the limit of the same row.

The exit status is 1 when a result is wrong, and never because of time. Other wsep servers can be
measured beside this one: WSEP_REFERENCE_URL names one, which must run on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import report
import starts
import terminals
import transfers
from bench import LONG, SHORT, Bench
from harness import Broken, measure
from processes import variants

# What the tables stand in: the short one, with the chart, and the whole one.
DOCUMENTS = (SHORT_TABLE, WHOLE_TABLE) = ("README.md", "docs/benchmarks.md")

ROWS = {row.key: row for row in (*transfers.ROWS, *terminals.ROWS, *starts.ROWS)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="do little: only see if it is right")
    parser.add_argument(
        "--only", action="append", choices=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}"
    )
    parser.add_argument(
        "--against", metavar="PYTHON", help="measure another installation, too: that Python's"
    )
    parser.add_argument("--json", metavar="FILE", help="write all that was measured")
    parser.add_argument("--from", dest="saved", metavar="FILE", help="measure nothing: take this")
    parser.add_argument("--chart", metavar="FILE", help="draw a picture (needs the extra bench)")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument(
        "--write", metavar="DIRECTORY", help=f"put it into {' and '.join(DOCUMENTS)} in there"
    )
    arguments = parser.parse_args()
    if arguments.chart:
        try:
            import matplotlib  # noqa: F401 - now, and not after minutes
        except ImportError:
            parser.error("--chart needs matplotlib, which the extra bench installs")
    for document in DOCUMENTS if arguments.write else ():
        try:
            report.replace_section(Path(arguments.write, document).read_text(), "")
        except (OSError, ValueError) as error:
            parser.error(f"{document}: {error}")
    return arguments


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, and print each row when it is there.

    Raises:
        Broken: A result is wrong.
    """
    scale = SHORT if arguments.short else LONG
    rows: list[dict[str, Any]] = []
    result = {
        "machine": report.machine(),
        "versions": report.versions(),
        "repetitions": scale.repetitions,
        "warnings": report.noise(),
        "rows": rows,
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(
            scale,
            variants(arguments.against),
            Path(directory),
            os.environ.get("WSEP_REFERENCE_URL") or None,
        )
        for key in arguments.only or ROWS:
            rows.append(measure(ROWS[key], bench))
            if not arguments.markdown:
                print(report.table(rows[-1]), flush=True)
    return result


def write(document: Path, section: str) -> None:
    document.write_text(report.replace_section(document.read_text(), section))


def main() -> int:
    # So that what runs is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parse()
    try:
        if arguments.saved:
            result = json.loads(Path(arguments.saved).read_text())
        else:
            result = run(arguments)
    except Broken as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    warnings = [*result["warnings"], *chain.from_iterable(map(report.noisy, result["rows"]))]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if arguments.chart:
        report.chart(result, arguments.chart)
    if arguments.markdown:
        print(report.markdown(result), end="")
    if arguments.write:
        picture = os.path.relpath(arguments.chart, arguments.write) if arguments.chart else ""
        write(
            Path(arguments.write, SHORT_TABLE), report.markdown(result, short=True, picture=picture)
        )
        write(Path(arguments.write, WHOLE_TABLE), report.markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
