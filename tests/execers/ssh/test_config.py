"""What of `~/.ssh/config` is obeyed, and the hosts on the way to another."""

from __future__ import annotations

import getpass
import threading
from pathlib import Path

import pytest
from helpers import SECONDS, sh
from programs import has_one_line, run
from ssh_clients import output, refused
from sshd import Host, make_key, sshd

from wsep_sync import ConnectError, SSHExecer
from wsep_sync.execers.ssh.config import Hop, _hop
from wsep_sync.execers.ssh.execer import connect_ssh

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long


@pytest.fixture
def bare_home(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without keys."""
    directory = tmp_path / "home"
    (directory / ".ssh").mkdir(parents=True)
    (directory / ".ssh/known_hosts").symlink_to(host.known_hosts)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return directory


def configure(home: Path, text: str) -> None:
    (home / ".ssh/config").write_text(text)


def test_a_name_of_the_configuration(host: Host, bare_home: Path) -> None:
    configure(
        bare_home,
        f"Host build\n HostName 127.0.0.1\n Port {host.port}\n User {getpass.getuser()}\n"
        f" IdentityFile /no/such/key\n IdentityFile {host.key}\n",
    )
    for url in ("ssh://build", f"ssh://{getpass.getuser()}@build:{host.port}"):
        with connect_ssh(url, timeout=SECONDS) as execer:
            assert output(execer, sh("echo in")) == b"in\n"
    with SSHExecer("build", timeout=SECONDS) as execer:
        assert output(execer, sh("echo in")) == b"in\n"


def test_what_is_given_comes_first(host: Host, bare_home: Path) -> None:
    configure(bare_home, "Host 127.0.0.1\n Port 1\n User nobody\n")
    with connect_ssh(
        f"ssh://{getpass.getuser()}@127.0.0.1:{host.port}",
        timeout=SECONDS,
        key_filename=str(host.key),
    ) as execer:
        assert output(execer, sh("id -un")).decode() == f"{getpass.getuser()}\n"
    assert "Connection refused" in str(refused("127.0.0.1"))


def test_a_key_on_the_command_line(host: Host, bare_home: Path) -> None:
    arguments = ["notty", "--timeout", f"{SECONDS}", "--url", host.url]
    done = run(*arguments, "-i", str(host.key), "--", "echo", "in")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"in\n", b"")
    done = run(*arguments, "echo", "in")
    assert done.returncode == 255
    has_one_line(done.stderr, host.url)
    done = run(*arguments, "-i", "/no/such/key", "--", "echo", "in")
    assert done.returncode == 255
    has_one_line(done.stderr, "/no/such/key: No such file")


def test_no_other_keys(host: Host, home: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    configure(home, f"Host *\n IdentityFile {tmp_path}/other\n")
    with connect_ssh(host.url, timeout=SECONDS):  # with ~/.ssh/id_ed25519
        pass
    configure(home, f"Host *\n IdentityFile {tmp_path}/other\n IdentitiesOnly yes\n")
    with pytest.raises(ConnectError, match="lets nobody in"):
        connect_ssh(host.url, timeout=SECONDS)


def test_through_other_hosts(host: Host, home: Path) -> None:
    before = set(threading.enumerate())
    with sshd() as first, sshd() as second:
        known = [h.known_hosts.read_text() for h in (host, first, second)]
        (home / ".ssh/known_hosts").unlink()
        (home / ".ssh/known_hosts").write_text("".join(known))
        hops = f"127.0.0.1:{first.port},other"
        configure(
            home,
            f"Host target\n HostName 127.0.0.1\n Port {host.port}\n ProxyJump {hops}\n"
            f"Host other\n HostName 127.0.0.1\n Port {second.port}\n",
        )
        with connect_ssh("ssh://target", timeout=SECONDS) as execer:
            assert output(execer, sh("cat; echo out")) == b"out\n"
            assert len(host.connections()) == 1
            assert len(first.connections()) == 1
            assert len(second.connections()) == 1
            process = execer.start(sh("exec cat", stdin=True))
            process.stdin.write(b"text")
            process.stdin.close()
            assert process.stdout.read() == b"text"
            process.wait(SECONDS)
            process.close()
        # The hosts' fixtures see that no connection is left.
        (home / ".ssh/known_hosts").write_text("".join(known[:2]))
        with pytest.raises(ConnectError, match="ssh://other: the host is not in known_hosts"):
            connect_ssh("ssh://target", timeout=SECONDS)
    assert set(threading.enumerate()) <= before


def test_a_host_on_the_way_that_does_not_connect(host: Host, home: Path) -> None:
    configure(home, f"Host target\n Port 1\n HostName 127.0.0.1\n ProxyJump {host.url}\n")
    with pytest.raises(ConnectError, match=r"ssh://target: .*onnect"):
        connect_ssh("ssh://target", timeout=SECONDS)


def test_the_host_that_all_go_through(host: Host, home: Path) -> None:
    configure(home, f"Host *\n ProxyJump gate\nHost gate\n HostName 127.0.0.1\n Port {host.port}\n")
    with connect_ssh("ssh://gate", timeout=SECONDS) as execer:
        assert output(execer, sh("echo in")) == b"in\n"
    with connect_ssh(host.url, timeout=SECONDS) as execer:
        assert output(execer, sh("echo in")) == b"in\n"
    configure(home, "Host a\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyJump a\n")
    assert "circle" in str(refused("a"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host *\n ProxyCommand nc %h %p\n", "ProxyJump works"),
        ("Host *\n Port many\n", "many"),
        ("Host *\n ProxyJump me@:22\n", "ProxyJump is to be"),
        ("Host *\n ProxyJump host:port\n", "ProxyJump is to be"),
        ("Host\n", ""),
    ],
)
def test_a_configuration_that_cannot_be(text: str, words: str, host: Host, home: Path) -> None:
    configure(home, text)
    assert words in str(refused("127.0.0.1", host.port))


@pytest.mark.parametrize(
    ("word", "hop"),
    [
        ("gate", Hop("gate")),
        ("me@gate:2222", Hop("gate", 2222, "me")),
        (" ssh://gate:22", Hop("gate", 22)),
        ("::1", Hop("::1")),
        ("[::1]", Hop("::1")),
        ("me@[::1]:2222", Hop("::1", 2222, "me")),
    ],
)
def test_hosts_on_the_way(word: str, hop: Hop) -> None:
    assert _hop(word) == hop
