"""The native product of rows with a plain matrix, against float64 and torch's own."""

import pytest
import torch
import torch.nn.functional as F

from tests.engines.native.cases import assert_close
from workbench.model.engines import native

DTYPES = [torch.bfloat16, torch.float32]
PAIRS = [(dtype, of_weight) for dtype in DTYPES for of_weight in DTYPES]
SHAPES = [(1, 1), (7, 3), (31, 4), (64, 5), (65, 16), (96, 17), (300, 64), (2880, 70), (4096, 9)]


def random_dense(seed, n, d_in, d_out, dtype, of_weight=torch.bfloat16, bias_dtype=torch.bfloat16):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d_in, generator=draw).to(dtype)
    weight = torch.randn(d_out, d_in, generator=draw).to(of_weight)
    return rows, weight, None if bias_dtype is None else torch.randn(d_out, generator=draw).to(bias_dtype)


def assert_right(got, rows, weight, bias):
    sums, sizes = rows.double() @ weight.double().T, rows.double().abs() @ weight.double().abs().T
    assert_close(got, sums, sizes, 0.0 if bias is None else bias.double(), roundings=1)


@pytest.mark.parametrize(("dtype", "of_weight"), PAIRS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_products_are_right_within_one_rounding_for_odd_shapes(isa, dtype, of_weight, d_in, d_out):
    for n in (*range(1, 10), 25):
        case = random_dense(n, n, d_in, d_out, dtype, of_weight)
        assert_right(native.dense_linear(*case, isa=isa, threads=2), *case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias_dtype", [None, torch.bfloat16, torch.float32])
def test_a_bias_of_either_dtype_or_none_is_added(isa, dtype, bias_dtype):
    case = random_dense(0, 3, 96, 21, dtype, bias_dtype=bias_dtype)
    assert_right(native.dense_linear(*case, isa=isa), *case)


def test_it_rounds_where_torch_rounds(isa):
    # Small integers: every sum is exact in fp32 in any order, so all that can differ is where bf16 rounding comes.
    draw = torch.Generator().manual_seed(1)
    rows, weight = (torch.randint(-9, 10, shape, generator=draw).bfloat16() for shape in ((4, 200), (300, 200)))
    bias = torch.randn(300, generator=draw).bfloat16()
    assert torch.equal(native.dense_linear(rows, weight, bias, isa=isa), F.linear(rows, weight, bias))
    assert torch.equal(native.dense_linear(rows, weight, isa=isa), F.linear(rows, weight))
    assert not torch.equal(F.linear(rows, weight) + bias, F.linear(rows, weight, bias))  # so the test could fail


@pytest.mark.parametrize(("dtype", "of_weight"), PAIRS)
def test_a_row_gets_the_same_bits_alone_and_in_any_batch_by_any_number_of_threads(isa, dtype, of_weight):
    rows, weight, bias = random_dense(2, 13, 1000, 150, dtype, of_weight)
    together = native.dense_linear(rows, weight, bias, isa=isa, threads=3)
    for n in range(1, 10):
        assert torch.equal(native.dense_linear(rows[:n], weight, bias, isa=isa, threads=1), together[:n])


@pytest.mark.parametrize(("dtype", "of_weight"), PAIRS)
def test_nan_and_inf_count_and_stay_where_they_belong(isa, dtype, of_weight):
    rows, weight, bias = random_dense(3, 3, 70, 40, dtype, of_weight)
    clean = native.dense_linear(rows, weight, bias, isa=isa)
    rows[1, 69], weight[5, 3] = float("nan"), float("inf")
    got = native.dense_linear(rows, weight, bias, isa=isa)
    assert got[1].isnan().all()
    assert got[[0, 2]][:, 5].isinf().all()
    others = [column for column in range(40) if column != 5]
    assert torch.equal(got[[0, 2]][:, others], clean[[0, 2]][:, others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [1, 3, 17])
def test_the_matrix_may_start_at_any_number_in_memory_and_its_rows_lie_apart(isa, dtype, offset):
    rows, weight, bias = random_dense(4, 2, 100, 30, dtype, dtype)
    apart = torch.full((30 * 111 + offset,), float("nan"), dtype=dtype)[offset:].view(30, 111)
    view = apart[:, :100].copy_(weight)
    assert torch.equal(native.dense_linear(rows, view, bias, isa=isa), native.dense_linear(rows, weight, bias, isa=isa))


def test_out_is_written_and_returned(isa):
    case = random_dense(5, 2, 64, 9, torch.float32)
    out = torch.full((2, 9), 7.0)
    assert native.dense_linear(*case, out=out, isa=isa) is out
    assert_right(out, *case)


def test_no_rows_give_no_rows(isa):
    rows, weight, bias = random_dense(6, 0, 64, 9, torch.float32)
    assert native.dense_linear(rows, weight, bias, isa=isa).shape == (0, 9)
