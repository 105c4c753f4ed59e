"""Check the types of what README.md and docs/ show in Python, as their readers' editors do.

    python tests/typing_documents.py

Each block by itself, by mypy, as strict as for the package, and by pyright. Exits with 1 if one of
them finds anything.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The oldest, whose users have the least of it.
PYTHON = "3.10"


def write_blocks(directory: Path) -> None:
    """Make a module of each block, with its lines where they are in the document."""
    for document in DOCUMENTS:
        text = document.read_text()
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start(1))
            path = directory / f"{document.stem}_{line}.py"
            path.write_text("\n" * line + block[1])


def main() -> int:
    scripts = Path(sysconfig.get_path("scripts"))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_blocks(directory)
        modules = sorted(map(str, directory.glob("*.py")))
        assert modules
        # Whoever has no types of their own, such as pexpect, is known to the package's settings.
        mypy = [scripts / "mypy", f"--config-file={ROOT / 'pyproject.toml'}"]
        mypy += ["--scripts-are-modules", f"--python-version={PYTHON}", *modules]
        settings = {"include": ["*.py"], "pythonVersion": PYTHON, "extraPaths": [str(ROOT)]}
        (directory / "pyrightconfig.json").write_text(json.dumps(settings))
        pyright = [scripts / "pyright", f"--project={name}", f"--pythonpath={sys.executable}"]
        # Neither finds a package that is installed in place, by a hook of its import.
        env = {**os.environ, "MYPYPATH": str(ROOT)}
        found = [
            subprocess.run(list(map(str, command)), cwd=name, env=env, check=False).returncode
            for command in (mypy, pyright)
        ]
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
