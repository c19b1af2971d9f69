"""The native unpack gives the eager one's bits, and those of transformers' reader."""

import pytest
import torch

from workbench.model import mxfp4
from workbench.model.engines import native

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
DTYPES = list(BITS)


def assert_same_bits(got, expected):
    nan = expected.isnan()
    assert torch.equal(got.isnan(), nan)  # which NaN depends on torch's build
    bits = BITS[expected.dtype]
    assert torch.equal(got.view(bits)[~nan], expected.view(bits)[~nan])


def every_scale_and_byte():
    byte = torch.arange(256, dtype=torch.uint8)
    return byte.view(1, 16, 16).repeat(256, 1, 1), byte[:, None].repeat(1, 16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_scale_with_every_byte_gives_the_bits_of_the_eager_table(isa, dtype):
    blocks, scales = every_scale_and_byte()
    assert_same_bits(native.unpack(blocks, scales, dtype, isa=isa), mxfp4.unpack(blocks, scales, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_experts_get_the_bits_of_transformers_reader(isa, dtype):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    draw = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (3, 40, 5, 16), dtype=torch.uint8, generator=draw)
    scales = torch.randint(0, 255, (3, 40, 5), dtype=torch.uint8, generator=draw)  # theirs has no NaN at 255
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=dtype).transpose(1, 2).contiguous()
    assert_same_bits(native.unpack(blocks, scales, dtype, isa=isa), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_do_not_depend_on_flush_to_zero(isa, dtype):
    blocks, scales = every_scale_and_byte()
    expected = mxfp4.unpack(blocks, scales, dtype)
    torch.set_flush_denormal(True)
    try:
        got = native.unpack(blocks, scales, dtype, isa=isa)
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 1023, 1024, 1025, 5000])
def test_any_number_of_blocks_by_any_number_of_threads_gives_the_same_bits(isa, dtype, n_blocks):
    draw = torch.Generator().manual_seed(n_blocks)
    blocks = torch.randint(0, 256, (n_blocks, 16), dtype=torch.uint8, generator=draw)
    scales = torch.randint(0, 256, (n_blocks,), dtype=torch.uint8, generator=draw)
    expected = mxfp4.unpack(blocks, scales, dtype)
    for threads in (1, 3):
        assert_same_bits(native.unpack(blocks, scales, dtype, isa=isa, threads=threads), expected)


def test_out_is_written_and_returned():
    blocks, scales = every_scale_and_byte()
    out = torch.full((256, 512), 7.0)
    assert native.unpack(blocks, scales, torch.float32, out) is out
    assert_same_bits(out, mxfp4.unpack(blocks, scales, torch.float32))


@pytest.mark.parametrize("offset", [1, 3, 7])
def test_bytes_may_start_anywhere_in_memory(isa, offset):
    blocks, scales = every_scale_and_byte()
    moved = torch.zeros(blocks.numel() + offset, dtype=torch.uint8)[offset:].view_as(blocks).copy_(blocks)
    expected = mxfp4.unpack(blocks, scales)
    assert_same_bits(native.unpack(moved, scales, isa=isa), expected)
