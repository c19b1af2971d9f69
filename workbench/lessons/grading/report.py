"""What grading found: as JSON, as the CSV that nbgrader exports, and as a table in the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.lessons.grading.handed_in import HandedIn

VERSION = 1  # of the JSON's form
# nbgrader's own, in its order.
COLUMNS: tuple[str, ...] = (
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score",
    "late_submission_penalty", "score", "max_score",
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One exercise of one notebook.

    Attributes:
        kind: as in a Verdict; or "missing" (no such function), "unreadable" (its cell is no Python), "too slow",
            "crashed" (it ended Python).
        hint: what the student sees.
        mistake: which typical one it was.
        seconds: of the definition and the check.
    """

    exercise: str
    points: int
    kind: str
    hint: str
    detail: str = ""
    mistake: str | None = None
    seconds: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it earned its points."""
        return self.kind == "passed"


@dataclass(frozen=True)
class Grade:
    """One notebook.

    Attributes:
        predictions: what was committed, from the progress file beside it; None without that file.
        problems: what went wrong that is not the student's.
    """

    handed_in: HandedIn
    seed: int
    scores: tuple[Score, ...]
    predictions: dict[str, Any] | None
    problems: tuple[str, ...] = ()

    @property
    def score(self) -> int:
        """The points earned."""
        return sum(each.points for each in self.scores if each.passed)

    @property
    def most(self) -> int:
        """The points that can be earned."""
        return sum(each.points for each in self.scores)


@dataclass(frozen=True)
class Report:
    """All notebooks under a folder, by lesson and student.

    Attributes:
        problems: one line for each file that could not be graded, and why.
    """

    folder: Path
    grades: tuple[Grade, ...]
    problems: tuple[str, ...] = ()

    def counted(self) -> list[Grade]:
        """One for each student and lesson: of several notebooks the one with the most points."""
        best: dict[tuple[str, str], Grade] = {}
        for each in self.grades:
            key = (each.handed_in.lesson, each.handed_in.student)
            if key not in best or each.score > best[key].score:
                best[key] = each
        return list(best.values())

    def json(self) -> str:
        """Everything."""
        grades = [_plain(each, self.folder) for each in self.grades]
        whole = {"version": VERSION, "grades": grades, "problems": list(self.problems)}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> str:
        """A line for each student and lesson, in nbgrader's columns; names and addresses are not known here."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        for each in self.counted():
            score = float(each.score)
            changed = f"{each.handed_in.changed:%Y-%m-%d %H:%M:%S}"
            row = {"assignment": each.handed_in.lesson, "timestamp": changed, "score": score, "raw_score": score}
            row |= {"student_id": _no_formula(each.handed_in.student), "late_submission_penalty": 0.0}
            table.writerow(row | {"max_score": float(each.most)})
        return text.getvalue()

    def lines(self) -> Iterator[str]:
        """A table: lesson, student, points, and what is not passed."""
        width = max((len(each.handed_in.student) for each in self.grades), default=0)
        lesson = None
        for each in self.grades:
            if each.handed_in.lesson != lesson:
                lesson = each.handed_in.lesson
                yield f"{lesson}: {len(each.scores)} exercises, {each.most} points"
            still = ", ".join(f"{score.exercise} ({score.mistake or score.kind})" for score in _open(each))
            yield printable(f"  {each.handed_in.student:{width}}  {each.score:3d}  {still or 'all passed'}")


def _open(grade: Grade) -> list[Score]:
    return [score for score in grade.scores if not score.passed]


def _plain(grade: Grade, folder: Path) -> dict[str, Any]:
    handed_in = grade.handed_in
    exercises = [{**asdict(score), "passed": score.passed} for score in grade.scores]
    return {
        "student": handed_in.student,
        "lesson": handed_in.lesson,
        "file": handed_in.path.relative_to(folder).as_posix(),
        "changed": handed_in.changed.isoformat(timespec="seconds"),
        "seed": grade.seed,
        "score": grade.score,
        "max_score": grade.most,
        "exercises": exercises,
        "predictions": grade.predictions,
    }


def printable(text: str) -> str:
    """Without what would command a terminal: a student names folders, and writes messages of errors."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _no_formula(name: str) -> str:
    """A student's folder must not be one when a spreadsheet opens the file."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t")) else name
