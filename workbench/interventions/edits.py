"""Specs → hooks: the one place where an intervention touches tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.interventions.specs import AblateExpert

Hook = tuple[str, Callable]


@singledispatch
def edits(spec: object) -> list[Hook]:
    """The hooks that carry out one intervention, in the order in which they must be put on.

    Raises:
        TypeError: for something that is no intervention.
    """
    known = [kind.__name__ for kind in edits.registry if kind is not object]
    raise TypeError(f"{spec!r} is no intervention; expected one of {known}")


@edits.register
def _(spec: AblateExpert) -> list[Hook]:
    site = f"blocks.{spec.layer}.mlp"
    if spec.policy == "reroute":
        return [(f"{site}.hook_router_logits", _mask_logit(spec))]
    routes: dict[str, Tensor] = {}

    def remember(indices: Int[Tensor, "batch pos slot"], hook: object) -> None:
        routes["chosen"] = indices == spec.expert

    def drop(weights: Float[Tensor, "batch pos slot"], hook: object) -> Tensor:
        gone = routes["chosen"] & _at(spec.positions, weights)[..., None]
        kept = weights.masked_fill(gone, 0.0)
        if spec.policy == "zero":
            return kept
        total = kept.sum(-1, keepdim=True)
        return torch.where(gone.any(-1, keepdim=True) & (total > 0), kept / total, kept)

    return [(f"{site}.hook_expert_indices", remember), (f"{site}.hook_expert_weights", drop)]


def all_edits(specs: Iterable[object]) -> list[Hook]:
    """The hooks of several interventions, in order: a later one sees what the earlier ones left."""
    return [hook for spec in specs for hook in edits(spec)]


def _mask_logit(spec: AblateExpert) -> Callable:
    def mask(logits: Float[Tensor, "batch pos expert"], hook: object) -> Tensor:
        masked = logits.clone()
        masked[..., spec.expert] = masked[..., spec.expert].masked_fill(_at(spec.positions, logits), float("-inf"))
        return masked

    return mask


def _at(positions: tuple[int, ...] | None, like: Float[Tensor, "batch pos last"]) -> Bool[Tensor, "batch pos"]:
    """True at the positions that a spec names (all if None)."""
    if positions is None:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    chosen = torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device)
    chosen[:, list(positions)] = True
    return chosen
