"""What carries messages: WebSockets of both libraries, and memory."""
