"""MXFP4 against tables computed in another way, and against both references' own readers."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import save_file

from tests.fetch import openai_code_directory
from workbench.model.mxfp4 import NanScaleError, PackedWeight, has_nan_scales, pack, unpack

E2M1 = {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0, 5: 3.0, 6: 4.0, 7: 6.0}


def exact(scale: int, nibble: int) -> float:
    """One value, worked out by Python's own arithmetic on the definition."""
    if scale == 255:
        return math.nan
    return math.copysign(math.ldexp(E2M1[nibble & 7], scale - 127), -1.0 if nibble & 8 else 1.0)


def as_float32_bits(value: float) -> int:
    try:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:  # struct refuses what IEEE rounds to infinity
        return 0x7F800000 if value > 0 else 0xFF800000


def every_scale_and_byte() -> tuple[torch.Tensor, torch.Tensor]:
    blocks = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(256, 16, 16).contiguous()
    scales = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 16).contiguous()
    return blocks, scales


def expected_bits(dtype: torch.dtype) -> torch.Tensor:
    """[256 scales, 512 values] bit patterns; bfloat16 is the upper half of float32 (nothing here needs rounding)."""
    rows = []
    for scale in range(256):
        bits = [as_float32_bits(exact(scale, nibble)) for byte in range(256) for nibble in (byte & 15, byte >> 4)]
        rows.append(bits if dtype == torch.float32 else [bit >> 16 for bit in bits])
    return torch.tensor(rows, dtype=torch.int64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_scale_and_byte_unpacks_to_the_bits_of_the_definition(dtype):
    got = unpack(*every_scale_and_byte(), dtype=dtype)
    integer, mask = (torch.int32, 0xFFFFFFFF) if dtype == torch.float32 else (torch.int16, 0xFFFF)
    bits = got.view(integer).to(torch.int64) & mask
    expected = expected_bits(dtype)
    assert torch.equal(bits[:255], expected[:255])
    assert got[255].isnan().all()  # a NaN's payload bits are nobody's contract


def test_the_bfloat16_expectation_needs_no_rounding():
    assert (expected_bits(torch.float32)[:255] & 0xFFFF == 0).all()


def test_the_infinite_results_are_exactly_those_of_scales_253_and_254():
    got = unpack(*every_scale_and_byte(), dtype=torch.bfloat16)
    values = torch.tensor([[E2M1[n & 7] for byte in range(256) for n in (byte & 15, byte >> 4)]]).expand(256, -1)
    scale = torch.arange(256)[:, None]
    assert torch.equal(got.isinf(), (scale == 253) & (values >= 4) | (scale == 254) & (values >= 2))


def test_the_smallest_scale_gives_bfloat16_subnormals_not_zero():
    blocks, scales = torch.full((1, 16), 0x01, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)
    assert unpack(blocks, scales)[0].item() == 2.0**-128


def test_float16_is_the_exact_value_rounded_once():
    got = unpack(*every_scale_and_byte(), dtype=torch.float16)
    wide = unpack(*every_scale_and_byte(), dtype=torch.float32)
    assert torch.equal(got[:253], wide[:253].to(torch.float16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_unpack_equals_transformers_reader(dtype):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (3, 40, 5, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(
        0, 255, (3, 40, 5), dtype=torch.uint8, generator=generator
    )  # theirs gives inf at 255, not NaN
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=dtype).transpose(1, 2)  # theirs ends transposed
    assert torch.equal(unpack(blocks, scales, dtype), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_unpack_equals_openais_reader(tmp_path, monkeypatch, dtype):
    monkeypatch.syspath_prepend(openai_code_directory())
    from gpt_oss.torch.weights import Checkpoint

    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(0, 256, (3, 40, 5, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(0, 255, (3, 40, 5), dtype=torch.uint8, generator=generator)
    save_file({"w.blocks": blocks, "w.scales": scales}, tmp_path / "model.safetensors")
    reader = Checkpoint(str(tmp_path), torch.device("cpu"))
    assert torch.equal(unpack(blocks, scales, dtype), reader._get_mxfp4_tensor("w.blocks", "w.scales", dtype=dtype))


def test_unpack_into_a_given_tensor_fills_and_returns_it():
    blocks, scales = every_scale_and_byte()
    out = torch.empty(256, 512, dtype=torch.bfloat16)
    assert unpack(blocks, scales, out=out) is out
    assert torch.equal(out[:255], unpack(blocks, scales)[:255])


def test_more_blocks_than_one_chunk_unpack_like_few():
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 256, (40_000, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(0, 255, (40_000,), dtype=torch.uint8, generator=generator)
    parts = [unpack(blocks[i : i + 7_000], scales[i : i + 7_000]) for i in range(0, 40_000, 7_000)]
    assert torch.equal(unpack(blocks, scales), torch.cat(parts))


def test_an_empty_tensor_unpacks_to_an_empty_tensor():
    assert unpack(torch.empty(0, 3, 16, dtype=torch.uint8), torch.empty(0, 3, dtype=torch.uint8)).shape == (0, 96)


@settings(max_examples=60, deadline=None)
@given(
    nibbles=arrays("uint8", (2, 3, 32), elements=st.integers(0, 15)),
    scales=arrays("uint8", (2, 3), elements=st.integers(0, 252)),  # from 253 on some values are infinite
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_packing_what_mxfp4_can_hold_loses_nothing(nibbles, scales, dtype):
    codes = torch.from_numpy(nibbles)
    weights = unpack(codes[..., 0::2] | codes[..., 1::2] << 4, torch.from_numpy(scales), dtype)
    again = unpack(*pack(weights), dtype)
    assert torch.equal(again, weights)
    assert torch.equal(again.signbit(), weights.signbit())  # −0 stays −0


@settings(max_examples=60, deadline=None)
@given(weights=arrays("float32", (64,), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_each_packed_value_is_the_nearest_one_that_its_scale_allows(weights):
    weights = torch.from_numpy(weights)
    blocks, scales = pack(weights)
    for block, scale, got in zip(
        weights.reshape(2, 32), scales.tolist(), unpack(blocks, scales, torch.float32).reshape(2, 32), strict=True
    ):
        candidates = torch.tensor([exact(scale, code) for code in range(16)], dtype=torch.float64)
        nearest = (block.double()[:, None] - candidates).abs().amin(-1)
        assert torch.equal((block.double() - got.double()).abs(), nearest)


def test_the_scale_is_the_largest_magnitudes_power_of_two_less_two():
    weights = torch.zeros(5, 32)
    weights[:, 7] = torch.tensor([1.0, -7.99, 8.0, 2.0**-140, 0.0])
    scales = pack(weights)[1][:, 0].tolist()
    assert scales == [127 - 2, 127 + 2 - 2, 127 + 3 - 2, 0, 0]


def test_ties_go_to_the_even_code_and_large_values_saturate():
    block = torch.zeros(32)
    block[:9] = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.9, -7.9])
    assert unpack(*pack(block), torch.float32)[:9].tolist() == [0, 1, 1, 2, 2, 4, 4, 6, -6]


def test_the_even_value_sits_in_the_low_nibble():
    block = torch.zeros(32)
    block[0], block[1] = 6.0, 0.5
    assert pack(block)[0][0, 0].item() == 0x17


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pack_refuses_what_fp4_has_no_code_for(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        pack(torch.tensor([bad] + [0.0] * 31))


def test_errors_name_what_was_given():
    blocks, scales = torch.zeros(2, 16, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="multiple of it: got 33"):
        pack(torch.zeros(33))
    with pytest.raises(ValueError, match=r"torch.int8.*expected one of"):
        unpack(blocks, scales, torch.int8)
    with pytest.raises(ValueError, match=r"out is \[64\] torch.float32: expected a contiguous \[64\] torch.bfloat16"):
        unpack(blocks, scales, out=torch.empty(64))


def test_a_nan_scale_is_found_and_a_largest_one_is_not():
    scales = torch.full((4, 5), 254, dtype=torch.uint8)
    assert not has_nan_scales(scales)
    scales[3, 2] = 255
    assert has_nan_scales(scales)


def test_a_packed_weight_unpacks_whole_or_by_expert():
    weights = torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(2))
    packed = PackedWeight(*pack(weights))
    whole = packed.unpack(torch.bfloat16)
    assert whole.shape == packed.shape == (3, 8, 64)
    assert torch.equal(packed.unpack(torch.bfloat16, 1), whole[1])
    assert torch.equal(packed.unpack(torch.bfloat16, slice(1, 3)), whole[1:3])
    assert packed.nbytes == 3 * 8 * 64 * 17 // 32


def test_a_packed_weight_with_a_nan_scale_raises_on_first_use_and_says_where():
    blocks, scales = pack(torch.ones(2, 8, 32))
    scales[1, 5, 0] = 255
    packed = PackedWeight(blocks, scales, source="model.safetensors: experts")
    with pytest.raises(NanScaleError, match=r"model.safetensors: experts: 1 of 16 scales .* \[1, 5, 0\]"):
        packed.unpack(torch.float32)
