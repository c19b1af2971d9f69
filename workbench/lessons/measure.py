"""How long each lesson's "Run All" takes and how much memory it needs, for the teacher's page.

``python -m workbench.lessons.measure`` runs every lesson in a fresh kernel, one after the other, keeps what it found in
measured.json beside this file, and writes the table of docs/teaching.md. ``--check`` runs nothing and says whether the
table is what the outlines and measured.json give; ``--outlines`` runs nothing and writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench.lessons.class_set import choose, read_lesson
from workbench.lessons.names import LESSONS, outline
from workbench.lessons.outline import Outline
from workbench.lessons.progress import PLACE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "teaching.md"
BEGIN, END = "<!-- lessons: measured -->", "<!-- lessons: end -->"
HEAD = "| lesson | a student's minutes | builds on | exercises | points | predictions | Run All | memory |"
KEPT = Path(__file__).with_name("measured.json")  # travels with the wheel; `workbench lessons` shows it


@dataclass(frozen=True)
class Measured:
    """One run of a lesson, from the start of its kernel to the last cell.

    Attributes:
        seconds: wall time.
        memory: the most bytes that the kernel and its children held at one time (RSS).
    """

    seconds: float
    memory: int

    @property
    def memory_said(self) -> str:
        """In GB, rounded up to a tenth: what a laptop must have free."""
        return f"{-(-self.memory // 100_000_000) / 10:.1f} GB"

    @property
    def seconds_said(self) -> str:
        """Whole seconds."""
        return f"{self.seconds:.0f} s"


def measure(notebook: Any) -> Measured:
    """Run a notebook in a fresh kernel and watch it.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="workbench-measure-") as folder:
        client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}})
        start = time.perf_counter()
        with _Watch(lambda: _kernel(client)) as watch:
            client.execute(env={**os.environ, PLACE: "off", "PYTHONPATH": paths})
        return Measured(time.perf_counter() - start, watch.most)


def _kernel(client: Any) -> int | None:
    provisioner = getattr(getattr(client, "km", None), "provisioner", None)
    return getattr(provisioner, "pid", None)


class _Watch:
    """Looks at a process and its children ten times a second, as long as the body runs."""

    def __init__(self, pid: Callable[[], int | None]) -> None:
        self.pid, self.most = pid, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            pid = self.pid()
            if pid is not None:
                self.most = max(self.most, resident(pid))


def resident(pid: int) -> int:
    """The bytes that a process and its children hold now; 0 for one that is gone."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for each in family:
        try:
            total += each.memory_info().rss
        except psutil.Error:
            continue
    return total


def measured() -> dict[str, Measured]:
    """What was found when it was last measured, by lesson."""
    if not KEPT.is_file():
        return {}
    return {name: Measured(**each) for name, each in json.loads(KEPT.read_text(encoding="utf-8")).items()}


def keep(numbers: Mapping[str, Measured]) -> None:
    """Store what was measured."""
    kept = {name: {"seconds": round(each.seconds, 1), "memory": each.memory} for name, each in sorted(numbers.items())}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def table(numbers: Mapping[str, Measured], lessons: Sequence[Outline]) -> str:
    """The table of the lessons and what one can do after each, as Markdown, between its marks."""
    return "\n".join([BEGIN, HEAD, "|---|---|---|---|---|---|---|---|", *_rows(numbers, lessons), "", END])


def _rows(numbers: Mapping[str, Measured], lessons: Sequence[Outline]) -> Iterator[str]:
    for each in lessons:
        found = numbers.get(each.name)
        run = f"{found.seconds_said} | {found.memory_said}" if found else "– | –"
        low, high = each.minutes
        before = ", ".join(str(outline(name).number) for name in each.builds_on) or "–"
        counts = f"{len(each.exercises)} | {each.points} | {len(each.predictions)}"
        yield f"| `{each.name}` | {low}–{high} | {before} | {counts} | {run} |"
    yield f"| all {len(lessons)} | {_total(lessons)} | | {_counts(lessons)} | | |"
    yield "\n### What a student can do after each\n"
    for each in lessons:
        yield f"**{each.number}. {each.title}**\n"
        yield from (f"- {goal}" for goal in each.able_to)
        yield f"\nExercises: {', '.join(f'`{e.name}` ({e.points})' for e in each.exercises)}.\n"


def _total(lessons: Sequence[Outline]) -> str:
    low, high = (sum(each.minutes[i] for each in lessons) / 60 for i in (0, 1))
    return f"{low:.0f}–{high:.0f} hours"


def _counts(lessons: Sequence[Outline]) -> str:
    counts = (sum(len(each.exercises) for each in lessons), sum(each.points for each in lessons))
    return f"{counts[0]} | {counts[1]} | {sum(len(each.predictions) for each in lessons)}"


def with_table(text: str, new: str) -> str:
    """A page with the table in its place.

    Raises:
        ValueError: the page has no such place.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected one {BEGIN} and one {END} in the page")
    before, _, rest = text.partition(BEGIN)
    return before + new + rest.partition(END)[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table; or only check it."""
    parser = argparse.ArgumentParser(prog="python -m workbench.lessons.measure", description=__doc__)
    parser.add_argument("lessons", metavar="NN", nargs="*", help="only these (default: all)")
    parser.add_argument("--check", action="store_true", help="measure nothing; 1 if the table is out of date")
    parser.add_argument("--outlines", action="store_true", help="measure nothing; write what the outlines say")
    given = parser.parse_args(arguments)
    numbers = measured()
    for name in () if given.check or given.outlines else choose(given.lessons):
        numbers[name] = measure(read_lesson(ROOT / "notebooks" / "lessons", name))
        print(f"{name}: {numbers[name].seconds_said}, {numbers[name].memory_said}", flush=True)
        keep(numbers)
    text = PAGE.read_text(encoding="utf-8")
    new = with_table(text, table(numbers, [outline(name) for name in LESSONS]))
    if given.check:
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
