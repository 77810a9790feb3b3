"""The command line of :mod:`benchmarks.fuzz`."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from benchmarks.fuzz import KINDS, __doc__, run_for


def main() -> int:
    """Checks all kinds; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="time for all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the inputs")
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], help="check one kind")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.only in (None, kind.name)]
    logging.disable(logging.WARNING)
    failed = False
    for kind in kinds:
        start = time.monotonic()
        counts, failures = run_for(kind, 60 * options.minutes / len(kinds), options.seed)
        failed = failed or failures > 0
        print(
            f"{kind.name}: {counts.total()} inputs, {counts[True]} accepted, {counts[False]} rejected, "
            f"{failures} failures, {time.monotonic() - start:.0f} s",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
