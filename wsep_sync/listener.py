"""See :mod:`wsep_sync.web.listener`; this is the path that users know."""

from __future__ import annotations

from .web.listener import Listener

__all__ = [
    "Listener",
]
