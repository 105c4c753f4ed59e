"""Peers that are gone, and peers that are only slow.

What vanishes is the network between two namespaces, and the times are those that users get: nothing
is shortened. So each test waits once, for many connections at the same time.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest
from acceptor import Acceptor, drop
from certificates import certificates
from helpers import (
    RawClient,
    Task,
    blocked,
    ends_processes,
    eventually,
    gone,
    listening,
    serving,
    sh,
    state,
)
from network import Network, network
from peers import BINARY, PING, RawPeer, accept_raw, listening_socket

from wsep_sync import Command, LocalExecer, Process, Server, connect
from wsep_sync.errors import ExitError, ExitMissing, TransportClosed
from wsep_sync.protocol.messages import MAX_MESSAGE
from wsep_sync.transports.base import Transport
from wsep_sync.transports.sockets import SocketTransport
from wsep_sync.transports.websocket_client import connect_websocket
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

# How many seconds a peer that vanished may go unnoticed.
PROMISED = 30.0

# When to give up waiting for it. It only says when.
LONG = 90.0

# It is the kernel that decides here, and no version of Python.
pytestmark = [pytest.mark.timeout(2 * LONG), pytest.mark.long]


def until_closed(call: Callable[[], object]) -> None:
    """Repeat a call until the connection has ended."""
    with contextlib.suppress(TransportClosed):
        while True:
            call()


def until_missing(process: Process) -> None:
    with pytest.raises(ExitMissing):
        process.wait()


def until_asleep(pid: int) -> None:
    """Wait until a process seems to be blocked for good."""

    def asleep() -> bool:
        return all(state(pid) == "S" and not time.sleep(0.05) for _ in range(10))

    eventually(asleep, f"process {pid} to block")


# Gone


class Stalls:
    """Adds up for how many seconds this machine did not run what was ready to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._end = threading.Event()

    def _measure(self) -> None:
        while not self._end.is_set():
            began = time.monotonic()
            self._end.wait(0.1)
            self.seconds += max(0.0, time.monotonic() - began - 0.2)

    def __enter__(self) -> Stalls:
        self._task = Task(self._measure)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._task.result()


class Machines:
    """A server on the far machine, and clients on the near one."""

    def __init__(self, net: Network, stack: contextlib.ExitStack) -> None:
        self._net = net
        self._stack = stack
        self.server = Server()
        stack.callback(self.server.close)
        self._listener = self._serve(None)
        self._tls_listener = self._serve(certificates().server)
        with net.far.inside():
            acceptor = Acceptor(host=net.far.address)
        self._acceptor = stack.enter_context(acceptor)

    def _serve(self, context: ssl.SSLContext | None) -> Listener:
        app = application(self.server, LocalExecer())
        with self._net.far.inside():
            listener = Listener(app, self._net.far.address, ssl_context=context)
        return self._stack.enter_context(serving(listener))

    def start(self, command: Command, tls: bool = False) -> Process:
        context = ssl.create_default_context(cadata=certificates().authority)
        context.check_hostname = False  # the certificate is for loopback
        listener = self._tls_listener if tls else self._listener
        with self._net.near.inside():
            # For the id from the start: outside of here, no other connection can be made.
            connection = connect(listener.url, session_id=command.id, ssl_context=context)
            execer = self._stack.enter_context(connection)
        process = self._stack.enter_context(execer.start(command))
        self._stack.enter_context(ends_processes(process.pid))
        return process

    def raw_client(self) -> RawClient:
        with self._net.near.inside():
            return self._stack.enter_context(RawClient(self._listener.url))

    def transports(self) -> tuple[SocketTransport, SocketTransport]:
        """The two ends of a connection: the client's, the server's."""
        with self._net.near.inside():
            client = self._acceptor.connect()
        self._stack.callback(drop, client)
        server = self._acceptor.accepted()
        self._stack.callback(drop, server)
        return client, server


@contextlib.contextmanager
def machines() -> Iterator[tuple[Network, Machines]]:
    with network() as net, contextlib.ExitStack() as stack:
        yield net, Machines(net, stack)


# Who is to notice that the other is gone: calls that return when they have.
Watchers: TypeAlias = "dict[str, Callable[[], object]]"


def ends(process: Process) -> Callable[[], object]:
    """What the server does about it."""
    return lambda: gone(process.pid, seconds=LONG)


def idle(machines: Machines) -> Watchers:
    process = machines.start(Command("sleep", ["1000"]))
    return {"client": lambda: until_missing(process), "server": ends(process)}


def busy(machines: Machines, tls: bool = False) -> Watchers:
    """Data is on the way in both directions, all the time."""
    process = machines.start(Command("cat", stdin=True), tls)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                process.stdin.write(b"line\n")
                process.stdin.flush()
                time.sleep(0.02)

    def read() -> None:
        with Task(write), contextlib.suppress(ExitMissing):
            while True:
                assert process.stdout.readline() == b"line\n"

    reading = Task(read)
    return {"client": lambda: reading.result(LONG), "server": ends(process)}


def busy_over_tls(machines: Machines) -> Watchers:
    return busy(machines, tls=True)


def unread_output(machines: Machines) -> Watchers:
    """The client's window is zero; nobody there receives."""
    process = machines.start(Command("yes"))
    until_asleep(process.pid)

    def read() -> None:
        with pytest.raises(ExitMissing):
            process.stdout.read()

    return {"client": read, "server": ends(process)}


def unread_input(machines: Machines) -> Watchers:
    """The server's window is zero; nobody there receives."""
    client = machines.raw_client()
    pid = client.start(sh("sleep 1000", stdin=True))
    client.send_until_full(b'{"type":"stdin"}\n' + bytes(50_000))
    return {"server": lambda: gone(pid, seconds=LONG)}


def session(machines: Machines) -> Watchers:
    process = machines.start(Command("sleep", ["1000"], tty=True, id="work"))

    def detached() -> None:
        eventually(lambda: machines.server.sessions()[0].clients == 0, "the client to go", LONG)
        assert state(process.pid) == "S"

    return {"client": lambda: until_missing(process), "server": detached}


def sending_to_a_full_peer(machines: Machines) -> Watchers:
    """The peer's window is zero, and whoever sends is the only one who waits."""
    client, server = machines.transports()
    sending = Task(until_closed, lambda: client.send(bytes(MAX_MESSAGE)))
    blocked(sending)
    return {
        "sender": lambda: sending.result(LONG),
        "receiver": lambda: eventually(server.hung_up, "the end to show", LONG),
    }


def sending_and_receiving(machines: Machines) -> Watchers:
    """The peer's window is zero, and there is one who receives besides."""
    _, server = machines.transports()
    sending = Task(until_closed, lambda: server.send(bytes(MAX_MESSAGE)))
    receiving = Task(until_closed, server.receive)
    blocked(sending)
    return {
        "sender": lambda: sending.result(LONG),
        "receiver": lambda: receiving.result(LONG),
    }


def nobody_waiting(machines: Machines) -> Watchers:
    """Data is on the way, and nobody sends or receives any more."""
    client, _ = machines.transports()

    def see() -> None:
        client.send(b"into the void")
        eventually(client.hung_up, "the end to show", LONG)

    return {"sender": see}


SCENARIOS = [
    idle,
    busy,
    busy_over_tls,
    unread_output,
    unread_input,
    session,
    sending_to_a_full_peer,
    sending_and_receiving,
    nobody_waiting,
]


def test_a_peer_that_vanished_is_noticed_within_30_seconds() -> None:
    def when(watcher: Callable[[], object]) -> float:
        watcher()
        return time.monotonic()

    with machines() as (net, far), Stalls() as stalls:
        watchers = {
            f"{scenario.__name__}: {name}": watcher
            for scenario in SCENARIOS
            for name, watcher in scenario(far).items()
        }
        net.pull()
        began = time.monotonic()
        tasks = {name: Task(when, watcher) for name, watcher in watchers.items()}
        seconds = {name: task.result(LONG) - began for name, task in tasks.items()}
        late = {name for name in seconds if seconds[name] > PROMISED + stalls.seconds}
        # No answer came from anywhere, such as a reset, that would have told it at once.
        early = {name for name in seconds if seconds[name] < 5}
        assert not late | early, (seconds, stalls.seconds)


# Slow


def tcp_info(transport: Transport) -> tuple[int, int]:
    """Return how often what is on the way was sent again, and how far probes have backed off."""
    assert isinstance(transport, SocketTransport)
    sock = transport._stream.socket
    # struct tcp_info of linux/tcp.h
    _, _, retransmits, _, backoff = sock.getsockopt(6, 11, 5)
    return retransmits, backoff


def test_a_short_outage_breaks_nothing() -> None:
    with machines() as (net, far):
        idle = far.transports()
        busy = far.transports()
        full, reader = far.transports()
        count = 100
        with Task(lambda: [full.send(bytes(MAX_MESSAGE)) for _ in range(count)]) as sending:
            blocked(sending)
            net.pull()
            busy[0].send(b"one")
            busy[1].send(b"two")
            for end in busy:
                eventually(lambda: tcp_info(end)[0] >= 3, "the kernel to try again")  # noqa: B023
            net.plug()
            assert bytes(busy[0].receive()) == b"two"
            assert bytes(busy[1].receive()) == b"one"
            for _ in range(count):
                assert len(reader.receive()) == MAX_MESSAGE
            sending.result()
        for one, other in (idle, idle[::-1]):
            one.send(b"still there")
            assert bytes(other.receive()) == b"still there"
        assert not any(end.hung_up() for end in (*idle, *busy, full, reader))


class Unread:
    """A transport whose peer, made by hand, neither reads nor answers pings."""

    def __init__(self, transport: Transport, raw: RawPeer) -> None:
        self.transport = transport
        self.raw = raw
        self._sending = Task(until_closed, self._send_numbers())
        self._receiving = Task(until_closed, transport.receive)
        blocked(self._sending)

    def _send_numbers(self) -> Callable[[], object]:
        numbers = iter(range(1 << 30))
        return lambda: self.transport.send(struct.pack("!I", next(numbers)), bytes(50_000))

    def read(self, count: int) -> None:
        """Read the messages; a ping must be among them."""
        pings = following = 0
        while following < count or not pings:
            frame = self.raw.receive()
            if frame.opcode == BINARY:
                assert frame.payload[:4] == struct.pack("!I", following)
                following += 1
            elif frame.opcode == PING:
                pings += 1

    def close(self) -> None:
        self.transport.abort()
        self._sending.result()
        self._receiving.result()
        self.transport.close()


def test_a_slow_peer_is_kept() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening())
        execer = stack.enter_context(connect(listener.url))
        process = stack.enter_context(execer.start(Command("yes")))
        until_asleep(process.pid)

        acceptor = stack.enter_context(Acceptor())
        raw = stack.enter_context(acceptor.dial())
        client = Unread(acceptor.accepted(), raw)
        stack.callback(client.close)

        socket = stack.enter_context(listening_socket())
        accepting = Task(accept_raw, socket)
        url = f"ws://127.0.0.1:{socket.getsockname()[1]}"
        transport = connect_websocket(url, timeout=LONG)
        server = Unread(transport, stack.enter_context(accepting.result()))
        stack.callback(server.close)

        silent = stack.enter_context(acceptor.dial())
        idle = acceptor.accepted()
        stack.callback(drop, idle)
        receiving = Task(idle.receive)

        time.sleep(45)

        for unread in (client, server):
            assert tcp_info(unread.transport)[1] > 0, "the window was not zero"
            unread.read(200)

        assert silent.receive().opcode == PING
        silent.send(BINARY, b"still there")
        assert bytes(receiving.result()) == b"still there"

        for _ in range(100):
            assert process.stdout.read(1 << 16) == b"y\n" * (1 << 15)
        process.kill()
        process.stdout.close()
        with pytest.raises(ExitError):
            process.wait()
