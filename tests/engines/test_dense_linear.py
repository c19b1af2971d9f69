"""Rows times plain matrices, by whichever engine: against float64, and torch's own derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from workbench.model import engines
from workbench.model.engines.dense_linear import FEW_ROWS

pytestmark = pytest.mark.skipif(not engines.native.available(), reason="without the library torch does it all")

DTYPES = [torch.bfloat16, torch.float32]
BF16, FLOAT = DTYPES
UNIT = {BF16: 2**-8, FLOAT: 2**-24}


def case(n: int, seed: int = 0, lead: tuple[int, ...] | None = None, dtype: torch.dtype = BF16):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((*(lead or (n,)), 96), (40, 96), (40,))
    return tuple(torch.randn(shape, generator=draw).to(dtype) for shape in shapes)


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_product_within_one_rounding_by_either_engine(by_native: list[int], dtype: torch.dtype, bias: bool):
    few = FEW_ROWS[engines.native.isa()][dtype]
    for n in (1, 2, few + 1, few + 2, 200):
        x, weight, b = case(n, dtype=dtype)
        true = x.double() @ weight.double().T + (b.double() if bias else 0)
        bound = true.abs() * UNIT[dtype] + (x.double().abs() @ weight.double().T.abs() + 1) * 2**-20
        for name in ("native", "eager"):
            with engines.use(name):
                assert ((engines.linear(x, weight, b if bias else None) - true).abs() <= bound).all()
    assert by_native == [1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_library_is_asked_up_to_a_number_of_rows(by_native: list[int], dtype: torch.dtype):
    few = FEW_ROWS[engines.native.isa()][dtype]
    for n in (few, few + 1, 3 * few):
        engines.linear(*case(n, dtype=dtype))
    assert by_native == [few]


def test_only_few_rows_of_bfloat16_and_float32_of_plain_tensors_go_to_the_library(by_native: list[int]):
    x, weight, b = case(3)
    engines.linear(x.double(), weight.double(), b.double())
    engines.linear(x[:0], weight, b)
    engines.linear(x, weight.T.contiguous().T, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert engines.linear(x.float(), weight.float(), b.float()).dtype == torch.bfloat16
    assert not by_native
    engines.linear(*case(6, lead=(2, 3)))
    engines.linear(x.float(), weight.float(), b.float())
    assert by_native == [6, 3]


def test_leading_axes_and_strides_change_no_bit():
    x, weight, b = case(6, lead=(2, 3))
    flat = engines.linear(x.reshape(6, 96), weight, b)
    assert torch.equal(engines.linear(x, weight, b).reshape(6, 40), flat)
    spread = torch.stack((x, x), -1)[..., 0]
    assert not spread.is_contiguous()
    assert torch.equal(engines.linear(spread, weight, b).reshape(6, 40), flat)


@pytest.mark.parametrize("dtype", DTYPES)
def test_recording_gradients_changes_no_bit(dtype: torch.dtype):
    x, weight, b = case(5, dtype=dtype)
    with torch.no_grad():
        plain = engines.linear(x, weight, b)
    assert torch.equal(engines.linear(x.requires_grad_(), weight.requires_grad_(), b.requires_grad_()), plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7])
def test_its_gradients_are_those_of_torchs_own_product(n: int, dtype: torch.dtype):
    grad = torch.randn(n, 40, generator=torch.Generator().manual_seed(9)).to(dtype)
    mine, theirs = ([t.clone().requires_grad_() for t in case(n, dtype=dtype)] for _ in range(2))
    engines.linear(*mine).backward(grad)
    F.linear(*theirs).backward(grad)
    for got, expected in zip(mine, theirs, strict=True):
        assert got.grad is not None and expected.grad is not None
        torch.testing.assert_close(got.grad, expected.grad, rtol=2 * UNIT[dtype], atol=2 * UNIT[dtype])


def test_what_has_no_gradient_is_not_kept_for_one():
    x, weight, b = case(3, dtype=FLOAT)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        engines.linear(x.requires_grad_(), weight, b)
        assert [tensor is weight for tensor in kept] == [True]
        engines.grouped_dense_linear(x.detach(), [3], weight[None].requires_grad_(), b[None])
        assert [tensor.shape for tensor in kept[1:]] == [x.shape]


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
