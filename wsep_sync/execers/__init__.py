"""Where commands run: on this machine, at the other end of a WebSocket, on an SSH host.

Each is an :class:`~wsep_sync.process.Execer`; :mod:`.policy` narrows one, and
:mod:`.dial` finds that of a URL.
"""
