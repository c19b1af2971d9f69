"""A check refuses what is wrong with the hint that fits it, and never what is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from workbench.lessons import Case, Exercise, Mistake
from workbench.lessons.exercise import close, equal, same_set


def scores(rng):
    for heads, tokens in ((3, 5), (1, 1), (2, 9)):
        yield Case((torch.tensor(rng.normal(size=(heads, tokens, tokens))),), about=f"{tokens} tokens")


EXERCISE = Exercise(
    name="pattern",
    task="softmax over keys",
    cases=scores,
    truth=lambda x: torch.tensor(special.softmax(x.numpy(), axis=-1)),  # scipy's, not torch's
    mistakes=(
        Mistake("over queries", lambda x: x.softmax(-2), "Which axis are the keys?"),
        Mistake("no exponential", lambda x: x / x.sum(-1, keepdim=True), "Shares come from exponentials."),
        Mistake("rounded", None, "Do not round.", seen=lambda given, right, case: bool((given == given.round()).all())),
    ),
    hints=("Rows are queries.", "Sum over keys."),
)


def verdict(function, seed=0):
    return EXERCISE.check(function, np.random.default_rng(seed))


def test_the_right_function_passes_on_every_seed():
    for seed in range(10):
        assert verdict(lambda x: torch.softmax(x, -1), seed).passed


def test_a_function_that_is_not_written_is_called_so():
    def pattern(x): ...

    assert verdict(pattern).kind == "unfinished"
    assert verdict(lambda x: ...).kind == "unfinished"


@pytest.mark.parametrize(
    ("wrong", "kind", "hint"),
    [
        (lambda x: torch.exp(x) / torch.exp(x).sum(1, keepdim=True), "mistake", "Which axis"),
        (lambda x: x / x.sum(2)[..., None], "mistake", "exponentials"),
        (lambda x: torch.softmax(x, -1).round(), "mistake", "round"),
        (lambda x: torch.softmax(x, -1).transpose(1, 2), "wrong", "axes 1 and 2"),
        (lambda x: 3 * torch.softmax(x, -1), "wrong", "3 times"),
        (lambda x: -torch.softmax(x, -1), "wrong", "sign"),
        (lambda x: torch.softmax(x, -1)[0], "wrong", "axis too few"),
        (lambda x: torch.softmax(x, -1) / 0 * 0, "wrong", "NaN"),
        (lambda x: "a pattern", "wrong", "Rows are queries."),
        (lambda x: x @ torch.ones(2, dtype=x.dtype), "raised", "RuntimeError"),
    ],
)
def test_each_wrong_answer_gets_the_hint_that_names_its_fault(wrong, kind, hint):
    found = verdict(wrong)
    assert (found.kind, found.passed) == (kind, False)
    assert hint in found.hint, found.hint


def test_what_is_right_on_most_inputs_is_refused_with_the_input_where_it_is_not():
    found = verdict(lambda x: torch.softmax(x, -1) if x.shape[1] != 9 else torch.softmax(x, -1) + torch.eye(9))
    assert not found.passed
    assert "9 tokens" in found.hint and "9 tokens" in found.detail


def test_a_function_that_writes_into_its_input_does_not_change_what_others_are_given():
    def in_place(x):
        x -= x.max(-1, keepdim=True).values
        return x.exp_() / x.sum(-1, keepdim=True)

    assert verdict(in_place).passed


def test_an_error_of_the_student_is_told_with_its_line():
    def pattern(x):
        return x.softmx(-1)

    found = verdict(pattern)
    assert found.kind == "raised"
    assert "AttributeError" in found.hint and "return x.softmx(-1)" in found.hint and "Tensor (3, 5, 5)" in found.detail


def test_an_interrupt_reaches_the_one_who_made_it():
    def pattern(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict(pattern)


def test_a_truth_with_gradients_can_be_asked_of():
    def cases(rng):
        yield Case((torch.tensor(rng.normal(size=4), requires_grad=True),))

    exercise = Exercise("slope", "gradient of a sum of squares", cases, lambda x: 2 * x, (), ("h",))
    assert exercise.check(lambda x: torch.autograd.grad((x**2).sum(), x)[0], np.random.default_rng(0)).passed


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("compare", "right", "same", "other"),
    [
        (close(), 1.0, 1.0 + 1e-6, 1.01),
        (close(), torch.tensor([1.0, float("nan")]), np.array([1.0, np.nan]), torch.tensor([1.0, 0.0])),
        (close(), {"a": 1.0, "b": [2.0, 3.0]}, {"b": (2.0, 3.0), "a": 1}, {"a": 1.0, "b": [2.0, 4.0]}),
        (close(), (torch.ones(2), 3), [[1.0, 1.0], 3], (torch.ones(2), 4)),
        (close(), {"a": 1.0}, {"a": 1.0}, {"a": 1.0, "c": 2.0}),
        (close(atol=0.1), 1.0, 1.05, 1.2),
        (equal(), [1, 2, 3], torch.tensor([1, 2, 3]), [1, 3, 2]),
        (equal(), "analysis", "analysis", "final"),
        (equal(), ["a", "b"], ("a", "b"), ["a"]),
        (equal(), True, True, False),
        (equal(), None, None, 1),
        (same_set(), [(0, 1), (2, 3)], [[2, 3], (0, 1)], [(0, 1)]),
        (same_set(), {1, 2}, torch.tensor([2, 1]), [1, 2, 3]),
    ],
)
def test_what_is_the_same_agrees_and_what_is_not_says_how(compare, right, same, other):
    assert compare(same, right) is None
    said = compare(other, right)
    assert said and len(said) < 200


def test_the_first_number_that_differs_is_named():
    said = close()(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.5, 4.0]]))
    assert said == "1 of 4 numbers differ; first at [1, 0]: expected 3.5, you gave 3"
