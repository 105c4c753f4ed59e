"""What docs/ shows is run as it stands there, but for addresses; and what it names is there."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from documents import Block, blocks, fill, run_python, serve, shell
from helpers import listening
from sshd import sshd

from wsep_sync import Command, Server, connect
from wsep_sync.cli.arguments import parser
from wsep_sync.messages import FEATURES

# No Python decides what is written there.
pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
# The one SSH host that examples know.
SSH = 'SSHExecer("build.example.com", username="ci")'


def examples() -> list[Any]:
    return [
        pytest.param(
            block,
            id=f"{file.stem}-{number}",
            marks=[pytest.mark.long] if SSH in block.code else [],
        )
        for file in DOCS
        for number, block in enumerate(blocks(file, "python"), 1)
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(fill(tmp_path))  # where the server's commands run
    return tmp_path


@pytest.mark.parametrize("block", examples())
def test_python(block: Block, place: Path) -> None:
    if "serve_forever()" in block.code:
        serve(block.code)
        return
    # Each call of print() has a comment that says what it prints.
    printed = re.findall(r"^ *print\(.*\)  # (.+)$", block.code, re.MULTILINE)
    assert len(printed) == block.code.count("print(") > 0
    with contextlib.ExitStack() as cleanup:
        code = block.code
        if SSH in code:
            host = cleanup.enter_context(sshd())
            files = f"key_filename={str(host.key)!r}, known_hosts={str(host.known_hosts)!r}"
            code = code.replace(SSH, f'SSHExecer("127.0.0.1", {host.port}, {files})')
        listener = cleanup.enter_context(listening())
        out = run_python(code, listener.url, place)
    assert out.splitlines() == printed


def lines(file: Path) -> list[str]:
    return [
        line
        for block in blocks(file, "sh")
        for line in block.code.replace("\\\n", " ").splitlines()
    ]


def test_the_command_line_of_sessions(place: Path) -> None:
    create, show, end = lines(ROOT / "docs" / "sessions.md")
    server = Server()
    with listening(server=server) as listener:
        shell(create, place, WSEP_URL=listener.url)
        command = Command("cat", tty=True, id="work")
        with connect(listener.url) as execer, execer.start(command):
            assert shell(show, place, WSEP_URL=listener.url).startswith("work\t")
            shell(end, place, WSEP_URL=listener.url)
            assert server.sessions() == []
        server.close()


def test_the_servers_that_are_started(place: Path) -> None:
    for name in ("token", "fullchain.pem", "privkey.pem"):
        (place / name).write_text("a-token")
    started = [line for file in DOCS for line in lines(file) if line.startswith("wsep-sync serve")]
    assert started
    for line in started:
        parser().parse_args(shlex.split(line)[1:])


def test_the_limits() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    said = re.findall(r"^\| `--([a-z-]+)` \| (\d+)", text, re.MULTILINE)
    assert len(said) == 5
    defaults = vars(parser().parse_args(["serve"]))
    for option, value in said:
        assert defaults[option.replace("-", "_")] == float(value), option


def test_the_additions() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    for feature in FEATURES:
        assert f"\n- `{feature}`: " in text
        assert f'{{"type":"{feature}",' in text


@pytest.mark.parametrize("file", [*DOCS, ROOT / "README.md"], ids=lambda file: file.stem)
def test_links(file: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", file.read_text()):
        assert link.startswith("https://") or (file.parent / link).exists(), link
