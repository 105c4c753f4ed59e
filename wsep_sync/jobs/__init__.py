"""Commands that outlive their connection. Today those on a terminal: sessions."""
