"""An execer of this machine."""

from __future__ import annotations

import pytest
from fixtures import short_grace

from wsep_sync import LocalExecer

__all__ = ["execer", "short_grace"]


@pytest.fixture
def execer() -> LocalExecer:
    return LocalExecer()
