"""What people import to run a command: subprocess's face, pexpect's, and one for many servers."""
