"""Programs of the system that tests need, and what becomes of a test whose program is missing."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

# Debian's package of each program, where it has another name.
_PACKAGES = {
    "chromedriver": "chromium-driver",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
}

_MISSING = re.compile(r"this needs (\S+), which is missing here")

# Whether a missing program fails a test rather than skips it: a run's option, or CI's.
_all = False


def set_all_parts(option: bool) -> None:
    """Say what is so for this run; `option` is whether it was given."""
    global _all
    _all = option or os.environ.get("CI", "").lower() not in ("", "0", "false")


def all_parts() -> bool:
    """Whether what is missing is a failure."""
    return _all


def need(program: str) -> str:
    """Return the path of a program that a test needs. Without it the test is skipped, or fails."""
    # Only root's PATH has the latter.
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        missing = f"this needs {program}, which is missing here"
        if _all:
            pytest.fail(f"{missing}: Debian's {_PACKAGES.get(program, program)}")
        pytest.skip(missing)
    return path


def summary(reasons: Iterable[str]) -> list[str]:
    """Say which programs are missing, by the reasons of all tests that were skipped: lines."""
    found = (match[1] for reason in reasons if (match := _MISSING.search(reason)))
    missing = sorted(Counter(found).items())
    if not missing:
        return []
    packages = sorted({_PACKAGES.get(program, program) for program, _ in missing})
    return [
        *(f"{program}: {count} skipped" for program, count in missing),
        f"On Debian: apt install {' '.join(packages)}",
        "With --all-parts, or CI=true, these fail.",
    ]
