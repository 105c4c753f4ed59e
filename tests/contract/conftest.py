"""What holds of every execer: one suite over a local one and over every way to a remote one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ways import EXECERS, PROGRAMS, params

from wsep_sync import Execer


@pytest.fixture(scope="session")
def programs() -> Iterator[None]:
    yield
    PROGRAMS.close()


# Of the session, so that a program is started before the test it is started for takes stock of
# processes and descriptors, and is not taken for something that the test has left.
@pytest.fixture(scope="session", params=params(EXECERS))
def way(request: pytest.FixtureRequest, programs: None) -> str:
    PROGRAMS.start(request.param)
    return str(request.param)


@pytest.fixture
def execer(way: str, record_property: Callable[[str, object], None]) -> Iterator[Execer]:
    record_property("execer", way)  # for contract_table.py
    with EXECERS[way]() as execer:
        yield execer


@pytest.fixture(params=["pipes", "terminal"])
def tty(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "terminal")
