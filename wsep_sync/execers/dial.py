"""What a ``url`` may be: a server's, or an SSH host's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..lazy import importing
from .remote.execer import CONNECT_TIMEOUT, connect

if TYPE_CHECKING:
    import ssl

    from ..process import Execer

__all__ = ["CONNECT_TIMEOUT", "dial"]


def dial(
    url: str,
    *,
    timeout: float = CONNECT_TIMEOUT,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    session_id: str = "",
    ssl_context: ssl.SSLContext | None = None,
    key_filename: str | None = None,
) -> Execer:
    """Connect to where commands are to run, and return an execer that runs them there.

    Args:
        url: ``ws://…`` or ``wss://…`` as for :func:`.connect`, or ``ssh://…`` as for
            :func:`.connect_ssh`.
        timeout: As for these.
        token: As for :func:`.connect`; not for SSH.
        headers: Likewise.
        session_id: Likewise.
        ssl_context: Likewise.
        key_filename: As for :func:`.connect_ssh`.

    Raises:
        ConnectError: No connection could be made.
        ImportError: It takes paramiko, which is not there.
        ValueError: ``url`` is none of these.
    """
    if url[:6].lower() == "ssh://":
        with importing:
            from .ssh.execer import connect_ssh

        return connect_ssh(url, timeout=timeout, key_filename=key_filename)
    return connect(
        url,
        timeout=timeout,
        token=token,
        headers=headers,
        session_id=session_id,
        ssl_context=ssl_context,
    )
