"""Grading what a class handed in: whatever students do to a notebook, each exercise gets its own fair verdict."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from tests.lessons import toy
from workbench import cli
from workbench.cli import lessons as lessons_command
from workbench.lessons.class_set import student_notebook
from workbench.lessons.grading import Grade, HandedIn, Report, Score, collect, grade
from workbench.lessons.grading.child import Grading, verdicts
from workbench.lessons.grading.code import read_code
from workbench.lessons.grading.grade import Limits, grade_one

RIGHT = {
    "double": "def double(x):\n    return two * x",
    "quadruple": "def quadruple(x):\n    return double(double(x))",
    "centred": "def centred(x):\n    return x - x.mean()",
}
NAMES = tuple(RIGHT)
LEFT_BEHIND = "import time; time.sleep(54.321)"


def handed_in(answers: dict[str, str]) -> nbformat.NotebookNode:
    """The class set with these exercises filled in."""
    made = student_notebook(toy.lesson(), toy.OUTLINE, seed=7)
    for cell in made.cells:
        name = cell.metadata["nbgrader"]["grade_id"]
        cell.source = answers.get(name, cell.source)
    return made


def graded(notebook: nbformat.NotebookNode, lesson: nbformat.NotebookNode | None = None) -> dict[str, dict[str, Any]]:
    """The verdicts on a notebook, in this process."""
    grading = Grading(read_code(notebook.cells), read_code((lesson or toy.lesson()).cells), NAMES)
    heard: list[dict[str, Any]] = []
    verdicts(grading, toy.OUTLINE, 7, {}, lambda **what: heard.append(what))
    assert not [each for each in heard if "problem" in each]
    return {each["end"]: each for each in heard if "end" in each}


def kinds(notebook: nbformat.NotebookNode) -> list[str]:
    found = graded(notebook)
    return [found[name]["kind"] for name in NAMES]


# ------------------------------------------------------------------------------------------------ a notebook's code
def test_right_functions_pass_and_stubs_are_unfinished():
    assert kinds(handed_in(RIGHT)) == ["passed"] * 3
    assert kinds(handed_in({})) == ["unfinished"] * 3


def test_a_typical_mistake_gets_its_own_hint():
    found = graded(handed_in({"double": "def double(x):\n    return x / 2"}))["double"]
    assert (found["kind"], found["mistake"]) == ("mistake", "wrong way")
    assert found["hint"] == "That is the other way | round."


def test_an_exercise_is_judged_alone_where_an_earlier_one_is_wrong():
    assert kinds(handed_in({**RIGHT, "double": "def double(x):\n    return x"})) == ["wrong", "passed", "passed"]


def test_functions_are_found_wherever_the_cells_are():
    made = handed_in({})
    made.cells = [new_code_cell(source) for source in reversed(RIGHT.values())] + made.cells
    assert kinds(made) == ["passed"] * 3


def test_several_exercises_in_one_cell_are_still_judged_one_by_one():
    made = handed_in({})
    joined = "\n\n".join({**RIGHT, "double": "def double(x):\n    return x"}.values())
    made.cells = [made.cells[1], new_code_cell(joined)]
    assert kinds(made) == ["wrong", "passed", "passed"]


def test_the_last_attempt_counts_and_a_stub_left_below_does_not():
    made = handed_in(RIGHT)
    made.cells.append(new_code_cell("def double(x):\n    return x  # changed my mind"))
    made.cells.append(new_code_cell("def centred(x):\n    ..."))
    assert kinds(made) == ["wrong", "passed", "passed"]


def test_helpers_and_imports_that_a_student_added_are_brought_along():
    made = handed_in({**RIGHT, "centred": "def centred(x):\n    return x - mean_of(x)"})
    made.cells.insert(2, new_code_cell("import statistics as stats\nlimit = 9\nprint(open('/nowhere'))"))
    made.cells.insert(3, new_code_cell("def mean_of(x):\n    return stats.fmean(x) if limit else 0"))
    assert kinds(made) == ["passed"] * 3


def test_a_local_name_brings_no_cell_of_the_student_along():
    made = handed_in(
        {**RIGHT, "centred": "def centred(x):\n    mean = sum(x) / len(x)\n    return [y - mean for y in x]"}
    )
    made.cells.insert(2, new_code_cell("mean = centred([1, 2])\ny = 1 / 0"))
    assert kinds(made) == ["passed"] * 3


def test_what_a_lesson_fills_step_by_step_is_there_whole():
    ours = "steps = {}\nfor i in range(3):\n    steps[i] = i\nsteps.update({3: 3})\nprint(steps)"
    lesson, made = toy.lesson(), handed_in({**RIGHT, "double": "def double(x):\n    return x * (len(steps) - 2)"})
    lesson.cells.insert(2, new_code_cell(ours))
    assert [each["kind"] for each in graded(made, lesson).values()] == ["passed"] * 3


def test_a_student_cannot_redefine_what_the_lesson_brings():
    made = handed_in(RIGHT)
    made.cells.insert(3, new_code_cell("two = 3"))
    assert kinds(made) == ["passed"] * 3


def test_edited_checks_and_other_cells_are_not_run():
    made = handed_in({})
    for cell in made.cells:
        if cell.cell_type == "code" and "lesson.check" in cell.source:
            cell.source = "raise SystemExit('edited')"
    made.cells.append(new_code_cell("lesson.check = print; 1 / 0"))
    assert kinds(made) == ["unfinished"] * 3


def test_the_courses_own_solutions_are_never_taken_for_the_students_work():
    assert kinds(toy.lesson()) == ["unfinished"] * 3


def test_a_cell_that_is_no_python_costs_its_own_exercise_and_says_where():
    made = handed_in({**RIGHT, "quadruple": "def quadruple(x):\n    return 4 * (x"})
    found = graded(made)
    assert [found[name]["kind"] for name in NAMES] == ["passed", "unreadable", "passed"]
    assert "cell 7, line 2" in found["quadruple"]["hint"]
    assert "return 4 * (x" in found["quadruple"]["hint"]


def test_a_broken_try_does_not_hide_a_readable_answer():
    made = handed_in(RIGHT)
    made.cells.append(new_code_cell("def quadruple(x)\n    return"))
    assert kinds(made) == ["passed"] * 3


def test_a_missing_function_is_said_to_be_missing():
    made = handed_in(RIGHT)
    made.cells = [cell for cell in made.cells if "def centred" not in cell.source]
    found = graded(made)["centred"]
    assert found["kind"] == "missing"
    assert "`centred`" in found["hint"]


def test_jupyters_own_lines_do_not_make_a_cell_unreadable():
    first = "%%time\n%matplotlib inline\n!ls\nfiles = !ls\n" + RIGHT["double"]
    assert kinds(handed_in({**RIGHT, "double": first})) == ["passed"] * 3


@pytest.mark.parametrize(
    ("body", "said"),
    [("raise SystemExit", "SystemExit"), ("raise KeyboardInterrupt", "KeyboardInterrupt"), ("missing + x", "missing")],
)
def test_code_that_raises_is_told_what_and_the_rest_goes_on(body: str, said: str):
    found = graded(handed_in({**RIGHT, "double": f"def double(x):\n    {body}"}))
    assert found["double"]["kind"] == "raised"
    assert said in found["double"]["hint"]
    assert found["centred"]["kind"] == "passed"


def test_an_error_shows_the_students_own_line():
    found = graded(handed_in({**RIGHT, "double": "def double(x):\n    y = x * 2\n    return y.nothing"}))
    assert "`return y.nothing`" in found["double"]["hint"]


def test_grading_twice_gives_the_same_verdicts():
    made = handed_in({**RIGHT, "centred": "def centred(x):\n    return x - x.sum() / 4"})
    first, second = ({name: {**each, "seconds": 0} for name, each in graded(made).items()} for _ in range(2))
    assert first == second


# ----------------------------------------------------------------------------------------------------- what came in
def store(path: Path, notebook: nbformat.NotebookNode) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    ("file", "student"),
    [
        ("ada/04_attention.ipynb", "ada"),
        ("ada/04_attention/04_attention.ipynb", "ada"),  # nbgrader's own folders
        ("04_attention_ada.ipynb", "ada"),
        ("ada 04_attention (1).ipynb", "ada 04_attention (1)".replace("04_attention", "").strip(" _-.()")),
        ("ada.ipynb", "ada"),
        ("04_attention.ipynb", "class"),
    ],
)
def test_a_student_is_named_by_the_folder_or_by_the_file(tmp_path: Path, file: str, student: str):
    store(tmp_path / "class" / file, handed_in({}))
    ((found,), problems) = collect(tmp_path / "class")
    assert (found.student, found.lesson, found.seed) == (student, "04_attention", 7)
    assert not problems


def test_without_metadata_the_start_cell_names_lesson_and_seed(tmp_path: Path):
    made = handed_in({})
    made.metadata = {}
    store(tmp_path / "ada.ipynb", made)
    ((found,), _) = collect(tmp_path)
    assert (found.lesson, found.seed) == ("04_attention", 7)


def test_what_is_no_lesson_is_one_line_and_the_rest_is_found(tmp_path: Path):
    store(tmp_path / "ada/04_attention.ipynb", handed_in({}))
    store(tmp_path / "bob/essay.ipynb", nbformat.v4.new_notebook(cells=[new_markdown_cell("Hello")]))
    (tmp_path / "cy.ipynb").write_text('{"cells": [')
    (tmp_path / "dee.ipynb").write_text("[1, 2]")
    (tmp_path / "eve.ipynb").symlink_to(tmp_path / "ada/04_attention.ipynb")
    store(tmp_path / ".ipynb_checkpoints/04_attention-checkpoint.ipynb", handed_in({}))
    found, problems = collect(tmp_path)
    assert [each.student for each in found] == ["ada"]
    starts = ["bob/essay.ipynb: is of no lesson", "cy.ipynb: cannot be read as a notebook"]
    starts += ["dee.ipynb: is no notebook of format 4", "eve.ipynb: a link, not a file"]
    assert all(line.startswith(start) for line, start in zip(problems, starts, strict=True))


def test_lessons_that_were_not_asked_for_are_passed_over(tmp_path: Path):
    store(tmp_path / "ada/04_attention.ipynb", handed_in({}))
    assert collect(tmp_path, ["05_induction"]) == ([], [])


def test_predictions_come_from_the_progress_file_beside_the_notebook(tmp_path: Path):
    store(tmp_path / "ada/04_attention.ipynb", handed_in({}))
    ((found,), _) = collect(tmp_path)
    assert found.predictions() is None
    made = {"larger": {"value": "no", "right": True, "at": "2026-01-01T00:00:00+00:00"}}
    record = {"version": 1, "lessons": {"04_attention": {"predictions": made}}}
    (tmp_path / "ada" / "lesson-progress.json").write_text(json.dumps(record))
    assert found.predictions() == made
    (tmp_path / "ada" / "lesson-progress.json").write_text("{")
    assert found.predictions() is None


# ------------------------------------------------------------------------------------------------- in its own process
@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory):
    """A course of the toy alone, for this process and for the graders' processes."""
    folder = tmp_path_factory.mktemp("course")
    store(folder / "04_attention.ipynb", toy.lesson())
    (folder / "sitecustomize.py").write_text(
        "import workbench.lessons.names as names\n"
        "from tests.lessons import toy\nnames.outline = lambda _: toy.OUTLINE\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setattr(lessons_command, "course", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def trouble(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A class in which everything happens."""
    folder = tmp_path_factory.mktemp("class")
    loop, leave = "    while True:\n        pass", "    import os\n    os._exit(3)"
    store(folder / "ada/04_attention.ipynb", handed_in(RIGHT))
    endless = {"double": f"def double(x):\n{loop}", "centred": f"while True:\n    pass\n{RIGHT['centred']}"}
    store(folder / "bob/04_attention.ipynb", handed_in({**RIGHT, **endless}))
    leaving = {"double": f"def double(x):\n{leave}", "centred": "def centred(x):\n    return x + 1"}
    store(folder / "cy/04_attention.ipynb", handed_in({**RIGHT, **leaving}))
    noisy = "import sys, subprocess\nprint('{}'*9, flush=True)\n"
    noisy += f"child = subprocess.Popen([sys.executable, '-c', {LEFT_BEHIND!r}])\n"
    store(folder / "dee/04_attention.ipynb", handed_in({**RIGHT, "double": noisy + RIGHT["double"]}))
    (folder / "eve.ipynb").write_text("{")
    return grade(folder, course, limits=Limits(seconds=5.0), jobs=2)


def scores(report: Report, student: str) -> dict[str, Score]:
    (found,) = [each for each in report.grades if each.handed_in.student == student]
    return {each.exercise: each for each in found.scores}


def test_a_class_is_graded_by_student_with_points(trouble: Report):
    assert [(each.handed_in.student, each.score, each.most) for each in trouble.grades] == [
        ("ada", 6, 6), ("bob", 2, 6), ("cy", 2, 6), ("dee", 6, 6)
    ]  # fmt: skip


def test_a_loop_without_end_is_stopped_and_the_others_are_graded(trouble: Report):
    found = scores(trouble, "bob")
    assert [found[name].kind for name in NAMES] == ["too slow", "passed", "too slow"]
    assert "longer than 5 s" in found["double"].hint


def test_code_that_ends_python_loses_its_exercise_alone(trouble: Report):
    found = scores(trouble, "cy")
    assert [found[name].kind for name in NAMES] == ["crashed", "passed", "wrong"]
    assert "exit status 3" in found["double"].hint


def test_what_students_print_and_start_does_no_harm(trouble: Report):
    assert all(score.passed for score in scores(trouble, "dee").values())
    running = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    assert not [command for command in running if LEFT_BEHIND in command]


def test_a_file_that_cannot_be_graded_is_a_line_of_the_report(trouble: Report):
    (line,) = trouble.problems
    assert line.startswith("eve.ipynb: cannot be read")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its memory")
def test_a_student_who_takes_all_memory_gets_an_error_and_the_machine_goes_on(course: Path, tmp_path: Path):
    hog = "def double(x):\n    import numpy\n    return numpy.ones(10**11)"
    path = store(tmp_path / "ada.ipynb", handed_in({**RIGHT, "double": hog}))
    found = grade_one(HandedIn(path, "ada", "04_attention", 7, now()), course, Limits(memory=2 * 10**9))
    assert [score.kind for score in found.scores] == ["raised", "passed", "passed"]
    assert "MemoryError" in found.scores[0].hint


def now() -> datetime:
    return datetime.now(UTC)


def test_grading_leaves_nothing_beside_the_notebooks(trouble: Report):
    files = {path.name for path in trouble.folder.rglob("*") if path.is_file()}
    assert files == {"04_attention.ipynb", "eve.ipynb"}


def test_a_grader_that_cannot_start_says_why(tmp_path: Path, course: Path):
    store(tmp_path / "ada.ipynb", handed_in(RIGHT))
    report = grade(tmp_path, tmp_path / "no-course")
    assert not report.grades
    (line,) = report.problems
    assert line.startswith("ada.ipynb: the grader could not start")
    assert "no-course" in line


def test_whoever_wants_no_more_need_not_wait_for_a_loop_to_end(course: Path, tmp_path: Path):
    path = store(tmp_path / "ada.ipynb", handed_in({"double": "while True:\n    pass\ndef double(x):\n    return x"}))
    stop = threading.Event()
    threading.Timer(1, stop.set).start()
    start = time.monotonic()
    with pytest.raises(ValueError, match="no answer"):
        for _ in range(4):
            grade_one(HandedIn(path, "ada", "04_attention", 7, now()), course, Limits(seconds=100.0), stop=stop)
    assert time.monotonic() - start < 60


@pytest.mark.skipif(sys.platform == "win32", reason="a process there does not learn that its parent has ended")
def test_a_grader_that_is_killed_leaves_no_endless_loop_behind(course: Path, tmp_path: Path, root: Path):
    begun = tmp_path / "begun"
    loop = f"file = open({str(begun)!r}, 'w')\nwhile True:\n    pass\ndef double(x):\n    return x"
    store(tmp_path / "class" / "ada.ipynb", handed_in({"double": loop}))
    code = "import sys; from pathlib import Path; from workbench.lessons.grading import grade\n"
    code += "grade(*map(Path, sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(root)])}
    command = [sys.executable, "-c", code, str(tmp_path / "class"), str(course)]
    with subprocess.Popen(command, env=environment) as grader:
        wait_until(begun.exists)
        children = psutil.Process(grader.pid).children(recursive=True)
        assert children
        grader.kill()
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end, "nothing happened for two minutes"
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------------- the reports
@pytest.fixture
def report() -> Report:
    def one(student: str, lesson: str, *passed: bool) -> Grade:
        path = Path("class") / student / f"{lesson}.ipynb"
        whose = HandedIn(path, student, lesson, 7, datetime(2026, 3, 1, 12, 30, tzinfo=UTC))
        kinds = ("passed" if each else "wrong" for each in passed)
        scores = [Score(f"e{i}", i + 1, kind, "a hint", seconds=0.1) for i, kind in enumerate(kinds)]
        return Grade(whose, 7, tuple(scores), None)

    grades = [one("ada", "04_attention", True, True), one("=cmd()", "04_attention", False, True)]
    grades += [one("ada", "04_attention", True, False), one("\x1b[2Jbob", "05_induction", False)]
    return Report(Path("class"), tuple(grades), ("eve.ipynb: no",))


def test_the_csv_has_nbgraders_columns_and_one_line_for_each_student_and_lesson(report: Report):
    text = report.csv()
    assert text.splitlines()[0] == (
        "assignment,duedate,timestamp,student_id,last_name,first_name,email,raw_score,late_submission_penalty,score,"
        "max_score"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["assignment"], row["student_id"], row["score"], row["max_score"]) for row in rows] == [
        ("04_attention", "ada", "3.0", "3.0"),
        ("04_attention", "'=cmd()", "2.0", "3.0"),  # no formula
        ("05_induction", "'\x1b[2Jbob".lstrip("'"), "0.0", "1.0"),
    ]
    assert rows[0]["timestamp"] == "2026-03-01 12:30:00"


def test_the_json_holds_every_exercise_with_its_verdict(report: Report):
    whole = json.loads(report.json())
    first = whole["grades"][0]
    assert (first["student"], first["lesson"], first["file"]) == ("ada", "04_attention", "ada/04_attention.ipynb")
    assert first["exercises"][1] == {
        "exercise": "e1", "points": 2, "kind": "passed", "hint": "a hint", "detail": "", "mistake": None,
        "seconds": 0.1, "passed": True,
    }  # fmt: skip
    assert first["predictions"] is None
    assert whole["problems"] == ["eve.ipynb: no"]


def test_the_table_says_what_is_open_and_commands_no_terminal(report: Report):
    lines = list(report.lines())
    assert lines[0] == "04_attention: 2 exercises, 3 points"
    assert lines[1].split() == ["ada", "3", "all", "passed"]
    assert "e0 (wrong)" in lines[2]
    assert "\x1b" not in "".join(lines)


def test_the_command_writes_both_files_and_fails_when_a_notebook_could_not_be_graded(
    course: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "class"
    store(folder / "ada/04_attention.ipynb", handed_in(RIGHT))
    files = ["--json", str(tmp_path / "grades.json"), "--csv", str(tmp_path / "grades.csv")]
    assert cli.main(["grade", str(folder), *files]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["ada", "6", "all", "passed"]
    assert json.loads((tmp_path / "grades.json").read_text())["grades"][0]["score"] == 6
    assert (tmp_path / "grades.csv").read_text().splitlines()[1].startswith("04_attention,,")
    (folder / "bob.ipynb").write_text("")
    assert cli.main(["grade", str(folder), "--quiet", "--lesson", "5"]) == 1
    assert "workbench: bob.ipynb: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["nothing", "empty", "a file"])
def test_a_folder_without_notebooks_is_one_clear_line(tmp_path: Path, content: str, capsys):
    folder = tmp_path / "class"
    folder.mkdir() if content == "empty" else content == "a file" and folder.write_text("")
    assert cli.main(["grade", str(folder)]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "no notebook" in said if content == "empty" else "is no folder" in said


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_grades_that_cannot_be_written_are_said_before_anything_is_graded(tmp_path: Path, option: str, capsys):
    store(tmp_path / "class/ada/04_attention.ipynb", handed_in(RIGHT))
    for place in (tmp_path / "nowhere" / "grades", tmp_path):
        assert cli.main(["grade", str(tmp_path / "class"), option, str(place)]) == 1
        said = capsys.readouterr()
        assert said.out == "" and str(place) in said.err and "cannot be written" in said.err


@pytest.mark.parametrize("option", [["--timeout", "0"], ["--timeout", "nan"], ["--memory", "much"]])
def test_a_limit_that_is_none_is_refused(option: list[str], capsys):
    with pytest.raises(SystemExit):
        cli.main(["grade", "class", *option])
    assert "expected a number above 0" in capsys.readouterr().err


def test_right_answers_pass_whatever_the_seed():
    grading = Grading(read_code(handed_in(RIGHT).cells), read_code(toy.lesson().cells), NAMES)
    for seed in np.random.default_rng(0).integers(2**31, size=20):
        heard: list[dict[str, Any]] = []
        verdicts(grading, toy.OUTLINE, int(seed), {}, lambda heard=heard, **what: heard.append(what))
        assert all(each["kind"] == "passed" for each in heard if "end" in each)
