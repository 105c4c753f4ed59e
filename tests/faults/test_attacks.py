"""A table of attacks, each tried over the network on the command line's own server.

After each of them the server still serves, has logged no traceback, and has none of its secrets in
its log.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SECONDS, eventually, gone
from peers import BINARY, CLOSE, CONTINUATION, TEXT, Frame, RawPeer, dial_raw, read_head
from programs import ServerProcess, server_process

from wsep_sync import Command, connect

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long

TOKEN = "s3cret-t0ken"
BEARER = f"Authorization: Bearer {TOKEN}"
LIMIT = 40  # connections
MAX_MESSAGE = 64_000  # bytes, DESIGN of the wire


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    token = tmp_path_factory.mktemp("attacks") / "token"
    token.write_text(TOKEN)
    options = ["--token-file", str(token), "--max-connections", str(LIMIT), "--head-timeout", "2"]
    # It serves all tests of this module.
    with server_process(*options, "--user", "nobody", seconds=600) as (_, server):
        yield server


@pytest.fixture(autouse=True)
def serves_on(server: ServerProcess) -> Iterator[None]:
    yield

    def served() -> bool:
        # Not at once after an attack with many connections: they have to be gone.
        try:
            with (
                connect(server.url, token=TOKEN) as execer,
                execer.start(Command("echo", ["next"])) as process,
            ):
                assert process.stdout.read() == b"next\n"
        except ConnectionError:
            return False
        return True

    eventually(served, "the next client")
    log = server.log()
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert TOKEN not in log


def address(server: ServerProcess) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("ws://").rpartition(":")
    return host, int(port)


def upgrade(server: ServerProcess, *headers: str, host: str = "") -> list[str]:
    """The lines of a request for a WebSocket."""
    name, port = address(server)
    return [
        "GET / HTTP/1.1",
        f"Host: {host or f'{name}:{port}'}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(),
        *headers,
    ]


def request(server: ServerProcess, lines: list[str]) -> tuple[int, str, str]:
    """Send a request; return the answer's status, its head and its body."""
    with socket.create_connection(address(server), SECONDS) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return answer(sock)


def answer(sock: socket.socket) -> tuple[int, str, str]:
    head, body = read_head(sock)
    status = int(head.split()[1])
    if status != 101:
        while more := sock.recv(1 << 16):
            body += more
    return status, head, body.decode()


# Who may connect


def test_a_page_of_another_origin(server: ServerProcess) -> None:
    for origin in ("https://attacker.example", "null", "http://localhost.attacker.example"):
        status, _, body = request(server, upgrade(server, BEARER, f"Origin: {origin}"))
        assert (status, body) == (403, "this origin is not allowed (see --allow-origin)\n")


def test_the_own_page(server: ServerProcess) -> None:
    host, port = address(server)
    own = f"Origin: http://{host}:{port}"
    status, head, _ = request(
        server, upgrade(server, own, f"Sec-WebSocket-Protocol: wsep, bearer.{TOKEN}")
    )
    assert status == 101
    assert "\r\nsec-websocket-protocol: wsep" in head.lower()
    assert TOKEN not in head


def test_a_name_that_was_made_to_point_here(server: ServerProcess) -> None:
    _, port = address(server)
    host = f"attacker.example:{port}"
    # The browser takes the page for one of the server's own.
    lines = upgrade(server, BEARER, f"Origin: http://{host}", host=host)
    status, _, body = request(server, lines)
    assert status == 403
    assert "attacker.example" in body


@pytest.mark.parametrize("path", ["GET /", "GET /sessions", "DELETE /sessions/s"])
def test_no_token_or_a_wrong_one(server: ServerProcess, path: str) -> None:
    for headers in ([], ["Authorization: Bearer wr0ng"], ["Sec-WebSocket-Protocol: bearer.wr0ng"]):
        lines = [f"{path} HTTP/1.1", *upgrade(server, *headers)[1:]]
        status, head, body = request(server, lines)
        words = "the token is wrong" if headers else "a token is needed"
        assert (status, body) == (401, f"{words} (see --token-file)\n")
        assert "\r\nwww-authenticate: bearer" in head.lower()
    assert "wr0ng" not in server.log()


def test_a_token_in_the_path(server: ServerProcess) -> None:
    lines = [f"GET /?token={TOKEN} HTTP/1.1", *upgrade(server)[1:]]
    assert request(server, lines)[0] == 401


# HTTP


def test_ten_thousand_headers(server: ServerProcess) -> None:
    lines = upgrade(server, BEARER, *(f"X-{number}: x" for number in range(10_000)))
    assert request(server, lines)[0] == 431


def test_a_header_without_end(server: ServerProcess) -> None:
    with socket.create_connection(address(server), SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                sock.sendall(b"x" * 1000)
            pytest.fail("10 MB of a header were taken")
    # What it had sent by then may have made the answer a reset: try one that has an end.
    assert request(server, ["GET / HTTP/1.1", "X: " + "x" * 70_000])[0] == 431


def test_a_head_that_comes_slowly(server: ServerProcess) -> None:
    with socket.create_connection(address(server), SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
        sock.settimeout(0.1)
        # A byte now and then does not put it off.
        got = b""
        with contextlib.suppress(ConnectionError):
            while not got:
                try:
                    got = sock.recv(100)
                    break
                except TimeoutError:
                    sock.send(b"x")
        assert got.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 408 ")) or not got


def test_a_request_of_another_kind(server: ServerProcess) -> None:
    for first, expected in (
        ("POST / HTTP/1.1", 426),
        ("GET / HTTP/9.9", 505),
        ("GET", 400),
        ("nonsense nonsense nonsense nonsense", 400),
    ):
        lines = [first, *upgrade(server, BEARER, "Upgrade: none")[1:2], BEARER]
        assert request(server, lines)[0] == expected


@pytest.mark.timeout(180)
def test_ten_thousand_idle_connections(server: ServerProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12_000), hard))
        with connect(server.url, token=TOKEN) as execer:
            old = stack.enter_context(execer.start(Command("cat", stdin=True)))
        socks = [stack.enter_context(socket.socket()) for _ in range(10_000)]
        for sock in socks:
            sock.settimeout(SECONDS)
            sock.connect(address(server))
        # Those past the limit are told so, or cut. The last may not be past it, where it takes so
        # long to make them all that the first have run into their timeout.
        assert any(map(refused, reversed(socks)))
        old.stdin.write(b"still here\n")
        old.stdin.flush()
        assert old.stdout.readline() == b"still here\n"
        assert threads(server.pid) < 3 * LIMIT


def refused(sock: socket.socket) -> bool:
    try:
        got = sock.recv(100)
    except ConnectionResetError:
        return True
    return not got or got.split()[1] == b"503"


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


# WebSocket


@pytest.fixture
def peer(server: ServerProcess) -> Iterator[RawPeer]:
    with dial_raw(address(server), headers=(BEARER,)) as peer:
        yield peer


def start(**fields: Any) -> bytes:
    command = {"command": "cat", "stdin": True, **fields}
    id = command.pop("id", "")
    return json.dumps({"type": "start", "id": id, "command": command}).encode()


def closed(peer: RawPeer) -> tuple[int | None, str]:
    """How the server closes; the connection ends behind it."""
    _, frame = peer.receive_until_close()
    peer.send(CLOSE, frame.payload[:2])
    assert peer.at_end()
    return frame.code, frame.reason


def running(peer: RawPeer, message: bytes | None = None) -> int:
    """Start a command; return its pid."""
    peer.send(BINARY, start() if message is None else message)
    header = json.loads(peer.receive().payload)
    assert header["type"] == "pid"
    return int(header["pid"])


def test_a_message_that_is_one_byte_too_long(peer: RawPeer) -> None:
    pid = running(peer)
    header = b'{"type":"stdin"}\n'
    peer.send(BINARY, header + bytes(MAX_MESSAGE + 1 - len(header)))
    code, reason = closed(peer)
    assert code == 1009
    assert str(MAX_MESSAGE) in reason
    gone(pid)


def test_a_message_that_says_it_is_endless(peer: RawPeer) -> None:
    pid = running(peer)
    peer.socket.sendall(struct.pack("!BBQ4s", 0x82, 0xFF, (1 << 63) - 1, b"mask"))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(4):
            peer.socket.sendall(bytes(MAX_MESSAGE))
    with contextlib.suppress(EOFError, ConnectionResetError):
        assert peer.receive_until_close()[1].code in (1002, 1009)
    gone(pid)


def test_a_compressed_message(peer: RawPeer) -> None:
    # RSV1, which says so, was not agreed upon (RFC 7692, section 6).
    compress = zlib.compressobj(wbits=-15)
    data = compress.compress(start()) + compress.flush(zlib.Z_SYNC_FLUSH)
    peer.send(BINARY, data[:-4], reserved=4)
    assert closed(peer)[0] == 1002


def test_a_bomb_of_compression_is_not_offered(server: ServerProcess) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    with dial_raw(address(server), headers=(BEARER, offer)) as peer:
        assert "sec-websocket-extensions" not in peer.headers


def test_a_fragmented_message(peer: RawPeer) -> None:
    message = start(command="echo", args=["whole"], stdin=False)
    peer.send(BINARY, message[:1], final=False)
    for i in range(1, len(message) - 1):
        peer.send(CONTINUATION, message[i : i + 1], final=False)
    peer.send(CONTINUATION, message[-1:])
    assert json.loads(peer.receive().payload)["type"] == "pid"
    assert peer.receive().payload == b'{"type":"stdout"}\nwhole\n'


def test_a_fragmented_message_that_is_too_long(peer: RawPeer) -> None:
    peer.send(BINARY, b" ", final=False)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(2 * MAX_MESSAGE // 1000):
            peer.send(CONTINUATION, bytes(1000), final=False)
    with contextlib.suppress(EOFError, ConnectionResetError):
        assert peer.receive_until_close()[1].code == 1009


def test_a_text_message(peer: RawPeer) -> None:
    # The reference takes one for the other.
    pid = running_text(peer)
    peer.send(TEXT, b'{"type":"stdin"}\ntext\n')
    assert peer.receive().payload == b'{"type":"stdout"}\ntext\n'
    peer.send(TEXT, b'{"type":"stdin"}\n\xff\xfe')  # no UTF-8: RFC 6455, section 8.1
    assert closed(peer)[0] == 1007
    gone(pid)


def running_text(peer: RawPeer) -> int:
    peer.send(TEXT, start())
    return int(json.loads(peer.receive().payload)["pid"])


def test_an_unmasked_frame(peer: RawPeer) -> None:
    # RFC 6455, section 5.1.
    peer.send(BINARY, start(), masked=False)
    assert closed(peer)[0] == 1002


@pytest.mark.parametrize(
    ("opcode", "options"),
    [
        (CONTINUATION, {}),
        (0x3, {}),
        (0xB, {}),
        (BINARY, {"reserved": 1}),
        (BINARY, {"reserved": 7}),
        (0x9, {"final": False}),
    ],
)
def test_a_frame_that_is_none(peer: RawPeer, opcode: int, options: dict[str, Any]) -> None:
    peer.send(opcode, b"x", **options)
    assert closed(peer)[0] == 1002


def test_a_long_control_frame(peer: RawPeer) -> None:
    peer.send(0x9, bytes(126))
    assert closed(peer)[0] == 1002


# Commands


@pytest.mark.parametrize(
    "id",
    ["../../etc/passwd", "/", "..", "s;reboot", "%2e%2e", "\u202e", "\n", "a" * 1024],
)
def test_ids_that_look_like_something_else(server: ServerProcess, id: str) -> None:
    before = set(os.listdir("/proc/self/cwd"))
    with dial_raw(address(server), headers=(BEARER,)) as peer:
        pid = running(peer, start(id=id, tty=True))
        with dial_raw(address(server), headers=(BEARER,)) as other:
            assert running(other, start(id=id, tty=True)) == pid
        # It is a name in a table, and nothing else.
        peer.send(BINARY, b'{"type":"signal","signal":9}')
        output(peer)
    gone(pid)
    assert set(os.listdir("/proc/self/cwd")) == before


def test_an_id_of_a_megabyte(peer: RawPeer) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.send(BINARY, start(id="x" * 1_000_000, tty=True))
    with contextlib.suppress(EOFError, ConnectionResetError):
        assert peer.receive_until_close()[1].code == 1009


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": "a\0b", "tty": True}, "NUL"),
        ({"id": "a" * 1025, "tty": True}, "1024 are the limit"),
        ({"env": f"TOKEN={TOKEN}"}, "env must be a list of strings, not a string"),
        ({"env": [["PASSWORD", TOKEN]]}, "env must be a string, not a list"),
        ({"command": "ca\0t"}, "NUL"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"env": ["A=b\0c"]}, "NUL"),
        ({"working_dir": "/tmp\0/x"}, "NUL"),
        ({"command": ""}, "no command"),
        ({"tty": True, "rows": 70_000}, "rows must be 0 to 65535"),
        ({"tty": True, "cols": -1}, "cols must be 0 to 65535"),
        ({"args": "ls"}, "args"),
        ({"rows": True}, "rows"),
    ],
)
def test_commands_that_are_none(peer: RawPeer, fields: dict[str, Any], words: str) -> None:
    peer.send(BINARY, start(**fields))
    code, reason = closed(peer)
    assert code == 1011
    assert words in reason


def test_a_resize_to_70000_rows(peer: RawPeer) -> None:
    pid = running(peer, start(tty=True))
    peer.send(BINARY, b'{"type":"resize","rows":70000,"cols":80}')
    code, reason = closed(peer)
    assert code == 1011
    assert "rows must be 0 to 65535" in reason
    gone(pid)


def test_another_user_than_the_servers(peer: RawPeer) -> None:
    message = start(command="id", args=["-un"], stdin=False, uid=1, gid=1)
    running(peer, message)
    assert output(peer) == b"nobody\n"


def output(peer: RawPeer) -> bytes:
    frames: list[Frame] = []
    while not (frames and frames[-1].payload.startswith(b'{"type":"exit_code"')):
        frames.append(peer.receive())
    bodies = (frame.payload.partition(b"\n") for frame in frames)
    return b"".join(body for header, _, body in bodies if header == b'{"type":"stdout"}')


def test_the_token_is_nowhere_a_command_looks(peer: RawPeer) -> None:
    script = "env; cat /proc/self/environ; tr '\\0' '\\n' < /proc/$PPID/environ"
    running(peer, start(command="sh", args=["-c", script], stdin=False))
    assert TOKEN.encode() not in output(peer)


def test_files_of_the_server_stay_where_they_are(server: ServerProcess) -> None:
    # No path of a request is a path of the file system.
    for path in ("/../../etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/sessions/.."):
        status, _, body = request(
            server, [f"GET {path} HTTP/1.1", *upgrade(server, BEARER)[1:2], BEARER]
        )
        assert status == 426
        assert "root:" not in body


def test_sessions_that_are_none(server: ServerProcess) -> None:
    for id in ("none", "%00", "..%2f..", "%ff%fe", "a" * 3000):
        lines = [f"DELETE /sessions/{id} HTTP/1.1", *upgrade(server, BEARER)[1:2], BEARER]
        assert request(server, lines)[::2] == (404, "no such session\n")


def test_it_keeps_no_file_open(server: ServerProcess) -> None:
    for name in os.listdir(f"/proc/{server.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{server.pid}/fd/{name}")
            assert Path(target).name != "token"
