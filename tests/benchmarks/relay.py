"""The limit of what can go through a server: the same bytes over the same hops, and nothing else.

Run as a program it prints the port that it listens on. Each connection begins with a line of
JSON, `{"argv": [...], "input": true or false}`. What follows is copied to the command's input, or
the command's output is copied back; a byte at the end says that the command has ended with 0.

The processes, the system calls' sizes and the pipes are those of a server and a client of
wsep_sync: what is missing is the frames, the messages, and threads between two hops.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

#: What is read from a pipe or a file at once, in bytes: the body of a full message.
PIECE = 63_982

#: What is received from a socket at once, in bytes.
RECEIVE = 1 << 17

DONE = b"\0"


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            sock, _ = listening.accept()
            # Ends with its connection. A daemon, for this program is ended by a signal.
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


def serve(sock: socket.socket) -> None:
    with sock, sock.makefile("rb", buffering=0) as file:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = json.loads(file.readline())
        takes = request["input"]
        with subprocess.Popen(
            request["argv"],
            stdin=subprocess.PIPE if takes else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if takes else subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        ) as process:
            try:
                if process.stdin is not None:
                    copy_in(sock, process.stdin.fileno())
                    process.stdin.close()
                elif process.stdout is not None:
                    copy_out(process.stdout.fileno(), sock)
                if process.wait() == 0 and takes:
                    sock.sendall(DONE)
            except OSError:  # the client has gone
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def copy_in(sock: socket.socket, pipe: int) -> None:
    buffer = memoryview(bytearray(RECEIVE))
    while count := sock.recv_into(buffer):
        rest = buffer[:count]
        while rest:
            rest = rest[os.write(pipe, rest) :]


def copy_out(pipe: int, sock: socket.socket) -> None:
    buffer = memoryview(bytearray(PIECE))
    while count := os.readv(pipe, [buffer]):
        sock.sendall(buffer[:count])


@contextlib.contextmanager
def connected(port: int, argv: list[str], input: bool) -> Iterator[socket.socket]:
    """Have a relay run a command, and yield the socket of its input or output."""
    request: dict[str, Any] = {"argv": argv, "input": input}
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(json.dumps(request).encode() + b"\n")
        yield sock


if __name__ == "__main__":
    main()
