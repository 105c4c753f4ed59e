"""Copy files to another machine and back, with nothing there but ``cat``.

    python copy_file.py put ws://HOST:PORT LOCAL REMOTE
    python copy_file.py get ws://HOST:PORT REMOTE LOCAL

Without arguments it shows both, on this machine: it sends a file, fetches it, and compares.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from wsep_sync import Command, Execer, LocalExecer, Server, connect
from wsep_sync.listener import Listener
from wsep_sync.wsgi import application


def put(execer: Execer, local: Path, remote: str) -> None:
    # The name is an argument, not a part of the script: it needs no quoting.
    command = Command("sh", ["-c", 'cat > "$1"', "sh", remote], stdin=True)
    with local.open("rb") as file, execer.start(command) as process:
        with process.stdin:
            shutil.copyfileobj(file, process.stdin, 1 << 20)
        # Not before this has returned is the file there, all of it.
        process.wait()


def get(execer: Execer, remote: str, local: Path) -> None:
    with local.open("wb") as file, execer.start(Command("cat", [remote])) as process:
        shutil.copyfileobj(process.stdout, file, 1 << 20)
        process.wait()


def show() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Listener(application(Server(), LocalExecer())) as listener,
    ):
        accepting = threading.Thread(target=listener.serve_forever)
        accepting.start()
        try:
            original, there, back = (Path(folder, name) for name in ("a", "b", "c"))
            original.write_bytes(os.urandom(5_000_000))
            with connect(listener.url) as execer:
                put(execer, original, str(there))
                get(execer, str(there), back)
            if not filecmp.cmp(original, back, shallow=False):
                raise SystemExit("the files differ")
            print("5,000,000 bytes there and back, the same")
        finally:
            listener.shutdown()
            accepting.join()


def main() -> None:
    match sys.argv[1:]:
        case []:
            show()
        case ["put", url, local, remote]:
            with connect(url) as execer:
                put(execer, Path(local), remote)
        case ["get", url, remote, local]:
            with connect(url) as execer:
                get(execer, remote, Path(local))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
