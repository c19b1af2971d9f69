"""Attribution graphs: every number beside one made with plain loops, autograd and hooks on a float64 model."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from tests.experiments.pairs import RIGHT, WRONG, by_hand, cached, exact_model, written
from tests.small import rows
from workbench.activations import run
from workbench.experiments.graph import attribution_graph
from workbench.experiments.nodes import Node
from workbench.interventions import AblateHead
from workbench.model import HookedGptOss

ALL = 10_000


@pytest.fixture(scope="module")
def model() -> HookedGptOss:
    return exact_model(n_key_value_heads=4)


@pytest.fixture(scope="module")
def tokens(model: HookedGptOss, seed: int) -> Tensor:
    return rows(model.config, seed)[:1]


@pytest.fixture(scope="module")
def cache(model: HookedGptOss, tokens: Tensor) -> dict[str, Tensor]:
    return cached(model, tokens)


@pytest.fixture(scope="module")
def whole(model: HookedGptOss, tokens: Tensor) -> xr.Dataset:
    return attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=ALL, confirm=40)


def pins(cache: dict[str, Tensor]) -> list:
    """Hooks that hold scales, patterns and routing."""
    ends = ("hook_scale", "hook_pattern", "hook_expert_indices", "hook_expert_weights")
    return [(name, lambda x, hook: cache[hook.name].expand_as(x)) for name in cache if name.endswith(ends)]


def difference(logits: Tensor) -> Tensor:
    return logits[..., -1, RIGHT] - logits[..., -1, WRONG]


def gradients(model: HookedGptOss, tokens: Tensor, cache: dict[str, Tensor]) -> dict[str, Tensor]:
    """∂ target / ∂ what is written at each site, in the held model, by autograd."""
    held: dict[str, Tensor] = {}

    def hold(x: Tensor, hook: object) -> Tensor:
        held[hook.name] = x if x.requires_grad else x.detach().requires_grad_()
        return held[hook.name]

    sites = ["hook_embed"] + [f"blocks.{i}.hook_{part}_out" for i in range(3) for part in ("attn", "mlp")]
    with torch.enable_grad(), model.hooks(fwd_hooks=[*((site, hold) for site in sites), *pins(cache)]):
        found = torch.autograd.grad(difference(model(tokens)).sum(), [*(held[s] for s in sites)] if False else list(_of(model, tokens, held, sites)))
    return {site: gradient[0] for site, gradient in zip(sites, found, strict=True)}
