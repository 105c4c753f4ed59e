"""The standard library's Popen, for what this package itself starts: :data:`Popen`.

A program may put ours in the place of :class:`subprocess.Popen`, which must not be what ours calls
in the end. Ours imports this first, so there is no such moment before it.
"""

from __future__ import annotations

from subprocess import Popen

__all__ = [
    "Popen",
]
