"""Copy files to another machine and back, with nothing there but ``cat``.

    python copy_file.py put ws://HOST:PORT LOCAL REMOTE
    python copy_file.py get ws://HOST:PORT REMOTE LOCAL

Without arguments it shows both, on this machine: it sends a file, fetches it, and compares.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from wsep_sync import Command, Execer, ExitError, LocalExecer, Process, Server, WsepError, connect
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def put(execer: Execer, local: Path, remote: str) -> None:
    # The name is an argument, not a part of the script: it needs no quoting.
    command = Command("sh", ["-c", 'cat > "$1"', "sh", remote], stdin=True)
    with local.open("rb") as file, execer.start(command) as process:
        # Broken when the command has ended: how, is what the error will be.
        with contextlib.suppress(BrokenPipeError), process.stdin:
            shutil.copyfileobj(file, process.stdin, 1 << 20)
        # Not before this has returned is the file there, all of it.
        finish(process)


def get(execer: Execer, remote: str, local: Path) -> None:
    # Under another name until all of it is there; but a device keeps its own.
    device = local.exists() and not local.is_file()
    part = local if device else local.with_name(f"{local.name}.part")
    try:
        with part.open("wb") as file, execer.start(Command("cat", ["--", remote])) as process:
            shutil.copyfileobj(process.stdout, file, 1 << 20)
            finish(process)
        if not device:
            part.replace(local)
    except BaseException:
        if not device:
            part.unlink(missing_ok=True)
        raise


def finish(process: Process) -> None:
    """Wait for the end; if it was a failure, raise what the command said of it."""
    try:
        process.wait()
    except ExitError as error:
        said = process.stderr.read().decode(errors="replace").strip()
        raise OSError(said or str(error)) from error


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
    try:
        copy()
    except (OSError, WsepError) as error:
        raise SystemExit(f"copy_file.py: {error}") from error


def copy() -> None:
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
