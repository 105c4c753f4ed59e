"""Drive a Python on another machine, prompt by prompt, as pexpect drives a program on this one.

    python drive_a_repl.py [ws://HOST:PORT]

Without a URL it starts a server of its own in this process, to have one to talk to.
"""

from __future__ import annotations

import sys
import threading

import pexpect
from pexpect.replwrap import REPLWrapper

from wsep_sync import LocalExecer, Server, spawn
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

# The REPL of Python 3.13 paints its lines; this asks for the plain one.
PLAIN = {"PYTHON_BASIC_REPL": "1", "PYTHON_COLORS": "0"}


def drive(url: str) -> None:
    # What is typed comes back, as on any terminal, and is a part of what is expected.
    with spawn("python3 -q", url=url, env=PLAIN, encoding="utf-8") as python:
        python.expect_exact(">>> ")
        python.sendline("6 * 7")
        python.expect(r"6 \* 7\r\n.*?(\d+)\r\n")
        print("six times seven is", python.match[1])

        python.expect_exact(">>> ")
        python.sendline("name = input('Who is there? ')")
        python.expect_exact("Who is there? ")
        python.sendline("a script")
        python.expect_exact(">>> ")

        python.sendline("1 / 0")
        match python.expect([r"(\w+Error: .*?)\r\n", pexpect.TIMEOUT, pexpect.EOF], timeout=10):
            case 0:
                print("an error is an answer, too:", python.match[1])
            case _:
                raise SystemExit(f"not expected: {python.before!r}")

        python.sendline("import sys; sys.exit(len(name))")
        python.expect(pexpect.EOF)
        python.wait()
        print("it ended with status", python.exitstatus)

    # Without the echo, pexpect's wrapper makes a function of it.
    with spawn("python3 -q", url=url, env=PLAIN, encoding="utf-8", echo=False) as python:
        repl = REPLWrapper(python, ">>> ", "import sys; sys.ps1={0!r}; sys.ps2={1!r}")
        repl.run_command("import os")
        print("its process id is", repl.run_command("os.getpid()").strip())


def main() -> None:
    if len(sys.argv) > 1:
        drive(sys.argv[1])
        return
    with Listener(application(Server(), LocalExecer())) as listener:
        accepting = threading.Thread(target=listener.serve_forever)
        accepting.start()
        try:
            drive(listener.url)
        finally:
            listener.shutdown()
            accepting.join()


if __name__ == "__main__":
    main()
