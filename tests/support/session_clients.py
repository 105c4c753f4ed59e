"""Clients of terminal sessions, over real WebSockets, for the tests of sessions."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from helpers import SECONDS, MemoryExecer, eventually, serving

from wsep_sync import Command, Execer, LocalExecer, Options, Process, Server, connect
from wsep_sync.errors import ExitError, WsepError
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

# No start-up file of this machine, and a prompt that is easily told from output.
BASH = ("bash", "--norc", "--noprofile", "-i")
BASH_ENV = ("PS1=$ ", "HISTFILE=", "INPUTRC=/dev/null", "TERM=xterm-256color", "LC_ALL=C.UTF-8")


def session(
    id: str, *argv: str, rows: int = 24, cols: int = 80, env: tuple[str, ...] = ()
) -> Command:
    """The command of a session: bash, or what is given."""
    command, *args = argv or BASH
    return Command(command, args, id=id, tty=True, rows=rows, cols=cols, env=[*BASH_ENV, *env])


def attach_message(id: str, *argv: str, **fields: Any) -> dict[str, Any]:
    """The start message for a session, as it is sent, for a client by hand."""
    command = session(id, *argv, **fields)
    return {
        "type": "start",
        "id": id,
        "command": {
            "command": command.command,
            "args": command.args,
            "tty": True,
            "rows": command.rows,
            "cols": command.cols,
            "env": command.env,
        },
    }


class Client:
    """A client that is attached; a thread collects all that it gets.

    Attributes:
        process: The command as this client sees it.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._changed = threading.Condition()  # guards the two below
        self._got = bytearray()
        self._ended = False
        # Ends with the output, which leave() ends.
        self._thread = threading.Thread(target=self._collect, name="test-client", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with contextlib.suppress(WsepError, ValueError):
            while data := self.process.stdout.read1(1 << 16):
                with self._changed:
                    self._got += data
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def got(self) -> bytes:
        with self._changed:
            return bytes(self._got)

    @property
    def size(self) -> int:
        with self._changed:
            return len(self._got)

    def until(self, what: bytes | Callable[[bytes], Any], start: int = 0) -> bytes:
        """Wait until what came, from an offset on, contains something; return all of it."""
        searched = start

        def there() -> bool:
            nonlocal searched
            if not isinstance(what, bytes):
                return bool(what(bytes(self._got[start:])))
            found = self._got.find(what, searched) >= 0
            searched = max(start, len(self._got) - len(what))
            return found

        with self._changed:
            self._changed.wait_for(lambda: there() or self._ended, SECONDS)
            searched = start
            assert there(), f"{what!r} is not in {bytes(self._got[start:])[-2000:]!r}"
            return bytes(self._got[start:])

    def type(self, keys: bytes) -> None:
        self.process.stdin.raw.write(keys)

    def run(self, line: bytes, output: bytes) -> bytes:
        """Type a line to a shell and wait for output; return what came since.

        The output must not be part of the line, for that is echoed.
        """
        self.until(b"$ ")  # what is typed before that is echoed twice
        start = self.size
        self.type(line + b"\r")
        return self.until(output, start)

    def exit_code(self, seconds: float = SECONDS) -> int:
        """Wait for the command's end, and return its status."""
        try:
            self.process.wait(seconds)
        except ExitError as error:
            return error.exit_code
        return 0

    def ended(self) -> bytes:
        """Wait until the output has ended; return all of it."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the output has not ended"
        return self.got

    def leave(self) -> None:
        self.process.close()
        self.ended()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError, ValueError):
                file.close()


class Hub:
    """A server of sessions in this process, and its clients.

    Attributes:
        server: The server under test.
        url: Where it listens.
    """

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url
        self.clients: list[Client] = []

    def start(self, command: Command, url: str = "") -> Process:
        """Attach over a WebSocket of its own."""
        with connect(url or self.url, timeout=SECONDS) as execer:
            return execer.start(command)

    def attach(self, id: str, *argv: str, url: str = "", **fields: Any) -> Client:
        client = Client(self.start(session(id, *argv, **fields), url))
        self.clients.append(client)
        return client

    def left(self, but: int = 0) -> None:
        """Wait until the server has noticed that nobody is attached, or only so many are."""
        eventually(lambda: sum(s.clients for s in self.server.sessions()) == but, "clients left")


@contextlib.contextmanager
def hub(
    execer: Execer | Callable[[], Execer] | None = None,
    options: Options | None = None,
    server: Server | None = None,
) -> Iterator[Hub]:
    """Serve sessions; at the end, everything is ended."""
    server = server or Server()
    app = application(server, execer or LocalExecer(), options)
    with serving(Listener(app)) as listener:
        hub = Hub(server, listener.url)
        try:
            yield hub
        finally:
            try:
                while hub.clients:  # pytest keeps the hub, whose clients hold descriptors
                    hub.clients.pop().leave()
            finally:
                server.close()


@contextlib.contextmanager
def memory_hub(server: Server) -> Iterator[MemoryExecer]:
    """Serve sessions over connections in memory, which are cheap to make by the thousand."""
    with contextlib.closing(MemoryExecer(server=server)) as execer:
        try:
            yield execer
        finally:
            server.close()


_CONTROL = re.compile(rb"\x1b(?:\[[\x20-\x3f]*[\x40-\x7e]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]])")


def plain(data: bytes) -> bytes:
    """Return output without its escape sequences, as far as these tests have them."""
    return _CONTROL.sub(b"", data)
