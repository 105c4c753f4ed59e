"""The arguments of the command line."""

from __future__ import annotations

import argparse
import os
import re
import stat
import threading
from typing import TypeAlias

from .. import __version__
from .console import complain

__all__ = ["parser"]

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# The name of a header (RFC 9110, section 5.6.2).
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class _HelpFormatter(argparse.HelpFormatter):
    """Fills paragraphs, but leaves examples, which begin with an empty line, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return (
            text.strip("\n") if text.startswith("\n") else super()._fill_text(text, width, indent)
        )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="wsep-sync",
        usage="%(prog)s SUBCOMMAND [OPTION...]",
        description="Run a command on another machine over one WebSocket.",
        epilog="""
exit status of notty and tty:
  the command's own; 128+N if signal N ended it; 127 if it was not found, 126 if
  it could not be run, 255 if the connection failed

examples:
  wsep-sync serve --port 8080
  wsep-sync notty --url ws://127.0.0.1:8080 -- ls -la
  wsep-sync tty --url ws://127.0.0.1:8080 --id work -- bash
""",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wsep-sync {__version__}")
    commands = parser.add_subparsers(
        dest="subcommand", required=True, metavar="SUBCOMMAND", prog="wsep-sync"
    )
    _add_serve(commands)
    _add_clients(commands)
    _add_managers(commands)
    return parser


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        formatter_class=_HelpFormatter,
        usage="%(prog)s [OPTION...]",
        epilog="""
examples:
  wsep-sync serve --port 8080
  wsep-sync serve --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
  wsep-sync serve --host unix:/run/wsep.sock
""",
        help="run commands for clients",
        description="Run commands for whoever connects. It prints one line, "
        "'listening on ws://HOST:PORT', when it can be connected to, and logs to its error "
        "output. SIGTERM lets running commands finish for some time, SIGINT and a second SIGTERM "
        "end it at once, with all that it has started. Whoever can connect can run commands as "
        "the user who started it: beyond the loopback interface it wants a token and TLS.",
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on, or unix:PATH, a Unix socket (default: %(default)s)",
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
        "--ping-interval",
        type=_seconds,
        default=25.0,
        metavar="SECONDS",
        help="how often clients are sent a ping, for the sake of proxies that close what is idle "
        "(default: 25)",
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
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="what is logged: this and what is more serious (default: info)",
    )
    serve.add_argument(
        "--log-arguments", action="store_true", help="log the arguments of commands, too"
    )
    serve.set_defaults(fail=serve.error)


def _add_notty(commands: _Commands) -> argparse.ArgumentParser:
    notty = commands.add_parser(
        "notty",
        formatter_class=_HelpFormatter,
        usage="%(prog)s [OPTION...] [--] COMMAND [ARG...]",
        epilog="""
examples:
  wsep-sync notty --url ws://127.0.0.1:8080 -- ls -l docs
  tar c docs | wsep-sync notty --url ws://127.0.0.1:8080 -- tar x -C /tmp
  wsep-sync notty --url ssh://ci@build.example.com --cwd /src -- make
  wsep-sync notty -- sh -c 'ls *.py | wc -l'
""",
        help="run a command on pipes",
        description="Run a command with this command's standard input, output and error output. "
        "Ctrl-C interrupts the command; a second one hangs up.",
    )
    notty.add_argument(
        "-n", action="store_true", dest="no_stdin", help="do not forward standard input"
    )
    return notty


def _add_tty(commands: _Commands) -> argparse.ArgumentParser:
    tty = commands.add_parser(
        "tty",
        formatter_class=_HelpFormatter,
        usage="%(prog)s [OPTION...] [--] COMMAND [ARG...]",
        epilog="""
examples:
  wsep-sync tty --url ws://127.0.0.1:8080 -- bash
  wsep-sync tty --url ws://127.0.0.1:8080 --id work -- bash
  wsep-sync tty --rows 24 --cols 80 -- top
""",
        help="run a command on a terminal",
        description="Run a command on a terminal of its own, shown on this one. It is told of "
        "TERM, COLORTERM, LANG and LC_*, as they are here.",
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
    for name, what in (("rows", "height"), ("cols", "width")):
        tty.add_argument(
            f"--{name}",
            type=_size,
            metavar="N",
            help=f"{what} of the command's terminal, in place of this one's",
        )
    return tty


def _add_clients(commands: _Commands) -> None:
    for client in (_add_notty(commands), _add_tty(commands)):
        _add_url(
            client,
            "the server, ws://HOST:PORT, wss://HOST:PORT or ws+unix:PATH, or a host that has SSH "
            "alone, ssh://USER@HOST (default: $WSEP_URL; without either, a server inside this "
            "command)",
        )
        client.add_argument(
            "-i",
            dest="key_file",
            metavar="FILE",
            help="private key to log in with at ssh://, before those of ~/.ssh/config, the SSH "
            "agent and ~/.ssh/id_*",
        )
        client.add_argument(
            "--env",
            type=_variable,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="add a variable to the command's environment",
        )
        client.add_argument(
            "--cwd", default="", metavar="DIR", help="run it in this directory, over there"
        )
        client.add_argument(
            "--user",
            type=_user,
            default=("", ""),
            metavar="NAME[:GROUP]",
            help="run it as this user over there, names or numbers, if the server may do that; "
            "without a group, it has the server's",
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
        formatter_class=_HelpFormatter,
        usage="%(prog)s [OPTION...]",
        epilog="""
examples:
  wsep-sync sessions --url ws://127.0.0.1:8080
""",
        help="list a server's sessions",
        description="List the terminals that a server keeps, one line each: id, process id, "
        "size, how many clients are attached, and the command.",
    )
    kill = commands.add_parser(
        "kill",
        formatter_class=_HelpFormatter,
        usage="%(prog)s [OPTION...] ID",
        epilog="""
examples:
  wsep-sync kill --url ws://127.0.0.1:8080 work
""",
        help="end a session",
        description="End a session and what runs in it.",
    )
    kill.add_argument("id", metavar="ID")
    for manager in (sessions, kill):
        _add_url(
            manager,
            "the server, ws://HOST:PORT, wss://HOST:PORT or ws+unix:PATH (default: $WSEP_URL)",
        )


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
    parser.add_argument(
        "-v", action="store_true", dest="verbose", help="log what is done, to error output"
    )
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
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="send this HTTP header, too, as to a proxy that asks for one",
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


def _number(text: str, first: int, last: int | None = None) -> int:
    words = f"must be {first} or more" if last is None else f"must be {first} to {last}"
    try:
        number = int(text)
    except ValueError:
        number = first - 1
    if number < first or (last is not None and number > last):
        raise argparse.ArgumentTypeError(f"{words}, not {text!r}")
    return number


def _count(text: str) -> int:
    return _number(text, 1)


def _port(text: str) -> int:
    return _number(text, 0, 0xFFFF)


def _size(text: str) -> int:
    return _number(text, 1, 0xFFFF)


def _duration(text: str) -> float:
    return _seconds(text, zero=True)


def _variable(text: str) -> str:
    if text.find("=", 1) < 0:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    return text


def _user(text: str) -> tuple[str, str]:
    name, colon, group = text.partition(":")
    if not name or (colon and not group):
        raise argparse.ArgumentTypeError(f"must be NAME or NAME:GROUP, not {text!r}")
    return name, group


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    # Its value may be a secret, and is not quoted.
    if not colon or not _TOKEN.fullmatch(name):
        raise argparse.ArgumentTypeError("must be 'NAME: VALUE'")
    return name, value.strip()


def _escape(text: str) -> bytes:
    if text == "none":
        return b""
    if len(text) != 1 or not text.isascii():
        raise argparse.ArgumentTypeError("must be one ASCII character, or none")
    return text.encode()


def _seconds(text: str, zero: bool = False) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < threading.TIMEOUT_MAX or (not seconds and not zero):
        least = "0 or more" if zero else "above 0"
        raise argparse.ArgumentTypeError(f"must be a number of seconds, {least}, not {text!r}")
    return seconds
