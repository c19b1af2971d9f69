"""The native grouped product against float64, on every instruction set."""

import numpy as np
import pytest
import torch

from tests.engines.native.cases import Case, assert_right, products, random_case
from workbench.model import engines, mxfp4
from workbench.model.engines import native

DTYPES = [torch.bfloat16, torch.float32]
SHAPES = [(32, 1), (64, 4), (96, 5), (128, 16), (160, 37), (352, 130), (2880, 21)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_products_are_right_within_rounding_for_odd_shapes(isa, dtype, d_in, d_out):
    case = random_case(d_in, [3, 0, 1, 7, 20], d_in, d_out, dtype)
    assert_right(native.grouped_linear(*case.args, isa=isa, threads=2), case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_right_for_every_number_of_rows_up_to_80(isa, dtype):
    for first in range(1, 80, 8):
        case = random_case(first, list(range(first, first + 8)), 96, 9, dtype)
        assert_right(native.grouped_linear(*case.args, isa=isa, threads=1), case)


@pytest.mark.parametrize("hit", range(9))
def test_expert_sets_of_every_size_from_none_to_all(isa, hit):
    for seed in range(6):
        chosen = torch.randperm(8, generator=torch.Generator().manual_seed(seed))[:hit].tolist()
        counts = [1 + expert % 3 if expert in chosen else 0 for expert in range(8)]
        case = random_case(seed, counts, 64, 18, torch.bfloat16)
        got = native.grouped_linear(*case.args, isa=isa, threads=2)
        assert got.shape == (sum(counts), 18)
        if hit:
            assert_right(got, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias_dtype", [None, torch.bfloat16, torch.float32])
def test_a_bias_of_either_dtype_or_none_is_added(isa, dtype, bias_dtype):
    case = random_case(0, [2, 5], 64, 11, dtype, bias_dtype=bias_dtype)
    assert_right(native.grouped_linear(*case.args, isa=isa), case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 30])
def test_the_bias_joins_the_rounded_product_to_the_bit(isa, dtype, n):
    case = random_case(12, [n, n], 160, 70, dtype, bias_dtype=dtype)
    product = native.grouped_linear(*case.args[:4], isa=isa)
    assert torch.equal(native.grouped_linear(*case.args, isa=isa), product + case.bias[case.expert_of_row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scales", [(0, 1), (0, 2), (1, 2), (0, 4), (2, 4), (236, 244), (0, 256 - 16)])
@pytest.mark.parametrize("n", [2, 50])
def test_the_smallest_and_largest_finite_scales_are_as_exact_as_any(isa, dtype, scales, n):
    case = random_case(1, [n, 1], 160, 13, dtype, scales)
    # Large scales: rows small enough for sums to stay finite.
    case = Case((case.rows.float() * (2.0**-20 if scales[1] > 200 else 1)).to(dtype), *case.args[1:])
    assert_right(native.grouped_linear(*case.args, isa=isa), case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_rows_count_where_scales_are_huge(isa, dtype):
    case = random_case(2, [3], 64, 8, dtype, (245, 250))
    tiny = Case((case.rows.float() * 2.0**-131).to(dtype), *case.args[1:])
    assert tiny.rows.abs().max() < 2.0**-126
    assert_right(native.grouped_linear(*tiny.args, isa=isa), tiny)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 50])
@pytest.mark.parametrize("scale", [253, 254, 255])
def test_weights_that_are_infinite_or_nan_make_what_ieee_makes_of_them(isa, dtype, n, scale):
    case = random_case(scale, [n], 64, 40, dtype, (100, 101), bias_dtype=None)
    case.scales[0, ::2, 1] = scale
    case = Case((case.rows.float() * 2.0**-30).to(dtype), *case.args[1:])
    expected = products(case)[0].to(torch.float32).to(dtype)
    got = native.grouped_linear(*case.args, isa=isa)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isinf(), expected.isinf())
    infinite = expected.isinf()
    assert torch.equal(got[infinite], expected[infinite])


def test_blocks_of_zeros_with_scale_zero_are_zeros(isa):
    case = random_case(3, [2], 96, 10, torch.bfloat16)
    case.blocks[:, :, 1] = 0x80
    case.scales[:, :, 1] = 0
    assert_right(native.grouped_linear(*case.args, isa=isa), case)


def test_nan_and_inf_rows_stay_in_their_own_rows(isa):
    case = random_case(4, [4, 4], 64, 12, torch.bfloat16)
    clean = native.grouped_linear(*case.args, isa=isa)
    case.rows[2, 5], case.rows[6, 7] = float("nan"), float("inf")
    got = native.grouped_linear(*case.args, isa=isa)
    assert got[2].isnan().all()
    assert not got[6].isfinite().any()
    others = [0, 1, 3, 4, 5, 7]
    assert torch.equal(got[others], clean[others])


def test_bf16_sums_are_rounded_to_nearest_even(isa):
    # Two weights of 1: y = x + rest in fp32, and the rest puts the sum on ties and beside them.
    blocks, scales = mxfp4.pack(torch.eye(32)[:2].sum(0).view(1, 1, 32))
    x = torch.tensor([1.0, 1.0078125, -1.0, 3.0]).bfloat16()
    rows = torch.zeros(4, 32, dtype=torch.bfloat16)
    for rest in (2.0**-8, 1.5 * 2.0**-8, 0.875 * 2.0**-8, -(2.0**-8), 0.0):
        rows[:, 0], rows[:, 1] = x, rest
        got = native.grouped_linear(rows, [4], blocks, scales, isa=isa)
        assert torch.equal(got[:, 0], (x.float() + rest).bfloat16())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_in", [96, 352])
def test_a_row_gets_the_same_bits_alone_and_in_any_batch_by_any_number_of_threads(isa, dtype, d_in):
    case = random_case(5, [150, 3], d_in, 70, dtype)
    together = native.grouped_linear(*case.args, isa=isa, threads=3)
    for n in (*range(1, 15), 40):
        part = native.grouped_linear(case.rows[:n], [n, 0], *case.args[2:], isa=isa, threads=1)
        assert torch.equal(part, together[:n])


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_agrees_with_the_dense_experts_product(isa, dtype):
    case = random_case(6, [4, 9], 2880, 32, dtype, bias_dtype=dtype)
    weights = mxfp4.unpack(case.blocks, case.scales, dtype)
    with engines.use("eager"):
        dense = engines.grouped_dense_linear(case.rows, case.counts, weights, case.bias)
    sums, sizes = products(case)
    got = native.grouped_linear(*case.args, isa=isa)
    # Either may round up where the other rounds down, and the bias's sum once more.
    step = 2.0**-7 if dtype == torch.bfloat16 else 0.0
    allowed = (sums.abs() + dense.double().abs()) * step + sizes * 2.0**-18
    assert bool(((got.double() - dense.double()).abs() <= allowed).all())


def test_memory_mapped_bytes_are_read_in_place_at_any_offset(isa, tmp_path):
    case = random_case(7, [2, 1, 40], 96, 10, torch.bfloat16)
    path = tmp_path / "packed"
    path.write_bytes(b"abc" + case.blocks.numpy().tobytes() + case.scales.numpy().tobytes())
    mapped = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", offset=3))
    n = case.blocks.numel()
    blocks, scales = mapped[:n].view_as(case.blocks), mapped[n:].view_as(case.scales)
    assert blocks.data_ptr() % 2
    assert_right(native.grouped_linear(case.rows, case.counts, blocks, scales, case.bias, isa=isa), case)


def test_experts_may_lie_apart_in_memory(isa):
    wide = random_case(8, [2, 1, 5], 64, 20, torch.bfloat16)
    case = Case(wide.rows, wide.counts, wide.blocks[:, 3:9], wide.scales[:, 3:9], wide.bias[:, 3:9].contiguous())
    assert not case.blocks.is_contiguous()
    assert_right(native.grouped_linear(*case.args, isa=isa), case)


def test_experts_without_rows_are_never_read(isa, tmp_path):
    # A hole of the file behind its end: touching it would kill the process (SIGBUS).
    case = random_case(9, [4], 4096, 64, torch.bfloat16)
    path = tmp_path / "short"
    path.write_bytes(case.blocks.numpy().tobytes())
    n = case.blocks.numel()
    with path.open("r+b") as file:
        file.truncate(8 * n)
        mapped = np.memmap(file, dtype=np.uint8, mode="r+", shape=(8 * n,))
        file.truncate(n)
    blocks = torch.from_numpy(mapped).view(8, *case.blocks.shape[1:])
    scales, bias = case.scales.repeat(8, 1, 1), case.bias.repeat(8, 1)
    assert_right(native.grouped_linear(case.rows, [4, *[0] * 7], blocks, scales, bias, isa=isa, threads=2), case)


def test_out_is_written_and_returned(isa):
    case = random_case(10, [2, 3], 64, 7, torch.float32)
    out = torch.full((5, 7), 7.0)
    assert native.grouped_linear(*case.args, out=out, isa=isa) is out
    assert_right(out, case)
