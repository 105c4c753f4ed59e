"""Commands on this machine: on pipes or a terminal, and ended with their whole session."""
