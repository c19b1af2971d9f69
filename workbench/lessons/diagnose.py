"""What a wrong answer looks like, when it is none of the known mistakes: which axis, which term, which factor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np

from workbench.lessons.compare import as_array

FACTORS = (2, 0.5, 100, 0.01, np.log(2), 1 / np.log(2), np.log(10), 1 / np.log(10))  # bits, per cent, counted twice
Look = Callable[[np.ndarray, np.ndarray], str | None]


def diagnosis(given: Any, expected: Any) -> str | None:
    """One sentence about how an answer differs from the right one; None where nothing simple explains it.

    Both are seen as arrays of numbers; what is no array has no diagnosis but its difference.
    """
    left, right = as_array(given), as_array(expected)
    if left is None and isinstance(given, (list, tuple)) and isinstance(expected, (list, tuple)):
        return _lists(list(given), list(expected))
    if left is None or right is None or left.dtype.kind not in "biuf" or right.dtype.kind not in "biuf":
        return None
    left, right = left.astype(float), right.astype(float)
    return next(filter(None, (look(left, right) for look in LOOKS)), None)


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True))


def _axes(left: np.ndarray, right: np.ndarray) -> str | None:
    """Axes in another order."""
    if left.ndim != right.ndim or not 2 <= left.ndim <= 4:
        return None
    for order in permutations(range(left.ndim)):
        if order != tuple(range(left.ndim)) and _same(left.transpose(order), right):
            swapped = [i for i, axis in enumerate(order) if axis != i]
            return f"The numbers are right, but axes {' and '.join(map(str, swapped))} stand in another order."
    return None


def _shape(left: np.ndarray, right: np.ndarray) -> str | None:
    if left.shape == right.shape:
        return None
    if left.size == right.size and left.ndim != right.ndim and _same(left.reshape(right.shape), right):
        return f"The numbers are right; reshape {left.shape} to {right.shape}."
    if left.ndim == right.ndim:
        wrong = [i for i, (mine, his) in enumerate(zip(left.shape, right.shape, strict=True)) if mine != his]
        said = ", ".join(f"axis {i} has {left.shape[i]}, not {right.shape[i]}" for i in wrong)
        return f"Look at the shape: {said}."
    more = "An axis too many" if left.ndim > right.ndim else "An axis too few"
    return f"{more}: you gave {left.shape}, wanted is {right.shape}. Over which axis do you sum or take the softmax?"


def _not_finite(left: np.ndarray, right: np.ndarray) -> str | None:
    bad = ~np.isfinite(left) & np.isfinite(right)
    if not bad.any():
        return None
    first = [int(i) for i in np.argwhere(bad)[0]] if left.ndim else "it"
    what = f"{int(bad.sum())} of your numbers are NaN or infinite (the first at {first})"
    return f"{what}: is a row masked wholly, or a 0 divided by?"


def _scaled(left: np.ndarray, right: np.ndarray) -> str | None:
    """A sign, a factor or a constant."""
    finite = np.isfinite(left) & np.isfinite(right)
    left, right = (np.asarray(np.where(finite, each, 0)) for each in (left, right))
    if _same(np.negative(left, out=np.empty_like(left)), right):
        return "The size is right, the sign is the other one: which is subtracted from which?"
    large = np.abs(right) > 1e-6
    if large.sum() >= (2 if right.ndim else 1) and np.all(np.abs(left[large]) > 1e-12):
        ratio = float(np.median(left[large] / right[large]))
        # Any two single numbers have some ratio: for them only one that has a reason is worth saying.
        told = right.size > 1 or any(np.isclose(ratio, known, rtol=1e-3) for known in FACTORS)
        if told and _same(np.asarray(left / ratio), right):
            why = "a factor is missing or too much (1/√d, a mean for a sum, log 2?)"
            return f"Every number is {ratio:.4g} times the right one: {why}."
    if right.size > 1:
        shift = float(np.median(left - right))
        if _same(left - shift, right):
            why = "a term is missing or too much (a bias, an ε, one of the ends?)"
            return f"Every number is off by the same {shift:.4g}: {why}."
    return None


def _moved(left: np.ndarray, right: np.ndarray) -> str | None:
    """Turned round, or moved by one."""
    for axis in range(right.ndim):
        if right.shape[axis] < 3:
            continue
        if _same(np.flip(left, axis), right):
            return f"Right, but backwards along axis {axis}."
        for step, word in ((1, "late"), (-1, "early")):
            inner: list[Any] = [slice(None)] * right.ndim
            inner[axis] = slice(1, -1)
            moved = np.roll(left, -step, axis)
            if _same(moved[tuple(inner)], right[tuple(inner)]) and not np.allclose(right, np.roll(right, 1, axis)):
                return f"Your numbers come one place too {word} along axis {axis}: off by one."
    return None


def _ends(left: np.ndarray, right: np.ndarray) -> str | None:
    """Right but for one row."""
    wrong = ~np.isclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True)
    for axis in range(right.ndim):
        if right.shape[axis] < 3:
            continue
        rows = wrong.any(tuple(i for i in range(right.ndim) if i != axis))
        if rows.sum() == 1:
            at = int(rows.argmax())
            which = {0: "the first", right.shape[axis] - 1: "the last"}.get(at, f"number {at}")
            return f"Right everywhere but in {which} of axis {axis}."
    return None


def _sums(left: np.ndarray, right: np.ndarray) -> str | None:
    """Sums to one along another axis than it should."""
    for axis in range(right.ndim):
        if right.shape[axis] < 2:
            continue
        wanted, found = right.sum(axis), left.sum(axis)
        if np.allclose(wanted, 1, atol=1e-4) and not np.allclose(found, 1, atol=1e-4):
            return f"Along axis {axis} the numbers should sum to 1; yours sum to {float(np.ravel(found)[0]):.4g}."
        if np.allclose(found, 1, atol=1e-4) and not np.allclose(wanted, 1, atol=1e-4):
            first = f"{float(np.ravel(wanted)[0]):.4g} in the first"
            return f"Yours sum to 1 along axis {axis}; they should not ({first}): over which axis, with what beside it?"
    return None


def _lists(given: list[Any], expected: list[Any]) -> str | None:
    if len(given) == len(expected) and given == expected[::-1]:
        return "The members are right, in the opposite order."
    try:
        if sorted(given, key=str) == sorted(expected, key=str):
            return "The members are right, in another order."
    except TypeError:
        return None
    if len(given) + 1 == len(expected):
        if given == expected[1:]:
            return "The first member is missing."
        if given == expected[:-1]:
            return "The last member is missing."
    if len(given) == len(expected) + 1:
        if given[1:] == expected:
            return "There is one member too many at the beginning."
        if given[:-1] == expected:
            return "There is one member too many at the end."
    return None


def _number(left: np.ndarray, right: np.ndarray) -> str | None:
    if left.ndim or right.ndim:
        return None
    if right == np.round(right) and abs(float(left - right)) == 1:
        return f"Off by one: yours is one too {'many' if left > right else 'few'}."
    return None


# The first that finds something is told: shape before numbers, numbers before order.
LOOKS: tuple[Look, ...] = (_axes, _shape, _not_finite, _number, _scaled, _moved, _ends, _sums)
