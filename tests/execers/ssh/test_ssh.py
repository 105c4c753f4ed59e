"""What is particular to SSH; the contract suite has all that an SSH host does as any other."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    NOBODY,
    SECONDS,
    Task,
    alive,
    blocked,
    ends_processes,
    eventually,
    gone,
    listening,
    numbers,
    sh,
    state,
)
from programs import environment, has_one_line
from programs import run as run_program
from session_clients import hub
from sshd import Host, make_key, sshd

import wsep_sync
from wsep_sync import (
    Command,
    ConnectError,
    ExitError,
    ExitMissing,
    OutputUnread,
    Process,
    SSHExecer,
    StartError,
    TransportClosed,
    connect,
    run,
    spawn,
)
from wsep_sync.execers.dial import dial
from wsep_sync.execers.ssh import launch as ssh_launch
from wsep_sync.execers.ssh.execer import connect_ssh

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


@pytest.fixture
def host() -> Iterator[Host]:
    with sshd() as host:
        yield host


@pytest.fixture
def home(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory from which one can log in, as with ssh(1)."""
    directory = tmp_path / "home"
    (directory / ".ssh").mkdir(parents=True)
    (directory / ".ssh/id_ed25519").symlink_to(host.key)
    (directory / ".ssh/known_hosts").symlink_to(host.known_hosts)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return directory


def run_cli(subcommand: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return run_program(subcommand, "--timeout", f"{SECONDS}", *arguments, **options)


def output(execer: SSHExecer, command: Command) -> bytes:
    with execer.start(command) as process:
        out = process.stdout.read()
        process.wait(SECONDS)
        return out


def failure(process: Process) -> ExitError:
    with pytest.raises(ExitError) as caught:
        process.wait(SECONDS)
    return caught.value


def refused(*args: object, **options: object) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        SSHExecer(*args, **{"timeout": SECONDS, **options})  # type: ignore[arg-type]
    return caught.value


# Who the host is


def test_a_host_that_is_not_known(host: Host, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    error = refused("127.0.0.1", host.port, known_hosts=str(tmp_path / "none"))
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(host.directory / "host")], stdout=subprocess.PIPE, check=True
    ).stdout.split()[1]
    assert str(error).startswith(f"cannot connect to {host.url}: the host is not in known_hosts")
    assert f"ssh-ed25519 {fingerprint.decode()}" in str(error)


def test_a_host_that_has_another_key(host: Host, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{host.port} {other}")
    error = refused("127.0.0.1", host.port, known_hosts=str(known_hosts))
    assert "another key" in str(error)


def test_a_host_whose_key_is_revoked(host: Host) -> None:
    with open(host.known_hosts, "a") as file:
        file.write(f"@revoked * {host.public_key}\n")
    with pytest.raises(ConnectError, match="revoked"):
        host.connect()


def test_the_key_that_is_known_is_asked_for(host: Host) -> None:
    make_key(host.directory / "second", kind="ecdsa")
    with sshd(f"HostKey {host.directory}/second") as second:
        for key in ("host", "second"):
            public = (host.directory / f"{key}.pub").read_text()
            second.known_hosts.write_text(f"[127.0.0.1]:{second.port} {public}")
            with second.connect() as execer:
                assert output(execer, Command("echo", ["known"])) == b"known\n"


def test_a_file_of_known_hosts_that_is_not_there(host: Host, tmp_path: Path) -> None:
    error = refused("127.0.0.1", host.port, known_hosts=str(tmp_path / "none"))
    assert f"{tmp_path}/none: No such file" in str(error)


# Who logs in


def test_keys_and_known_hosts_of_the_user(host: Host, home: Path) -> None:
    with connect_ssh(host.url, timeout=SECONDS) as execer:
        assert output(execer, Command("echo", ["in"])) == b"in\n"


@contextlib.contextmanager
def agent(key: Path, directory: Path) -> Iterator[str]:
    """Run an SSH agent that has a key; yields its socket."""
    path = directory / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}

        def added() -> bool:
            # The socket is there before the agent listens.
            done = subprocess.run(["ssh-add", str(key)], env=env, check=False, capture_output=True)
            return done.returncode == 0

        eventually(added, "the agent has the key")
        yield str(path)
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_a_key_of_the_agent(
    host: Host, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ssh/id_ed25519").unlink()
    with agent(host.key, tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with connect_ssh(host.url, timeout=SECONDS) as execer:
            assert output(execer, Command("echo", ["in"])) == b"in\n"


def test_a_key_that_is_not_accepted(host: Host, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    make_key(tmp_path / "key")
    with pytest.raises(ConnectError, match="lets nobody in"):
        host.connect(key_filename=str(tmp_path / "key"))


def test_no_key_at_all(host: Host, home: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    with pytest.raises(ConnectError, match="No authentication methods"):
        connect_ssh(host.url, timeout=SECONDS)


def test_a_key_that_is_encrypted(host: Host, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    make_key(tmp_path / "key", passphrase="secret")
    with pytest.raises(ConnectError, match="encrypted"):
        host.connect(key_filename=str(tmp_path / "key"))


def test_a_key_that_is_not_there_or_is_none(host: Host, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").unlink()
    with pytest.raises(ConnectError, match="none: No such file"):
        host.connect(key_filename=str(tmp_path / "none"))
    (tmp_path / "nonsense").write_text("nonsense\n")
    with pytest.raises(ConnectError, match="not a valid"):
        host.connect(key_filename=str(tmp_path / "nonsense"))


def test_a_user_that_there_is_not(host: Host) -> None:
    with pytest.raises(ConnectError, match="ssh://wsep-nobody@127"):
        host.connect(username="wsep-nobody")


# Connecting


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    error = refused("127.0.0.1", port)
    assert str(error) == f"cannot connect to ssh://127.0.0.1:{port}: Connection refused"


def test_a_host_that_has_no_address() -> None:
    assert "nobody.invalid" in str(refused("nobody.invalid"))


@contextlib.contextmanager
def answering(greeting: bytes) -> Iterator[int]:
    """A server that says one thing and then nothing; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)
                while connection.recv(4096):
                    pass

        with Task(answer):
            yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "greeting", [pytest.param(b"", id="nothing"), pytest.param(b"SSH-2.0-x\r\n", id="its version")]
)
def test_a_server_that_says_no_more_than(greeting: bytes) -> None:
    with answering(greeting) as port:
        assert "no answer within 0.3 seconds" in str(refused("127.0.0.1", port, timeout=0.3))


def test_a_server_that_speaks_no_ssh() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n" * 300) as port:
        assert str(port) in str(refused("127.0.0.1", port))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1",
        "ws://127.0.0.1",
        "ssh://",
        "ssh://user@",
        "ssh://user:password@127.0.0.1",
        "ssh://127.0.0.1/path",
        "ssh://127.0.0.1?query",
        "ssh://127.0.0.1:0x16",
        "ssh://127.0.0.1:65536",
    ],
)
def test_no_url_of_a_host(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        connect_ssh(url)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        connect_ssh("ssh://user:secret@127.0.0.1")
    assert "secret" not in str(caught.value)


def test_a_url_with_a_user(host: Host, home: Path) -> None:
    with pytest.raises(ConnectError, match="ssh://a b@127"):
        connect_ssh(host.url.replace("://", "://a%20b@"))


def test_paramiko_logs_nothing_by_itself(host: Host) -> None:
    code = f"""if True:
        from wsep_sync import ConnectError, SSHExecer
        try:
            SSHExecer("127.0.0.1", {host.port}, key_filename={str(host.key)!r}, timeout=30)
        except ConnectError:
            pass
        SSHExecer("127.0.0.1", {host.port}, key_filename={str(host.key)!r},
                  known_hosts={str(host.known_hosts)!r}, timeout=30)
    """
    # The second is dropped as it is.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# One connection, many commands


def test_commands_share_a_connection(host: Host) -> None:
    with host.connect() as execer:
        processes = [execer.start(Command("cat", stdin=True)) for _ in range(5)]
        assert len(host.connections()) == 1
        for process in processes:
            process.stdin.close()
            process.wait(SECONDS)
            process.close()
        assert output(execer, Command("echo", ["more"])) == b"more\n"
        assert len(host.connections()) == 1


def test_a_host_that_limits_the_sessions_of_a_connection() -> None:
    # One of the three is the keeper's.
    with sshd(max_sessions=3) as host, host.connect() as execer:
        with contextlib.ExitStack() as cleanup:
            processes = [
                cleanup.enter_context(execer.start(Command("cat", stdin=True))) for _ in range(5)
            ]
            assert len(host.connections()) == 3
            for process in processes:
                process.send_signal(signal.SIGUSR1)
                assert failure(process).signal == signal.SIGUSR1
        # Those that are not needed any more are closed.
        eventually(lambda: len(host.connections()) == 1, "the end of the other connections")
        assert output(execer, Command("echo", ["more"])) == b"more\n"


def test_a_host_that_allows_one_session() -> None:
    with (
        sshd(max_sessions=1) as host,
        host.connect() as execer,
        pytest.raises(StartError, match="MaxSessions"),
    ):
        execer.start(Command("true"))


def test_a_closed_execer_leaves_its_commands_alone(host: Host) -> None:
    execer = host.connect()
    process = execer.start(sh("cat; kill -9 $$", stdin=True))
    execer.close()
    execer.close()
    with pytest.raises(StartError, match="closed"):
        execer.start(Command("true"))
    with process:
        process.send_signal(0)
        process.stdin.write(b"alive")
        process.stdin.close()
        assert process.stdout.read() == b"alive"
        assert failure(process).signal == signal.SIGKILL
    eventually(lambda: not host.connections(), "the end of the connection")


def test_a_lost_connection(host: Host) -> None:
    with host.connect() as execer:
        process = execer.start(sh("echo $$; exec sleep 1000", stdin=True))
        other = execer.start(Command("sleep", ["1000"]))
        with process, other, ends_processes(process.pid, other.pid):
            assert numbers(process.stdout, 1) == [process.pid]
            with Task(process.stdout.read) as reading, Task(other.wait) as waiting:
                blocked(reading)
                blocked(waiting)
                host.lose_connections()
                for task in (reading, waiting):
                    with pytest.raises(ExitMissing):
                        task.result()
            with pytest.raises(ExitMissing):
                process.wait(SECONDS)
            process.send_signal(signal.SIGTERM)
            process.resize(1, 1)
            with pytest.raises(BrokenPipeError):
                process.stdin.raw.write(b"text")
            # On the host, what keeps watch has noticed, too.
            gone(process.pid, other.pid)
        # And another is made.
        assert output(execer, Command("echo", ["again"])) == b"again\n"


def test_a_lost_connection_while_nobody_reads(host: Host) -> None:
    with host.connect() as execer, execer.start(Command("yes")) as process:
        eventually(lambda: process.stdout.peek(1), "the flood")
        with ends_processes(process.pid):
            host.lose_connections()
            with pytest.raises(ExitMissing):
                process.wait(SECONDS)
            gone(process.pid)


def test_commands_that_ignore_the_end_of_the_connection_are_killed(host: Host) -> None:
    script = "trap '' HUP TERM; sh -c 'echo $$; while :; do sleep 0.1; done' & echo $$; wait; wait"
    with host.connect() as execer, execer.start(sh(script)) as process:
        pids = numbers(process.stdout, 2)
        with ends_processes(*pids):
            host.lose_connections()
            gone(*pids)


def test_a_connection_that_is_lost_while_a_command_starts() -> None:
    with (
        sshd("ForceCommand exec sleep 1000") as host,
        host.connect() as execer,
        Task(execer.start, Command("true")) as starting,
    ):
        # The keeper's is one.
        eventually(lambda: len(host.running("sleep")) == 2, "the command that never says anything")
        host.lose_connections()
        with pytest.raises(TransportClosed):
            starting.result()


def test_a_script_that_forgot_its_commands_can_end(host: Host) -> None:
    script = """if True:
        import sys
        from wsep_sync import Command, SSHExecer
        port, key, known_hosts = sys.argv[1:]
        execer = SSHExecer("127.0.0.1", int(port), None, key, known_hosts, 30.0)
        print(execer.start(Command("sleep", ["1000"])).pid)
    """
    files = [str(host.key), str(host.known_hosts)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(host.port), *files],
        stdout=subprocess.PIPE,
        check=True,
        timeout=SECONDS,
    )
    with ends_processes(int(done.stdout)):
        gone(int(done.stdout))


def test_what_has_ended_can_be_dropped(host: Host) -> None:
    with host.connect() as execer:
        output(execer, Command("true"))
        gc.collect()
        before = (len(os.listdir("/proc/self/fd")), threading.active_count())
        for _ in range(5):
            process = execer.start(sh("echo; exit 3", stdin=True))
            assert failure(process).exit_code == 3
            del process

        def dropped() -> bool:
            gc.collect()
            return (len(os.listdir("/proc/self/fd")), threading.active_count()) <= before

        eventually(dropped, "the end of threads and descriptors")


# What the host lets through


@pytest.mark.parametrize("tty", [False, True])
def test_what_a_login_shell_says_is_dropped(tty: bool) -> None:
    noise = 'echo noise; echo noise >&2; stty -a; eval "$SSH_ORIGINAL_COMMAND"'
    with (
        sshd(f"ForceCommand {noise}") as host,
        host.connect() as execer,
        execer.start(sh("echo out; echo err >&2; exit 3", tty=tty)) as process,
    ):
        both = (process.stdout.read(), process.stderr.read())
        assert both == ((b"out\r\nerr\r\n", b"") if tty else (b"out\n", b"err\n"))
        assert failure(process).exit_code == 3


@pytest.mark.parametrize("tty", [False, True])
def test_a_host_that_runs_a_command_of_its_own(tty: bool) -> None:
    with (
        sshd("ForceCommand echo This account is not available; exit 1") as host,
        host.connect() as execer,
        pytest.raises(StartError, match="did not start it: This account is not available"),
    ):
        execer.start(Command("true", tty=tty))


@pytest.mark.parametrize("tty", [False, True])
def test_a_host_that_does_not_answer(tty: bool) -> None:
    with (
        sshd("ForceCommand exec sleep 1000") as host,
        host.connect() as execer,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Not while it connects, which may take a machine that stalls longer than that.
        patch.setattr(execer._connections[0], "_timeout", 0.3)
        with pytest.raises(StartError, match="no answer from ssh://127"):
            execer.start(Command("true", tty=tty))


def test_a_command_that_was_given_up_never_runs(tmp_path: Path) -> None:
    gate, pid, seen = (tmp_path / name for name in ("gate", "pid", "seen"))
    os.mkfifo(gate)
    config = f"""ForceCommand case $SSH_ORIGINAL_COMMAND in
        *wsep_groups*) ;; *) echo $$ > {pid}; read x < {gate};; esac; eval "$SSH_ORIGINAL_COMMAND"
    """
    config = " ".join(config.split())
    with (
        sshd(config) as host,
        host.connect() as execer,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(execer._connections[0], "_timeout", 0.3)
        with pytest.raises(StartError, match="no answer"):
            execer.start(sh('echo > "$1"', str(seen)))
        gate.write_text("go\n")
        gone(int(pid.read_text()))
    assert not seen.exists()


def test_a_login_shell_that_talks_without_end() -> None:
    with (
        sshd("ForceCommand exec yes") as host,
        host.connect() as execer,
        pytest.raises(StartError, match="too much"),
    ):
        execer.start(Command("true"))


def test_a_host_that_gives_no_terminals() -> None:
    with sshd("PermitTTY no") as host, host.connect() as execer:
        with pytest.raises(StartError, match="refused"):
            execer.start(Command("true", tty=True))
        assert output(execer, Command("echo", ["well"])) == b"well\n"


@pytest.mark.parametrize("fields", [{"uid": NOBODY}, {"gid": NOBODY}])
def test_uid_and_gid_are_refused(host: Host, fields: dict[str, int]) -> None:
    with host.connect() as execer, pytest.raises(StartError, match="uid and gid cannot be set"):
        execer.start(Command("true", **fields))


EVERY_BYTE = os.fsdecode(bytes(range(1, 256)))


@pytest.mark.parametrize("tty", [False, True])
def test_every_byte_in_arguments_and_environment(host: Host, tty: bool) -> None:
    script = 'stty raw 2> /dev/null; printf "[%s]" "$@" "$WSEP_A"'
    with host.connect() as execer:
        out = output(execer, sh(script, EVERY_BYTE, env=[f"WSEP_A={EVERY_BYTE}"], tty=tty))
    assert out == 2 * b"[%b]" % (os.fsencode(EVERY_BYTE), os.fsencode(EVERY_BYTE))


def test_environment_with_names_that_shells_have_their_own_mind_about(host: Host) -> None:
    entries = [
        f"{name}=a value"
        for name in (
            *("_", "A-B", "a.b", "ä", "BASH_ENV", "ENV", "EUID", "GROUPS", "HOME", "IFS", "LC_ALL"),
            *("LINENO", "OLDPWD", "OPTIND", "PPID", "PS1", "PS4", "PWD", "RANDOM", "SECONDS"),
            *("SHELLOPTS", "SHLVL", "TERM", "UID", "wsep_mark"),
        )
    ]
    show = "import os; print(ascii(sorted(f'{n}={v}' for n, v in os.environ.items())))"
    with host.connect() as execer:
        out = output(execer, Command(sys.executable, ["-c", show], env=[*entries, "LC_ALL=C"]))
    got = eval(out)
    assert set(entries) - {"LC_ALL=a value"} | {"LC_ALL=C"} <= set(got)


def test_environment_is_no_argument_that_other_users_can_read(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    config = f'ForceCommand echo "$SSH_ORIGINAL_COMMAND" >> {file}; eval "$SSH_ORIGINAL_COMMAND"'
    with sshd(config) as host, host.connect() as execer:
        for tty in (False, True):
            command = sh('echo "$WSEP_A"; tr "\\0" "\\n" < /proc/$$/cmdline', tty=tty)
            command = replace(command, env=("WSEP_A=secret",))
            assert output(execer, command).split()[0] == b"secret"
            assert b"exec env" not in ssh_launch.request(command, "mark")
    assert file.read_text().count("exec sh -c") == 3  # the keeper is one
    assert "secret" not in file.read_text()


@pytest.mark.parametrize("name", ["a=b", "-x"])
def test_programs_with_odd_names(host: Host, tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text('#!/bin/sh\necho "found $1 $WSEP_A"\n')
    program.chmod(0o755)
    env = [f"PATH={tmp_path}:/usr/bin:/bin", "WSEP_A=a"]
    with host.connect() as execer:
        assert output(execer, Command(name, ["--x"], env=env)) == b"found --x a\n"
        relative = Command(f"./{name}", ["--x"], env=env, working_dir=str(tmp_path))
        assert output(execer, relative) == b"found --x a\n"


def test_a_program_and_a_variable_that_cannot_be_told_apart(host: Host) -> None:
    with host.connect() as execer, pytest.raises(StartError, match="A-B"):
        execer.start(Command("a=b", env=["A-B=c"]))


@pytest.mark.parametrize("directory", ["-", "wsep x", "../wsep"])
def test_relative_working_directories(host: Host, tmp_path: Path, directory: str) -> None:
    # Relative to where a login begins, whatever CDPATH says.
    with host.connect() as execer:
        start = Path(output(execer, Command("pwd")).decode().rstrip())
    inside = f"{os.path.relpath(tmp_path, start)}/a/{directory}"
    os.makedirs(tmp_path / "a" / directory)
    with sshd(f"SetEnv CDPATH={tmp_path}") as host, host.connect() as execer:
        out = output(execer, Command("/bin/pwd", ["-P"], working_dir=inside)).decode().rstrip()
    assert out == str((tmp_path / "a" / directory).resolve())


def test_an_empty_program(host: Host, tmp_path: Path) -> None:
    (tmp_path / "program").touch(0o755)
    with host.connect() as execer, pytest.raises(OSError, match="Exec format error"):
        execer.start(Command(str(tmp_path / "program")))


# Signals, and how commands end


def test_end_by_a_signal_that_ssh_has_no_name_for(host: Host) -> None:
    command = Command("bash", ["-c", "kill -BUS $$"])
    with host.connect() as execer, execer.start(command) as process:
        error = failure(process)
    assert (error.exit_code, error.signal) == (-1, None)
    assert str(error) == "signal: one that SSH has no name for"


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGBUS, signal.SIGWINCH, 40])
def test_signals_that_ssh_has_no_name_for_can_be_sent(host: Host, number: int) -> None:
    script = f"""
        trap 'echo got; exit 5' {number - 128 * (number == signal.SIGSTOP)} 2> /dev/null
        echo ready
        while :; do sleep 0.01; done
    """
    with host.connect() as execer, execer.start(Command("bash", ["-c", script])) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        if number == signal.SIGSTOP:
            eventually(lambda: state(process.pid) == "T", "the stop")
            process.kill()
            assert failure(process).signal == signal.SIGKILL
        else:
            assert process.stdout.read() == b"got\n"
            assert failure(process).exit_code == 5


def test_a_job_in_the_background_holds_the_output_but_not_the_status(host: Host) -> None:
    with host.connect() as execer:
        fifo = host.directory / "fifo"
        os.mkfifo(fifo)
        script = '(read x < "$1"; echo late "$x") & echo early; exit 3'
        with execer.start(sh(script, str(fifo))) as process:
            assert failure(process).exit_code == 3
            assert process.stdout.readline() == b"early\n"
            fifo.write_text("enough\n")
            assert process.stdout.read() == b"late enough\n"


def test_an_output_that_nobody_reads(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsep_sync.execers.ssh.process._UNREAD_AFTER", 0.1)
    with (
        host.connect() as execer,
        execer.start(Command("yes")) as process,
        pytest.raises(OutputUnread),
    ):
        process.wait(SECONDS)


def test_without_the_keeper_there_are_no_signals(host: Host) -> None:
    with host.connect() as execer, execer.start(sh("echo $PPID; exec sleep 1000")) as process:
        (session,) = numbers(process.stdout, 1)
        with ends_processes(process.pid):
            children = Path(f"/proc/{session}/task/{session}/children").read_text()
            (keeper,) = {int(child) for child in children.split()} - {process.pid}
            os.kill(keeper, signal.SIGKILL)

            def unsupported() -> bool:
                try:
                    process.send_signal(signal.SIGCONT)
                except io.UnsupportedOperation:
                    return True
                return False

            eventually(unsupported, "the end of the keeper")
            # Another connection has another.
            with execer.start(Command("sleep", ["1000"])) as other:
                other.send_signal(signal.SIGTERM)
                assert failure(other).signal == signal.SIGTERM
            process.close()
            with pytest.raises(ExitMissing):
                process.wait()


# Input


def test_the_input_has_a_descriptor(host: Host) -> None:
    data = os.urandom(1_000_000)
    with host.connect() as execer, execer.start(Command("cat", stdin=True)) as process:
        with Task(process.stdout.read) as reading:
            subprocess.run(["cat"], input=data, stdout=process.stdin.fileno(), check=True)
            process.stdin.write(b"and more")
            process.stdin.close()
            assert reading.result() == data + b"and more"
        process.wait(SECONDS)


def test_the_descriptor_of_an_input_breaks_when_the_command_has_ended(host: Host) -> None:
    with host.connect() as execer, execer.start(Command("true", stdin=True)) as process:
        descriptor = process.stdin.fileno()
        process.wait(SECONDS)

        def broken() -> bool:
            try:
                os.write(descriptor, b"text")
            except BrokenPipeError:
                return True
            return False

        eventually(broken, "the end of the pipe")
    with host.connect() as execer, execer.start(Command("true", stdin=True)) as process:
        process.wait(SECONDS)
        descriptor = process.stdin.fileno()
        eventually(broken, "the end of the pipe")


@pytest.mark.parametrize(
    ("setting", "typed"),
    [("^D", b"\x04"), ("^X", b"\x18"), ("^?", b"\x7f"), ("q", b"q"), ("0xe4", b"\xe4")],
)
def test_the_end_of_a_terminal_s_input(host: Host, setting: str, typed: bytes) -> None:
    script = 'stty raw -echo eof "$1"; echo ready; head -c 1 | od -An -tx1'
    with host.connect() as execer, execer.start(sh(script, setting, tty=True)) as process:
        assert process.stdout.readline() == b"ready\n"
        process.stdin.close()
        assert process.stdout.read().split() == [typed.hex().encode()]


def test_a_terminal_whose_input_has_no_end(host: Host) -> None:
    script = "stty -echo eof undef; echo ready; read x; echo got $x"
    with host.connect() as execer, execer.start(sh(script, tty=True)) as process:
        assert process.stdout.readline() == b"ready\r\n"
        process.stdin.raw.send_eof()
        process.stdin.write(b"text\n")
        process.stdin.flush()
        assert process.stdout.read() == b"got text\r\n"


# Through the rest of the package


def test_a_server_that_passes_commands_on(host: Host) -> None:
    with listening(lambda: host.connect()) as listener, connect(listener.url) as execer:
        with execer.start(sh("cat; echo err >&2; exit 3", stdin=True)) as process:
            process.stdin.write(b"text")
            process.stdin.close()
            assert (process.stdout.read(), process.stderr.read()) == (b"text", b"err\n")
            assert failure(process).exit_code == 3
        with pytest.raises(FileNotFoundError):
            execer.start(Command("wsep-no-such-command"))
        with pytest.raises(StartError, match="uid and gid"):
            execer.start(Command("true", uid=NOBODY))
        process = execer.start(sh("echo $$; exec sleep 1000"))
        numbers(process.stdout, 1)
        assert alive(process.pid)
        process.close()
        gone(process.pid)
    eventually(lambda: not host.connections(), "the end of the connections")


def test_a_server_whose_host_cannot_be_reached(host: Host, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    with (
        listening(lambda: host.connect(known_hosts=str(tmp_path / "none"))) as listener,
        connect(listener.url) as execer,
        pytest.raises(StartError, match="not in known_hosts"),
    ):
        execer.start(Command("true"))


def test_sessions(host: Host) -> None:
    with host.connect() as execer, hub(execer) as sessions:
        one = sessions.attach("work", rows=30, cols=90)
        one.run(b"x='still here'; echo one$((1 + 1))", b"one2")
        one.run(b"stty size", b"30 90")
        one.leave()
        sessions.left()
        two = sessions.attach("work", rows=31, cols=91)
        assert two.process.reattached
        two.until(b"one2")
        two.run(b'echo "$x" | tr a-z A-Z', b"STILL HERE")
        two.run(b"stty size", b"31 91")
        two.type(b"exit 7\r")
        assert two.exit_code() == 7


def test_a_session_on_a_connection_that_is_lost(host: Host) -> None:
    with host.connect() as execer, hub(execer) as sessions:
        client = sessions.attach("work")
        client.run(b"echo one$((1 + 1))", b"one2")
        host.lose_connections()
        client.ended()
        with pytest.raises((ExitMissing, TransportClosed)):
            client.process.wait(SECONDS)
        again = sessions.attach("work")
        assert not again.process.reattached
        again.run(b"echo two$((1 + 1))", b"two2")


def test_what_takes_a_url_takes_that_of_a_host(
    host: Host, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dial.__kwdefaults__, "timeout", SECONDS)
    with dial(host.url) as execer:
        assert isinstance(execer, SSHExecer)
    done = run(["tr", "a-z", "A-Z"], input="text", capture_output=True, text=True, url=host.url)
    assert (done.returncode, done.stdout) == (0, "TEXT")
    with spawn("sh -c 'echo hello; read x; echo got $x'", url=host.url) as program:
        program.expect(b"hello")
        program.sendline(b"text")
        program.expect(b"got text")
    (outcome,) = wsep_sync.map(["echo", "hello"], [host.url])
    assert outcome.result is not None
    assert outcome.result.stdout == b"hello\n"


def test_notty(host: Host, home: Path) -> None:
    done = run_cli("notty", "--url", host.url, "--", "sh", "-c", "cat; exit 3", input=b"text")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"text", b"")
    done = run_cli("notty", "--url", host.url, "--", "wsep-no-such-command")
    assert (done.returncode, done.stdout) == (127, b"")
    has_one_line(done.stderr, "wsep-no-such-command", "No such file")


def test_tty(host: Host, home: Path) -> None:
    done = run_cli("tty", "--url", host.url, "--", "sh", "-c", "tty; stty size; exit 3")
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.startswith(b"/dev/")
    assert done.stdout.endswith(b"24 80\r\n")


def test_the_command_line_says_what_is_wrong(host: Host, home: Path) -> None:
    (home / ".ssh/known_hosts").unlink()
    for subcommand in ("notty", "tty"):
        done = run_cli(subcommand, "--url", host.url, "--", "true")
        assert (done.returncode, done.stdout) == (255, b"")
        has_one_line(done.stderr, host.url, "not in known_hosts")
    done = run_cli("tty", "--id", "work", "--url", host.url, "--", "true")
    assert done.returncode == 255
    has_one_line(done.stderr, "--id")
    done = run_cli("notty", "--url", "ssh://127.0.0.1:port", "--", "true")
    assert done.returncode == 255
    has_one_line(done.stderr, "ssh://127.0.0.1:port")
    done = run_cli("sessions", "--url", host.url)
    assert done.returncode == 255
    has_one_line(done.stderr, host.url, "not a WebSocket URL")


def test_without_paramiko(tmp_path: Path) -> None:
    (tmp_path / "paramiko.py").write_text("raise ImportError('there is none')\n")
    code = "from wsep_sync import *; SSHExecer('127.0.0.1')"
    env = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        b"ImportError: SSH needs paramiko: pip install 'wsep-sync[ssh]'"
    )
    done = run_cli("notty", "--url", "ssh://127.0.0.1", "--", "true", env=env)
    assert done.returncode == 255
    has_one_line(done.stderr, "pip install 'wsep-sync[ssh]'")
