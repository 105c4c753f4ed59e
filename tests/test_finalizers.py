"""Finalizers start no thread, wait for nothing and take no lock.

The garbage collector calls them wherever it happens to run: in a thread that holds the very lock,
or at the end of the interpreter, when no thread can be had any more.
"""

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

# Each with what it does, which is all that it may do.
FINALIZERS = {
    "expect.py:spawn.__del__": "warns; sets an eventfd",
    "local.py:_ExitWatch.__del__": "closes a descriptor",
    "local_pty.py:LocalTerminal.__del__": "closes descriptors",
    "popen.py:Popen.__del__": "warns",
    "wakeup.py:Wakeup.__del__": "closes a descriptor",
}

# What else calls back when something goes: none of it is used.
CALLBACKS = {"finalize", "atexit", "ref"}


def test_all_of_them_are_known() -> None:
    found, callbacks = set(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found |= {
                    f"{name}:{node.name}.__del__"
                    for function in node.body
                    if isinstance(function, ast.FunctionDef) and function.name == "__del__"
                }
            elif isinstance(node, ast.Import):
                callbacks += [f"{name}: {a.name}" for a in node.names if a.name in CALLBACKS]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "weakref":
                callbacks += [f"{name}: {node.attr}"] if node.attr in CALLBACKS else []
    assert found == FINALIZERS.keys()
    assert callbacks == []


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize(
    "forgotten",
    [
        "spawn('cat', **where)",
        "spawn('cat', **where); kept.append(kept)",
        "Popen(['cat'], stdin=PIPE, stdout=PIPE, **where)",
        "Popen(['yes'], stdout=PIPE, **where); kept.append(kept)",
        "Popen(['cat'], stdin=PIPE, **where); kept[0].stdin.write(b'a')",
        "Popen(['cat'], stdin=PIPE, text=True, **where); kept[0].stdin.write('a')",
        "start(Command('cat', tty=True))",
    ],
)
def test_what_is_forgotten_does_not_hold_up_the_end_of_python(forgotten: str, where: str) -> None:
    script = f"""
        import sys, threading
        from wsep_sync import PIPE, Command, LocalExecer, Popen, connect, spawn

        url = sys.argv[1]
        where = {{"url": url}} if {where!r} == "remote" else {{}}

        def start(command):
            return (connect(url) if where else LocalExecer()).start(command)

        kept = []
        class Late:
            # As what a module's global refers to is finalized last.
            def __del__(self):
                kept.clear()

        late = Late()
        def forget():
            made = {forgotten.replace(";", chr(10) + " " * 12 + "kept.append(made);", 1)}
            kept.append(made)
        forget()
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
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
