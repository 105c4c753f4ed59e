"""Who may connect: the checks on a request that come before anything else.

A server of this kind hands out shells, and every page that a browser on the same machine shows can
reach it, on loopback too (CVE-2025-52882). So a browser's ``Origin`` must be the server's own, and
``Host`` a name that is the server's, lest an attacker's name be made to point here (DNS
rebinding). Besides, there may be a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..protocol.checks import check_token

__all__ = ["Access", "Refusal", "check_token", "is_loopback"]

# RFC 9110, section 7.2: a host and perhaps a port; nothing that urlsplit() would take off.
# RFC 1035, section 2.3.4: no name is longer. It is logged where it is not known.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{1,50}\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{0,5})?")

# What stands before the token where a browser says it.
_BEARER = "bearer."


class Refusal(Exception):
    """A request that is refused.

    Attributes:
        status: The HTTP status line.
        text: What the client is told.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Access:
    """Who may connect. Immutable, and so safe to use from several threads.

    Args:
        token: What clients have to show, as ``Authorization: Bearer TOKEN`` (RFC 6750); or
            browsers, which cannot send that header with a WebSocket, by asking for the
            subprotocols ``wsep, bearer.TOKEN``. ``None`` asks for none.
        hosts: The names by which clients reach the server, without a port. Addresses,
            ``localhost`` and names that end in ``.localhost`` need not be listed: nobody can make
            these point somewhere else (RFC 6761, section 6.3).
        origins: The origins, such as ``https://app.example.com``, whose pages may connect besides
            the server's own.

    Raises:
        ValueError: The token is empty or has characters that cannot be sent, or an origin is none.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
    ) -> None:
        for origin in origins:
            parts = urlsplit(origin)
            if not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"not an origin (https://HOST or https://HOST:PORT): {origin!r}")
        self._token = None if token is None else check_token(token).encode()
        self._hosts = frozenset(_plain(host) for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    def check(self, environ: Mapping[str, Any]) -> None:
        """Check a WSGI request.

        Raises:
            Refusal: It is refused, with 400, 401 or 403.
        """
        host = environ.get("HTTP_HOST", "")
        self._check_host(host)
        self._check_origin(environ.get("HTTP_ORIGIN"), f"{environ['wsgi.url_scheme']}://{host}")
        self._check_token(environ)

    def _check_host(self, host: str) -> None:
        match = _HOST.fullmatch(host)
        if match is None:
            raise Refusal("400 Bad Request", "no valid Host header\n")
        name = _plain(match[1])
        if name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return
        if _address(name) is None:
            raise Refusal(
                "403 Forbidden", f"this server does not know itself as {name} (see --allow-host)\n"
            )

    def _check_origin(self, origin: str | None, own: str) -> None:
        # Without one it is no browser: they all send it, and pages cannot leave it out.
        if origin is not None and origin.lower() not in (own.lower(), *self._origins):
            raise Refusal("403 Forbidden", "this origin is not allowed (see --allow-origin)\n")

    def _check_token(self, environ: Mapping[str, Any]) -> None:
        if self._token is None:
            return
        kind, _, shown = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if kind.lower() != "bearer":
            shown = ""
            for protocol in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(","):
                if protocol.strip().startswith(_BEARER):
                    shown = protocol.strip().removeprefix(_BEARER)
        # PEP 3333: header values are Latin-1.
        if not hmac.compare_digest(shown.strip().encode("latin-1", "replace"), self._token):
            words = "the token is wrong" if shown.strip() else "a token is needed"
            raise Refusal("401 Unauthorized", f"{words} (see --token-file)\n")


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can reach a server that listens on ``host``."""
    if _plain(host) == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
