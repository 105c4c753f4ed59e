"""A connected socket, plain or TLS, that can be waited for and woken: :class:`StreamSocket`.

The libraries' own I/O has one timeout for both directions or none, cannot be closed while a thread
receives, mixes the frames of several senders, and uses TLS from two threads at once.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TransportClosed, suppress_system
from ..lazy import importing
from ..streams.wakeup import READ, WRITE, Wakeup, wait_for
from . import liveness
from .base import Buffer

if TYPE_CHECKING:
    import ssl

__all__ = ["StreamSocket", "start_tls"]

# How often bytes are taken past a deadline, without blocking: what had come before it is not lost,
# and a peer that sends without end is not listened to for ever.
_LATE_READS = 16


def start_tls(sock: socket.socket, context: ssl.SSLContext, **options: Any) -> ssl.SSLSocket:
    """Return a socket for TLS over a connected one, which is not to be used any more.

    The handshake is for the caller to do: what interrupts it must find a socket to close.

    Args:
        options: As of :meth:`ssl.SSLContext.wrap_socket`.

    Raises:
        OSError: The connection has ended. The socket is closed.
    """
    try:
        return context.wrap_socket(sock, do_handshake_on_connect=False, **options)
    except OSError as error:
        _close_unfinished(error)
        sock.close()
        raise


def _close_unfinished(error: OSError) -> None:
    """Close what CPython had made of a socket when it found the connection ended.

    The descriptor is in that already. It is left to the garbage collector, which warns of it, and
    nothing but the traceback refers to it.
    """
    assert error.__traceback__ is not None
    entry = error.__traceback__.tb_next
    while entry is not None:
        made = entry.tb_frame.f_locals.get("self")
        if isinstance(made, socket.socket):
            made.close()
        entry = entry.tb_next


class StreamSocket:
    """A connected socket, plain or TLS, with a deadline for receiving that any thread may move.

    The socket is made non-blocking, so that nothing blocks where :meth:`shutdown` or a new
    deadline could not reach it; and because of TLS: OpenSSL's connection must not be used by two
    threads at once, and a thread that blocked in it while it sends would keep the other from
    receiving, which is a deadlock when the peer does the same.

    Whoever waits here, to receive or to send, looks every so often whether the peer is gone, see
    :mod:`.liveness`; and whoever waits to receive sends the pings. So neither takes a thread.

    One thread at a time receives; everything else may be called from any thread.

    Args:
        sock: Connected, and owned.
        ping: Returns the frame of a ping. It must not refer to what refers to this: no cycle may
            keep the descriptor.
        wakeup: Wakes whoever waits here; made here if it is not given.

    Raises:
        OSError: There are no more descriptors; the socket is closed.
    """

    def __init__(
        self, sock: socket.socket, ping: Callable[[], bytes], wakeup: Wakeup | None = None
    ) -> None:
        try:
            self.wakeup = wakeup or Wakeup()
        except OSError:  # no more descriptors can be had
            sock.close()
            raise
        with suppress_system():  # one that is taken over may be closed by now
            sock.setblocking(False)
        with suppress_system():  # a Unix socket has no such option
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        liveness.keep_alive(sock)
        self.socket = sock
        self.peer = _peer(sock)  # now: nobody can be asked about a connection that has ended
        self.is_tls = hasattr(sock, "pending")  # an ssl.SSLSocket; importing ssl takes its time
        # Held while one message is sent, so that messages do not mix.
        self._send_lock = threading.Lock()
        # Guards the TLS connection, for the length of one call that does not block.
        self._tls_lock = threading.Lock()
        # A control frame that is to be sent; a later one replaces it. Whoever takes it out holds
        # _send_lock; putting it in is atomic.
        self._control: deque[bytes] = deque(maxlen=1)
        self._unsent: Sequence[Buffer] = ()  # before the next message; guarded by _send_lock
        self._last_sent = False  # no message may follow; guarded by _send_lock
        # What follows is single values, each replaced in one step.
        self._wants_to_send, self._wants_to_receive = WRITE, 0  # the loop's, to wait for
        self._ping = ping
        self._ping_interval = liveness.PING_INTERVAL
        self._next_ping = time.monotonic() + self._ping_interval
        self._deadline: float | None = None  # time.monotonic()
        # How often receiving may yet read, where it is not to block; None where it is.
        self.reads_left: int | None = None
        self._late_reads = 0  # how often bytes are still taken past the deadline
        self._shut = False

    def send(self, *parts: Buffer, timeout: float | None = None, last: bool = False) -> None:
        """Send all the bytes; block while the peer does not take them.

        Args:
            parts: The bytes, in pieces.
            timeout: Seconds.
            last: Let no message follow, of those either that wait for this one to be sent.

        Raises:
            TransportClosed: The connection broke, or the timeout passed, which breaks it: what
                was sent in part cannot be taken back, nor can anything follow it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._send_lock.acquire(timeout=-1 if timeout is None else timeout):
            self.shutdown()
            raise TransportClosed(1006, "the peer does not read")
        try:
            if self._shut or self._last_sent:
                raise TransportClosed(1006, "the connection is closed")
            self._last_sent = last
            pieces = self._with_unsent(parts)
            if self.is_tls:
                self._send_tls(b"".join(pieces), deadline)
            else:
                self._send_plain(pieces, deadline)
        except OSError as error:
            if error.errno is None:
                raise  # none of the system's: that of a signal's handler
            self.shutdown()
            raise TransportClosed(1006, error.strerror or str(error)) from error
        finally:
            self._send_lock.release()
        if self._control:
            self._send_control()

    def _with_unsent(self, parts: Sequence[Buffer]) -> Sequence[Buffer]:
        """Return what is to be sent, with what stands before it; requires holding _send_lock."""
        if self._control:  # or a pong might come behind a close frame
            self._unsent = (*self._unsent, self._control.popleft())
        if self._unsent:
            parts, self._unsent = (*self._unsent, *parts), ()
        return parts

    def send_now(self, *parts: Buffer) -> bool:
        """Send the bytes as far as the peer takes them; keep the rest, which must not change.

        Returns:
            Whether all has gone.

        Raises:
            TransportClosed: The connection is closed, or broke.
        """
        with self._send_lock:
            if self._shut or self._last_sent:
                raise TransportClosed(1006, "the connection is closed")
            self._unsent = self._with_unsent(parts)
            while self._unsent:
                try:
                    self._send_once()
                except BlockingIOError:
                    self._wants_to_send = WRITE
                    return False
                except OSError as error:
                    try:
                        self._wants_to_send = self._tls_wants(error)
                    except TransportClosed:
                        self.shutdown()
                        raise
                    return False
            return True

    def _send_once(self) -> None:
        """Send some of what is unsent; requires holding _send_lock."""
        if self.is_tls:
            # As it was, if it is tried again; and one record at a time anyhow.
            self._unsent = [b"".join(self._unsent)] if len(self._unsent) > 1 else self._unsent
            with self._tls_lock:
                sent = self.socket.send(self._unsent[0])
        else:
            sent = self._gather(self._unsent)
        self._unsent = _without(self._unsent, sent)

    def wanted(self) -> int:
        """Return what to wait for besides input, or 0; TLS may read to send, and the reverse."""
        to_send = self._wants_to_send if self._unsent or self._control else 0
        return to_send | self._wants_to_receive

    def _receive_now(self, buffers: Sequence[memoryview]) -> int:
        """Receive without blocking; raise ``BlockingIOError`` if there is nothing, or enough."""
        if not self.reads_left:
            raise BlockingIOError
        self.reads_left -= 1
        self._wants_to_receive = 0
        try:
            return self._receive_once(buffers)
        except BlockingIOError:
            pass
        except OSError as error:
            self._wants_to_receive = self._tls_wants(error) & WRITE  # to read is waited for anyhow
        if self._shut:
            raise TransportClosed(1006, "the connection is closed")
        raise BlockingIOError

    def send_control(self, frame: bytes) -> None:
        """Send a control frame without blocking: now, or behind or before the next message.

        It is the receiving thread that answers pings. Were it to wait for the peer to read, and
        the peer for us, neither would ever do anything again. Of several pings only the last
        needs an answer (RFC 6455, section 5.5.3).
        """
        self._control.append(frame)
        self._send_control()

    def _send_control(self) -> None:
        # Whoever holds the lock looks at _control once more when it has released it.
        while (self._control or self._unsent) and self._send_lock.acquire(blocking=False):
            try:
                if not self._unsent:
                    self._unsent = (self._control.popleft(),)
                self._send_once()
            except IndexError:
                pass  # another sender was faster
            except OSError:
                # It would block: it goes before the next message, or at the next tick. Or the
                # connection broke, which the receiving thread is about to see.
                return
            finally:
                self._send_lock.release()

    # Whatever the handler of a signal raises, a message that was sent in part is sent to its end:
    # the rest of it goes before the next, or that would be taken for it.

    def _send_plain(self, parts: Sequence[Buffer], deadline: float | None) -> None:
        whole = parts
        try:
            while parts:
                try:
                    parts = _without(parts, self._gather(parts))
                except BlockingIOError:
                    self._wait(WRITE, deadline)
        except BaseException:
            if parts is not whole:
                self._unsent = (b"".join(parts),)
            raise

    def _gather(self, parts: Sequence[Buffer]) -> int:
        if hasattr(self.socket, "sendmsg"):
            return self.socket.sendmsg(parts)
        return self.socket.send(b"".join(parts))  # pragma: no cover - Windows

    def _send_tls(self, data: bytes, deadline: float | None) -> None:
        rest = memoryview(data)
        try:
            while rest:
                try:
                    with self._tls_lock:
                        sent = self.socket.send(rest)
                    rest = rest[sent:]
                except OSError as error:
                    self._wait(self._tls_wants(error), deadline)
        except BaseException:
            self._unsent = (bytes(rest),)  # TLS itself may have begun with it
            raise

    def _wait(self, event: int, deadline: float | None) -> None:
        rest = liveness.TICK
        if deadline is not None:
            rest = max(0.0, min(rest, deadline - time.monotonic()))
        ready = wait_for(self.socket.fileno(), event, None, rest)
        if self._shut:
            raise TransportClosed(1006, "the connection is closed")
        if ready:
            return
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(errno.ETIMEDOUT, "the peer does not read")
        self._check_peer()

    def receive_into(self, *buffers: memoryview) -> int:
        """Block until there are bytes; store them and return how many, 0 at the end.

        They go into the buffers one after the other; of TLS, and on Windows, into the first.

        Raises:
            BlockingIOError: There are none, and it is not to block: :attr:`reads_left`.
            TimeoutError: The deadline passed.
            TransportClosed: The connection broke, or :meth:`shutdown` was called.
        """
        if self.reads_left is not None:
            return self._receive_now(buffers)
        while True:
            if self.remaining() == 0:
                if not self._late_reads:
                    raise TimeoutError(errno.ETIMEDOUT, "the peer sends on and on")
                self._late_reads -= 1
            try:
                return self._receive_once(buffers)
            except BlockingIOError:
                event = READ
            except OSError as error:
                event = self._tls_wants(error)
            if self._shut:
                raise TransportClosed(1006, "the connection is closed")
            self.wait_to_receive(self.socket.fileno(), event)

    def _receive_once(self, buffers: Sequence[memoryview]) -> int:
        if self.is_tls:
            with self._tls_lock:
                return self.socket.recv_into(buffers[0])
        if len(buffers) > 1 and hasattr(self.socket, "recvmsg_into"):
            return self.socket.recvmsg_into(buffers)[0]
        return self.socket.recv_into(buffers[0])

    def _tls_wants(self, error: OSError) -> int:
        """Return what TLS waits for; raise ``TransportClosed`` if it is a real error."""
        if error.errno is None:
            # None of the system's: that of a signal's handler.
            try:
                raise error
            finally:
                del error  # it refers to this frame, and so to itself
        if self.is_tls:
            with importing:
                import ssl

            if isinstance(error, ssl.SSLWantReadError):
                return READ
            if isinstance(error, ssl.SSLWantWriteError):
                return WRITE
        raise TransportClosed(1006, error.strerror or str(error)) from error

    def wait_to_receive(self, descriptor: int, event: int, at_most: float | None = None) -> None:
        """Block until a descriptor may be ready, or there is reason to look at the state again.

        Raises:
            TimeoutError: The deadline passed.
            TransportClosed: The peer is gone.
        """
        rest = self.remaining()
        if rest == 0:
            raise TimeoutError(errno.ETIMEDOUT, "nothing was received in time")
        tick = liveness.TICK if at_most is None else min(liveness.TICK, at_most)
        if not wait_for(descriptor, event, self.wakeup, tick if rest is None else min(tick, rest)):
            self.wakeup.clear()
            self.tick()

    def ping_every(self, seconds: float) -> None:
        """Send pings so often from now on. Before it is used."""
        self._ping_interval = seconds
        self._next_ping = time.monotonic() + seconds

    def tick(self) -> None:
        """Do what is to be done from time to time; by the receiving thread."""
        if self._shut:
            return
        self._check_peer()
        now = time.monotonic()
        if now >= self._next_ping:
            self._next_ping = now + self._ping_interval
            if not self._control:  # or it would replace a pong, which the peer waits for
                self._control.append(self._ping())
        self._send_control()

    def _check_peer(self) -> None:
        if liveness.is_gone(self.socket):
            self.shutdown()
            raise TransportClosed(1006, "the peer is gone: nothing is heard from it any more")

    def set_deadline(self, seconds: float | None) -> None:
        """Let receiving block for this long from now at most; ``None``: for ever.

        Past the deadline what is there is still taken, but not for long: the peer may send faster
        than it is taken.
        """
        self._late_reads = _LATE_READS
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.wakeup.set()

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, 0 when it has passed; ``None`` without one."""
        deadline = self._deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def hung_up(self) -> bool:
        """Return whether the connection has ended or the peer is gone, without receiving."""
        if liveness.is_gone(self.socket):
            return True
        if not hasattr(select, "POLLRDHUP"):  # Linux alone tells it apart from data
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def linger(self) -> None:
        """Say that this was all, and drop what comes until the peer says so or the deadline."""
        buffer = memoryview(bytearray(1 << 16))
        with suppress_system(OSError, TransportClosed):  # TimeoutError is an OSError
            socket.socket.shutdown(self.socket, socket.SHUT_WR)  # below TLS, as in shutdown()
            while self.receive_into(buffer):
                pass

    def shutdown(self) -> None:
        """End the connection in both directions and wake whoever sends or receives."""
        self._shut = True
        with suppress_system():
            # Not SSLSocket.shutdown, which takes the TLS layer off: a thread may be using it.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        self.wakeup.set()

    def close(self) -> None:
        """Close the descriptor. Nobody may be sending or receiving any more."""
        self._shut = True
        self.socket.close()

    def leave_to_parent(self) -> None:
        """Close this process's copy of the descriptor, in a process that was forked."""
        # Those that other threads held stay locked: the threads have not come along.
        self._send_lock, self._tls_lock = threading.Lock(), threading.Lock()
        self.close()


def _peer(sock: socket.socket) -> str:
    try:
        address = sock.getpeername()
    except OSError:  # it has ended already
        return ""
    if sock.family == socket.AF_INET6:
        return f"[{address[0]}]:{address[1]}"
    return f"{address[0]}:{address[1]}" if sock.family == socket.AF_INET else ""


def _without(parts: Sequence[Buffer], sent: int) -> Sequence[Buffer]:
    """Return what is left of the parts after so many bytes."""
    for i, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[i + 1 :]]
        sent -= len(part)
    return ()
