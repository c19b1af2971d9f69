"""The native product of rows, sorted by expert, with the experts' plain matrices, against float64 and torch's own."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.engines.native.cases import assert_close
from workbench.model.engines import native

DTYPES = [torch.bfloat16, torch.float32]
SHAPES = [(1, 1), (7, 3), (33, 6), (64, 65), (96, 17), (300, 64), (512, 130)]


def random_experts(seed, counts, d_in, d_out, dtype, bias=True):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((sum(counts), d_in), (len(counts), d_out, d_in), (len(counts), d_out))
    rows, weight, b = (torch.randn(shape, generator=draw).to(dtype) for shape in shapes)
    return rows, counts, weight, b if bias else None


def assert_right(got, rows, counts, weight, bias):
    parts = list(enumerate(rows.double().split(counts)))
    sums = torch.cat([part @ weight[expert].double().T for expert, part in parts])
    sizes = torch.cat([part.abs() @ weight[expert].double().abs().T for expert, part in parts])
    expert_of_row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert_close(got, sums, sizes, 0.0 if bias is None else bias.double()[expert_of_row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_products_are_right_within_two_roundings_for_odd_shapes(isa, dtype, bias, d_in, d_out):
    case = random_experts(0, [3, 0, 1, 13, 2, 0, 26], d_in, d_out, dtype, bias)
    assert_right(native.dense_grouped_linear(*case, isa=isa, threads=2), *case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_set_of_experts_from_none_to_all(isa, dtype):
    for hit in itertools.product([False, True], repeat=5):
        counts = [expert + 1 if taken else 0 for expert, taken in enumerate(hit)]
        case = random_experts(1, counts, 70, 19, dtype)
        got = native.dense_grouped_linear(*case, isa=isa)
        assert got.shape == (sum(counts), 19)
        assert_right(got, *case)


def test_the_product_is_rounded_before_the_bias_is_added(isa):
    # Small integers: every sum is exact in fp32 in any order, so all that can differ is where bf16 rounding comes.
    draw = torch.Generator().manual_seed(1)
    rows, weight = (torch.randint(-9, 10, shape, generator=draw).bfloat16() for shape in ((4, 200), (1, 300, 200)))
    bias = torch.randn(1, 300, generator=draw).bfloat16()
    got = native.dense_grouped_linear(rows, [4], weight, bias, isa=isa)
    assert torch.equal(got, F.linear(rows, weight[0]) + bias)
    assert not torch.equal(got, F.linear(rows, weight[0], bias[0]))  # so the test could fail


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_gets_the_bits_that_it_gets_alone_whatever_comes_with_it_by_any_number_of_threads(isa, dtype):
    rows, counts, weight, _ = random_experts(2, [13, 0, 1, 7, 30], 500, 150, dtype)
    together = native.dense_grouped_linear(rows, counts, weight, isa=isa, threads=3)
    first = 0
    for expert, count in enumerate(counts):
        for n in range(1, count + 1):
            alone = native.dense_linear(rows[first : first + n], weight[expert], isa=isa, threads=1)
            assert torch.equal(alone, together[first : first + n])
        first += count


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_count_and_stay_where_they_belong(isa, dtype):
    rows, counts, weight, bias = random_experts(3, [2, 1, 0, 2], 70, 40, dtype)
    clean = native.dense_grouped_linear(rows, counts, weight, bias, isa=isa)
    rows[1, 69], weight[1, 5, 3], weight[2] = float("nan"), float("inf"), float("nan")  # expert 2 has no rows
    got = native.dense_grouped_linear(rows, counts, weight, bias, isa=isa)
    assert got[1].isnan().all() and got[2, 5].isinf()
    got[1], got[2, 5] = clean[1], clean[2, 5]
    assert torch.equal(got, clean)


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_and_their_rows_may_lie_apart_in_memory(isa, dtype):
    rows, counts, weight, bias = random_experts(4, [2, 1, 5], 64, 20, dtype)
    apart = torch.full((3, 23, 71), float("nan"), dtype=dtype)
    view = apart[:, 2:22, 5:69].copy_(weight)
    assert not view.is_contiguous()
    expected = native.dense_grouped_linear(rows, counts, weight, bias, isa=isa)
    assert torch.equal(native.dense_grouped_linear(rows, counts, view, bias, isa=isa), expected)


def test_out_is_written_and_returned(isa):
    case = random_experts(5, [2, 0, 1], 64, 9, torch.float32)
    out = torch.full((3, 9), 7.0)
    assert native.dense_grouped_linear(*case, out=out, isa=isa) is out
    assert_right(out, *case)
