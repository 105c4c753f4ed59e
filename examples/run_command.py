"""Run a command on another machine: the shortest client.

    python run_command.py [ws://HOST:PORT]

Without a URL it starts a server of its own in this process, to have one to talk to.
"""

from __future__ import annotations

import sys
import threading

from wsep_sync import Command, ExitError, LocalExecer, Server, connect
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def run(url: str) -> None:
    with connect(url) as execer, execer.start(Command("uname", ["-sr"])) as process:
        for line in process.stdout:
            print("it runs", line.decode().rstrip())
        process.wait()  # raises ExitError if the command failed

    # The same with input, and with what it takes to learn how a command ended.
    with (
        connect(url) as execer,
        execer.start(Command("sh", ["-c", "wc -c; exit 3"], stdin=True)) as process,
    ):
        process.stdin.write(b"a few bytes")
        process.stdin.close()
        print("it counted", process.stdout.read().decode().strip())
        try:
            process.wait()
        except ExitError as error:
            print("and ended with status", error.exit_code)


def main() -> None:
    if len(sys.argv) > 1:
        run(sys.argv[1])
        return
    with Listener(application(Server(), LocalExecer())) as listener:
        accepting = threading.Thread(target=listener.serve_forever)
        accepting.start()
        try:
            run(listener.url)
        finally:
            listener.shutdown()
            accepting.join()


if __name__ == "__main__":
    main()
