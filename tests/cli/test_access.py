"""Access on the command line: tokens, TLS, what may be exposed, and as whom commands run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from certificates import certificates
from helpers import SECONDS, Task, eventually, gone, sh
from programs import (
    environment,
    finish,
    has_one_line,
    run,
    running,
    server_process,
)

from wsep_sync import Command, ConnectError, Popen, connect

TOKEN = "s3cret-t0ken"


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def cert(tmp_path: Path) -> list[str]:
    """The options of a server that speaks TLS."""
    found = certificates()
    for name in ("certificate", "key", "authority"):
        (tmp_path / f"{name}.pem").write_text(getattr(found, name))
    return ["--tls-cert", f"{tmp_path}/certificate.pem", "--tls-key", f"{tmp_path}/key.pem"]


# Tokens


def test_a_token_from_a_file(token_file: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("another")
    wrong.chmod(0o600)
    with server_process("--token-file", token_file) as (url, server):
        notty = ["notty", "--url", url]
        done = run(*notty, "--token-file", token_file, "--", "echo", "in")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"in\n", b"")
        done = run(*notty, "--", "echo", "in", env=environment(WSEP_TOKEN=TOKEN))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"in\n", b"")
        for options, words in (
            ([], "a token is needed"),
            (["--token-file", str(wrong)], "the token is wrong"),
        ):
            done = run(*notty, *options, "--", "echo", "in")
            assert (done.returncode, done.stdout) == (255, b"")
            has_one_line(done.stderr, url, "401", words)
        assert "refusal" in server.log()
        assert TOKEN not in server.log()
        assert "another" not in server.log()


def test_a_token_from_the_environment() -> None:
    with server_process(env=environment(WSEP_TOKEN=TOKEN)) as (url, server):
        with pytest.raises(ConnectError) as caught:
            connect(url)
        assert caught.value.status == 401
        with connect(url, token=TOKEN) as execer, execer.start(sh("env")) as process:
            names = {line.partition(b"=")[0] for line in process.stdout}
            assert b"PATH" in names
            assert not names & {b"WSEP_TOKEN", b"WSEP_URL"}
        assert TOKEN not in server.log()


def test_faces_take_the_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with server_process(env=environment(WSEP_TOKEN=TOKEN)) as (url, _):
        monkeypatch.setenv("WSEP_TOKEN", TOKEN)
        with Popen(["echo", "in"], url=url, stdout=-1) as process:
            assert process.communicate()[0] == b"in\n"


def test_sessions_want_the_token_too(token_file: str) -> None:
    with server_process("--token-file", token_file) as (url, _):
        for arguments in (["sessions"], ["kill", "s"]):
            done = run(*arguments, "--url", url)
            assert (done.returncode, done.stdout) == (1, b"")
            has_one_line(done.stderr, "401")
        with (
            connect(url, token=TOKEN) as execer,
            execer.start(Command("cat", tty=True, id="s")) as process,
        ):
            done = run("sessions", "--url", url, "--token-file", token_file)
            assert done.stdout.startswith(b"s\t%d\t" % process.pid)
            done = run("kill", "--url", url, "--token-file", token_file, "s")
            assert (done.returncode, done.stderr) == (0, b"")
            gone(process.pid)


@pytest.mark.parametrize("content", ["", "\n", "two words", "two\nlines", "t\xf6ken"])
@pytest.mark.parametrize("subcommand", ["serve", "notty"])
def test_a_file_that_holds_no_token(tmp_path: Path, content: str, subcommand: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    done = run(subcommand, "--token-file", str(path), *(["true"] if subcommand == "notty" else []))
    assert (done.returncode, done.stdout) == (2, b"")
    assert str(path).encode() in done.stderr
    assert b"one line" in done.stderr


@pytest.mark.parametrize("subcommand", ["serve", "notty", "tty", "sessions", "kill"])
def test_an_empty_token_in_the_environment(subcommand: str) -> None:
    # As $(cat missing) leaves it. Nobody who says so means that no token is wanted.
    with server_process() as (url, _):
        arguments = {"serve": ["--port", "0"], "sessions": ["--url", url]}.get(
            subcommand, ["--url", url, "x"]
        )
        done = run(subcommand, *arguments, env=environment(WSEP_TOKEN=""))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.splitlines()[-1].endswith(
        b"error: $WSEP_TOKEN is set, but empty: unset it to do without a token"
    )


def test_an_empty_token_is_none_to_connect_with(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the token is empty"):
        connect("ws://127.0.0.1:1", token="")
    monkeypatch.setenv("WSEP_TOKEN", "")
    with pytest.raises(ValueError, match=r"\$WSEP_TOKEN is set, but empty"):
        connect("ws://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"\$WSEP_TOKEN is set, but empty"):
        Popen(["true"], url="ws://127.0.0.1:1")


def test_a_token_with_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # As open("token").read() has it.
    with server_process(env=environment(WSEP_TOKEN=f"{TOKEN}\n")) as (url, _):
        connect(url, token=f"{TOKEN}\n").close()
        monkeypatch.setenv("WSEP_TOKEN", f"{TOKEN}\r\n")
        connect(url).close()


@pytest.mark.parametrize("token", ["two words", "two\nlines", "t\xf6ken"])
def test_a_token_that_cannot_be_sent(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^a token must be printable"):
        connect("ws://127.0.0.1:1", token=token)
    monkeypatch.setenv("WSEP_TOKEN", token)
    with pytest.raises(ValueError, match=r"^\$WSEP_TOKEN: a token must be printable"):
        connect("ws://127.0.0.1:1")


def test_a_file_of_a_token_comes_before_the_environment(token_file: str) -> None:
    with server_process("--token-file", token_file, env=environment(WSEP_TOKEN="")) as (url, _):
        done = run("sessions", "--url", url, env=environment(WSEP_TOKEN=TOKEN))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("subcommand", ["serve", "notty"])
def test_a_token_file_that_everybody_can_read(token_file: str, subcommand: str) -> None:
    Path(token_file).chmod(0o644)
    arguments = ["--port", "no"] if subcommand == "serve" else ["--url", "ws://127.0.0.1:1", "x"]
    done = run(subcommand, "--token-file", token_file, *arguments)
    words = f"wsep-sync: warning: every user of this machine can read {token_file}"
    assert done.stderr.decode().splitlines()[0].startswith(words)
    assert done.stderr.count(b"every user") == 1


def test_a_token_file_that_is_not_there() -> None:
    done = run("serve", "--token-file", "/no/such/file")
    assert done.returncode == 2
    assert b"/no/such/file: No such file or directory" in done.stderr


def test_a_token_is_not_sent_where_a_redirect_points() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
    ):
        for sock in (first, second):
            sock.settimeout(SECONDS)
        target = f"ws://127.0.0.1:{second.getsockname()[1]}/"

        def redirect() -> None:
            peer, _ = first.accept()
            with peer:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += peer.recv(1)
                assert TOKEN.encode() in head
                peer.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode())

        with Task(redirect):
            url = f"ws://127.0.0.1:{first.getsockname()[1]}"
            with pytest.raises(ConnectError) as caught:
                connect(url, token=TOKEN)
            assert caught.value.status == 302
            assert TOKEN not in str(caught.value)
        second.settimeout(0)
        with pytest.raises(BlockingIOError):
            second.accept()


def test_the_server_inside_a_command_is_for_nobody_else() -> None:
    with running("notty", "--", "sh", "-c", "echo $PPID; exec cat") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        ports = listening_ports(pid)
        assert len(ports) == 1
        with pytest.raises(ConnectError) as caught:
            connect(f"ws://127.0.0.1:{ports[0]}")
        assert caught.value.status == 401
        assert finish(process) == (0, b"", b"")


def listening_ports(pid: int) -> list[int]:
    """The loopback ports a process listens on, see proc_pid_net(5) and proc_pid_fd(5)."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            found.append(int(fields[1].partition(":")[2], 16))
    return found


# TLS


def test_one_peer_may_have_so_many_connections() -> None:
    with server_process("--max-connections-per-peer", "2") as (url, _):
        with connect(url) as execer, contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(execer.start(Command("cat", stdin=True)))
            done = run("notty", "--url", url, "--", "true")
            assert done.returncode == 255
            has_one_line(done.stderr, "HTTP 503: too many connections")
            assert run("sessions", "--url", url).returncode == 0
        eventually(lambda: run("notty", "--url", url, "true").returncode == 0, "a place")


def test_tls(cert: list[str], tmp_path: Path) -> None:
    authority = ["--ca-file", f"{tmp_path}/authority.pem"]
    with server_process(*cert) as (url, _):
        assert url.startswith("wss://")
        done = run("notty", "--url", url, *authority, "--", "echo", "safe")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"safe\n", b"")
        done = run("notty", "--url", url, "--insecure-tls", "--", "echo", "unsafe")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"unsafe\n", b"")
        done = run("notty", "--url", url, "--", "echo", "never")
        assert (done.returncode, done.stdout) == (255, b"")
        has_one_line(done.stderr, url, "certificate verify failed")
        done = run("sessions", "--url", url, *authority)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        done = run("sessions", "--url", url)
        assert done.returncode == 255
        has_one_line(done.stderr, "certificate verify failed")


def test_mutual_tls(cert: list[str], tmp_path: Path) -> None:
    authority = f"{tmp_path}/authority.pem"
    (tmp_path / "client.pem").write_text(certificates().certificate + certificates().key)
    with server_process(*cert, "--client-ca", authority) as (url, _):
        done = run("notty", "--url", url, "--ca-file", authority, "--", "echo", "never")
        assert (done.returncode, done.stdout) == (255, b"")
        has_one_line(done.stderr)
        shown = ["--ca-file", authority, "--tls-cert", f"{tmp_path}/client.pem"]
        done = run("notty", "--url", url, *shown, "--", "echo", "known")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"known\n", b"")


def test_an_unknown_authority_is_told_of_with_what_helps(cert: list[str]) -> None:
    with server_process(*cert) as (url, _):
        for subcommand in (["notty", "x"], ["sessions"]):
            done = run(subcommand[0], "--url", url, *subcommand[1:])
            assert done.returncode == 255
            has_one_line(done.stderr, "certificate verify failed", "--ca-file")


def test_tls_to_a_plain_port_and_the_reverse(cert: list[str]) -> None:
    for options in ([], cert):
        with server_process(*options) as (url, server):
            scheme = url.partition(":")[0]
            other = "ws" if scheme == "wss" else "wss"
            for subcommand in (["notty", "x"], ["sessions"]):
                wrong = url.replace(f"{scheme}:", f"{other}:")
                done = run(subcommand[0], "--url", wrong, "--insecure-tls", *subcommand[1:])
                assert done.returncode in (1, 255)
                has_one_line(done.stderr, f"{scheme}:// instead of {other}://")
            assert "Traceback" not in server.log()


REQUEST = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other "
    "-addext subjectAltName=IP:127.0.0.1"
)


def test_certificates_are_read_again(cert: list[str], tmp_path: Path) -> None:
    authority = ["--ca-file", f"{tmp_path}/authority.pem"]
    with server_process(*cert) as (url, server):
        certificate = Path(cert[1])
        certificate.write_text("nothing")
        server.send_signal(signal.SIGHUP)
        eventually(lambda: "were not read again" in server.log(), "a complaint")
        assert run("notty", "--url", url, *authority, "true").returncode == 0
        # Half way: another certificate, whose key is not there yet.
        openssl = [*REQUEST.split(), "-keyout", str(tmp_path / "later.pem"), "-out", cert[1]]
        subprocess.run(openssl, check=True, capture_output=True)
        server.send_signal(signal.SIGHUP)
        eventually(lambda: "this is not the private key" in server.log(), "a complaint")
        assert run("notty", "--url", url, *authority, "true").returncode == 0
        # Another certificate, of itself.
        subprocess.run(
            [*REQUEST.split(), "-keyout", cert[3], "-out", cert[1]],
            check=True,
            capture_output=True,
        )
        server.send_signal(signal.SIGHUP)
        eventually(lambda: "read again" in server.log().splitlines()[-1], "the new ones")
        assert run("notty", "--url", url, *authority, "true").returncode == 255
        assert run("notty", "--url", url, "--ca-file", cert[1], "true").returncode == 0


@pytest.mark.parametrize("subcommand", ["serve", "notty"])
def test_certificates_that_cannot_be(cert: list[str], tmp_path: Path, subcommand: str) -> None:
    other = tmp_path / "other.pem"
    openssl = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out"
    subprocess.run([*openssl.split(), str(other)], check=True, capture_output=True)
    rest = ["--port", "0"] if subcommand == "serve" else ["--url", "wss://127.0.0.1:1", "x"]
    for options, words in (
        (cert[:2], "certificate.pem: no private key is in it: --tls-key"),
        ([*cert[:2], "--tls-key", cert[1]], "certificate.pem: no private key is in it"),
        ([*cert[:2], "--tls-key", str(other)], "other.pem: this is not the private key of"),
        ([*cert[:2], "--tls-key", "/no/such/key"], "/no/such/key: No such file"),
    ):
        done = run(subcommand, *options, *rest)
        assert (done.returncode, done.stdout) == (2, b"")
        assert words in done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-key", "/k"], "need --tls-cert"),
        (["--client-ca", "/c"], "need --tls-cert"),
        (["--tls-cert", "/no/such/file"], "/no/such/file: No such file"),
        (["--tls-cert", "/etc/hostname"], "/etc/hostname: "),
        (["--allow-origin", "app.example"], "not an origin"),
        (["--user", "no-such-user"], "no-such-user"),
    ],
)
def test_options_of_serve_that_cannot_be(options: list[str], words: str) -> None:
    done = run("serve", "--port", "0", *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_ca_file_that_is_not_there() -> None:
    done = run("notty", "--url", "wss://127.0.0.1:1", "--ca-file", "/no/such/file", "--", "true")
    assert done.returncode == 2
    assert b"/no/such/file: No such file" in done.stderr


# What may be exposed


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--token-file", "TOKEN"],
        ["CERT"],
    ],
    ids=["neither", "no TLS", "no token"],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_is_refused(
    token_file: str, cert: list[str], options: list[str], host: str
) -> None:
    given = [token_file if option == "TOKEN" else option for option in options]
    given = cert if given == ["CERT"] else given
    done = run("serve", "--port", "0", "--host", host, *given)
    assert (done.returncode, done.stdout) == (2, b"")
    for word in (host, "--token-file", "--tls-cert", "--insecure"):
        assert word in done.stderr.decode()


def test_beyond_loopback_with_a_token_and_tls(token_file: str, cert: list[str]) -> None:
    with server_process("--token-file", token_file, *cert, host="0.0.0.0") as (url, _):
        assert run_tls(url, TOKEN) == b"in\n"


def test_beyond_loopback_insecurely() -> None:
    with server_process("--insecure", host="0.0.0.0") as (url, _):
        port = url.rpartition(":")[2]
        with connect(f"ws://127.0.0.1:{port}") as execer, execer.start(sh("echo in")) as process:
            assert process.stdout.read() == b"in\n"


def run_tls(url: str, token: str) -> bytes:
    port = url.rpartition(":")[2]
    context = certificates().client
    with (
        connect(f"wss://127.0.0.1:{port}", token=token, ssl_context=context) as execer,
        execer.start(sh("echo in")) as process,
    ):
        return process.stdout.read()


# The user


def test_every_command_runs_as_the_user() -> None:
    script = "id -un; echo $HOME"
    with server_process("--user", "nobody") as (url, _), connect(url) as execer:
        for fields in ({}, {"uid": 1, "gid": 1}, {"tty": True}):
            with execer.start(sh(script, **fields)) as process:
                assert process.stdout.readline().strip() == b"nobody"
                assert process.stdout.readline().strip() == b"/nonexistent"
