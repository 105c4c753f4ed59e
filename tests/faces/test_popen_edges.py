"""Where subprocess's face differs from subprocess, and what only a distance brings."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faces import Face
from helpers import gone, listening

import wsep_sync
from wsep_sync import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    Command,
    LocalExecer,
    Popen,
    RestrictedExecer,
    StartError,
    TimeoutExpired,
    connect,
    run,
)
from wsep_sync.execers.prelude import Prelude
from wsep_sync.faces.copying import same_open_file

EXAMPLES = Path(__file__).parents[2] / "examples"


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
        ("startupinfo", object()),
        ("creationflags", 1),
        ("process_group", 5),
        ("size", (24, 80)),
        ("id", "a"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tested: Face, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        tested.run(["true"], **{name: value})


@pytest.mark.parametrize(("name", "value"), [("preexec_fn", print), ("pass_fds", [0])])
def test_what_a_child_alone_can_have(remote: Face, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        remote.run(["true"], **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("executable", "/bin/false"),
        ("restore_signals", False),
        ("extra_groups", []),
        ("user", "nobody"),
        ("user", 0),
        ("group", "daemon"),
    ],
)
def test_what_a_server_without_additions_cannot_do(plain: Face, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        plain.run(["true"], **{name: value})


def test_a_user_by_name_is_looked_up_where_the_command_runs(tested: Face, remote: Face) -> None:
    assert os.geteuid() == 0, "these tests start commands as other users"
    nobody, daemon = pwd.getpwuid(65534).pw_name, grp.getgrnam("daemon").gr_gid
    script = "id -u; id -g"
    for tty in (False, True):
        done = tested.run(script, shell=True, user=nobody, group="daemon", tty=tty, stdout=PIPE)
        assert done.stdout.split() == [b"65534", b"%d" % daemon]
    for root in ("root", 0):
        done = tested.run(script, shell=True, user=root, group=root, stdout=PIPE)
        assert done.stdout.split() == [b"0", b"0"]
    for name in ("user", "group"):
        with pytest.raises(KeyError if tested.options == {} else StartError, match="no-such"):
            tested.run(["true"], **{name: "no-such"})


_NOT_ROOT = """
import grp, os, pwd
from wsep_sync import Command, LocalExecer, run
run(["true"])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for asked in ({"user": "root"}, {"group": "root"}, {"user": "0"}, {"group": "0", "user": "65534"}):
    try:
        LocalExecer().start(Command("true", **asked))
    except PermissionError as error:
        print(error)
with LocalExecer().start(Command("id", ["-u"], user="65534")) as process:
    print(process.stdout.read().decode(), end="")
"""


def test_who_is_not_root_starts_nothing_as_root() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WSEP_URL"}
    done = subprocess.run(
        [sys.executable, "-c", _NOT_ROOT], env=environment, stdout=PIPE, text=True, check=True
    )
    refused = "[Errno 1] Operation not permitted: 'true'\n"
    assert done.stdout == 4 * refused + "65534\n"


def test_the_groups_besides(tested: Face) -> None:
    daemon = grp.getgrnam("daemon").gr_gid
    for options in ({}, {"user": 65534, "group": 65534}, {"tty": True}):
        groups = {"extra_groups": ["daemon", 7], "stdout": PIPE}
        done = tested.run("grep ^Groups: /proc/self/status", shell=True, **groups, **options)
        assert {int(word) for word in done.stdout.split()[1:]} == {daemon, 7}
    done = tested.run(["grep", "^Groups:", "/proc/self/status"], extra_groups=[], stdout=PIPE)
    assert done.stdout.split()[1:] == []


def test_groups_that_are_none(tested: Face) -> None:
    with pytest.raises(ValueError, match="not a string"):
        tested.run(["true"], extra_groups="daemon")
    with pytest.raises(TypeError, match="extra_groups"):
        tested.run(["true"], extra_groups=[1.5])
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match="extra_groups"):
            tested.run(["true"], extra_groups=[number])
    for name in ("user", "group"):
        with pytest.raises(OverflowError, match=name):
            tested.run(["true"], **{name: 2**64})


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_a_program_that_has_another_name(tested: Face, tty: bool) -> None:
    program = ["no-such-name", "-c", "echo $0; echo error >&2"]
    for options in ({}, {"user": 65534}):
        done = tested.run(program, executable="sh", tty=tty, capture_output=True, **options)
        assert (done.stdout + done.stderr).split() == [b"no-such-name", b"error"]
    with pytest.raises(FileNotFoundError) as caught:
        tested.run(["sh"], executable="/no/such", tty=tty)
    assert caught.value.filename == "/no/such"


def test_signals_that_python_ignores(tested: Face) -> None:
    ignored = {}
    for restore in (True, False):
        for user in (None, 65534):
            done = tested.run(
                ["grep", "SigIgn", "/proc/self/status"],
                restore_signals=restore,
                user=user,
                stdout=PIPE,
            )
            ignored[restore, user] = int(done.stdout.split()[1], 16)
    pipe = 1 << signal.SIGPIPE - 1
    assert [bool(mask & pipe) for mask in ignored.values()] == [False, False, True, True]


def test_what_is_no_more_than_a_hint(tested: Face) -> None:
    done = tested.run(["cat"], close_fds=False, pipesize=8192, input=b"a", capture_output=True)
    assert (done.stdout, done.stderr) == (b"a", b"")


def test_a_pipe_of_another_size(local: Face) -> None:
    with local.Popen(["cat"], stdin=PIPE, stdout=PIPE, pipesize=8192) as process:
        for file in (process.stdin, process.stdout):
            assert fcntl.fcntl(file.fileno(), fcntl.F_GETPIPE_SZ) == 8192


# What is done in the forked child of this process, which has threads: Python warns of that.
FORKS = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@FORKS
@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("leads", [os.setsid, os.setpgrp, lambda: None], ids=["sid", "grp", ""])
def test_a_function_in_the_child(local: Face, tty: bool, leads: Any, tmp_path: Path) -> None:
    def first() -> None:
        leads()
        os.umask(0o27)

    options = {"preexec_fn": first, "tty": tty, "stdout": PIPE}
    with local.Popen("umask; test -t 1 || echo pipe; sleep 1000", shell=True, **options) as process:
        assert process.stdout.readline().strip() == b"0027"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    # The two between which none can tell: it leads whatever it can.
    with local.Popen(["cat"], preexec_fn=leads, stdin=PIPE, stdout=PIPE) as process:
        assert os.getpgid(process.pid) == process.pid


@FORKS
def test_a_function_that_fails_in_the_child(local: Face) -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
        local.Popen(["true"], preexec_fn=fail)


@pytest.mark.parametrize(
    "options", [{}, {"user": 65534}, {"tty": True}, {"close_fds": False}], ids=repr
)
def test_descriptors_that_a_child_is_given(
    local: Face, options: dict[str, Any], tmp_path: Path
) -> None:
    with (tmp_path / "file").open("wb") as file:
        number = file.fileno()
        shown = ["readlink", f"/proc/self/fd/{number}"]
        if options.get("close_fds", True):
            done = local.run(shown, pass_fds=[number], stdout=PIPE, **options)
        else:
            os.set_inheritable(number, True)
            done = local.run(shown, stdout=PIPE, **options)
        assert done.stdout.strip() == str(tmp_path / "file").encode()
        os.set_inheritable(number, True)
        done = local.run(shown, stdout=PIPE, **options | {"close_fds": True})
        assert (done.returncode, done.stdout) == (1, b"")


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
        with pytest.raises(OSError, match="Invalid argument"):
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
    with listening(lambda: execer) as listener, (tmp_path / "out").open("w") as out:
        run(["echo", "b"], stdout=out, stderr=out, check=True, url=listener.url)
        with pytest.raises(PermissionError):
            run(["true"], stdout=out, stderr=out, url=listener.url)
        with pytest.raises(PermissionError):
            run(["echo"], stdout=out, stderr=STDOUT, url=listener.url)
    assert (tmp_path / "out").read_text() == "b\n"


def test_one_output_for_both_at_a_server_that_merges(tmp_path: Path) -> None:
    execer = RestrictedExecer(LocalExecer(), ["ls"])
    missing = ["ls", "/", str(tmp_path / "missing")]
    with listening(execer) as listener, (tmp_path / "out").open("w") as out:
        done = run(missing, stdout=PIPE, stderr=STDOUT, url=listener.url)
        assert b"missing" in done.stdout
        assert b"etc" in done.stdout
        run(missing, stdout=out, stderr=out, url=listener.url)
    assert (tmp_path / "out").read_bytes() == done.stdout


# The environment


def test_env_adds(tested: Face) -> None:
    done = tested.run("echo $A ${PATH:+path}", shell=True, env={"A": "a"}, stdout=PIPE)
    assert done.stdout == b"a path\n"


def test_env_may_have_names_that_no_shell_knows(tested: Face, tmp_path: Path) -> None:
    done = tested.run(["printenv", "a.b-c"], env={"a.b-c": "x"}, stdout=PIPE)
    assert done.stdout == b"x\n"
    with (tmp_path / "out").open("w") as out:
        tested.run(["printenv", "a.b-c"], env={"a.b-c": "x"}, stdout=out, stderr=out)
    assert (tmp_path / "out").read_text() == "x\n"
    for options in ({"umask": 0o22}, {"clean_env": True}, {"stderr": STDOUT}):
        done = tested.run(
            ["/usr/bin/printenv", "a.b-c"], env={"a.b-c": "x"}, stdout=PIPE, **options
        )
        assert done.stdout == b"x\n"


def test_a_shell_does_not_pass_on_names_that_it_does_not_know(plain: Face, tmp_path: Path) -> None:
    # Nobody has asked for a shell, only for an order.
    with (tmp_path / "out").open("w") as out:
        plain.run(["printenv", "a.b-c"], env={"a.b-c": "x"}, stdout=out, stderr=out)
    assert (tmp_path / "out").read_text() == "x\n"
    for options in ({"umask": 0o22}, {"clean_env": True}, {"stdout": PIPE, "stderr": STDOUT}):
        with pytest.raises(ValueError, match="env"):
            plain.run(["true"], env={"a.b-c": "x"}, **options)


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


def test_a_clean_environment_and_what_looks_like_a_variable(tested: Face, plain: Face) -> None:
    with pytest.raises(FileNotFoundError):
        tested.run(["a=b"], clean_env=True)
    with pytest.raises(ValueError, match="clean_env"):
        plain.run(["a=b"], clean_env=True)


def test_a_clean_environment_is_what_is_given(tested: Face) -> None:
    env = {"A": "a", "PATH": "/usr/bin:/bin"}
    done = tested.run(["env"], env=env, clean_env=True, stdout=PIPE)
    assert sorted(done.stdout.split()) == [b"A=a", b"PATH=/usr/bin:/bin"]
    assert tested.run(["env"], clean_env=True, stdout=PIPE).stdout == b""
    done = tested.run(["env"], env=env, clean_env=True, tty=True, stdout=PIPE)
    assert sorted(done.stdout.split()) == [b"A=a", b"PATH=/usr/bin:/bin"]


def test_both_in_one_of_a_missing_interpreter(tested: Face, plain: Face, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o700)
    for face in (tested, plain):
        with pytest.raises(FileNotFoundError):
            face.run([tmp_path / "script"], stdout=PIPE)
    with pytest.raises(FileNotFoundError):
        tested.run([tmp_path / "script"], stdout=PIPE, stderr=STDOUT)
    done = plain.run([tmp_path / "script"], stdout=PIPE, stderr=STDOUT)
    assert done.returncode == 127
    assert b"not found" in done.stdout


def test_a_mask_and_a_user(tested: Face, tmp_path: Path) -> None:
    # A Python becomes the user's command, which has the mask all the same.
    assert os.geteuid() == 0, "these tests start commands as other users"
    script = "umask; id -u; echo error >&2"
    options = {"umask": 0o1027, "user": 65534, "stdout": PIPE, "stderr": STDOUT}
    done = tested.run(script, shell=True, **options)
    assert done.stdout.split() == [b"0027", b"65534", b"error"]


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
