"""The wire, as bytes and states: no socket, thread, clock or file is known here."""
