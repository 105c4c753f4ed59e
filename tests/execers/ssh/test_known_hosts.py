"""Which keys a host is known by; files as ssh-keygen(1) writes them, too."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from parts import need

from wsep_sync.execers.ssh.known_hosts import FILES, read_known_hosts

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long

KEY = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(range(32))
OTHER = KEY[:-1] + b"x"


def line(names: str, key: bytes = KEY, kind: str = "ssh-ed25519", marker: str = "") -> str:
    return f"{marker}{names} {kind} {base64.b64encode(key).decode()} a comment\n"


def trusted(tmp_path: Path, text: str, host: str = "box", port: int = 22) -> set[bytes]:
    (tmp_path / "known_hosts").write_text(text)
    keys = read_known_hosts([str(tmp_path / "known_hosts")], host, port)
    assert {kind for kind, _ in keys.trusted} <= {"ssh-ed25519"}
    return {key for _, key in keys.trusted}


@pytest.mark.parametrize(
    ("names", "host", "port", "known"),
    [
        ("box", "box", 22, True),
        ("box", "BOX", 22, True),
        ("Box", "box", 22, True),
        ("box", "box", 2222, False),
        ("box", "bo", 22, False),
        ("box", "boxes", 22, False),
        ("[box]:2222", "box", 2222, True),
        ("[box]:2222", "box", 22, False),
        ("[::1]:2222", "::1", 2222, True),
        ("a,box,192.0.2.1", "192.0.2.1", 22, True),
        ("*.example.com", "box.example.com", 22, True),
        ("*.example.com", "example.com", 22, False),
        ("bo?", "box", 22, True),
        ("b.x", "box", 22, False),
        ("[b]ox", "box", 22, False),
        ("*,!box", "box", 22, False),
        ("!box,*", "box", 22, False),
        ("!other,*", "box", 22, True),
        ("!other", "box", 22, False),
    ],
)
def test_names(tmp_path: Path, names: str, host: str, port: int, known: bool) -> None:
    assert trusted(tmp_path, line(names), host, port) == ({KEY} if known else set())


def test_a_host_may_have_several_keys(tmp_path: Path) -> None:
    assert trusted(tmp_path, line("box") + line("other") + line("bo*", OTHER)) == {KEY, OTHER}


@pytest.mark.parametrize(("host", "port"), [("box", 22), ("box", 2222), ("::1", 22)])
def test_hashed_names(tmp_path: Path, host: str, port: int) -> None:
    file = tmp_path / "hashed"
    name = host if port == 22 else f"[{host}]:{port}"
    file.write_text(line(name))
    subprocess.run(
        [need("ssh-keygen"), "-q", "-H", "-f", str(file)], check=True, capture_output=True
    )
    assert name not in file.read_text()
    assert trusted(tmp_path, file.read_text(), host, port) == {KEY}
    assert trusted(tmp_path, file.read_text(), host, port + 1) == set()
    assert trusted(tmp_path, file.read_text(), "other", port) == set()


def test_revoked_keys_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(line("box") + line("*", OTHER, marker="@revoked "))
    keys = read_known_hosts([str(file)], "box", 22)
    assert keys.trusted == {("ssh-ed25519", KEY)}
    assert keys.revoked == {("ssh-ed25519", OTHER)}


def test_keys_of_authorities_are_no_keys_of_hosts(tmp_path: Path) -> None:
    text = line("box", marker="@cert-authority ") + line("box", marker="@whatever ")
    assert trusted(tmp_path, text) == set()


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "# box ssh-ed25519 AAAA",
        "box",
        "box ssh-ed25519",
        "box ssh-ed25519 AAAAA",
        "box ssh-ed25519 Ä!",
        "|1|AAAA ssh-ed25519 AAAA",
        "|1|A|A| ssh-ed25519 AAAA",
        "|1|Ä|Ä ssh-ed25519 AAAA",
        "|2|AAAA|AAAA ssh-ed25519 AAAA",
        "@revoked",
    ],
)
def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path, nonsense: str) -> None:
    assert trusted(tmp_path, f"{nonsense}\n{line('box')}{nonsense}") == {KEY}


def test_files_that_are_not_there_are_empty(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(line("box"))
    files = [str(tmp_path / name) for name in ("none", "one")]
    assert read_known_hosts(files, "box", 22).trusted == {("ssh-ed25519", KEY)}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_known_hosts([str(tmp_path)], "box", 22)


def test_the_user_s_own_file_is_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(line("a-box-of-this-test"))
    assert read_known_hosts(FILES, "a-box-of-this-test", 22).trusted == {("ssh-ed25519", KEY)}
