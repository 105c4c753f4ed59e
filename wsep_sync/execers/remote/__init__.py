"""Commands at the other end of a WebSocket: the client of the wire."""
