"""pexpect's face: the REPL wrapper, and a person who types."""

from __future__ import annotations

import io
import os
import select
import sys
import termios
import threading
import time
from typing import Any

import pytest
from helpers import SECONDS, Task, eventually, scripted, state
from pexpect.replwrap import REPLWrapper
from spawns import QUIET, Start, shell

from wsep_sync import ExitMissing, spawn
from wsep_sync.protocol.messages import Pid, decode_client_message
from wsep_sync.transports.base import Transport

# The REPL wrapper


def when_it_waits(child: Any) -> Any:
    """Let signals be sent only when the command sleeps, as when it waits for a key.

    A REPL that is signalled between showing its prompt and waiting for input may sleep on.
    """
    kill = child.kill

    def kill_later(sig: int) -> None:
        eventually(lambda: state(child.pid) != "R", "a REPL that waits for input")
        kill(sig)

    child.kill = kill_later
    return child


def test_a_python_in_the_repl_wrapper(start: Start) -> None:
    child = start(sys.executable, ["-q"], echo=False, encoding="utf-8")
    repl = REPLWrapper(when_it_waits(child), ">>> ", "import sys; sys.ps1={0!r}; sys.ps2={1!r}")
    assert repl.run_command("6 * 7").strip() == "42"
    assert repl.run_command("for i in range(3):\n  print(i)\n").split() == ["0", "1", "2"]
    with pytest.raises(ValueError, match="incomplete"):
        repl.run_command("for i in range(3):")
    assert repl.run_command("'and' + ' on'").strip() == "'and on'"


def test_a_shell_in_the_repl_wrapper(start: Start) -> None:
    child = start("bash", ["--norc", "--noprofile"], echo=False, encoding="utf-8")
    no_paste = "bind 'set enable-bracketed-paste off'; "
    repl = REPLWrapper(when_it_waits(child), r"[$#] ", no_paste + "PS1='{0}' PS2='{1}'")
    repl.run_command("true")
    assert repl.run_command("echo $((6 * 7))").strip() == "42"
    assert repl.run_command("for i in 1 2\ndo echo $i\ndone").split() == ["1", "2"]
    with pytest.raises(ValueError, match="incomplete"):
        repl.run_command("echo '")
    assert repl.run_command("stty size").split() == ["24", "80"]


def test_the_repl_wrapper_turns_the_echo_off(start: Start) -> None:
    child = start(sys.executable, ["-q"], encoding="utf-8")
    assert child.echo
    repl = REPLWrapper(when_it_waits(child), ">>> ", "import sys; sys.ps1={0!r}; sys.ps2={1!r}")
    assert not child.getecho()
    assert repl.run_command("6 * 7").strip() == "42"


# Interacting


class Person:
    """Somebody at a terminal: what they type and see, and a spawn that interacts there."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.mode = termios.tcgetattr(self.slave)
        self.seen = b""

    def sees(self, what: bytes) -> None:
        deadline = time.monotonic() + SECONDS
        while what not in self.seen:
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f"{what!r} is not in {self.seen!r}"
            self.seen += os.read(self.master, 4096)

    def types(self, keys: bytes) -> None:
        assert os.write(self.master, keys) == len(keys)

    def interacts(self, child: Any, *args: Any, **kwargs: Any) -> Task:
        child.STDIN_FILENO = child.STDOUT_FILENO = self.slave
        task = Task(lambda: child.interact(*args, **kwargs))
        eventually(self.is_raw, "a raw terminal")
        return task

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def has_it_back(self) -> bool:
        return termios.tcgetattr(self.slave) == self.mode

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.slave)
        os.close(self.master)


def test_interacting(start: Start) -> None:
    log = io.BytesIO()
    with Person() as person:
        child = start(*shell(QUIET + "cat"))
        child.expect("ready\r\n")
        child.logfile_send = log
        with person.interacts(child) as task:
            person.types(b"hello\n")
            person.sees(b"hello\r\n")
            person.types(b"last\n\x1d")
            task.result()
        assert person.has_it_back()
        assert log.getvalue() == b"hello\nlast\n"
        child.logfile_send = None
        child.sendline("on")
        child.expect("on\r\n")


def test_interacting_with_filters(start: Start) -> None:
    with Person() as person:
        child = start(*shell(QUIET + "cat"), encoding="utf-8")
        child.expect("ready\r\n")
        upper: dict[str, Any] = {"input_filter": bytes.upper}
        with person.interacts(child, "Q", output_filter=lambda data: data * 2, **upper) as task:
            person.types(b"x\n")
            person.sees(b"X\r\nX\r\n")
            person.types(b"q")
            task.result()
        assert person.has_it_back()


def test_interacting_until_the_end(ours: Start) -> None:
    # pexpect does not show what it has not read when it sees that the command has ended.
    with Person() as person:
        child = ours(*shell(QUIET + "read x; echo bye"))
        child.expect("ready\r\n")
        with person.interacts(child, None) as task:
            person.types(b"\x1d\n")
            person.sees(b"bye\r\n")
            task.result()
        assert person.has_it_back()
        assert child.wait() == 0


def test_interacting_shows_what_was_read_before(ours: Start) -> None:
    with Person() as person:
        child = ours(*shell(r"printf 'one two \303'; cat"), encoding="utf-8")
        child.expect("two")
        eventually(
            lambda: child._keep_output(0.05) and child._decoder.getstate()[0], "half a character"
        )
        with person.interacts(child) as task:
            person.sees(b" \303")
            person.types(b"\x1d")
            task.result()
        assert child.buffer == ""


def test_a_filter_that_fails(ours: Start) -> None:
    def fail(data: bytes) -> bytes:
        raise RuntimeError("no")

    with Person() as person:
        child = ours(*shell(QUIET + "cat"))
        child.expect("ready\r\n")
        for name in ("input_filter", "output_filter"):
            with person.interacts(child, **{name: fail}) as task:
                person.types(b"x\n")
                with pytest.raises(RuntimeError, match="no"):
                    task.result()
            assert person.has_it_back()


def test_logging_text_that_is_split_while_interacting(ours: Start) -> None:
    with Person() as person:
        child = ours(
            *shell(QUIET + r"printf '\342\202'; read x; printf '\254\n'"), encoding="utf-8"
        )
        child.expect("ready\r\n")
        child.logfile_read = io.StringIO()
        with person.interacts(child) as task:
            person.sees(b"\342\202")
            person.types(b"\n")
            task.result()
        assert child.logfile_read.getvalue() == "€\r\n"


def test_losing_the_connection_while_interacting() -> None:
    typed = threading.Event()

    def serve(transport: Transport) -> None:
        decode_client_message(transport.receive())
        transport.send(Pid(4321).encode())
        assert typed.wait(SECONDS)
        transport.abort()

    with Person() as person, scripted(serve) as url, spawn("cat", url=url) as child:
        with person.interacts(child) as task:
            typed.set()
            with pytest.raises(ExitMissing):
                task.result()
        assert person.has_it_back()


def test_interacting_needs_a_terminal(ours: Start) -> None:
    child = ours(*shell(QUIET + "cat"))
    child.expect("rea")
    with open(os.devnull) as null:
        child.STDIN_FILENO = null.fileno()
        with pytest.raises(termios.error):
            child.interact()
    child.expect("dy\r\n")
