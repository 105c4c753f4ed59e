"""Join commands on different machines by pipes, as a shell joins them on one.

    python pipeline.py [ws://FROM:PORT ws://TO:PORT]

The bytes go from one server through this script to the other, never further ahead than the
slowest can follow. Without URLs it starts two servers of its own in this process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

from wsep_sync import PIPE, LocalExecer, Popen, Server
from wsep_sync.web.listener import Listener
from wsep_sync.web.wsgi import application


def pipeline(source: str, target: str) -> None:
    # seq on one machine | gzip here | gunzip and count on the other machine
    with (
        Popen(["seq", "100000"], stdout=PIPE, url=source) as numbers,
        subprocess.Popen(["gzip"], stdin=numbers.stdout, stdout=PIPE) as gzip,
        Popen("gunzip | wc -l", shell=True, stdin=gzip.stdout, stdout=PIPE, url=target) as count,
    ):
        # Ours are copies: each command sees the end when the one before it has ended.
        for command in (numbers, gzip):
            assert command.stdout is not None
            command.stdout.close()
        out, _ = count.communicate()
    # Each can fail by itself, and what arrived is then not all there was.
    statuses = [numbers.returncode, gzip.returncode, count.returncode]
    if any(statuses):
        raise SystemExit(f"a command failed: {statuses}")
    print("lines that arrived:", int(out))

    # One that has had enough ends the one before it, with SIGPIPE, at a distance, too.
    with (
        Popen(["yes"], stdout=PIPE, url=source) as yes,
        Popen(["head", "-n", "3"], stdin=yes.stdout, stdout=PIPE, text=True, url=target) as head,
    ):
        assert yes.stdout is not None
        yes.stdout.close()
        print("as much as was wanted:", head.communicate()[0].split())
    print("and the other ended by signal", -(yes.returncode or 0))


@contextlib.contextmanager
def server() -> Iterator[str]:
    with Listener(application(Server(), LocalExecer())) as listener:
        accepting = threading.Thread(target=listener.serve_forever)
        accepting.start()
        try:
            yield listener.url
        finally:
            listener.shutdown()
            accepting.join()


def main() -> None:
    if len(sys.argv) > 2:
        pipeline(*sys.argv[1:3])
        return
    with server() as source, server() as target:
        pipeline(source, target)


if __name__ == "__main__":
    main()
