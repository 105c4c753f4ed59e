"""What systemd, or who speaks as it does, hands to a service: sockets, and where to report to.

Both come by way of environment variables: sd_listen_fds(3) and sd_notify(3) say which. They are
meant for this process alone, so the functions here take them out of ``os.environ`` when they look,
whether they can use them or not. Call both before the first command is started, or it gets them.

Only the standard library is needed, and nothing happens where there is no systemd.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading

__all__ = ["listen_sockets", "notify"]

# sd_listen_fds(3): SD_LISTEN_FDS_START.
_FIRST_DESCRIPTOR = 3

# Seconds that a service manager may keep us waiting that does not read.
_NOTIFY_TIMEOUT = 1.0

_lock = threading.Lock()  # guards _notify_address, and its way there from os.environ
_notify_address = ""


def notify(state: str) -> bool:
    """Tell the service manager what this service does now, as sd_notify(3).

    Args:
        state: Assignments such as ``READY=1``, ``STOPPING=1`` or ``STATUS=…``, one per line.

    Returns:
        Whether it was sent: False if nobody wants to know, or whoever wanted is gone. Nobody says
        whether it was understood.

    Blocks for a second at most, when the manager does not read. May be called from any thread.
    """
    global _notify_address
    with _lock:
        _notify_address = os.environ.pop("NOTIFY_SOCKET", _notify_address)
        address = _notify_address
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # unix(7): an abstract name begins with a NUL
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_NOTIFY_TIMEOUT)
            sock.sendto(state.encode(errors="replace"), address)
    except OSError:
        return False
    return True


def listen_sockets() -> list[socket.socket]:
    """Return the sockets that this process was started with to listen on, as sd_listen_fds(3).

    They are the caller's, and no command inherits them. There are none when nobody passed any, or
    passed them to another process; and none the next time.

    Raises:
        OSError: What was passed is no stream socket that listens: ``ListenStream=`` and
            ``Accept=no`` in the unit make one.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    for name in ("LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        os.environ.pop(name, None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    with contextlib.ExitStack() as undo:
        sockets = [
            undo.enter_context(_listening_socket(_FIRST_DESCRIPTOR + number))
            for number in range(int(count))
        ]
        undo.pop_all()
    return sockets


def _listening_socket(descriptor: int) -> socket.socket:
    what = f"descriptor {descriptor}, from LISTEN_FDS,"
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise OSError(error.errno, f"{what} is no socket") from error
    if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return sock
    sock.close()
    raise OSError(errno.EINVAL, f"{what} is no stream socket that listens")
