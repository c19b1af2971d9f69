"""The quick check of calls takes and refuses what jaxtyping's own does."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int
from torch import Tensor

from tests.checked import JAXTYPED, quick
from tests.small import as_in_a_notebook  # noqa: F401
from workbench.model import preset

if TYPE_CHECKING:
    from decimal import Decimal as Unknown

QUICK = quick(JAXTYPED)
ROWS, COLUMNS, WHOLE = torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.long)


def plain(x: int, /, name: str = "a", *rest: float, key: bool = False, **more: int) -> str:
    return name


def product(a: Float[Tensor, "n m"], b: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
    return a @ b


def wrong_product(a: Float[Tensor, "n m"], b: Float[Tensor, "m k"]) -> Float[Tensor, "k n"]:
    return a @ b


def several(parts: list[Float[Tensor, "n m"]], mask: Int[Tensor, " n"] | None = None) -> tuple[int, ...]:
    return tuple(len(part) for part in parts)


def added(a: Float[Tensor, "*batch m"], b: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch m"]:
    return a + b


def through_another(a: Float[Tensor, "n m"]) -> Float[Tensor, "m n"]:
    return QUICK(typechecker=beartype)(product)(a.T, a)[:, :2]  # where n and m are each other


def of_size(n: int) -> Float[Tensor, " {n}"]:
    return torch.zeros(2)


def one_by_one(xs: list[int]) -> Iterator[int]:
    yield from xs


def of_numpy(x: Float[np.ndarray, "n n"]) -> Float[np.ndarray, ""]:
    return x.sum()[None][0]


def of_something_unknown(x: Unknown, y: int) -> Unknown:
    return x


def unannotated(x, y=1):
    return x + y


class Call(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}  # noqa: RUF012


CALLS = [
    *(Call(plain, args) for args in ((1,), ("1",), (1, "b"), (1, 2), (1, "b", 1.0, 2.0), (1, "b", "c"), (True,), ())),
    *(Call(plain, (1,), more) for more in ({"key": True}, {"key": 1}, {"z": 1}, {"z": "1"}, {"name": 1}, {"x": 1})),
    Call(product, (ROWS, COLUMNS)),
    Call(product, (ROWS, ROWS)),
    Call(product, (ROWS, WHOLE)),
    Call(product, (ROWS[0], COLUMNS)),
    Call(product, (), {"b": COLUMNS, "a": ROWS}),
    Call(product, (), {"b": ROWS, "a": ROWS}),
    Call(wrong_product, (ROWS, COLUMNS)),
    Call(wrong_product, (ROWS, torch.zeros(3, 4))),
    Call(several, ([ROWS, ROWS],)),
    Call(several, ([WHOLE],)),
    Call(several, ([],)),
    Call(several, ([ROWS], WHOLE[:, 0])),
    Call(several, ([ROWS], WHOLE[0])),
    Call(several, ((ROWS,),)),
    Call(added, (ROWS, ROWS[:1])),
    Call(added, (ROWS[:1], ROWS)),
    Call(added, (torch.zeros(4, 2, 3), ROWS)),
    Call(through_another, (ROWS,)),
    Call(through_another, (torch.zeros(4, 3),)),
    Call(of_size, (2,)),
    Call(of_size, (3,)),
    Call(one_by_one, ([1, 2],)),
    Call(one_by_one, (3,)),
    Call(of_numpy, (np.zeros((2, 2)),)),
    Call(of_numpy, (np.zeros((2, 3)),)),
    Call(of_something_unknown, ("x", 1)),
    Call(of_something_unknown, ("x", "y")),
    Call(unannotated, (1,)),
]


def answer(call: Call, decorator: Callable[..., Any]) -> str:
    """What a call gives or raises with these checks."""
    try:
        made = decorator(typechecker=beartype)(call.function)(*call.args, **call.kwargs)
        return f"gives {list(made) if isinstance(made, Iterator) else made}"
    except Exception as error:
        return f"raises {type(error).__name__}"


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_it_takes_and_refuses_what_jaxtyping_does(number: int):
    assert answer(CALLS[number], QUICK) == answer(CALLS[number], JAXTYPED), CALLS[number]


def test_many_of_these_calls_are_taken_and_many_refused():
    refused = sum(answer(call, QUICK) == "raises TypeCheckError" for call in CALLS)
    assert 10 < refused < len(CALLS) - 10


def test_each_of_the_functions_of_one_code_calls_itself_and_none_is_kept():
    def made(number: Tensor) -> Callable[[int], Tensor]:
        @QUICK(typechecker=beartype)
        def add(x: int, to: Tensor = number) -> Tensor:
            return number + x + 0 * to

        return add

    one, two = torch.ones(1), torch.full((1,), 2.0)
    first, second = made(one), made(two)
    assert (int(first(1)), int(second(1))) == (2, 3)
    for add in (first, second):
        with pytest.raises(jaxtyping.TypeCheckError, match="add"):
            add("1")
    gone = weakref.ref(one)
    del first, one, add
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("decorator", [QUICK, JAXTYPED], ids=["quick", "jaxtyping"])
def test_the_fields_of_a_dataclass_are_checked_when_it_is_made(decorator: Callable[..., Any]):
    @decorator(typechecker=beartype)
    @dataclasses.dataclass(frozen=True)
    class Pair:
        a: Float[Tensor, "n m"]
        b: Float[Tensor, "n m"]
        name: str = ""

    @decorator(typechecker=beartype)
    class Named(Pair):
        """It inherits the checks."""

    for kind in (Pair, Named):
        assert kind(ROWS, ROWS, "two").name == "two"
        for fields in ((ROWS, COLUMNS), (ROWS, WHOLE), (ROWS, ROWS, 2)):
            with pytest.raises(jaxtyping.TypeCheckError):
                kind(*fields)


def test_the_packages_own_calls_are_checked_unless_a_test_says_no(request: pytest.FixtureRequest):
    with pytest.raises(jaxtyping.TypeCheckError):
        preset(20)
    request.getfixturevalue("as_in_a_notebook")
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        preset(20)
