"""An input that is sent to another machine, without a machine to send it to."""

from __future__ import annotations

import errno
import os
import subprocess
import threading

import pytest
from helpers import SECONDS, eventually

from wsep_sync.dropped import Hold
from wsep_sync.streams.files import buffered_writer
from wsep_sync.streams.sent_input import SentInput

MOST = 10


class Sent(SentInput):
    """Keeps what is sent; an empty piece is the end."""

    _most = MOST

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.over = threading.Event()
        self.gate = threading.Event()  # nothing is sent before it is set
        self.gate.set()
        self.broken: Exception | None = None  # raised by the next piece
        self.death: Exception | None = None  # what the thread died of

    def _send(self, piece: memoryview) -> None:
        self.gate.wait(SECONDS)
        if self.broken is not None:
            raise self.broken
        if self.over.is_set():
            raise BrokenPipeError(errno.EPIPE, "over")
        self.pieces.append(bytes(piece))

    def send_eof(self) -> None:
        if not self.over.is_set():
            self.pieces.append(b"")

    def _is_over(self) -> bool:
        return self.over.is_set()

    def _thread_died(self, error: Exception) -> None:
        self.death = error

    def end(self) -> None:
        self.over.set()
        self._end_thread()

    @property
    def has_ended(self) -> bool:
        return self.pieces[-1:] == [b""]


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "wsep-fileno"]


def is_broken(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"x")
    except BrokenPipeError:
        return True
    return False


def test_it_is_sent_in_pieces() -> None:
    file = Sent()
    assert file.write(b"0123456789abcdefghijk") == 21
    assert file.pieces == [b"0123456789", b"abcdefghij", b"k"]
    assert file.writable()
    assert file.ready(0)
    file.close()
    file.close()
    assert file.pieces[3:] == [b""]


def test_a_buffer_before_it_sends_what_is_left() -> None:
    file = Sent()
    with buffered_writer(file) as writer:
        writer.write(b"text")
        assert file.pieces == []
    assert file.pieces == [b"text", b""]


def test_nothing_is_to_be_had_of_one_that_is_closed() -> None:
    file = Sent()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        file.fileno()


def test_what_is_written_to_the_descriptor_is_sent() -> None:
    file = Sent()
    assert threads() == []
    descriptor = file.fileno()
    assert file.fileno() == descriptor
    assert len(threads()) == 1
    subprocess.run(["echo", "from another program"], stdout=descriptor, check=True)
    file.write(b"from this one")  # behind it
    file.close()
    eventually(lambda: file.has_ended, "the end")
    assert b"".join(file.pieces) == b"from another program\nfrom this one"
    assert max(map(len, file.pieces)) <= MOST
    eventually(lambda: not threads(), "the end of the thread")


def test_the_last_copy_of_the_descriptor_ends_it() -> None:
    file = Sent()
    copy = os.dup(file.fileno())
    file.close()
    os.write(copy, b"x")
    eventually(lambda: file.pieces, "what was written")
    assert file.pieces == [b"x"]
    os.close(copy)
    eventually(lambda: file.has_ended, "the end")
    eventually(lambda: not threads(), "the end of the thread")


def test_one_that_does_not_block() -> None:
    file = Sent()
    file.gate.clear()
    os.set_blocking(file.fileno(), False)
    written = 0
    while (count := file.write(bytes(1 << 16))) is not None:
        written += count
    assert not file.ready(0)
    file.gate.set()
    assert file.ready(SECONDS)
    file.close()
    eventually(lambda: file.has_ended, "the end")
    assert sum(map(len, file.pieces)) == written
    eventually(lambda: not threads(), "the end of the thread")


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_thread_ends_with_the_command(when: str) -> None:
    file = Sent()
    if when == "before":
        file.end()
    descriptor = file.fileno()
    if when == "after":
        file.end()
    eventually(lambda: not threads(), "the end of the thread")
    assert is_broken(descriptor)
    file.close()
    assert file.pieces == []


def test_who_writes_to_the_descriptor_is_told_of_the_end() -> None:
    file = Sent()
    descriptor = file.fileno()
    file.over.set()  # seen when the next piece is sent
    eventually(lambda: is_broken(descriptor), "EPIPE")
    eventually(lambda: not threads(), "the end of the thread")
    assert file.death is None
    file.close()


def test_a_thread_that_dies(caplog: pytest.LogCaptureFixture) -> None:
    file = Sent()
    file.broken = ZeroDivisionError("nobody foresaw it")
    descriptor = file.fileno()
    os.write(descriptor, b"x")
    eventually(lambda: file.death, "the end of the thread")
    assert isinstance(file.death, ZeroDivisionError)
    assert "internal error in wsep-fileno" in caplog.text
    eventually(lambda: is_broken(descriptor), "EPIPE")
    file.close()


def test_without_a_thread_there_is_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    file = Sent()
    monkeypatch.setattr(threading.Thread, "start", no_more)
    with pytest.raises(RuntimeError):
        file.fileno()
    file.write(b"as before")
    assert file.pieces == [b"as before"]
    file.close()


def test_one_that_is_dropped_sends_the_end() -> None:
    hold = Hold()
    file = Sent()
    pieces = file.pieces
    del file
    eventually(lambda: pieces == [b""], "the end")
    hold.release()


def test_one_that_is_dropped_when_all_is_over_sends_nothing() -> None:
    file = Sent()
    pieces = file.pieces
    file.over.set()
    del file
    assert pieces == []
