"""HTTP requests, against a server in a process of its own."""

from __future__ import annotations

import random
from urllib.parse import quote_from_bytes

from watched import WatchedServer

from fuzz import grammar
from fuzz.campaign import Case, Check
from fuzz.peer import Peer, check_answer

# What may be answered; nothing that says that the server is at fault.
STATUSES = {101, 200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 417, 426, 431, 501, 505}

_METHODS = (
    *(b"GET", b"get", b"POST", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"PUT", b"PRI"),
    *(b"", b"\0", b"\xff", b"G ET", b"G\x1b[H", b"A" * 70_000),
)
_VERSIONS = b"""\
HTTP/1.0
HTTP/2.0
HTTP/0.9
HTTP/1
HTTP/1.1.1
HTTP/9999999999.1
HTTP/-1.1
HTTP/1.-1
http/1.1
HTTP/1.\xb9
HTTP/ 1.1
HTTP/

X
HTTP/1_0.1
HTTP/01.1
HTTP/1.1 x
HTTP/1.1\x00
HTTP/+1.1
""".split(b"\n")[:-1]
_HEADERS = b"""\
Content-Length: 0
Content-Length: 5
Content-Length: -1
Content-Length: +5
Content-Length: 1e5
Content-Length: 99999999999999999999
Content-Length: 5, 5
Content-Length:
Content-Length: \xb2
Transfer-Encoding: chunked
Transfer-Encoding: identity, chunked
Expect: 100-continue
Expect: x
Connection: close
Connection: keep-alive
Connection:
Connection: Upgrade
Upgrade: h2c
Upgrade: websocket
Upgrade: WebSocket, x
Upgrade:
Host: x
Host: 127.0.0.1
Host: evil.example
Host:
Host: [::1]:80
Host: a b
Host: user@127.0.0.1
Host: 127.0.0.1:99999
Host: [
Host: \xff
Sec-WebSocket-Version: 8
Sec-WebSocket-Version: 13, 8
Sec-WebSocket-Version:
Sec-WebSocket-Key: x
Sec-WebSocket-Key: \xff
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==
Sec-WebSocket-Key:
Sec-WebSocket-Protocol: wsep
Sec-WebSocket-Protocol: wsep, bearer.x
Sec-WebSocket-Protocol: \xff
Sec-WebSocket-Protocol: ,,
Sec-WebSocket-Protocol:
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
Origin: null
Sec-WebSocket-Extensions: ;;;=,,
Origin: http://evil.example
Origin: http://[
Authorization: Bearer x
Authorization: Bearer
Authorization: Basic \xff
Origin:
Cookie: a=b
Content-Type: \xff
Content-Type: text/plain; charset=\xff
X-Forwarded-For: 1.2.3.4
Wsep-Session-Id: x
Wsep-Session-Id: %ff%00
Wsep-Session-Id: \xff
Proxy: x
Te: trailers
Host_: x
Content_Length: 5
no colon
: no name
name : x
 folded: x
\tfolded
n\x00: x
x: \x00
x: \x1b[2J
\xc3\xa9: x
x: \xc3\xa9
x: a\rb
\r
\x0b
x: \x85y
x: \x1cy
x: a\x0cHost: b
=?utf-8?q?x?=: =?utf-8?q?=FF?=
""".split(b"\n")[:-1]
_BODIES = (b"body", b"5\r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x81\x80")
_LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\0", b"\x0b", b"\x85", b"\r\n ", b"\r\n\r\n")


def check(server: WatchedServer) -> Check:
    def one(case: Case) -> None:
        chance = case.chance
        data = head(chance, server)
        pieces = grammar.pieces(chance, data)
        ending = chance.choice(("finish",) * 8 + ("reset", "leave"))
        case.note("request", data)
        case.note("in pieces of", [len(piece) for piece in pieces])
        case.note("then", ending)
        with Peer(server.address) as peer:
            peer.send(pieces)
            if ending == "reset":
                peer.reset()
            elif ending == "finish":
                peer.finish()
                status = check_answer(peer.read_to_end())
                assert status in STATUSES | {0}, status
        server.check()

    return one


def head(chance: random.Random, server: WatchedServer) -> bytes:
    """A request, from quite right to quite wrong."""
    kind = chance.random()
    if kind < 0.04:
        return chance.randbytes(chance.choice((1, 10, 100, 1000)))
    if kind < 0.06:
        # A TLS client's first words, or another protocol's.
        return chance.choice(
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"\n")
        )
    host, port = server.address
    own = f"{host}:{port}".encode()
    method, target, version = b"GET", b"/", b"HTTP/1.1"
    lines = [b"Host: " + own]
    if chance.random() < 0.6:
        lines += [
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ]
    else:
        method, target = chance.choice(
            (
                (b"GET", b"/sessions"),
                (b"DELETE", b"/sessions/" + quote_from_bytes(_bytes(chance)).encode()),
                (b"GET", b"/"),
                (b"POST", b"/sessions"),
                (b"HEAD", b"/sessions"),
                (b"GET", b"/healthz"),
                (b"GET", b"/metrics"),
                (b"GET", b"http://" + own + b"/healthz"),
            )
        )
    body = b""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        fault = chance.randrange(12)
        at = chance.randrange(len(lines) + 1)
        if fault == 0:
            method = chance.choice(_METHODS)
        elif fault == 1:
            target = _target(chance, own)
        elif fault == 2:
            version = chance.choice(_VERSIONS)
        elif fault < 6:
            lines.insert(at, chance.choice(_HEADERS))
        elif fault == 6 and lines:
            line = chance.choice(lines)  # twice, or not at all, or otherwise
            name, _, value = line.partition(b":")
            lines[at:at] = [[line], [name.lower() + b":" + value], [name + b": "]][
                chance.randrange(3)
            ]
        elif fault == 7 and at < len(lines):
            del lines[at]
        elif fault == 8:
            size = chance.choice((100, 8_000, 9_000, 65_000, 65_537, 200_000))
            lines.insert(at, chance.choice((b"x: ", b"", b"x: a\r\n ")) + b"y" * size)
        elif fault == 9:
            count = chance.choice((50, 99, 100, 101, 150, 1000))
            lines[at:at] = [b"x%d: y" % i for i in range(count)]
        elif fault == 10 and at < len(lines):
            lines[at] = grammar.mutate(chance, lines[at])
        elif fault == 11:
            body = chance.choice(
                (b"body", b"5\r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x81")
            )
    end = chance.choice(_LINE_ENDS) if chance.random() < 0.1 else b"\r\n"
    data = end.join([b" ".join((method, target, version)), *lines, b"", b""]) + body
    if chance.random() < 0.1:
        data = chance.choice((b"\r\n", b"\n", b" ", b"\0", b"\xef\xbb\xbf")) + data
    if chance.random() < 0.25:
        data = grammar.mutate(chance, data)
    return data


def _bytes(chance: random.Random) -> bytes:
    return grammar.text(chance).encode(errors="surrogatepass")


def _target(chance: random.Random, own: bytes) -> bytes:
    if chance.random() < 0.1:
        long = (b"a" * 8_000, b"a" * 65_536, b"%00" * 3_000, b"?" * 20_000)
        return b"/" + chance.choice(long)
    if chance.random() < 0.2:
        return b"/" + _bytes(chance)
    return chance.choice(_TARGETS).replace(b"SELF", own)


_TARGETS = b"""\
*

//
/../..
http://SELF/
http://SELF
http://[::1
http:///
ws://SELF/
https://evil.example/
SELF
/ x
/\xff
/\xc3\xa9
/?
/%
/%zz
/%00
/%2e%2e/
/%ff
/#x
/?x#y
/\x1b[2J
/\\
x
/sessions/
/sessions?x
/sessions/%ff
/sessions//
//sessions
/;x
/\x00
""".split(b"\n")[:-1]
