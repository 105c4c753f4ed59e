"""Connecting to where a command is to run, as the faces do it: what is shown, and for how long."""

from __future__ import annotations

import contextlib
import shlex
import ssl
import time
from collections.abc import Callable, Iterator
from subprocess import DEVNULL, PIPE, TimeoutExpired
from typing import Any

import pytest
from certificates import certificates
from helpers import listening, serving
from peers import listening_socket

import wsep_sync
import wsep_sync.expect
from wsep_sync import ConnectError, LocalExecer, Popen, Server, connect, run, spawn
from wsep_sync.access import Access
from wsep_sync.execers.dial import CONNECT_TIMEOUT
from wsep_sync.listener import Listener
from wsep_sync.wsgi import application

TOKEN = "s3cret"


def with_map(command: list[str], url: str, **options: Any) -> Any:
    (outcome,) = wsep_sync.map(command, [url], **options)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def with_popen(command: list[str], url: str, **options: Any) -> Any:
    with Popen(command, stdin=DEVNULL, stdout=DEVNULL, url=url, **options) as process:
        assert process.wait() == 0


def with_spawn(command: list[str], url: str, **options: Any) -> Any:
    with spawn(command[0], command[1:], url=url, **options) as child:
        child.expect(wsep_sync.expect.EOF)


def with_getoutput(command: list[str], timeout: float | None = None, **options: Any) -> Any:
    return wsep_sync.getoutput(shlex.join(command), **options)


CALLS: dict[str, Callable[..., Any]] = {
    "getoutput": with_getoutput,
    "run": run,
    "call": wsep_sync.call,
    "check_call": wsep_sync.check_call,
    "check_output": wsep_sync.check_output,
    "map": with_map,
    "Popen": with_popen,
    "spawn": with_spawn,
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return CALLS[request.param]


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a host that takes connections and never says anything."""
    with listening_socket() as sock:
        yield f"ws://127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("name", ["run", "call", "check_call", "check_output", "map"])
def test_a_timeout_bounds_connecting(name: str) -> None:
    began = time.monotonic()
    with black_hole() as url, pytest.raises(TimeoutExpired) as caught:
        CALLS[name](["true"], url=url, timeout=0.2)
    assert time.monotonic() - began < CONNECT_TIMEOUT / 2
    assert (caught.value.cmd, caught.value.timeout) == (["true"], 0.2)
    assert isinstance(caught.value.__cause__, ConnectError)


def test_a_popen_has_a_timeout_for_connecting_alone(url: str) -> None:
    began = time.monotonic()
    with black_hole() as hole, pytest.raises(ConnectError, match=r"0\.2 seconds"):
        Popen(["true"], url=hole, timeout=0.2)
    assert time.monotonic() - began < CONNECT_TIMEOUT / 2
    with Popen(["sleep", "1000"], url=url, timeout=5) as process:
        with pytest.raises(TimeoutExpired):
            process.wait(0.01)
        process.kill()


def test_a_connection_that_fails_in_time_is_no_timeout(call: Callable[..., Any]) -> None:
    with listening_socket() as sock:
        url = f"ws://127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(ConnectError):
        call(["true"], url=url, timeout=30)


def test_the_timeout_is_said_as_it_was_given(url: str) -> None:
    with pytest.raises(TimeoutExpired, match=r"after 0.3 seconds"):
        run(["sleep", "1000"], url=url, timeout=0.3)


def test_a_token_is_shown(call: Callable[..., Any]) -> None:
    app = application(Server(), LocalExecer(), access=Access(TOKEN))
    with serving(Listener(app)) as listener:
        call(["true"], url=listener.url, token=TOKEN)
        for options in ({}, {"token": "another"}):
            with pytest.raises(ConnectError) as caught:
                call(["true"], url=listener.url, **options)
            assert caught.value.status == 401


def test_headers_are_sent(call: Callable[..., Any]) -> None:
    seen = []
    commands = application(Server(), LocalExecer())

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.append(environ.get("HTTP_X_WORKSPACE"))
        return commands(environ, start_response)

    with serving(Listener(app)) as listener:
        call(["true"], url=listener.url, headers={"X-Workspace": "7"})
    assert seen == ["7"]


def test_a_context_is_used_for_tls(call: Callable[..., Any]) -> None:
    with listening(ssl_context=certificates().server) as listener:
        call(["true"], url=listener.url, ssl_context=certificates().client)
        with pytest.raises(ConnectError, match="certificate"):
            call(["true"], url=listener.url)


OPTIONS: dict[str, Any] = {
    "token": "x",
    "headers": {"A": "b"},
    "ssl_context": ssl.create_default_context(),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_there_has_to_be_a_server_to_connect_to(name: str) -> None:
    option = {name: OPTIONS[name]}
    for where in ({}, {"execer": LocalExecer()}, {"url": "ssh://127.0.0.1:1"}):
        with pytest.raises(ValueError, match=f"^{name} .* ws:// url"):
            run(["true"], **where, **option)
        with pytest.raises(ValueError, match=f"^{name} .* ws:// url"):
            spawn("true", **where, **option)


def test_a_process_says_where_it_runs(url: str) -> None:
    with Popen(["true"], url=url) as there, Popen(["true"], execer=LocalExecer()) as here:
        peer = url.removeprefix("ws://")
        assert repr(there.process) == f"<RemoteProcess: pid {there.pid} at {peer}>"
        assert repr(here.process) == f"<LocalProcess: pid {here.pid} on this machine>"


# map


def test_map_runs_at_execers_too(url: str) -> None:
    with connect(url) as there, LocalExecer() as here:
        outcomes = list(wsep_sync.map(["echo", "a"], [url, there, here], token="x", timeout=30))
        assert {(o.url, o.execer) for o in outcomes} == {(url, None), ("", there), ("", here)}
        assert [o.result and o.result.stdout for o in outcomes] == [b"a\n"] * 3
        # Still open.
        assert run(["true"], execer=there).returncode == 0


@pytest.mark.parametrize("urls", ["ws://127.0.0.1:1", b"ws://127.0.0.1:1"])
def test_map_takes_no_single_url(urls: Any) -> None:
    with pytest.raises(TypeError, match="urls must be a list"):
        wsep_sync.map(["true"], urls)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"no_such_option": 1}, TypeError),
        ({"capture_output": True}, TypeError),
        ({"bufsize": "1"}, TypeError),
        ({"stdin": wsep_sync.STDOUT}, ValueError),
        ({"size": (5, 5)}, ValueError),
        ({"env": {"A=B": "c"}}, ValueError),
    ],
    ids=repr,
)
def test_map_raises_what_is_wrong_everywhere_at_once(options: Any, error: Any) -> None:
    with pytest.raises(error):
        wsep_sync.map(["true"], ["ws://127.0.0.1:1"] * 2, stdout=PIPE, **options)
