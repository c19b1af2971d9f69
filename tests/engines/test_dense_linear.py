"""Rows times a plain matrix, by whichever engine: against float64, and torch's own derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from workbench.model import engines

pytestmark = pytest.mark.skipif(not engines.native.available(), reason="without the library torch does it all")


def case(n: int, seed: int = 0, lead: tuple[int, ...] | None = None):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(*(lead or (n,)), 96, generator=draw).bfloat16()
    return x, torch.randn(40, 96, generator=draw).bfloat16(), torch.randn(40, generator=draw).bfloat16()


@pytest.fixture(autouse=True)
def best_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORKBENCH_ENGINE", raising=False)


@pytest.fixture
def by_native(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that the library was asked for."""
    seen: list[int] = []
    product = engines.native.dense_linear
    monkeypatch.setattr(engines.native, "dense_linear", lambda x, *rest: (seen.append(len(x)), product(x, *rest))[1])
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [1, 2, 16, 17, 40])
def test_it_is_the_product_within_one_rounding_by_either_engine(by_native: list[int], n: int, bias: bool):
    x, weight, b = case(n)
    true = x.double() @ weight.double().T + (b.double() if bias else 0)
    bound = true.abs() * 2**-8 + (x.double().abs() @ weight.double().T.abs()) * 2**-20
    for name in ("native", "eager"):
        with engines.use(name):
            assert ((engines.linear(x, weight, b if bias else None) - true).abs() <= bound).all()
    assert by_native == ([n] if n <= 16 else [])


def test_only_few_rows_of_bfloat16_go_to_the_library(by_native: list[int]):
    x, weight, b = case(3)
    engines.linear(x.float(), weight.float(), b.float())
    engines.linear(x.double(), weight.double(), b.double())
    engines.linear(x[:0], weight, b)
    assert not by_native
    engines.linear(*case(6, lead=(2, 3)))
    assert by_native == [6]


def test_leading_axes_and_strides_change_no_bit():
    x, weight, b = case(6, lead=(2, 3))
    flat = engines.linear(x.reshape(6, 96), weight, b)
    assert torch.equal(engines.linear(x, weight, b).reshape(6, 40), flat)
    spread = torch.stack((x, x), -1)[..., 0]
    assert not spread.is_contiguous()
    assert torch.equal(engines.linear(spread, weight, b).reshape(6, 40), flat)


def test_recording_gradients_changes_no_bit():
    x, weight, b = case(5)
    with torch.no_grad():
        plain = engines.linear(x, weight, b)
    assert torch.equal(engines.linear(x.requires_grad_(), weight.requires_grad_(), b.requires_grad_()), plain)


@pytest.mark.parametrize("n", [1, 7])
def test_its_gradients_are_those_of_torchs_own_product(n: int):
    grad = torch.randn(n, 40, generator=torch.Generator().manual_seed(9)).bfloat16()
    mine, theirs = ([t.clone().requires_grad_() for t in case(n)] for _ in range(2))
    engines.linear(*mine).backward(grad)
    F.linear(*theirs).backward(grad)
    for got, expected in zip(mine, theirs, strict=True):
        assert got.grad is not None and expected.grad is not None
        torch.testing.assert_close(got.grad, expected.grad, rtol=2**-7, atol=2**-7)


def test_second_derivatives_flow_through_it():
    x, weight, b = (t.requires_grad_() for t in case(2))
    (first,) = torch.autograd.grad(engines.linear(x, weight, b).float().pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.float().sum(), weight)
    x64, w64 = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    (first64,) = torch.autograd.grad(F.linear(x64, w64, b.detach().double()).pow(2).sum(), x64, create_graph=True)
    (second64,) = torch.autograd.grad(first64.sum(), w64)
    assert (second - second64).norm() < 0.02 * second64.norm()


def test_forward_mode_and_vmap_agree_with_torch():
    x, weight, b = case(3)
    tangents = case(3, seed=1)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip((x, weight, b), tangents, strict=True)]
        mine, theirs = (forward_ad.unpack_dual(f(*duals)).tangent for f in (engines.linear, F.linear))
    assert mine is not None and theirs is not None
    torch.testing.assert_close(mine.float(), theirs.float(), rtol=2**-6, atol=2**-4)
    batch = case(4, lead=(4, 3))[0]
    mapped = torch.func.vmap(lambda rows: engines.linear(rows, weight, b))(batch)
    assert torch.equal(mapped, torch.stack([engines.linear(rows, weight, b) for rows in batch]))
