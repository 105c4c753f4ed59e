"""See :mod:`wsep_sync.web.wsgi`; this is the path that users know."""

from __future__ import annotations

from .web.wsgi import UPGRADED, application

__all__ = [
    "UPGRADED",
    "application",
]
