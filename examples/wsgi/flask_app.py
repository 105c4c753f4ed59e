"""Commands beside the other routes of a Flask application.

    pip install flask flask-sock
    python flask_app.py [PORT]

Here Werkzeug serves it, on port 8080 and until Ctrl-C, which is for development; for production,
``gunicorn --threads 64 flask_app:app`` does, here as well.
"""

from __future__ import annotations

import sys
import time

from flask import Flask, request
from flask_sock import Sock
from simple_websocket import Server as WebSocket

from wsep_sync import LocalExecer, Server
from wsep_sync.web.access import Access, Refusal

app = Flask(__name__)
sock = Sock(app)
server = Server()
# Without a token: whoever can reach this, but no page of another origin.
access = Access()


@app.before_request
def check() -> tuple[str, str] | None:
    # Here, for Flask-Sock has accepted a WebSocket when it calls its route.
    try:
        access.check(request.environ)
    except Refusal as refusal:
        return refusal.text, refusal.status
    return None


@app.get("/")
def index() -> str:
    return "Commands are run at /exec.\n"


@sock.route("/exec")
def run(ws: WebSocket) -> None:
    server.serve(ws, LocalExecer())


if __name__ == "__main__":
    try:
        app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
    finally:
        server.close()
        # Werkzeug leaves its threads, each of which ends a command, to the end of the process.
        while server.connection_count():
            time.sleep(0.05)
