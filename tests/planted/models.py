"""The hand-compiled models and, written without any of the workbench's methods, how to score and to cut into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import workbench as wb
from workbench import compiled
from workbench.compiled import Compiled
from workbench.model import HookedGptOss
from workbench.prompts import Pair, Stacked, stack

BY_HAND = (
    "induction",
    "token_class_router",
    "routed_by_attention",
    "sink_head",
    "retrieval_beyond_window",
    "steering_direction",
    "saturated",
    "busy_expert",
)
N = 24
Hooks = list[tuple[str, Any]]


@cache
def planted(name: str) -> Compiled:
    """The model of this name, made once; the backdoor in nano with its default seed."""
    return compiled.backdoor(wb.load("nano")) if name == "backdoor" else getattr(compiled, name)()


def difference(logits: Float[Tensor, "batch d_vocab"], rows: Stacked) -> Float[Tensor, " batch"]:
    """Logit of right less logit of wrong, of each row."""
    return (logits.gather(1, rows.right[:, None]) - logits.gather(1, rows.wrong[:, None]))[:, 0]


def last_logits(model: HookedGptOss, tokens: Tensor, hooks: Hooks = []) -> Float[Tensor, "batch d_vocab"]:  # noqa: B006
    """At the last position, with these hooks on."""
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model(tokens)[:, -1]


def both(model: HookedGptOss, pairs: Sequence[Pair], hooks: Hooks = []) -> tuple[Tensor, Tensor]:  # noqa: B006
    """The logit difference of clean and of corrupt, [batch] each."""
    rows = stack(pairs)
    clean, corrupt = (difference(last_logits(model, side, hooks), rows) for side in (rows.clean, rows.corrupt))
    return clean, corrupt


def without_head(layer: int, head: int) -> Hooks:
    """Hooks that put a head's z to 0."""

    def zero(z: Tensor, hook: object) -> Tensor:
        kept = z.clone()
        kept[:, :, head] = 0
        return kept

    return [(f"blocks.{layer}.attn.hook_z", zero)]


def without_expert(layer: int, expert: int) -> Hooks:
    """Hooks that put an expert's contribution to 0 and leave the other weights as they are."""
    chosen: dict[str, Tensor] = {}

    def remember(indices: Tensor, hook: object) -> None:
        chosen["it"] = indices == expert

    def zero(weights: Tensor, hook: object) -> Tensor:
        return weights.masked_fill(chosen["it"], 0.0)

    return [(f"blocks.{layer}.mlp.hook_expert_indices", remember), (f"blocks.{layer}.mlp.hook_expert_weights", zero)]


def every_cut(model: HookedGptOss) -> Iterator[tuple[str, Hooks]]:
    """(name, the hooks that take it out) of every head and expert of a model."""
    for layer in range(model.config.n_layers):
        for head in range(model.config.n_heads):
            yield f"L{layer}H{head}", without_head(layer, head)
        for expert in range(model.config.n_experts):
            yield f"L{layer}E{expert}", without_expert(layer, expert)


def cached(model: HookedGptOss, tokens: Tensor) -> Mapping[str, Tensor]:
    """Every site."""
    with torch.no_grad():
        return model.run_with_cache(tokens)[1]
