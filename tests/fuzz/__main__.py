"""Run generated cases, until one finds something: `python -m fuzz`, in tests/.

It prints the seed and how many cases of each kind there were, and exits with 1 when one has
failed, which is then shown with all that is needed to run it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzz.campaign import say, shortened
from fuzz.kinds import KINDS, run_kind

# Of what is said of a failure, so many characters are shown: a generated message alone may be
# sixteen times as long.
_SHOWN = 16_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "--cases",
        type=int,
        default=150_000,
        help="how many in all, without those of dialogue (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, help="of all that is random (default: a random one)")
    parser.add_argument("--only", choices=KINDS, metavar="KIND", help="cases of this kind alone")
    parser.add_argument("--case", type=int, metavar="N", help="with --only: this one alone")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    say(f"seed {seed}")
    began = time.monotonic()
    total = 0
    for kind in [arguments.only] if arguments.only else KINDS:
        share = 100 if arguments.only else KINDS[kind]
        numbers = range(arguments.cases * share // 100)
        if arguments.case is not None:
            numbers = range(arguments.case, arguments.case + 1)
        start = time.monotonic()
        try:
            count = run_kind(kind, seed, numbers)
        except Exception as error:
            say(f"{kind}: FAILED after {time.monotonic() - start:.0f} s, seed {seed}")
            if not isinstance(error, AssertionError):
                raise
            text = "\n".join([str(error), *getattr(error, "__notes__", ())])
            say(shortened(text, _SHOWN))
            return 1
        total += count
        say(f"{kind}: {count} cases in {time.monotonic() - start:.0f} s")
    say(f"{total} cases in {time.monotonic() - began:.0f} s, seed {seed}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
