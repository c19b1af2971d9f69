"""The diagnosis of an unknown mistake: true where it says something, silent where it knows nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.lessons.diagnose import diagnosis

X = np.random.default_rng(0).normal(size=(3, 4, 5))


@pytest.mark.parametrize(
    ("mine", "right", "says"),
    [
        (X.transpose(1, 0, 2), X, "axes 0 and 1"),
        (X.transpose(0, 2, 1), X, "axes 1 and 2"),
        (X[:, :3], X, "axis 1 has 3, not 4"),
        (X.sum(-1), X, "axis too few"),
        (X[None], X, "reshape"),
        (X[None] * 2, X, "axis too many"),
        (np.where(X > 1, np.nan, X), X, "NaN"),
        (-X, X, "sign"),
        (X * 8, X, "8 times"),
        (X + 0.5, X, "same 0.5"),
        (X[:, ::-1], X, "backwards along axis 1"),
        (np.roll(X, 1, 2), X, "late along axis 2"),
        (np.roll(X, -1, 1), X, "early along axis 1"),
        (np.concatenate([X[:, :1] * 3 + X[:, 1:2], X[:, 1:]], 1), X, "the first of axis 1"),
        (4, 5, "too few"),
        (torch.tensor(6), 5, "too many"),
        ([3, 2, 1], [1, 2, 3], "opposite order"),
        ([2, 1, 3], [1, 2, 3], "another order"),
        ([2, 3], [1, 2, 3], "first member is missing"),
        ([1, 2], [1, 2, 3], "last member is missing"),
        ([0, 1, 2], [1, 2], "at the beginning"),
        ([1, 2, 9], [1, 2], "at the end"),
    ],
)
def test_it_names_the_axis_the_factor_or_the_place(mine, right, says):
    assert says in (diagnosis(mine, right) or "")


def test_sums_tell_a_softmax_over_the_wrong_axis_from_the_right_one():
    scores = torch.tensor(X)
    assert "axis 2 the numbers should sum to 1" in (diagnosis(scores.sigmoid(), scores.softmax(-1)) or "")
    with_sink = scores.exp() / (scores.exp().sum(-1, keepdim=True) + 1)
    assert "Yours sum to 1 along axis 2; they should not" in (diagnosis(scores.softmax(-1), with_sink) or "")


def test_of_two_single_numbers_only_a_ratio_with_a_reason_is_told():
    assert diagnosis(0.3, 1.7) is None
    assert "2 times" in (diagnosis(3.4, 1.7) or "") and "0.6931 times" in (diagnosis(1.7 * np.log(2), 1.7) or "")


def test_it_is_silent_where_nothing_simple_explains_it():
    assert diagnosis(np.random.default_rng(1).normal(size=(3, 4, 5)), X) is None
    assert diagnosis("a", "b") is None
    assert diagnosis(object(), X) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_it_is_given_it_gives_a_sentence_or_nothing(data):
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    numbers = st.floats(width=32)
    arrays = shapes.flatmap(
        lambda shape: st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
            lambda values: np.array(values).reshape(shape)
        )
    )
    with np.errstate(all="ignore"):
        said = diagnosis(data.draw(arrays), data.draw(arrays))
    assert said is None or (isinstance(said, str) and said.strip())
