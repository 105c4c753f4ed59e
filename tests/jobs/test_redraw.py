"""What clients of a session see that come later: real programs, real terminals, other emulators.

Every test runs on both engines, and is judged by an emulator that the engine is not made of, but
where only Ghostty knows the sequence.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import RawClient, eventually
from parts import need
from session_clients import BASH_ENV, Client, Hub, attach_message, plain, session
from terminal_engines import emulate
from terminal_judges import JUDGES, LEFT_OVER, Shown, answers_and_bells, assert_same

from wsep_sync import Command, LocalExecer, Process
from wsep_sync.jobs import client as session_module
from wsep_sync.jobs import drawing
from wsep_sync.jobs.session import Session
from wsep_sync.terminals import recording as recording_module
from wsep_sync.terminals import replay

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("helping")]

ENGINES = {"replay": replay, "emulated": emulate}

# Writes what is typed, and nothing else: so a test says byte by byte what a program prints.
RAW_CAT = ("sh", "-c", "stty raw -echo; echo ready; exec cat")


class Judge:
    """Tells what a client's terminal shows."""

    def __init__(self, show: Callable[[bytes, int, int], Shown]) -> None:
        self._show = show

    def shown(self, got: bytes, rows: int = 24, cols: int = 80) -> Shown:
        shown = self._show(got, rows, cols)
        if shown.in_alt:
            return shown
        # Ghostty remembers by which of these the alternate screen was entered, when it was left by
        # another of them. To what it shows that makes no difference.
        return shown._replace(modes=shown.modes - {b"\x1b[?47h", b"\x1b[?1047h"})

    def same(self, witness: Client, other: Client, rows: int = 24, cols: int = 80) -> Shown:
        """Wait until a client that came later sees what one sees that was there all the time.

        Its terminal had been left in disorder.
        """

        def both() -> tuple[Shown, Shown]:
            one = self.shown(witness.got, rows, cols)
            return one, self.shown(LEFT_OVER + other.got, rows, cols)

        def same() -> bool:
            one, two = both()
            return one == two

        try:
            eventually(same, "the same screen")
        except AssertionError:
            one, two = both()
            assert_same(two, one)
        return both()[0]


@pytest.fixture(
    params=[("replay", "pyte"), ("replay", "ghostty"), ("emulated", "pyte")],
    ids="-".join,
)
def judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Choose an engine and who judges it."""
    engine, judge = request.param
    monkeypatch.setattr(drawing, "redraw", ENGINES[engine])
    return Judge(JUDGES[judge])


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose an engine, where what a client gets is looked at without a judge."""
    monkeypatch.setattr(drawing, "redraw", ENGINES[request.param])
    return str(request.param)


def text_of(got: bytes, rows: int = 24, cols: int = 80) -> list[str]:
    """The rows of the screen, without blanks at their ends; pyte is no engine, and may judge."""
    cells = JUDGES["pyte"](got, rows, cols).cells
    return ["".join(cell[0] for cell in row).rstrip() for row in cells]


def rows_of(client: Client) -> list[str]:
    """The rows that a client sees which are not blank."""
    return [row for row in text_of(LEFT_OVER + client.got) if row]


def wait_for_text(client: Client, what: str, rows: int = 24, cols: int = 80) -> None:
    """Wait until the client's screen has a text in some row."""

    def there() -> bool:
        return any(what in row for row in text_of(client.got, rows, cols))

    eventually(there, f"{what!r} on the screen")


def numbered_file(directory: Path, lines: int = 1000) -> Path:
    path = directory / "numbered"
    path.write_text("".join(f"line {i} of the file\n" for i in range(1, lines + 1)))
    return path


# Each is started in a shell, shows something by which it is known, and is quit by some keys.
PROGRAMS = {
    "vim": ("vim -u NONE -i NONE -n numbered", "line 20 of the file", b":q!\r"),
    "less": ("less numbered", "line 20 of the file", b"q"),
    "htop": ("htop -d 100", "F10", b"q"),
}


@pytest.fixture(params=list(PROGRAMS))
def program(request: pytest.FixtureRequest) -> tuple[str, str, bytes]:
    return PROGRAMS[request.param]


def full_screen(sessions: Hub, tmp_path: Path, program: tuple[str, str, bytes]) -> Client:
    """Attach a client and start a full-screen program in its shell, after some output."""
    line, shows, _ = program
    need(line.split()[0])
    numbered_file(tmp_path)
    client = sessions.attach("x")
    client.run(b"cd %b; echo earlier$((1 + 1))output" % bytes(tmp_path), b"earlier2output")
    client.type(line.encode() + b"\r")
    wait_for_text(client, shows)
    return client


def test_a_shell_shows_what_was_printed_in_lines(sessions: Hub, judge: Judge) -> None:
    first = sessions.attach("x")
    first.run(b"seq 101 105; echo done$((1 + 1))", b"done2")
    first.until(b"done2\r\n\x1b[?2004h$ ")
    with contextlib.closing(sessions.start(session("x"))) as process:
        lines = [process.stdout.readline() for _ in range(7)]
        for number, line in zip(range(101, 106), lines[1:], strict=False):
            assert re.fullmatch(rb"\r?%d\r?\n" % number, plain(line))
        assert plain(lines[6]).rstrip() == b"done2"
        close(process)
    second = sessions.attach("x")
    judge.same(first, second)
    second.run(b"echo more$((1 + 1))", b"more2")
    shown = judge.same(first, second)
    assert not shown.in_alt


def close(process: Process) -> None:
    process.close()
    for file in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.close()


def test_all_the_scrollback_is_there(sessions: Hub, engine: str) -> None:
    sessions.attach("x").run(b"seq 1001 2000; echo done$((1 + 1))", b"done2")
    second = sessions.attach("x")
    got = plain(second.until(b"done2"))
    assert [int(n) for n in re.findall(rb"(?m)^\r?(\d{4})\r?$", got)] == list(range(1001, 2001))


# (b) and (c)


def test_a_full_screen_program_is_redrawn_alone_and_then_left(
    sessions: Hub, judge: Judge, tmp_path: Path, program: tuple[str, str, bytes]
) -> None:
    first = full_screen(sessions, tmp_path, program)
    second = sessions.attach("x")
    shown = judge.same(first, second)
    assert shown.in_alt
    # Neither the line that started it nor what was before.
    assert b"$ " + program[0].encode() not in second.got
    assert b"earlier" not in second.got
    # It goes on there, and what it is left to is the shell with all that was before.
    second.type(program[2])
    second.until(b"earlier2output")
    eventually(lambda: rows_of(second)[-1:] == ["$"], "the prompt")
    assert "earlier2output" in rows_of(second)
    shown = judge.same(first, second)
    assert not shown.in_alt
    second.run(b"echo after$((1 + 1))", b"after2")
    judge.same(first, second)


def test_typing_into_an_editor_after_coming_back(
    sessions: Hub, judge: Judge, tmp_path: Path
) -> None:
    first = full_screen(sessions, tmp_path, PROGRAMS["vim"])
    second = sessions.attach("x")
    second.type(b"5Gotyped here\x1b")
    wait_for_text(first, "typed here")
    judge.same(first, second)
    second.type(b":wq\r")
    second.until(b"earlier2output")
    judge.same(first, second)
    assert (tmp_path / "numbered").read_text().split("\n")[5] == "typed here"


SWITCHES = {
    "1049": (b"\x1b[?1049h", b"\x1b[?1049l"),
    "47": (b"\x1b7\x1b[?47h", b"\x1b[?47l\x1b8"),
    "1047": (b"\x1b7\x1b[?1047h", b"\x1b[?1047l\x1b8"),
    "1006 too": (b"\x1b[?1006;1049h", b"\x1b[?1049;1006l"),
}


def raw_cat(sessions: Hub, id: str, rows: int, cols: int) -> Client:
    client = sessions.attach(id, *RAW_CAT, rows=rows, cols=cols)
    client.until(b"ready\n")
    # Nothing of the start is to be seen in what follows.
    send(client, b"\x1bc")
    return client


def send(client: Client, data: bytes) -> None:
    """Have raw_cat write something, and wait until it is there."""
    size = client.size + len(data)
    client.type(data)
    client.until(lambda got: len(got) >= size)


@pytest.mark.parametrize("switch", list(SWITCHES))
def test_switches_of_screens_split_at_every_byte(sessions: Hub, judge: Judge, switch: str) -> None:
    enter, leave = SWITCHES[switch]
    whole = b"$ program\r\n" + enter + b"\x1b[2J\x1b[Hfull screen" + leave + b"$ "
    entering, leaving = whole.index(enter), whole.index(leave)
    for cut in (*range(entering, entering + len(enter)), *range(leaving, leaving + len(leave) + 1)):
        first = raw_cat(sessions, "x", 6, 20)
        send(first, whole[:cut])
        second = sessions.attach("x", rows=6, cols=20)
        second.until(b"\x1b[")
        if cut <= leaving:
            # Later, but before ESC 8, where the alternate screen's cursor was is not known.
            judge.same(first, second, 6, 20)
        for i in range(cut, len(whole)):
            send(first, whole[i : i + 1])
        shown = judge.same(first, second, 6, 20)
        assert not shown.in_alt
        assert text_of(second.got, 6, 20)[0] == "$ program"
        end(sessions, first, second)


@pytest.mark.parametrize("mode", [47, 1047])
def test_a_cursor_stays_where_a_full_screen_program_left_it(
    sessions: Hub, judge: Judge, mode: int
) -> None:
    first = raw_cat(sessions, "x", 6, 20)
    send(first, b"norm\x1b[?%dh\x1b[4;4Halt" % mode)
    second = sessions.attach("x", rows=6, cols=20)
    assert judge.same(first, second, 6, 20).in_alt
    send(first, b"\x1b[?%dlAFTER" % mode)
    judge.same(first, second, 6, 20)
    assert text_of(second.got, 6, 20)[:4] == ["norm", "", "", "      AFTER"]


def end(sessions: Hub, *clients: Client) -> None:
    """End the session of these clients, for the next one with its id."""
    clients[0].process.kill()
    for client in clients:
        client.exit_code()
        client.leave()
        sessions.clients.remove(client)


PARTIAL = {
    "UTF-8": "日本語 ö🎉".encode(),
    "CSI": b"one\x1b[1;31mred\x1b[3;5Hthere\x1b[?25l",
    "OSC": b"one\x1b]0;the title\x07two\x1b]2;another\x1b\\",
}


@pytest.mark.parametrize("what", list(PARTIAL))
def test_attaching_in_the_midst_and_going_on(sessions: Hub, judge: Judge, what: str) -> None:
    whole = PARTIAL[what]
    for cut in range(1, len(whole)):
        first = raw_cat(sessions, "x", 6, 20)
        send(first, whole[:cut])
        second = sessions.attach("x", rows=6, cols=20)
        # It has its redraw, so what comes now is live.
        second.until(b"\x1b[")
        send(first, whole[cut:] + b" end")
        judge.same(first, second, 6, 20)
        end(sessions, first, second)


def test_a_screen_that_was_lost_is_painted_again(
    sessions: Hub,
    judge: Judge,
    tmp_path: Path,
    program: tuple[str, str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording_module, "ALTERNATE_LIMIT", 1000)
    monkeypatch.setattr(recording_module, "SLACK", 500)
    first = full_screen(sessions, tmp_path, program)
    second = sessions.attach("x")
    shown = judge.same(first, second)
    assert shown.in_alt
    wait_for_text(second, program[1])
    assert b"earlier" not in second.got
    second.type(program[2])
    second.until(b"earlier2output")
    second.run(b"stty size", b"24 80\r\n")
    judge.same(first, second)


def test_more_than_a_mebibyte_in_the_alternate_screen(
    sessions: Hub, engine: str, tmp_path: Path
) -> None:
    first = full_screen(sessions, tmp_path, PROGRAMS["less"])
    # From one end to the other: each is a screen of text.
    first.type(b"Gg" * 1200 + b"20g")
    first.until(lambda got: len(got) > 1_100_000)
    second = sessions.attach("x")
    # The first one's terminal would take a while for all of that.
    wait_for_text(second, "line 42 of the file")
    assert text_of(second.got)[:23] == [f"line {i} of the file" for i in range(20, 43)]
    second.type(b"q")
    second.run(b"stty size", b"24 80\r\n")


ASKS_AND_ACTS = (
    b"\x07\x05\x1b[c\x1b[>c\x1b[=c\x1bZ\x1b[5n\x1b[6n\x1b[?6n\x1b[?2026$p\x1b[>q\x1b[18t\x1b[?u"
    b"\x1bP$qm\x1b\\\x1bP+q544e\x1b\\\x1b]11;?\x07\x1b]4;1;?\x1b\\\x1b]52;c;c2VjcmV0\x07"
    b"\x1b]52;c;?\x07\x1b]9;message\x07\x1b]777;notify;a;b\x1b\\"
)

# Of those, what is not answered.
ACTS = b"\x07\x1b]52;c;c2VjcmV0\x07\x1b]9;message\x07\x1b]777;notify;a;b\x1b\\"


@pytest.mark.parametrize("screen", [b"", b"\x1b[?1049h\x1b[H"], ids=["normal", "alternate"])
def test_a_replay_asks_and_does_nothing(sessions: Hub, engine: str, screen: bytes) -> None:
    first = raw_cat(sessions, "x", 6, 20)
    send(first, screen + b"one" + ASKS_AND_ACTS + b"two")
    assert len(answers_and_bells(first.got, 6, 20)) > 10
    second = sessions.attach("x", rows=6, cols=20)
    second.until(b"two")
    send(first, b"three")
    got = second.until(b"three")
    assert b"one" in got
    assert answers_and_bells(got, 6, 20) == []
    # What comes live is asked of the one who typed last, and else none of our business.
    start, other = first.size, second.size
    send(first, ASKS_AND_ACTS + b"four")
    assert first.until(b"four", start) == ASKS_AND_ACTS + b"four"
    assert second.until(b"four", other) == ACTS + b"four"


MODES = {
    "bracketed paste": b"\x1b[?2004h",
    "mouse": b"\x1b[?1000h\x1b[?1002h\x1b[?1006h",
    "application keys": b"\x1b[?1h\x1b=",
    "hidden cursor": b"\x1b[?25l",
    "no wrap": b"\x1b[?7l",
    "title": b"\x1b]0;the title\x07",
    "colours": b"\x1b[1;4;38;5;99;41m",
    "insert": b"\x1b[4h",
    "all of it": b"\x1b[?2004;1003;1006;1h\x1b=\x1b[?25;7l\x1b]2;t\x07\x1b[1;31m\x1b[2;4r\x1b[4h",
}


@pytest.mark.parametrize("modes", list(MODES))
def test_modes_are_restored_and_not_left_on_for_the_next_session(
    sessions: Hub, judge: Judge, modes: str
) -> None:
    one = raw_cat(sessions, "one", 6, 20)
    send(one, b"text\r\n" + MODES[modes])
    two = raw_cat(sessions, "two", 6, 20)
    send(two, b"plain")
    again = sessions.attach("one", rows=6, cols=20)
    judge.same(one, again, 6, 20)
    send(one, b"next")
    judge.same(one, again, 6, 20)
    # The same terminal goes to the other session.
    again.leave()
    other = sessions.attach("two", rows=6, cols=20)
    other.until(b"plain")
    send(two, b"next")
    other.until(b"next")
    assert_same(judge.shown(again.got + other.got, 6, 20), judge.shown(two.got, 6, 20))


@pytest.mark.parametrize("drawing", [b"\x1b(0lqk", b"\x1b)0\x0elqk"], ids=["G0", "G1"])
def test_line_drawing(sessions: Hub, engine: str, drawing: bytes) -> None:
    judge = Judge(JUDGES["ghostty"])  # pyte has no charsets in UTF-8
    one = raw_cat(sessions, "one", 6, 20)
    send(one, drawing)
    two = raw_cat(sessions, "two", 6, 20)
    again = sessions.attach("one", rows=6, cols=20)
    judge.same(one, again, 6, 20)
    send(one, b"mqj")
    judge.same(one, again, 6, 20)
    again.leave()
    other = sessions.attach("two", rows=6, cols=20)
    other.until(b"\x1b[")
    send(two, b"lqk")
    other.until(b"lqk")
    assert_same(judge.shown(again.got + other.got, 6, 20), judge.shown(two.got, 6, 20))


SCREENS = {
    "nothing": b"",
    "blank last rows": b"one\r\n\r\ntwo\r\n\r\n\r\n",
    "exactly full": b"\r\n".join(b"line %d" % i for i in range(6)),
    "full and a blank": b"".join(b"line %d\r\n" % i for i in range(6)),
    "every cell": b"0123456789" * 12,
    "pending wrap": b"0123456789" * 2,
    "scrolled": b"".join(b"line %d\r\n" % i for i in range(40)),
    "margins": b"top\x1b[2;4r\x1b[4;1Ha\r\nb\r\nc\r\nd",
    "margins and origin": b"top\x1b[2;4r\x1b[?6h\x1b[2;3Hin",
    "SGR": b"\x1b[1;31mred\x1b[0m \x1b[38;5;200;48;2;1;2;3mmany\x1b[7mreverse",
    "coloured blanks": b"\x1b[44m   \r\n\x1b[K\r\nx",
    "cursor in the midst": b"one\r\ntwo\r\nthree\x1b[2;2H",
}


@pytest.mark.parametrize("screen", list(SCREENS))
def test_the_next_bytes_land_right(sessions: Hub, judge: Judge, screen: str) -> None:
    for after in (b"next", b"\r\nnext\r\n\r\n", b"\x1b[A+\x1b[2B-\x08\x1b[K", b"0123456789" * 5):
        first = raw_cat(sessions, "x", 6, 20)
        send(first, SCREENS[screen])
        second = sessions.attach("x", rows=6, cols=20)
        judge.same(first, second, 6, 20)
        send(first, after)
        judge.same(first, second, 6, 20)
        end(sessions, first, second)


def test_a_smaller_terminal_in_a_shell(sessions: Hub, engine: str) -> None:
    first = sessions.attach("x", rows=40, cols=120)
    first.run(b"seq 1 60; echo done$((1 + 1))", b"done2")
    first.until(b"done2\r\n\x1b[?2004h$ ")
    first.leave()
    second = sessions.attach("x", rows=24, cols=80)
    wait_for_text(second, "done2")
    second.run(b"stty size", b"24 80\r\n")
    rows = [*map(str, range(43, 61)), "done2", "$ stty size", "24 80", "$"]
    eventually(lambda: text_of(LEFT_OVER + second.got)[-22:] == rows, "the screen's last rows")
    second.leave()
    third = sessions.attach("x", rows=40, cols=120)
    third.run(b"stty size", b"40 120\r\n")
    text = text_of(LEFT_OVER + third.until(b"40 120\r\n\x1b[?2004h$ "), 40, 120)
    rows = [row for row in text if row]
    assert rows[-5:] == ["$ stty size", "24 80", "$ stty size", "40 120", "$"]


def test_a_smaller_terminal_in_an_editor(sessions: Hub, engine: str, tmp_path: Path) -> None:
    need("vim")
    numbered_file(tmp_path)
    first = sessions.attach("x", rows=40, cols=120)
    first.run(b"cd %b; echo earlier$((1 + 1))output" % bytes(tmp_path), b"earlier2output")
    first.type(PROGRAMS["vim"][0].encode() + b"\r")
    wait_for_text(first, "line 39 of the file", 40, 120)
    first.leave()
    lines = [f"line {i} of the file" for i in range(1, 40)]
    for rows, cols in ((24, 80), (40, 120), (24, 80)):
        client = sessions.attach("x", rows=rows, cols=cols)
        eventually(
            lambda c=client, r=rows, w=cols: (
                text_of(LEFT_OVER + c.got, r, w)[: r - 1] == lines[: r - 1]
            ),
            f"the file on {rows} rows",
        )
        client.type(b"3GAx\x1b")
        wait_for_text(client, lines[2] + "x", rows, cols)
        lines[2] += "x"
        client.leave()
    last = sessions.attach("x")
    last.type(b":q!\r")
    # For a moment it may be a row less, to make the editor paint its screen.
    last.run(b"until stty size | grep '^24 80'; do :; done", b"24 80\r\n")
    assert "earlier2output" in text_of(LEFT_OVER + last.got)


def test_a_hundred_clients_that_come_and_go_during_a_flood(sessions: Hub, engine: str) -> None:
    starter = sessions.attach("x", "sh", "-c", "echo ready; read line; exec seq 1000000000")
    starter.until(b"ready")
    starter.type(b"\r")
    starter.until(b"\r\n10000\r\n")
    starter.leave()
    last = 0
    for _ in range(100):
        process = sessions.start(session("x"))
        got = b""
        while len(got) < 400_000:
            got += process.stdout.read1(1 << 16)
        close(process)
        first = follow(got)
        assert first > last, "the program goes on when nobody is attached"
        last = first


def follow(got: bytes) -> int:
    """Check that lines are numbered without a gap; return the last number.

    Only where a client that fell behind is redrawn may there be one; every redraw begins with CAN.
    """
    assert got.startswith(b"\x18")
    for part in got[1:].split(b"\x18"):
        # The first line may be what was left of one when the ring was cut, the last is not whole.
        numbers = [int(n) for n in plain(part).split()[1:-1]]
        assert len(numbers) > 100
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return numbers[-1]


def test_a_stalled_client_holds_up_nobody_and_is_redrawn(
    sessions: Hub, engine: str, tmp_path: Path
) -> None:
    script = f"echo ready; read line; seq 3000000; echo done > {tmp_path}/done; printf 'over> '"
    witness = sessions.attach("x", "sh", "-c", script + "; read line; echo bye")
    witness.until(b"ready")
    stalled = RawClient(sessions.url)
    stalled.send(attach_message("x"))
    assert stalled.receive_until("pid")["reattached"]
    witness.type(b"\r")
    # 23 MB, of which the stalled client has read nothing when the others and the program are done.
    witness.until(b"over> ")
    eventually((tmp_path / "done").exists, "the program has gone on")
    got = b""
    while not got.endswith(b"over> ") and b"over> \x1b" not in got[-4096:]:
        header, body = stalled.receive()
        assert header["type"] == "stdout"
        got += body
    assert len(got) < 20_000_000, "what it could not take was dropped"
    assert b"3000000\r\nover> " in plain(got[-100_000:])
    witness.type(b"\r")
    while b"bye\r\n" not in got[-1000:]:
        got += stalled.receive()[1]
    # Their terminals need only the end of it.
    text = text_of(got[-20_000:])
    assert text[:23] == text_of(witness.ended()[-20_000:])[:23]
    stalled.hang_up()


def test_a_client_that_fell_behind_in_a_full_screen_program(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both that client's backlog and what is known of the alternate screen are beyond their bounds.
    monkeypatch.setattr(session_module, "_CLIENT_LIMIT", 30_000)
    monkeypatch.setattr(recording_module, "ALTERNATE_LIMIT", 20_000)
    monkeypatch.setattr(recording_module, "SLACK", 5000)
    path = numbered_file(tmp_path)
    command = Command(need("less"), [str(path)], id="x", tty=True, rows=24, cols=80, env=BASH_ENV)
    live = Session(command, LocalExecer())
    try:
        witness = Client(live.attach())
        wait_for_text(witness, "line 20 of the file")
        behind = live.attach()
        assert behind.stdout.raw.read(100)
        for _ in range(40):
            # As fast as the witness, which is not to fall behind.
            for keys, shows in ((b"G", b"line 1000 "), (b"g", b"line 1 ")):
                start = witness.size
                witness.type(keys)
                witness.until(shows, start)
        other = Client(behind)
        judge.same(witness, other)
        # A single key: less drops a number that is interrupted by a change of size.
        witness.type(b" ")
        wait_for_text(witness, "line 40 of the file")
        judge.same(witness, other)
        assert other.size < 60_000
        other.type(b"q")
        assert witness.exit_code() == 0
        other.ended()
    finally:
        live.close()
        witness.leave()
        other.leave()
