"""The WSGI application, as a WSGI server calls it."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from helpers import SECONDS, RawClient, Task, eventually, listening, start_message
from peers import BINARY, dial_raw

from wsep_sync import Command, LocalExecer, Server
from wsep_sync.jobs.options import SessionInfo
from wsep_sync.web.wsgi import UPGRADED, application

KEY = base64.b64encode(b"sixteen bytes...").decode()
# RFC 6455, section 4.2.2.
ACCEPT = base64.b64encode(
    hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
)


def environ(**headers: str) -> dict[str, Any]:
    """The environment of a request for a WebSocket; an empty header is none."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "QUERY_STRING": "",
    }
    setup_testing_defaults(environ)
    headers = {
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
        **headers,
    }
    environ.update({name: value for name, value in headers.items() if value})
    return environ


def call(environ: dict[str, Any], server: Server | None = None) -> tuple[str, dict[str, str], str]:
    """Call the application by all the rules of PEP 3333; return its answer."""
    answers: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answers.append((status, headers))

    result = validator(application(server or Server(), LocalExecer()))(environ, start_response)
    try:
        body = b"".join(result)
    finally:
        result.close()  # type: ignore[attr-defined]
    ((status, headers),) = answers
    return status, dict(headers), body.decode()


def test_a_request_for_no_websocket() -> None:
    status, headers, text = call(environ(HTTP_UPGRADE=""))
    assert status == "426 Upgrade Required"
    assert headers["Content-Length"] == str(len(text))
    assert "WebSocket" in text


def test_a_request_for_something_else() -> None:
    assert call(environ(HTTP_UPGRADE="h2c"))[0] == "426 Upgrade Required"


@pytest.mark.parametrize("version", ["", "8", "12", "14", "13, 8", "thirteen"])
def test_another_version(version: str) -> None:
    # RFC 6455, section 4.4: the answer names the version that is known.
    status, headers, _ = call(environ(HTTP_SEC_WEBSOCKET_VERSION=version))
    assert status == "426 Upgrade Required"
    assert headers["Sec-WebSocket-Version"] == "13"


def test_no_key() -> None:
    status, _, text = call(environ(HTTP_SEC_WEBSOCKET_KEY=""))
    assert status == "400 Bad Request"
    assert "Sec-WebSocket-Key" in text


def test_a_server_that_does_not_give_its_socket() -> None:
    request = environ()
    with pytest.raises(RuntimeError, match="socket"):
        application(Server(), LocalExecer())(request, lambda *_: lambda _: None)


@contextlib.contextmanager
def handshake(
    variables: dict[str, Any], **headers: str
) -> Iterator[tuple[socket.socket, dict[str, Any], Task]]:
    """Call the application with one end of a socket pair, in place of that in the variables."""
    ours, theirs = socket.socketpair()
    request = environ(**headers)
    request |= {name: theirs if value is ... else value for name, value in variables.items()}
    with ours, theirs, Task(call_upgraded, request) as serving:
        ours.settimeout(SECONDS)
        yield ours, request, serving


def call_upgraded(request: dict[str, Any]) -> list[bytes]:
    def start_response(*_: Any) -> Any:
        raise AssertionError("a WebSocket has no answer")

    return list(application(Server(), LocalExecer())(request, start_response))


# By what a server says of itself: how it is told that there is no answer.
UNANSWERED: list[tuple[dict[str, Any], type[Exception] | None]] = [
    ({"werkzeug.socket": ..., UPGRADED: False}, None),
    ({"werkzeug.socket": ...}, ConnectionAbortedError),
    # Each of the two lets a request end in silence for its exception, and for no other.
    ({"gunicorn.socket": ...}, StopIteration),
]


@pytest.mark.parametrize(("variables", "error"), UNANSWERED)
def test_the_upgrade(variables: dict[str, Any], error: type[Exception] | None) -> None:
    extensions = "permessage-deflate; client_max_window_bits"
    with handshake(variables, HTTP_SEC_WEBSOCKET_EXTENSIONS=extensions) as (sock, request, serving):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        lines = head.lower().split(b"\r\n")
        assert lines[0].startswith(b"http/1.1 101 ")
        assert b"sec-websocket-accept: " + ACCEPT.lower() in lines
        assert b"deflate" not in head
        sock.close()
        if error is None:
            assert serving.result() == []
            assert request[UPGRADED] is True
        else:
            with pytest.raises(error):
                serving.result()
        (theirs,) = (value for value in request.values() if isinstance(value, socket.socket))
        assert theirs.fileno() >= 0  # the server's to close


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_CONNECTION": "keep-alive"},
        {"HTTP_UPGRADE": "websockets"},
    ],
)
def test_a_handshake_that_is_not_valid(headers: dict[str, str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status, _, _ = call({**environ(**headers), "werkzeug.socket": theirs})
        assert status == "400 Bad Request"
        theirs.close()
        assert ours.recv(1) == b""  # the answer is the server's to send


@pytest.mark.parametrize("path", ["/", "/any/path", "/sessions", "/ä?query=1"])
def test_every_path_is_the_websocket(path: str) -> None:
    with listening() as listener:
        url = listener.url + path.encode("ascii", "ignore").decode()
        with RawClient(url) as client:
            client.start(Command("true"))
            assert client.receive_until("exit_code")["exit_code"] == 0


def test_a_long_list_comes_in_pieces() -> None:
    class Full(Server):
        def sessions(self) -> list[SessionInfo]:
            command = ("\0" * 1024,)
            return [SessionInfo(f"s{n}", n, command, 24, 80, 0, 0.5, 1.5) for n in range(1000)]

    request = environ(HTTP_UPGRADE="", PATH_INFO="/sessions")
    pieces = iter(application(Full(), LocalExecer())(request, lambda *_: lambda _: None))
    first = next(iter(pieces))
    # Who does not read it costs no more than this.
    assert len(first) < 100_000
    listed = json.loads(first + b"".join(pieces))
    assert [info["id"] for info in listed] == [f"s{n}" for n in range(1000)]
    assert listed[7] == {
        "id": "s7",
        "pid": 7,
        "command": ["\0" * 1024],
        "rows": 24,
        "cols": 80,
        "clients": 0,
        "created": 0.5,
        "last_activity": 1.5,
    }


def test_the_close_after_an_exit_status() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.start(Command("true"))
        client.receive_until("exit_code")
        client.ws.send_close(1000)
        client.receive_all()
        assert client.code == 1000


def test_the_close_after_a_refusal() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.send(start_message(Command("/no/such/command")))
        client.receive_all()
        assert client.code == 1011
        assert "no such file or directory" in client.reason


def test_a_reason_that_is_too_long_for_a_close_frame() -> None:
    with listening() as listener, RawClient(listener.url) as client:
        client.send(start_message(command="/" + "ä" * 500))
        client.receive_all()
        assert client.code == 1011
        assert len(client.reason.encode()) <= 123
        assert client.reason.endswith(("no such file or directory", "file name too long"))


def test_nonsense_behind_what_is_refused_holds_no_descriptors() -> None:
    with listening() as listener:
        descriptors = len(os.listdir("/proc/self/fd"))
        gc.disable()
        try:
            for _ in range(20):
                with dial_raw(listener.server_address) as raw:
                    early = raw.frame(BINARY, b'{"type":"close_stdin"}')
                    raw.socket.sendall(early + raw.frame(0x6))
                    assert raw.receive().code == 1011
            eventually(
                lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2,
                "descriptors are closed without the garbage collector",
            )
        finally:
            gc.enable()
