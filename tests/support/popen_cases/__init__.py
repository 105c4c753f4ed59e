"""What subprocess does, and its face has to do as well: a case for each thing that it does.

A case is a function of a face and an empty directory; what it returns or raises is compared with
what subprocess itself makes of it. They go through the documentation of the module section by
section.
"""

from __future__ import annotations

# Whoever is imported adds its cases.
from popen_cases import (  # noqa: F401
    failures,
    files,
    interrupts,
    objects,
    older,
    options,
    runs,
    streams,
    texts,
)
from popen_cases.cases import CASES, outcome

__all__ = ["CASES", "outcome"]
