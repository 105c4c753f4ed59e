"""Commands over SSH, and what comes of them."""

from __future__ import annotations

import pytest
from helpers import SECONDS

from wsep_sync import Command, ConnectError, SSHExecer


def output(execer: SSHExecer, command: Command) -> bytes:
    with execer.start(command) as process:
        out = process.stdout.read()
        process.wait(SECONDS)
        return out


def refused(*args: object, **options: object) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        SSHExecer(*args, **{"timeout": SECONDS, **options})  # type: ignore[arg-type]
    return caught.value
