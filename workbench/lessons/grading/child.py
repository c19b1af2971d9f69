"""The process in which a student's code runs: ``python -m workbench.lessons.grading.child``, one for each notebook.

It reads one job from stdin (JSON) and writes one JSON line for each thing that happens to stdout; what the student's
code prints goes nowhere. Whoever starts it ends it when an exercise takes too long, and starts another that goes on.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.lessons.grading.code import (
    Code,
    Statement,
    Unreadable,
    is_stub,
    needed,
    read_code,
    without_solution_mark,
)
from workbench.lessons.grading.handed_in import read_cells

Tell = Callable[..., None]


class Grading:
    """One notebook's functions among our own notebook's cells.

    Args:
        student, ours: the code handed in, and the lesson's.
        names: the exercises, in order.
    """

    def __init__(self, student: Code, ours: Code, names: Iterable[str]) -> None:
        self.student, self.ours, self.names = student, ours, tuple(names)
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.problems: list[str] = []  # of the lesson's own code, which are not the student's
        self._ran: set[int] = set()
        self._lesson_code = [each for each in ours.statements if "check" not in each.tags and self._may_run(each)]
        self._student_code = [each for each in student.statements if self._is_help(each)]

    def _is_help(self, each: Statement) -> bool:
        """Whether a statement may help an exercise: no call (a figure, a try), no exercise, no solution."""
        return not (isinstance(each.node, ast.Expr) or each.is_solution or each.binds & set(self.names))

    def _may_run(self, each: Statement) -> bool:
        """Whether one of the lesson's statements may be needed: a call only where it changes a value in place."""
        if not isinstance(each.node, ast.Expr):
            return self._is_help(each)
        modules = {name for other in self.ours.statements if other.imports for name in other.binds}
        return bool(each.changes - (modules - {"torch", "np", "random"}) - {"lesson"})

    def written(self, name: str) -> list[Statement] | Unreadable | None:
        """The student's code of an exercise: its definition with what stands beside it; None where there is none."""
        found = [each for each in self.student.binding(name) if not each.is_solution]
        mine = [each for each in found if not is_stub(each.node)] or found
        if not mine:
            broken = [each for each in self.student.unreadable if f"def {name}" in each.source]
            return broken[-1] if broken else None
        last = mine[-1]
        beside = (each for each in self.student.statements if each.cell == last.cell)
        return [each for each in beside if each is last or self._is_help(each)]

    def solution(self, name: str) -> list[Statement]:
        """Our own code of an exercise."""
        cells = {each.cell for each in self.ours.binding(name) if each.is_solution}
        beside = (each for each in self.ours.statements if each.cell in cells)
        return [each for each in beside if not isinstance(each.node, ast.Expr)]

    def ready(self, name: str, statements: list[Statement]) -> list[Statement]:
        """Run what these statements need of the lesson, and hand them back with what they need of the student's own."""
        last = max((each.cell for each in self.ours.binding(name)), default=10**9)
        ours = [each for each in self._lesson_code if each.cell < last and id(each) not in self._ran]
        brought = {brings for each in ours for brings in each.binds}
        own = needed(statements, self._student_code, {*dir(builtins), *self.namespace, *brought})
        all_of_it = [*(each for each in own if each not in statements), *statements]
        self.run_lesson(needed(all_of_it, ours, ()))
        return all_of_it

    def run_lesson(self, statements: Iterable[Statement]) -> None:
        """Run statements of the lesson's own; what fails is the lesson's problem, not the student's."""
        for each in statements:
            self._ran.add(id(each))
            try:
                self._run(each, "lesson")
            except Exception as error:
                self.problems.append(f"the lesson's own cell {each.cell + 1}: {type(error).__name__}: {error}")

    def begin(self) -> None:
        """The lesson's imports and its first cell (a model is loaded): they take seconds that are not the student's."""
        first = {each.cell for each in self.ours.statements if "lesson" in each.binds}
        self.run_lesson(each for each in self.ours.statements if each.imports or each.cell in first)

    def define(self, name: str, statements: list[Statement]) -> Any:
        """Run statements that are ready, and hand back what has the name now."""
        for each in statements:
            self._run(each, name)
        return self.namespace.get(name)

    def _run(self, statement: Statement, what: str) -> None:
        # A name of its own for each cell, and its lines where a traceback and inspect look for them.
        file = f"<{what}, cell {statement.cell + 1}>"
        linecache.cache[file] = (len(statement.source), None, statement.source.splitlines(keepends=True), file)
        module = ast.Module([without_solution_mark(statement.node)], type_ignores=[])
        exec(compile(module, file, "exec"), self.namespace)


def verdicts(grading: Grading, outline: Any, seed: int, done: dict[str, bool], tell: Tell) -> None:
    """Define and check each exercise, and tell what came out.

    Args:
        done: what an earlier process found: name → passed. A passed one is defined again, none is tried again.
    """
    import numpy as np

    for exercise in outline.exercises:
        name = exercise.name
        written = grading.written(name)
        if isinstance(written, list):
            try:
                written = grading.ready(name, written)
            except Exception as error:  # code so deeply nested that Python cannot even read it
                written = Unreadable(written[0].cell, written[0].source, f"{type(error).__name__}: {error}")
        if name not in done:
            tell(begin=name)
            start = time.perf_counter()
            rng = np.random.default_rng([seed, zlib.crc32(f"{outline.name}/{name}/graded".encode())])
            found = judge(grading, exercise, written, rng)
            tell(end=name, seconds=round(time.perf_counter() - start, 3), **found)
            passed = found["kind"] == "passed"
        else:
            passed = done[name] and isinstance(written, list) and defined_again(grading, name, written)
        if not passed:
            # Later exercises are judged on their own.
            grading.run_lesson(grading.ready(name, grading.solution(name)))
        while grading.problems:
            tell(problem=grading.problems.pop())


def defined_again(grading: Grading, name: str, written: list[Statement]) -> bool:
    """Define what passed in an earlier process; whether that went well this time too."""
    try:
        grading.define(name, written)
    except BaseException:  # the student's, as in judge
        return False
    return True


def judge(grading: Grading, exercise: Any, written: Any, rng: Any) -> dict[str, Any]:
    """The verdict on one exercise, as plain data."""
    if written is None:
        return {"kind": "missing", "hint": f"No function `{exercise.name}` is in the notebook.", "detail": ""}
    if isinstance(written, Unreadable):
        where = f"cell {written.cell + 1}, {written.why}"
        return {"kind": "unreadable", "hint": f"The cell of `{exercise.name}` is no Python: {where}.", "detail": ""}
    try:
        function = grading.define(exercise.name, written)
        verdict = exercise.check(function, rng)
    except BaseException as error:  # the student's: SystemExit and KeyboardInterrupt too
        said = f"{type(error).__name__}: {error}"[:300]
        return {"kind": "raised", "hint": f"Your cell raised {said}", "detail": ""}
    told = {"kind": verdict.kind, "hint": verdict.hint, "detail": verdict.detail, "mistake": verdict.mistake}
    return {key: value if value is None else str(value) for key, value in told.items()}


def limit_memory(n_bytes: int) -> None:
    """At most so much more memory than now, where the system can hold a process to it (Linux)."""
    try:
        import resource

        import psutil

        most = psutil.Process().memory_info().vms + n_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        pass


def end_with_parent() -> None:
    """Watch whoever started us, in a thread: a grader that was killed leaves no endless loop behind."""
    import psutil

    parent = os.getppid()

    def watch() -> None:
        # Windows goes on giving the number of a parent that has ended.
        while os.getppid() == parent and psutil.pid_exists(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do the job that stands on stdin."""
    end_with_parent()
    job = json.loads(sys.stdin.buffer.readline())
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)

    def tell(**what: Any) -> None:
        report.write(json.dumps(what) + "\n")
        report.flush()

    try:
        grading, course = prepared(job)
    except Exception as error:
        tell(problem=f"{type(error).__name__}: {error}")
        os._exit(1)
    limit_memory(job["memory"])
    tell(ready=[[exercise.name, exercise.points] for exercise in course.exercises])
    verdicts(grading, course, job["seed"], job["done"], tell)
    tell(finished=True)
    os._exit(0)  # threads that a student began do not hold us


def prepared(job: dict[str, Any]) -> tuple[Grading, Any]:
    """The notebook of a job, and the outline of its lesson."""
    import torch  # noqa: F401  every check needs it

    from workbench.lessons.class_set import start_with
    from workbench.lessons.names import outline

    course = outline(job["lesson"])
    student, _ = read_cells(Path(job["notebook"]))
    ours, _ = read_cells(Path(job["ours"]))
    ours = start_with(ours, solutions=False, seed=job["seed"])
    grading = Grading(read_code(student), read_code(ours), (each.name for each in course.exercises))
    grading.begin()
    return grading, course


if __name__ == "__main__":
    main()
