"""The contract: waiting, signals, close and kill."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import pytest
from helpers import SECONDS, Task, alive, blocked, eventually, gone, numbers, sh, state
from ways import TRAP, failure, sends

from wsep_sync import Command, Execer
from wsep_sync.process import CLOSE_GRACE

# Waiting


def test_wait_with_a_timeout(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                process.wait(seconds)
        process.stdin.close()
        process.wait(SECONDS)


def test_wait_again(execer: Execer) -> None:
    with execer.start(sh("exit 3")) as process:
        assert [failure(process).exit_code for _ in range(3)] == [3, 3, 3]
    assert failure(process).exit_code == 3


def test_wait_in_two_threads(execer: Execer) -> None:
    with (
        execer.start(sh("read x; exit 3", stdin=True)) as process,
        Task(failure, process) as one,
        Task(failure, process) as other,
    ):
        blocked(one)
        blocked(other)
        process.stdin.close()
        assert one.result().exit_code == other.result().exit_code == 3


def test_ctrl_c_ends_the_wait_and_not_the_command(execer: Execer) -> None:
    main = threading.main_thread()
    assert threading.current_thread() is main

    def interrupt() -> None:
        blocked(main)
        signal.pthread_kill(main.ident, signal.SIGINT)

    with execer.start(sh("read x; echo $x; exit 3", stdin=True)) as process:
        with Task(interrupt), pytest.raises(KeyboardInterrupt):
            process.wait()
        with pytest.raises(TimeoutError):
            process.wait(0)
        sends(process, b"alive\n")
        assert process.stdout.read() == b"alive\n"
        assert failure(process).exit_code == 3


# Signals, close and kill


@pytest.mark.parametrize("name", ["HUP", "INT", "USR1", "TERM"])
def test_send_signal(execer: Execer, name: str) -> None:
    with execer.start(sh(TRAP, name)) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.read() == b"got\n"
        assert failure(process).exit_code == 5


def test_a_signal_reaches_the_whole_group(execer: Execer) -> None:
    with execer.start(sh("sleep 1000 & echo $!; wait")) as process:
        (child,) = numbers(process.stdout, 1)
        process.send_signal(signal.SIGTERM)
        assert failure(process).signal == signal.SIGTERM
        gone(child)


@pytest.mark.parametrize("number", [-1, 65, 1000])
def test_no_such_signal(execer: Execer, number: int) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        with pytest.raises(ValueError, match="signal"):
            process.send_signal(number)
        process.stdin.close()
        process.wait(SECONDS)


def test_signal_0_does_nothing(execer: Execer) -> None:
    with execer.start(Command("cat", stdin=True)) as process:
        process.send_signal(0)
        sends(process, b"alive\n")
        assert process.stdout.readline() == b"alive\n"
        process.stdin.close()
        process.wait(SECONDS)


def test_a_signal_after_the_end_does_nothing(execer: Execer) -> None:
    with execer.start(Command("true")) as process:
        process.wait(SECONDS)
        process.send_signal(signal.SIGTERM)
        process.kill()
        process.wait(SECONDS)


def test_close_is_sigterm(execer: Execer, tmp_path: Path) -> None:
    script = """
        trap 'kill -9 $! 2> /dev/null; echo terminated > "$1"; exit 7' TERM
        sleep 1000 & echo ready
        while :; do wait; done
    """
    process = execer.start(sh(script, str(tmp_path / "seen")))
    assert process.stdout.readline() == b"ready\n"
    process.close()
    assert (tmp_path / "seen").read_text() == "terminated\n"
    assert failure(process).exit_code == 7


def test_close_ends_all_of_the_group(execer: Execer) -> None:
    process = execer.start(sh("sleep 1000 & echo $!; sleep 1000 & echo $!; wait"))
    children = numbers(process.stdout, 2)
    process.close()
    gone(process.pid, *children)
    assert failure(process).signal == signal.SIGTERM


def test_close_is_sigkill_when_sigterm_is_ignored(execer: Execer) -> None:
    process = execer.start(sh("trap '' TERM; echo $$; sleep 1000"))
    numbers(process.stdout, 1)
    before = time.monotonic()
    process.close()
    took = time.monotonic() - before
    assert CLOSE_GRACE * 0.99 < took < CLOSE_GRACE + 5
    assert failure(process).signal == signal.SIGKILL


def test_close_again_and_all_else_after_it(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    for _ in range(3):
        process.close()
    process.kill()
    process.send_signal(signal.SIGTERM)
    process.resize(10, 10)
    process.close()
    assert failure(process).signal == signal.SIGTERM


def test_close_of_a_command_that_floods_unread_outputs(execer: Execer) -> None:
    # It waits for a line: a flood of errors that nobody reads may hold up what stdout says.
    process = execer.start(sh("echo ready; read line; yes >&2 & exec yes", stdin=True))
    process.stdout.readline()
    process.stdin.write(b"go\n")
    process.stdin.flush()
    eventually(lambda: state(process.pid) == "S", "a full pipe")
    process.close()
    assert failure(process).signal == signal.SIGTERM


def test_close_after_the_end(execer: Execer) -> None:
    process = execer.start(Command("true"))
    process.wait(SECONDS)
    process.close()
    process.wait(SECONDS)


def test_close_in_several_threads(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    closing = [Task(process.close) for _ in range(4)]
    for task in closing:
        task.result()
    assert failure(process).signal == signal.SIGTERM


def test_kill(execer: Execer) -> None:
    with execer.start(sh("trap '' TERM; echo ready; sleep 1000")) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        error = failure(process)
        assert (error.exit_code, error.signal, str(error)) == (-1, 9, "signal: killed")
        assert process.stdout.read() == b""


def test_the_end_of_the_with_block_ends_the_command(execer: Execer) -> None:
    with execer.start(Command("sleep", ["1000"])) as process:
        assert alive(process.pid)
    gone(process.pid)
    assert failure(process).signal == signal.SIGTERM


def test_close_wakes_who_reads(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    with Task(process.stdout.read) as out, Task(process.stderr.readline) as err:
        blocked(out)
        blocked(err)
        process.close()
        assert (out.result(), err.result()) == (b"", b"")


def test_close_wakes_who_writes(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"], stdin=True))
    with Task(process.stdin.write, bytes(10_000_000)) as writing:
        blocked(writing)
        process.close()
        # A server that has seen the command end drops the rest of its input, in no time.
        with contextlib.suppress(BrokenPipeError):
            writing.result()
    assert failure(process).signal == signal.SIGTERM


def test_close_wakes_who_waits(execer: Execer) -> None:
    process = execer.start(Command("sleep", ["1000"]))
    with Task(failure, process) as waiting:
        blocked(waiting)
        process.close()
        assert waiting.result().signal == signal.SIGTERM
