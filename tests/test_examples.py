"""Examples that change files: what fails there is told, leaves nothing behind, and is no success.

That each example works is for `run_examples.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import url
from helpers import SECONDS

__all__ = ["url"]

COPY_FILE = Path(__file__).parent.parent / "examples" / "copy_file.py"


def copy_file(*arguments: str | Path) -> tuple[int, str]:
    """Run the example; return its status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", COPY_FILE, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def test_a_file_there_and_back(url: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    assert copy_file("put", url, tmp_path / "a", tmp_path / "b") == (0, "")
    assert copy_file("get", url, tmp_path / "b", tmp_path / "c") == (0, "")
    assert [(tmp_path / name).read_bytes() == data for name in "abc"] == [True] * 3
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_getting_a_file_that_is_missing_leaves_none(url: str, tmp_path: Path) -> None:
    status, said = copy_file("get", url, tmp_path / "missing", tmp_path / "here")
    assert status == 1
    assert "missing" in said
    assert "No such file" in said
    assert os.listdir(tmp_path) == []


def test_getting_a_file_that_is_missing_leaves_the_old_one(url: str, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("old")
    assert copy_file("get", url, tmp_path / "missing", tmp_path / "here")[0] == 1
    assert (tmp_path / "here").read_text() == "old"
    assert os.listdir(tmp_path) == ["here"]


@pytest.mark.parametrize("size", [5, 5_000_000])
def test_putting_to_a_missing_directory_tells_the_real_error(
    url: str, tmp_path: Path, size: int
) -> None:
    (tmp_path / "here").write_bytes(bytes(size))
    status, said = copy_file("put", url, tmp_path / "here", tmp_path / "missing" / "there")
    assert status == 1
    # In the words of the shell over there, which differ.
    assert "missing/there" in said
    assert "nonexistent" in said or "No such file" in said


@pytest.mark.parametrize("size", [5, 5_000_000])
def test_a_full_disk_is_no_success(url: str, tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(bytes(size))
    for direction in ("put", "get"):
        status, said = copy_file(direction, url, tmp_path / "a", "/dev/full")
        assert status == 1
        assert "No space left" in said


def test_a_local_file_that_cannot_be_read_or_made(url: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("data")
    status, said = copy_file("put", url, tmp_path / "none", tmp_path / "b")
    assert (status, "none" in said) == (1, True)
    status, said = copy_file("get", url, tmp_path / "a", tmp_path / "none" / "b")
    assert (status, "none" in said) == (1, True)
    assert os.listdir(tmp_path) == ["a"]


def test_no_server(tmp_path: Path) -> None:
    status, said = copy_file("get", "ws://127.0.0.1:1", "a", tmp_path / "a")
    assert (status, "ws://127.0.0.1:1" in said) == (1, True)
    assert os.listdir(tmp_path) == []


def test_the_web_terminal_without_its_packages_says_what_to_do(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "web_terminal"
    shutil.copytree(example, tmp_path / "here", ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "here" / "server.py"), "0"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"run 'npm install' in {tmp_path / 'here'} first" in done.stderr.decode()
