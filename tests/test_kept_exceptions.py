"""What fails leaves no exception in a cycle.

A name, or an attribute, that keeps an exception after it was raised ties it, through its
traceback, to all frames that it has passed: a cycle that holds descriptors and processes until the
garbage collector comes by.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import SECONDS, listening, scripted
from sshd import sshd

import wsep_sync
from wsep_sync import PIPE, Command, LocalExecer, Popen, Session, check_output, connect
from wsep_sync.cli.signals import Signals
from wsep_sync.errors import ConnectError, WsepError
from wsep_sync.protocol.messages import Pid
from wsep_sync.transports.base import Transport

PACKAGE = Path(wsep_sync.__file__).parent
MISSING = Command("/there/is/none")

# What keeps an exception, or raises one that is kept, and how it lets go of it.
LETS_GO = {
    "cli/signals.py:run": "a list, which is emptied by who raises it",
    "faces/interaction.py:show_output": "likewise, in any case",
    "faces/popen.py:_raise_error": "deleted",
    "transports/stream_socket.py:_tls_wants": "deleted",
    "transports/websocket_client.py:_raise_foreign": "deleted",
    "transports/websocket_client.py:_connect": "deleted",
}


class _Keeping(ast.NodeVisitor):
    """Finds the functions that raise an exception which has a name, or give it another one."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._functions = [""]
        self._caught: list[str | None] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._caught.append(node.name)
        self.generic_visit(node)
        self._caught.pop()

    def visit_Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, (ast.Name, ast.Attribute)):
            name = ast.unparse(node.exc).rpartition(".")[2]
            if not name.lstrip("_")[0].isupper():  # or else it is a class
                self.found.add(self._functions[-1])

    def visit_Assign(self, node: ast.Assign) -> None:
        self._look_at(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            self._look_at(*node.args)
        self.generic_visit(node)

    def _look_at(self, *values: ast.expr) -> None:
        if any(isinstance(value, ast.Name) and value.id in self._caught for value in values):
            self.found.add(self._functions[-1])


def test_who_keeps_an_exception_lets_go_of_it() -> None:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        keeping = _Keeping()
        keeping.visit(ast.parse(path.read_text()))
        found |= {f"{path.relative_to(PACKAGE)}:{function}" for function in keeping.found}
    assert found == LETS_GO.keys()


def left_by(call: Callable[[], object]) -> list[str]:
    """Return the exceptions that only the garbage collector finds after a call."""
    gc.collect()
    gc.disable()
    try:
        call()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return [place for thing in gc.garbage if (place := _raised_at(thing))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _raised_at(thing: Any) -> str:
    """Return where an exception was raised, if it was caught by the package, or here."""
    entry = thing.__traceback__ if issubclass(type(thing), BaseException) else None
    if entry is None or not _is_ours(entry.tb_frame.f_code.co_filename):
        return ""  # what paramiko keeps of its own, say
    while entry.tb_next is not None:
        entry = entry.tb_next
    code = entry.tb_frame.f_code
    return f"{thing!r}, {code.co_filename}:{entry.tb_lineno}, {code.co_name}"


def _is_ours(file: str) -> bool:
    return file == __file__ or Path(file).is_relative_to(PACKAGE)


def nobody_listens() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def fails(*calls: Callable[[], object]) -> None:
    for call in calls:
        with contextlib.suppress(WsepError, OSError, subprocess.SubprocessError):
            call()
            raise AssertionError("it has not failed")


def over_a_websocket(*calls: Callable[[Any], object]) -> None:
    with listening() as listener, connect(listener.url) as execer:
        for call in calls:
            fails(lambda call=call: call(execer))  # type: ignore[misc]


def no_such_command() -> None:
    fails(lambda: LocalExecer().start(MISSING))
    over_a_websocket(
        lambda execer: execer.start(MISSING),
        lambda execer: Popen([MISSING.command], execer=execer),
        lambda execer: execer.start(Command("true", working_dir="/there/is/none")),
    )


def no_server() -> None:
    url = f"ws://127.0.0.1:{nobody_listens()}"
    fails(lambda: connect(url), lambda: Popen(["true"], url=url))
    assert [type(outcome.error) for outcome in wsep_sync.map("true", [url])] == [ConnectError]


def another_status() -> None:
    def waits(execer: Any) -> None:
        with execer.start(Command("false")) as process:
            process.wait(SECONDS)

    fails(lambda: waits(LocalExecer()))
    over_a_websocket(waits, lambda execer: check_output(["false"], execer=execer))


def late() -> None:
    def waits(execer: Any) -> None:
        with Popen(["sleep", "1000"], stdout=PIPE, execer=execer) as process:
            try:
                process.communicate(timeout=0.05)
            finally:
                process.kill()

    fails(lambda: waits(LocalExecer()))
    over_a_websocket(waits)


def a_lost_connection(last: Callable[[Transport], object]) -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(Pid(1).encode())
        last(transport)

    with scripted(script) as url:
        with connect(url) as execer, execer.start(Command("x", stdin=True)) as process:
            fails(process.stdout.read, lambda: process.wait(SECONDS), lambda: process.wait(SECONDS))
            fails(lambda: process.stdin.write(b"a") and process.stdin.flush())
        with connect(url) as execer, contextlib.suppress(WsepError):
            Popen(["x"], stdout=PIPE, stderr=PIPE, execer=execer).communicate()


def a_full_disk() -> None:
    def fills(execer: Any) -> None:
        with (
            open("/dev/full", "wb") as full,
            Popen(["echo"], stdout=full, execer=execer) as filling,
        ):
            filling.wait(SECONDS)

    over_a_websocket(fills)


def a_session() -> None:
    def attaches(session: Session) -> None:
        client = session.attach()
        client.kill()
        fails(lambda: client.wait(SECONDS), lambda: session.wait(SECONDS), session.attach)
        fails(lambda: client.stdin.write(b"a") and client.stdin.flush())
        client.close()
        session.close()

    attaches(Session(Command("cat", tty=True), LocalExecer()))
    missing = Session(Command(MISSING.command, tty=True), LocalExecer())
    fails(missing.attach, missing.attach, lambda: missing.wait(SECONDS))
    over_a_websocket(lambda execer: execer.attach("x"))


def in_a_thread_of_the_command_line() -> None:
    with Signals() as signals:
        fails(lambda: signals.wait_for_call(lambda: LocalExecer().start(MISSING)))


def over_ssh() -> None:
    with sshd() as host, host.connect() as execer:
        fails(lambda: execer.start(MISSING))
        with execer.start(Command("sh", ["-c", "exit 3"])) as process:
            fails(lambda: process.wait(SECONDS), lambda: process.wait(SECONDS))


@pytest.mark.parametrize(
    "call",
    [
        no_such_command,
        no_server,
        another_status,
        late,
        pytest.param(lambda: a_lost_connection(lambda peer: peer.abort()), id="cut"),
        pytest.param(lambda: a_lost_connection(lambda peer: peer.close(1001)), id="closed"),
        pytest.param(lambda: a_lost_connection(lambda peer: peer.send(b"[")), id="nonsense"),
        a_full_disk,
        a_session,
        in_a_thread_of_the_command_line,
        over_ssh,
    ],
)
def test_what_fails_leaves_no_exception_in_a_cycle(call: Callable[[], None]) -> None:
    assert left_by(call) == []


def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = nobody_listens()
    ask = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        return [*ask("127.0.0.1", nobody, *args, **options), *ask(host, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", two)

    def connects() -> None:
        with listening() as listener, connect(listener.url) as execer:
            execer.start(Command("true")).close()

    assert left_by(connects) == []


def test_what_the_handler_of_a_signal_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, raises)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"ws://127.0.0.1:{server.getsockname()[1]}"

            def interrupted() -> None:
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                fails(lambda: connect(url))  # it accepts, and does not answer

            assert left_by(interrupted) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
