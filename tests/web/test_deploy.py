"""The files of examples/deploy/: checked by the programs that they are for, and used with them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import random
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websocket
from certificates import certificates
from helpers import SECONDS, Task, eventually, read_past, serving, sh, start_message
from parts import need
from programs import WSEP_SYNC, environment

from wsep_sync import Command, ConnectError, ExitError, LocalExecer, Process, Server, connect
from wsep_sync.transports import liveness
from wsep_sync.web.access import Access
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples" / "deploy"
SCRIPT = Path(sysconfig.get_path("scripts"), "wsep-sync")
NAME = "build.example.com"
TOKEN = "s3cret"


def example(name: str, **changes: str) -> str:
    """The text of a file, with changes for this machine: each has to be there once."""
    text = "\n".join(
        line for line in (EXAMPLES / name).read_text().splitlines() if not line.startswith("#")
    )
    for old, new in changes.items():
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    return text


def run(*command: str | Path, **options: Any) -> str:
    """Run a program that has to succeed; return what it said."""
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        text=True,
        check=False,
        **options,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@contextlib.contextmanager
def program(
    start: Callable[[int], list[str | Path]], log: Path, said: str, **options: Any
) -> Iterator[int]:
    """Run a server on a port that is free, and end it; yield the port.

    Args:
        start: Returns the command, given the port.
        log: Where its output goes.
        said: What it says there when it listens.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = start(port)
        with open(log, "w") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options
            )
        try:
            eventually(
                lambda: process.poll() is not None or said in log.read_text(),  # noqa: B023
                f"{command[0]} to listen",
            )
            if process.poll() is None:
                yield port
                return
            # Somebody else may have been quicker to take the port.
            assert "in use" in log.read_text(), log.read_text()
        finally:
            process.terminate()
            process.wait(SECONDS)


# systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A directory with the units, as they would be with what this machine has installed."""
    service = example("wsep-sync.service", **{"/opt/wsep-sync/bin/wsep-sync": str(SCRIPT)})
    (tmp_path / "wsep-sync.service").write_text(service)
    (tmp_path / "wsep-sync.socket").write_text(example("wsep-sync.socket"))
    return tmp_path


def test_systemd_takes_the_units(units: Path) -> None:
    # Of the units that these need, which are this machine's, no more than that they can be loaded.
    options = ["--man=no", "--recursive-errors=no"]
    names = ["wsep-sync.service", "wsep-sync.socket"]
    said = run(need("systemd-analyze"), "verify", *options, *(units / name for name in names))
    assert "wsep-sync" not in said


def test_systemd_thinks_the_service_hardened(units: Path) -> None:
    # The level is of 100; a service with no hardening at all has 96.
    unit = units / "wsep-sync.service"
    run(need("systemd-analyze"), "security", "--offline=true", "--threshold=20", unit)


def setting(text: str, name: str) -> str:
    (value,) = re.findall(rf"^{name}=((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return str(value).replace("\\\n", " ")


def test_the_service_starts_with_its_socket(units: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    command = setting((units / "wsep-sync.service").read_text(), "ExecStart")
    address = setting((units / "wsep-sync.socket").read_text(), "ListenStream")
    host, _, port = address.partition(":")
    assert (host, port) == ("127.0.0.1", "8080")

    def start(port: int) -> list[str | Path]:
        # It listens, and starts the program when somebody connects, as systemd itself does.
        activate = [need("systemd-socket-activate"), f"--listen={host}:{port}"]
        passed = [f"--setenv={name}" for name in ("PATH", "WSEP_SYNC_TEST_RUN")]
        return [*activate, *passed, *shlex.split(command.replace("%d", str(tmp_path)))]

    log = tmp_path / "log"
    with program(start, log, "Listening on") as port_number:
        url = f"ws://127.0.0.1:{port_number}"
        with (
            connect(url, token=TOKEN, timeout=SECONDS) as execer,
            execer.start(Command("echo", ["activated"])) as process,
        ):
            assert process.stdout.read() == b"activated\n"
        with pytest.raises(ConnectError) as caught:
            connect(url, timeout=SECONDS)
        assert caught.value.status == 401


# Proxies


@dataclass(frozen=True)
class Site:
    """A server behind a proxy.

    Attributes:
        url: The proxy's, ``wss://localhost:PORT``.
        server: What is behind it.
    """

    url: str
    server: Server

    def start(self, command: Command) -> Process:
        context = certificates().client
        execer = connect(self.url, token=TOKEN, ssl_context=context, timeout=SECONDS)
        return execer.start(command)

    def browse(self, origin: str = f"https://{NAME}") -> websocket.WebSocket:
        """Connect as a page of this origin does, with a token."""
        return websocket.create_connection(
            self.url,
            timeout=SECONDS,
            host=NAME,
            origin=origin,
            subprotocols=["wsep", f"bearer.{TOKEN}"],
            sslopt={"context": certificates().client},
            http_no_proxy=["*"],
        )


NGINX = """
error_log stderr notice;
daemon off;
master_process off;
pid {directory}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


def nginx(directory: Path, upstream: int, port: int) -> list[str | Path]:
    """Write a configuration that includes the example, have it checked, and return the command."""
    changes = {
        "listen 443": f"listen 127.0.0.1:{port}",
        f"/etc/ssl/certs/{NAME}.pem": f"{directory}/certificate",
        f"/etc/ssl/private/{NAME}.key": f"{directory}/key",
        "127.0.0.1:8080": f"127.0.0.1:{upstream}",
    }
    (directory / "site.conf").write_text(example("nginx.conf", **changes))
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
    command = [need("nginx"), "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"]
    assert "test is successful" in run(*command, "-t")
    return command


# Caddy has a certificate authority of its own, used or not, which it would have the system trust.
CADDY = """
{{
    admin off
    auto_https off
    skip_install_trust
    storage file_system {directory}/storage
}}
"""


def caddy(directory: Path, upstream: int, port: int) -> list[str | Path]:
    """The same, with a certificate of ours, lest it go and get one."""
    tls = f"bind 127.0.0.1\n\ttls {directory}/certificate {directory}/key"
    changes = {
        f"{NAME} {{": f"https://localhost:{port}, https://{NAME}:{port} {{\n\t{tls}",
        "127.0.0.1:8080": f"127.0.0.1:{upstream}",
    }
    text = CADDY.format(directory=directory) + example("Caddyfile", **changes)
    (directory / "Caddyfile").write_text(text)
    options = ["--config", directory / "Caddyfile", "--adapter", "caddyfile"]
    run(need("caddy"), "validate", *options, env=environment(HOME=str(directory)))
    return [need("caddy"), "run", *options]


PROXIES = {nginx: "event method", caddy: "serving initial configuration"}


@pytest.fixture(params=PROXIES, ids=lambda proxy: str(proxy.__name__))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A server behind a proxy, both as the examples say."""
    need(request.param.__name__)
    (tmp_path / "certificate").write_text(certificates().certificate)
    (tmp_path / "key").write_text(certificates().key)
    server = Server()
    access = Access(TOKEN, hosts=[NAME], origins=[f"https://{NAME}"])
    listener = Listener(application(server, LocalExecer(), access=access))
    with serving(listener), contextlib.ExitStack() as cleanup:
        cleanup.callback(server.close)
        start = functools.partial(request.param, tmp_path, listener.server_port)
        proxy = program(
            start, tmp_path / "log", PROXIES[request.param], env=environment(HOME=str(tmp_path))
        )
        yield Site(f"wss://localhost:{cleanup.enter_context(proxy)}", server)


def test_a_command_behind_a_proxy(site: Site) -> None:
    data = random.Random(0).randbytes(5_000_000)
    with (
        site.start(sh("cat; echo errors >&2; exit 3", stdin=True)) as process,
        Task(lambda: (process.stdin.write(data), process.stdin.close())),
    ):
        assert hashlib.sha256(process.stdout.read()).digest() == hashlib.sha256(data).digest()
        assert process.stderr.read() == b"errors\n"
        with pytest.raises(ExitError, match="exit status 3"):
            process.wait()


def test_a_terminal_behind_a_proxy(site: Site) -> None:
    command = sh("read line; stty size; cat", tty=True, id="work", rows=24, cols=80)
    with site.start(command) as process:
        process.resize(30, 100)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert b"30 100" in read_past(process.stdout, b"100\r\n")
        pid = process.pid
    with site.start(command) as process:
        assert process.reattached
        assert process.pid == pid
        process.kill()


def test_what_keeps_a_connection_behind_a_proxy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "PING_INTERVAL", 0.01)
    monkeypatch.setattr(liveness, "TICK", 0.01)
    with contextlib.closing(site.browse()) as ws:
        ws.send_binary(start_message(Command("cat", stdin=True)))
        pings = 0
        while pings < 3:
            opcode, _ = ws.recv_data(control_frame=True)  # which also answers them
            pings += opcode == websocket.ABNF.OPCODE_PING
        ws.send_binary(b'{"type":"stdin"}\nstill')
        while b"still" not in ws.recv():
            pass


def test_how_long_nginx_waits() -> None:
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", example("nginx.conf"))
    assert int(seconds) > 2 * liveness.PING_INTERVAL


def test_who_may_come_through_a_proxy(site: Site) -> None:
    with contextlib.closing(site.browse()) as ws:
        assert ws.getsubprotocol() == "wsep"
    with pytest.raises(websocket.WebSocketBadStatusException) as other_origin:
        site.browse("https://evil.example.com")
    assert other_origin.value.status_code == 403
    with pytest.raises(ConnectError) as no_token:
        connect(site.url, ssl_context=certificates().client, timeout=SECONDS)
    assert no_token.value.status == 401
    url = site.url.replace("wss", "https") + "/healthz"
    with urllib.request.urlopen(url, timeout=SECONDS, context=certificates().client) as answer:
        assert json.load(answer)["sessions"] == 0


# The container. Building it takes a registry of images; what can go wrong otherwise is tried here.


def instruction(name: str) -> list[str]:
    """The list of words that an instruction of the Dockerfile has."""
    text = example("Dockerfile").replace("\\\n", " ")
    (words,) = re.findall(rf"^{name} (\[.*\])$", text, re.MULTILINE)
    return [str(word) for word in json.loads(words)]


def test_the_command_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    init, end, program_name = instruction("ENTRYPOINT")
    assert (init, end, program_name) == ("tini", "--", "wsep-sync")

    def start(port: int) -> list[str | Path]:
        changes = {"0.0.0.0": "127.0.0.1", "/run/token": str(tmp_path / "token")}
        words = [changes.get(word, word) for word in instruction("CMD")]
        return [*WSEP_SYNC, *words, "--port", str(port)]

    with program(start, tmp_path / "log", "listening on", env=environment()) as port:
        with (
            connect(f"ws://127.0.0.1:{port}", token=TOKEN, timeout=SECONDS) as execer,
            execer.start(Command("echo", ["contained"])) as process,
        ):
            assert process.stdout.read() == b"contained\n"
        # A page that a proxy has passed on, which keeps the name.
        page = websocket.create_connection(
            f"ws://127.0.0.1:{port}",
            timeout=SECONDS,
            host=NAME,
            origin=f"https://{NAME}",
            subprotocols=["wsep", f"bearer.{TOKEN}"],
            http_no_proxy=["*"],
        )
        with contextlib.closing(page):
            assert page.getsubprotocol() == "wsep"
        python, option, script = instruction("HEALTHCHECK CMD")
        assert (python, option) == ("python", "-c")
        assert script.count(":8080/") == 1
        run(sys.executable, "-W", "error", option, script.replace(":8080/", f":{port}/"))
