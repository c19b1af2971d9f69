"""Time and memory of a lesson, and the teacher's table."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from tests.lessons import toy
from workbench.lessons import LESSONS, outline
from workbench.lessons.measure import BEGIN, END, PAGE, Measured, main, measure, measured, table, with_table


def test_a_run_is_timed_and_its_memory_watched_children_too(tmp_path: Path):
    hold = "held = b'x' * 200_000_000"
    waiting = f"{hold}; import time; time.sleep(1.5)"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {waiting!r}])"
    found = measure(nbformat.v4.new_notebook(cells=[new_code_cell(f"{hold}\n{child}")]))
    assert 1.5 < found.seconds < 120
    assert 400_000_000 < found.memory < 2_000_000_000


def test_a_lesson_that_fails_is_not_measured():
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError):
        measure(nbformat.v4.new_notebook(cells=[new_code_cell("1 / 0")]))


def test_memory_is_said_rounded_up_to_what_a_laptop_must_have_free():
    assert Measured(12.4, 1_210_000_000).memory_said == "1.3 GB"
    assert Measured(12.4, 1_200_000_000).memory_said == "1.2 GB"
    assert Measured(12.4, 0).seconds_said == "12 s"


def test_the_table_has_what_the_outline_says_and_what_was_measured():
    text = table({"04_attention": Measured(21.2, 900_000_000)}, [toy.OUTLINE])
    assert "| `04_attention` | 45–60 | 3 | 3 | 6 | 1 | 21 s | 0.9 GB |" in text
    assert "**4. A toy**\n\n- double a number\n" in text
    assert "`quadruple` (2)" in text


def test_the_table_replaces_the_one_between_its_marks_and_nothing_else():
    page = f"before\n{BEGIN}\nold\n{END}\nafter"
    assert with_table(page, f"{BEGIN}\nnew\n{END}") == f"before\n{BEGIN}\nnew\n{END}\nafter"
    with pytest.raises(ValueError, match="expected one"):
        with_table("nothing", "new")


def test_every_lesson_was_measured_and_fits_a_students_laptop():
    numbers = measured()
    assert tuple(numbers) == LESSONS
    for name, each in numbers.items():
        assert each.seconds < 300, name
        assert each.memory < 4_000_000_000, name


def test_the_teachers_page_says_what_the_outlines_say():
    assert main(["--check"]) == 0, "docs/teaching.md is out of date: python -m workbench.lessons.measure --outlines"


def test_every_lesson_has_its_line_on_the_teachers_page():
    page = PAGE.read_text(encoding="utf-8")
    for name in LESSONS:
        low, high = outline(name).minutes
        assert f"| `{name}` | {low}–{high} |" in page
