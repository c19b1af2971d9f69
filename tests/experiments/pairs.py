"""A float64 model of the architecture, and pairs of texts for it: far apart, or so near that first order is all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.forms import DENSE
from tests.small import SMALL, rows, small_model
from workbench.model import HookedGptOss

NEAR = 1e-5  # the distance of two token embeddings: second order is some 1e-10 then, and float64 keeps it apart
RIGHT, WRONG = 3, 7


def exact_model(seed: int = 0, **sizes: Any) -> HookedGptOss:
    """Logits of order 1; tokens 1 and 2 are near each other."""
    model = small_model(SMALL.with_(**sizes), DENSE, seed)
    with torch.no_grad():
        model.unembed.weight *= 8
        apart = torch.randn(model.config.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        model.embed.weight[2] = model.embed.weight[1] + NEAR * apart
    return model


def far(model: HookedGptOss, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Clean and corrupted [1 pos]: two tokens of nine differ."""
    clean = rows(model.config, seed)[:1]
    corrupt = clean.clone()
    corrupt[0, 2], corrupt[0, 5] = (clean[0, 2] + 11) % 40, (clean[0, 5] + 17) % 40
    return clean, corrupt


def near(model: HookedGptOss, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Clean and corrupted [1 pos]: two tokens differ by NEAR."""
    clean = rows(model.config, seed)[:1]
    corrupt = clean.clone()
    clean[0, 2] = clean[0, 5] = 2
    corrupt[0, 2] = corrupt[0, 5] = 1
    return clean, corrupt


def difference(logits: Tensor) -> Tensor:
    """The metric, by hand."""
    return logits[:, RIGHT] - logits[:, WRONG]


@torch.no_grad()
def cached(model: HookedGptOss, tokens: Tensor) -> dict[str, Tensor]:
    """Every site of a run, by TransformerLens."""
    return dict(model.run_with_cache(tokens)[1])


@torch.no_grad()
def scored(model: HookedGptOss, tokens: Tensor, hooks: list[tuple[str, Callable]] = ()) -> float:
    """The metric at the last position of a whole run with hooks on."""
    return float(difference(model.run_with_hooks(tokens, fwd_hooks=list(hooks))[:, -1])[0])


def written(model: HookedGptOss, cache: dict[str, Tensor], kind: str, layer: int | None, index: int | None) -> Tensor:
    """What a node writes, [pos d_model], in plain loops."""
    if kind == "embed":
        return cache["hook_embed"][0]
    block = f"blocks.{layer}."
    if kind == "head":
        d_head, o = model.config.d_head, model.blocks[layer].attn.o.weight
        return cache[f"{block}attn.hook_z"][0, :, index] @ o[:, index * d_head : (index + 1) * d_head].T
    chosen, weights, out = (cache[f"{block}mlp.hook_expert_{part}"][0] for part in ("indices", "weights", "out"))
    made = torch.zeros_like(cache["hook_embed"][0])
    for pos, slots in enumerate(chosen.tolist()):
        for slot, expert in enumerate(slots):
            if expert == index:
                made[pos] = weights[pos, slot] * out[pos, slot]
    return made


def by_hand(x: Tensor, norm: Any) -> Tensor:
    """Root mean square norm and gain."""
    return x / (x.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.w
