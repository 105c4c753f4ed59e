"""Serve a terminal in the browser: the page, and the shell behind it, from one server.

    npm install                 # fetches xterm.js, into node_modules/ beside this file
    python server.py [PORT]

It prints the address to open, and serves until Ctrl-C. Each terminal is a session: reload the
page, or open its address elsewhere, and the same shell is there. With ``$WSEP_TOKEN`` set, the page
asks for that token.

The page speaks the protocol itself: see ``wire.js``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wsep_sync import LocalExecer, Server
from wsep_sync.web.access import Access
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# All that is served, by its path: nothing in a request ever becomes part of a file's name.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in (
            "terminal.js",
            "wire.js",
            "node_modules/@xterm/xterm/lib/xterm.mjs",
            "node_modules/@xterm/addon-fit/lib/addon-fit.mjs",
        )
    },
    "/node_modules/@xterm/xterm/css/xterm.css": (
        "node_modules/@xterm/xterm/css/xterm.css",
        "text/css; charset=utf-8",
    ),
}

# Nothing is loaded from elsewhere, and no other page shows this one in a frame, where it could
# trick somebody into typing. xterm.js makes style sheets as it goes.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
]


def with_page(app: WSGIApplication) -> WSGIApplication:
    """Return an application that serves the page, and passes all else on to ``app``."""
    directory = Path(__file__).parent

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        file = FILES.get(environ["PATH_INFO"])
        if file is None or environ["REQUEST_METHOD"] != "GET" or "HTTP_UPGRADE" in environ:
            return app(environ, start_response)
        name, kind = file
        content = (directory / name).read_bytes()
        length = str(len(content))
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", length), *HEADERS])
        return [content]

    return page


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    directory = Path(__file__).resolve().parent
    if not all((directory / name).exists() for name, _ in FILES.values()):
        sys.exit(f"xterm.js is missing: run 'npm install' in {directory} first")
    # Taken out, lest the shells find it in their environment.
    access = Access(os.environ.pop("WSEP_TOKEN", None))
    server = Server()
    app = with_page(application(server, LocalExecer(), access=access))
    with Listener(app, "127.0.0.1", port) as listener:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: listener.shutdown())
        print(f"listening on http://127.0.0.1:{listener.server_port}", flush=True)
        listener.serve_forever()
        server.close()  # or the shells that nobody is attached to would go on for a while


if __name__ == "__main__":
    main()
