"""Faults where nobody sees the frames, under TLS, and between two servers of a chain."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from certificates import certificates
from faults import DIALOGUE, Site, Step, Told, cuts, expected, site, talk
from helpers import SECONDS, Task, gone, sh
from peers import listening_socket
from tcp_proxy import AFTER, CUTS, DOWN, UP, Fault, Proxy

from wsep_sync import connect
from wsep_sync.errors import ConnectError, StartError, TransportClosed

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long

# TLS


@pytest.fixture
def tls_place(capfd: pytest.CaptureFixture[str]) -> Iterator[Site]:
    contexts = certificates()
    with site(server_context=contexts.server, client_context=contexts.client) as place:
        yield place
    assert capfd.readouterr() == ("", "")


# In which part of all the bytes that a dialogue takes.
EIGHTHS = range(8)


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("eighth", EIGHTHS)
def test_a_cut_under_tls(tls_place: Site, direction: str, eighth: int, how: str) -> None:
    with tls_place.proxy(opaque=True) as proxy:
        # One byte at a time besides.
        assert talk(tls_place, proxy.url) == expected(DIALOGUE)
        total = sum(unit.direction == direction for unit in proxy.units)
    # Which messages had come whole cannot be seen; but it must look as if some had, and no more.
    possible = [expected(DIALOGUE[:count]) for count in range(len(DIALOGUE) + 1)]
    with tls_place.proxy(
        Fault(how, direction, "byte", eighth * total // len(EIGHTHS) + 1), opaque=True
    ) as proxy:
        assert talk(tls_place, proxy.url) in possible
        assert proxy.struck.wait(SECONDS)
        tls_place.settled()


@pytest.mark.parametrize("sent", [b"", b"\x16"])
def test_a_reset_before_tls_begins(tls_place: Site, sent: bytes) -> None:
    host, _, port = tls_place.url.removeprefix("wss://").rpartition(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(sent)
            reset(sock)
    tls_place.settled()


def test_a_server_that_resets_before_tls_begins() -> None:
    def accept() -> None:
        for _ in range(20):
            sock, _ = listening.accept()
            reset(sock)

    with listening_socket() as listening, Task(accept) as accepting:
        url = f"wss://127.0.0.1:{listening.getsockname()[1]}"
        for _ in range(20):
            with pytest.raises(ConnectError):
                connect(url, timeout=SECONDS, ssl_context=certificates().client)
        accepting.result()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# A chain: the client, a server that passes commands on, and the one that runs them


@pytest.fixture
def far(capfd: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """The last server."""
    with site() as place:
        yield place
    assert capfd.readouterr() == ("", "")


def through_a_server(told: Told) -> Told:
    """What a client makes of what a server further on has met."""
    if told.error in (ConnectError, TransportClosed):
        return Told(error=StartError)
    return told


@cuts(DIALOGUE)
def test_a_cut_between_two_servers(far: Site, step: Step, part: str, how: str) -> None:
    done = DIALOGUE.index(step) + (part == AFTER)
    possible = [through_a_server(expected(DIALOGUE[:done]))]
    if done < 2:
        # The client's own connection has ended before it asked for anything, and is replaced.
        possible += [expected(DIALOGUE)]
    with (
        Proxy(far.url, Fault(how, *step, part)) as proxy,
        site(lambda: connect(proxy.url, timeout=SECONDS)) as near,
    ):
        told = talk(near, near.url)
        assert proxy.struck.wait(SECONDS)
        assert told in possible
        near.settled()
        gone(*far.execer.pids)
    far.settled()


def test_the_refusal_says_that_it_was_further_on(far: Site) -> None:
    with (
        Proxy(far.url, Fault("RST", UP, "start")) as proxy,
        site(lambda: connect(proxy.url, timeout=SECONDS)) as near,
        near.connect() as execer,
        pytest.raises(StartError, match="connection closed"),
    ):
        execer.start(sh("exit"))
