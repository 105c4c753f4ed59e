"""A server for commands at the other end of a WebSocket."""

from __future__ import annotations

from fixtures import url

__all__ = ["url"]
