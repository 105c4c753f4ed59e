"""Commands that outlive their connection, sessions; and processes as the loops see them."""
