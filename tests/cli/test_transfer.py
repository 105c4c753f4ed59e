"""Much data through `notty`: exact to the byte, and in flat memory."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import IO

import pytest
from programs import finish, run, running, server_process

MB = 1_000_000
MOST_MEMORY = 80 * MB  # of each process


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 100 MB, no two blocks alike."""
    path = tmp_path_factory.mktemp("transfer") / "data"
    block = os.urandom(MB - 8)
    with path.open("wb") as file:
        for number in range(100):
            file.write(number.to_bytes(8, "big") + block)
    return path


def digest(file: IO[bytes], size: int) -> str:
    """Read that many bytes, and return their SHA-256."""
    hash = hashlib.sha256()
    while size:
        piece = file.read(min(size, MB))
        assert piece, f"{size} bytes are missing"
        hash.update(piece)
        size -= len(piece)
    return hash.hexdigest()


def peak(process: subprocess.Popen[bytes]) -> int:
    """The largest resident size that a process has had, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match, status
    return int(match[1]) * 1024


def test_in(data: Path, tmp_path: Path) -> None:
    with data.open("rb") as file:
        expected = digest(file, 100 * MB)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = 'sha256sum; read go < "$1"'
    with (
        server_process() as (url, server),
        data.open("rb") as file,
        running(
            "notty", "--url", url, "--", "sh", "-c", script, "sh", str(fifo), stdin=file
        ) as client,
    ):
        assert client.stdout is not None
        assert client.stdout.readline().split()[0].decode() == expected
        peaks = [peak(client), peak(server)]
        fifo.write_text("go\n")
        assert finish(client) == (0, b"", b"")
    assert max(peaks) < MOST_MEMORY, peaks


def test_back(data: Path, tmp_path: Path) -> None:
    hash = hashlib.sha256()
    for _ in range(2):
        with data.open("rb") as file:
            for piece in iter(lambda: file.read(MB), b""):
                hash.update(piece)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = 'cat "$1" "$1"; read go < "$2"'
    with (
        server_process() as (url, server),
        running(
            "notty", "-n", "--url", url, "--", "sh", "-c", script, "sh", str(data), str(fifo)
        ) as client,
    ):
        assert client.stdout is not None
        assert digest(client.stdout, 200 * MB) == hash.hexdigest()
        peaks = [peak(client), peak(server)]
        fifo.write_text("go\n")
        assert finish(client) == (0, b"", b"")
    assert max(peaks) < MOST_MEMORY, peaks


def test_there_and_back_at_once(data: Path) -> None:
    # Client and server are one process here.
    with data.open("rb") as file:
        expected = digest(file, 100 * MB)
        file.seek(0)
        with running("notty", "--", "cat", stdin=file) as client:
            assert client.stdout is not None
            hash = hashlib.sha256()
            for _ in range(99):
                hash.update(client.stdout.read(MB))
            measured = peak(client)  # it is still there, as the rest is more than a pipe holds
            hash.update(client.stdout.read(MB))
            assert hash.hexdigest() == expected
            assert finish(client) == (0, b"", b"")
    assert measured < MOST_MEMORY


def test_both_outputs_as_fast_as_they_go(data: Path) -> None:
    script = 'cat "$1" >&2 & cat "$1"; wait'
    with data.open("rb") as file:
        expected = digest(file, 100 * MB)
    with running("notty", "-n", "--", "sh", "-c", script, "sh", str(data)) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        digests: list[str] = []
        thread = threading.Thread(
            target=lambda: digests.append(digest(client.stderr, 100 * MB))  # type: ignore[arg-type]
        )
        thread.start()
        digests.append(digest(client.stdout, 100 * MB))
        thread.join()
        assert digests == [expected, expected]
        assert finish(client) == (0, b"", b"")


def test_lines_on_both_outputs_in_turn() -> None:
    script = "i=0; while [ $i -lt 30000 ]; do echo $i; echo $i >&2; i=$((i+1)); done"
    done = run("notty", "-n", "--", "sh", "-c", script)
    expected = b"".join(b"%d\n" % number for number in range(30_000))
    assert (done.returncode, done.stdout == expected, done.stderr == expected) == (0, True, True)
