"""The three that have to behave alike: subprocess itself, and its face, here and at a distance."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import wsep_sync

# What Popen takes besides what subprocess does, per face.
Options = Mapping[str, Any]


class Face:
    """subprocess's functions, of a module, with some arguments given."""

    def __init__(self, module: Any, **options: Any) -> None:
        self.is_subprocess = module is subprocess
        self.options = options
        for name in ("Popen", "run", "call", "check_call", "check_output"):
            setattr(self, name, functools.partial(getattr(module, name), **options))
        self.getoutput = functools.partial(module.getoutput, **options)
        self.getstatusoutput = functools.partial(module.getstatusoutput, **options)

    Popen: Any
    run: Any
    call: Any
    check_call: Any
    check_output: Any

    def only(self, **variables: Any) -> dict[str, Any]:
        """Arguments for an environment of these variables alone."""
        return {"env": variables} if self.is_subprocess else {"env": variables, "clean_env": True}

    def more(self, **variables: Any) -> dict[str, Any]:
        """Arguments for these variables besides those that are there."""
        return {"env": {**os.environ, **variables} if self.is_subprocess else variables}


SUBPROCESS = Face(subprocess)


def face(url: str | None) -> Face:
    """The face of the package: at a URL, or on this machine."""
    return Face(wsep_sync, **({} if url is None else {"url": url}))


@contextlib.contextmanager
def stdio(directory: Path, stdin: bytes = b"") -> Iterator[None]:
    """Let our descriptors 0, 1 and 2 be files: `in`, with the content given, `out` and `err`."""
    (directory / "in").write_bytes(stdin)
    saved = [os.dup(descriptor) for descriptor in range(3)]
    try:
        for descriptor, name in enumerate(("in", "out", "err")):
            flags = os.O_RDONLY if name == "in" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            opened = os.open(directory / name, flags, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        yield
    finally:
        for descriptor, original in enumerate(saved):
            os.dup2(original, descriptor)
            os.close(original)
