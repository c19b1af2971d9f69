"""Rows sorted by expert times the experts' plain matrices, by either engine: against float64, torch's derivatives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.engines.numbers import UNIT, check_product
from workbench.model import engines
from workbench.model.engines.dense_linear import FEW_ROWS

pytestmark = pytest.mark.skipif(not engines.native.available(), reason="without the library torch does it all")

DTYPES = [torch.bfloat16, torch.float32]
D_IN, D_OUT = 48, 20
COUNTS = {
    "all": [3, 1, 4, 2, 7],
    "the first have none": [0, 0, 4, 2, 7],
    "the last have none": [3, 1, 4, 0, 0],
    "one row": [0, 1, 0, 0, 0],
}


def case(counts: list[int], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, weight, bias."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((sum(counts), D_IN), (len(counts), D_OUT, D_IN), (len(counts), D_OUT))
    return tuple(torch.randn(shape, generator=draw).to(dtype) for shape in shapes)  # type: ignore[return-value]


def expert_of_row(counts: list[int]) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def in_one_einsum(counts: list[int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The same by torch, of experts that may also be without rows."""
    experts = expert_of_row(counts)
    return lambda rows, weight, bias: torch.einsum("rod,rd->ro", weight[experts], rows) + bias[experts]


def by_engine(counts: list[int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda rows, weight, bias: engines.grouped_dense_linear(rows, counts, weight, bias)


@pytest.fixture(autouse=True)
def best_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_ENGINE", raising=False)


@pytest.fixture
def by_native(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that the library was asked for."""
    seen: list[int] = []
    product = engines.native.dense_grouped_linear
    counted = lambda rows, *rest: (seen.append(len(rows)), product(rows, *rest))[1]  # noqa: E731
    monkeypatch.setattr(engines.native, "dense_grouped_linear", counted)
    return seen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_either_engine_gives_the_product_up_to_its_roundings(
    by_native: list[int], dtype: torch.dtype, counts: list[int]
) -> None:
    rows, weight, bias = case(counts, dtype)
    for name in ("native", "eager"):
        with engines.use(name):
            found = engines.grouped_dense_linear(rows, counts, weight, bias)
        experts = expert_of_row(counts)
        check_product(found, rows, weight.double()[experts], bias[experts])
    assert by_native == [sum(counts)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_library_is_asked_up_to_a_number_of_rows_for_each_expert_that_has_any(
    by_native: list[int], dtype: torch.dtype
) -> None:
    few = FEW_ROWS[engines.native.isa()][dtype]
    for counts in ([few, 0, 0], [2 * few - 1, 0, 1], [few + 1, 0, 0], [2 * few, 1, 0], [few, few, few]):
        engines.grouped_dense_linear(case(counts, dtype)[0], counts, *case(counts, dtype)[1:])
    assert by_native == [few, 2 * few, 3 * few]


def test_other_dtypes_are_torchs(by_native: list[int]) -> None:
    for dtype in (torch.float64, torch.float16):
        engines.grouped_dense_linear(*(lambda rows, *rest: (rows, [2, 1], *rest))(*case([2, 1], dtype)))
    assert not by_native


@pytest.mark.parametrize("name", ["native", "eager"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_give_no_rows_and_gradients_of_zero(name: str, dtype: torch.dtype) -> None:
    inputs = [tensor.requires_grad_() for tensor in case([0, 0], dtype)]
    with engines.use(name):
        found = engines.grouped_dense_linear(inputs[0], [0, 0], *inputs[1:])
    assert found.shape == (0, D_OUT) and found.dtype == dtype
    grads = torch.autograd.grad(found.sum(), inputs, allow_unused=True, materialize_grads=True)
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in inputs]
    assert not any(bool(grad.any()) for grad in grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["native", "eager"])
def test_recording_gradients_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    counts = COUNTS["all"]
    inputs = case(counts, dtype)
    with engines.use(name):
        with torch.no_grad():
            plain = by_engine(counts)(*inputs)
        assert torch.equal(by_engine(counts)(*(tensor.requires_grad_() for tensor in inputs)), plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_its_gradients_are_those_of_torchs_own_products_and_zero_for_experts_without_rows(
    counts: list[int], dtype: torch.dtype
) -> None:
    upstream = torch.randn(sum(counts), D_OUT, generator=torch.Generator().manual_seed(9)).to(dtype)
    mine, theirs = ([tensor.clone().requires_grad_() for tensor in case(counts, dtype)] for _ in range(2))
    by_engine(counts)(*mine).backward(upstream)
    with engines.use("eager"):
        by_engine(counts)(*theirs).backward(upstream)
    for got, expected in zip(mine, theirs, strict=True):
        assert got.grad is not None and expected.grad is not None
        torch.testing.assert_close(got.grad, expected.grad, rtol=2 * UNIT[dtype], atol=8 * UNIT[dtype])
    for expert in (expert for expert, count in enumerate(counts) if not count):
        assert not mine[1].grad[expert].any() and not mine[2].grad[expert].any()


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_gradient_is_there_for_what_asks_and_only_for_that(wanted: int) -> None:
    inputs = case(COUNTS["all"], torch.float32)
    inputs[wanted].requires_grad_()
    by_engine(COUNTS["all"])(*inputs).sum().backward()
    assert [tensor.grad is not None for tensor in inputs] == [place == wanted for place in range(3)]


@pytest.mark.parametrize("counts", [[2, 0, 3], [1, 1, 1]])
def test_torch_func_differentiates_it_as_one_einsum(counts: list[int]) -> None:
    inputs = case(counts, torch.float32)
    mine, theirs = by_engine(counts), in_one_einsum(counts)
    close = {"rtol": 1e-4, "atol": 1e-4}
    for way in (torch.func.jacrev, torch.func.jacfwd):
        for argument in range(3):
            torch.testing.assert_close(way(mine, argument)(*inputs), way(theirs, argument)(*inputs), **close)
    found, expected = (torch.func.jvp(f, inputs, inputs)[1] for f in (mine, theirs))
    torch.testing.assert_close(found, expected, **close)
    curved = [lambda rows, f=f: torch.tanh(f(rows, *inputs[1:])).sum() for f in (mine, theirs)]
    found, expected = (torch.func.hessian(f)(inputs[0]) for f in curved)
    torch.testing.assert_close(found, expected, **close)


def test_second_derivatives_flow_through_it() -> None:
    counts = [2, 0, 1]
    grads = []
    for product in (by_engine(counts), in_one_einsum(counts)):
        rows, weight, bias = (tensor.requires_grad_() for tensor in case(counts, torch.float32))
        (first,) = torch.autograd.grad(torch.tanh(product(rows, weight, bias)).sum(), rows, create_graph=True)
        grads.append(torch.autograd.grad(first.pow(2).sum(), (rows, weight, bias)))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_forward_mode_agrees_with_torch_in_bfloat16() -> None:
    counts = COUNTS["the first have none"]
    with forward_ad.dual_level():
        pairs = zip(case(counts, torch.bfloat16), case(counts, torch.bfloat16, seed=1), strict=True)
        duals = [forward_ad.make_dual(*pair) for pair in pairs]
        mine, theirs = (forward_ad.unpack_dual(f(counts)(*duals)).tangent for f in (by_engine, in_one_einsum))
    torch.testing.assert_close(mine.float(), theirs.float(), rtol=2**-6, atol=2**-3)


def test_a_batch_under_vmap_is_each_of_its_members() -> None:
    counts = COUNTS["all"]
    _, weight, bias = case(counts, torch.float32)
    batch = torch.stack([case(counts, torch.float32, seed)[0] for seed in range(3)])
    mapped = torch.func.vmap(lambda rows: engines.grouped_dense_linear(rows, counts, weight, bias))(batch)
    assert torch.equal(mapped, torch.stack([by_engine(counts)(rows, weight, bias) for rows in batch]))
