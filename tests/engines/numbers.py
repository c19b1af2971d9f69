"""Packed experts, rows for them, and how far a product may be from the exact one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.model.engines import packed_linear
from workbench.model.mxfp4 import unpack

ENGINES = ("eager", "native")
DTYPES = {
    "eager": (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    "native": (torch.bfloat16, torch.float32),
}
PAIRS = [(engine, dtype) for engine in ENGINES for dtype in DTYPES[engine]]
# Roundings to nearest: half the distance from 1 to the next number. Narrower types are summed in float32.
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST_NORMAL = 2.0**-126


@dataclass
class Packed:
    """Experts' packed matrices, biases, and rows sorted by expert."""

    blocks: Tensor
    scales: Tensor
    bias: Tensor
    rows: Tensor
    counts: list[int]

    @classmethod
    def random(cls, counts: list[int], d_in: int, d_out: int, dtype: torch.dtype, seed: int) -> Packed:
        """Any bytes, scales of 2^-7 to 2^-1; rows and biases of order 1."""
        draw = torch.Generator().manual_seed(seed)
        group = d_in // 32
        blocks = torch.randint(0, 256, (len(counts), d_out, group, 16), dtype=torch.uint8, generator=draw)
        scales = torch.randint(120, 127, (len(counts), d_out, group), dtype=torch.uint8, generator=draw)
        bias = torch.randn(len(counts), d_out, generator=draw).to(dtype)
        return cls(blocks, scales, bias, torch.randn(sum(counts), d_in, generator=draw).to(dtype), counts)

    def linear(self, rows: Tensor | None = None, bias: bool = True) -> Tensor:
        """By the engine in use."""
        rows = self.rows if rows is None else rows
        return packed_linear(rows, self.counts, self.blocks, self.scales, self.bias if bias else None)

    @property
    def expert_of_row(self) -> Tensor:
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))

    @property
    def matrices(self) -> Tensor:
        """[row d_out d_in] in float64, of each row's expert, by ``mxfp4.unpack``."""
        return unpack(self.blocks, self.scales, torch.float32).double()[self.expert_of_row]


def check_product(found: Tensor, x: Tensor, matrices: Tensor, bias: Tensor | None = None) -> None:
    """Assert that found = matrix · x + bias in each row, up to the roundings that any order of summing may make.

    n products summed in float32 are off by at most γ·Σ|x||w|, γ = n·u/(1 − n·u) (Higham, Accuracy and Stability, 3.1).
    The sum is rounded to the rows' type, then the bias is added and that sum is rounded. A processor's dot product of
    bfloat16 may take each number below 2^−126 for 0.
    """
    assert found.dtype == x.dtype and found.shape == matrices.shape[:2]
    exact = torch.einsum("rod,rd->ro", matrices, x.double())
    size = torch.einsum("rod,rd->ro", matrices.abs(), x.double().abs())
    n, unit, wide = x.shape[-1], UNIT[x.dtype], min(UNIT[x.dtype], UNIT[torch.float32])
    bound = n * wide / (1 - n * wide) * size + SMALLEST_NORMAL * (x.double().abs().sum(-1, keepdim=True) + n)
    if unit > wide:
        bound = bound + unit * (exact.abs() + bound)
    if bias is not None:
        exact = exact + bias.double()
        bound = bound + unit * (exact.abs() + bound)
    excess = (found.double() - exact).abs() - bound
    assert excess.max() <= 0 if excess.numel() else True, f"{excess.max():.1e} beyond the bound"
