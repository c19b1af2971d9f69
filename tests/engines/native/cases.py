"""Random products and their truth in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.model import mxfp4


@dataclass(frozen=True)
class Case:
    """Rows sorted by expert, and the packed experts they go to."""

    rows: Tensor
    counts: list[int]
    blocks: Tensor
    scales: Tensor
    bias: Tensor | None

    @property
    def args(self) -> tuple[Tensor, list[int], Tensor, Tensor, Tensor | None]:
        return self.rows, self.counts, self.blocks, self.scales, self.bias

    @property
    def expert_of_row(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))


def random_case(
    seed: int, counts: list[int], d_in: int, d_out: int, dtype: torch.dtype, scales: tuple[int, int] = (115, 130),
    bias_dtype: torch.dtype | None = torch.float32,
) -> Case:  # fmt: skip
    """Every code is as likely as every other; scales are drawn from a range, its end excluded."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(counts), d_out, d_in // 32)
    return Case(
        torch.randn(sum(counts), d_in, generator=draw).to(dtype),
        counts,
        torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=draw),
        torch.randint(*scales, shape, dtype=torch.uint8, generator=draw),
        None if bias_dtype is None else torch.randn(len(counts), d_out, generator=draw).to(bias_dtype),
    )


def products(case: Case) -> tuple[Tensor, Tensor]:
    """Without the bias, in float64; and the sums of their terms' magnitudes: rounding errors are in proportion."""
    weights = mxfp4.unpack(case.blocks, case.scales, torch.float32).double()
    parts = list(enumerate(case.rows.double().split(case.counts)))
    sums = torch.cat([part @ weights[expert].T for expert, part in parts])
    return sums, torch.cat([part.abs() @ weights[expert].T.abs() for expert, part in parts])


def assert_close(got: Tensor, sums: Tensor, sizes: Tensor, bias: Tensor | float = 0.0, roundings: int = 2) -> None:
    """fp32 sums of fp32 products plus a bias, rounded once or (the product first, then the sum) twice, are so close.

    The last term is that of subnormal sums.
    """
    with_bias = sums + bias
    half_a_step = 2.0**-8 if got.dtype == torch.bfloat16 else 2.0**-24
    rounded = with_bias.abs() + (sums.abs() if roundings == 2 else 0.0)
    allowed = (sizes + with_bias.abs()) * 2.0**-20 + rounded * half_a_step * 1.01 + 2.0**-133
    off = (got.double() - with_bias).abs() - allowed
    assert got.shape == sums.shape
    assert bool((off <= 0).all()), f"off by {off.max():.3g} more than rounding explains"


def assert_right(got: Tensor, case: Case) -> None:
    """Within rounding of the truth, everywhere."""
    bias = 0.0 if case.bias is None else case.bias.double()[case.expert_of_row]
    assert_close(got, *products(case), bias)
