"""The standard library's names replaced by ours: what is ours does not meet itself there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import SECONDS

_PATCH = """
import subprocess
import wsep_sync
for name in ("Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"):
    setattr(subprocess, name, getattr(wsep_sync, name))
"""

# The library's own functions, too, take a Popen that was put in its place.
_PATCH_ONE = """
import subprocess
import wsep_sync
subprocess.Popen = wsep_sync.Popen
"""


def output_of(program: str) -> str:
    """What a Python of its own says, that has imported nothing of ours yet."""
    environment = {name: value for name, value in os.environ.items() if name != "WSEP_URL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("patch", [_PATCH, _PATCH_ONE], ids=["all", "Popen"])
@pytest.mark.parametrize(
    "options", ["", "tty=True, ", "user=65534, "], ids=["pipes", "tty", "user"]
)
def test_a_command_here(patch: str, options: str) -> None:
    program = f"""{patch}
done = subprocess.run(["echo", "a"], {options}stdout=subprocess.PIPE, check=True)
print(done.stdout.strip())
print(subprocess.check_output(["echo", "b"]))
print(subprocess.getoutput("echo c"))
"""
    assert output_of(program) == "b'a'\nb'b\\n'\nc\n"


def test_the_helper_that_draws_is_imported_later() -> None:
    program = f"""{_PATCH}
from wsep_sync.terminals import emulated
child = emulated._Child()
print(type(child._process).__module__)
child.end()
"""
    assert output_of(program) == "subprocess\n"
