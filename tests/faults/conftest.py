"""A server that is watched, for the tests of faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults import Site, site


@pytest.fixture
def place(capfd: pytest.CaptureFixture[str]) -> Iterator[Site]:
    with site() as place:
        yield place
    assert capfd.readouterr() == ("", "")
