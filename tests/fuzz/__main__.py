"""``python -m tests.fuzz [NUMBER]``: the long target, a process for each core (at most 4)."""

from __future__ import annotations

import argparse
import os
import random
import sys

from tests.fuzz.many import fuzz

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    given = parser.parse_args()
    report = fuzz(given.number, given.seed, given.processes, progress=True)
    print("\n".join(report.lines()))
    sys.exit(bool(report.failures))
