"""Directions of the residual stream that are read off the weights or off a text, and ones that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations import run
from workbench.experiments.rows import check_index
from workbench.interventions import BiasExpert
from workbench.model import HookedGptOss

FIRST = 1e4  # a bias of the router that puts an expert before all others


def as_direction(numbers: Sequence[int | float] | np.ndarray) -> Float[Tensor, " d"]:
    """Numbers as a vector in float32, in which they are added."""
    return torch.tensor([float(number) for number in numbers], dtype=torch.float32)


def unembedding_direction(model: HookedGptOss, token: int) -> Float[Tensor, " d_model"]:
    """A token's row of the unembedding.

    Raises:
        ValueError: for a token that the model does not have.
    """
    check_index("token", token, model.config.d_vocab)
    return model.unembed.weight[token].detach().clone()


def expert_output(model: HookedGptOss, tokens: Sequence[int], layer: int, expert: int) -> Float[Tensor, " d_model"]:
    """What an expert puts out for the last token, b_down included, before its routing weight; chosen or not.

    Raises:
        ValueError: for a layer or an expert that is not there, or no tokens.
    """
    # The strongest expert is in the first slot; what it puts out does not depend on its weight.
    first, site = BiasExpert(layer, expert, FIRST, positions=(len(tokens) - 1,)), f"blocks.{layer}.mlp.hook_expert_out"
    return run(model, [list(tokens)], [first], sites=site)[site][0, -1, 0].detach().clone()


def head_write(model: HookedGptOss, tokens: Sequence[int], layer: int, head: int) -> Float[Tensor, " d_model"]:
    """What a head writes at the last token, without b_O.

    Raises:
        ValueError: for a layer or a head that is not there, or no tokens.
    """
    check_index("layer", layer, model.config.n_layers)
    check_index("head", head, model.config.n_heads)
    site = f"blocks.{layer}.attn.hook_z"
    z = run(model, [list(tokens)], sites=site)[site][0, -1, head]
    return (z @ model.blocks[layer].attn.W_O[head].to(z)).detach()


def random_direction(d_model: int, norm: int | float, seed: int = 0) -> Float[Tensor, " d_model"]:
    """A direction that means nothing (normal numbers), of this length."""
    drawn = torch.randn(d_model, generator=torch.Generator().manual_seed(seed))
    return drawn * (norm / drawn.norm())
