"""What a teacher hands out: a lesson without its solutions, with a seed of the class; and the answer key."""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from workbench.lessons.names import LESSONS
from workbench.lessons.outline import Outline

NBGRADER = 3  # the version of the metadata that nbgrader 0.6 and later read


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """The lessons that a command line names ("4", "04", "attention", "04_attention"); all without any.

    Raises:
        ValueError: for no lesson's name.
    """
    from workbench.lessons.grading.handed_in import lesson_in

    chosen: list[str] = []
    for name in names or LESSONS:
        found = lesson_in(name)
        if found is None:
            raise ValueError(f"there is no lesson {name!r}; there are {', '.join(LESSONS)}")
        chosen.append(found)
    return tuple(dict.fromkeys(chosen))


def read_lesson(folder: Path, name: str) -> Any:
    """A lesson's notebook from the folder of the course.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: this installation has no notebook of lesson {name}")
    return nbformat.read(path, as_version=4)


def as_text(notebook: Any) -> str:
    """A notebook as its file holds it."""
    return str(nbformat.writes(notebook)) + "\n"


def student_notebook(lesson: Any, outline: Outline, seed: int = 0) -> Any:
    """A lesson as students get it: no solutions, no outputs, the class's seed, and what nbgrader asks of its cells.

    Args:
        lesson: as ``read_lesson`` gives it; it stays as it is.

    Raises:
        ValueError: an exercise lacks its cell or its check, or no cell starts the lesson.
    """
    made = copy.deepcopy(lesson)
    made.cells = start_with([cell for cell in made.cells if "solution" not in _tags(cell)], solutions=False, seed=seed)
    _mark(made.cells, outline)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    made.metadata.pop("widgets", None)
    made.metadata["workbench"] = {"lesson": outline.name, "seed": seed}
    nbformat.validate(made)
    return made


def start_with(cells: Sequence[Any], *, solutions: bool, seed: int) -> list[Any]:
    """The cells, with these options in the one call of ``lessons.start``; that cell is a copy.

    Raises:
        ValueError: not exactly one such call is there.
    """
    calls = [(i, call) for i, cell in enumerate(cells) if cell["cell_type"] == "code" for call in _starts(cell)]
    if len(calls) != 1:
        raise ValueError(f"expected one call of lessons.start in the notebook, found {len(calls)}")
    (at, call) = calls[0]
    source = cells[at]["source"]
    kept = [ast.get_source_segment(source, each) for each in call.args]
    kept += [
        f"{each.arg}={ast.get_source_segment(source, each.value)}"
        for each in call.keywords
        if each.arg not in ("solutions", "seed")
    ]
    options = ", ".join([*map(str, kept), f"solutions={solutions}", f"seed={seed}"])
    called = ast.get_source_segment(source, call.func)
    made = list(cells)
    made[at] = copy.deepcopy(cells[at])
    made[at]["source"] = _replaced(source, call, f"{called}({options})")
    return made


def _starts(cell: Any) -> list[ast.Call]:
    try:
        nodes = list(ast.walk(ast.parse(cell["source"])))
    except SyntaxError:
        return []
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "lessons.start"]


def _replaced(source: str, node: ast.Call, text: str) -> str:
    """The source with another text where the node stands; Python counts columns in bytes."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None and node.end_col_offset is not None
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return before.decode() + text + after.decode()


def _tags(cell: Any) -> tuple[str, ...]:
    return tuple(cell["metadata"].get("tags", ()))


def _mark(cells: Sequence[Any], outline: Outline) -> None:
    """nbgrader's metadata: exercise cells are the student's, checks are worth points, all else is restored."""
    exercises = {each.name: each for each in outline.exercises}
    for i, cell in enumerate(cells):
        marked = {"schema_version": NBGRADER, "cell_type": cell.cell_type, "grade": False, "solution": False}
        marked |= {"locked": True, "task": False, "grade_id": f"cell-{i + 1:03d}"}
        if "exercise" in _tags(cell):
            name = _defined(cell.source, exercises, outline)
            marked |= {"solution": True, "locked": False, "grade_id": name}
            if i + 1 == len(cells) or "check" not in _tags(cells[i + 1]):
                raise ValueError(f"lesson {outline.name}: no check follows the cell of exercise {name}")
        elif "check" in _tags(cell):
            name = cells[i - 1].metadata["nbgrader"]["grade_id"] if i else ""
            if name not in exercises:
                raise ValueError(f"lesson {outline.name}: cell {i + 1} is a check, but follows no exercise")
            marked |= {"grade": True, "points": exercises[name].points, "grade_id": f"check-{name}"}
        cell.metadata["nbgrader"] = marked
    found = {cell.metadata["nbgrader"]["grade_id"] for cell in cells}
    if missing := [name for name in exercises if name not in found]:
        raise ValueError(f"lesson {outline.name}: no cell for the exercises {', '.join(missing)}")


def _defined(source: str, exercises: dict[str, Any], outline: Outline) -> str:
    """The exercise that a cell defines."""
    names = [each.name for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)]
    found = [name for name in names if name in exercises]
    if len(found) != 1:
        raise ValueError(f"lesson {outline.name}: an exercise cell defines {names or 'no function'}, expected one of "
                         f"{', '.join(exercises)}")  # fmt: skip
    return found[0]


def write(files: dict[str, str], folder: Path) -> list[str]:
    """Write texts by name. What is there already and differs is somebody's work, and stays.

    Returns:
        One line for each file that says what was done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for name, text in files.items():
        path = folder / name
        if not path.exists():
            path.write_bytes(text.encode())
            lines.append(f"written    {name}")
        elif path.read_bytes() == text.encode():
            lines.append(f"unchanged  {name}")
        else:
            lines.append(f"kept yours {name} (it differs from what would be written; rename it to get that)")
    return lines
