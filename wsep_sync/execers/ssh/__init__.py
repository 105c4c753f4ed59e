"""Commands on a host that has nothing but an SSH server."""
