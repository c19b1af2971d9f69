"""Random shapes, weights and tokens, from a seed."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from tests.forms import DENSE, packable
from workbench.model import Config, ConfigError, HookedGptOss, Rope, random_weights


def random_shape(seed: int, form: str = DENSE, **fixed: Any) -> Config:
    """A small gpt-oss of random sizes with YaRN on; every size that both references let us choose is drawn. Packed
    forms have whole blocks of 32 in d_model and d_mlp."""
    draw = random.Random(seed)
    kv_heads, n_experts = draw.choice([1, 2, 3]), draw.randint(3, 12)
    sizes = {
        "n_layers": draw.randint(2, 5),
        "d_model": draw.choice([32, 48, 64, 96]),
        "n_heads": kv_heads * draw.choice([1, 2, 4]),
        "n_key_value_heads": kv_heads,
        "d_mlp": draw.choice([24, 32, 64]),
        "n_experts": n_experts,
        "experts_per_token": draw.randint(1, min(4, n_experts - 1)),
        "d_vocab": draw.randint(60, 300),
        "sliding_window": draw.randint(2, 24),
        "dtype": "float32",
        "bos_token_id": None,
        "pad_token_id": 0,
        "eos_token_ids": (),
        "name": f"random-{seed}",
    }
    if form != DENSE:
        sizes |= {"d_model": draw.choice([32, 64, 96]), "d_mlp": draw.choice([32, 64])}
    while True:  # until YaRN's corners are in order
        factor, context = draw.randint(2, 40), draw.randint(210, 4096)
        fast, slow = draw.uniform(16, 48), draw.uniform(0.5, 3)
        rope = Rope(10 ** draw.uniform(3, 5.5), float(factor), context, fast, slow)
        sizes |= {"d_head": draw.choice([16, 24, 32, 64]), "rope": rope, "n_ctx": factor * context}
        try:
            return Config(**(sizes | fixed))
        except ConfigError:
            continue


@torch.no_grad()
def random_model(config: Config, seed: int, form: str = DENSE) -> HookedGptOss:
    """Random float32 weights that use the whole architecture: sinks that take a share, gates beyond their clamp; logits
    of order 1. It is dense: what the references are built around, and what ``forms.held`` holds in another form."""
    model = random_weights(HookedGptOss(config, dtype=torch.float32), seed)
    for block in model.blocks:
        block.attn.sinks.mul_(2).add_(3)
        block.mlp.experts.W_gate_up.mul_(4)
        block.mlp.experts.W_down.mul_(0.25)
    return model if form == DENSE else packable(model)


@torch.no_grad()
def rounded(model: HookedGptOss) -> HookedGptOss:
    """The model with every weight at a bfloat16 number, so that it is the same model in either type."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
    return model


def model_in(model: HookedGptOss, dtype: torch.dtype) -> HookedGptOss:
    """A copy in another type."""
    copy = HookedGptOss(model.config, dtype=dtype)
    copy.load_state_dict(model.state_dict())
    return copy


def random_tokens(config: Config, seed: int, *shape: int) -> Tensor:
    """Uniform tokens, any but the padding token."""
    return torch.randint(1, config.d_vocab, shape, generator=torch.Generator().manual_seed(seed))


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
