"""Commands on this machine, and what they say."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from helpers import SECONDS

from wsep_sync import Command, Execer


def python(script: str, *options: str) -> str:
    """Run a script in a Python like this one, and return its output."""
    result = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def output(execer: Execer, command: Command) -> str:
    """Run a command to a good end and return its output."""
    with execer.start(command) as started:
        out = started.stdout.read()
        started.wait(SECONDS)
        return out.decode()
