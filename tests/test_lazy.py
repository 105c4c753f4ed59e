"""A fork in the midst of another thread's import leaves a child that can import."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import SECONDS, listening

import wsep_sync

PACKAGE = Path(wsep_sync.__file__).parent

# The command line does not fork; these are programs of their own.
PROGRAMS = ("cli/", "local/launch.py", "helper")


def test_every_import_within_a_function_is_under_the_lock() -> None:
    bare = []

    def visit(node: ast.AST, name: str, within: bool, locked: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)) and within and not locked:
                bare.append(f"{name}:{child.lineno}")
            visit(
                child,
                name,
                within or isinstance(child, ast.FunctionDef),
                locked
                or (
                    isinstance(child, ast.With)
                    and ast.unparse(child.items[0].context_expr) == "importing"
                ),
            )

    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if not any(program in name for program in PROGRAMS):
            visit(ast.parse(path.read_text()), name, False, False)
    assert bare == []


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("websocket", "wsep_sync.run(['true'], url=url)"),
        ("wsep_sync.transports.websocket_client", "wsep_sync.connect(url).close()"),
        ("wsep_sync.serving.server", "wsep_sync.Server"),
        ("concurrent.futures", "list(wsep_sync.map(['true'], [url]))"),
        ("paramiko", "wsep_sync.execers.ssh.library.load_paramiko()"),
    ],
)
def test_a_fork_in_the_midst_of_an_import(module: str, use: str) -> None:
    script = f"""
        import os, signal, sys, threading, time
        import wsep_sync, wsep_sync.faces.run
        import wsep_sync.execers.remote.execer, wsep_sync.execers.ssh.execer
        url = sys.argv[1]
        begun = threading.Event()

        class Slow:
            # An import that takes its time, once.
            def find_spec(self, name, *_):
                if name == {module!r} and not begun.is_set():
                    begun.set()
                    time.sleep(0.5)

        def use():
            exec({use!r})

        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=use)
        thread.start()
        assert begun.wait(20)
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            use()
            os._exit(0)
        thread.join()
        print(os.waitpid(pid, 0)[1])
    """
    with listening() as listener:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), listener.url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.stdout == "0\n", done.stderr
