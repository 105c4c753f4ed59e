"""Serve commands: the shortest server, in a program of your own.

    python server.py [PORT]

It prints the URL it listens on and serves until Ctrl-C or SIGTERM, as ``wsep-sync serve``
does.
"""

from __future__ import annotations

import signal
import sys

from wsep_sync import LocalExecer, Server
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = Server()
    # Leaving the block ends the connections that are open, and what they run.
    with Listener(application(server, LocalExecer()), "127.0.0.1", port) as listener:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: listener.shutdown())
        print(f"listening on {listener.url}", flush=True)
        listener.serve_forever()
        server.close()  # and the sessions that nobody is attached to


if __name__ == "__main__":
    main()
