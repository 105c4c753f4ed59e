"""What the tests of several execers start commands with."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=[False, True], ids=["pipes", "terminal"])
def tty(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, as pytest's own may not be."""
    assert os.geteuid() == 0, "these tests start commands as other users"
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)
