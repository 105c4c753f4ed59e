"""Streams of our own that subprocess's face copies, its pipes, and communicate()."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces import Face, stdio
from helpers import Task, ends_processes, eventually, gone, listening

from wsep_sync import DEVNULL, PIPE, Popen, TimeoutExpired

# Streams that are copied


def test_no_input_is_stolen(tested: Face, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with stdio(tmp_path), os.fdopen(writer, "wb", buffering=0) as later:
        os.dup2(reader, 0)
        os.close(reader)
        assert tested.run(["true"]).returncode == 0
        later.write(b"for us")
        assert os.read(0, 100) == b"for us"


def test_no_input_is_stolen_for_a_command_nobody_waits_for(tested: Face, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with (
        stdio(tmp_path),
        os.fdopen(writer, "wb", buffering=0) as later,
        dropping_commands(),
    ):
        os.dup2(reader, 0)
        os.close(reader)
        with tested.Popen(["sh", "-c", "echo $$"], stdout=PIPE).stdout as out:
            pid = int(out.read())
        gc.collect()
        gone(pid)
        copying = next(t for t in threading.enumerate() if t.name == "wsep-copy-input")
        later.write(b"for us")
        copying.join()
        assert os.read(0, 100) == b"for us"


@contextlib.contextmanager
def dropping_commands() -> Iterator[None]:
    """Let nobody complain about commands that are dropped in the block, nor keep them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
        subprocess.run(["true"], check=True)  # by which subprocess reaps what nobody waits for


def test_input_reaches_a_command_that_nobody_holds(tested: Face, tmp_path: Path) -> None:
    with dropping_commands():
        with stdio(tmp_path, b"b\na\n"):
            out = tested.Popen(["sh", "-c", "echo $$; sort"], stdout=PIPE).stdout
        gc.collect()
        with out:
            pid = int(out.readline())
            assert out.read() == b"a\nb\n"
        gone(pid)


def test_an_output_that_cannot_be_written_is_an_error(tested: Face) -> None:
    with open("/dev/full", "wb") as full, tested.Popen(["echo", "a"], stdout=full) as process:
        with pytest.raises(OSError, match="No space") as caught:
            process.wait()
        assert caught.value.errno == errno.ENOSPC
        assert process.returncode == 0
        assert process.wait() == 0  # it has been said


def test_an_output_that_cannot_be_written_fails_run(tested: Face) -> None:
    with open("/dev/full", "wb") as full, pytest.raises(OSError, match="No space"):
        tested.run(["echo", "a"], stdout=full, stderr=PIPE)


@contextlib.contextmanager
def unreadable(kind: str, tmp_path: Path) -> Iterator[int]:
    """A descriptor for a stdin that cannot be read."""
    with contextlib.ExitStack() as cleanup:
        if kind == "file":
            descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        elif kind == "pipe":  # poll(2) has nothing to say about it while it is open for reading
            reader, descriptor = os.pipe()
            cleanup.callback(os.close, reader)
        else:
            paths = {"directory": tmp_path, "memory": "/proc/self/mem"}
            descriptor = os.open(paths[kind], os.O_RDONLY)
        cleanup.callback(os.close, descriptor)
        yield descriptor


UNREADABLE = {
    "file": errno.EBADF,
    "pipe": errno.EBADF,
    "directory": errno.EISDIR,
    "memory": errno.EIO,  # as of a broken disk
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_input_that_cannot_be_read_is_an_error(tested: Face, kind: str, tmp_path: Path) -> None:
    with unreadable(kind, tmp_path) as stdin, tested.Popen(["cat"], stdin=stdin) as process:
        with pytest.raises(OSError, match=re.escape(os.strerror(UNREADABLE[kind]))) as caught:
            process.wait()
        assert caught.value.errno == UNREADABLE[kind]
        # Not the end of its input, which would be an empty one.
        assert process.returncode == -signal.SIGTERM
        assert process.wait() == -signal.SIGTERM  # it has been said


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_input_that_cannot_be_read_fails_run(tested: Face, kind: str, tmp_path: Path) -> None:
    words = re.escape(os.strerror(UNREADABLE[kind]))
    with unreadable(kind, tmp_path) as stdin, pytest.raises(OSError, match=words):
        tested.run(["cat"], stdin=stdin, stdout=PIPE, stderr=PIPE)


def test_an_input_that_fails_on_the_way_is_an_error(tested: Face) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, tested.Popen(["cat"], stdin=ours, stdout=PIPE) as process:
        theirs.sendall(b"first\n")
        assert process.stdout.readline() == b"first\n"
        # Unread data makes a reset of the end.
        ours.sendall(b"never read")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            process.wait()


def test_a_command_that_ignores_sigterm_gets_the_end_of_its_input(tested: Face) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = "trap '' TERM; echo ready; cat"
        with tested.Popen(["sh", "-c", script], stdin=ours, stdout=PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            ours.sendall(b"never read")
            theirs.close()
            with pytest.raises(ConnectionResetError):
                process.wait()
            assert process.returncode == 0


def test_the_null_device_open_for_writing_is_an_empty_input(tested: Face) -> None:
    # As nohup(1) has it.
    with open(os.devnull, "wb") as null:
        done = tested.run(["cat"], stdin=null, stdout=PIPE)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_terminal_that_hangs_up_is_the_end_of_the_input(tested: Face) -> None:
    # The read of a master fails with EIO once its terminal is closed.
    master, slave = pty.openpty()
    try:
        with tested.Popen(["cat"], stdin=master, stdout=PIPE) as process:
            os.write(slave, b"typed\n")
            assert process.stdout.readline() == b"typed\r\n"
            os.close(slave)
            assert process.wait() == 0
    finally:
        os.close(master)


def test_output_to_our_terminal_that_does_not_block(tested: Face) -> None:
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as screen, os.fdopen(slave, "wb", 0) as terminal:
        os.set_blocking(slave, False)
        with tested.Popen(["seq", "20000"], stdout=terminal) as process:
            got = b""
            while not got.endswith(b"\n20000\r\n"):
                got += screen.read(1 << 16)
        assert process.returncode == 0
        assert got.split() == [b"%d" % n for n in range(1, 20001)]


def test_no_thread_and_no_pipe_without_need(remote: Face) -> None:
    with remote.Popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"a\n"
        names = {thread.name.rpartition("-")[0] for thread in threading.enumerate()}
        assert "wsep-copy" not in names
        assert not any(thread.name == "wsep-fileno" for thread in threading.enumerate())
        pipes = len(pipes_of_ours())
        descriptor = process.stdout.fileno()
        assert process.stdout.fileno() == descriptor
        assert len(pipes_of_ours()) == pipes + 2
        process.stdin.write(b"b\n")
        process.stdin.flush()
        assert os.read(descriptor, 100) == b"b\n"


def pipes_of_ours() -> list[str]:
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if link.startswith("pipe:")]


def test_a_descriptor_that_nobody_reads_ends_the_command(remote: Face) -> None:
    with remote.Popen(["yes"], stdout=PIPE) as process:
        process.stdout.fileno()
        process.stdout.close()
        assert process.wait() == -signal.SIGPIPE


def test_output_that_was_on_the_way_does_not_end_the_command(tested: Face) -> None:
    script = "echo a; echo b; echo written >&2; read x; exit 5"
    with tested.Popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout.readline() == b"a\n"
        assert process.stderr.readline() == b"written\n"
        process.stdout.close()
        process.stdin.close()
        assert process.wait() == 5


def test_a_descriptor_to_write_to_breaks_when_the_command_ends(remote: Face) -> None:
    with remote.Popen(["head", "-c", "1"], stdin=PIPE, stdout=PIPE) as process:
        descriptor = process.stdin.fileno()
        os.write(descriptor, b"a")
        assert process.stdout.read() == b"a"
        process.wait()

        def breaks() -> bool:
            try:
                os.write(descriptor, b"a")
            except BrokenPipeError:
                return True
            return False

        eventually(breaks, "EPIPE")


def test_a_descriptor_and_the_file_go_together(remote: Face) -> None:
    with remote.Popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        process.stdout.fileno()
        os.write(process.stdin.fileno(), b"one ")
        process.stdin.write(b"two")
        process.stdin.close()
        assert process.stdout.read() == b"one two"
        assert process.stdout.read() == b""
        process.stdout.close()
        with pytest.raises(ValueError, match="closed"):
            process.stdout.fileno()


def test_a_pipeline_of_three_machines(url: str) -> None:
    with listening() as second, listening() as third:
        with (
            Popen(["seq", "100000"], stdout=PIPE, url=url) as one,
            Popen(["cat"], stdin=one.stdout, stdout=PIPE, url=second.url) as two,
            Popen(["wc", "-l"], stdin=two.stdout, stdout=PIPE, url=third.url) as three,
        ):
            for process in (one, two):
                assert process.stdout is not None
                process.stdout.close()
            assert three.communicate()[0].strip() == b"100000"
        assert [process.returncode for process in (one, two, three)] == [0, 0, 0]


# communicate()


def test_communicate_goes_on_sending_after_a_timeout(tested: Face, tmp_path: Path) -> None:
    # Which subprocess itself does not, up to Python 3.13.
    os.mkfifo(tmp_path / "fifo")
    data = os.urandom(1 << 16) * 64
    script = "read line < fifo; exec cat"
    with tested.Popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, cwd=tmp_path) as process:
        for input in (data, None):
            with pytest.raises(TimeoutExpired):
                process.communicate(input, timeout=0.01)
        (tmp_path / "fifo").write_text("go on\n")
        assert process.communicate()[0] == data


def test_a_block_that_is_left_with_communication_going_on(tested: Face, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = "read line < fifo; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 6"
    with tested.Popen(
        ["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=tmp_path
    ) as process:
        with pytest.raises(TimeoutExpired):
            process.communicate(timeout=0.01)
        (tmp_path / "fifo").write_text("go on\n")
    # stdout was closed on the way, which may have been too much for the first head.
    assert process.returncode == 6


@pytest.mark.parametrize("text", [False, True])
def test_out_of_time_although_somebody_holds_the_output(
    tested: Face, tmp_path: Path, text: bool
) -> None:
    # In a session of its own, so that no signal to the command's group reaches it.
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/pid; echo a; exec sleep 1000"
    for timeout in (0.3, 3.0, 10.0):
        with pytest.raises(TimeoutExpired) as caught:
            tested.run(["sh", "-c", script], capture_output=True, timeout=timeout, text=text)
        if (tmp_path / "pid").exists():
            pid = int((tmp_path / "pid").read_text())
            with ends_processes(pid):
                pass
            gone(pid)
        if caught.value.output:
            break
    assert caught.value.output == b"a\n"
    assert caught.value.timeout == timeout


def test_communicate_a_character_cut_anywhere(tested: Face) -> None:
    text = "aéà€𝄞\n" * 20_000
    done = tested.run(["cat"], input=text, stdout=PIPE, encoding="utf-8")
    assert done.stdout == text
    # Messages are split at 64,000 bytes, which is in the middle of something here.
    with (
        tested.Popen(["cat"], stdin=PIPE, stdout=PIPE, encoding="utf-8") as process,
        Task(process.stdin.write, text) as writing,
    ):
        assert process.stdout.read(len(text) - 5000) == text[:-5000]  # the rest is in a buffer
        writing.result()
        process.stdin.close()
        assert process.stdout.read() == text[-5000:]


BOTH_WAYS = """
import os, resource, sys
from wsep_sync import PIPE, run

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

data = os.urandom(1 << 20) * 200
before = peak()
done = run(["cat"], stdout=PIPE, input=data)
print(done.stdout == data, len(done.stdout) >> 20, peak() - before)
"""


def test_200_megabytes_each_way_in_the_memory_of_the_result(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BOTH_WAYS],
        env={**os.environ, "WSEP_URL": url},
        stdout=PIPE,
        text=True,
        check=True,
    )
    exact, size, grown = done.stdout.split()
    assert (exact, size) == ("True", "200")
    # The result, and what is on the way: a megabyte of each output, and of input.
    assert int(grown) < 200 + 32
