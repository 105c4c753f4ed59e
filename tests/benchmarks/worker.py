"""The program of a process that does one job again and again: see `processes.Worker`.

It is given the job's name, `MODULE:FUNCTION`, and its arguments in JSON. For every line that it
reads it does the job once, and writes what comes out as a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    job = getattr(importlib.import_module(module), name)
    arguments = json.loads(sys.argv[2])
    for _ in sys.stdin:
        try:
            answer = job(**arguments)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
