"""The helper process that emulates terminals: what it may do to others, and others to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import SECONDS, Task, blocked, children, eventually, gone
from session_clients import Hub
from terminal_engines import helper

from wsep_sync.terminals import Recording, Snapshot, emulated, redraw, replay


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated, "_helper", emulated._Helper())
    monkeypatch.setattr(emulated, "_BETWEEN_STARTS", 0.0)


@pytest.fixture
def ready() -> Iterator[None]:
    with helper():
        yield


def snapshot(data: bytes, rows: int = 24, columns: int = 80, *sizes: tuple[int, int]) -> Snapshot:
    recording = Recording(rows, columns)
    recording.feed(data)
    for size in sizes:
        recording.resize(*size)
    return recording.snapshot()


def pid() -> int:
    child = emulated._helper._child
    assert child is not None
    return child._process.pid


HELLO = snapshot(b"hello\r\n$ ")

# What has killed, stopped or bloated emulators. The sizes are those that did it.
CRASH = b"\x1b[?1049h\x1b]8;;u\x1b\\T\x1b[65535b\x1b[65535b"
ODD = {
    "links repeated 600x80": snapshot(CRASH, 600, 80),
    "links repeated 250x200": snapshot(CRASH, 250, 200),
    "links repeated 300x200": snapshot(CRASH, 300, 200),
    "links repeated 1000x60": snapshot(CRASH, 1000, 60),
    "cut characters": snapshot("\x1b[?1049h\x1b[H漢字漢字".encode(), 24, 8, (24, 7)),
    "cut emoji": snapshot("\x1b[?1049h\x1b[H🎉🎉🎉🎉".encode(), 24, 8, (24, 7)),
    "cut, no wrap": snapshot("\x1b[?7l漢字漢字\r\n🎉🎉🎉🎉".encode(), 24, 8, (24, 7)),
    "cut in all ways": snapshot(
        "\x1b[?1049h\x1b[H漢字漢字🎉🎉".encode(), 24, 12, *((24, n) for n in range(11, 0, -1))
    ),
    "unfinished OSC 52": snapshot(b"x\x1b]52;c;" + b"A" * 1_200_000),
    "unfinished DCS": snapshot(b"\x1b[?1049hx\x1bPq" + b"A" * 1_200_000),
    "unfinished APC": snapshot(b"x\x1b_" + b"A" * 1_200_000),
    "half characters": snapshot(b"x" + b"\xc2" * 250_000),
    "combining": snapshot(("x" + ("a" + "\u0301" * 20) * 25_000).encode(), 360, 360),
    "too large": snapshot(b"x", 65535, 65535),
}


@pytest.mark.thorough
@pytest.mark.usefixtures("ready")
def test_odd_output_is_redrawn_all_the_same(monkeypatch) -> None:
    for name, what in ODD.items():
        # Whatever became of it the last time, it is there for the next.
        eventually(lambda: emulated.ask(HELLO), "the helper is back")
        with monkeypatch.context() as impatient:
            impatient.setattr(emulated, "PATIENCE", 0.3)
            assert redraw(what).startswith(b"\x18\x1b\\"), name
        assert replay(what).startswith(b"\x18\x1b\\"), name


def one_line(caplog) -> str:
    (record,) = caplog.records
    assert record.fields["reason"].endswith("; a recording is replayed instead")
    return record.fields["reason"]


@pytest.mark.usefixtures("ready")
def test_a_helper_that_dies(caplog) -> None:
    old = pid()
    os.kill(old, signal.SIGKILL)
    assert redraw(HELLO) == replay(HELLO)
    assert "died" in one_line(caplog)
    eventually(lambda: emulated.ask(HELLO), "another one")
    assert pid() != old
    gone(old)


@pytest.mark.usefixtures("ready")
def test_who_is_not_the_last_to_hold_it_leaves_at_once(monkeypatch) -> None:
    old = pid()
    os.kill(old, signal.SIGSTOP)
    monkeypatch.setattr(emulated, "PATIENCE", SECONDS)
    with Task(redraw, HELLO) as asking:
        blocked(asking)

        def come_and_go() -> None:
            with emulated.hold():
                pass

        with Task(come_and_go) as leaving:
            leaving.result(SECONDS / 3)
        os.kill(old, signal.SIGKILL)
        asking.result()


@pytest.mark.usefixtures("ready")
def test_a_helper_that_dies_while_it_is_asked(caplog, monkeypatch) -> None:
    os.kill(pid(), signal.SIGSTOP)
    old = pid()
    monkeypatch.setattr(emulated, "PATIENCE", SECONDS)
    with Task(redraw, HELLO) as task:
        os.kill(old, signal.SIGKILL)
        assert task.result() == replay(HELLO)
    assert "died" in one_line(caplog)


@pytest.mark.usefixtures("ready")
def test_a_helper_that_is_late(caplog, monkeypatch) -> None:
    os.kill(pid(), signal.SIGSTOP)
    old = pid()
    monkeypatch.setattr(emulated, "PATIENCE", 0.05)
    assert redraw(HELLO) == replay(HELLO)
    assert "late" in one_line(caplog)
    gone(old)
    monkeypatch.setattr(emulated, "PATIENCE", SECONDS)
    eventually(lambda: emulated.ask(HELLO), "another one")


@pytest.mark.usefixtures("ready")
def test_who_waits_for_others_has_a_replay_after_a_while(monkeypatch) -> None:
    os.kill(pid(), signal.SIGSTOP)
    with Task(redraw, HELLO) as task:
        eventually(emulated._helper._turn.locked, "one is waiting for it")
        monkeypatch.setattr(emulated, "PATIENCE", 0.05)
        assert redraw(HELLO) == replay(HELLO)
        os.kill(pid(), signal.SIGCONT)
        assert task.result() != replay(HELLO)


NONSENSE = {
    "text": (b"\0\0\0\0\0\0\0\5hello", "nonsense"),
    "too much": (b"\0\0\0\0\x7f\0\0\0hello", "too much"),
    "half": (b"\0\0\0\0\0\0\0\5he", "died"),
    "nothing": (b"\0\0\0\0\0\0\0\0", "cannot"),
    "a problem": (b"\0\0\0\5wrong", "wrong"),
    "half a word": (b"\0\0", "late"),
    "silence": (b"", "late"),
}


@pytest.mark.parametrize(("answer", "reason"), NONSENSE.values(), ids=NONSENSE)
def test_a_helper_that_answers_nonsense(caplog, monkeypatch, answer, reason) -> None:
    program = f"import os; os.write(0, {answer!r}); os.read(0, 100)"
    monkeypatch.setattr(emulated, "_PROGRAM", program)
    with emulated.hold():
        assert redraw(HELLO) == replay(HELLO)

        def tried() -> bool:
            assert redraw(HELLO) == replay(HELLO)
            return bool(caplog.records)

        if reason == "late":
            monkeypatch.setattr(emulated, "_STARTING", 0.0)
        eventually(tried, "it was found out")
        assert reason in caplog.records[0].fields["reason"]
        if reason == "wrong":  # so would be another
            assert not caplog.records[1:]
            assert emulated._helper._child is None


def test_it_is_not_started_too_often(monkeypatch, caplog) -> None:
    monkeypatch.setattr(emulated, "_BETWEEN_STARTS", SECONDS)
    monkeypatch.setattr(emulated, "_PROGRAM", "")
    with emulated.hold():
        emulated.prepare()
        eventually(lambda: redraw(HELLO) and caplog.records, "it has died")
        for _ in range(10):
            assert redraw(HELLO) == replay(HELLO)
            assert emulated._helper._child is None
    one_line(caplog)


def test_a_program_that_is_not_there(monkeypatch, caplog) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(emulated, "_BETWEEN_STARTS", SECONDS)
    with emulated.hold():
        assert redraw(HELLO) == replay(HELLO)
    assert "cannot be started" in one_line(caplog)


def test_without_pyghostty(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "pyghostty", None)
    with emulated.hold():
        emulated.prepare()
        assert redraw(HELLO) == replay(HELLO)
        assert not children(os.getpid())
    assert not caplog.records


def test_it_is_there_while_somebody_holds_it() -> None:
    assert emulated.ask(HELLO) is None
    assert not children(os.getpid())
    with emulated.hold():
        assert not children(os.getpid()), "it is started when it may be needed"
        with helper():
            old = pid()
        assert pid() == old
        assert emulated.ask(HELLO) is not None
    # The leak check sees that nothing else is left.
    assert not children(os.getpid())
    emulated.prepare()
    assert not children(os.getpid())


@pytest.mark.usefixtures("ready")
def test_what_it_has_of_its_parent() -> None:
    assert os.getsid(pid()) == pid(), "a Ctrl-C at the server's terminal is not for it"
    files = {os.readlink(fd) for fd in Path(f"/proc/{pid()}/fd").iterdir()}
    assert len([file for file in files if file.startswith("socket:")]) == 1
    assert files - {file for file in files if file.startswith("socket:")} <= {"/dev/null"}
    assert b"WSEP" not in Path(f"/proc/{pid()}/environ").read_bytes()
    assert "Max core file size        0 " in Path(f"/proc/{pid()}/limits").read_text()


def test_it_ends_with_its_parent() -> None:
    program = """
import os, sys
from wsep_sync.terminals import emulated
holding = emulated.hold()
holding.__enter__()
emulated.prepare()
print(emulated._helper._child._process.pid, flush=True)
sys.stdin.read()
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        child = int(process.stdout.readline())
        process.stdin.close()
    gone(child)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("ready")
def test_a_process_that_was_forked_leaves_it_alone() -> None:
    old = pid()
    real = emulated._helper
    # The one that is told of forks is that of the package.
    child = os.fork()
    if not child:
        try:
            real.leave_to_parent()
            ok = real.ask(HELLO) is None and real._child is None
            with real.hold():
                ok = ok and not children(os.getpid())
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pid() == old
    assert emulated.ask(HELLO) is not None


# In sessions


def test_a_session_starts_it_when_a_client_leaves_and_ends_it_when_it_ends(sessions: Hub) -> None:
    first = sessions.attach("x", "sh", "-c", "printf '\\033[1mhello\\033[m'; read line")
    first.until(b"hello")
    assert emulated._helper._child is None
    first.leave()
    eventually(lambda: emulated._helper._child, "the helper is there")
    old = pid()
    second = sessions.attach("x")
    second.until(b"hello")
    second.type(b"\r")
    assert second.exit_code() == 0
    eventually(lambda: emulated._helper._child is None, "the helper is not needed any more")
    gone(old)


@pytest.mark.parametrize(
    "output",
    [
        "\x1b[?1049h\x1b]8;;u\x1b\\T\x1b[65535b\x1b[65535b",
        "\x1b[?1049h\x1b[H漢字漢字",
        "\x1b]52;c;",
    ],
    ids=["crash", "cut", "unfinished"],
)
def test_no_output_of_a_session_hurts_another(sessions: Hub, tmp_path, output) -> None:
    with helper():
        path = tmp_path / "output"
        path.write_bytes(output.encode() + (b"A" * 1_200_000 if "52" in output else b""))
        other = sessions.attach("other", "cat")
        rows, cols = (24, 8) if "漢" in output else (600, 80)
        script = f"stty raw -echo; cat {path}; printf ready; exec cat"
        first = sessions.attach("x", "sh", "-c", script, rows=rows, cols=cols)
        first.until(b"ready")
        second = sessions.attach("x", rows=rows, cols=cols - 1)
        second.until(b"\x18\x1b\\")
        second.type(b"\x18typed")
        second.until(b"typed")
        other.type(b"still here\r")
        other.until(b"still here\r\nstill here")
        first.process.kill()
        second.exit_code()
