"""The arguments of the command line."""

from __future__ import annotations

import argparse
import os
import stat
import threading
from typing import TypeAlias

from .console import complain

__all__ = ["parser"]

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="wsep-sync",
        description="Run a command on another machine over one WebSocket.",
        epilog="Exit status of notty and tty: the command's own; 128+N if signal N ended it; 127 "
        "if it was not found, 126 if it could not be run, 255 if the connection failed.",
    )
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    _add_serve(commands)
    _add_clients(commands)
    _add_managers(commands)
    return parser


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="run commands for clients",
        description="Run commands for whoever connects. It prints one line, "
        "'listening on ws://HOST:PORT', when it can be connected to, and logs to its error "
        "output. SIGTERM lets running commands finish for some time, SIGINT and a second SIGTERM "
        "end it at once, with all that it has started. Whoever can connect can run commands as "
        "the user who started it: beyond the loopback interface it wants a token and TLS.",
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    serve.add_argument(
        "--port", type=_port, default=8080, help="port, 0 picks one (default: %(default)s)"
    )
    serve.add_argument(
        "--session-timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long a terminal lives on without a client (default: 300)",
    )
    _add_access(serve)
    _add_limits(serve)
    serve.add_argument(
        "--user",
        metavar="NAME",
        help="run every command as this user, whatever the client asks for",
    )
    serve.add_argument(
        "--grace",
        type=_duration,
        default=10.0,
        metavar="SECONDS",
        help="how long running commands may take to finish after SIGTERM (default: 10)",
    )
    serve.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="one line per event, or one JSON object (default: text)",
    )
    serve.add_argument(
        "--log-arguments", action="store_true", help="log the arguments of commands, too"
    )
    serve.set_defaults(fail=serve.error)


def _add_clients(commands: _Commands) -> None:
    notty = commands.add_parser(
        "notty",
        help="run a command on pipes",
        description="Run a command with this command's standard input, output and error output. "
        "Ctrl-C interrupts the command; a second one hangs up.",
    )
    notty.add_argument(
        "-n", action="store_true", dest="no_stdin", help="do not forward standard input"
    )
    tty = commands.add_parser(
        "tty",
        help="run a command on a terminal",
        description="Run a command on a terminal of its own, shown on this one.",
    )
    tty.add_argument("--id", default="", help="name of the session to create or to attach to")
    tty.add_argument(
        "--escape",
        type=_escape,
        default=b"~",
        metavar="CHARACTER",
        help="what, followed by a dot at the start of a line, leaves; or none (default: ~)",
    )
    tty.add_argument(
        "--no-reconnect",
        action="store_true",
        help="end when the connection of a session drops, rather than attach to it again",
    )
    for client in (notty, tty):
        _add_url(
            client,
            "the server, ws://HOST:PORT or wss://HOST:PORT, or a host that has SSH alone, "
            "ssh://USER@HOST (default: $WSEP_URL; without either, a server inside this command)",
        )
        client.add_argument(
            "command",
            nargs=argparse.REMAINDER,
            metavar="[--] COMMAND ARG...",
            help="what to run, after -- if it begins with a dash",
        )


def _add_managers(commands: _Commands) -> None:
    sessions = commands.add_parser(
        "sessions",
        help="list a server's sessions",
        description="List the terminals that a server keeps, one line each: id, process id, "
        "size, how many clients are attached, and the command.",
    )
    kill = commands.add_parser(
        "kill", help="end a session", description="End a session and what runs in it."
    )
    kill.add_argument("id", metavar="ID")
    for manager in (sessions, kill):
        _add_url(manager, "the server, ws://HOST:PORT or wss://HOST:PORT (default: $WSEP_URL)")


def _add_access(serve: argparse.ArgumentParser) -> None:
    access = serve.add_argument_group("who may connect")
    access.add_argument(
        "--token-file",
        dest="token",
        type=_token_file,
        metavar="FILE",
        help="file with the token that clients have to show (default: $WSEP_TOKEN)",
    )
    access.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that clients reach the server by; addresses and localhost need none",
    )
    access.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="an origin, https://HOST, whose pages may connect",
    )
    access.add_argument("--tls-cert", metavar="FILE", help="speak TLS with this certificate chain")
    access.add_argument(
        "--tls-key", metavar="FILE", help="its private key (default: in the same file)"
    )
    access.add_argument(
        "--client-ca",
        metavar="FILE",
        help="admit only clients with a certificate of this authority",
    )
    access.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond the loopback interface without a token or without TLS",
    )


def _add_limits(serve: argparse.ArgumentParser) -> None:
    limits = serve.add_argument_group("limits")
    limits.add_argument(
        "--max-connections",
        type=_count,
        default=512,
        metavar="N",
        help="WebSockets open at once, and as many connections that have not asked for one yet "
        "(default: %(default)s)",
    )
    limits.add_argument(
        "--max-connections-per-peer",
        type=_count,
        metavar="N",
        help="how many of either may come from one address, or /64 network of IPv6 (default: half "
        "of --max-connections, any number from this machine). All clients behind a proxy have its "
        "address: if that runs on another machine, allow it all",
    )
    limits.add_argument(
        "--max-sessions",
        type=_count,
        default=1000,
        metavar="N",
        help="terminals kept at once (default: %(default)s)",
    )
    limits.add_argument(
        "--head-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long a client may take for its HTTP request (default: 10)",
    )
    limits.add_argument(
        "--start-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="and then, to say what to run (default: 60)",
    )


def _add_url(parser: argparse.ArgumentParser, text: str) -> None:
    parser.set_defaults(fail=parser.error)
    parser.add_argument("--url", default=os.environ.get("WSEP_URL") or None, help=text)
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long connecting may take (default: 10)",
    )
    parser.add_argument(
        "--token-file",
        dest="token",
        type=_token_file,
        metavar="FILE",
        help="file with the token to show the server (default: $WSEP_TOKEN)",
    )
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        help="certificates to trust instead of the system's, for wss://",
    )
    parser.add_argument(
        "--tls-cert", metavar="FILE", help="certificate to show a server that asks for one"
    )
    parser.add_argument(
        "--tls-key", metavar="FILE", help="its private key (default: in the same file)"
    )
    parser.add_argument(
        "--insecure-tls",
        action="store_true",
        help="do not check the server's certificate: whoever is in between can read everything",
    )


def _token_file(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        token = ""
    # What a header can hold (RFC 6750), and what is not there by mistake.
    if not token or not token.isprintable() or " " in token:
        raise argparse.ArgumentTypeError(f"{path}: must hold one line of printable ASCII")
    if mode & stat.S_IROTH and os.name == "posix":
        complain(f"warning: every user of this machine can read {path}: chmod o-r takes that away")
    return token


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return count


def _duration(text: str) -> float:
    return 0.0 if float(text) == 0 else _seconds(text)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 0xFFFF:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return port


def _escape(text: str) -> bytes:
    if text == "none":
        return b""
    if len(text) != 1 or not text.isascii():
        raise argparse.ArgumentTypeError("must be one ASCII character, or none")
    return text.encode()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return seconds
