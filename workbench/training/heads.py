"""Which heads look one token back, and which at what followed the last time."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model import HookedGptOss


@dataclass(frozen=True)
class HeadScores:
    """Mean attention over the second telling of repeated random tokens: raw (what goes to the sink counts as lost), and
    with each row renormalised to 1 over the keys."""

    previous: Float[Tensor, "layer head"]
    induction: Float[Tensor, "layer head"]
    previous_renormalised: Float[Tensor, "layer head"]
    induction_renormalised: Float[Tensor, "layer head"]


@torch.no_grad()
def head_scores(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> HeadScores:
    """``tokens``: rows of n random tokens, twice. Previous: A[t, t−1]. Induction: A[t, t−n+1]."""
    n = tokens.shape[1] // 2
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    patterns = torch.stack([cache[f"blocks.{i}.attn.hook_pattern"] for i in range(model.config.n_layers)])
    to_keys = patterns / patterns.sum(-1, keepdim=True).clamp(min=1e-9)
    both = (p.diagonal(-offset, dim1=-2, dim2=-1)[..., -n:] for p in (patterns, to_keys) for offset in (1, n - 1))
    return HeadScores(*(attention.mean((1, 3)) for attention in both))
