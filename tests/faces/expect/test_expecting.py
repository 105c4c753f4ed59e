"""pexpect's face: waiting for patterns, and reading as from a file."""

from __future__ import annotations

import re

import pexpect
import pytest
from helpers import SECONDS
from spawns import QUIET, Start, shell

# Expecting


def test_a_pattern_divides_the_output(start: Start) -> None:
    child = start(*shell("echo one two three; cat"))
    assert child.expect("t(w)o") == 0
    assert (child.before, child.after) == (b"one ", b"two")
    assert child.match.group(1) == b"w"
    assert child.match_index == 0
    child.expect("\r\n")
    assert child.before == b" three"
    assert child.buffer == b""


def test_the_first_in_the_stream_wins_and_then_the_first_in_the_list(start: Start) -> None:
    child = start(*shell("echo foobar; cat"), encoding="utf-8")
    child.expect("(?=r\r\n)")  # all of it is there
    child.buffer = "foobar"
    assert child.expect(["bar", "foo", "foobar"]) == 1
    assert child.after == "foo"
    assert child.expect(["nothing", re.compile("B(A)R", re.IGNORECASE), pexpect.EOF]) == 1
    assert child.match.group(1) == "a"


def test_exact_strings(start: Start) -> None:
    child = start(*shell("echo 'a.c (abc) [x]'; cat"))
    assert child.expect_exact("(abc)") == 0
    assert (child.before, child.after, child.match) == (b"a.c ", b"(abc)", b"(abc)")
    assert child.expect_exact(["nothing", b"[x]", pexpect.EOF]) == 1
    assert child.before == b" "


def test_ignoring_case(start: Start) -> None:
    child = start(*shell("echo HELLO; cat"))
    child.ignorecase = True
    assert child.expect(["hello"]) == 0


def test_compiled_lists(start: Start) -> None:
    child = start(*shell("printf '1\\n2\\n3\\n'"))
    patterns = child.compile_pattern_list([r"\d\r\n", pexpect.EOF])
    assert [child.expect_list(patterns) for _ in range(4)] == [0, 0, 0, 1]


def test_what_is_no_pattern(start: Start) -> None:
    child = start("cat")
    with pytest.raises(TypeError, match="as pattern"):
        child.expect(3)
    with pytest.raises(TypeError):
        child.expect_exact([object()])


def test_a_timeout_is_raised(start: Start) -> None:
    child = start(*shell("echo some; cat"))
    child.expect("so")
    with pytest.raises(pexpect.TIMEOUT, match="nothing of the kind"):
        child.expect("nothing of the kind", timeout=0.2)
    assert child.before.strip() == b"me"
    assert (child.after, child.match, child.match_index) == (pexpect.TIMEOUT, None, None)
    assert child.isalive()
    child.expect("me")  # nothing was lost


def test_a_timeout_is_expected(start: Start) -> None:
    child = start("cat", timeout=0.1)
    assert child.timeout == 0.1
    assert child.expect(["nothing", pexpect.TIMEOUT]) == 1
    assert (child.before, child.after, child.match) == (b"", pexpect.TIMEOUT, pexpect.TIMEOUT)
    assert child.expect_exact([pexpect.EOF, pexpect.TIMEOUT], timeout=0) == 1
    assert child.expect([pexpect.TIMEOUT], timeout=0.05) == 0


def test_no_timeout_waits(start: Start) -> None:
    child = start(*shell("sleep 0.3; echo late"), timeout=0.05)
    assert child.expect("late", timeout=None) == 0


def test_the_end_is_raised(start: Start) -> None:
    child = start(*shell("echo last words"))
    assert not child.eof()
    with pytest.raises(pexpect.EOF, match="last words"):
        child.expect("nothing of the kind")
    assert child.before == b"last words\r\n"
    assert (child.after, child.match, child.match_index) == (pexpect.EOF, None, None)
    assert child.eof()
    assert child.flag_eof
    with pytest.raises(pexpect.EOF):
        child.expect("again")
    assert child.before == b""


def test_the_end_is_expected(start: Start) -> None:
    child = start(*shell("echo last words; exit 5"))
    assert child.expect(["nothing", pexpect.EOF, pexpect.TIMEOUT]) == 1
    assert (child.before, child.after) == (b"last words\r\n", pexpect.EOF)
    assert child.match is pexpect.EOF
    assert not child.isalive()
    assert child.exitstatus == 5


def test_only_the_end_of_what_was_read_is_searched(start: Start) -> None:
    child = start(*shell("printf 'needle%0100d\\n' 0; cat"), searchwindowsize=20)
    assert child.expect([pexpect.TIMEOUT, "needle"], timeout=0.3) == 0
    assert child.expect(["needle", pexpect.TIMEOUT], timeout=0.1, searchwindowsize=None) == 0
    assert child.before == b""


def test_a_window_for_one_call(start: Start) -> None:
    child = start(*shell("printf 'needle%0100d\\n' 0; cat"))
    assert child.expect([pexpect.TIMEOUT, "needle"], timeout=0.3, searchwindowsize=10) == 0
    assert child.expect_exact(["needle", pexpect.TIMEOUT], timeout=0.1) == 0


def test_the_message_shows_where_it_stands(start: Start) -> None:
    child = start(*shell("echo so far; cat"))
    child.expect("so")
    assert child.expect([pexpect.TIMEOUT, "nothing"], timeout=0.2) == 0
    for part in ("command: ", "args: ", "buffer (last 100 char", "before (last", "far", "pid: "):
        assert part in str(child)


# Reading as from a file


def test_reading_all(start: Start) -> None:
    child = start(*shell("seq 3"))
    assert child.read() == b"1\r\n2\r\n3\r\n"
    assert child.read() == b""


def test_reading_some(start: Start) -> None:
    child = start(*shell("printf 0123456789"), encoding="ascii")
    assert child.read(0) == ""
    assert [child.read(4) for _ in range(4)] == ["0123", "4567", "89", ""]


def test_reading_lines(start: Start) -> None:
    child = start(*shell("seq 5; printf end"))
    assert child.readline() == b"1\r\n"
    assert next(iter(child)) == b"2\r\n"
    assert child.readlines() == [b"3\r\n", b"4\r\n", b"5\r\n", b"end"]


def test_reading_without_blocking(start: Start) -> None:
    child = start(*shell(QUIET + "read x; printf 0123456789; read x; printf end"))
    child.expect("ready\r\n")
    with pytest.raises(pexpect.TIMEOUT):
        child.read_nonblocking(10, timeout=0)
    with pytest.raises(pexpect.TIMEOUT):
        child.read_nonblocking(10, timeout=0.05)
    child.sendline()
    got = child.read_nonblocking(4, timeout=SECONDS)
    while len(got) < 10:
        got += child.read_nonblocking(4, timeout=None)
    assert got == b"0123456789"
    child.sendline()
    assert child.read_nonblocking(100, -1) == b"end"
    with pytest.raises(pexpect.EOF):
        child.read_nonblocking(100, -1)
    assert child.flag_eof


def test_large_output(start: Start) -> None:
    child = start("seq 200000", maxread=65536)
    assert child.read() == b"".join(b"%d\r\n" % i for i in range(1, 200001))


def test_text_is_not_split_within_a_character(start: Start) -> None:
    child = start(*shell(QUIET + r"printf '\342\202'; read x; printf '\254\n'"), encoding="utf-8")
    child.expect("ready\r\n")
    got = ""
    while not child._decoder.getstate()[0]:
        got += child.read_nonblocking(10, timeout=SECONDS)
    assert got == ""
    child.sendline()
    assert child.expect("€\r\n") == 0
    assert child.before == ""


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_encodings(start: Start, encoding: str) -> None:
    child = start(
        *shell("stty raw -echo; printf r; cat"), encoding=encoding, codec_errors="replace"
    )
    assert child.encoding == encoding
    while not child.read_nonblocking(1, timeout=SECONDS) and encoding != "utf-16-le":
        pass
    child._decoder.reset()
    assert child.send("äöü") == len("äöü".encode(encoding))
    child.expect("äöü")


def test_bytes_that_are_not_in_the_encoding(start: Start) -> None:
    script = r"printf 'a\377b'; cat"
    with pytest.raises(UnicodeDecodeError):
        start(*shell(script), encoding="utf-8").expect("b")
    child = start(*shell(script), encoding="utf-8", codec_errors="replace")
    child.expect("b")
    assert child.before == "a\N{REPLACEMENT CHARACTER}"


def test_str_and_bytes(start: Start) -> None:
    child = start("cat")
    child.sendline("both")
    child.sendline(b"go")
    assert child.expect("both") == 0
    assert child.expect(b"go") == 0
    text = start("cat", encoding="utf-8")
    with pytest.raises(TypeError):
        text.sendline(b"no")
    with pytest.raises(TypeError):
        text.expect(b"no")
