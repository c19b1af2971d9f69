"""Every exercise against what students hand in: each wrong answer is refused with the hint that is its own."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from workbench.lessons import LESSONS, outline

SEEDS = (0, 1)


def wrong_answers(lesson):
    """{exercise: [(function, a phrase of its hint), …]}, written apart from the mistakes that the check knows."""
    return import_module(f"tests.lessons.wrong.{lesson[3:]}").WRONG


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_exercise_is_tried_with_three_wrong_answers_or_more(lesson):
    tried = wrong_answers(lesson)
    assert set(tried) == {exercise.name for exercise in outline(lesson).exercises}
    assert {name: len(answers) for name, answers in tried.items() if len(answers) < 3} == {}


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_is_refused_with_a_hint_of_its_own(lesson):
    wrong = {}
    for name, answers in wrong_answers(lesson).items():
        exercise = outline(lesson).exercise(name)
        for seed in SEEDS:
            verdicts = [exercise.check(answer, np.random.default_rng(seed)) for answer, _ in answers]
            for i, (verdict, (_, phrase)) in enumerate(zip(verdicts, answers, strict=True)):
                if verdict.passed or phrase.lower() not in verdict.hint.lower():
                    wrong[name, i, seed] = (phrase, verdict.kind, verdict.hint)
            hints = [verdict.hint for verdict in verdicts]
            if len(set(hints)) < len(hints):
                wrong[name, "one hint for two faults", seed] = [hint for hint in hints if hints.count(hint) > 1]
    assert wrong == {}
