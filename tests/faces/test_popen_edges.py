"""Where subprocess's face differs from subprocess, and what only a distance brings."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import os
import pty
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faces import Face, face, stdio
from helpers import SECONDS, Task, blocked, ends_processes, eventually, gone, listening, scripted

import wsep_sync
from wsep_sync import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    Command,
    ExitMissing,
    LocalExecer,
    OutputUnread,
    Popen,
    RestrictedExecer,
    TimeoutExpired,
    connect,
    run,
)
from wsep_sync.execers.prelude import Prelude
from wsep_sync.faces.copying import same_open_file
from wsep_sync.protocol.messages import ExitCode, Pid, Start, decode_client_message
from wsep_sync.transports.base import Transport

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as listener:
        yield listener.url


@pytest.fixture(params=["local", "remote"])
def tested(request: pytest.FixtureRequest, url: str) -> Face:
    return face(url if request.param == "remote" else None)


@pytest.fixture
def remote(url: str) -> Face:
    return face(url)


@pytest.fixture
def local() -> Face:
    return face(None)


# Where a command runs


def where(**options: Any) -> str:
    """The kind of process that ran a command."""
    with Popen(["true"], **options) as process:
        return type(process.process).__name__


def test_it_runs_here_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSEP_URL", raising=False)
    assert where() == "LocalProcess"
    monkeypatch.setenv("WSEP_URL", "")
    assert where() == "LocalProcess"


def test_it_runs_at_the_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSEP_URL", raising=False)
    assert where(url=url) == "RemoteProcess"
    monkeypatch.setenv("WSEP_URL", url)
    assert where() == "RemoteProcess"


def test_it_runs_where_the_execer_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSEP_URL", url)
    assert where(execer=LocalExecer()) == "LocalProcess"
    monkeypatch.delenv("WSEP_URL")
    with connect(url) as execer:
        assert where(execer=execer) == "RemoteProcess"
        assert where(execer=execer) == "RemoteProcess"


def test_an_execer_and_a_url_exclude_each_other(url: str) -> None:
    with pytest.raises(ValueError, match="execer and url"):
        run(["true"], execer=LocalExecer(), url=url)


def test_no_server_is_a_connection_error() -> None:
    with pytest.raises(ConnectionError):
        run(["true"], url="ws://127.0.0.1:1")


# What cannot be done


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preexec_fn", print),
        ("close_fds", False),
        ("startupinfo", object()),
        ("creationflags", 1),
        ("restore_signals", False),
        ("pass_fds", [0]),
        ("extra_groups", []),
        ("pipesize", 4096),
        ("process_group", 5),
        ("executable", "/bin/false"),
        ("size", (24, 80)),
        ("id", "a"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tested: Face, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        tested.run(["true"], **{name: value})


def test_a_user_by_name_is_known_here_only(local: Face, remote: Face) -> None:
    nobody = pwd.getpwuid(65534).pw_name
    with pytest.raises(ValueError, match=f"user.*{nobody}"):
        remote.run(["true"], user=nobody)
    with pytest.raises(ValueError, match=r"group.*daemon"):
        remote.run(["true"], group="daemon")
    assert local.run(["id", "-u"], user=nobody, stdout=PIPE).stdout == b"65534\n"
    with pytest.raises(KeyError):
        local.run(["true"], user="no-such-user")


def test_user_0_is_no_number_to_ask_for(remote: Face, local: Face) -> None:
    with pytest.raises(ValueError, match="user: 0"):
        remote.run(["true"], user=0)
    assert os.geteuid() == 0, "these tests start commands as other users"
    assert local.run(["id", "-u"], user=0, stdout=PIPE).stdout == b"0\n"


@pytest.mark.parametrize(
    "options", [{}, {"stdout": PIPE, "stderr": STDOUT}, {"umask": 0o22}], ids=repr
)
def test_arguments_that_are_too_long_are_the_programs(
    tested: Face, options: dict[str, Any]
) -> None:
    # And not those of the shell that is to become it.
    with pytest.raises(OSError, match="Argument list too long") as caught:
        tested.run(["true", "x" * 200_000], **options)
    assert (caught.value.errno, caught.value.filename) == (errno.E2BIG, "true")


def test_a_bad_signal_does_no_harm(tested: Face) -> None:
    with tested.Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        with pytest.raises(ValueError, match="signal"):
            process.send_signal(9999)
        assert process.communicate(b"a") == (b"a", None)


@pytest.mark.parametrize("bufsize", [2**70, 2**62])
def test_a_buffer_beyond_all_memory_leaves_nothing(tested: Face, bufsize: int) -> None:
    # subprocess leaves the command, and its pipes.
    with pytest.raises((OverflowError, MemoryError)):
        tested.Popen(["sleep", "1000"], bufsize=bufsize, stdin=PIPE, stdout=PIPE)


def test_what_is_one_open_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        path.open("wb") as file,
        path.open("ab") as other,
        open(os.dup(file.fileno()), "wb") as copy,
        (tmp_path / "another").open("wb") as another,
    ):
        assert same_open_file(file.fileno(), copy.fileno())
        # Each with its own position: they write over each other, or not, as ever.
        assert not same_open_file(file.fileno(), other.fileno())
        assert not same_open_file(file.fileno(), another.fileno())


def test_one_output_for_both_at_a_server_without_a_shell(tmp_path: Path) -> None:
    # Nobody has asked for a shell there: then there is an order no more.
    execer = RestrictedExecer(LocalExecer(), ["echo"])
    with listening(execer) as listener, (tmp_path / "out").open("w") as out:
        run(["echo", "b"], stdout=out, stderr=out, check=True, url=listener.url)
        with pytest.raises(PermissionError):
            run(["true"], stdout=out, stderr=out, url=listener.url)
        with pytest.raises(PermissionError):
            run(["echo"], stdout=out, stderr=STDOUT, url=listener.url)
    assert (tmp_path / "out").read_text() == "b\n"


# The environment


def test_env_adds(tested: Face) -> None:
    done = tested.run("echo $A ${PATH:+path}", shell=True, env={"A": "a"}, stdout=PIPE)
    assert done.stdout == b"a path\n"


def test_env_may_have_names_that_no_shell_knows(tested: Face, tmp_path: Path) -> None:
    done = tested.run(["printenv", "a.b-c"], env={"a.b-c": "x"}, stdout=PIPE)
    assert done.stdout == b"x\n"
    # Nobody has asked for a shell, only for an order.
    with (tmp_path / "out").open("w") as out:
        tested.run(["printenv", "a.b-c"], env={"a.b-c": "x"}, stdout=out, stderr=out)
    assert (tmp_path / "out").read_text() == "x\n"
    merged = {"stdout": PIPE, "stderr": STDOUT}
    for options in ({"umask": 0o22}, {"clean_env": True}, merged):
        if options is merged and "url" not in tested.options:
            continue  # natively
        with pytest.raises(ValueError, match="env"):
            tested.run(["true"], env={"a.b-c": "x"}, **options)


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "bash"])
def test_a_clean_environment_hides_its_values(shell: str, tmp_path: Path) -> None:
    # An argument can be read by every user of the machine.
    command = Command("/usr/bin/env", env=("SECRET=hunter2", "_=x", "SHLVL=7"))
    wrapped = Prelude(clean_env=True).wrap(command)
    assert "hunter2" not in " ".join([wrapped.command, *wrapped.args])
    # Whatever the other end's shell is: run it by each.
    name, *options = shell.split()
    environment = {"OTHER": "x", "odd.name": "x", **dict(e.split("=") for e in wrapped.env)}
    done = subprocess.run(
        [name, *options, *wrapped.args], env=environment, stdout=PIPE, stderr=PIPE, check=True
    )
    assert b"SECRET=hunter2\n" in done.stdout
    assert b"OTHER" not in done.stdout
    assert b"odd.name" not in done.stdout
    assert done.stderr == b"found\n"


def test_a_clean_environment_cannot_run_what_looks_like_a_variable(tested: Face) -> None:
    with pytest.raises(ValueError, match="clean_env"):
        tested.run(["a=b"], clean_env=True)


def test_both_in_one_of_a_missing_interpreter(local: Face, remote: Face, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o700)
    with pytest.raises(FileNotFoundError):
        remote.run([tmp_path / "script"], stdout=PIPE)
    with pytest.raises(FileNotFoundError):
        local.run([tmp_path / "script"], stdout=PIPE, stderr=STDOUT)
    done = remote.run([tmp_path / "script"], stdout=PIPE, stderr=STDOUT)
    assert done.returncode == 127
    assert b"not found" in done.stdout


# Terminals


def test_a_terminal(tested: Face) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size && echo err >&2"
    done = tested.run(script, shell=True, tty=True, capture_output=True, input=b"")
    assert (done.stdout, done.stderr, done.returncode) == (b"24 80\r\nerr\r\n", b"", 0)


def test_a_terminal_has_a_size(tested: Face) -> None:
    with tested.Popen(
        ["sh", "-c", "stty size; read x; stty size"],
        tty=True,
        size=(30, 100),
        stdin=PIPE,
        stdout=PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdout.readline() == "30 100\n"
        process.process.resize(31, 101)
        process.stdin.write("x\n")
        assert process.stdout.readline() == "x\n"
        assert process.stdout.readline() == "31 101\n"


def test_a_terminal_has_both_in_one_anyway(tested: Face) -> None:
    done = tested.run("echo a; echo b >&2", shell=True, tty=True, stdout=PIPE, stderr=STDOUT)
    assert (done.stdout, done.stderr) == (b"a\r\nb\r\n", None)


def test_a_terminal_without_input_is_told_its_end(tested: Face) -> None:
    done = tested.run(["cat"], tty=True, stdin=DEVNULL, stdout=PIPE)
    assert done.returncode == 0


def test_a_terminal_and_a_shell_before_the_command(tested: Face) -> None:
    done = tested.run("umask; echo $A", shell=True, tty=True, umask=0o27, stdout=PIPE)
    assert done.stdout == b"0027\r\n\r\n"
    with pytest.raises(FileNotFoundError):
        tested.run(["no-such-command"], tty=True, umask=0o27, stdout=PIPE)


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


# When the connection is lost


def losing(*messages: bytes) -> Callable[[Transport], None]:
    """A server that says so much about each command, and then cuts the connection."""

    def script(transport: Transport) -> None:
        assert isinstance(decode_client_message(transport.receive()), Start)
        for message in messages:
            transport.send(message)
        transport.abort()

    return script


PID = Pid(4711).encode()
SOME_OUTPUT = b'{"type":"stdout"}\nsome'


def test_a_lost_connection_is_no_exit_status() -> None:
    with scripted(losing(PID)) as url:
        process = Popen(["a"], stdout=PIPE, url=url)
        for _ in range(2):
            for call in (process.wait, process.poll, process.communicate):
                with pytest.raises(ExitMissing):
                    call()
        assert process.returncode is None
        assert repr(process) == "<Popen: returncode: None args: ['a']>"
        process.send_signal(signal.SIGTERM)
        process.kill()


def test_a_lost_connection_is_raised_at_the_end_of_the_block() -> None:
    with scripted(losing(PID)) as url:
        with pytest.raises(ExitMissing), Popen(["a"], url=url):
            pass
        # What is being raised already says more.
        with pytest.raises(ZeroDivisionError), Popen(["a"], url=url):
            raise ZeroDivisionError


def test_a_lost_connection_reaches_everybody_who_waits() -> None:
    lost = threading.Event()

    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        lost.wait()
        transport.abort()

    with scripted(script) as url:
        process = Popen(["a"], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, url=url)
        with Task(process.wait) as one, Task(process.wait, 30) as other:
            for task in (one, other):
                blocked(task)
            lost.set()
            for task in (one, other):
                with pytest.raises(ExitMissing):
                    task.result()
        # No warning that it runs: nobody knows.
        del process
        gc.collect()


def test_lost_connections_hold_no_descriptors() -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url:
        descriptors = len(os.listdir("/proc/self/fd"))
        gc.disable()
        try:
            for _ in range(20):
                with pytest.raises(ExitMissing) as caught:
                    run(["a"], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, url=url)
                del caught
            eventually(
                lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2,
                "descriptors are closed without the garbage collector",
            )
        finally:
            gc.enable()


@pytest.mark.parametrize("call", ["run", "call", "check_call", "check_output"])
def test_a_lost_connection_fails_every_call(call: str) -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url, pytest.raises(ExitMissing):
        getattr(face(url), call)(["a"], stdin=DEVNULL, stderr=PIPE)


def test_a_lost_connection_is_an_end_to_who_reads_the_descriptor() -> None:
    with scripted(losing(PID, SOME_OUTPUT)) as url:
        process = Popen(["a"], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, bufsize=0, url=url)
        assert process.stdout is not None
        done = subprocess.run(["cat"], stdin=process.stdout, stdout=PIPE, check=True)
        assert done.stdout == b"some"
        with process.stdout, pytest.raises(ExitMissing):
            process.stdout.read(100)
        with pytest.raises(ExitMissing):
            process.wait()


def test_a_lost_connection_before_the_command_is_known_to_run() -> None:
    # A shell was started, and has not said whether it found the command.
    with scripted(losing(PID)) as url, pytest.raises(ExitMissing):
        run(["a"], stdout=PIPE, stderr=STDOUT, url=url)


def test_an_output_that_nobody_reads_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a server that has no way to tell of the end ahead of it."""
    monkeypatch.setattr("wsep_sync.execers.remote.process._UNREAD_AFTER", 0.1)

    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        for _ in range(180):
            transport.send(b'{"type":"stdout"}\n' + bytes(50_000))
        transport.send(b'{"type":"exit_code","exit_code":0,"error":""}\n')

    with scripted(script) as url, Popen(["any"], stdout=PIPE, url=url) as process:
        with pytest.raises(OutputUnread, match="stdout"):
            process.wait()
        assert len(process.communicate()[0]) == 9_000_000


def test_what_nobody_reads_does_not_hide_the_end(tested: Face) -> None:
    process = tested.Popen(["yes"], stdout=PIPE)
    process.stdout.read(1 << 20)  # what comes next fills every window
    process.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


def test_what_nobody_asked_for_need_not_end(tested: Face, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # It lives until somebody writes there, and may say what it likes.
    script = f"(read x < {fifo}; echo $x; echo $x >&2; echo $x > {tmp_path}/file) &"
    done = tested.run(script, shell=True, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    assert done.returncode == 0
    fifo.write_text("late\n")
    eventually(lambda: (tmp_path / "file").exists(), "the job in the background to go on")
    eventually(lambda: (tmp_path / "file").read_text() == "late\n", "its word")


# A server that has none of our additions


def test_a_server_without_signals() -> None:
    def script(transport: Transport) -> None:
        transport.receive()
        transport.send(PID)
        with contextlib.suppress(Exception):
            transport.receive()

    with scripted(script) as url:
        process = Popen(["a"], url=url)
        with pytest.raises(io.UnsupportedOperation):
            process.terminate()
        process.kill()  # hangs up
        with pytest.raises(ExitMissing):
            process.wait()


def test_a_server_that_is_the_reference(tmp_path: Path) -> None:
    def script(transport: Transport) -> None:
        started = decode_client_message(transport.receive())
        assert isinstance(started, Start)
        transport.send(PID)
        transport.send(b'{"type":"stdout"}\n', json.dumps(started.command.args).encode())
        transport.send(ExitCode(-1, "signal: terminated").encode())
        with contextlib.suppress(Exception):
            transport.receive()

    with scripted(script) as url:
        done = run(["a", "b"], stdout=PIPE, stdin=DEVNULL, url=url)
    assert (done.stdout, done.returncode) == (b'["b"]', -15)


# Ctrl-C


def test_ctrl_c_is_passed_on_before_the_command_is_killed(tested: Face, tmp_path: Path) -> None:
    script = "trap 'echo got it > here; exit' INT; read line; kill -INT $PPID; read line < fifo"
    os.mkfifo(tmp_path / "fifo")
    keep = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        with pytest.raises(KeyboardInterrupt):
            tested.run(["sh", "-c", script], input=b"go\n", cwd=tmp_path)
    finally:
        os.close(keep)
    assert (tmp_path / "here").read_text() == "got it\n"


def test_ctrl_c_kills_a_command_that_ignores_it(tested: Face, tmp_path: Path) -> None:
    script = "trap '' INT; echo $$ > pid; read line; kill -INT $PPID; exec sleep 1000"
    with pytest.raises(KeyboardInterrupt):
        tested.run(["sh", "-c", script], input=b"go\n", stdout=PIPE, cwd=tmp_path)
    gone(int((tmp_path / "pid").read_text()))


# Scripts


def test_a_ported_script_says_the_same_here_and_there(url: str) -> None:
    here, there = (
        subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / "remote_subprocess.py", *arguments],
            env={**os.environ, "PYTHONPATH": str(Path(wsep_sync.__file__).parent.parent)},
            stdin=DEVNULL,
            stdout=PIPE,
            check=True,
            text=True,
        ).stdout
        for arguments in ([], [url])
    )
    assert here == there
    assert re.search("you said goodbye", there)


def test_a_script_that_forgets_a_command_ends(url: str) -> None:
    code = (
        "import wsep_sync\n"
        "process = wsep_sync.Popen(['sleep', '1000'])\n"
        "print(process.pid, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "WSEP_URL": url},
        stdout=PIPE,
        check=True,
        timeout=30,
    )
    gone(int(done.stdout))  # its connection is gone, and so it is hung up on


def test_errors_have_what_subprocess_s_have(tested: Face) -> None:
    with pytest.raises(CalledProcessError) as failed:
        tested.run("echo a; exit 3", shell=True, stdout=PIPE, check=True)
    assert failed.value.cmd == "echo a; exit 3"
    with pytest.raises(TimeoutExpired) as expired:
        tested.call(["sleep", "1000"], timeout=0.05)
    assert expired.value.timeout == 0.05
