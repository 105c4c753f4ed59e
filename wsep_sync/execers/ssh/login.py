"""Making a connection to an SSH host, whose key is looked at, and ending it: :class:`Login`.

What is not said is looked up in ``~/.ssh/config``. With which key to log in is paramiko's search:
those that are named, if any, those of the SSH agent (``$SSH_AUTH_SOCK``), and ``~/.ssh/id_*``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ConnectError
from ...transports.liveness import keep_alive
from . import known_hosts
from .config import HostConfig, read_config
from .library import load_paramiko
from .status import packetizer_class

__all__ = [
    "Login",
    "close_client",
]


@dataclass(frozen=True)
class Login:
    """Where to log in, and how; as for :class:`SSHExecer`."""

    host: str
    port: int | None
    username: str | None
    key_filename: str | None
    known_hosts: str | None
    timeout: float

    @property
    def url(self) -> str:
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}{'' if self.port in (None, 22) else f':{self.port}'}"

    def connect(self) -> Any:
        """Return a ``paramiko.SSHClient`` that has logged in.

        Raises:
            ConnectError: It could not.
        """
        paramiko = load_paramiko()
        began = time.monotonic()
        try:
            return self._log_in(paramiko, frozenset())
        except ConnectError:
            raise
        except paramiko.PasswordRequiredException as error:
            reason = "the private key is encrypted; let an SSH agent hold it"
            raise ConnectError(self.url, reason) from error
        except paramiko.AuthenticationException as error:
            raise ConnectError(self.url, f"it lets nobody in: {error}") from error
        except (EOFError, OSError, RuntimeError, ValueError, paramiko.SSHException) as error:
            # paramiko has many ways to say that it has waited in vain.
            if time.monotonic() - began >= self.timeout:
                reason = f"no answer within {self.timeout:g} seconds"
            elif isinstance(error, TimeoutError) and error.errno is None:
                raise  # that of a signal's handler
            elif isinstance(error, OSError):
                reason = error.strerror or str(error)
                if error.filename:
                    reason = f"{error.filename}: {reason}"
            else:
                reason = str(error) or "the connection ended"
            raise ConnectError(self.url, reason) from error

    def _log_in(self, paramiko: Any, passed: frozenset[str]) -> Any:
        """Log in, through the hosts that the configuration names.

        Args:
            passed: The hosts that this is the way to.
        """
        config = read_config(paramiko, self.host)
        passed |= {self.host}
        via = None
        try:
            for hop in config.hops:
                if hop.host == self.host:  # as "Host *" says it of the one that all go through
                    continue
                if hop.host in passed:
                    raise ConnectError(self.url, "the ProxyJump of ~/.ssh/config is a circle")
                login = replace(
                    self,
                    host=hop.host,
                    port=hop.port,
                    username=hop.username,
                    key_filename=None,  # as of ssh -i, it is for the host alone
                )
                # Of several, the first one alone may have hosts before it.
                if via is None:
                    via = login._log_in(paramiko, passed)
                else:
                    via = login._connect(paramiko, read_config(paramiko, hop.host), via)
            return self._connect(paramiko, config, via)
        except BaseException:
            # Unless it was closed with what went through it.
            if via is not None:
                close_client(via, via.get_transport().sock)
            raise

    def _connect(self, paramiko: Any, config: HostConfig, via: Any) -> Any:
        host, port = config.host, self.port or config.port or 22
        files = known_hosts.FILES if self.known_hosts is None else (self.known_hosts,)
        if self.known_hosts is not None:
            os.stat(self.known_hosts)  # one that was asked for has to be there
        keys = known_hosts.read_known_hosts(files, host, port)
        client = paramiko.SSHClient()
        client.via = via  # what it goes through, to be closed with it
        # It is given no known hosts of its own, so this is asked for every key.
        client.set_missing_host_key_policy(_HostKeyPolicy(self.url, keys))
        sock: Any
        if via is None:
            sock = socket.create_connection((host, port), self.timeout)
        else:
            transport = via.get_transport()
            place = ("127.0.0.1", 0)  # whence, which nobody is told of
            sock = transport.open_channel("direct-tcpip", (host, port), place, timeout=self.timeout)
        try:
            if via is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_alive(sock)

            def new_transport(sock: socket.socket, **options: Any) -> Any:
                transport = paramiko.Transport(sock, packetizer_class=packetizer_class(), **options)
                transport.handshake_timeout = self.timeout
                _prefer_known(transport.get_security_options(), keys)
                return transport

            client.connect(
                host,
                port,
                self.username or config.username,
                sock=sock,
                key_filename=[*filter(None, [self.key_filename]), *config.key_files],
                allow_agent=not config.keys_only,
                look_for_keys=not config.keys_only,
                banner_timeout=self.timeout,
                auth_timeout=self.timeout,
                channel_timeout=self.timeout,
                transport_factory=new_transport,
            )
        except BaseException:
            client.via = None  # the caller's, still
            close_client(client, sock)
            raise
        return client


@dataclass(frozen=True)
class _HostKeyPolicy:
    """Says whether a host may have the key that it has, in the way paramiko asks for that."""

    url: str
    keys: known_hosts.KnownKeys

    def missing_host_key(self, _client: object, _name: str, key: Any) -> None:
        offered = (key.get_name(), key.asbytes())
        shown = f"{key.get_name()} {key.fingerprint}"
        if offered in self.keys.revoked:
            raise ConnectError(self.url, f"the key it has is revoked: {shown}")
        if offered in self.keys.trusted:
            return
        if self.keys.trusted:
            raise ConnectError(
                self.url, f"it has another key than known_hosts says, or is another host: {shown}"
            )
        raise ConnectError(self.url, f"the host is not in known_hosts; it has the key {shown}")


def _prefer_known(options: Any, keys: known_hosts.KnownKeys) -> None:
    """Ask for a key of a type that the host is known by, lest it show another of its keys."""
    known = {kind for kind, _ in keys.trusted}

    def unknown(algorithm: str) -> bool:
        return ("ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm) not in known

    options.key_types = sorted(options.key_types, key=unknown)


def close_client(client: Any, sock: Any) -> None:
    """Close a connection, and what it goes through, and wait for their threads."""
    transport = client.get_transport()
    # Its thread polls the socket ten times a second, and could by then be polling another file of
    # the same number. This ends it first.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    started = transport is not None and transport.ident is not None
    if started:
        transport.join(1.0)
        transport.packetizer.complete_handshake()  # or its timer would go on
    client.close()
    if started:
        transport.join()
    sock.close()
    if client.via is not None:
        via, client.via = client.via, None
        close_client(via, via.get_transport().sock)
