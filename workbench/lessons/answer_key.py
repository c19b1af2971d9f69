"""A teacher's answer key: each exercise with its solution, its hints, and what students get wrong."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

from workbench.lessons.class_set import start_with
from workbench.lessons.outline import Outline


def teacher_notebook(lesson: Any, outline: Outline, seed: int = 0) -> Any:
    """A lesson with its solutions open. With the seed of a class, what depends on it is for the teacher to run."""
    made = copy.deepcopy(lesson)
    if seed:
        made.cells = start_with(made.cells, solutions=True, seed=seed)
    for cell in made.cells:
        cell.metadata.get("jupyter", {}).pop("source_hidden", None)
        if seed and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    made.metadata["workbench"] = {"lesson": outline.name, "seed": seed, "key": True}
    return made


def answer_key(lesson: Any, outline: Outline) -> str:
    """The key as Markdown."""
    return "\n".join(_lines(lesson, outline)) + "\n"


def _lines(lesson: Any, outline: Outline) -> Iterator[str]:
    low, high = outline.minutes
    yield f"# Answer key: lesson {outline.number}, {outline.title}\n"
    yield f"{low} to {high} minutes · {len(outline.exercises)} exercises, {outline.points} points · builds on " + (
        ", ".join(outline.builds_on) or "nothing"
    )
    yield "\nAfter it a student can:\n"
    yield from (f"- {each}" for each in outline.able_to)
    yield "\n## Predictions\n"
    yield "Committed before the figure appears; not part of the grade. The answers are computed when the lesson runs.\n"
    questions = dict(_questions(lesson))
    yield from (f"- `{key}`: {questions.get(key, '(see the notebook)')}" for key in outline.predictions)
    for number, exercise in enumerate(outline.exercises, 1):
        points = f"{exercise.points} point{'s' if exercise.points != 1 else ''}"
        yield f"\n## {number}. `{exercise.name}` ({points})\n"
        yield f"{exercise.task}.\n" if not exercise.task.endswith(".") else f"{exercise.task}\n"
        yield f"```python\n{_solution(lesson, exercise.name)}\n```\n"
        yield "Hints, in the order in which `lesson.hint` gives them:\n"
        yield from (f"{i}. {hint}" for i, hint in enumerate(exercise.hints, 1))
        yield "\nWhat students get wrong, and what the check then says:\n"
        yield "| mistake | hint |\n|---|---|"
        yield from (f"| {_cell(each.what)} | {_cell(each.hint)} |" for each in exercise.mistakes)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _solution(lesson: Any, name: str) -> str:
    for cell in lesson.cells:
        if "solution" in cell.metadata.get("tags", ()):
            tree = ast.parse(cell.source)
            if any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
                return cell.source.replace("@lesson.solution\n", "").strip()
    raise ValueError(f"no solution cell defines {name}")


def _questions(lesson: Any) -> Iterator[tuple[str, str]]:
    """The key and the text of each ``lesson.predict``; parts that are computed stand as ``{…}``."""
    for cell in lesson.cells:
        if cell.cell_type != "code" or "lesson.predict" not in cell.source:
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "lesson.predict":
                given = dict(zip(("key", "question"), node.args, strict=False))
                given |= {each.arg: each.value for each in node.keywords if each.arg}
                key, question = given.get("key"), given.get("question")
                if isinstance(key, ast.Constant) and question is not None:
                    yield str(key.value), " ".join(_text(question).split())


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each) if isinstance(each, ast.Constant) else "{…}" for each in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "{…}"
