"""A lesson of three exercises, small enough to be read: what the tests of class sets and of grading work on."""

from collections.abc import Iterator

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbench.lessons import Case, Exercise, Mistake, Outline

EXERCISE, CHECK, SOLUTION = ({"tags": [tag]} for tag in ("exercise", "check", "solution"))


def _numbers(rng: np.random.Generator) -> Iterator[Case]:
    for n in (3, 1, 5):
        yield Case((rng.normal(size=n),), about=f"{n} numbers")


def _exercise(name: str, truth, wrong, points: int) -> Exercise:
    mistakes = (Mistake("wrong way", wrong, "That is the other way | round."),)
    return Exercise(name, f"The {name}", _numbers, truth, mistakes, ("a nudge", "more", "the code"), points)


OUTLINE = Outline(
    name="04_attention",
    title="A toy",
    minutes=(45, 60),
    able_to=("double a number",),
    builds_on=("03_residual_stream",),
    exercises=(
        _exercise("double", lambda x: x + x, lambda x: x / 2, 1),
        _exercise("quadruple", lambda x: 4 * x, lambda x: x**4, 2),
        _exercise("centred", lambda x: x - x.mean(), lambda x: x - x.sum(), 3),
    ),
    predictions=("larger",),
)

STUB = '''def {name}(x):
    """What it must do."""
    ...'''


def lesson() -> nbformat.NotebookNode:
    """The toy's notebook, executed, as the course's own are."""
    cells = [
        new_markdown_cell("# 4 · A toy"),
        new_code_cell(
            "import numpy as np\nfrom workbench import lessons\n"
            "# α: a byte more than a letter\nlesson = lessons.start('04_attention')  # begin"
        ),
        new_code_cell("two = 2\nshown = 'a figure'\nprint(shown)"),
        *_triple("double", "two * x"),
        new_code_cell("four = double(np.array(2.0))  # stands on the exercise above"),
        *_triple("quadruple", "double(double(x))"),
        new_code_cell("lesson.predict('larger', f'Is {four} larger than four?', choices=('yes', 'no'), answer='no')"),
        *_triple("centred", "x - np.mean(x)"),
        new_code_cell("lesson.finish()"),
    ]
    code = [cell for cell in cells if cell.cell_type == "code"]
    for n, cell in enumerate(code, 1):
        cell.execution_count = n
        cell.outputs = [nbformat.v4.new_output("stream", text="said\n")]
    for n, cell in enumerate(cells):
        cell.id = f"cell-{n}"
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def _triple(name: str, solved: str) -> list[nbformat.NotebookNode]:
    solution = f"@lesson.solution\ndef {name}(x):\n    return {solved}"
    return [
        new_code_cell(STUB.format(name=name), metadata=EXERCISE),
        new_code_cell(f"lesson.check({name})", metadata=CHECK),
        new_code_cell(solution, metadata={**SOLUTION, "jupyter": {"source_hidden": True}}),
    ]
