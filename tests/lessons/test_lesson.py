"""What a lesson's notebook calls, in the hands of a student."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from workbench.lessons import Case, CheckFailed, Exercise, Lesson, Mistake, Outline, outline, start
from workbench.lessons.names import LESSONS, next_of
from workbench.lessons.progress import Progress


def cases(rng):
    yield Case((torch.tensor(rng.normal(size=(3, 3))),))


OUTLINE = Outline(
    name="04_attention",
    title="A lesson",
    minutes=(1, 2),
    able_to=("add",),
    exercises=(
        Exercise(
            "rows",
            "sums",
            cases,
            lambda x: x.sum(1),
            (Mistake("columns", lambda x: x.sum(0), "the other axis"),),
            ("a", "b"),
        ),
        Exercise("total", "sum", cases, lambda x: x.sum(), (), ("c",)),
    ),
    predictions=("more",),
)


@pytest.fixture
def shown(monkeypatch):
    panels = []
    monkeypatch.setattr("IPython.display.display", lambda *what, **options: panels.extend(map(repr, what)))
    return panels


@pytest.fixture
def lesson_of(tmp_path, shown):
    return lambda **options: Lesson(OUTLINE, progress=Progress("04_attention", tmp_path / "p.json"), **options)


def rows(x):
    return x.sum(1)


def wrong():
    def rows(x):
        return x.sum(0)

    return rows


def solved(x):
    return x.sum(-1)


solved.__name__ = "rows"


def test_a_failing_check_shows_its_hint_and_lets_the_notebook_go_on(lesson_of, shown):
    lesson = lesson_of()
    assert lesson.check(wrong()) is None
    assert lesson.verdicts["rows"].mistake == "columns"
    assert "the other axis" in shown[-1] and 'lesson.hint("rows")' in shown[-1]


def test_in_a_class_set_it_stops_there_without_our_frames(lesson_of):
    with pytest.raises(CheckFailed) as stopped:
        lesson_of(solutions=False).check(wrong())
    assert stopped.value._render_traceback_() == ["rows is not done yet: the other axis"]


def test_a_solution_stands_in_until_the_students_own_passes(lesson_of):
    lesson = lesson_of()
    lesson.check(wrong())
    assert lesson.solution(solved) is solved
    lesson.check(rows)
    assert lesson.solution(solved) is rows


def test_a_solution_that_is_wrong_is_our_mistake_and_said(lesson_of):
    with pytest.raises(AssertionError, match="does not pass its own check"):
        lesson_of().solution(wrong())


def test_inputs_are_fresh_at_each_try_and_the_same_in_each_kernel(lesson_of):
    def noted(seen):
        def rows(x):
            seen.append(x.flatten().tolist())
            return x.sum(1)

        return rows

    first, second, other = [], [], []
    for seen, seed in ((first, 0), (second, 0), (other, 1)):
        lesson = lesson_of(seed=seed)
        for _ in range(2):
            lesson.check(noted(seen))
    assert first == second
    assert len({tuple(x) for x in first + other}) == 4


def test_hints_come_one_after_the_other_and_are_counted(lesson_of, shown):
    lesson = lesson_of()
    for _ in range(3):
        lesson.hint("rows")
    assert [text.splitlines()[-1].strip() for text in shown[-3:]] == ["a", "b", "b"]
    assert lesson.progress.read()["exercises"]["rows"]["hints"] == 3


def test_the_end_says_what_is_open_and_what_comes_next(lesson_of, shown):
    lesson = lesson_of()
    lesson.check(rows)
    lesson.finish()
    assert "1 of 2 exercises" in shown[-1] and "Still open: `total`" in shown[-1] and "05_induction.ipynb" in shown[-1]


def test_a_new_kernel_goes_on_where_the_last_one_was(lesson_of, shown):
    lesson_of().check(rows)
    lesson_of().greet()
    assert "1 of 2 exercises" in shown[-1] and "Go on at `total`" in shown[-1]


def test_what_the_seed_picks_depends_on_the_seed_and_the_key_only(lesson_of):
    draw = lambda seed, key: lesson_of(seed=seed).rng(key).integers(1 << 30)  # noqa: E731
    assert draw(3, "names") == draw(3, "names")
    assert len({draw(seed, key) for seed in (3, 4) for key in ("names", "heads")}) == 4


def test_each_verdict_reaches_the_grader(lesson_of, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_VERDICTS", str(tmp_path / "verdicts"))
    lesson = lesson_of()
    lesson.check(wrong())
    lesson.solution(solved)
    found = [json.loads(line) for line in (tmp_path / "verdicts").read_text().splitlines()]
    assert [(each["of"], each["exercise"], each["kind"]) for each in found] == [
        ("answer", "rows", "mistake"),
        ("solution", "rows", "passed"),
    ]


def test_a_function_of_another_name_is_told_the_names(lesson_of):
    with pytest.raises(ValueError, match=r"has no exercise 'np_sum'.*rows, total"):
        lesson = lesson_of()

        def np_sum(x): ...

        lesson.check(np_sum)


def test_an_unknown_lesson_is_told_the_lessons():
    with pytest.raises(ValueError, match=r"there is no lesson 'atention'.*04_attention"):
        start("atention")


def test_a_lesson_has_a_name_a_part_of_it_and_a_number():
    assert outline("04_attention") is outline("attention") is outline(4)
    assert [next_of(name) for name in (LESSONS[0], LESSONS[-1])] == [LESSONS[1], None]


@pytest.mark.parametrize("name", LESSONS)
def test_every_outline_is_whole(name):
    found = outline(name)
    assert found.name == name
    assert 6 <= len(found.exercises) <= 12 and 3 <= len(found.predictions) <= 8 and len(found.able_to) >= 3
    assert set(found.builds_on) <= set(LESSONS[: found.number - 1])
    for exercise in found.exercises:
        assert len(exercise.mistakes) >= 3, exercise.name
        assert len({mistake.hint for mistake in exercise.mistakes}) == len(exercise.mistakes), exercise.name
        assert len(exercise.hints) >= 2, exercise.name


# The capstone has no one right answer: it is judged by rules, and the solution's study passes in test_notebooks.
WITHOUT_ONE_TRUTH = {"study"}


@pytest.mark.parametrize("name", LESSONS)
def test_the_truth_passes_its_own_check_on_five_seeds(name):
    for exercise in outline(name).exercises:
        if exercise.name in WITHOUT_ONE_TRUTH:
            continue
        for seed in range(5):
            verdict = exercise.check(exercise.truth, np.random.default_rng(seed))
            assert verdict.passed, f"{exercise.name}, seed {seed}: {verdict}"
