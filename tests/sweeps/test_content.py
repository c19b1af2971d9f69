"""A key says what something is: equal for equal things in any process, different for anything else."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr

import workbench as wb
from workbench.sweeps.content import NoContent, key


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


def plain(cells):
    return [1 for _ in cells]


def made(n):
    return lambda cells: [n for _ in cells]


SAME = [
    (lambda: 1, lambda: np.int64(1)),
    (lambda: 0.1, lambda: np.float64(0.1)),
    (lambda: [1, 2], lambda: (1, 2)),
    (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    (lambda: {1, 2, 3}, lambda: {3, 2, 1}),
    (lambda: torch.arange(3), lambda: np.arange(3)),
    (lambda: np.arange(6).reshape(2, 3).T, lambda: np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
    (lambda: torch.ones(2, dtype=torch.bfloat16), lambda: torch.ones(2, dtype=torch.bfloat16)),
    (lambda: wb.AblateExpert(1, 2), lambda: wb.AblateExpert(1, 2)),
    (lambda: Point(1), lambda: Point(1, 0)),
    (lambda: float("nan"), lambda: float("nan")),
    (lambda: plain, lambda: plain),
    (lambda: made(3), lambda: made(3)),
    (lambda: wb.Chat().user("hello"), lambda: wb.Chat().user("hello")),
]
OTHER = [
    (1, 2), (1, "1"), (1, True), ([1, 2], [2, 1]), ("a", b"a"), (np.arange(3), np.arange(3.0)),
    (np.zeros((2, 3)), np.zeros((3, 2))), (torch.ones(2), torch.ones(2, dtype=torch.bfloat16)), (range(3), range(4)),
    (wb.AblateExpert(1, 2), wb.AblateExpert(1, 3)), (wb.AblateHead(1, 2), wb.AblateExpert(1, 2)), (Point(1), Point(2)),
    (made(3), made(4)), (plain, made(1)), (None, False), (functools.partial(plain, 1), functools.partial(plain, 2)),
    (xr.DataArray([1.0], dims="a"), xr.DataArray([1.0], dims="b")), (wb.Chat().user("a"), wb.Chat().user("b")),
    (0.0, float("nan")), (["a", "b"], ["ab"]), ({"a": [1]}, {"a": [[1]]}),
]  # fmt: skip


@pytest.mark.parametrize("pair", SAME, ids=range(len(SAME)))
def test_equal_things_have_one_key(pair):
    one, other = (make() for make in pair)
    assert key(one) == key(other)


@pytest.mark.parametrize("pair", OTHER, ids=range(len(OTHER)))
def test_other_things_have_other_keys(pair):
    assert key(pair[0]) != key(pair[1])


def test_an_edited_function_is_another_one():
    first, second = {}, {}
    exec("def f(x):\n    return x + 1", first)
    exec("def f(x):\n    return x + 2", second)
    assert key(first["f"]) != key(second["f"])


def test_it_is_the_same_in_another_process():
    code = "import workbench as wb\nfrom workbench.sweeps.content import key\n"
    code += "print(key(wb.AblateExpert(1, 2), {'b', 'a'}, 0.1))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    assert found == key(wb.AblateExpert(1, 2), {"a", "b"}, 0.1)


def test_what_has_no_content_is_refused_in_words():
    with pytest.raises(NoContent, match=r"a object has no content.*expected numbers"):
        key(object())


def test_a_function_under_a_packages_decorator_is_told_by_what_it_decorates():
    def one(cells):
        return [1 for _ in cells]

    def other(cells):
        return [2 for _ in cells]

    assert key(torch.no_grad()(one)) == key(torch.no_grad()(one))
    assert len({key(one), key(torch.no_grad()(one)), key(torch.no_grad()(other))}) == 3
