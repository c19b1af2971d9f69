"""Rows times a plain matrix: torch's product, or for few rows of bfloat16 on the CPU the native library's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.model.engines import native
from workbench.model.engines.choice import engine_name
from workbench.model.engines.packed_linear import one_by_one

# Up to here the time is that of reading the matrix, which torch's product does at half the rate of ours or less.
FEW_ROWS = 16


def linear(
    x: Float[Tensor, "*lead d_in"], weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None = None
) -> Float[Tensor, "*lead d_out"]:
    """``F.linear``, differentiable in all three; summed in fp32 and rounded once, whoever computes it.

    Whether gradients are recorded changes no bit.
    """
    few = x.dtype == weight.dtype == torch.bfloat16 and 0 < x.numel() <= FEW_ROWS * x.shape[-1]
    if not few or weight.stride(-1) != 1 or engine_name(x.device, x.dtype, warn=False) != "native":
        return F.linear(x, weight, bias)
    rows = _FewRows.apply(x.reshape(-1, x.shape[-1]).contiguous(), weight, bias)
    return rows.view(*x.shape[:-1], -1)  # type: ignore[union-attr]


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, input: Float[Tensor, "*lead d_in"]) -> Float[Tensor, "*lead d_out"]:
        return linear(input, self.weight, self.bias)


class _FewRows(torch.autograd.Function):
    """y = x · Wᵀ + b. Its derivatives are torch's own products, and so differentiable in their turn."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return native.dense_linear(rows, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        rows, weight, _ = inputs
        ctx.save_for_backward(rows, weight)
        ctx.save_for_forward(rows, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (rows, weight) = grads, ctx.saved_tensors
        to_rows, to_weight, to_bias = ctx.needs_input_grad
        return (
            grad @ weight if to_rows else None,
            grad.mT @ rows if to_weight else None,
            grad.sum(0) if to_bias else None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        of_rows, of_weight, of_bias = tangents
        rows, weight = ctx.saved_tensors
        parts = []
        if of_rows is not None:
            parts.append(F.linear(of_rows, weight))
        if of_weight is not None:
            parts.append(F.linear(rows, of_weight))
        if of_bias is not None:
            parts.append(of_bias.expand(rows.shape[0], -1))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_FewRows, info.batch_size, in_dims, inputs)
