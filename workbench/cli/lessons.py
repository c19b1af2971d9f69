"""`workbench lessons` lists the course, makes a class set without the solutions, and writes the answer keys."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """The options of `workbench lessons`."""
    lessons = commands.add_parser(
        "lessons",
        help="the course: a list; a class set without solutions; answer keys",
        description="Without an option: the lessons, how long each takes, and what is done in this folder.",
    )
    lessons.add_argument("--student", type=Path, metavar="DIR", help="write the notebooks without solutions there")
    lessons.add_argument("--teacher", type=Path, metavar="DIR", help="write the answer keys there")
    lessons.add_argument("--seed", type=seed, metavar="N", default=0, help="a variant of its own for a class")
    lessons.add_argument(
        "--lesson", metavar="NN", nargs="+", default=[], help="only these, as in: 4 or 04_attention (default: all)"
    )
    lessons.set_defaults(run=run)


def seed(text: str) -> int:
    """The seed of a class from the command line."""
    if text.isdecimal() and int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a whole number from 0 to {2**31 - 1}")


def run(given: argparse.Namespace) -> int:
    """`workbench lessons`."""
    from workbench.lessons.class_set import choose

    names = choose(given.lesson)
    if given.student is None and given.teacher is None:
        return show(names)
    if given.student is not None and given.teacher is not None and given.student.resolve() == given.teacher.resolve():
        raise ValueError("--student and --teacher name one folder; the answer keys belong into another")
    for folder, files in ((given.student, student_files), (given.teacher, teacher_files)):
        if folder is not None:
            lines = write_all(folder, names, given.seed, files)
            print(*lines, f"in {folder}", sep="\n")
    return 0


def write_all(folder: Path, names: Sequence[str], seed: int, files: Any) -> list[str]:
    """Write what `files` gives for each lesson."""
    from workbench.lessons.class_set import write

    # All are made before the first is written: a lesson with a fault leaves no half of a set.
    made = [files(name, seed) for name in names]
    return [line for each in made for line in write(each, folder)]


def course() -> Path:
    """The folder of the course's notebooks."""
    from workbench.cli.lab import shipped

    return shipped("notebooks/lessons", "_notebooks/lessons")


def student_files(name: str, seed: int) -> dict[str, str]:
    """A lesson as students get it."""
    from workbench.lessons import outline
    from workbench.lessons.class_set import as_text, read_lesson, student_notebook

    return {f"{name}.ipynb": as_text(student_notebook(read_lesson(course(), name), outline(name), seed))}


def teacher_files(name: str, seed: int) -> dict[str, str]:
    """A lesson's answer key: as a notebook, and to read."""
    from workbench.lessons import outline
    from workbench.lessons.answer_key import answer_key, teacher_notebook
    from workbench.lessons.class_set import as_text, read_lesson

    lesson, course_of = read_lesson(course(), name), outline(name)
    notebook = as_text(teacher_notebook(lesson, course_of, seed))
    return {f"{name}.key.ipynb": notebook, f"{name}.key.md": answer_key(lesson, course_of)}


def show(names: Sequence[str]) -> int:
    """The list of lessons."""
    from workbench.lessons import outline
    from workbench.lessons.measure import measured
    from workbench.lessons.progress import Progress

    numbers, place = measured(), progress_file()
    print(f"{'lesson':30}{'minutes':>9}{'memory':>9}{'done':>7}  title")
    for name in names:
        each = outline(name)
        kept = Progress(name, place).read()["exercises"]
        passed = sum(bool(kept.get(exercise.name, {}).get("passed")) for exercise in each.exercises)
        low, high = each.minutes
        memory = numbers[name].memory_said if name in numbers else "–"
        done = f"{passed}/{len(each.exercises)}"
        print(f"{name:30}{f'{low}–{high}':>9}{memory:>9}{done:>7}  {each.title}")
    return 0


def progress_file() -> Path | None:
    """The progress beside the notebooks: here, or where `workbench lab` put them. None: there is none yet."""
    from workbench.lessons.progress import FILE

    places = (Path(folder) / FILE for folder in (".", "workbench-notebooks/lessons", "notebooks/lessons", "lessons"))
    return next((place for place in places if place.is_file()), None)
