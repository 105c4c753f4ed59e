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
from measured import unmeasured
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
        env=unmeasured(environment(PYTHONWARNINGS="error", **variables)),
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


def documents(directory: Path, text: str) -> tuple[Path, Path]:
    readme, whole = directory / "README.md", directory / "docs" / "benchmarks.md"
    whole.parent.mkdir()
    for file in (readme, whole):
        file.write_text(text)
    return readme, whole


def test_the_sections_of_the_documents(tmp_path: Path) -> None:
    files = documents(tmp_path, "before\n<!-- benchmark -->\nstale\n<!-- /benchmark -->\nafter\n")
    saved = tmp_path / "result.json"
    measured(tmp_path, "--only", "command-line", "--write", str(tmp_path))
    texts = [file.read_text() for file in files]
    for written in texts:
        assert written.startswith("before\n<!-- benchmark -->\n\nMeasured on ")
        assert written.endswith("\n\n<!-- /benchmark -->\nafter\n")
        assert f"Python {sys.version.split()[0]}" in written
        assert "\n| wsep-sync notty -- true | " in written
        assert "stale" not in written
        for private in (socket.gethostname(), str(tmp_path), os.getcwd(), sys.prefix):
            assert private not in written
    # Again, from what was saved.
    done = bench("--from", str(saved), "--write", str(tmp_path), "--markdown")
    assert done.returncode == 0, done.stderr
    assert [file.read_text() for file in files] == texts
    assert done.stdout in texts[1]


def test_the_readme_has_but_what_a_user_decides_by(tmp_path: Path) -> None:
    files = documents(tmp_path, "<!-- benchmark -->\n<!-- /benchmark -->\n")
    measured(tmp_path, "--only", "server-output", "--only", "echo", "--write", str(tmp_path))
    short, whole = (
        re.findall(r"^\| (.*?) *\|", file.read_text(), re.MULTILINE)[2:] for file in files
    )
    assert short == ["A key's echo: median"]
    assert {*short, "A key's echo: 99 of 100 within"} < set(whole)
    assert any(title.startswith("Output, the server alone") for title in whole)


@pytest.mark.parametrize("without", ["README.md", "docs/benchmarks.md"])
def test_a_document_without_a_place_for_it(without: str, tmp_path: Path) -> None:
    documents(tmp_path, "<!-- benchmark -->\n<!-- /benchmark -->\n")
    document = tmp_path / without
    document.write_text("nothing\n")
    done = bench("--short", "--write", str(tmp_path))
    assert done.returncode == 2
    assert f"{without}: there must be one <!-- benchmark -->" in done.stderr
    assert document.read_text() == "nothing\n"
