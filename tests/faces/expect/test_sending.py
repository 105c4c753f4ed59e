"""pexpect's face: sending, and logs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import threading

import pexpect
import pytest
from helpers import Task, eventually
from spawns import FOREVER, QUIET, Start, shell

# Sending


def test_typing(start: Start) -> None:
    child = start(*shell(QUIET + "cat"))
    child.expect("ready\r\n")
    assert child.linesep == b"\n"
    assert child.send("ab") == 2
    assert child.sendline("cd") == 3
    assert child.write("ef") is None
    assert child.writelines(["gh", b"ij"]) is None
    assert child.sendline() == 1
    child.expect("abcd\r\nefghij\r\n")
    assert child.before == b""


def test_the_terminal_echoes(start: Start) -> None:
    child = start("cat")
    assert child.echo
    child.sendline("twice")
    child.expect("twice\r\n")
    child.expect("twice\r\n")


def test_control_characters(start: Start) -> None:
    child = start(*shell("stty raw -echo; printf ready; od -An -v -tx1 -N7 -w7"))
    child.expect("ready")
    assert [child.sendcontrol(char) for char in "aZ@[?_"] == [1] * 6
    child.sendcontrol("^")
    child.expect(" 01 1a 00 1b 7f 1f 1e")


def test_end_of_file(start: Start) -> None:
    child = start(*shell(QUIET + "cat; echo and on; cat"))
    child.expect("ready\r\n")
    child.sendline("in")
    child.expect("in\r\n")
    child.sendeof()
    child.expect("and on\r\n")
    child.sendcontrol("d")
    child.expect(pexpect.EOF)
    assert child.wait() == 0


def test_interrupt(start: Start) -> None:
    child = start(*shell(f"trap 'echo caught; exit 3' INT; echo ready; {FOREVER}"))
    child.expect("ready\r\n")
    child.sendintr()
    child.expect("caught\r\n")
    child.expect(pexpect.EOF)
    assert child.wait() == 3
    assert (child.exitstatus, child.signalstatus) == (3, None)


def cksum(data: bytes) -> bytes:
    run = subprocess.run(["cksum"], input=data, stdout=subprocess.PIPE, check=True)
    return run.stdout.strip()


def test_what_is_sent_is_whole(start: Start) -> None:
    data = os.urandom(300_000)
    script = f"stty raw -echo; printf ready; head -c {len(data)} | cksum"
    child = start(*shell(script))
    child.expect("ready")
    assert child.send(data) == len(data)
    child.expect_exact(cksum(data))


def test_sending_to_a_command_that_answers_before_it_reads_on(ours: Start) -> None:
    # Its output, were it not read meanwhile, would hold it up, and it the sender: pexpect hangs.
    child = ours("cat", echo=False, maxread=65536)
    data = b"".join(b"%0999d\n" % i for i in range(5000))
    assert child.send(data) == len(data)
    child.sendeof()
    assert child.read().replace(b"\r\n", b"\n") == data
    assert child.exitstatus == 0


def test_the_rest_of_an_interrupted_send_goes_before_the_next(ours: Start) -> None:
    data, tail = os.urandom(4_000_000), b"the next"
    count = len(data + tail)
    child = ours(*shell(f"stty raw -echo; printf ready; kill -STOP $$; head -c {count} | cksum"))
    child.expect("ready")

    def interrupt() -> None:
        eventually(
            lambda: any(thread.name.startswith("wsep-send") for thread in threading.enumerate()),
            "a thread that sends",
        )
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Task(interrupt), pytest.raises(KeyboardInterrupt):
        child.send(data)
    os.kill(child.pid, signal.SIGCONT)
    assert child.send(tail) == len(tail)
    child.expect_exact(cksum(data + tail))


def test_sending_to_a_command_that_has_ended(ours: Start) -> None:
    child = ours("true")
    child.expect(pexpect.EOF)
    with pytest.raises(BrokenPipeError):
        child.send("too late")
    with pytest.raises(BrokenPipeError):
        child.sendcontrol("c")
    child.close()
    with pytest.raises(ValueError, match="closed"):
        child.send("too late")


def test_a_pause_before_sending(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    child = start("cat")
    assert child.delaybeforesend == 0.05
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    child.sendline("then")
    child.delaybeforesend = None
    child.sendline("now")
    monkeypatch.undo()
    assert slept == [0.05]


def test_no_such_control_character(start: Start) -> None:
    child = start("cat", echo=False)
    assert [child.sendcontrol(char) for char in "1 é\x7f"] == [0] * 4
    child.sendline("nothing but this")
    child.expect("nothing but this")
    assert child.before == b""


# Logs


def test_logging_bytes(start: Start) -> None:
    log, read, sent = io.BytesIO(), io.BytesIO(), io.BytesIO()
    child = start(*shell(QUIET + "cat"), logfile=log)
    child.logfile_read, child.logfile_send = read, sent
    child.expect("ready\r\n")
    child.sendline("one")
    child.expect("one\r\n")
    child.sendeof()
    child.expect(pexpect.EOF)
    assert log.getvalue() == b"ready\r\none\none\r\n\x04"
    assert sent.getvalue() == b"one\n\x04"
    assert read.getvalue() == b"ready\r\none\r\n"


def test_logging_text(start: Start) -> None:
    read, sent = io.StringIO(), io.StringIO()
    child = start(*shell(QUIET + "cat"), encoding="utf-8")
    child.logfile_read, child.logfile_send = read, sent
    child.expect("ready\r\n")
    child.sendline("drüben")
    child.expect("drüben\r\n")
    child.sendcontrol("d")
    child.expect(pexpect.EOF)
    assert sent.getvalue() == "drüben\n\x04"
    assert read.getvalue() == "ready\r\ndrüben\r\n"
