"""Redraws by an emulator, in a helper process that is asked for them: :func:`ask`.

There is one helper for this process, while anybody :func:`holds <hold>` it: it is started when it
may soon be needed, and ended when nobody holds it any more. It may fail in any way: then, as while
it is starting or when pyghostty is not installed, there is no answer, and who asked replays the
recording. One line in the log says so, and it is started anew.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL

from ..children import Popen
from ..log import log_event
from .helper import ANSWER, REQUEST
from .recording import Screen, Snapshot
from .replay import start_bytes

__all__ = ["ask", "hold", "prepare"]

# Seconds that one who asks waits for those before, and then as many for the answer.
PATIENCE = 0.1
# Seconds that the helper may take until it is ready.
_STARTING = 10.0
# Seconds between two starts, so that a recording which always breaks it costs little.
_BETWEEN_STARTS = 5.0
# The largest terminal that it is asked about, in cells: an emulator's time and memory grow with it.
# A screen of 4K at the smallest of fonts has fewer.
MOST_CELLS = 1 << 17
# The longest redraw, in bytes. One that is longer is more than what was recorded.
MOST_BYTES = 1 << 21

# Neither the environment nor the current directory have a say in what this runs; the path is that
# of this process. The package itself is not imported: of it, this needs three modules.
_PROGRAM = """
import socket, sys, types
root, *sys.path = sys.argv[1:]
for name, path in ("wsep_sync", root), ("wsep_sync.terminals", root + "/terminals"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from wsep_sync.terminals.helper import main
main(socket.socket(fileno=0))
"""
# What finding a native library may depend on; the rest may be secret.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "PYGHOSTTY_LIB", "SYSTEMROOT")


class _Failure(Exception):
    """The helper cannot be used any more; says why."""


class _Useless(_Failure):
    """Another one would be no better."""


class _Child:
    """The helper's process. Belongs to one thread at a time."""

    def __init__(self) -> None:
        """Start it, which takes some milliseconds; it is ready half a second later.

        Raises:
            OSError: It cannot be started.
        """
        self.started = time.monotonic()
        self._ready = False
        self._sock, other = socket.socketpair()
        try:
            with other:
                root = Path(__file__).parent.parent
                path = [os.path.abspath(entry) for entry in sys.path]
                self._process = Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, str(root), *path],
                    stdin=other.fileno(),
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    cwd=root,
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    # A Ctrl-C at the server's terminal is not for it: it ends with the server.
                    start_new_session=True,
                )
        except BaseException:
            self._sock.close()
            raise

    def ask(self, request: bytes, deadline: float) -> bytes | None:
        """Return its answer; None, if it is still starting.

        Raises:
            _Failure: There is none.
        """
        try:
            if not self._ready:
                try:
                    problem = self._receive(0)  # there, or not: who asks is not to wait for that
                except TimeoutError:
                    if time.monotonic() - self.started < _STARTING:
                        return None
                    raise
                if problem:
                    raise _Useless(problem.decode(errors="replace"))
                self._ready = True
            self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
            self._sock.sendall(request)
            return self._receive(deadline)
        except TimeoutError:
            raise _Failure("is late") from None
        except OSError as error:
            raise _Failure(f"has died: {error}") from error

    def _receive(self, deadline: float) -> bytes:
        (size,) = ANSWER.unpack(self._receive_exactly(ANSWER.size, deadline))
        if size > MOST_BYTES:
            raise _Failure("answers too much")
        return self._receive_exactly(size, deadline)

    def _receive_exactly(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._sock.recv(count - len(data))
            if not piece:
                raise _Failure("has died")
            data += piece
        return bytes(data)

    def end(self) -> None:
        """Kill it: it has nothing to lose."""
        self._process.kill()
        self._sock.close()
        self._process.wait()

    def leave_to_parent(self) -> None:
        """Forget it, in a process that was forked."""
        self._sock.close()
        self._process.returncode = 0  # else its finaliser would wait for a stranger


class _Helper:
    """The helper, if there is any. Thread-safe."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards how many hold it
        self._holders = 0
        # The turn of the one thread that has to do with the process: to start it, to ask it, for
        # no longer than PATIENCE, or to end it. Who asks waits for it as long and no longer.
        self._turn = threading.Lock()
        self._child: _Child | None = None
        self._next_start = 0.0
        self._useless = False  # it can never be had

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders = max(self._holders - 1, 0)  # 0 in a process that was forked
                last = not self._holders
            if last:
                with self._turn:  # of nobody for long, as nobody holds it
                    if not self._holders and self._child is not None:
                        self._child.end()
                        self._child = None
                    self._next_start = 0.0  # nothing was wrong with it

    def prepare(self) -> None:
        if self._turn.acquire(timeout=PATIENCE):
            try:
                self._start()
            finally:
                self._turn.release()

    def ask(self, snapshot: Snapshot) -> bytes | None:
        steps, pieces = _request(snapshot)
        if any(rows * columns > MOST_CELLS for rows, columns, _ in steps):
            return None
        if not self._turn.acquire(timeout=PATIENCE):
            return None
        try:
            self._start()
            if self._child is None:
                return None
            return self._answer(self._child, steps, pieces)
        except _Failure as failure:
            _log(str(failure))
            self._useless = isinstance(failure, _Useless)
            if self._child is not None:
                self._child.end()
                self._child = None
            self._start()
            return None
        finally:
            self._turn.release()

    def _answer(
        self, child: _Child, steps: list[tuple[int, int, int]], pieces: list[bytes]
    ) -> bytes | None:
        deadline = time.monotonic() + PATIENCE
        head, data = json.dumps(steps).encode(), b"".join(pieces)
        request = REQUEST.pack(len(head), len(data)) + head + data
        answer = child.ask(request, deadline)
        if answer is None:
            return None
        if not answer:
            _log("cannot draw this")  # as it says itself, so there is nothing wrong with it
            return None
        if not answer.startswith(b"\x18\x1b\\"):
            raise _Failure("answers nonsense")
        return answer

    def _start(self) -> None:
        """Start the process unless it is there, if it may be. Requires having the turn."""
        assert self._turn.locked()
        if self._child is not None or self._useless or not self._holders:
            return
        if time.monotonic() < self._next_start:
            return
        if importlib.util.find_spec("pyghostty") is None:
            self._useless = True  # not installed, which is nothing to tell anybody
            return
        self._next_start = time.monotonic() + _BETWEEN_STARTS
        try:
            self._child = _Child()
        except (OSError, ValueError) as error:
            _log(f"cannot be started: {error}")

    def leave_to_parent(self) -> None:
        """Be as new, in a process that was forked: no thread that has to do with it is there."""
        child = self._child
        self._begin()
        if child is not None:
            child.leave_to_parent()


def _log(reason: str) -> None:
    reason = f"the helper that emulates terminals {reason}; a recording is replayed instead"
    log_event(logging.WARNING, "failure", reason=reason)


def _request(snapshot: Snapshot) -> tuple[list[tuple[int, int, int]], list[bytes]]:
    """Return what is fed to a fresh terminal, and at which sizes how much of it."""
    steps: list[tuple[int, int, int]] = []
    pieces: list[bytes] = []

    def feed(rows: int, columns: int, data: bytes) -> None:
        steps.append((rows, columns, len(data)))
        pieces.append(data)

    def feed_screen(screen: Screen, before: bytes) -> None:
        _, rows, columns = screen.sizes[0]
        feed(rows, columns, before + start_bytes(screen.start))
        ends = [start for start, _, _ in screen.sizes[1:]] + [len(screen.data)]
        start = 0
        for (_, rows, columns), end in zip(screen.sizes, ends, strict=True):
            feed(rows, columns, screen.data[start:end])
            start = end

    feed_screen(snapshot.normal, b"")
    if snapshot.alternate is not None:
        feed_screen(snapshot.alternate, b"\x1b[?%dh" % snapshot.alternate_mode)
    feed(snapshot.rows, snapshot.columns, snapshot.held)
    return steps, pieces


_helper = _Helper()


def hold() -> contextlib.AbstractContextManager[None]:
    """Let there be a helper for as long as the context lasts; it is not started by that.

    Leaving ends it, if nobody else holds it; then nothing of it is left.
    """
    return _helper.hold()


def prepare() -> None:
    """Start the helper, if it is held, so that it is ready when it is asked.

    Not when it is held: it takes half a second of the processor's time, and most sessions have one
    client, who stays to the end. Blocks for some milliseconds. Safe from any thread.
    """
    _helper.prepare()


def ask(snapshot: Snapshot) -> bytes | None:
    """Return the helper's redraw; None, if there is none, for whatever reason.

    If it is held and not there, it is started, for the next who asks. Blocks for 0.2 seconds at
    most. Safe from any thread.
    """
    return _helper.ask(snapshot)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_helper.leave_to_parent)
