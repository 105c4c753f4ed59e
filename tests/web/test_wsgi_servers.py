"""Under the WSGI servers of others: what comes before and after the commands, and how they end.

The commands themselves are under the contract.
"""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest
from helpers import SECONDS, RawClient, ends_processes, eventually, gone, numbers, sh, start_message
from peers import BINARY, RawPeer, dial_raw
from wsgi_servers import Program, flask_sock, gunicorn, werkzeug

from wsep_sync import Command, ExitMissing, StartError, connect

pytestmark = pytest.mark.long


def flask_sock_under_gunicorn() -> AbstractContextManager[Program]:
    return gunicorn(app="flask_app:app", path="/exec")


SERVERS: dict[str, Callable[[], AbstractContextManager[Program]]] = {
    "gunicorn": gunicorn,
    "werkzeug": werkzeug,
    "flask-sock": flask_sock,
    "flask-sock, gunicorn": flask_sock_under_gunicorn,
}


# At the end it has to end well, and without a traceback in its log.
@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Program]:
    with SERVERS[request.param]() as server:
        yield server


def dial(server: Program, *headers: str) -> RawPeer:
    parts = urlsplit(server.url)
    return dial_raw((parts.hostname, parts.port), parts.path or "/", headers)


def get(server: Program, path: str, **headers: str) -> tuple[int, str]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_nothing_follows_a_websocket(server: Program) -> None:
    with dial(server) as peer:
        peer.send(BINARY, start_message(Command("true")))
        while b"exit_code" not in peer.receive().payload:
            pass
        peer.send_close(1000)
        assert peer.receive().code == 1000
        assert peer.at_end()


def test_nothing_follows_a_command_that_cannot_be_started(server: Program) -> None:
    with dial(server) as peer:
        peer.send(BINARY, start_message(Command("/no/such/command")))
        _, close = peer.receive_until_close()
        assert close.code == 1011
        assert "no such file or directory" in close.reason
        peer.send_close(1011)
        assert peer.at_end()


def test_a_client_that_does_not_answer_the_close(server: Program) -> None:
    with dial(server) as peer:
        peer.send(BINARY, b"nonsense")
        _, close = peer.receive_until_close()
        assert close.code == 1011
        assert peer.at_end()


def test_a_client_that_vanishes(server: Program) -> None:
    for leave in (RawClient.reset, RawClient.finish):
        with RawClient(server.url) as client:
            pid = client.start(Command("sleep", ["1000"]))
            with ends_processes(pid):
                leave(client)
                gone(pid)


def test_another_origin(server: Program) -> None:
    with pytest.raises(AssertionError, match="403 "):
        dial(server, "Origin: http://attacker.example")


def test_health_and_metrics() -> None:
    with gunicorn() as server:
        with (
            connect(server.url, timeout=SECONDS) as execer,
            execer.start(Command("cat", stdin=True)),
        ):
            status, text = get(server, "/healthz")
            assert (status, json.loads(text)["connections"]) == (200, 1)
        status, text = get(server, "/metrics")
        assert status == 200
        assert "wsep_commands_started_total 1.0\n" in text


def test_other_routes_of_a_flask_application() -> None:
    with flask_sock() as server, connect(server.url, timeout=SECONDS) as execer:
        with execer.start(Command("cat", stdin=True)):
            assert get(server, "/") == (200, "Commands are run at /exec.\n")
            assert get(server, "/", Origin="http://attacker.example")[0] == 403
        assert get(server, "/nowhere")[0] == 404


def test_threads_are_free_again() -> None:
    with gunicorn("--threads", "2") as server, connect(server.url, timeout=SECONDS) as execer:
        for _ in range(5):
            with execer.start(Command("true")) as process:
                process.wait(SECONDS)
            with pytest.raises(StartError):
                execer.start(Command("/no/such/command"))
        eventually(lambda: json.loads(get(server, "/healthz")[1])["connections"] == 0, "the end")


@pytest.mark.parametrize(("app", "path"), [("app:app", ""), ("flask_app:app", "/exec")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_gunicorn_that_is_told_to_end(number: int, app: str, path: str) -> None:
    # As it is by itself, it would wait for so long, and then kill the server of the commands.
    with (
        gunicorn("--graceful-timeout", "600", app=app, path=path) as server,
        connect(server.url, timeout=SECONDS) as execer,
        execer.start(sh("echo $$; exec sleep 1000")) as plain,
        execer.start(sh("stty -echo; echo $$; exec cat", tty=True, id="work")) as session,
    ):
        pids = [*numbers(plain.stdout, 1), *numbers(session.stdout, 1)]
        with ends_processes(*pids):
            server.end(number)
            gone(*pids)
        for process in (plain, session):
            with pytest.raises(ExitMissing):
                process.wait(SECONDS)
