"""A script written for subprocess, on another machine: what changes is the URL.

    python remote_subprocess.py                   on this machine
    python remote_subprocess.py ws://HOST:PORT    over there

Without the argument, `WSEP_URL` in the environment does the same.
"""

from __future__ import annotations

import subprocess
import sys

from wsep_sync import PIPE, Popen, check_output, run

URL = sys.argv[1] if len(sys.argv) > 1 else None


def main() -> None:
    # One call for one command, with its output, its status and a limit to its time.
    done = run(["uname", "-sr"], capture_output=True, text=True, timeout=10, check=True, url=URL)
    print("it runs", done.stdout.strip())

    # A shell's command line, and input.
    print("sorted:", check_output("sort | tr '\\n' ' '", shell=True, input=b"b\na\n", url=URL))

    # The exceptions are subprocess's own.
    try:
        run("echo trouble >&2; exit 3", shell=True, stderr=PIPE, check=True, url=URL)
    except subprocess.CalledProcessError as error:
        print(f"status {error.returncode}, and it said {error.stderr!r}")
    try:
        run(["no-such-command"], url=URL)
    except FileNotFoundError as error:
        print("missing:", error.filename)
    try:
        run(["sleep", "60"], timeout=0.1, url=URL)
    except subprocess.TimeoutExpired as error:
        print("too slow:", error.cmd)

    # A conversation, line by line, while the command runs.
    with Popen(["sed", "-u", "s/^/you said /"], stdin=PIPE, stdout=PIPE, text=True, url=URL) as sed:
        assert sed.stdin is not None
        assert sed.stdout is not None
        for word in ("hello", "goodbye"):
            print(word, file=sed.stdin, flush=True)
            print(sed.stdout.readline(), end="")


if __name__ == "__main__":
    main()
