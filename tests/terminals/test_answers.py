"""What is answered for a terminal that is not there, and taken out for those who are not asked."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from measured import unmeasured_code

from wsep_sync.terminals import Recording
from wsep_sync.terminals.answers import QueryFilter, asks, replies, unfinished

# What terminals answer: xterm's ctlseqs, and what kitty, iTerm2 and others have added.
QUERIES = [
    b"\x05",
    b"\x1bZ",
    b"\x1b[c",
    b"\x1b[0c",
    b"\x1b[>c",
    b"\x1b[>0c",
    b"\x1b[=c",
    b"\x1b[5n",
    b"\x1b[6n",
    b"\x1b[?6n",
    b"\x1b[?15n",
    b"\x1b[?996n",
    b"\x1b[4$p",
    b"\x1b[?2026$p",
    b"\x1b[>q",
    b"\x1b[>0q",
    b"\x1b[11t",
    b"\x1b[14;2t",
    b"\x1b[18t",
    b"\x1b[21t",
    b"\x1b[?u",
    b"\x1b[?1;1;0S",
    b"\x1b[?4m",
    b"\x1b[?4g",
    b"\x1b[x",
    b"\x1b[1x",
    b"\x1b[1;1;1;1;1;1*y",
    b"\x1b[1$w",
    b"\x1b[2;1$u",
    b"\x1b[&u",
    b'\x1b["v',
    b"\x1b[#R",
    b"\x1b[1;1;2;2#|",
    b"\x1b['|",
    b"\x1bP$qm\x1b\\",
    b"\x1bP0$q q\x1b\\",
    b"\x1bP+q544e;524742\x1b\\",
    b"\x1b]3;?WM_NAME\x07",
    b"\x1b]4;1;?\x1b\\",
    b"\x1b]4;1;?;2;?\x07",
    b"\x1b]10;?\x07",
    b"\x1b]11;?\x1b\\",
    b"\x1b]010;?;?\x1b\\",
    b"\x1b]21;foreground=?;1=?\x1b\\",
    b"\x1b]22;?__current__\x1b\\",
    b"\x1b]50;?\x07",
    b"\x1b]52;c;?\x07",
    b"\x1b]60\x1b\\",
    b"\x1b]61;x\x1b\\",
    b"\x1b]99;i=1:p=?;\x1b\\",
    b"\x1b]1337;ReportCellSize\x07",
    b"\x1b]5522;type=read;dGV4dA==\x1b\\",
    "\u009a".encode(),
]

# What they do not answer, and everybody is to see.
OTHERS = [
    b"text",
    "é § \u00a0 日本語 🎉".encode(),
    b"\r\n\t\b\x07",
    b"\x1b7\x1b8\x1b=\x1b>\x1bc\x1b(0\x1b#8",
    b"\x1b[31m",
    b"\x1b[38:2::1:2:3m",
    b"\x1b[1;2H",
    b"\x1b[2J",
    b"\x1b[?25h\x1b[?1049;1006h",
    b"\x1b[?0c",  # the Linux console's cursor
    b"\x1b[4 q",
    b"\x1b[!p",
    b"\x1b[u",
    b"\x1b[>1u\x1b[<u\x1b[=1;1u",
    b"\x1b[>4;2m",
    b"\x1b[>4n",
    b"\x1b[22;0t\x1b[8;24;80t",
    b"\x1b[1;1;2;2;65$x",
    b"\x1b]0;really?\x07",
    b"\x1b]4;1;red\x1b\\",
    b"\x1b]8;;http://a/?b;?\x1b\\",
    b"\x1b]7;file:///x\x07",
    b"\x1b]52;c;c2VjcmV0\x07",
    b"\x1b]99;i=1;what?\x1b\\",
    b"\x1b]777;notify;a;?\x1b\\",
    b"\x1b]1337;File=name=a:AAAA\x07",
    b"\x1bPq#0;2;0;0;0#0~~\x1b\\",
    b"\x1bX?\x1b\\\x1b^?\x1b\\",
]


def name(data: bytes) -> str:
    return repr(data)[2:-1]


@pytest.mark.parametrize("query", QUERIES, ids=name)
def test_who_is_not_asked_gets_no_query(query: bytes) -> None:
    encoded = query.startswith(b"\xc2")
    for cut in range(len(query)):
        passed = QueryFilter()
        got = passed.feed(b"one" + query[:cut]) + passed.feed(query[cut:] + b"two")
        assert got == (b"one\xef\xbf\xbdtwo" if encoded else b"onetwo")
        assert not passed.held


@pytest.mark.parametrize("other", OTHERS, ids=name)
def test_who_is_not_asked_gets_all_else(other: bytes) -> None:
    for cut in range(len(other)):
        passed = QueryFilter()
        got = passed.feed(b"one" + other[:cut]) + passed.feed(other[cut:] + b"two")
        assert got == b"one" + other + b"two"
        assert not passed.held


def test_a_picture_is_shown_and_not_reported() -> None:
    passed = QueryFilter()
    assert passed.feed(b"\x1b_Ga=T,i=1") == b""
    assert passed.feed(b",f=100;AAAA") == b"\x1b_Ga=T,i=1,f=100,q=2;AAAA"
    assert passed.feed(b"BBBB\x1b\\") == b"BBBB\x1b\\"
    assert passed.feed(b"\x1b_G;AAAA\x1b\\") == b"\x1b_Gq=2;AAAA\x1b\\"


def test_what_is_executed_in_the_midst_of_a_query_still_is() -> None:
    assert QueryFilter().feed(b"a\x1b[\r\n0\x07c") == b"a\r\n"


@pytest.mark.parametrize("end", [b"\x18", b"\x1a", b"\x1b[m", b"\x1b"])
def test_a_query_that_is_aborted_may_be_answered_too(end: bytes) -> None:
    passed = QueryFilter()
    assert passed.feed(b"\x1b]11;?" + end) + passed.feed(b"x") == end + b"x"


@given(
    st.lists(st.sampled_from(QUERIES[:-1] + OTHERS), max_size=30),
    st.lists(st.integers(1, 9), min_size=1),
)
@example([b"\x1b]11;?\x1b\\"] * 3, [1])
def test_nothing_else_is_changed_wherever_it_is_cut(parts: list[bytes], sizes: list[int]) -> None:
    whole = b"".join(parts)
    passed = QueryFilter()
    got, at, turn = b"", 0, 0
    while at < len(whole):
        size = sizes[turn % len(sizes)]
        got += passed.feed(whole[at : at + size])
        at, turn = at + size, turn + 1
    assert got == b"".join(part for part in parts if part not in QUERIES)
    assert not passed.held


@given(st.lists(st.sampled_from(QUERIES + OTHERS), max_size=10).map(b"".join), st.integers(0, 99))
def test_it_may_begin_anywhere(whole: bytes, cut: int) -> None:
    cut = min(cut, len(whole))
    recording = Recording(24, 80)
    recording.feed(whole[:cut])
    late, early = QueryFilter(recording.snapshot()), QueryFilter()
    early.feed(whole[:cut])
    assert late.held == early.held
    assert late.feed(whole[cut:]) == early.feed(whole[cut:])


@pytest.mark.parametrize(
    "endless", [b"\x1b[" + b"0" * 50, b"\x1b]11;" + b"?;" * 25, b"\x1bP+q" + b"61" * 25], ids=name
)
def test_what_is_held_back_is_bounded_and_then_comes_whole(endless: bytes) -> None:
    passed = QueryFilter()
    fed = got = b""
    for piece in [endless, *[b"0" * 50] * 1000]:
        fed += piece
        got += passed.feed(piece)
        assert len(fed) - len(got) <= 8192
    assert got == fed


# Every prefix of what it knows, over and over, is the worst that it can be fed with.
PREFIXES = sorted({query[:end] for query in QUERIES for end in range(1, len(query) + 1)})


def seconds(data: bytes) -> float:
    passed = QueryFilter()
    began = time.process_time()
    for at in range(0, len(data), 1 << 14):
        passed.feed(data[at : at + (1 << 14)])
    return time.process_time() - began


@pytest.mark.thorough
@pytest.mark.parametrize("lead", [b"", b"\x1b]4;"], ids=name)
def test_its_work_grows_with_the_output_and_no_faster(lead: bytes) -> None:
    for prefix in PREFIXES:
        small, large = (lead + prefix * (n // len(prefix)) for n in (1 << 13, 1 << 16))
        # Eight times as much; quadratic would be 64 times. A machine that is busy may err.
        for _ in range(5):
            with unmeasured_code():
                grows = seconds(large) > 25 * seconds(small) + 0.02
            if not grows:
                break
        assert not grows, prefix


# Answers for a terminal that is not there


def answered(data: bytes) -> bytes:
    recording = Recording(24, 80)
    recording.feed(data)
    return replies(recording.snapshot(), data)


def test_it_is_quickly_told_whether_there_is_anything_to_answer() -> None:
    for query in (b"\x1bZ", b"\x1b[c", b"\x1b[>0c", b"\x1b[6n", b"text\x1b[?6n"):
        assert asks(query)
    for other in OTHERS:
        assert not asks(other)


@pytest.mark.parametrize("query", [b"\x1b[c", b"\x1b[6n", b"\x1b[5n"], ids=name)
def test_of_a_flood_of_queries_only_the_first_are_answered(query: bytes) -> None:
    one = answered(query)
    assert one
    flood = answered(query * 20_000)
    assert one * 4 <= flood
    assert len(flood) <= 64 * len(one)


@pytest.mark.parametrize("query", [q for q in QUERIES if asks(q)], ids=name)
def test_a_query_that_came_in_pieces(query: bytes) -> None:
    before = b"text\x1b[5n\x1b[31m" + b"x" * 100
    for cut in range(1, len(query)):
        first = before + query[:cut]
        assert unfinished(first) == query[:cut]
        assert asks(unfinished(first) + query[cut:])
        assert unfinished(unfinished(query[:1]) + query[1:cut]) == query[:cut]
    assert unfinished(before + query) == unfinished(before) == b""
    assert len(unfinished(b"\x1b[" + b"0" * 10000)) < 100
