"""Rows times plain matrices: torch's products, or for few rows on the CPU the native library's."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from workbench.model.engines import native
from workbench.model.engines.choice import engine_name
from workbench.model.engines.packed_linear import one_by_one

# What torch's own autograd functions ask before they are called; neither is seen in requires_grad.
_TRANSFORMED = torch._C._are_functorch_transforms_active

# Up to so many rows for each matrix the native product is no slower than torch's. How many times as fast it was
# (dense_linear, F.linear; 2 cores of AMD Zen 4; d_in 512 to 4096; matrices from memory). In bfloat16 oneDNN was held
# to the same instructions; in float32 torch, which multiplies by MKL, ran as it does on this machine.
#   rows                       1        16       32       64       128      192
#   avx512_bf16, bfloat16      1.4-1.6  1.3-1.7  1.1-1.3  1.0-1.2  0.8-1.1  0.8-1.0
#   avx512, bfloat16           1.1-1.7  2.5-3.2  2.3-2.8  2.2-2.7
#   avx512, float32            1.8-2.0  1.9-2.4  1.5-2.1  1.2-1.7  1.1-1.4  1.1-1.4
#   avx2, bfloat16             0.9-1.1  2.9-3.1  3.1-3.3  3.1-3.4
#   avx2, float32              1.9-2.8  1.2      0.9-1.0  0.7-0.8
# Plain C (oneDNN held to avx2) was ahead in float32 up to 4 rows, and in bfloat16 never.
FEW_ROWS = {
    "avx512_bf16": {torch.float32: 192, torch.bfloat16: 64},
    "avx512": {torch.float32: 192, torch.bfloat16: 64},
    "avx2": {torch.float32: 24, torch.bfloat16: 64},
    "generic": {torch.float32: 4, torch.bfloat16: 0},
}


def linear(
    x: Float[Tensor, "*lead d_in"], weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None = None
) -> Float[Tensor, "*lead d_out"]:
    """``F.linear``, differentiable in all three; summed in fp32 and rounded once, whoever computes it.

    Whether gradients are recorded changes no bit.
    """
    if not _pays(x, weight, 1):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    product = _FewRows.apply if _derived(x, weight, bias) else _FewRows.forward
    return product(rows, weight, bias).view(*x.shape[:-1], -1)  # type: ignore[union-attr]


def grouped_dense_linear(
    rows: Float[Tensor, "row d_in"],
    counts: list[int],
    weight: Float[Tensor, "expert d_out d_in"],
    bias: Float[Tensor, "expert d_out"],
) -> Float[Tensor, "row d_out"]:
    """Each run of ``counts[e]`` rows times expert e's matrix, and its bias; experts without rows are not touched.

    Differentiable in rows, weight and bias; whether gradients are recorded changes no bit.
    """
    if _pays(rows, weight, sum(count > 0 for count in counts)):
        product = _FewRowsByExpert.apply if _derived(rows, weight, bias) else _FewRowsByExpert.forward
        return product(rows.contiguous(), weight, bias, counts)  # type: ignore[return-value]
    return _by_torch(rows, counts, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, input: Float[Tensor, "*lead d_in"]) -> Float[Tensor, "*lead d_out"]:
        return linear(input, self.weight, self.bias)


def _pays(x: Tensor, weight: Tensor, n_matrices: int) -> bool:
    if x.dtype != weight.dtype or weight.stride(-1) != 1 or engine_name(x.device, x.dtype, warn=False) != "native":
        return False
    # Autocast may want another dtype; tracers hand in tensors that hold no numbers.
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or type(x) is not Tensor:
        return False
    return 0 < x.numel() <= FEW_ROWS[native.isa()][x.dtype] * n_matrices * x.shape[-1]


def _derived(*tensors: Tensor | None) -> bool:
    """Whether somebody may ask for derivatives. An autograd function takes longer than a product of few numbers."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return True
    return _TRANSFORMED() or forward_ad._current_level >= 0


def _by_torch(
    rows: Float[Tensor, "row d_in"],
    counts: list[int],
    weight: Float[Tensor, "expert d_out d_in"],
    bias: Float[Tensor, "expert d_out"] | None = None,
) -> Float[Tensor, "row d_out"]:
    # unbind once: indexing weight[e] would make backward fill a gradient of all experts for each of them.
    weights = weight.unbind(0)
    parts = [(expert, part) for expert, part in enumerate(rows.split(counts)) if part.shape[0]]
    if not parts:
        return F.linear(rows, weights[0], None if bias is None else bias[0])
    if bias is None:
        return torch.cat([F.linear(part, weights[expert]) for expert, part in parts])
    # The bias joins the rounded product, as in both references: fused, bfloat16 would round once less than they do.
    biases = bias.unbind(0)
    return torch.cat([F.linear(part, weights[expert]) + biases[expert] for expert, part in parts])


def _keep(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """What the derivatives need of rows and weight: rows for the weight's, the weight for the rows'."""
    rows, weight, *_ = inputs
    to_rows, to_weight, *_ = ctx.needs_input_grad
    ctx.save_for_backward(rows if to_weight else None, weight if to_rows else None)
    ctx.save_for_forward(rows, weight)


def _sum_of(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


class _FewRows(torch.autograd.Function):
    """y = x · Wᵀ + b. Its derivatives are torch's own products, and so differentiable in their turn."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return native.dense_linear(rows, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs)

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
        return _sum_of(parts)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_FewRows, info.batch_size, in_dims, inputs)


class _FewRowsByExpert(torch.autograd.Function):
    """y = x · Wᵀ + b by expert. As of :class:`_FewRows`, its derivatives are torch's own products."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
        return native.dense_grouped_linear(rows, counts, weight, bias.contiguous())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs)
        ctx.counts = inputs[3]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rows, weight), (to_rows, to_weight, to_bias, _) = ctx.saved_tensors, ctx.needs_input_grad
        parts = grads[0].split(ctx.counts)
        of_rows = of_weight = of_bias = None
        if to_rows:
            of_rows = torch.cat([part @ matrix for part, matrix in zip(parts, weight.unbind(0), strict=True)])
        if to_weight:  # of experts without rows: zeros, a product with no terms
            pairs = zip(parts, rows.split(ctx.counts), strict=True)
            of_weight = torch.stack([part.mT @ read for part, read in pairs])
        if to_bias:
            of_bias = torch.stack([part.sum(0) for part in parts])
        return of_rows, of_weight, of_bias, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        of_rows, of_weight, of_bias, _ = tangents
        rows, weight = ctx.saved_tensors
        parts = []
        if of_rows is not None:
            parts.append(_by_torch(of_rows, ctx.counts, weight))
        if of_weight is not None:
            parts.append(_by_torch(rows, ctx.counts, of_weight))
        if of_bias is not None:
            parts.append(torch.cat([of_bias[expert].expand(n, -1) for expert, n in enumerate(ctx.counts)]))
        return _sum_of(parts)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_FewRowsByExpert, info.batch_size, in_dims, inputs)


# torch asks for the signature at each call, which takes longer than a small product unless it is there.
for _function in (_FewRows, _FewRowsByExpert):
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[attr-defined]
