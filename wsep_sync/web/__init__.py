"""How the world gets in: the listener, its requests, WSGI, who is let in, and systemd's sockets."""
