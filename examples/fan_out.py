"""Run one command on many machines at once, and take each answer as it comes.

    python fan_out.py [ws://HOST:PORT ...]

Without URLs it starts a server of its own in this process, and adds one that is not there.
"""

from __future__ import annotations

import sys
import threading

import wsep_sync
from wsep_sync import LocalExecer, Server
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def survey(urls: list[str]) -> None:
    # With progress=True there is a progress bar, if tqdm is installed.
    for outcome in wsep_sync.map(["uname", "-n"], urls, max_workers=16, timeout=10, text=True):
        if outcome.result is None:
            print(f"{outcome.url}: {type(outcome.error).__name__}")
        elif outcome.result.returncode != 0:
            print(f"{outcome.url}: status {outcome.result.returncode}")
        else:
            print(f"{outcome.url}: {outcome.result.stdout.strip()}")


def main() -> None:
    if len(sys.argv) > 1:
        survey(sys.argv[1:])
        return
    with Listener(application(Server(), LocalExecer())) as listener:
        accepting = threading.Thread(target=listener.serve_forever)
        accepting.start()
        try:
            survey([listener.url] * 5 + ["ws://127.0.0.1:1"])
        finally:
            listener.shutdown()
            accepting.join()


if __name__ == "__main__":
    main()
