"""A TCP proxy that stands between a client and a server and breaks the connection on purpose.

It takes what passes apart into units, which are the heads of the two HTTP messages and then the
frames of the WebSocket (RFC 6455, section 5.2), and calls them by the names of the messages in
them: "request", "answer", "start", "pid", "stdout" ..., "close", "ping", "pong". A :class:`Fault`
says at which unit what is to happen.

One thread does everything with sockets that do not block, so that nothing passes any more, in
either direction, once a fault has struck.
"""

from __future__ import annotations

import contextlib
import fcntl
import queue
import re
import select
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from helpers import SECONDS
from peers import mask_bytes

#: The two directions: from the client to the server, and back.
UP, DOWN = "up", "down"

#: Where in its unit a fault strikes: nothing of it has passed, half its header, half its payload,
#: or all of it.
BEFORE, HEADER, BODY, AFTER = "before", "header", "body", "after"
PARTS = (BEFORE, HEADER, BODY, AFTER)

#: What a fault does. The two cuts end both connections. A half-close ends one direction of one of
#: them, and the other direction goes on. Silence lets nothing pass any more, not even an end.
FIN, RST = "FIN", "RST"
FIN_TO_CLIENT, FIN_TO_SERVER = "FIN to the client", "FIN to the server"
SILENCE, SILENCE_UP, SILENCE_DOWN = "silence", "silence upwards", "silence downwards"
CUTS = (FIN, RST)

# How long a reset waits until what was sent before it has arrived, in seconds: it overtakes what
# the peer has no room for.
_BEFORE_RESET = 1.0

_FRAME_NAMES = {0x8: "close", 0x9: "ping", 0xA: "pong"}


@dataclass(frozen=True)
class Unit:
    """One thing that passes.

    Attributes:
        direction: Where it goes, :data:`UP` or :data:`DOWN`.
        name: What it is.
        data: Its bytes.
        start: How many of them are header.
        key: What the payload is masked with; b"" if it is not.
    """

    direction: str
    name: str
    data: bytes
    start: int = 0
    key: bytes = b""

    @property
    def body(self) -> bytes:
        """What follows the header of the message, and its newline."""
        payload = self.data[self.start :]
        if self.key:
            payload = mask_bytes(payload, self.key)
        return payload.partition(b"\n")[2]

    def cut(self, part: str) -> tuple[bytes, bytes]:
        """What has passed of it when a fault strikes in one of its parts, and what has not."""
        half = self.start + (len(self.data) - self.start) // 2
        lengths = {BEFORE: 0, HEADER: max(1, self.start // 2), BODY: half, AFTER: len(self.data)}
        return self.data[: lengths[part]], self.data[lengths[part] :]


@dataclass(frozen=True)
class Fault:
    """What is to happen, once, and when.

    Attributes:
        how: What to do.
        direction: At a unit that goes this way.
        name: And is called that.
        nth: The how-manieth of its name on its connection, from 1.
        part: And where in it.
    """

    how: str
    direction: str
    name: str
    nth: int = 1
    part: str = BEFORE


class _Splitter:
    """Takes a stream apart into units."""

    def __init__(self, direction: str, opaque: bool) -> None:
        self._direction = direction
        self._opaque = opaque
        self._head = True
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Unit]:
        self._data += data
        while (unit := self._next()) is not None:
            del self._data[: len(unit.data)]
            yield unit

    def rest(self) -> bytes:
        return bytes(self._data)

    def _next(self) -> Unit | None:
        if self._opaque:
            return Unit(self._direction, "byte", bytes(self._data[:1])) if self._data else None
        if self._head:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._head = False
            name = "request" if self._direction == UP else "answer"
            # Its "header" is the first line.
            start = self._data.find(b"\r\n") + 2
            return Unit(self._direction, name, bytes(self._data[: end + 4]), start)
        return self._frame()

    def _frame(self) -> Unit | None:
        data = self._data
        if len(data) < 10:
            # Too short for the longest kind of length; what is short is told by its own.
            data = data + bytes(10 - len(data))
        length, start = data[1] & 0x7F, 2
        if length == 126:
            (length,), start = struct.unpack_from("!H", data, 2), 4
        elif length == 127:
            (length,), start = struct.unpack_from("!Q", data, 2), 10
        key = b""
        if data[1] & 0x80:
            start += 4
            key = bytes(self._data[start - 4 : start])
        if len(self._data) < start + length:
            return None
        whole = bytes(self._data[: start + length])
        name = _FRAME_NAMES.get(whole[0] & 0xF, "")
        if not name:
            beginning = whole[start : start + 64]
            said = re.search(
                rb'"type":\s*"(\w+)"', mask_bytes(beginning, key) if key else beginning
            )
            name = said[1].decode() if said else "unknown"
        return Unit(self._direction, name, whole, start, key)


class _Lane:
    """One direction of one connection."""

    def __init__(
        self, direction: str, source: socket.socket, target: socket.socket, opaque: bool
    ) -> None:
        self.direction = direction
        self.source = source
        self.target = target
        self.splitter = _Splitter(direction, opaque)
        self.units: deque[Unit] = deque()  # that have not begun to be sent
        self.counts: dict[str, int] = {}
        self.unit: Unit | None = None  # that is being sent
        self.fault: Fault | None = None  # that strikes when what is pending is sent
        self.pending = b""
        self.after_fault = b""  # what is pending then, if the lane goes on
        self.not_before = 0.0  # time.monotonic() of the next piece
        self.ended = False  # the source has nothing more
        self.shut = False  # the target has been told
        self.silent = False  # what comes is dropped
        self.mute = False  # and the target is never told of an end

    @property
    def idle(self) -> bool:
        return not (self.pending or self.units or self.fault)

    def silence(self) -> None:
        self.silent = True
        self.units.clear()
        self.unit = self.fault = None
        self.pending = b""


class _Link:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, near: socket.socket, far: socket.socket, opaque: bool) -> None:
        self.near, self.far = near, far
        self.lanes = (_Lane(UP, near, far, opaque), _Lane(DOWN, far, near, opaque))
        self.closed = False

    def finish(self) -> None:
        """End both connections with a FIN, and drop what still comes."""
        for lane in self.lanes:
            lane.silence()
            self.finish_lane(lane)

    def finish_lane(self, lane: _Lane) -> None:
        lane.silence()
        lane.shut = True
        with contextlib.suppress(OSError):
            lane.target.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End both connections with a reset, once what was sent has arrived."""
        deadline = time.monotonic() + _BEFORE_RESET
        for sock in (self.near, self.far):
            while _unacknowledged(sock) and time.monotonic() < deadline:
                time.sleep(0.001)  # nothing tells when it is acknowledged
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.closed = True
        self.near.close()
        self.far.close()


def _unacknowledged(sock: socket.socket) -> int:
    """How many bytes the peer's kernel has not confirmed yet; see tcp(7), SIOCOUTQ."""
    answer = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, "little")


class Proxy:
    """Stands in front of a server. A context manager, which leaves nothing behind.

    Args:
        url: The server's.
        faults: What is to happen. Each strikes once, on the first connection that comes so far.
        opaque: There is TLS on it, so that nothing is known of what passes: each byte is a unit,
            called "byte", and is sent by itself.
        piece: How many bytes are sent at once; 0 is as many as there are.
        pause: Seconds between two pieces of one direction.

    Attributes:
        url: Where clients connect.
        struck: Set when a fault has struck.
        units: What has passed as a whole, in its order.
    """

    def __init__(
        self, url: str, *faults: Fault, opaque: bool = False, piece: int = 0, pause: float = 0.0
    ) -> None:
        scheme, _, rest = url.partition("://")
        host, _, port = rest.rpartition(":")
        self._target = (host, int(port))
        self._faults = list(faults)
        self._opaque = opaque
        self._piece = piece or 1 << 20
        self._pause = pause
        self._links: list[_Link] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        name = "localhost" if scheme == "wss" else "127.0.0.1"
        self.url = f"{scheme}://{name}:{self._listening.getsockname()[1]}"
        self.struck = threading.Event()
        self.units: list[Unit] = []
        # What other threads want done; a byte through the sockets wakes the thread for it.
        self._wanted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="test-proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the proxy still runs"
        for sock in (self._listening, self._wake, self._woken):
            sock.close()
        for link in self._links:
            link.close()

    def strike(self, how: str) -> None:
        """Do to all connections what a fault would; return when it is done."""
        done = threading.Event()

        def strike() -> None:
            for link in self._links:
                if not link.closed:
                    self._strike(link, how)
            done.set()

        self._do(strike)
        assert done.wait(SECONDS)

    def add(self, fault: Fault) -> None:
        """Let one more happen, from now on."""
        self._do(lambda: self._faults.append(fault))

    def passed(self, direction: str, name: str) -> bytes:
        """The bodies of all messages of a kind that have passed whole, joined."""
        return b"".join(u.body for u in self.units if (u.direction, u.name) == (direction, name))

    def _do(self, what: Callable[[], None]) -> None:
        self._wanted.put(what)
        self._wake.send(b"w")

    def _end(self) -> None:
        self._ending = True

    def _run(self) -> None:
        while not self._ending:
            ready = self._poll()
            if self._woken.fileno() in ready:
                for _ in self._woken.recv(100):
                    self._wanted.get()()
            if self._listening.fileno() in ready:
                self._accept()
            for link in self._links:
                # A fault on one lane closes what the other had been polled for.
                for lane in link.lanes:
                    if not link.closed and lane.source.fileno() in ready:
                        self._receive(link, lane)
                for lane in link.lanes:
                    if not link.closed:
                        self._send(link, lane)

    def _poll(self) -> set[int]:
        """Wait; return the descriptors that something has happened to."""
        poll = select.poll()
        events = {self._woken.fileno(): select.POLLIN, self._listening.fileno(): select.POLLIN}
        timeout = None
        now = time.monotonic()
        for link in self._links:
            if link.closed:
                continue
            for lane in link.lanes:
                source, target = lane.source.fileno(), lane.target.fileno()
                if not lane.ended and lane.idle:
                    events[source] = events.get(source, 0) | select.POLLIN
                if not lane.idle:
                    if lane.not_before > now:
                        rest = lane.not_before - now
                        timeout = rest if timeout is None else min(rest, timeout)
                    else:
                        events[target] = events.get(target, 0) | select.POLLOUT
        for descriptor, event in events.items():
            poll.register(descriptor, event)
        milliseconds = None if timeout is None else int(timeout * 1000) + 1
        return {descriptor for descriptor, _ in poll.poll(milliseconds)}

    def _accept(self) -> None:
        near, _ = self._listening.accept()
        try:
            far = socket.create_connection(self._target, SECONDS)
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(_Link(near, far, self._opaque))

    def _receive(self, link: _Link, lane: _Lane) -> None:
        if lane.ended or not lane.idle:
            return
        try:
            data = lane.source.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            lane.ended = True
            if not (lane.shut or lane.mute):
                link.reset()  # as it came, so it is passed on
            return
        if lane.silent:
            lane.ended = not data
        elif data:
            lane.units.extend(lane.splitter.feed(data))
        else:
            lane.ended = True
            rest = lane.splitter.rest()
            if rest:
                lane.units.append(Unit(lane.direction, "rest", rest))

    def _send(self, link: _Link, lane: _Lane) -> None:
        while not link.closed:
            if lane.pending:
                if time.monotonic() < lane.not_before:
                    return
                try:
                    sent = lane.target.send(lane.pending[: self._piece])
                except BlockingIOError:
                    return
                except OSError:
                    lane.silence()  # receiving from it tells, too
                    return
                lane.pending = lane.pending[sent:]
                if self._pause:
                    lane.not_before = time.monotonic() + self._pause
                if lane.pending:
                    continue
            if lane.fault is not None:
                fault, lane.fault = lane.fault, None
                lane.pending, lane.after_fault = lane.after_fault, b""
                if not lane.pending:
                    self._note(lane)
                self._strike(link, fault.how)
                self.struck.set()
                continue
            self._note(lane)
            if lane.units:
                self._begin(lane, lane.units.popleft())
                continue
            if lane.ended and not lane.shut and not lane.silent:
                link.finish_lane(lane)
            if all(lane.ended and (lane.shut or lane.mute) for lane in link.lanes):
                link.close()
            return

    def _begin(self, lane: _Lane, unit: Unit) -> None:
        """Begin to send a unit, or the part of it that is to pass."""
        count = lane.counts[unit.name] = lane.counts.get(unit.name, 0) + 1
        lane.unit, lane.pending = unit, unit.data
        for fault in self._faults:
            if (fault.direction, fault.name, fault.nth) == (unit.direction, unit.name, count):
                self._faults.remove(fault)
                lane.fault = fault
                lane.pending, lane.after_fault = unit.cut(fault.part)
                return

    def _note(self, lane: _Lane) -> None:
        if lane.unit is not None:
            self.units.append(lane.unit)
            lane.unit = None

    def _strike(self, link: _Link, how: str) -> None:
        up, down = link.lanes
        if how == FIN:
            link.finish()
        elif how == RST:
            link.reset()
        elif how == FIN_TO_CLIENT:
            link.finish_lane(down)
        elif how == FIN_TO_SERVER:
            link.finish_lane(up)
        else:
            for lane in {SILENCE: (up, down), SILENCE_UP: (up,), SILENCE_DOWN: (down,)}[how]:
                lane.silence()
                lane.mute = True
