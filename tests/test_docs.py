"""What docs/ shows is run as it stands there, but for addresses; and what it names is there."""

from __future__ import annotations

import ast
import contextlib
import errno
import importlib.metadata
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from documents import Block, blocks, fill, run_python, serve, shell
from helpers import listening
from sshd import sshd

from wsep_sync import Command, Server, connect, run
from wsep_sync.cli.arguments import parser
from wsep_sync.protocol.command import ADDITIONS
from wsep_sync.protocol.messages import FEATURE_SIGNAL, FEATURES, MAX_MESSAGE

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
    export, create, show, end = lines(ROOT / "docs" / "sessions.md")
    assert export == "export WSEP_URL=ws://127.0.0.1:8080"
    server = Server()
    with listening(server=server) as listener:
        shell(create, place, WSEP_URL=listener.url)
        command = Command("cat", tty=True, id="work")
        with connect(listener.url) as execer, execer.start(command):
            assert shell(show, place, WSEP_URL=listener.url).startswith("work\t")
            shell(end, place, WSEP_URL=listener.url)
            assert server.sessions() == []
        server.close()


# What is not run here; but the options of wsep-sync are looked at, and the files that are named.
# Each of these has been tried; a new program has to be, before it comes here.
TRIED = {
    "cat", "cd", "curl", "docker", "echo", "export", "gunicorn", "install", "npm", "pip", "pytest",
    "python", "python3", "socat", "systemctl", "tar", "tox", "umask", "useradd", "wsep-sync", ".",
}  # fmt: skip


def shown() -> list[Any]:
    """The commands of each block, and of each comment that shows some, with their directory."""
    found = []
    for file in [*DOCS, ROOT / "README.md", ROOT / "SECURITY.md"]:
        for number, block in enumerate(blocks(file, "sh"), 1):
            found.append(pytest.param(block.code, ROOT, id=f"{file.stem}-{number}"))
    for file in sorted((ROOT / "examples").glob("**/*")):
        if file.suffix in (".cfg", ".conf", ".service", ".socket", "") and file.is_file():
            text = file.read_text()
            code = "\n".join(re.findall(r"^#  {4,}(.*)$", text, re.MULTILINE))
            directory = ROOT
        elif file.suffix == ".py":
            text = ast.get_docstring(ast.parse(file.read_text())) or ""
            # What follows two blanks says what it does.
            code = "\n".join(re.findall(r"^    (\S.*?)(?:   .*)?$", text, re.MULTILINE))
            directory = file.parent
        else:
            continue
        if "node_modules" not in file.parts and code:
            found.append(pytest.param(code, directory, id=file.name))
    return found


def commands(code: str) -> list[list[str]]:
    """The simple commands of a shell's lines, each as its words."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                found.append(command)
                # What comes after a redirection is a file's name.
                command = [] if ">" not in word else ["cat"]
            else:
                command.append(word)
    return [command for command in found if command]


@pytest.mark.parametrize(("code", "directory"), shown())
def test_what_is_shown_can_be_given(
    code: str, directory: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place))
    for name in ("token", ".wsep-token", "fullchain.pem", "privkey.pem"):
        (place / name).write_text("a-token")
    extras = importlib.metadata.metadata("wsep-sync").get_all("Provides-Extra") or []
    for program, *words in commands(code):
        name = program.rpartition("/")[2]
        assert name in TRIED, (program, words)
        if name == "wsep-sync":
            parser().parse_args([re.sub("^~", str(place), word) for word in words])
        elif name == "pip":
            # The package is in no index, where its name could be somebody else's.
            for word in words:
                assert not word.startswith("wsep"), word
                extra = re.fullmatch(r"\.\[(.+)\]", word)
                assert extra is None or extra[1] in extras, word
        elif name == "cd":
            directory /= words[0]
            assert directory.is_dir()
        elif name == "npm":
            place = directory / words[1] if words[0] == "--prefix" else directory
            assert (place / "package.json").is_file()
        elif name == "gunicorn":
            # It is given where its configuration lies.
            assert (directory / f"{words[-1].partition(':')[0]}.py").is_file()
            assert (directory / "gunicorn.conf.py").is_file()
        elif name == "python":
            assert (directory / words[0]).is_file(), words
        for word in words:
            if word.startswith("examples/") and "{" not in word:
                assert (ROOT / word).exists(), word


def test_a_token_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (line, place / file)
        for document, file in (("docs/deployment.md", "token"), ("SECURITY.md", ".wsep-token"))
        for line in lines(ROOT / document)
        if "token_urlsafe" in line
    ]
    assert len(found) == 2
    for line, file in found:
        shell(line, place, HOME=str(place))
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(file.read_text()) > 40


def test_extras_are_installed_from_the_clone() -> None:
    for file in [*DOCS, ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("examples/*/*")]:
        if file.is_file():
            assert not re.search(r"pip install '?wsep", file.read_text()), file


def test_the_limits() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    said = re.findall(r"^\| `--([a-z-]+)` \| (\d+)", text, re.MULTILINE)
    assert len(said) == 5
    defaults = vars(parser().parse_args(["serve"]))
    for option, value in said:
        assert defaults[option.replace("-", "_")] == float(value), option


def test_the_additions() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    for feature in (FEATURE_SIGNAL, *FEATURES, *ADDITIONS.values()):
        assert f"\n- `{feature}`: " in text
        assert f'"{feature}"' in text


@pytest.mark.parametrize("file", [*DOCS, ROOT / "README.md"], ids=lambda file: file.stem)
def test_links(file: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", file.read_text()):
        assert link.startswith("https://") or (file.parent / link).exists(), link


def test_what_a_command_line_may_have() -> None:
    text = (ROOT / "docs" / "migrating.md").read_text()
    assert "has to fit one message of 64,000 bytes" in text
    assert MAX_MESSAGE == 64_000
    with listening() as listener:
        assert run(["true", "x" * 63_000], url=listener.url).returncode == 0
        with pytest.raises(OSError, match="Argument list too long") as caught:
            run(["true", "x" * 64_000], url=listener.url)
    assert caught.value.errno == errno.E2BIG


def test_a_terminal_without_a_size() -> None:
    assert "has 80 rows and 24 columns" in (ROOT / "docs" / "migrating.md").read_text()
    with (
        listening() as listener,
        connect(listener.url) as execer,
        execer.start(Command("stty", ["size"], tty=True)) as process,
    ):
        assert process.stdout.read() == b"80 24\r\n"
