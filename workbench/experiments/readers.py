"""What reads the residual stream, computed apart from the model's own pass: no site fires, so no hook sees it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model import Config
from workbench.model.interrupts import gradient_mode_kept
from workbench.model.moe import Dispatch, Experts, clamped_swiglu
from workbench.model.norm import RMSNorm
from workbench.model.packed import PackedExperts


def normed(norm: RMSNorm, x: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
    """x through the norm, with its gain, as the model computes it."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = (wide.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return (wide / scale * norm.w.to(wide)).to(x.dtype)


def through_norm(
    norm: RMSNorm,
    x: Float[Tensor, "*lead d_model"],
    gradient: Float[Tensor, "*more d_model"],
) -> Float[Tensor, "*more d_model"]:
    """The gradient at the stream x, from that at what the norm makes of it; their axes broadcast.

    The norm is live: its scale moves with x.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = (wide.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    through_gain = gradient.to(wide.dtype) * norm.w.to(wide)
    unit = wide / scale
    return (through_gain - unit * (through_gain * unit).mean(-1, keepdim=True)) / scale


def slots_gate_up(
    experts: Experts | PackedExperts,
    x: Float[Tensor, "batch pos slot d_model"],
    indices: Int[Tensor, "batch pos slot"],
    n_experts: int,
) -> Float[Tensor, "batch pos slot twice_d_mlp"]:
    """Gate and up, interleaved, of what each slot's expert reads; each slot may read something of its own."""
    dispatch = Dispatch.of(indices, n_experts)
    return dispatch.to_slots(experts.gate_up(dispatch.to_rows(x), dispatch.counts))


def slots_out(
    experts: Experts | PackedExperts,
    x: Float[Tensor, "batch pos slot d_model"],
    indices: Int[Tensor, "batch pos slot"],
    config: Config,
) -> Float[Tensor, "batch pos slot d_model"]:
    """What each slot's expert puts out, b_down included, before its routing weight."""
    dispatch = Dispatch.of(indices, config.n_experts)
    gate_up = experts.gate_up(dispatch.to_rows(x), dispatch.counts)
    act = clamped_swiglu(gate_up[:, 0::2], gate_up[:, 1::2], config)
    return dispatch.to_slots(experts.down(act, dispatch.counts))


@gradient_mode_kept
def pulled_back(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient at x, from that at function(x)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf, gradient)[0]
