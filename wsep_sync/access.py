"""See :mod:`wsep_sync.web.access`; this is the path that users know."""

from __future__ import annotations

from .web.access import Access, Refusal, check_token, is_loopback

__all__ = [
    "Access",
    "Refusal",
    "check_token",
    "is_loopback",
]
