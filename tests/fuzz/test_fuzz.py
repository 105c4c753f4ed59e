"""Generated cases: some of each kind here, many more with `tox -e fuzz`."""

from __future__ import annotations

import threading

import pytest
from measured import unmeasured_code
from terminal_engines import Emulated, helper

from fuzz.campaign import Case, CaseFailed, run_cases
from fuzz.frames import judge
from fuzz.kinds import KINDS, run_kind
from fuzz.peer import check_answer, check_server_frames
from fuzz.terminals import check_twice

pytestmark = pytest.mark.long

# The same every time: what is new is to be found at leisure, and not in somebody else's change.
SEED = 1

CASES = {
    "messages": 800,
    "dialogue": 100_000,
    "frames": 2000,
    "heads": 2000,
    "dialogues": 600,
    "clients": 1000,
    "terminals": 300,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_generated_cases(kind: str) -> None:
    with unmeasured_code():
        assert run_kind(kind, SEED, range(CASES[kind])) >= CASES[kind]


# What sees to it that nothing escapes


def test_a_case_that_fails_says_how_to_do_it_again() -> None:
    def check(case: Case) -> None:
        data = case.chance.randbytes(4)
        case.note("sends", data)
        assert case.number != 7, "seven"

    with pytest.raises(CaseFailed) as caught:
        run_cases("frames", 42, range(100), check)
    text = str(caught.value)
    assert "--seed 42 --only frames --case 7" in text
    assert "AssertionError: seven" in text
    # The same bytes again, without the cases before it.
    again = Case("frames", 42, 7)
    assert f"sends: {again.chance.randbytes(4)!r}" in text


def test_what_is_said_of_a_large_case_can_be_read() -> None:
    def check(case: Case) -> None:
        for _ in range(30):
            case.note("output", case.chance.randbytes(100_000))
        raise AssertionError("x" * 100_000)

    with pytest.raises(CaseFailed) as caught:
        run_cases("terminals", 1, range(1), check)
    text = str(caught.value)
    assert len(text) < 10_000
    assert "--case 0" in text


def test_a_thread_that_dies_fails_the_case() -> None:
    def die() -> None:
        raise RuntimeError("of a thread")

    def check(case: Case) -> None:
        thread = threading.Thread(target=die)
        thread.start()
        thread.join()

    with pytest.raises(CaseFailed, match="RuntimeError: of a thread"):
        run_cases("clients", 1, range(4), check)


def test_scrollback_beyond_what_a_terminal_keeps_is_no_other_screen() -> None:
    size = (2, 717)
    # Rows that were written when they were narrow are more than a terminal of this width keeps.
    terminal, again = Emulated(*size), Emulated(*size)
    with helper():
        terminal.feed(b"\x1b[?40h\x1b[?3h" + b"first\r\n" + b"\r\n" * 600 + b"last")
        drawn = terminal.redraw()
        again.feed(drawn)
        twice = again.redraw()
    assert b"first" in drawn
    assert b"first" not in twice
    check_twice(drawn, twice, *size)
    for other in (
        drawn + b"x",
        drawn + b"\r\n",
        twice[: twice.rindex(b"\x1b[3g")] + b"\x1b[3glast",
    ):
        with pytest.raises(AssertionError):
            check_twice(drawn, other, *size)


KEY = bytes(4)
REST = bytes(14)  # enough for any frame's head


@pytest.mark.parametrize(
    ("frames", "verdict"),
    [
        (b"", ("", None)),
        (b"\x82\x81" + KEY + b"x", ("", None)),
        (b"\x82\xfe\x00\x7e" + KEY + bytes(126), ("", None)),
        (b"\x02\x81" + KEY + b"x" + b"\x89\x80" + KEY + b"\x80\x81" + KEY + b"y", ("", None)),
        (b"\x82\x85" + KEY + b"half", ("", None)),
        (b"\x88\x80" + KEY + b"\xff" * 20, ("", 1000)),
        (b"\x88\x82" + KEY + b"\x0f\xa0", ("", 4000)),
        (b"\xc2\x80" + KEY + REST, ("a reserved bit", None)),
        (b"\x83\x80" + KEY + REST, ("a reserved opcode", None)),
        (b"\x82\x01" + REST, ("no mask", None)),
        (b"\x09\x80" + KEY + REST, ("a fragment of a control frame", None)),
        (b"\x89\xfe" + REST, ("a long control frame", None)),
        (b"\x82\xfe\x00\x05" + REST, ("a length in a longer form", None)),
        (b"\x80\x80" + KEY + REST, ("a fragment out of place", None)),
        (b"\x02\x80" + KEY + b"\x82\x80" + KEY + REST, ("a fragment out of place", None)),
        (b"\x81\x81" + KEY + b"\xff", ("text that is none", None)),
        (b"\x82\xfe" + (64_001).to_bytes(2, "big") + KEY + bytes(64_001), ("a long message", None)),
        (b"\x88\x82" + KEY + b"\x03\xed", ("a close code that must not be sent", None)),
        (b"\x88\x83" + KEY + b"\x03\xe8\xff", ("a close reason that is no text", None)),
    ],
)
def test_the_judge_of_frames(frames: bytes, verdict: tuple[str, int | None]) -> None:
    assert judge(frames) == verdict


PID = b'\x82\x17{"type":"pid","pid":1}\n'
CLOSED = b"\x88\x02\x03\xe8"


def test_what_a_server_may_say() -> None:
    assert len(check_server_frames(PID + b"\x8a\x00" + CLOSED)) == 3
    assert len(check_server_frames(PID + b"\x82", broken=True)) == 1
    assert check_answer(b"") == 0
    assert check_answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") == 403


@pytest.mark.parametrize(
    "said",
    [
        PID[:-1],
        b"\x82\x97" + KEY + PID[2:],
        b"\x02" + PID[1:],
        b"\xc2" + PID[1:],
        b"\x81" + PID[1:],
        b"\x82\x02{}",
        b"\x82\x03{}\n",
        CLOSED + PID,
        CLOSED + CLOSED,
        b"\x88\x01\x03",
        b"\x88\x03\x03\xe8\xff",
    ],
    ids=repr,
)
def test_what_a_server_may_not_say(said: bytes) -> None:
    with pytest.raises((AssertionError, KeyError, UnicodeDecodeError)):
        check_server_frames(said)


@pytest.mark.parametrize(
    "answer",
    [
        b"no",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x1b[2J\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\nx: 1\r\nX: 2\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_no_answer(answer: bytes) -> None:
    with pytest.raises(AssertionError):
        check_answer(answer)
