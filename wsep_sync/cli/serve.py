"""``wsep-sync serve``, and the server inside the other subcommands."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..execers.local.execer import LocalExecer
from ..execers.remote.execer import environment_token
from ..jobs.options import Options
from ..log import log_event
from ..serving.server import Server
from ..streams.wakeup import Wakeup
from ..threads import start_thread
from ..web import systemd
from ..web.access import Access, is_loopback
from ..web.listener import UNIX, Listener
from ..web.wsgi import application
from .certificates import load_certificates
from .console import complain
from .logs import log_to_stderr
from .signals import Ended, Signals

if TYPE_CHECKING:
    import socket
    import ssl

    from ..process import Execer

__all__ = ["embedded", "serve"]

# After how many seconds a thread that computes lets the others run.
_SWITCH_INTERVAL = 0.0005

# How many seconds ending what runs, and then the WebSockets, may take.
_LAST_WORDS = 5.0


def serve(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run commands for clients until a signal comes."""
    signals.ignore_alone()
    token = _token(arguments)
    sockets = _inherited_sockets(arguments)
    _check_exposure(arguments, token, sockets)
    try:
        access = Access(
            token,
            hosts=(arguments.host, *arguments.allow_host),
            origins=arguments.allow_origin,
        )
        execer = _execer(arguments)
    except (ValueError, OSError) as error:
        arguments.fail(str(error))
        raise  # pragma: no cover - that does not return
    log_to_stderr(arguments.log_level.upper(), arguments.log_format)
    options = Options(
        session_timeout=arguments.session_timeout,
        start_timeout=arguments.start_timeout,
        ping_interval=arguments.ping_interval,
        log_arguments=arguments.log_arguments,
    )
    server = Server(max_sessions=arguments.max_sessions)
    context = _ssl_context(arguments)
    if context is not None and hasattr(signal, "SIGHUP"):
        signals.handle(signal.SIGHUP, lambda: _read_certificates_again(context, arguments))
    try:
        listener = Listener(
            application(server, execer, options, access=access),
            arguments.host,
            arguments.port,
            ssl_context=context,
            sock=sockets[0] if sockets else None,
            max_connections=arguments.max_connections,
            max_connections_per_peer=arguments.max_connections_per_peer,
            head_timeout=arguments.head_timeout,
        )
    except OSError as error:
        port = "" if arguments.host.startswith(UNIX) else f" port {arguments.port}"
        complain(f"cannot listen on {arguments.host}{port}: {error.strerror or error}")
        return 1
    # With Python's 5 ms, which several threads in a row may take, an echo beside floods that are
    # redrawn took up to 240 ms, and takes 70; throughput is the same.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    died = Wakeup()  # set if nothing is accepted any more
    with _running(listener, server, died):
        print(f"listening on {listener.url}", flush=True)
        systemd.notify("READY=1")
        try:
            signals.wait(died)
            complain("connections are not accepted any more")
            return 1
        except Ended as ended:
            systemd.notify("STOPPING=1")
            if ended.signal == signal.SIGTERM:
                # The next signal ends the wait; or there is none, as no more threads can be had.
                with contextlib.suppress(Ended, RuntimeError):
                    signals.wait_for_call(lambda: _drain(listener, server, arguments.grace))
    return 0


@contextlib.contextmanager
def embedded() -> Iterator[tuple[str, str]]:
    """Run a server in this process for nobody but this process; give its URL and its token."""
    token = secrets.token_urlsafe()
    server = Server()
    app = application(server, LocalExecer(), access=Access(token))
    # Nobody would connect twice: a connection that is not accepted times out.
    with _running(Listener(app), server, Wakeup()) as listener:
        yield listener.url, token


@contextlib.contextmanager
def _running(listener: Listener, server: Server, died: Wakeup) -> Iterator[Listener]:
    """Accept connections meanwhile; at the end, end everything.

    Args:
        died: Set if the thread that accepts dies.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(listener)
        # Before the connections are cut, so that clients learn why.
        cleanup.callback(listener.drain, _LAST_WORDS)
        cleanup.callback(server.close)
        # It ends when the listener is shut down. A daemon, for a signal that comes while it is
        # being started must not leave something that keeps this process.
        accepting = start_thread(
            listener.serve_forever, name="wsep-accept", died=lambda _: died.set()
        )
        cleanup.callback(accepting.join)
        cleanup.callback(listener.shutdown)
        yield listener


def _drain(listener: Listener, server: Server, grace: float) -> None:
    """Wait until nothing runs any more, for ``grace`` seconds at most."""
    end = time.monotonic() + grace
    if listener.drain(grace):
        # Terminals with nobody attached, which run something all the same.
        server.drain(max(0.0, end - time.monotonic()))


def _token(arguments: argparse.Namespace) -> str | None:
    try:
        return arguments.token or environment_token()
    except ValueError as error:
        arguments.fail(str(error))
        raise  # pragma: no cover - that does not return
    finally:
        # Lest the commands find it in their environment.
        os.environ.pop("WSEP_TOKEN", None)


def _inherited_sockets(arguments: argparse.Namespace) -> list[socket.socket]:
    """Return the socket that systemd has opened for us, if it has."""
    try:
        sockets = systemd.listen_sockets()
    except (OSError, ValueError) as error:
        arguments.fail(f"socket activation: {error}")
        raise  # pragma: no cover - that does not return
    if len(sockets) > 1:
        arguments.fail("socket activation: one socket is all that can be served")
    return sockets


def _check_exposure(
    arguments: argparse.Namespace, token: str | None, sockets: list[socket.socket]
) -> None:
    """Refuse to hand out shells to the network by mistake."""
    # A Unix socket has no address, but permissions.
    names = [sock.getsockname() for sock in sockets]
    hosts = [name[0] for name in names if isinstance(name, tuple)] if sockets else []
    if not sockets and not arguments.host.startswith(UNIX):
        hosts = [arguments.host]
    if arguments.insecure or all(map(is_loopback, hosts)):
        return
    if arguments.tls_cert is None or (token is None and arguments.client_ca is None):
        arguments.fail(
            f"{hosts[0]} can be reached from other machines, which needs --token-file (or "
            "--client-ca) and --tls-cert; or --insecure, to let whoever comes run commands"
        )


def _execer(arguments: argparse.Namespace) -> Execer:
    if arguments.user is None:
        return LocalExecer()
    from ..execers.policy import UserExecer

    return UserExecer(LocalExecer(), arguments.user)


def _ssl_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_cert is None:
        if arguments.tls_key or arguments.client_ca:
            arguments.fail("--tls-key and --client-ca need --tls-cert")
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        _read_certificates(context, arguments)
    except ValueError as error:
        arguments.fail(str(error))
    return context


def _read_certificates(context: ssl.SSLContext, arguments: argparse.Namespace) -> None:
    from ssl import VerifyMode

    load_certificates(context, arguments)
    if arguments.client_ca is not None:
        try:
            context.load_verify_locations(arguments.client_ca)
        except OSError as error:  # ssl.SSLError is one
            words = f"{arguments.client_ca}: {error.strerror or error}"
            raise ValueError(words) from error
        context.verify_mode = VerifyMode.CERT_REQUIRED


def _read_certificates_again(context: ssl.SSLContext, arguments: argparse.Namespace) -> None:
    """Let connections to come have what the files hold now; if they hold nothing, what they held.

    An authority that is in the file no more is still trusted: OpenSSL takes none out.
    """
    import ssl

    try:
        # Elsewhere first: what is found wrong half way, as a certificate whose key is yet to be
        # written, would have taken the place of what is good.
        _read_certificates(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), arguments)
        _read_certificates(context, arguments)
    except ValueError as error:
        log_event(logging.ERROR, "failure", reason=f"certificates were not read again: {error}")
    else:
        log_event(logging.INFO, "certificates", reason="read again")
