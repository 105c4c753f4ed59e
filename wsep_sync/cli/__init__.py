"""The command line: ``wsep-sync serve``, ``notty``, ``tty``, ``sessions`` and ``kill``."""

from __future__ import annotations

import signal
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: The arguments; by default those of the process.
    """
    # Ctrl-C while the rest is imported, and once all is over, ends this process as it ends any:
    # Python's own handler would show where.
    former = signal.getsignal(signal.SIGINT)
    if former is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .program import run

    return run(argv)
