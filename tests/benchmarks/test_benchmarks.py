"""The benchmarks do what they say, whatever time it takes: each row once in its short form."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import listening
from programs import environment

RUN = Path(__file__).parent / "run.py"

ROWS = (
    "input",
    "output",
    "server-input",
    "server-output",
    "crowd",
    "terminal",
    "echo",
    "busy-echo",
    "held",
    "command",
    "command-line",
    "import",
)


def bench(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        # All Pythons that it starts heed it, too.
        env=environment(PYTHONWARNINGS="error", **variables),
        check=False,
    )


def measured(tmp_path: Path, *arguments: str, **variables: str) -> tuple[dict[str, Any], str]:
    """Run it; return what it wrote and what it printed."""
    file = tmp_path / "result.json"
    done = bench("--short", "--json", str(file), *arguments, **variables)
    assert done.returncode == 0, (done.stdout, done.stderr)
    # It may find this machine noisy, and nothing else.
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines()), done.stderr
    return json.loads(file.read_text()), done.stdout


def line_of(figure: dict[str, Any], name: str) -> dict[str, Any]:
    (line,) = [line for line in figure["lines"] if line["name"] == name]
    return dict(line)


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS)
def test_row(row: str, tmp_path: Path) -> None:
    result, printed = measured(tmp_path, "--only", row)
    (content,) = result["rows"]
    assert content["key"] == row
    assert content["title"] in printed
    for figure in content["figures"]:
        ours = [line for line in figure["lines"] if line["role"] == "ours"]
        assert ours
        for line in figure["lines"]:
            # Only what is to be compared with may be missing.
            if line["role"] == "other" and "absent" in line:
                assert f"({line['absent']})" in printed
                continue
            assert len(line["samples"]) == result["repetitions"]
            assert all(map(math.isfinite, line["samples"]))
            value = line["value"]
            assert value["low"] <= value["median"] <= value["high"]


def test_rows_are_all() -> None:
    done = bench("--only", "nothing")
    assert done.returncode == 2
    choices = re.search(r"\(choose from (.*)\)", done.stderr)
    assert choices, done.stderr
    assert re.findall(r"[\w-]+", choices[1]) == list(ROWS)


def test_another_server(tmp_path: Path) -> None:
    with listening() as listener:
        result, printed = measured(
            tmp_path, "--only", "server-output", WSEP_REFERENCE_URL=listener.url
        )
    (figure,) = result["rows"][0]["figures"]
    assert line_of(figure, "reference")["value"]["median"] > 0
    assert "reference" in printed


def test_another_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"ws://127.0.0.1:{sock.getsockname()[1]}"
    result, printed = measured(tmp_path, "--only", "server-output", WSEP_REFERENCE_URL=url)
    (figure,) = result["rows"][0]["figures"]
    assert "refused" in line_of(figure, "reference")["absent"]
    assert "refused" in printed


def test_a_wrong_result_is_a_failure(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    done = bench("--short", "--only", "output", "--against", str(python))
    assert done.returncode == 1
    assert done.stderr.startswith("broken: "), done.stderr
    assert "status 3" in done.stderr


def test_the_section_of_a_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark -->\nstale\n<!-- /benchmark -->\nafter\n")
    saved = tmp_path / "result.json"
    measured(tmp_path, "--only", "import", "--readme", str(readme))
    written = readme.read_text()
    assert written.startswith("before\n<!-- benchmark -->\n\nMeasured on ")
    assert written.endswith("\n\n<!-- /benchmark -->\nafter\n")
    assert f"Python {sys.version.split()[0]}" in written
    assert "\n| import wsep_sync | " in written
    assert "stale" not in written
    for private in (socket.gethostname(), str(tmp_path), os.getcwd(), sys.prefix):
        assert private not in written
    # Again, from what was saved.
    done = bench("--from", str(saved), "--readme", str(readme), "--markdown")
    assert done.returncode == 0, done.stderr
    assert readme.read_text() == written
    assert done.stdout in written


def test_a_readme_without_a_place_for_it(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    done = bench("--short", "--readme", str(readme))
    assert done.returncode == 2
    assert "<!-- benchmark -->" in done.stderr
    assert readme.read_text() == "nothing\n"
