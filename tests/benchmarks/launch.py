"""Run a module as a program in which some other modules cannot be imported.

    python launch.py HIDDEN,HIDDEN MODULE ARGUMENT...

With it, one installation that has an extra is measured with the extra and without it.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    _, hidden, module, *arguments = sys.argv
    for name in filter(None, hidden.split(",")):
        sys.modules[name] = None  # type: ignore[assignment]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
