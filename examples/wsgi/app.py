"""A WSGI application that serves commands, for a threaded WSGI server.

    gunicorn --threads 64 app:app

It listens on port 8000 and serves until Ctrl-C.

One process, for the sessions are in it; and more threads than there are ever to be WebSockets, for
each takes one. ``gunicorn.conf.py`` is read by gunicorn when it is started here.
"""

from __future__ import annotations

from wsep_sync import LocalExecer, Server
from wsep_sync.web.wsgi import application

server = Server()
app = application(server, LocalExecer())
