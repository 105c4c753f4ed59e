"""What several test modules share: servers in this process, clients by hand, and waiting."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import websocket

from wsep_sync import Command, Execer, LocalExecer, Process, RemoteExecer, Server
from wsep_sync.errors import ProtocolError
from wsep_sync.transports.base import Transport
from wsep_sync.transports.memory import memory_pair
from wsep_sync.transports.simple_websocket import accept_websocket
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import UPGRADED, application

# How long anything may take that has to happen. No test is faster or slower for it: it only says
# when to give up.
SECONDS = 30.0

# A user, and a group, that is not root.
NOBODY = 65534

_Result = TypeVar("_Result")


def eventually(condition: Callable[[], _Result], what: str, seconds: float = SECONDS) -> _Result:
    """Poll until the condition is truthy and return what it is; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.005)
    return result


class Task:
    """A call that runs in a thread of its own; `result` returns or raises what it did.

    As a context manager it makes sure that the thread has ended.
    """

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self._outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=self._run, args=(call, args), name=f"test-{call!r:.40}", daemon=True
        )
        self.thread.start()

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self._outcome.put((call(*args), None))
        except BaseException as error:
            self._outcome.put((None, error))

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    def result(self, seconds: float = SECONDS) -> Any:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"{self.thread.name} still runs after {seconds:g} s"
        value, error = self._outcome.get_nowait()
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other
        return value

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), f"{self.thread.name} still runs"


def blocked(task: Task | threading.Thread) -> None:
    """Wait until the thread of a task sleeps in the kernel, and seems to stay there.

    Nothing tells from outside that a call has come to the point where it blocks; this does as
    well as can be, so that what is to wake the thread mostly finds it asleep.
    """
    thread = task.thread if isinstance(task, Task) else task
    path = Path(f"/proc/self/task/{thread.native_id}/stat")

    def asleep() -> bool:
        return path.read_bytes().rpartition(b")")[2].split()[0] == b"S"

    asleep_since = 0.0
    deadline = time.monotonic() + SECONDS
    while not asleep_since or time.monotonic() - asleep_since < 0.05:
        assert thread.is_alive(), "the call returned instead of blocking"
        assert time.monotonic() < deadline, "the call never blocked"
        if not asleep():
            asleep_since = 0.0
        elif not asleep_since:
            asleep_since = time.monotonic()
        time.sleep(0.005)


# Processes


def _stat(pid: int) -> list[bytes] | None:
    try:
        # The name before the last parenthesis may hold spaces and parentheses.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in (b"Z", b"X")


def state(pid: int) -> str:
    """The letter of proc_pid_stat(5): R, S, T (stopped), Z ...; "" if there is none."""
    stat = _stat(pid)
    return "" if stat is None else stat[0].decode()


def gone(*pids: int, seconds: float = SECONDS) -> None:
    """Wait until none of the processes is alive."""
    eventually(
        lambda: not any(alive(pid) for pid in pids), f"the end of {list(map(str, pids))}", seconds
    )


def children(pid: int) -> set[int]:
    """The processes that this one, any of its threads, has started, and has not reaped."""
    found: set[int] = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, file.read_text().split()))
    return found


def descendants(pid: int) -> set[int]:
    """The same, and what those have started, and so on."""
    found: set[int] = set()
    generation = children(pid)
    while generation:
        found |= generation
        generation = {child for parent in generation for child in children(parent)}
    return found


@contextlib.contextmanager
def ends_processes(*pids: int) -> Iterator[None]:
    """Kill what a failing test would leave."""
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def sh(script: str, *args: str, **fields: Any) -> Command:
    """A command that is a shell script, with its arguments in $1, $2 …"""
    return Command("sh", ["-c", script, "sh", *args], **fields)


def read_until(file: Any, end: bytes) -> bytes:
    """Read from a file object until what came ends with `end`."""
    got = b""
    while not got.endswith(end):
        byte = file.read(1)
        assert byte, f"the output ended after {got!r}"
        got += byte
    return got


def read_past(file: Any, what: bytes) -> bytes:
    """Read what there is until it contains `what`."""
    got = b""
    while what not in got:
        piece = file.read1()
        assert piece, f"the output ended after {got!r}"
        got += piece
    return got


def numbers(file: Any, count: int) -> list[int]:
    """Read that many lines with a number each."""
    return [int(file.readline()) for _ in range(count)]


# Servers


@contextlib.contextmanager
def serving(listener: Listener) -> Iterator[Listener]:
    """Run a listener in a thread, and stop it at the end."""
    thread = threading.Thread(target=listener.serve_forever, name="test-listener")
    thread.start()
    try:
        yield listener
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


@contextlib.contextmanager
def listening(
    execer: Execer | Callable[[], Execer] | None = None,
    server: Server | None = None,
    **options: Any,
) -> Iterator[Listener]:
    """A server on a free loopback port; `options` go to the listener."""
    app = application(server or Server(), execer or LocalExecer())
    with serving(Listener(app, **options)) as listener:
        yield listener


@contextlib.contextmanager
def scripted(script: Callable[[Transport], None]) -> Iterator[str]:
    """A server whose connections do what a script says; yields its URL.

    When the script returns, the connection is closed with 1000, unless it is closed already.
    What it raises is raised at the end of the `with` block.
    """
    errors: list[BaseException] = []

    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        environ[UPGRADED] = True
        transport = accept_websocket(environ)
        try:
            script(transport)
        except BaseException as error:
            errors.append(error)
            transport.abort()
        transport.close()
        return []

    with serving(Listener(app)) as listener:
        yield listener.url
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()


class MemoryExecer(Execer):
    """Runs each command over a connection in memory, which a server's thread serves."""

    def __init__(
        self, execer: Execer | Callable[[], Execer] | None = None, server: Server | None = None
    ) -> None:
        self._execer = execer or LocalExecer()
        self._server = server or Server()
        self._lock = threading.Lock()  # guards _threads
        self._threads: list[threading.Thread] = []

    def start(self, command: Command) -> Process:
        with self.connect() as execer:
            return execer.start(command)

    def connect(self, **options: Any) -> RemoteExecer:
        """One more connection, for one command."""
        return RemoteExecer(self.connect_raw(), **options)

    def connect_raw(self) -> Transport:
        client, server = memory_pair()
        thread = threading.Thread(target=self._serve, args=(server,), name="test-serve")
        with self._lock:
            self._threads.append(thread)
        thread.start()
        return client

    def _serve(self, conn: Transport) -> None:
        try:
            self._server.serve(conn, self._execer)
            conn.close(1000)
        except ProtocolError as error:
            conn.close(error.close_code, str(error))
        finally:
            conn.abort()

    def close(self) -> None:
        """Wait until every connection has been served."""
        with self._lock:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), "the server still serves a connection"


# Clients by hand


def start_message(command: Command | None = None, /, **fields: Any) -> bytes:
    """A start message, written here rather than by the code under test."""
    if command is not None:
        fields = {
            "command": command.command,
            "args": list(command.args),
            "stdin": command.stdin,
            "tty": command.tty,
            "rows": command.rows,
            "cols": command.cols,
            "env": list(command.env),
            "working_dir": command.working_dir,
            **fields,
        }
    return json.dumps({"type": "start", "command": fields}).encode()


class RawClient:
    """A WebSocket of websocket-client, used as it comes: no code of the package is in between.

    Attributes:
        code, reason: How the server closed, once it has.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.ws = websocket.create_connection(
            url, timeout=SECONDS, suppress_origin=True, http_no_proxy=["*"], **options
        )
        self.code: int | None = None
        self.reason = ""

    def start(self, command: Command) -> int:
        """Send the start and return the pid."""
        self.send(start_message(command))
        header, _ = self.receive()
        assert header["type"] == "pid", header
        return int(header["pid"])

    def send(self, data: bytes | dict[str, Any], body: bytes = b"") -> None:
        if isinstance(data, dict):
            data = json.dumps(data).encode() + b"\n" + body
        self.ws.send_binary(data)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next message's header and body; raises EOFError when the server has closed."""
        while True:
            opcode, data = self.ws.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                if len(data) >= 2:
                    (self.code,) = struct.unpack("!H", data[:2])
                    self.reason = data[2:].decode()
                else:
                    self.code = 1005
                raise EOFError(f"closed with {self.code}: {self.reason}")
            if opcode in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT):
                header, _, body = data.partition(b"\n")
                return json.loads(header), body

    def receive_until(self, type: str) -> dict[str, Any]:
        """Skip messages until one of this type, and return its header."""
        while True:
            header, _ = self.receive()
            if header["type"] == type:
                return header

    def receive_all(self, last: str = "") -> tuple[list[dict[str, Any]], bytes, bytes]:
        """Everything until the server closes, or a message of type `last`.

        Returns the headers, and the two outputs joined.
        """
        headers, out, err = [], b"", b""
        with contextlib.suppress(EOFError):
            while not headers or headers[-1]["type"] != last:
                header, body = self.receive()
                headers.append(header)
                if header["type"] == "stdout":
                    out += body
                elif header["type"] == "stderr":
                    err += body
        return headers, out, err

    def send_until_full(self, data: bytes) -> int:
        """Send a message again and again until no more is taken; return how many bytes were."""
        frame = websocket.ABNF.create_frame(data, websocket.ABNF.OPCODE_BINARY).format()
        sent = 0
        self.ws.sock.setblocking(False)
        while select.select([], [self.ws.sock], [], 0.2)[1]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += self.ws.sock.send(frame[sent % len(frame) :])
        return sent

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.ws.sock.close()

    def finish(self) -> None:
        """End the connection with a TCP FIN, without a close frame."""
        self.ws.sock.shutdown(socket.SHUT_RDWR)
        self.ws.sock.close()

    def hang_up(self, code: int = 1000) -> None:
        """Send a close frame, and close without waiting for the answer."""
        self.ws.send_close(code)
        self.ws.sock.shutdown(socket.SHUT_WR)
        self.ws.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.ws.shutdown()
