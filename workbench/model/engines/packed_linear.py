"""Rows times packed experts, by whichever engine, differentiable."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from workbench.model.engines import eager
from workbench.model.engines.choice import ENGINES, engine_name


def packed_linear(
    rows: Float[Tensor, "row d_in"],
    counts: list[int],
    blocks: UInt8[Tensor, "expert d_out group 16"],
    scales: UInt8[Tensor, "expert d_out group"],
    bias: Float[Tensor, "expert d_out"] | None = None,
) -> Float[Tensor, "row d_out"]:
    """Each run of ``counts[e]`` rows times expert e's packed matrix, plus its bias; differentiable in rows and bias.

    The matrices are constants: they have no gradient. Backward unpacks again, so no plain copy outlives its use.
    """
    # Without gradients too: torch.func and forward-mode derivatives are not seen in requires_grad.
    return _PackedLinear.apply(rows.contiguous(), bias, counts, blocks, scales)  # type: ignore[return-value]


class _PackedLinear(torch.autograd.Function):
    """y = x · Wᵀ + b by expert. Keeps only the packed bytes for backward; backward is differentiable in its turn."""

    @staticmethod
    def forward(rows: Tensor, bias: Tensor | None, counts: list[int], blocks: Tensor, scales: Tensor) -> Tensor:
        engine = ENGINES[engine_name(rows.device, rows.dtype)]
        return engine.grouped_linear(rows, counts, blocks, scales, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.counts, ctx.blocks, ctx.scales = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        (grad,) = grads
        to_rows = to_bias = None
        if ctx.needs_input_grad[0]:
            to_rows = _PackedTransposed.apply(grad, ctx.counts, ctx.blocks, ctx.scales)
        if ctx.needs_input_grad[1]:
            to_bias = torch.stack([part.sum(0) for part in grad.split(ctx.counts)])
        return to_rows, to_bias, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        of_rows, of_bias, *_ = tangents
        parts = []
        if of_rows is not None:
            parts.append(packed_linear(of_rows, ctx.counts, ctx.blocks, ctx.scales))
        if of_bias is not None:
            parts.append(torch.cat([of_bias[e].expand(n, -1) for e, n in enumerate(ctx.counts)]))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_PackedLinear, info.batch_size, in_dims, inputs)


class _PackedTransposed(torch.autograd.Function):
    """g · W by expert: the gradient of :class:`_PackedLinear` in its rows, and the other way round."""

    @staticmethod
    def forward(grad: Tensor, counts: list[int], blocks: Tensor, scales: Tensor) -> Tensor:
        return _transposed(grad, counts, blocks, scales)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.counts, ctx.blocks, ctx.scales = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        return packed_linear(grads[0], ctx.counts, ctx.blocks, ctx.scales), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _PackedTransposed.apply(tangents[0], ctx.counts, ctx.blocks, ctx.scales)  # type: ignore[return-value]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_PackedTransposed, info.batch_size, in_dims, inputs)


def one_by_one(function: Any, n: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[Tensor, int]:
    """A batch under torch.vmap (a jacobian's rows, say), one after another: the rows of each are sorted by expert."""
    pairs = list(zip(inputs, in_dims, strict=True))
    each = ([x.select(dim, i) if isinstance(dim, int) else x for x, dim in pairs] for i in range(n))
    return torch.stack([function.apply(*taken) for taken in each]), 0


def _transposed(grad: Tensor, counts: list[int], blocks: Tensor, scales: Tensor) -> Tensor:
    unpack = ENGINES[engine_name(grad.device, grad.dtype)].unpack
    out = grad.new_empty(len(grad), blocks.shape[2] * 32)
    first = 0
    for expert, count in enumerate(counts):
        if count:
            part = slice(first, first + count)
            torch.mm(grad[part], eager.matrix(blocks[expert], scales[expert], grad.dtype, unpack), out=out[part])
            first += count
    return out
