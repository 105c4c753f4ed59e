"""``python -m wsep_sync`` is the command ``wsep-sync``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
