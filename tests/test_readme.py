"""What README.md shows is run as it stands there, but for addresses and places."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import Block, blocks, fill, run_python, serve, shell, variables
from helpers import listening

from wsep_sync import Command, Server, connect

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return fill(tmp_path)


# The program that is shown, by a part of it, and what it prints.
PRINTED = {
    'Command("ls", ["-la"])': r"total .*\bdocs\b.*",
    'Command("sort", ["-u"]': r"b'a\\nb\\n'\n",
    "LocalExecer().start(": r"total .*\bfile\n\n",
    'run(["uname", "-s"]': r"Linux\nLOUDER\n",
    'spawn("cat"': r"there is\n",
    'id="work"': r"True True\n",
    "access = Access(": r"",
}


@pytest.mark.parametrize(
    "block", blocks(README, "python"), ids=lambda block: block.code.split("\n")[-2]
)
def test_python(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "serve_forever" in block.code:
        serve(block.code)
        return
    printed = [value for key, value in PRINTED.items() if key in block.code]
    assert len(printed) == 1, "say above what this prints"
    monkeypatch.chdir(place)  # where the server's commands run
    with listening() as listener:
        out = run_python(block.code, listener.url, place)
    assert re.fullmatch(printed[0], out, re.DOTALL), out


def shell_lines() -> list[str]:
    return [line for block in blocks(README, "sh") for line in block.code.splitlines()]


def test_the_command_for_a_fresh_machine(place: Path) -> None:
    lines = [line for line in shell_lines() if "notty -- ls -la" in line]
    assert len(lines) == 1
    # What comes before makes an environment and installs, as was done for these tests.
    make, install, run = lines[0].split(" && ")
    assert make == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -q ."
    assert "docs" in shell(run.removeprefix(".venv/bin/"), place)


def test_the_test_commands() -> None:
    text = README.read_text()
    marked = re.findall(r"^<!-- (\S*test-command) -->\n\n```sh\n(.*)\n```$", text, re.MULTILINE)
    commands = dict(marked)
    assert list(commands) == ["test-command", "full-test-command"]
    make, install, run = commands["test-command"].split(" && ")
    assert make == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -q '.[test]'"
    # What tox runs on all Pythons but one, where it takes no missing program for an answer.
    python, *options = shlex.split(run)
    assert python == ".venv/bin/pytest"
    tox = (README.parent / "tox.ini").read_text()
    (strict,) = re.findall(r"py31\{0,1,2\}: pytest --all-parts (.*) \{posargs\}", tox)
    assert options[-2:] == shlex.split(strict)[-2:] == ["-m", "not thorough and not long"]
    assert tox.count(" -m pytest --all-parts ") == tox.count("-m pytest") == 2
    assert commands["full-test-command"].endswith(" && .venv/bin/tox")


@contextlib.contextmanager
def session(url: str, id: str) -> Iterator[None]:
    with connect(url) as execer, execer.start(Command("cat", tty=True, id=id)):
        yield


def test_the_command_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = [block.code for block in blocks(README, "sh")]
    serve = ["wsep-sync", "serve", "--port", "8080"]
    for started in (".venv/bin/activate\nwsep-sync", "wsep-sync serve --port 8080   "):
        (block,) = [text for text in code if started in text]
        assert shlex.split(block.splitlines()[-1], comments=True) == serve
    (block,) = [text for text in code if text.startswith("export WSEP_URL=ws://127.0.0.1:8080\n")]
    printed = {
        "wsep-sync notty -- ls -l docs": r"total .*\bfile\n",
        "tar c docs | wsep-sync notty -- tar x -C /tmp": "",
        "wsep-sync tty -- bash": None,
        "wsep-sync tty --id work -- bash": None,
        "wsep-sync sessions": r"work\t\d+\t80x24\t1 attached\tcat\n",
        "wsep-sync kill work": "",
    }
    commands = [line.split("  ")[0] for line in block.splitlines()[1:]]
    assert commands == list(printed)
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", variables()["PATH"])  # the server's, and so its commands'
    server = Server()
    with listening(server=server) as listener:
        for command, expected in printed.items():
            with contextlib.ExitStack() as cleanup:
                if command.split()[1] in ("sessions", "kill"):
                    cleanup.enter_context(session(listener.url, "work"))
                out = shell(
                    command.replace("/tmp", str(place / "there")), place, WSEP_URL=listener.url
                )
            if expected is not None:
                assert re.fullmatch(expected, out, re.DOTALL), (command, out)
        server.close()
    assert (place / "there" / "docs" / "file").read_text() == "a file\n"
