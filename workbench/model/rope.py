"""Rotary position embedding with YaRN, half-split as in gpt-oss (not interleaved)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model.config import Rope


def inverse_frequencies(rope: Rope, d_head: int) -> Float[Tensor, " half"]:
    """Radians per position of each rotated pair.

    YaRN (arXiv 2309.00071, eq. 13 with the "by parts" ramp): fast pairs keep RoPE's frequency, slow ones are divided by
    ``factor``, those between the two corners are mixed linearly.

    Returns:
        float32, the first pair the fastest; half = d_head / 2.
    """
    half = d_head // 2
    radian = rope.theta ** (torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)  # positions that turn by 1
    if not rope.factor > 1:
        return 1.0 / radian
    low, high = rope.corners(d_head)
    # In the references' order of operations: far out, the last bit of a frequency is a visible angle.
    kept = 1 - ((torch.arange(half, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return 1.0 / (rope.factor * radian) * (1 - kept) + 1.0 / radian * kept


def cos_sin(
    rope: Rope, d_head: int, positions: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch pos half"], Float[Tensor, "batch pos half"]]:
    """The turn of each pair at each position, in float32, YaRN's concentration multiplied into both."""
    # Not a buffer: `model.to(torch.bfloat16)` would round it, and a rounded frequency is wrong by whole turns far out.
    frequencies = inverse_frequencies(rope, d_head).to(positions.device)
    angles = positions[..., None].to(torch.float32) * frequencies
    return angles.cos() * rope.concentration, angles.sin() * rope.concentration


def rotate(
    x: Float[Tensor, "batch pos head d_head"],
    cos: Float[Tensor, "#batch pos half"],
    sin: Float[Tensor, "#batch pos half"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Turn dimension i with dimension i + d_head/2, in x's own dtype (as both references do)."""
    return turn(x, *for_both_halves(cos, sin, x.dtype))


def for_both_halves(
    cos: Float[Tensor, "#batch pos half"], sin: Float[Tensor, "#batch pos half"], dtype: torch.dtype
) -> tuple[Float[Tensor, "#batch pos 1 d_head"], Float[Tensor, "#batch pos 1 d_head"]]:
    """What :func:`turn` multiplies with, the same for every head and, in a pass, for every layer."""
    cos, sin = cos[:, :, None].to(dtype), sin[:, :, None].to(dtype)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def turn(
    x: Float[Tensor, "batch pos head d_head"],
    cos: Float[Tensor, "#batch pos 1 d_head"],
    sin: Float[Tensor, "#batch pos 1 d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """(first, second) → (first·cos − second·sin, second·cos + first·sin), each product and sum rounded in x's dtype."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
