"""What a teacher hands out and keeps: class sets without solutions, and answer keys."""

import ast
import json
from pathlib import Path

import nbformat
import pytest

from tests.lessons import toy
from workbench import cli
from workbench.cli import lessons as command
from workbench.lessons.answer_key import answer_key, teacher_notebook
from workbench.lessons.class_set import choose, start_with, student_notebook, write


@pytest.fixture
def lesson():
    return toy.lesson()


def tagged(notebook, tag: str):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def code_of(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def test_a_class_set_has_every_cell_but_the_solutions_and_shows_nothing(lesson):
    made = student_notebook(lesson, toy.OUTLINE)
    kept = [cell.id for cell in lesson.cells if "solution" not in cell.metadata.get("tags", ())]
    assert [cell.id for cell in made.cells] == kept
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "solution" not in code_of(made).replace("solutions=False", "")


def test_making_a_class_set_leaves_the_lesson_as_it_is(lesson):
    before = nbformat.writes(lesson)
    student_notebook(lesson, toy.OUTLINE, seed=7)
    teacher_notebook(lesson, toy.OUTLINE, seed=7)
    assert nbformat.writes(lesson) == before


def test_the_start_cell_gets_the_seed_and_everything_else_in_it_stays(lesson):
    made = student_notebook(lesson, toy.OUTLINE, seed=7)
    expected = lesson.cells[1].source.replace("'04_attention'", "'04_attention', solutions=False, seed=7")
    assert made.cells[1].source == expected
    assert made.metadata["workbench"]["seed"] == 7
    assert made.metadata["workbench"]["lesson"] == "04_attention"


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ('lesson = lessons.start("04_attention")', 'lesson = lessons.start("04_attention", solutions=False, seed=3)'),
        ("lesson = lessons.start(4, seed=9)", "lesson = lessons.start(4, solutions=False, seed=3)"),
        ("é = lessons.start(name='4', solutions=True); é", "é = lessons.start(name='4', solutions=False, seed=3); é"),
        ("x = lessons.start(\n    4,\n)\ny = 1", "x = lessons.start(4, solutions=False, seed=3)\ny = 1"),
    ],
)
def test_the_call_that_starts_a_lesson_is_changed_however_it_is_written(written: str, becomes: str):
    cells = [nbformat.v4.new_code_cell("a = 1"), nbformat.v4.new_code_cell(written)]
    assert start_with(cells, solutions=False, seed=3)[1].source == becomes
    assert cells[1].source == written


@pytest.mark.parametrize("sources", [["x = 1"], ["lessons.start(4)", "lessons.start(5)"], ["# lessons.start(4)"]])
def test_without_exactly_one_start_a_class_set_is_refused(sources: list[str]):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    with pytest.raises(ValueError, match=r"expected one call of lessons\.start"):
        start_with(cells, solutions=False, seed=3)


def test_each_cell_says_to_nbgrader_whose_it_is_and_what_it_is_worth(lesson):
    made = student_notebook(lesson, toy.OUTLINE)
    marks = [cell.metadata["nbgrader"] for cell in made.cells]
    assert {mark["schema_version"] for mark in marks} == {3}
    assert len({mark["grade_id"] for mark in marks}) == len(marks)
    assert [mark["cell_type"] for mark in marks] == [cell.cell_type for cell in made.cells]
    exercises = [cell.metadata["nbgrader"] for cell in tagged(made, "exercise")]
    assert [mark["grade_id"] for mark in exercises] == ["double", "quadruple", "centred"]
    assert all(mark["solution"] and not mark["grade"] and not mark["locked"] for mark in exercises)
    checks = [cell.metadata["nbgrader"] for cell in tagged(made, "check")]
    assert [(mark["grade_id"], mark["points"]) for mark in checks] == [
        ("check-double", 1), ("check-quadruple", 2), ("check-centred", 3)
    ]  # fmt: skip
    assert all(mark["grade"] and mark["locked"] and not mark["solution"] for mark in checks)
    others = [mark for mark in marks if mark not in exercises + checks]
    assert all(mark["locked"] and not mark["grade"] and not mark["solution"] for mark in others)


@pytest.mark.parametrize(
    ("without", "message"), [(3, "check, but follows no exercise"), (4, "no check follows the cell of exercise double")]
)
def test_a_lesson_that_lacks_a_cell_of_an_exercise_makes_no_class_set(lesson, without: int, message: str):
    del lesson.cells[without]
    with pytest.raises(ValueError, match=message):
        student_notebook(lesson, toy.OUTLINE)


def test_an_exercise_of_the_outline_that_the_notebook_lacks_is_named(lesson):
    lesson.cells = [cell for cell in lesson.cells if "centred" not in cell.source]
    with pytest.raises(ValueError, match="no cell for the exercises centred"):
        student_notebook(lesson, toy.OUTLINE)


def test_writing_never_touches_what_somebody_changed(tmp_path: Path):
    assert write({"a.ipynb": "ours"}, tmp_path / "new") == ["written    a.ipynb"]
    assert write({"a.ipynb": "ours"}, tmp_path / "new") == ["unchanged  a.ipynb"]
    (tmp_path / "new" / "a.ipynb").write_text("mine")
    (line,) = write({"a.ipynb": "ours"}, tmp_path / "new")
    assert line.startswith("kept yours a.ipynb")
    assert (tmp_path / "new" / "a.ipynb").read_text() == "mine"


def test_an_answer_key_has_solutions_open_and_what_was_shown(lesson):
    made = teacher_notebook(lesson, toy.OUTLINE)
    assert not any("source_hidden" in cell.metadata.get("jupyter", {}) for cell in made.cells)
    assert len(tagged(made, "solution")) == 3
    assert all(cell.outputs for cell in made.cells if cell.cell_type == "code")


def test_the_key_of_a_class_has_its_seed_and_no_output_of_another(lesson):
    made = teacher_notebook(lesson, toy.OUTLINE, seed=7)
    assert "lessons.start('04_attention', solutions=True, seed=7)" in code_of(made)
    assert not any(cell.outputs for cell in made.cells if cell.cell_type == "code")


def test_the_written_key_tells_tasks_solutions_hints_and_mistakes(lesson):
    text = answer_key(lesson, toy.OUTLINE)
    assert "## 2. `quadruple` (2 points)" in text
    assert "```python\ndef quadruple(x):\n    return double(double(x))\n```" in text
    assert "1. a nudge\n2. more\n3. the code" in text
    assert "| wrong way | That is the other way \\| round. |" in text
    assert "- `larger`: Is {…} larger than four?" in text


@pytest.mark.parametrize("name", ["4", "04", "attention", "04_attention"])
def test_a_lesson_is_chosen_by_number_or_name(name: str):
    assert choose([name]) == ("04_attention",)


def test_a_lesson_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no lesson '44'; there are 01_build_gpt_oss, .*10_analysis"):
        choose(["44"])


# ---------------------------------------------------------------------------------------------------- the command
@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of one toy lesson."""
    folder = tmp_path / "course"
    folder.mkdir()
    nbformat.write(toy.lesson(), folder / "04_attention.ipynb")
    monkeypatch.setattr(command, "course", lambda: folder)
    monkeypatch.setattr("workbench.lessons.outline", lambda name: toy.OUTLINE)
    return folder


def test_the_command_writes_a_class_set_and_says_where(course: Path, tmp_path: Path, capsys):
    assert cli.main(["lessons", "--student", str(tmp_path / "class"), "--seed", "5", "--lesson", "4"]) == 0
    assert "written    04_attention.ipynb" in capsys.readouterr().out
    made = nbformat.read(tmp_path / "class" / "04_attention.ipynb", as_version=4)
    assert "seed=5" in code_of(made)
    assert [path.name for path in (tmp_path / "class").iterdir()] == ["04_attention.ipynb"]


def test_the_command_writes_the_answer_keys(course: Path, tmp_path: Path):
    assert cli.main(["lessons", "--teacher", str(tmp_path / "keys"), "--lesson", "4"]) == 0
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"04_attention.key.ipynb", "04_attention.key.md"}


def test_a_class_set_written_twice_is_the_same_to_the_byte(course: Path, tmp_path: Path, capsys):
    for _ in range(2):
        cli.main(["lessons", "--student", str(tmp_path / "class"), "--lesson", "4"])
    assert "unchanged  04_attention.ipynb" in capsys.readouterr().out


def test_students_and_teachers_files_never_share_a_folder(course: Path, tmp_path: Path, capsys):
    both = str(tmp_path / "both")
    assert cli.main(["lessons", "--student", both, "--teacher", both, "--lesson", "4"]) == 1
    assert "belong into another" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_a_fault_in_one_lesson_leaves_no_half_of_a_set(course: Path, tmp_path: Path, capsys):
    assert cli.main(["lessons", "--student", str(tmp_path / "class"), "--lesson", "4", "5"]) == 1
    assert "05_induction.ipynb is missing" in capsys.readouterr().err
    assert not (tmp_path / "class").exists()


def test_the_list_says_what_is_done_in_this_folder(course: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = {"exercises": {"double": {"passed": True}, "quadruple": {"passed": False}}}
    Path("lesson-progress.json").write_text(json.dumps({"version": 1, "lessons": {"04_attention": record}}))
    assert cli.main(["lessons", "--lesson", "4"]) == 0
    (_, line) = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["04_attention", "45–60"]
    assert "1/3" in line
    assert line.endswith("A toy")


def test_every_cell_of_a_class_set_is_python(lesson):
    for cell in student_notebook(lesson, toy.OUTLINE).cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
