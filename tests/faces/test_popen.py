"""subprocess's face does what subprocess does: the same cases for each, and equal results.

The cases are in `popen_cases`. What is different at a distance, or has no counterpart, is in
`test_popen_edges`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from faces import SUBPROCESS, Face
from popen_cases import CASES, outcome

import wsep_sync


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_subprocess_does(name: str, tested: Face, tmp_path: Path) -> None:
    assert outcome(CASES[name], tested, tmp_path) == outcome(CASES[name], SUBPROCESS, tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_so_it_does_at_a_server_without_additions(name: str, plain: Face, tmp_path: Path) -> None:
    assert outcome(CASES[name], plain, tmp_path) == outcome(CASES[name], SUBPROCESS, tmp_path)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120


# The signature


def test_the_signature_is_subprocess_s_and_more() -> None:
    import inspect

    ours = inspect.signature(wsep_sync.Popen).parameters
    theirs = inspect.signature(subprocess.Popen).parameters
    added = {"execer", "url", "tty", "size", "id", "clean_env"}
    added |= {"token", "headers", "ssl_context", "timeout"}  # for connecting
    # process_group came with Python 3.11.
    assert set(ours) - added - {"process_group"} == set(theirs) - {"process_group"}
    for name in theirs:
        assert ours[name].kind == theirs[name].kind
        assert ours[name].default == theirs[name].default
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in added)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert [n for n in ours if ours[n].kind is positional] == [
        n for n in theirs if theirs[n].kind is positional
    ]


def test_the_names_are_subprocess_s_own() -> None:
    for name in ("PIPE", "STDOUT", "DEVNULL", "CompletedProcess", "CalledProcessError"):
        assert getattr(wsep_sync, name) is getattr(subprocess, name)
    assert wsep_sync.TimeoutExpired is subprocess.TimeoutExpired
