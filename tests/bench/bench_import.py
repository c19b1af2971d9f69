"""How long importing takes, beside TransformerLens, which the workbench stands on.

python -m tests.bench.bench_import [--quick]

Each import has a fresh process; the programs take turns, the order turning with each round. Seconds are of the
statement alone, without the start of Python; processor seconds beside them, which other work disturbs less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from tests.bench.common.options import Options, main
from tests.bench.common.results import Demand, Part

BARE, MODEL, EVERYTHING, LENS = (
    "import workbench",
    "… and a model's names",
    "… and every public name",
    "TransformerLens",
)
PROGRAMS = {
    BARE: "import workbench",
    MODEL: "import workbench; workbench.run; workbench.HookedGptOss",
    EVERYTHING: "import workbench\nfor name in workbench.__all__: getattr(workbench, name)",
    LENS: "import transformer_lens",
}
MOST = 1.2  # times TransformerLens' own
MEASURED = """
import time
wall, work = time.perf_counter(), time.process_time()
{program}
print(time.perf_counter() - wall, time.process_time() - work)
"""


def run(options: Options) -> list[Part]:
    """One part: every program in turn."""
    part = Part("import", "importing, each in a fresh process", list(PROGRAMS))
    options.say(part.title)
    order = list(PROGRAMS)
    for turn in range(1 + (options.rounds or (3 if options.quick else 9))):
        for subject in order:
            wall, work = measure(PROGRAMS[subject], options.threads)
            if turn:  # the first fills the disk's cache
                part.cell("import", 0, subject).rounds.append([wall])
                part.cell("import", 0, subject).processor.append(work)
        order = [*order[1:], order[0]]
    for subject in (BARE, MODEL, EVERYTHING):
        part.notes.append(sentence(part, subject))
    for subject in (BARE, MODEL):
        text = f"{PROGRAMS[subject].splitlines()[0]!r} over TransformerLens' own, processor seconds"
        part.demands.append(Demand(text, ratio(part, subject), MOST, at_least=False))
    return [part]


def measure(program: str, threads: int) -> tuple[float, float]:
    """Seconds, and processor seconds, of one import in a process of its own, away from any checkout but ours."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", MEASURED.format(program=program)]
    done = subprocess.run(
        command, cwd=tempfile.gettempdir(), env=environment, capture_output=True, encoding="utf-8", check=True
    )
    wall, work = done.stdout.split()[-2:]
    return float(wall), float(work)


def ratio(part: Part, subject: str) -> float:
    """The median over rounds of a program's processor seconds over TransformerLens'."""
    ours, theirs = (part.cell("import", 0, name).processor for name in (subject, LENS))
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def sentence(part: Part, subject: str) -> str:
    """Both ratios of a program in words."""
    ours, theirs = (part.cell("import", 0, name) for name in (subject, LENS))
    wall = statistics.median(a[0] / b[0] for a, b in zip(ours.rounds, theirs.rounds, strict=True))
    work = statistics.median(ours.processor)
    return f"{subject}: {work:.2f} processor seconds, {ratio(part, subject):.2f}× (wall {wall:.2f}×)"


if __name__ == "__main__":
    main(run, __doc__)
