"""TLS, with one thread that sends and one that receives at each end, and TLS of both ends."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptor import Acceptor, drop
from certificates import Certificates, certificates
from helpers import Task, listening

from wsep_sync import Command, connect
from wsep_sync.errors import ConnectError
from wsep_sync.protocol.messages import MAX_MESSAGE
from wsep_sync.transports import liveness
from wsep_sync.transports.base import Transport

# What every message is a piece of; no two places in it look alike.
NOISE = memoryview(random.Random(0).randbytes(1 << 17))

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def pieces(seed: int, count: int) -> Iterator[memoryview]:
    """Pieces of up to 64,000 bytes, small ones more often, from random places."""
    chance = random.Random(seed)
    for _ in range(count):
        size = int((MAX_MESSAGE + 2) ** chance.random()) - 1
        start = chance.randrange(len(NOISE) - size)
        yield NOISE[start : start + size]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_20000_messages_each_way_under_threads(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 20_000
    # So that those who receive send something, too.
    monkeypatch.setattr(liveness, "TICK", 0.001)
    monkeypatch.setattr(liveness, "PING_INTERVAL", 0.001)

    def send(transport: Transport, seed: int) -> None:
        for piece in pieces(seed, count):
            transport.send(piece)

    def receive(transport: Transport, seed: int) -> None:
        for number, piece in enumerate(pieces(seed, count)):
            assert transport.receive() == piece, number

    context = ssl.create_default_context(cadata=certificates().authority)
    context.maximum_version = version
    with Acceptor(tls=True) as acceptor:
        client = acceptor.connect(ssl_context=context)
        server = acceptor.accepted()
        tasks = [Task(send, client, 1), Task(send, server, 2)]
        tasks += [Task(receive, server, 1), Task(receive, client, 2)]
        for task in tasks:
            task.result(50)
        drop(client, server)


# Certificates of clients


def with_certificate(
    context: ssl.SSLContext, certificates: Certificates, directory: Path
) -> ssl.SSLContext:
    """Let a context show a certificate."""
    (directory / "cert.pem").write_text(certificates.certificate)
    (directory / "key.pem").write_text(certificates.key)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


@pytest.fixture
def strict_server(tmp_path: Path) -> ssl.SSLContext:
    """A server's context that asks for a certificate of our authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificates().authority)
    return with_certificate(context, certificates(), tmp_path)


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def client(request: pytest.FixtureRequest) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificates().authority)
    context.maximum_version = request.param
    return context


def test_a_client_with_a_certificate(
    strict_server: ssl.SSLContext, client: ssl.SSLContext, tmp_path: Path
) -> None:
    with_certificate(client, certificates(), tmp_path)
    with (
        listening(ssl_context=strict_server) as listener,
        connect(listener.url, ssl_context=client) as execer,
        execer.start(Command("cat", stdin=True)) as process,
    ):
        process.stdin.write(NOISE)
        process.stdin.close()
        assert process.stdout.read() == NOISE
        process.wait()


def test_a_client_without_a_certificate(
    strict_server: ssl.SSLContext, client: ssl.SSLContext
) -> None:
    with listening(ssl_context=strict_server) as listener, pytest.raises(ConnectError):
        connect(listener.url, ssl_context=client)


def test_a_client_with_a_certificate_of_somebody_else(
    strict_server: ssl.SSLContext, client: ssl.SSLContext, tmp_path: Path
) -> None:
    somebody_else = certificates.__wrapped__()
    with_certificate(client, somebody_else, tmp_path)
    with listening(ssl_context=strict_server) as listener, pytest.raises(ConnectError):
        connect(listener.url, ssl_context=client)
