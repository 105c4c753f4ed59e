"""The other end of the wire: a table of what runs here, and a loop for each connection."""
