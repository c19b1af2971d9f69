"""Every engine unpacks the same bits, and multiplies as exactly as its type of number allows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.engines.numbers import PAIRS, Packed, check_product
from tests.forms import through
from workbench.model import engines, mxfp4
from workbench.model.engines import eager, native

N_EXPERTS, D_IN, D_OUT = 5, 96, 40
of_torch = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # its forward mode calls it
COUNTS = {
    "all": [3, 1, 4, 2, 7],
    "the first have none": [0, 0, 4, 2, 7],
    "the last have none": [3, 1, 4, 0, 0],
    "one in the middle": [0, 0, 9, 0, 0],
    "one row": [0, 1, 0, 0, 0],
    "many rows": [70, 1, 0, 33, 16],
}


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-{str(pair[1]).removeprefix('torch.')}")
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Of the rows; with it goes the engine."""
    engine, dtype = request.param
    with through(f"packed-{engine}"):
        assert engines.engine_name("cpu", dtype) == engine
        yield dtype


# ---------------------------------------------------------------- bits
def every_scale_and_byte() -> tuple[Tensor, Tensor]:
    """[256 scales, 16 blocks]: under each scale every byte once."""
    blocks = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(256, 16, 16).contiguous()
    return blocks, torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 16).contiguous()


def bits(values: Tensor) -> Tensor:
    """As integers, every NaN the same one."""
    values = torch.where(values.isnan(), torch.full_like(values, float("nan")), values)
    return values.view(torch.int32 if values.dtype == torch.float32 else torch.int16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_both_engines_unpack_every_scale_and_byte_to_the_same_bits(dtype: torch.dtype) -> None:
    blocks, scales = every_scale_and_byte()
    expected = bits(mxfp4.unpack(blocks, scales, dtype))
    with through("packed-native"):
        for engine in (eager, native):
            assert torch.equal(bits(engine.unpack(blocks, scales, dtype, torch.empty(256, 512, dtype=dtype))), expected)
    assert torch.equal(bits(eager.matrix(blocks, scales, dtype)), expected)


def test_a_matrix_in_float64_is_the_one_in_float32() -> None:
    blocks, scales = every_scale_and_byte()
    wide = eager.matrix(blocks, scales, torch.float64)
    torch.testing.assert_close(
        wide, mxfp4.unpack(blocks, scales, torch.float32).double(), rtol=0, atol=0, equal_nan=True
    )


def one_weight_a_row() -> tuple[Packed, Tensor]:
    """Under every scale every FP4 code, once, beside zeros: and the weight that it is, in float32."""
    scale, code = torch.cartesian_prod(torch.arange(256), torch.arange(16)).T
    blocks = torch.zeros(1, 4096, 2, 16, dtype=torch.uint8)
    blocks[0, :, 1, 3] = code << 4  # the number at 32 + 7
    scales = torch.full((1, 4096, 2), 127, dtype=torch.uint8)
    scales[0, :, 1] = scale
    weights = mxfp4.unpack(blocks, scales, torch.float32)[0, :, 39]
    return Packed(blocks, scales, torch.zeros(1, 4096), torch.zeros(0, 64), [0]), weights


@pytest.mark.parametrize("by", [1.0, -0.375, 2.0**-40], ids=str)
@pytest.mark.parametrize("n_rows", [1, 20])
def test_a_single_product_is_exact_under_every_scale_also_0_1_and_253_to_255(
    dtype: torch.dtype, by: float, n_rows: int
) -> None:
    packed, weights = one_weight_a_row()
    if dtype == torch.float16:
        weights = weights.to(dtype)  # below and above its range they are 0 and infinite
    packed.counts, rows = [n_rows], torch.full((n_rows, 64), by).to(dtype)
    found = packed.linear(rows, bias=False)
    wide = torch.promote_types(dtype, torch.float32)
    expected = (weights.to(wide) * rows[0, 0].to(wide)).to(dtype).expand(n_rows, -1)
    # A processor's dot product of bfloat16 may take numbers below 2^-126 for 0.
    vanishing = (weights.abs() < 2.0**-126) | (expected.abs() < 2.0**-126)
    found = torch.where(vanishing & (found == 0) & (dtype == torch.bfloat16), expected, found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------- products
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_products_are_exact_up_to_their_roundings(dtype: torch.dtype, counts: list[int], bias: bool, seed: int) -> None:
    packed = Packed.random(counts, D_IN, D_OUT, dtype, seed)
    of_row = packed.bias[packed.expert_of_row] if bias else None
    check_product(packed.linear(bias=bias), packed.rows, packed.matrices, of_row)


def test_every_set_of_experts_from_none_to_all(dtype: torch.dtype, seed: int) -> None:
    for hit in itertools.product([False, True], repeat=N_EXPERTS):
        counts = [expert + 1 if taken else 0 for expert, taken in enumerate(hit)]
        packed = Packed.random(counts, D_IN, D_OUT, dtype, seed)
        found = packed.linear()
        assert found.shape == (sum(counts), D_OUT)
        check_product(found, packed.rows, packed.matrices, packed.bias[packed.expert_of_row])


def test_no_rows_at_all_give_no_rows_and_no_gradient(dtype: torch.dtype, seed: int) -> None:
    packed = Packed.random([0] * N_EXPERTS, D_IN, D_OUT, dtype, seed)
    rows, bias = packed.rows.requires_grad_(), packed.bias.requires_grad_()
    found = packed.linear()
    assert found.shape == (0, D_OUT) and found.dtype == dtype
    to_rows, to_bias = torch.autograd.grad(found.sum(), (rows, bias))
    assert to_rows.shape == (0, D_IN) and to_bias.shape == bias.shape and not to_bias.any()


STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "every second column": lambda rows: rows.repeat_interleave(2, 1)[:, ::2],
    "transposed": lambda rows: rows.T.contiguous().T,
    "part of wider rows": lambda rows: torch.cat((rows, rows), 1)[:, D_IN:],
    "at an odd address": lambda rows: torch.cat((rows.new_zeros(1), rows.flatten()))[1:].view(rows.shape),
    "one row again and again": lambda rows: rows[:1].expand(len(rows), -1),
}


@pytest.mark.parametrize("stride", STRIDED)
def test_rows_may_lie_anyhow_in_memory(dtype: torch.dtype, seed: int, stride: str) -> None:
    packed = Packed.random(COUNTS["all"], D_IN, D_OUT, dtype, seed)
    rows = STRIDED[stride](packed.rows)
    assert stride == "at an odd address" or not rows.is_contiguous()
    check_product(packed.linear(rows), rows, packed.matrices, packed.bias[packed.expert_of_row])


def test_experts_may_be_a_view_of_more_of_them(dtype: torch.dtype, seed: int) -> None:
    every = Packed.random(COUNTS["all"], D_IN, D_OUT, dtype, seed)
    second = Packed(every.blocks[::2], every.scales[::2], every.bias[::2].contiguous(), every.rows[:6], [1, 2, 3])
    check_product(second.linear(), second.rows, second.matrices, second.bias[second.expert_of_row])


# ---------------------------------------------------------------- gradients
def test_gradients_are_exact_up_to_their_roundings(dtype: torch.dtype, seed: int) -> None:
    for counts in COUNTS.values():
        packed = Packed.random(counts, D_IN, D_OUT, dtype, seed)
        rows, bias = packed.rows.requires_grad_(), packed.bias.requires_grad_()
        upstream = torch.randn(len(rows), D_OUT, generator=torch.Generator().manual_seed(seed)).to(dtype)
        # Not contiguous, as autograd's own may be.
        to_rows, to_bias = torch.autograd.grad(packed.linear(), (rows, bias), upstream.T.contiguous().T)
        check_product(to_rows, upstream, packed.matrices.mT)
        # The bias is read by each row of its expert: a matrix of ones, from rows to experts.
        ones = torch.nn.functional.one_hot(packed.expert_of_row, N_EXPERTS).double().T
        for expert in range(N_EXPERTS):
            each = ones[expert].expand(D_OUT, 1, -1)
            check_product(to_bias[expert][:, None], upstream.T, each)


def chained(packed: Packed, back: Packed) -> Callable[[Tensor, Tensor], Tensor]:
    """Two packed layers with a curve between them, so that second derivatives are not 0."""

    def both(rows: Tensor, bias: Tensor) -> Tensor:
        up = engines.packed_linear(rows, packed.counts, packed.blocks, packed.scales, bias)
        return engines.packed_linear(torch.tanh(up), back.counts, back.blocks, back.scales)

    return both


@pytest.fixture
def layers(seed: int) -> tuple[Packed, Packed]:
    first, second = (Packed.random([1, 0, 2], 32, 32, torch.float64, seed + i) for i in range(2))
    return first, second


@of_torch
def test_first_and_second_derivatives_are_finite_differences_in_float64(layers: tuple[Packed, Packed]) -> None:
    inputs = tuple(x.requires_grad_() for x in (layers[0].rows, layers[0].bias))
    both = chained(*layers)
    assert torch.autograd.gradcheck(both, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(both, inputs, check_fwd_over_rev=True, fast_mode=True)


@of_torch
def test_torch_func_differentiates_packed_as_dense_matrices(layers: tuple[Packed, Packed]) -> None:
    first, second = layers
    inputs, both = (first.rows, first.bias), chained(*layers)

    def dense(rows: Tensor, bias: Tensor) -> Tensor:
        up = torch.einsum("rod,rd->ro", first.matrices, rows) + bias[first.expert_of_row]
        return torch.einsum("rod,rd->ro", second.matrices, torch.tanh(up))

    for way in (torch.func.jacrev, torch.func.jacfwd):
        for argument in (0, 1):
            torch.testing.assert_close(way(both, argument)(*inputs), way(dense, argument)(*inputs))
    found, expected = (torch.func.jvp(f, inputs, inputs)[1] for f in (both, dense))
    torch.testing.assert_close(found, expected)
    found, expected = (torch.func.hessian(lambda x, f=f: f(x, first.bias).sum())(first.rows) for f in (both, dense))
    torch.testing.assert_close(found, expected)


def test_a_gradient_is_there_for_what_asks_and_only_for_that(dtype: torch.dtype, seed: int) -> None:
    packed = Packed.random(COUNTS["all"], D_IN, D_OUT, dtype, seed)
    assert not packed.linear().requires_grad
    packed.rows.requires_grad_()
    packed.linear().sum().backward()
    assert packed.rows.grad is not None and packed.bias.grad is None
    whole, packed.rows = packed.rows.grad, packed.rows.detach()
    packed.bias.requires_grad_()
    packed.linear().sum().backward()
    assert packed.rows.grad is None and whole.any()
    assert torch.equal(packed.bias.grad[:, 0], torch.tensor(packed.counts).to(dtype))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_without_gradients_the_numbers_are_the_same_and_later_gradients_work(
    dtype: torch.dtype, seed: int, mode: Callable
) -> None:
    packed = Packed.random(COUNTS["all"], D_IN, D_OUT, dtype, seed)
    engines.release_scratch()
    with mode():  # whose tensors may not take part in gradients: the buffers must not be of them
        without = packed.linear()
        assert not without.requires_grad
    packed.rows.requires_grad_()
    found = packed.linear()
    assert torch.equal(found, without)
    found.sum().backward()
    assert packed.rows.grad.any()
