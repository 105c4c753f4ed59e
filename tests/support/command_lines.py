"""What several tests of the command line run, and talk to."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator

from helpers import SECONDS
from programs import WSEP_SYNC, environment

# Says its process id and its child's, which holds on as long as it can.
STUBBORN = "trap '' HUP INT TERM QUIT; sh -c 'echo $$; exec sleep 1000' & echo $$; wait; wait"
# Says its process id, and then stays.
STAYING = "echo $$; exec sleep 1000"


def in_shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in which `$@` is the program."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *WSEP_SYNC],
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )


@contextlib.contextmanager
def tcp_server(answer: bytes | None) -> Iterator[str]:
    """One that reads a request and says this, or never says anything."""
    done = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            peer, _ = sock.accept()
            with peer:
                peer.recv(1 << 16)
                if answer is None:
                    done.wait(SECONDS)
                else:
                    peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            done.set()
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()
