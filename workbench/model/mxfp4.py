"""MXFP4, the packed format of gpt-oss' experts: blocks of 32 FP4 (E2M1) values that share one power-of-two scale.

Source: OCP Microscaling Formats (MX) v1.0. A byte holds two values, the low nibble first; a scale byte s stands for
2^(s − 127), and 255 for NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

BLOCK = 32
BYTES_PER_BLOCK = BLOCK // 2
NAN_SCALE = 255
SCALE_BIAS = 127
# The code is sign, two bits of exponent, one of mantissa; codes 8–15 are the negatives of 0–7.
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Where a magnitude rounds up to the next code. A tie goes to the even code, so every other threshold includes itself:
# 0.25 → 0, 0.75 → 1, 1.25 → 1, 1.75 → 2, 2.5 → 2, 3.5 → 4, 5 → 4.
_TIES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
_LARGEST_EXPONENT = 2  # of E2M1: 6 = 1.5 · 2^2

# Two values of each dtype seen as one integer, so that one look-up fetches both.
_PAIR_DTYPE = {torch.bfloat16: torch.int32, torch.float16: torch.int32, torch.float32: torch.int64}
DTYPES = tuple(_PAIR_DTYPE)
_DTYPES = [str(dtype) for dtype in DTYPES]
_BLOCKS_PER_CHUNK = 1 << 16  # 4 MB of int32 indices: measured fastest (smaller chunks wait more for threads)


class NanScaleError(ValueError):
    """A scale byte is 255, which the format defines as NaN: all 32 weights of that block are lost."""


@lru_cache(maxsize=16)
def _table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The value pair of (scale, byte) at index 256 · scale + byte, as one integer; 65,536 entries."""
    with torch.inference_mode(False):  # the table outlives this call, and may be read with gradients on
        magnitudes = torch.tensor(MAGNITUDES, dtype=torch.float64, device="cpu")
        values = torch.cat((magnitudes, -magnitudes))
        byte = torch.arange(256, device="cpu")
        pairs = torch.stack((values[byte & 15], values[byte >> 4]), dim=-1)
        scales = torch.tensor([2.0 ** (s - SCALE_BIAS) for s in range(NAN_SCALE)] + [float("nan")], dtype=torch.float64)
        # Two significant bits in float64: the product is exact, and the cast rounds once.
        products = (scales[:, None, None] * pairs).to(dtype)
        return products.view(_PAIR_DTYPE[dtype]).reshape(-1).to(device)


def unpack(
    blocks: UInt8[Tensor, "*lead group 16"],
    scales: UInt8[Tensor, "*lead group"],
    dtype: torch.dtype = torch.bfloat16,
    out: Tensor | None = None,
) -> Float[Tensor, "*lead group*32"]:
    """Packed blocks → plain numbers, on the blocks' device, through a table of every (scale, byte).

    Total: every byte and every scale has a result, value · 2^(scale − 127) rounded to nearest even in ``dtype``.

    - bfloat16, float32: exact wherever finite, subnormals included (at scale 0, 0.5 · 2^−127 = 2^−128). Too large, so
      ±inf: 4 and 6 at scale 253; 2, 3, 4 and 6 at scale 254.
    - float16: exact for scales 104 to 140; lower ones underflow bit by bit towards 0, higher ones overflow to ±inf.
    - scale 255 gives NaN for all 32 values, zeros too.

    Args:
        blocks: 16 bytes to a block, the even value in the low nibble.
        scales: one byte to a block.
        dtype: bfloat16, float16 or float32.
        out: a contiguous tensor of the result's shape, dtype and device to write into (a fresh one doubles the time).

    Raises:
        ValueError: for another dtype, or shapes of blocks, scales and ``out`` that do not belong together.
    """
    _check_packed(blocks, scales)
    if dtype not in _PAIR_DTYPE:
        raise ValueError(f"cannot unpack MXFP4 to {dtype}: expected one of {_DTYPES}")
    shape = (*scales.shape[:-1], scales.shape[-1] * BLOCK)
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=blocks.device)
    elif out.shape != shape or out.dtype != dtype or not out.is_contiguous():
        found = f"{list(out.shape)} {out.dtype}" + ("" if out.is_contiguous() else ", not contiguous")
        raise ValueError(f"out is {found}: expected a contiguous {list(shape)} {dtype}")
    if out.numel():
        pairs = out.detach().view(_PAIR_DTYPE[dtype]).view(-1)
        _look_up(blocks.reshape(-1, BYTES_PER_BLOCK), scales.reshape(-1), _table(dtype, blocks.device), pairs)
    return out


def _look_up(blocks: Tensor, scales: Tensor, table: Tensor, pairs: Tensor) -> None:
    scratch = torch.empty(
        (min(_BLOCKS_PER_CHUNK, len(blocks)), BYTES_PER_BLOCK), dtype=torch.int32, device=blocks.device
    )
    for start in range(0, len(blocks), _BLOCKS_PER_CHUNK):
        chunk = blocks[start : start + _BLOCKS_PER_CHUNK]
        index = scratch[: len(chunk)].copy_(chunk)
        index += (scales[start : start + len(chunk)].to(torch.int32) * 256)[:, None]
        first = start * BYTES_PER_BLOCK
        torch.index_select(table, 0, index.view(-1), out=pairs[first : first + index.numel()])


def pack(
    weights: Float[Tensor, "*lead d_in"],
) -> tuple[UInt8[Tensor, "*lead d_in//32 16"], UInt8[Tensor, "*lead d_in//32"]]:
    """Plain numbers → packed blocks along the last axis, by the OCP MX v1.0 conversion.

    The block's scale is 2^(floor(log2(largest magnitude)) − 2), not below 2^−127; each value divided by it is rounded
    to the nearest FP4 value, ties to even, and beyond 6 becomes 6. An all-zero block gets scale 2^−127. Values that
    MXFP4 can hold come back unchanged from ``unpack``; others are off by less than a quarter of the largest magnitude
    in their block.

    Args:
        weights: bfloat16, float16 or float32; worked on in float32.

    Raises:
        ValueError: if d_in is not a multiple of 32, or a weight is NaN or infinite.
    """
    d_in = weights.shape[-1]
    if d_in % BLOCK:
        raise ValueError(
            f"MXFP4 packs {BLOCK} values to a block, so the last size must be a multiple of it: got {d_in}"
        )
    if weights.dtype not in _PAIR_DTYPE:
        raise ValueError(f"cannot pack {weights.dtype} as MXFP4: expected one of {_DTYPES}")
    if not torch.isfinite(weights).all():
        raise ValueError("cannot pack as MXFP4: some weights are NaN or infinite, and FP4 has no code for either")
    blocked = weights.detach().to(torch.float32).unflatten(-1, (d_in // BLOCK, BLOCK))
    largest = blocked.abs().amax(-1)
    # frexp: largest = m · 2^e with ½ ≤ m < 1, so floor(log2(largest)) = e − 1, without log2's rounding.
    exponent = torch.frexp(largest).exponent - 1 - _LARGEST_EXPONENT
    exponent = torch.where(largest == 0, -SCALE_BIAS, exponent.clamp(min=-SCALE_BIAS))
    codes = _nearest_codes(torch.ldexp(blocked, -exponent[..., None]))
    blocks = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return blocks, (exponent + SCALE_BIAS).to(torch.uint8)


def _nearest_codes(values: Tensor) -> Tensor:
    """FP4 code, 0–15, of each number: nearest magnitude, ties to the even code, and the sign bit."""
    ties = torch.tensor(_TIES, dtype=torch.float32, device=values.device)
    # bucketize counts thresholds strictly below the value; one step down makes an odd threshold count itself.
    ties[1::2] = torch.nextafter(ties[1::2], torch.zeros_like(ties[1::2]))
    magnitude = torch.bucketize(values.abs(), ties).to(torch.uint8)
    return magnitude | (torch.signbit(values).to(torch.uint8) << 3)


def has_nan_scales(scales: UInt8[Tensor, ...]) -> bool:
    """Whether any scale is 255, the format's NaN."""
    # 255 is also the largest byte: the maximum needs no second array, and these are 0.7 GB in the real model.
    return bool(scales.numel()) and int(scales.max()) == NAN_SCALE


def _check_packed(blocks: Tensor, scales: Tensor) -> None:
    if blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise ValueError(f"MXFP4 blocks and scales are uint8: got {blocks.dtype} and {scales.dtype}")
    if blocks.ndim < 2 or blocks.shape[-1] != BYTES_PER_BLOCK or blocks.shape[:-1] != scales.shape:
        raise ValueError(
            f"MXFP4 blocks are [..., group, {BYTES_PER_BLOCK}] and scales [..., group]: "
            f"got {list(blocks.shape)} and {list(scales.shape)}"
        )


@dataclass(eq=False)
class PackedWeight:
    """One expert matrix in its packed form: [expert, out, in] numbers, 4.25 bits each.

    Stands where a dense [expert, out, in] tensor would: ``unpack`` gives it, or some experts of it. NaN scales are
    looked for when first unpacked, unless ``checked`` says that somebody has.

    Args:
        blocks: the bytes.
        scales: one byte for each block.
        source: where it came from (file and tensor), for the error message.
        dtype: of what indexing gives: ``weight[3]`` is expert 3's matrix, as of a dense [expert, out, in] tensor.
    """

    blocks: UInt8[Tensor, "expert out group 16"]
    scales: UInt8[Tensor, "expert out group"]
    source: str = "packed weight"
    checked: bool = False
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        _check_packed(self.blocks, self.scales)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[expert, out, in] of the numbers."""
        n_experts, d_out, group = self.scales.shape
        return n_experts, d_out, group * BLOCK

    @property
    def nbytes(self) -> int:
        return self.blocks.nbytes + self.scales.nbytes

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, expert: int | slice) -> Float[Tensor, "*expert out in"]:
        # There are tables for three types; a wider one holds every float32 value.
        return self.unpack(self.dtype if self.dtype in DTYPES else torch.float32, expert).to(self.dtype)

    def check(self) -> None:
        """Look for NaN scales, once.

        Raises:
            NanScaleError: naming the source and the first block that has one.
        """
        if not self.checked and has_nan_scales(self.scales):
            raise NanScaleError(f"{self.source}: {describe_nan_scales(self.scales)}")
        self.checked = True

    def unpack(
        self, dtype: torch.dtype, expert: int | slice = slice(None), out: Tensor | None = None
    ) -> Float[Tensor, "*expert out in"]:
        """The numbers of all experts, of one ([out, in]) or of a slice ([expert, out, in]), into ``out`` if given.

        Raises:
            NanScaleError: on first use, if a scale is NaN.
        """
        self.check()
        return unpack(self.blocks[expert], self.scales[expert], dtype, out)


def describe_nan_scales(scales: UInt8[Tensor, ...]) -> str:
    """How many scales are NaN, and the index of the first: for messages."""
    where = (scales == NAN_SCALE).nonzero()
    return f"{len(where)} of {scales.numel()} scales are {NAN_SCALE} (NaN), the first at {where[0].tolist()}"
