"""Every lesson as it is stored, as a class set, and filled in by somebody who can do it, under seeds drawn fresh.

The stored notebooks themselves are run by nbmake, with all others. Here each lesson gets one kernel, in which the class
set of a fresh seed is run with the solutions filled in, and after it the checks of the stubs and of two more seeds.
"""

import ast
import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tests.lessons.pictures import PLOTLY, PNG, figures, is_empty, is_infinite
from workbench.lessons import LESSONS, Outline, outline
from workbench.lessons.class_set import student_notebook

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks" / "lessons"
PARTS = ("exercise", "check", "solution")

# Run after a lesson, in its kernel: its checks on the stubs, and on the solutions with other seeds.
AFTERWARDS = """
import json as _json
from workbench.lessons import lesson as _framework
_job = _json.loads({job!r})
_found = {{"refused": {{}}, "passed": {{}}}}
for _name, _source in _job["stubs"].items():
    _space = dict(globals())
    exec(_source, _space)
    _strict = _framework.Lesson(lesson.outline, solutions=False, seed=_job["seeds"][0])
    try:
        _strict.check(_space[_name])
    except _framework.CheckFailed as _error:
        _found["refused"][_name] = [_strict.verdicts[_name].kind, str(_error)]
for _seed in _job["seeds"]:
    _other = _framework.Lesson(lesson.outline, solutions=True, seed=_seed)
    _found["passed"][_seed] = []
    for _name in _job["stubs"]:
        _other.check(globals()[_name])
        _verdict = _other.verdicts[_name]
        _found["passed"][_seed].append([_name, _verdict.kind, _verdict.hint + " " + _verdict.detail])
open(_job["file"], "w").write(_json.dumps(_found))
"""


def stored(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def defined(cell: Any) -> list[str]:
    return [node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]


def has_ellipsis(source: str) -> bool:
    """Whether something is still to be written; `x[..., None]` is no such place."""
    tree = ast.parse(source)
    indices = {id(node) for each in ast.walk(tree) if isinstance(each, ast.Subscript) for node in ast.walk(each.slice)}
    dots = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value is ...]
    return any(id(node) not in indices for node in dots)


def sources(notebook: Any, part: str) -> dict[str, str]:
    """The source of each exercise's cell of a kind, by the exercise."""
    cells = [cell for cell in notebook.cells if part in tags(cell)]
    return {defined(cell)[-1]: cell.source for cell in cells}


# ------------------------------------------------------------------------------------------------------ as it is stored
def test_every_lesson_has_its_notebook_and_no_other_is_there():
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == LESSONS


@pytest.mark.parametrize("name", LESSONS)
def test_each_exercise_is_three_cells_in_the_outlines_order(name: str):
    cells, course = stored(name).cells, outline(name)
    first = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    assert [defined(cells[i])[-1] for i in first] == [each.name for each in course.exercises]
    for i, each in zip(first, course.exercises, strict=True):
        assert [tags(cell) & set(PARTS) for cell in cells[i : i + 3]] == [{part} for part in PARTS]
        exercise, check, solution = cells[i : i + 3]
        assert has_ellipsis(exercise.source), each.name
        assert not has_ellipsis(solution.source), each.name
        assert check.source.strip() == f"lesson.check({each.name})"
        assert defined(solution)[-1] == each.name
        assert "@lesson.solution\n" in solution.source
        assert solution.metadata.get("jupyter", {}).get("source_hidden") is True
    assert sum(bool(tags(cell) & set(PARTS)) for cell in cells) == 3 * len(first)


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_the_size_that_was_agreed(name: str):
    course = outline(name)
    assert course.name == name
    assert 6 <= len(course.exercises) <= 9
    assert 4 <= len(course.predictions) <= 6
    assert 45 <= course.minutes[0] <= course.minutes[1] <= 90
    assert 3 <= len(course.able_to) <= 6
    assert all(before in LESSONS[: LESSONS.index(name)] for before in course.builds_on)
    for each in course.exercises:
        assert len(each.mistakes) >= 3, each.name
        assert len(each.hints) >= 3, each.name
        assert len({mistake.hint for mistake in each.mistakes}) == len(each.mistakes), each.name


@pytest.mark.parametrize("name", LESSONS)
def test_each_prediction_of_the_outline_is_asked_once_in_order(name: str):
    code = [ast.parse(cell.source) for cell in stored(name).cells if cell.cell_type == "code"]
    calls = [node for tree in code for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = [call for call in calls if ast.unparse(call.func) == "lesson.predict"]
    keys = [
        {"key": call.args[0] if call.args else None} | {each.arg: each.value for each in call.keywords}
        for call in asked
    ]
    assert [ast.literal_eval(each["key"]) for each in keys] == list(outline(name).predictions)


@pytest.mark.parametrize("name", LESSONS)
def test_a_stored_lesson_was_run_and_every_picture_shows_something(name: str):
    notebook = stored(name)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    drawn = list(figures(notebook))
    assert drawn
    assert not [where for where, figure in drawn if is_empty(figure) or is_infinite(figure)]
    alone = [output for output in outputs if PLOTLY in output.get("data", {}) and PNG not in output.data]
    assert not alone, "a figure without its picture: run make notebooks"
    folded = [
        output.data["text/html"]
        for output in outputs
        if "What came out" in output.get("data", {}).get("text/plain", "")
    ]
    assert folded, "no prediction shows what came out: run with WORKBENCH_LESSONS=reveal"
    for picture in re.findall(r'alt="the figure"[^>]* src="data:image/png;base64,([^"]+)"', " ".join(folded)):
        assert len(base64.b64decode(picture)) > 2000


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_starts_and_ends_as_all_do(name: str):
    cells = stored(name).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith(f"# {LESSONS.index(name) + 1} · ")
    assert "After this lesson you can" in cells[0].source + cells[1].source
    assert re.search(rf"""lessons\.start\(["']{name}["']\)""", code[0])
    assert code[-1].strip() == "lesson.finish()"


# ------------------------------------------------------------------------------------------------------------ as a run
@dataclass(frozen=True)
class Ran:
    """What came out of one kernel."""

    course: Outline
    seed: int
    notebook: Any
    verdicts: list[dict[str, Any]]
    afterwards: dict[str, Any]


@pytest.fixture(scope="module", params=LESSONS)
def ran(request: pytest.FixtureRequest, seed: int, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A class set of this run's seed, filled in with the solutions and run; then its stubs, and two more seeds."""
    name, folder = request.param, tmp_path_factory.mktemp("lesson")
    lesson, course = stored(name), outline(name)
    stubs, solutions = sources(lesson, "exercise"), sources(lesson, "solution")
    made = student_notebook(lesson, course, seed)
    for cell in made.cells:
        if "exercise" in tags(cell):
            cell.source = solutions[cell.metadata["nbgrader"]["grade_id"]].replace("@lesson.solution\n", "")
    job = json.dumps({"stubs": stubs, "seeds": [seed + 1, seed + 2], "file": str(folder / "found.json")})
    cells = [*made.cells, new_code_cell(AFTERWARDS.format(job=job))]
    notebook = new_notebook(cells=cells, metadata=made.metadata)
    environment = {"WORKBENCH_LESSONS": "reveal", "WORKBENCH_PROGRESS": "off"}
    environment |= {"WORKBENCH_VERDICTS": str(folder / "verdicts.jsonl"), "PYTHONPATH": str(ROOT)}
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, **environment})
    lines = (folder / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    n = len(course.exercises)
    return Ran(
        course,
        seed,
        notebook,
        [json.loads(line) for line in lines[:n]],
        json.loads((folder / "found.json").read_text()),
    )


@pytest.mark.slow
def test_a_filled_in_class_set_runs_to_its_end_and_passes_every_check(ran: Ran):
    found = [(each["exercise"], each["of"], each["kind"]) for each in ran.verdicts]
    assert found == [(each.name, "answer", "passed") for each in ran.course.exercises]


@pytest.mark.slow
def test_every_figure_of_a_class_of_any_seed_shows_something(ran: Ran):
    drawn = list(figures(ran.notebook))
    assert len(drawn) >= len(ran.course.predictions)
    assert not [where for where, figure in drawn if is_empty(figure) or is_infinite(figure)]


@pytest.mark.slow
def test_a_lesson_of_any_seed_prints_no_warning(ran: Ran):
    outputs = [output for cell in ran.notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.slow
def test_a_class_set_stops_at_every_exercise_that_is_not_done_and_helps(ran: Ran):
    refused = ran.afterwards["refused"]
    assert list(refused) == [each.name for each in ran.course.exercises]
    for name, (kind, message) in refused.items():
        assert kind != "passed"
        assert len(message) > len(f"{name} is not done yet: ") + 20


@pytest.mark.slow
def test_the_solutions_pass_under_two_more_seeds(ran: Ran):
    checked = [each for found in ran.afterwards["passed"].values() for each in found]
    assert len(checked) == 2 * len(ran.course.exercises)
    assert not [each for each in checked if each[1] != "passed"]
