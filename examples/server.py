"""Serve commands: the shortest server, in a program of your own.

    python server.py [PORT]

It prints the URL it listens on and serves until Ctrl-C. ``wsep-sync serve`` does the same.
"""

from __future__ import annotations

import contextlib
import sys

from wsep_sync import LocalExecer, Server
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    # Leaving the block ends the connections that are open, and what they run.
    with Listener(application(Server(), LocalExecer()), "127.0.0.1", port) as listener:
        print(f"listening on {listener.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            listener.serve_forever()


if __name__ == "__main__":
    main()
