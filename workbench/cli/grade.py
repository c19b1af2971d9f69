"""`workbench grade` grades the notebooks that a class has handed in."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """The options of `workbench grade`."""
    grade = commands.add_parser(
        "grade",
        help="grade handed-in lessons, headless",
        description="Run the students' functions through the exercises' checks. It runs their code with your rights: "
        "use a container, or a user of its own, for a class that you do not know (docs/teaching.md).",
    )
    grade.add_argument("folder", metavar="DIR", type=Path, help="a folder for each student, or notebooks named by them")
    grade.add_argument("--json", metavar="FILE", type=Path, help="write everything that was found")
    grade.add_argument("--csv", metavar="FILE", type=Path, help="write the points, in the columns of nbgrader's export")
    grade.add_argument("--timeout", metavar="S", type=seconds, default=30.0, help="for one exercise (default: 30 s)")
    grade.add_argument("--memory", metavar="GB", type=seconds, default=6.0, help="for one notebook (default: 6; Linux)")
    grade.add_argument("--lesson", metavar="NN", nargs="+", default=[], help="only these, as in: 4 or 04_attention")
    grade.add_argument("--seed", metavar="N", type=int, help="of the class (default: what each notebook says)")
    grade.add_argument("--jobs", metavar="N", type=int, help="notebooks at a time (default: one for two cores)")
    grade.add_argument("--quiet", action="store_true", help="no progress bar")
    grade.set_defaults(run=run)


def seconds(text: str) -> float:
    """An amount above zero from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 < value < math.inf:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")


def run(given: argparse.Namespace) -> int:
    """`workbench grade`: 0 if every notebook was graded, 1 if one could not be."""
    from tqdm import tqdm

    from workbench.cli.lessons import course
    from workbench.lessons.class_set import choose
    from workbench.lessons.grading import grade
    from workbench.lessons.grading.grade import Limits
    from workbench.lessons.grading.report import printable

    for path in (given.json, given.csv):  # before an hour of work, not after it
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ValueError(f"{path} cannot be written: expected a file in a folder that is there")
    jobs = given.jobs or max(1, (os.cpu_count() or 2) // 2)
    limits = Limits(given.timeout, int(given.memory * 1e9))
    with tqdm(unit="notebook", disable=given.quiet or not sys.stderr.isatty()) as bar:

        def step(n: int, of: int) -> None:
            bar.total, bar.n = of, n
            bar.refresh()

        lessons = choose(given.lesson)
        found = grade(given.folder, course(), lessons=lessons, limits=limits, seed=given.seed, jobs=jobs, step=step)
    for line in found.lines():
        print(line)
    for path, text in ((given.json, found.json), (given.csv, found.csv)):
        if path is not None:
            path.write_text(text(), encoding="utf-8")
    for line in found.problems:
        print(f"workbench: {printable(line)}", file=sys.stderr)
    return 1 if found.problems else 0
