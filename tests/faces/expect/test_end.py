"""pexpect's face: how commands end, and connections."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading

import pexpect
import pytest
from helpers import SECONDS, Task, alive, blocked, gone, listening, scripted
from spawns import FOREVER, Start, shell

from wsep_sync import ExitMissing, StartError, spawn
from wsep_sync.protocol.messages import STDOUT_HEADER, Pid, decode_client_message
from wsep_sync.transports.base import Transport

# The end


def test_exit_status(start: Start) -> None:
    child = start(*shell("exit 7"))
    assert child.wait() == 7
    assert (child.exitstatus, child.signalstatus, child.terminated) == (7, None, True)
    assert os.waitstatus_to_exitcode(child.status) == 7
    assert not child.isalive()
    assert child.wait() == 7


def test_end_by_a_signal(start: Start) -> None:
    child = start(*shell("kill -TERM $$"))
    child.expect(pexpect.EOF)
    assert child.wait() is None
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(child.status) == -signal.SIGTERM


def test_kill(start: Start) -> None:
    child = start("cat")
    child.kill(signal.SIGKILL)
    assert child.wait() is None
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGKILL)
    child.kill(signal.SIGKILL)  # is harmless
    assert not child.isalive()


def test_a_signal_that_is_caught(start: Start) -> None:
    child = start(
        *shell("trap 'echo caught; exit 4' USR1; echo ready; while :; do sleep 0.05; done")
    )
    child.expect("ready\r\n")
    child.kill(signal.SIGUSR1)
    child.expect("caught\r\n")
    child.expect(pexpect.EOF)
    assert child.wait() == 4  # at the end of its output the command may yet run
    assert (child.exitstatus, child.signalstatus) == (4, None)


def test_terminate(start: Start) -> None:
    child = start("cat")
    assert child.terminate()
    assert not child.isalive()
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGHUP)
    assert child.terminate()


STUBBORN = "trap '' HUP INT; echo ready; exec cat"


def test_terminate_what_will_not(start: Start) -> None:
    child = start(*shell(STUBBORN))
    child.expect("ready\r\n")
    child.delayafterterminate = 0.1
    assert not child.terminate()
    assert child.isalive()
    assert child.terminate(force=True)
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGKILL)


def test_terminate_what_talks_without_end(start: Start) -> None:
    child = start("yes", maxread=65536)
    child.expect("y\r\n")
    assert child.terminate(force=True)
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGHUP)


def test_what_was_said_before_the_end_is_kept(ours: Start) -> None:
    child = ours(*shell(f"trap 'echo last words; exit 6' HUP; echo ready; {FOREVER}"))
    child.expect("ready\r\n")
    assert child.terminate()
    assert child.expect(["last words\r\n", pexpect.EOF]) == 0
    child.expect(pexpect.EOF)
    assert child.exitstatus == 6


def test_close(start: Start) -> None:
    child = start("cat")
    pid = child.pid
    child.close()
    assert child.closed
    assert not child.isalive()
    assert (child.exitstatus, child.signalstatus) == (None, signal.SIGHUP)
    gone(pid)
    child.close()
    with pytest.raises(ValueError, match="closed"):
        child.read_nonblocking(1, timeout=0)


def test_close_after_the_end(start: Start) -> None:
    child = start(*shell("exit 9"))
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.signalstatus) == (9, None)
    assert child.wait() == 9


def test_close_with_force(start: Start) -> None:
    child = start(*shell("trap '' HUP INT TERM; echo ready; exec cat"))
    child.expect("ready\r\n")
    if hasattr(child, "process"):
        # pexpect closes the terminal first, so that cat sees its end.
        child.sendeof()
    child.close(force=True)
    assert not child.isalive()


def test_close_without_force(ours: Start) -> None:
    child = ours(*shell(STUBBORN))
    child.expect("ready\r\n")
    child.delayafterterminate = 0.05
    with pytest.raises(pexpect.ExceptionPexpect, match="terminate"):
        child.close(force=False)
    assert not child.closed
    child.sendline("still there")
    child.expect("still there\r\nstill there\r\n")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close(force=False)
    assert child.closed
    assert child.exitstatus == 0


def test_the_block_closes(start: Start) -> None:
    with start("cat") as child:
        child.sendline("x")
        pid = child.pid
    assert child.closed
    gone(pid)


def test_a_shell_and_its_job_end_with_it(start: Start) -> None:
    child = start("bash", ["--norc", "--noprofile", "--noediting"])
    child.sendline("sh -c 'echo job $$; exec sleep 1000'")
    child.expect(r"job (\d+)\r\n")
    job = int(child.match.group(1))
    assert alive(job)
    child.close()
    gone(child.pid, job)


def test_closing_from_another_thread(ours: Start) -> None:
    child = ours("cat")
    with Task(child.expect, [pexpect.EOF, "nothing"], None) as task:
        blocked(task)
        child.close()
        assert task.result() == 0


def test_a_command_that_closes_its_terminal_and_lives_on() -> None:
    child = spawn(*shell("trap '' HUP; exec sleep 1000 </dev/null >/dev/null 2>&1"))
    assert child.expect([pexpect.EOF]) == 0
    assert child.isalive()
    assert child.exitstatus is None
    child.close()
    assert child.signalstatus in (signal.SIGTERM, signal.SIGKILL)


def test_dropping_one_that_runs() -> None:
    with listening() as listener:
        children = [spawn("cat"), spawn("cat", url=listener.url)]
        pids = [child.pid for child in children]
        with pytest.warns(ResourceWarning) as warned:
            children.clear()
        assert [str(w.message) for w in warned] == 2 * ["<cat> was not closed"]
        del warned  # which has kept them
        gone(*pids)


def test_dropping_one_that_has_ended(ours: Start) -> None:
    child = spawn("true")
    child.expect(pexpect.EOF)
    del child


# Lost connections


def lose(transport: Transport) -> None:
    """Run a command that says something, and be gone."""
    decode_client_message(transport.receive())
    transport.send(Pid(4321).encode())
    transport.send(STDOUT_HEADER, b"half a wor")
    transport.abort()


def test_a_lost_connection_is_no_end() -> None:
    with scripted(lose) as url, spawn("sleep 100", url=url) as child:
        with pytest.raises(ExitMissing):
            child.expect(["word", pexpect.EOF, pexpect.TIMEOUT])
        assert child.before == b"half a wor"
        assert (child.after, child.match, child.match_index) == (None, None, None)
        assert not child.eof()
        for call in (child.read, child.isalive, child.wait, child.terminate):
            with pytest.raises(ExitMissing):
                call()
        with pytest.raises(BrokenPipeError):
            child.send("anybody?")
        child.close()
        assert child.closed
        assert (child.exitstatus, child.signalstatus) == (None, None)
        with pytest.raises(ExitMissing):
            child.wait()


def test_a_lost_connection_before_the_command_runs() -> None:
    with scripted(lose) as url, pytest.raises((ExitMissing, StartError)):
        spawn("cat", echo=False, url=url)


def test_a_server_without_signals() -> None:
    left = threading.Event()

    def serve(transport: Transport) -> None:
        decode_client_message(transport.receive())
        transport.send(Pid(4321).encode())
        try:
            while True:
                transport.receive()
        finally:
            left.set()
            transport.close()

    with contextlib.suppress(Exception), scripted(serve) as url:
        child = spawn("cat", url=url)
        with pytest.raises(io.UnsupportedOperation, match="signals"):
            child.kill(signal.SIGTERM)
        with pytest.raises(io.UnsupportedOperation, match="signals"):
            child.terminate(force=True)
        assert child.isalive()
        child.close()
        assert child.closed
        assert (child.exitstatus, child.signalstatus) == (None, None)
        assert left.wait(SECONDS)
    assert left.is_set()
