"""See :mod:`wsep_sync.faces.expect`; this is the path that users know."""

from __future__ import annotations

from .faces.expect import spawn

__all__ = [
    "spawn",
]
