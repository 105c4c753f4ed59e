"""Telling a peer that is gone from one that is only slow.

A peer that does not read is slow, and is waited for however long it takes. So is one that does
not answer pings: the reference's client stops reading, and with that answering, while nobody
reads its output. A peer is gone when its machine does not acknowledge any more what the kernel
sends, be it data or questions. The kernel asks in one of three ways at a time:

- Nothing is to be sent: keepalive probes. Unanswered, they end the connection after 25 seconds.
- Data is on the way: it is sent again and again. The kernel goes on with that for 15 minutes, and
  sends no keepalive probes meanwhile.
- The peer's window is zero, that is, it does not read: window probes. Unanswered, they too would
  go on for long; answered, they go on for ever.

For the latter two there is TCP_USER_TIMEOUT, which is not used: when the window has been zero for
that long, Linux ends the connection by it even if the peer answered every probe. Instead
:func:`is_gone` looks at what the kernel knows. Whoever waits for the socket calls it every
:data:`TICK` seconds, so that none of the three takes longer than 25 seconds.

What holds where:

- Linux from 6.15 on: all of it.
- Older Linux: window probes back off to two minutes, so a peer that did not read when it vanished
  is given up later: after half a minute if it had just stopped reading, after six minutes if it had
  stopped long before. All else is the same.
- macOS, Windows and others: keepalive alone. A peer that vanishes while data is on the way is
  given up when the system does so by itself, after some minutes.

Where nobody waits for the socket, as in a client that does not receive because an output is full
and unread, the end shows when somebody does again.

All of this ends at a proxy, which answers for itself. A peer that vanishes behind one is noticed
when the proxy notices, for missing pongs do not tell gone from slow.
"""

from __future__ import annotations

import socket
import struct
import sys

from ..errors import suppress_system

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["PING_INTERVAL", "TICK", "is_gone", "keep_alive", "unsent"]

#: How many seconds whoever waits for a socket waits at most before it calls :func:`is_gone`.
TICK = 3.0

#: Seconds between pings, which are for proxies: many close what has been idle for 30 or 60 seconds.
PING_INTERVAL = 25.0

# A peer is gone that acknowledged nothing for so many seconds, and so many tries in a row: a try
# or its answer may be lost, and what an older Linux asks every two minutes is no answer owed.
_SILENCE = 22.0
_TRIES = 3

# Seconds before the first keepalive probe and between probes, and how many are sent.
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT = 10, 5, 3

# Linux's TCP_RTO_MAX_MS, which Python has no name for: milliseconds between two tries to send data
# again, or to probe a window, at most. Not much shorter, for a network that has a round trip of
# longer than this would get everything twice. With it the kernel gives up by itself, too, though
# only after more than a minute.
_RTO_MAX_MS, _RTO_MAX = 44, 5000

# The start of Linux's struct tcp_info, see linux/tcp.h: the number of tries to send again, and of
# window probes, that were not answered; milliseconds since data and since an ACK was received.
_TCP_INFO = struct.Struct("=2x B B 4x 44x I I")


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel ask for a sign of life from the peer when there has been none for a while.

    What the platform lacks is left out, and all of it on a socket that is not TCP.
    """
    # macOS has the first of them by another name.
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    options = [
        (idle, _KEEPALIVE_IDLE),
        (getattr(socket, "TCP_KEEPINTVL", None), _KEEPALIVE_INTERVAL),
        (getattr(socket, "TCP_KEEPCNT", None), _KEEPALIVE_COUNT),
        (_RTO_MAX_MS if sys.platform == "linux" else None, _RTO_MAX),
    ]
    with suppress_system():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options:
        if name is not None:
            with suppress_system():
                sock.setsockopt(socket.IPPROTO_TCP, name, value)


def is_gone(sock: socket.socket) -> bool:
    """Return whether the peer owes the kernel an answer, and has been silent for too long.

    Does not block. Always False where the platform is not Linux, or the socket is not TCP.
    """
    if sys.platform != "linux":
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        retransmits, probes, last_data, last_ack = _TCP_INFO.unpack(info)
    except (OSError, struct.error):
        return False
    silence: int = min(last_data, last_ack)
    return max(retransmits, probes) >= _TRIES and silence >= _SILENCE * 1000


def unsent(sock: socket.socket) -> int:
    """Return how many bytes of what was sent the peer's machine has not acknowledged.

    0 where the platform is not Linux (tcp(7), SIOCOUTQ).
    """
    if sys.platform != "linux":
        return 0
    count = bytearray(4)
    with suppress_system():
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)
