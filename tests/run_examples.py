"""Run every program of examples/: each has to exit with 0, without a warning.

What is in a directory there, and needs more than Python, has tests of its own.

An example that serves says so with a line `listening on URL`. It is then used by a client, and
ended by the Ctrl-C that would end it in a terminal.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 60


def run(example: Path) -> bool:
    """Tell whether the example worked; what it said has been printed."""
    print(f"--- {example.name}", flush=True)
    command = [sys.executable, "-W", "error", str(example)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        # It also ends an example that is silent, which reading with a timeout would not.
        alarm = threading.Timer(SECONDS, process.kill)
        alarm.start()
        served = True
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if listening := re.match(r"listening on (\S+)", line):
                served = use(listening[1])
                process.send_signal(signal.SIGINT)
        code = process.wait()
        alarm.cancel()
    if code:
        print(f"{example.name} exited with {code}", flush=True)
    return served and code == 0


def use(url: str) -> bool:
    """Tell whether the server at the URL runs a command."""
    command = [sys.executable, "-W", "error", "-m", "wsep_sync", "notty", "--url", url]
    client = subprocess.run(
        [*command, "-n", "--", "echo", "served"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if (client.returncode, client.stdout) == (0, "served\n"):
        return True
    print(f"a client of {url} exited with {client.returncode}: {client.stdout!r}", flush=True)
    return False


def main() -> int:
    # A shell starts background jobs with SIGINT ignored, and the examples would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    examples = sorted(EXAMPLES.glob("*.py"))
    failed = [example.name for example in examples if not run(example)]
    print(f"{len(examples) - len(failed)} passed, {len(failed)} failed", *failed, flush=True)
    return 1 if failed or not examples else 0


if __name__ == "__main__":
    sys.exit(main())
