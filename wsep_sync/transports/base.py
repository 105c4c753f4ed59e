"""The interface between the messages and whatever carries them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

from ..protocol.messages import MAX_MESSAGE

__all__ = ["CLOSE_TIMEOUT", "FEATURES_HEADER", "POLICY_VIOLATION", "Transport", "close_reason"]

Buffer: TypeAlias = "bytes | bytearray | memoryview"

#: How many seconds :meth:`Transport.close` gives the peer to answer a close frame.
CLOSE_TIMEOUT = 3.0

#: The header of the handshake's answer that names :attr:`Transport.peer_features`, with spaces
#: between them.
FEATURES_HEADER = "Wsep-Features"

#: The close code of a server that would not wait any longer (RFC 6455, section 7.4.1).
POLICY_VIOLATION = 1008


class Transport(ABC):
    """One WebSocket, seen as a way for whole messages to go both ways.

    One thread at a time receives; every other method may be called from any thread at any time.
    The library's own exceptions do not leave: what ends the connection is
    :exc:`~wsep_sync.errors.TransportClosed`.

    A peer that is slow is waited for. One whose machine does not answer any more ends the
    connection within 30 seconds, as far as the platform allows; see
    :mod:`wsep_sync.transports.liveness`.
    """

    #: The additions that the other end named while the connection was made, if this is a client's:
    #: what a first message may ask for; see :data:`~wsep_sync.protocol.messages.FEATURES`.
    peer_features: frozenset[str] = frozenset()

    @property
    def peer(self) -> str:
        """Where the connection comes from, or goes to: ``HOST:PORT``, or ``[IPV6]:PORT``.

        For log lines. Through a proxy it is the proxy. "" where there is no such address, as in
        memory and over Unix sockets. It stays what it was when the connection has ended.
        """
        return ""

    @abstractmethod
    def send(self, *parts: Buffer, timeout: float | None = None) -> None:
        """Send one binary message: the parts, joined.

        Blocks while the peer does not read, for ever if need be. Messages of several threads do
        not mix. The parts may be reused on return.

        Args:
            parts: The message, in pieces.
            timeout: Seconds; then the connection is cut, as part of a message may be on its way.

        Raises:
            TransportClosed: The connection is closed, or broke, or the peer is gone.
        """

    def send_stream(self, header: bytes, data: memoryview) -> None:
        """Send bytes as messages, each of which is the header and as many of them as fit.

        Otherwise as :meth:`send`. It is for some megabytes at most.
        """
        room = MAX_MESSAGE - len(header)
        for start in range(0, len(data), room):
            self.send(header, data[start : start + room])

    @abstractmethod
    def receive(self) -> Buffer:
        """Return the next message, text or binary; block until there is one.

        Pings are answered meanwhile, and sent.

        Raises:
            TransportClosed: The peer closed, the connection broke, the peer is gone, or
                :meth:`abort` was called.
            ProtocolError: The peer sent a message over the limit, or a frame that RFC 6455 does
                not allow. The caller is to close with the exception's ``close_code``.
            TimeoutError: The deadline passed.
        """

    @abstractmethod
    def set_deadline(self, seconds: float | None) -> None:
        """Let :meth:`receive` block for this long from now at most; ``None``: for ever.

        A receive that is blocking already is held to the new deadline, and so is one that gets
        pings, fragments and bytes, however fast they come. What is there at the deadline is still
        returned, but not without end. A finaliser may call it: it blocks for nothing that its own
        thread may hold.
        """

    @abstractmethod
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket (RFC 6455, section 7.1.2), then the connection.

        Sends a close frame and waits for the peer's, reading and dropping what comes before it.
        Blocks for :data:`CLOSE_TIMEOUT` seconds at most until that is sent, if the peer does not
        read, and for as long again until its own has come. A thread that is receiving meanwhile
        gets ``TransportClosed``. Calling it again is harmless.

        Args:
            code: 1000 for a normal end, 1011 for an error, 1009 for a message too long.
            reason: What the peer is told; cut to the 123 bytes of UTF-8 that fit.
        """

    def ping_every(self, seconds: float) -> None:  # noqa: B027 - one in memory has nobody to ping
        """Send pings so often from now on, rather than every 25 seconds. Before it is used."""

    @abstractmethod
    def hung_up(self) -> bool:
        """Return whether the connection has ended or the peer is gone, as far as can be seen.

        For whoever does not receive at the moment: the end stands behind messages that have not
        been received yet, and shows here once all of them have reached this machine.
        """

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection at once, without a close frame, and wake who sends or receives.

        Does not block.
        """


def close_reason(text: str) -> str:
    """Return ``text`` cut to the 123 bytes of UTF-8 that a close frame holds (RFC 6455, 5.5)."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= 123:
        return encoded.decode()
    return encoded[:120].decode(errors="ignore") + "..."
