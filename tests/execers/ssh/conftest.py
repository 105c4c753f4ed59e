"""A host that has SSH alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Host, sshd


@pytest.fixture
def host() -> Iterator[Host]:
    with sshd() as host:
        yield host


@pytest.fixture
def home(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory from which one can log in, as with ssh(1)."""
    directory = tmp_path / "home"
    (directory / ".ssh").mkdir(parents=True)
    (directory / ".ssh/id_ed25519").symlink_to(host.key)
    (directory / ".ssh/known_hosts").symlink_to(host.known_hosts)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return directory
