"""What the package exports, and what importing it costs."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wsep_sync

PROMISED = {
    # Commands and what runs them.
    "Command",
    "Execer",
    "LocalExecer",
    "Process",
    "RemoteExecer",
    "RestrictedExecer",
    "SSHExecer",
    "UserExecer",
    "connect",
    # The server.
    "Options",
    "Server",
    "Session",
    "SessionInfo",
    "State",
    "serve",
    # What can go wrong.
    "ConnectError",
    "ExitError",
    "ExitMissing",
    "OutputUnread",
    "ProtocolError",
    "SessionClosed",
    "SessionNotFound",
    "StartError",
    "TransportClosed",
    "WsepError",
    # subprocess's face, and pexpect's. The constants and exceptions are subprocess's own.
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "Outcome",
    "Popen",
    "SubprocessError",
    "TimeoutExpired",
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "run",
    "spawn",
}
CONSTANTS = {"DEVNULL", "PIPE", "STDOUT"}
UNDOCUMENTED = {"SubprocessError"}  # by subprocess, whose own it is

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(wsep_sync.__path__, "wsep_sync.")
    if module.name != "wsep_sync.__main__"
)

README = Path(__file__).parent.parent / "README.md"


def run(code: str) -> str:
    """Run code in a fresh Python and return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_all_is_what_was_promised() -> None:
    assert set(wsep_sync.__all__) == PROMISED
    assert callable(wsep_sync.map)  # not in __all__: a star import must not hide the built-in


def test_dir_shows_what_is_exported_and_no_more() -> None:
    code = "import wsep_sync, wsep_sync.faces.run; print(*dir(wsep_sync))"
    shown = {name for name in run(code).split() if not name.startswith("__")}
    assert shown == PROMISED | {"map"}


@pytest.mark.parametrize("name", subprocess.__all__)
def test_every_name_of_subprocess_is_there(name: str) -> None:
    assert name in wsep_sync.__all__
    theirs, ours = getattr(subprocess, name), getattr(wsep_sync, name)
    if inspect.isfunction(theirs) or name == "Popen":
        assert callable(ours)
    else:  # whoever has imported it from there means the same
        assert ours is theirs


def test_a_star_import_gives_what_all_says() -> None:
    namespace: dict[str, Any] = {}
    exec("from wsep_sync import *", namespace)
    assert set(namespace) - {"__builtins__"} == PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED - CONSTANTS - UNDOCUMENTED))
def test_what_is_exported_is_documented(name: str) -> None:
    exported = getattr(wsep_sync, name)
    doc = vars(exported).get("__doc__") if isinstance(exported, type) else exported.__doc__
    assert doc
    # A dataclass without a docstring is given one by Python.
    assert not doc.startswith(f"{name}(")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_exports(name: str) -> None:
    # Each by itself: a module that is imported first must not need others to have been.
    code = (
        f"import json, {name} as module\n"
        "missing = [n for n in getattr(module, '__all__', ()) if not hasattr(module, n)]\n"
        "print(json.dumps([module.__doc__, missing]))"
    )
    doc, missing = json.loads(run(code))
    assert doc
    assert missing == []


def test_there_is_one_version() -> None:
    setup = configparser.ConfigParser()
    setup.read(README.parent / "setup.cfg")
    assert setup["metadata"]["version"] == wsep_sync.__version__


def test_the_package_is_typed() -> None:
    assert (Path(inspect.getfile(wsep_sync)).parent / "py.typed").exists()


def imported_by(code: str) -> set[str]:
    """Return the modules that a fresh Python has after running some code."""
    return set(run(f"{code}\nimport sys; print(*sys.modules)").split())


def test_importing_the_package_is_cheap() -> None:
    modules = imported_by("import wsep_sync") - imported_by("")
    for heavy in (
        "asyncio",
        "paramiko",
        "pexpect",
        "ptyprocess",
        "pyghostty",
        "simple_websocket",
        "websocket",
        "wsproto",
        "ssl",
        "http",
        "wsgiref",
        "argparse",
        "email",
        "urllib.request",
        "concurrent",
    ):
        assert heavy not in modules, f"importing wsep_sync imports {heavy}"


def test_a_local_command_needs_no_websocket_library() -> None:
    modules = imported_by(
        "from wsep_sync import *\n"
        "with LocalExecer().start(Command('true')) as process: process.wait()"
    )
    assert not modules & {"websocket", "simple_websocket", "asyncio", "ssl"}


def test_a_client_needs_no_server_library() -> None:
    modules = imported_by("import wsep_sync.transports.websocket_client")
    assert "websocket" in modules
    assert not modules & {"simple_websocket", "wsproto", "asyncio", "wsgiref"}


def test_what_the_readme_imports_is_there() -> None:
    imports = [
        node
        for block in README.read_text().split("```")[1::2]
        if block.startswith("python\n")
        for node in ast.walk(ast.parse(block.removeprefix("python\n")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wsep_sync")
    ]
    assert imports
    for node in imports:
        exec(compile(ast.Module([node], []), str(README), "exec"), {})
        if node.module == "wsep_sync":
            assert {alias.name for alias in node.names} <= PROMISED
