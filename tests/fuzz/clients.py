"""A server's answer and its frames, against our client."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from helpers import SECONDS
from peers import accept_key, listening_socket, read_head

from fuzz import grammar
from fuzz.campaign import Case
from wsep_sync import PIPE, Command, Popen, Process, connect
from wsep_sync.errors import ConnectError, ExitError, ExitMissing, StartError, TransportClosed

# How starting, and then using, a command may fail when the server talks nonsense.
_START_ERRORS = (ConnectError, StartError, TransportClosed)
_EXIT_ERRORS = (ExitError, ExitMissing)


# Stands for what proves that the server has understood the request; it is known only then.
_ACCEPT = b"<Sec-WebSocket-Accept>"


def check(case: Case) -> None:
    chance = case.chance
    wrong = chance.random() < 0.3
    answer = _answer(chance, wrong)
    messages = [grammar.server_message(chance) for _ in range(chance.randrange(5))]
    if chance.random() < 0.7:
        messages.insert(
            0, b'{"type":"pid","pid":7,"features":["signal","taken","ended","close_output"]}\n'
        )
    if chance.random() < 0.3:
        messages.append(b'{"type":"exit_code","exit_code":0,"error":""}\n')
    frames = grammar.pieces(chance, grammar.conversation(chance, messages, masked=False))
    # A connection on which something comes before the start is given up; but to a wrong answer
    # there may come none.
    asked = not wrong and chance.random() < 0.9
    ending = chance.choice(("finish", "close", "reset"))
    use = chance.choice((_use_process, _use_process, _leave_process, _use_popen))
    # One that stays without a word keeps those who close waiting, for 3 seconds.
    if not wrong and chance.random() < 0.002:
        asked, ending, use = True, "stay", _leave_soon
    case.note("answer", answer)
    case.note("frames", b"".join(frames))
    case.note("in pieces of", [len(piece) for piece in frames])
    case.note("after the start", asked)
    case.note("then", ending)
    case.note("use", use.__name__)

    def play(sock: socket.socket) -> None:
        head, _ = read_head(sock)
        (key,) = re.findall(r"(?i)^sec-websocket-key: *(\S+)", head, re.MULTILINE)
        sock.sendall(answer.replace(_ACCEPT, accept_key(key).encode()))
        if asked:
            sock.recv(1 << 16)
        for piece in frames:
            sock.sendall(piece)
        if ending == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif ending != "close":
            if ending == "finish":
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass

    with _playing(play) as url:
        use(url)


@contextlib.contextmanager
def _playing(play: Callable[[socket.socket], None]) -> Iterator[str]:
    """Play to each connection that is made, one after the other; gives the URL."""

    def accept(listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            # The client may go whenever it likes.
            with sock, contextlib.suppress(OSError, EOFError):
                sock.settimeout(SECONDS)
                play(sock)

    with listening_socket() as listening:
        # Ends when the socket is shut down.
        thread = threading.Thread(target=accept, args=(listening,), name="fuzz-server", daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS)
            assert not thread.is_alive(), "the client neither reads nor closes"


def _answer(chance: random.Random, wrong: bool) -> bytes:
    """The answer to an upgrade, right or not."""
    status = b"HTTP/1.1 101 Switching Protocols"
    lines = [
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + _ACCEPT,
    ]
    body = b""
    for _ in range(chance.randint(1, 3) if wrong else 0):
        fault = chance.randrange(6)
        at = chance.randrange(len(lines) + 1)
        if fault == 0:
            status = chance.choice((*_STATUS_LINES, *_LONG_STATUS_LINES))
        elif fault < 3:
            lines.insert(at, chance.choice((*_HEADERS, b"x: y\r\n folded", b"x" * 70_000)))
        elif fault == 3 and at < len(lines):
            del lines[at]
        elif fault == 4 and at < len(lines):
            lines[at] = grammar.mutate(chance, lines[at])
        elif fault == 5:
            body = chance.choice((b"x" * 5, b"<html>" * 5000, b"\xff\0\x1b[2J", b"\r\n" * 50))
    end = b"\r\n"
    if wrong and chance.random() < 0.1:
        end = chance.choice((b"\n", b"\r", b"", b"\r\n "))
    data = end.join([status, *lines, b"", b""]) + body
    return grammar.mutate(chance, data) if wrong and chance.random() < 0.3 else data


_STATUS_LINES = b"""\
HTTP/1.1 200 OK
HTTP/1.1 400 Bad Request
HTTP/1.1 403 Forbidden
HTTP/1.1 101
HTTP/1.1 302 Found
HTTP/1.1
HTTP/1.0 101 x
HTTP/9.9 101 x
101

HTTP/1.1 -1 x
HTTP/1.1 99999999999999999999 x
HTTP/1.1 1e3 x
HTTP/1.1 0 x
HTTP/1.1 \xb2\xb2 x
HTTP/1.1 401 \xff
HTTP/1.1 503 \x1b[2J
SSH-2.0-x
\x00
HTTP/1.1 426 Upgrade Required
HTTP/1.1 \xd9\xa1\xd9\xa0\xd9\xa1 x
HTTP/1.1 1_01 x
""".split(b"\n")[:-1]
_LONG_STATUS_LINES = (
    b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/",
    b"HTTP/1.1 307 x\r\nLocation: ws://[",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 x",
    b"x" * 70_000,
)
_HEADERS = b"""\
Content-Length: 5
Content-Length: -1
Content-Length: x
Content-Length: 30000
Content-Length: 99999999999999999999
Transfer-Encoding: chunked
Content-Length:
Set-Cookie: a=b
Set-Cookie: a=b; domain=127.0.0.1
Set-Cookie: ]=[; ;;
no colon
Set-Cookie: a="\\999"; expires=x
Set-Cookie: \xff=\xff
Set-Cookie: a=\xc3\xa9; domain=127.0.0.1
Set-Cookie: domain=x
Set-Cookie: \x00=1; domain=127.0.0.1
Set-Cookie: a,b=1; domain=127.0.0.1
Sec-WebSocket-Accept: x
Sec-WebSocket-Accept: \xff
Sec-WebSocket-Accept:
Sec-WebSocket-Protocol: x
Sec-WebSocket-Protocol: wsep
Upgrade: x
Connection:
Sec-WebSocket-Extensions: permessage-deflate
Connection: close
Upgrade:
\x00
\xff: x
x: \xff
: x
x:\x00
Location: //[
""".split(b"\n")[:-1]


# The uses


def _start(url: str, timeout: float = SECONDS) -> Process:
    with connect(url, timeout=timeout) as execer:
        return execer.start(Command("any", stdin=True))


def _use_process(url: str) -> None:
    """Do all that can be done with a process."""
    try:
        process = _start(url)
    except _START_ERRORS:
        return
    with process:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"x" * 5000)
            process.stdin.close()
        process.resize(5, 5)

        def read_errors() -> None:
            with contextlib.suppress(ExitMissing):
                process.stderr.read()

        # Both outputs at once, as whoever does not care which comes first has to.
        reader = threading.Thread(target=read_errors, name="fuzz-stderr", daemon=True)
        reader.start()
        with contextlib.suppress(ExitMissing):
            process.stdout.read()
        reader.join(SECONDS)
        assert not reader.is_alive(), "the error output does not end"
        with contextlib.suppress(*_EXIT_ERRORS):
            process.wait(SECONDS)


def _leave_soon(url: str) -> None:
    _leave_process(url, 2.0)


def _leave_process(url: str, timeout: float = SECONDS) -> None:
    """Close without reading anything."""
    try:
        process = _start(url, timeout)
    except _START_ERRORS:
        return
    process.close()
    with contextlib.suppress(*_EXIT_ERRORS):
        process.wait(SECONDS)
    for file in (process.stdout, process.stderr):
        with contextlib.suppress(ExitMissing):
            file.read()
        file.close()


def _use_popen(url: str) -> None:
    """As `subprocess` would be used."""
    try:
        process = Popen(["any"], stdin=PIPE, stdout=PIPE, stderr=PIPE, url=url)
    except (OSError, *_START_ERRORS):
        return
    with contextlib.suppress(ExitMissing), process:
        process.communicate(b"x" * 5000, timeout=SECONDS)
