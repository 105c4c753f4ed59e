"""What may be run, and as whom: over a local execer and over real WebSockets."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import NOBODY, SECONDS, RawClient, Task, listening, sh, start_message
from local_commands import output
from session_clients import hub, session

from wsep_sync import (
    Command,
    Execer,
    LocalExecer,
    Process,
    RestrictedExecer,
    StartError,
    UserExecer,
    connect,
)
from wsep_sync.execers.policy import Rule
from wsep_sync.protocol.messages import Start


@contextlib.contextmanager
def locally(policy: Callable[[Execer], Execer]) -> Iterator[Execer]:
    yield policy(LocalExecer())


@contextlib.contextmanager
def served(policy: Callable[[Execer], Execer]) -> Iterator[Execer]:
    with listening(policy(LocalExecer())) as listener, connect(listener.url) as execer:
        yield execer


@contextlib.contextmanager
def around_a_connection(policy: Callable[[Execer], Execer]) -> Iterator[Execer]:
    with listening() as listener, policy(connect(listener.url)) as execer:
        yield execer


Way = Callable[[Callable[[Execer], Execer]], AbstractContextManager[Execer]]


@pytest.fixture(params=[locally, served, around_a_connection])
def way(request: pytest.FixtureRequest) -> Way:
    """Where a policy stands."""
    return request.param


def refused(execer: Execer, command: Command) -> StartError:
    with pytest.raises(StartError) as caught:
        execer.start(command)
    return caught.value


# What may be run


def restricted(allow: Collection[str] | Callable[[Command], Command | None]) -> object:
    return lambda execer: RestrictedExecer(execer, allow)


def not_allowed(execer: Execer, command: Command) -> bool:
    error = refused(execer, command)
    assert isinstance(error, PermissionError)
    assert str(error) == f"[Errno 13] Not allowed: {command.command!r}"
    return True


def test_what_is_allowed_by_name(way: Way, tty: bool) -> None:
    with way(restricted({"echo", "/bin/cat"})) as execer:
        assert output(execer, Command("echo", ["x"], tty=tty)).strip() == "x"
        assert output(execer, Command("/bin/cat", ["/dev/null"], tty=tty)) == ""
        for name in ("sh", "/bin/echo", "cat", "./echo", "ECHO", "echo ", "bin/cat", "//bin/cat"):
            assert not_allowed(execer, Command(name, tty=tty))
        assert output(execer, Command("echo", ["y"], tty=tty)).strip() == "y"


def test_nothing_is_allowed(way: Way) -> None:
    with way(restricted([])) as execer:
        assert not_allowed(execer, Command("true"))
        assert not_allowed(execer, Command(""))


def test_what_is_allowed_by_name_gets_no_environment(way: Way, tty: bool, tmp_path: Path) -> None:
    other = tmp_path / "env"
    other.write_text("#!/bin/sh\necho another program\n")
    other.chmod(0o755)
    env = [f"PATH={tmp_path}", f"LD_PRELOAD={tmp_path}/none.so", "OTHER=x", "TERM=vt100"]
    command = Command("env", env=env, working_dir=str(tmp_path), tty=tty)
    assert "another program" in output(LocalExecer(), replace(command, command=str(other)))
    with way(restricted({"env"})) as execer:
        lines = output(execer, command).split("\n")
    assert f"PATH={os.environ['PATH']}" in [line.strip() for line in lines]
    assert not [line for line in lines if line.startswith(("LD_PRELOAD=", "OTHER=", "TERM=vt100"))]


@pytest.mark.parametrize("name", ["./run", "bin/run", "../run", "a/"])
def test_a_name_that_is_relative_to_what_clients_choose(name: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        RestrictedExecer(LocalExecer(), {"make", name})


@pytest.mark.parametrize("path", ["/bin:", ":/bin", "/bin::/usr/bin", "/bin:.", "bin", ""])
def test_a_path_that_is_relative_to_what_clients_choose(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path)
    with pytest.raises(ValueError, match=r"'make'.*PATH has relative entries"):
        RestrictedExecer(LocalExecer(), {"/bin/cat", "make"})
    RestrictedExecer(LocalExecer(), {"/bin/cat"})
    RestrictedExecer(LocalExecer(), lambda command: command)
    monkeypatch.delenv("PATH")
    RestrictedExecer(LocalExecer(), {"make"})


@pytest.mark.parametrize("allow", ["make", b"make", [b"make"], [1]])
def test_what_is_no_collection_of_names(allow: Collection[str]) -> None:
    with pytest.raises(TypeError, match="allow"):
        RestrictedExecer(LocalExecer(), allow)


def test_a_function_decides_and_rewrites(way: Way, tty: bool) -> None:
    def decide(command: Command) -> Command | None:
        if command.command == "sh":
            raise StartError("there is no shell here, but \N{SNOWMAN}")
        if command.command != "echo":
            return None
        return replace(command, args=("rewritten", *command.args), env=(*command.env, "B=b"))

    with way(restricted(decide)) as execer:
        assert output(execer, Command("echo", ["x"], tty=tty)).strip() == "rewritten x"
        assert not_allowed(execer, Command("/bin/echo", ["x"], tty=tty))
        error = refused(execer, sh("echo x", tty=tty))
        assert "there is no shell here, but \N{SNOWMAN}" in str(error)
        assert output(execer, Command("echo", ["y"], tty=tty)).strip() == "rewritten y"


def test_a_function_may_let_the_environment_through(way: Way) -> None:
    with way(restricted(lambda command: command)) as execer:
        assert "A=b\n" in output(execer, Command("env", env=["A=b"]))


def broken(command: Command) -> Command | None:
    raise ValueError("an internal secret")


@pytest.mark.parametrize("decide", [broken, lambda command: True, lambda command: False])
def test_a_function_that_fails_allows_nothing_and_tells_nothing(
    way: Way,
    tty: bool,
    decide: Callable[[Command], Command | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with way(restricted(decide)) as execer:
        for _ in range(2):
            with caplog.at_level(logging.ERROR, "wsep_sync"):
                caplog.clear()
                error = refused(execer, Command("echo", tty=tty))
            assert str(error).removeprefix("start command: ") == "internal error"
            (record,) = caplog.records
            assert re.fullmatch(
                r'failure reason="internal error in deciding what is allowed: (Type|Value)Error'
                r' at (test_)?policy.py:\d+"',
                record.getMessage(),
            )


def test_the_reason_that_any_client_sees() -> None:
    with listening(RestrictedExecer(LocalExecer(), ["true"])) as listener:
        with RawClient(listener.url) as client:
            client.send(start_message(sh("true")))
            client.receive_all()
            assert (client.code, client.reason) == (1011, "start command: exec sh: not allowed")
        with RawClient(listener.url) as client:
            client.start(Command("true"))
            assert client.receive_until("exit_code")["exit_code"] == 0


def test_a_session_is_restricted_when_it_starts_and_not_when_it_is_attached() -> None:
    with hub(RestrictedExecer(LocalExecer(), {"cat"})) as sessions:
        assert not_allowed(sessions, session("x", "sh"))
        assert sessions.server.session_count() == 0
        client = sessions.attach("x", "cat")
        assert not client.process.reattached
        again = sessions.attach("x", "sh")
        assert again.process.reattached
        assert again.process.pid == client.process.pid


def test_all_who_wait_for_a_session_are_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    asked, opened = threading.Event(), threading.Event()

    def decide(command: Command) -> Command | None:
        asked.set()
        assert opened.wait(SECONDS)
        raise ValueError("an internal secret")

    with hub(RestrictedExecer(LocalExecer(), decide)) as sessions, contextlib.ExitStack() as stack:
        tasks = [stack.enter_context(Task(sessions.start, session("x")))]
        assert asked.wait(SECONDS)
        tasks += [stack.enter_context(Task(sessions.start, session("x"))) for _ in range(3)]
        opened.set()
        for task in tasks:
            with pytest.raises(StartError, match="internal error") as caught:
                task.result()
            assert "secret" not in str(caught.value)
    caplog.clear()  # the traceback holds the connection


ADDED = [
    {"umask": 0},
    {"clean_env": True},
    {"argv0": "sh"},
    {"user": "nobody"},
    {"group": "daemon"},
    {"groups": [0]},
    {"restore_signals": False},
]


@pytest.mark.parametrize("added", ADDED, ids=repr)
@pytest.mark.parametrize("allow", [["env"], lambda command: replace(command, env=())])
def test_what_a_rule_may_not_know_of_is_not_to_be_had(
    added: dict[str, Any], allow: Collection[str] | Rule
) -> None:
    command = Command("env", **added)
    execer = RestrictedExecer(LocalExecer(), allow)
    with pytest.raises(StartError, match="cannot be done"):
        execer.start(command)
    # Nor by a client that does not care for what the server has named.
    with listening(execer) as listener, RawClient(listener.url) as client:
        named = client.ws.getheaders()["wsep-features"].split()
        assert "merge" in named
        assert not command.additions & {*named}
        client.send(Start(command, command.additions).encode())
        client.receive_all()
        assert (client.code, "cannot be done" in client.reason) == (1011, True)


def test_an_execer_that_names_nothing_is_not_asked() -> None:
    class Wrapper(Execer):
        def start(self, command: Command) -> Process:
            raise AssertionError("asked")

    command = Command("env", clean_env=True)
    with listening(Wrapper()) as listener, RawClient(listener.url) as client:
        client.send(Start(command, command.additions).encode())
        client.receive_all()
        assert (client.code, "cannot be done" in client.reason) == (1011, True)
    with (
        listening(Wrapper()) as listener,
        connect(listener.url) as execer,
        pytest.raises(StartError, match="cannot be done"),
    ):
        execer.start(command)


class Closable(LocalExecer):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_what_wraps_an_execer_closes_it() -> None:
    inner = Closable()
    with RestrictedExecer(UserExecer(inner, os.geteuid()), ["true"]):
        assert not inner.closed
    assert inner.closed


# As whom


@pytest.fixture
def nobody() -> pwd.struct_passwd:
    assert os.geteuid() == 0, "these tests start commands as other users"
    return pwd.getpwuid(NOBODY)


@pytest.fixture
def home(place: Path, nobody: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home directory, and a shell, for nobody: a user database of the test's own."""
    home = place / "home"
    (home / "project").mkdir(parents=True)
    fields = list(nobody)
    fields[5], fields[6] = str(home), ""
    monkeypatch.setattr(pwd, "getpwnam", {nobody.pw_name: pwd.struct_passwd(fields)}.__getitem__)
    return home


@pytest.fixture(params=[locally, served])
def here(request: pytest.FixtureRequest) -> Way:
    """Where a policy stands whose commands run on this machine."""
    return request.param


def as_user(user: str | int) -> Callable[[Execer], Execer]:
    return lambda execer: UserExecer(execer, user)


def words(*argv: str) -> list[str]:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


@pytest.mark.parametrize("asked", [{}, {"uid": 1, "gid": 1}, {"uid": 1}, {"gid": 1}])
def test_every_command_runs_as_the_user(
    here: Way, tty: bool, nobody: pwd.struct_passwd, asked: dict[str, int]
) -> None:
    with here(as_user(nobody.pw_name)) as execer:
        script = "id -un; id -gn; id -Gn; id -ru; id -rg"
        ids = output(execer, sh(script, tty=tty, **asked)).split()
    options = ("-un", "-gn", "-Gn", "-u", "-g")
    assert ids == [word for option in options for word in words("id", option, nobody.pw_name)]


@pytest.mark.parametrize("user", [NOBODY, str(NOBODY)])
def test_a_user_by_number(user: str | int, nobody: pwd.struct_passwd) -> None:
    assert output(UserExecer(LocalExecer(), user), sh("id -u; echo $USER")).split() == [
        str(NOBODY),
        nobody.pw_name,
    ]


def test_a_user_has_the_groups_of_a_login(
    here: Way, tty: bool, nobody: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = [nobody.pw_gid]
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: list(groups))
    with here(as_user(nobody.pw_name)) as execer:
        # Nobody is added to two groups while the server runs.
        groups += [12345, 23456]
        assert output(execer, sh("id -G", tty=tty, gid=1)).split() == list(map(str, groups))


def test_a_users_environment(here: Way, tty: bool, home: Path, nobody: pwd.struct_passwd) -> None:
    script = 'echo "$HOME:$USER:$LOGNAME:$SHELL"'
    name = nobody.pw_name
    with here(as_user(name)) as execer:
        assert output(execer, sh(script, tty=tty)).strip() == f"{home}:{name}:{name}:/bin/sh"
        own = sh(script, tty=tty, env=["HOME=/x", "SHELL=/y"])
        assert output(execer, own).strip() == f"/x:{name}:{name}:/y"
        assert f"PATH={os.environ['PATH']}" in output(execer, Command("env", tty=tty))


def test_a_users_directory(here: Way, tty: bool, home: Path, nobody: pwd.struct_passwd) -> None:
    with here(as_user(nobody.pw_name)) as execer:
        for directory, expected in [
            ("", str(home)),
            ("project", f"{home}/project"),
            ("..", str(home.parent)),
            ("/", "/"),
        ]:
            command = Command("pwd", working_dir=directory, tty=tty)
            assert output(execer, command).strip() == expected
        error = refused(execer, Command("pwd", working_dir="missing", tty=tty))
        assert isinstance(error, FileNotFoundError)
        assert error.filename == "missing"


def test_a_user_without_a_directory_starts_in_the_root(
    here: Way, tty: bool, home: Path, nobody: pwd.struct_passwd
) -> None:
    with here(as_user(nobody.pw_name)) as execer:
        home.chmod(0o700)
        assert output(execer, Command("pwd", tty=tty)).strip() == "/"
        assert isinstance(
            refused(execer, Command("pwd", working_dir="project", tty=tty)), FileNotFoundError
        )
        home.rename(home.parent / "gone")
        assert output(execer, Command("pwd", tty=tty)).strip() == "/"
        assert output(execer, Command("pwd", working_dir="tmp", tty=tty)).strip() == "/tmp"


def test_a_user_does_not_get_into_what_only_root_may_enter(
    here: Way, tty: bool, place: Path
) -> None:
    (place / "closed" / "public").mkdir(parents=True)
    (place / "closed" / "public" / "file").write_text("secret")
    program = place / "closed" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    program.parent.chmod(0o700)
    with here(as_user(NOBODY)) as execer:
        errors = set()
        for name in ("public", "missing"):
            directory = str(place / "closed" / name)
            for asked in (0, NOBODY):
                command = Command("cat", ["file"], working_dir=directory, tty=tty, uid=asked)
                error = refused(execer, command)
                assert isinstance(error, PermissionError)
                assert error.filename == directory
                errors.add(str(error).replace(name, "NAME"))
        assert len(errors) == 1
        errors = set()
        for name in ("program", "missing"):
            error = refused(execer, Command(str(place / "closed" / name), tty=tty))
            assert isinstance(error, PermissionError)
            errors.add(str(error).replace(name, "NAME"))
        assert len(errors) == 1
        assert output(execer, Command("pwd", tty=tty, working_dir=str(place)))


def test_no_name_is_another_user(here: Way, nobody: pwd.struct_passwd, tty: bool) -> None:
    asked = {"user": "root", "group": "root", "groups": ["root"], "tty": tty}
    with here(as_user(NOBODY)) as execer:
        for option, number in (("-u", NOBODY), ("-g", nobody.pw_gid), ("-G", nobody.pw_gid)):
            assert output(execer, Command("id", [option], **asked)).strip() == str(number)
        # A clean environment has nothing of the login either.
        assert output(execer, Command("env", env=["A=a"], clean_env=True)) == "A=a\n"


def test_a_session_runs_as_the_user(
    nobody: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PS1", "$ ")  # a virtual environment that is activated exports its own
    with hub(RestrictedExecer(UserExecer(LocalExecer(), NOBODY), ["sh"])) as sessions:
        client = sessions.attach("x", "sh", "-i")
        client.run(b"id -u; echo $HOME", b"%d\r\n%b\r\n" % (NOBODY, nobody.pw_dir.encode()))
        client.leave()
        again = sessions.attach("x")
        again.run(b"id -g", b"%d\r\n" % nobody.pw_gid)


def test_a_login_belongs_inside_of_a_restriction(here: Way, nobody: pwd.struct_passwd) -> None:
    def both(execer: Execer) -> Execer:
        return RestrictedExecer(UserExecer(execer, nobody.pw_name), {"env"})

    with here(both) as execer:
        lines = output(execer, Command("env", env=["A=b", "HOME=/x"])).splitlines()
        assert f"HOME={nobody.pw_dir}" in lines
        assert "A=b" not in lines
        assert not_allowed(execer, Command("sh"))
    with pytest.raises(TypeError, match=r"RestrictedExecer\(UserExecer\("):
        UserExecer(RestrictedExecer(LocalExecer(), {"env"}), nobody.pw_name)


def test_only_what_is_passed_on_of_roots_environment(nobody: pwd.struct_passwd) -> None:
    lines = output(UserExecer(LocalExecer(pass_env=[]), NOBODY), Command("env")).splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert names == {"HOME", "USER", "LOGNAME", "SHELL"}


def test_the_user_who_runs_this_program(here: Way, tty: bool) -> None:
    me = pwd.getpwuid(os.geteuid())
    with here(as_user(me.pw_name)) as execer:
        script = "id -u; id -G; echo $HOME; pwd"
        out = output(execer, sh(script, tty=tty, uid=NOBODY, gid=NOBODY)).splitlines()
    groups = " ".join(words("id", "-G"))
    assert out == [str(me.pw_uid), groups, me.pw_dir, me.pw_dir]


def test_around_a_connection_the_other_end_is_told_the_numbers(nobody: pwd.struct_passwd) -> None:
    with around_a_connection(as_user(NOBODY)) as execer:
        ids = output(execer, sh("id -u; id -g; echo $USER", uid=1)).split()
    assert ids == [str(NOBODY), str(nobody.pw_gid), nobody.pw_name]


@pytest.mark.parametrize(
    "user",
    ["no-such-user", "", "99999999", 99999999, -1, "-1", "4294967295", 2**70, " 0", "0_0", "+0"],
)
def test_no_such_user(user: str | int) -> None:
    with pytest.raises(ValueError, match=rf"^no such user: {str(user).replace('+', '.')}$"):
        UserExecer(LocalExecer(), user)


@pytest.mark.parametrize("name", ["no-such-user", "9" * 5000, "\udc80", "é"])
@pytest.mark.parametrize("kind", ["user", "group", "groups"])
def test_a_name_that_nobody_has(kind: str, name: str) -> None:
    fields: dict[str, Any] = {kind: (name,) if kind == "groups" else name}
    with pytest.raises(StartError, match=r"^no such (user|group): .{1,110}$"):
        LocalExecer().start(Command("true", **fields))


def test_only_root_can_run_commands_as_others() -> None:
    assert os.geteuid() == 0, "this test gives up root's rights"
    script = f"""
import os
from wsep_sync import LocalExecer, UserExecer
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
UserExecer(LocalExecer(), {NOBODY})
try:
    UserExecer(LocalExecer(), "root")
except PermissionError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout
    assert out == b"only root can run commands as root\n"


def test_what_is_no_command() -> None:
    execers: list[Execer] = [
        LocalExecer(),
        RestrictedExecer(LocalExecer(), allow={"ls"}),
        UserExecer(LocalExecer(), os.geteuid()),
    ]
    with listening() as listener, connect(listener.url) as remote:
        for execer in (*execers, remote):
            with pytest.raises(TypeError, match=r'such as Command\("ls"'):
                execer.start("ls")  # type: ignore[arg-type]
