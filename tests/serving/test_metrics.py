"""GET /healthz and GET /metrics, as a WSGI server asks for them."""

from __future__ import annotations

import errno
import gc
import json
import socket
import sys
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from helpers import MemoryExecer, RawClient, Task, eventually, listening, sh
from prometheus_client.parser import text_string_to_metric_families

import wsep_sync
from wsep_sync import Command, ConnectError, ExitError, LocalExecer, Server, StartError, connect
from wsep_sync.errors import TransportClosed, start_error
from wsep_sync.serving.metrics import failure_reason
from wsep_sync.web.access import Access
from wsep_sync.web.wsgi import application


def get(
    path: str, server: Server | None = None, access: Access | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """The status, the headers and the text of the application's answer to a plain GET."""
    request: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    setup_testing_defaults(request)
    request |= headers
    answers: list[tuple[str, dict[str, str]]] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answers.append((status, dict(headers)))

    app = application(server or Server(), LocalExecer(), access=access)
    body = b"".join(app(request, start_response))
    ((status, got),) = answers
    assert got["Content-Length"] == str(len(body))
    return int(status.split()[0]), got, body.decode()


def numbers(server: Server) -> dict[str, float]:
    """What /metrics says, by name and label."""
    status, headers, text = get("/metrics", server)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# /healthz


def test_health() -> None:
    status, headers, text = get("/healthz")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(text) == {
        "version": wsep_sync.__version__,
        "sessions": 0,
        "connections": 0,
    }


def test_health_counts_sessions_and_connections() -> None:
    server = Server()
    with (
        MemoryExecer(server=server) as execer,
        execer.start(Command("cat", tty=True, id="work")) as session,
    ):
        with execer.start(Command("cat", stdin=True)):
            health = json.loads(get("/healthz", server)[2])
            assert (health["sessions"], health["connections"]) == (1, 2)
        session.kill()
    assert json.loads(get("/healthz", server)[2])["connections"] == 0
    eventually(lambda: json.loads(get("/healthz", server)[2])["sessions"] == 0, "the end")


@pytest.mark.parametrize("host", ["", "attacker.example", "10.0.0.1:80", "backend"])
def test_health_for_whoever_asks(host: str) -> None:
    # A proxy asks under any name, and shows no token.
    assert get("/healthz", access=Access("s3cret"), HTTP_HOST=host)[0] == 200


def test_health_of_a_server_that_is_closed() -> None:
    server = Server()
    server.close()
    status, _, text = get("/healthz", server)
    assert (status, json.loads(text)["sessions"]) == (503, 0)


def test_health_of_a_server_that_is_drained() -> None:
    server = Server()
    with (
        MemoryExecer(server=server) as execer,
        execer.start(Command("cat", tty=True, id="work")) as session,
    ):
        with Task(server.drain, 60) as draining:
            eventually(lambda: get("/healthz", server)[0] == 503, "a server that drains")
            # Those who have something here are served as before.
            with execer.start(Command("cat", tty=True, id="work")) as again:
                assert again.reattached
            session.kill()
        assert draining.result() is True
    assert get("/healthz", server)[0] == 503


def test_health_over_http_1_0_without_a_host() -> None:
    # What a proxy asks unless told otherwise.
    with listening() as listener, socket.create_connection(listener.server_address) as sock:
        sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 OK\r\n" in head
    assert json.loads(body)["connections"] == 0


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_a_websocket_of_that_path(path: str) -> None:
    with listening() as listener, RawClient(listener.url + path) as client:
        client.start(Command("true"))
        assert client.receive_until("exit_code")["exit_code"] == 0


# /metrics


def test_metrics_want_what_sessions_want() -> None:
    access = Access("s3cret")
    assert get("/metrics", access=access)[0] == 401
    assert get("/metrics", access=access, HTTP_AUTHORIZATION="Bearer wrong")[0] == 401
    assert get("/metrics", access=access, HTTP_AUTHORIZATION="Bearer s3cret")[0] == 200
    assert get("/metrics", HTTP_HOST="attacker.example")[0] == 403


def test_metrics_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    status, _, text = get("/metrics")
    assert status == 404
    assert "prometheus_client" in text
    assert "pip install '.[metrics]'" in text
    assert text.count("\n") == 1


def test_metrics_of_a_new_server() -> None:
    got = numbers(Server())
    assert set(got.values()) == {0.0}
    for name in (
        "wsep_open_connections",
        "wsep_sessions",
        "wsep_connections_total",
        "wsep_commands_started_total",
        "wsep_bytes_total in",
        "wsep_bytes_total out",
        "wsep_start_seconds_count",
        "wsep_attach_seconds_sum",
    ):
        assert name in got


def test_metrics_of_commands() -> None:
    server = Server()
    with MemoryExecer(server=server) as execer:
        command = sh("cat; echo err >&2; exit 3", stdin=True)
        with execer.start(command) as process:
            assert numbers(server)["wsep_open_connections"] == 1
            process.stdin.write(b"12345")
            process.stdin.close()
            assert process.stdout.read() == b"12345"
            # It went this way already, though the connection may be open yet.
            eventually(lambda: numbers(server)["wsep_bytes_total out"] >= 5, "what was sent")
            with pytest.raises(ExitError):
                process.wait()
        with pytest.raises(FileNotFoundError):
            execer.start(Command("/no/such/command"))
        with pytest.raises(StartError):
            execer.start(Command(""))
    got = numbers(server)
    assert got["wsep_open_connections"] == 0
    assert got["wsep_connections_total"] == 3
    assert got["wsep_commands_started_total"] == 1  # it failed later, which is its own affair
    assert got["wsep_commands_failed_total ENOENT"] == 1
    assert got["wsep_commands_failed_total refused"] == 1
    assert got["wsep_bytes_total in"] == 5
    assert got["wsep_bytes_total out"] == 9
    assert got["wsep_start_seconds_count"] == 1
    assert got["wsep_start_seconds_bucket +Inf"] == 1
    assert 0 < got["wsep_start_seconds_sum"] < 60
    assert got["wsep_attach_seconds_count"] == 0


def test_metrics_of_sessions() -> None:
    server = Server()
    command = Command("cat", tty=True, id="work")
    with (
        MemoryExecer(server=server) as execer,
        execer.start(command),
        execer.start(command) as second,
    ):
        assert second.reattached
        assert numbers(server)["wsep_sessions"] == 1
        second.kill()
    eventually(lambda: numbers(server)["wsep_sessions"] == 0, "the end of the session")
    got = numbers(server)
    assert got["wsep_commands_started_total"] == 1
    assert got["wsep_start_seconds_count"] == 1
    assert got["wsep_attach_seconds_count"] == 1


def test_metrics_of_a_server_in_front_of_another() -> None:
    server = Server()

    def nowhere() -> Any:
        return connect("ws://127.0.0.1:1")

    with MemoryExecer(nowhere, server) as execer, pytest.raises(StartError):
        execer.start(Command("true"))
    assert numbers(server)["wsep_commands_failed_total connection"] == 1


def test_asking_for_metrics_leaves_no_garbage() -> None:
    server = Server()
    numbers(server)  # what is imported and compiled
    gc.collect()
    gc.disable()
    try:
        get("/metrics", server)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (start_error(errno.ENOENT, "x"), "ENOENT"),
        (start_error(errno.EACCES, "x"), "EACCES"),
        (start_error(12345, "x"), "refused"),
        (StartError("no"), "refused"),
        (ConnectError("ws://x", "no"), "connection"),
        (TransportClosed(1006), "connection"),
        (RuntimeError("?"), "internal"),
    ],
)
def test_reasons(error: Exception, reason: str) -> None:
    assert failure_reason(error) == reason
