"""Routing: which experts each token goes to, with what weight, and how the load is spread."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.rows import numpy, provenance, quantity, real_columns, row_coords


def routing(run: Run, row: int = 0) -> xr.Dataset:
    """The routes of one row's tokens.

    Returns:
        chosen, the expert, and weight (pos, layer, slot), slot 0 the strongest; a token's weights in a layer sum to 1.
        load and weight_share (layer, expert) of this row, as in :func:`expert_load`.

    Raises:
        ValueError: for a row that is not there.
        KeyError: if the run did not keep the routing; the message says how to.

    >>> dict(experiments.routing(run).chosen.sizes)
    {'pos': 14, 'layer': 4, 'slot': 2}
    """
    columns, config = real_columns(run, row), run.model.config
    experts, weights = (_by_layer(run, kind)[:, row, columns] for kind in ("indices", "weights"))
    coords = row_coords(run, row) | {
        "layer": np.arange(config.n_layers),
        "slot": np.arange(config.experts_per_token),
        "expert": np.arange(config.n_experts),
    }
    per_token = ("pos", "layer", "slot")
    variables = {
        "chosen": (per_token, numpy(experts.transpose(0, 1)), quantity("expert in this slot")),
        "weight": (per_token, numpy(weights.transpose(0, 1)), quantity("routing weight")),
    }
    variables |= _load(experts, weights, config.n_experts)
    return xr.Dataset(variables, coords, provenance(run, "routing", row, **_even(run)))


def expert_load(run: Run) -> xr.Dataset:
    """How a run's tokens, of all rows together, are spread over the experts.

    Returns:
        load (layer, expert), the share of tokens that go to the expert: an even spread is experts_per_token /
        n_experts, in the attribute ``even_load``, and a layer's loads sum to experts_per_token. weight_share (layer,
        expert), the mean routing weight that it gets: a layer's shares sum to 1.

    >>> experiments.expert_load(run)["load"].sum("expert").round(3).values.tolist()  # a token goes to 2
    [2.0, 2.0, 2.0, 2.0]
    """
    config = run.model.config
    real = torch.ones_like(run.tokens, dtype=torch.bool) if run.attention_mask is None else run.attention_mask
    experts, weights = (_by_layer(run, kind)[:, real] for kind in ("indices", "weights"))
    coords = {"layer": np.arange(config.n_layers), "expert": np.arange(config.n_experts)}
    attrs = provenance(run, "expert_load", n_tokens=int(real.sum())) | _even(run)
    return xr.Dataset(_load(experts, weights, config.n_experts), coords, attrs)


def _by_layer(run: Run, kind: str) -> Tensor:
    return torch.stack([run[f"blocks.{layer}.mlp.hook_expert_{kind}"] for layer in range(run.model.config.n_layers)])


def _even(run: Run) -> dict[str, float]:
    return {"even_load": run.model.config.experts_per_token / run.model.config.n_experts}


def _load(
    experts: Int[Tensor, "layer pos slot"], weights: Float[Tensor, "layer pos slot"], n_experts: int
) -> dict[str, tuple]:
    """Shares as float64, summed on the CPU: a mean of many small weights loses digits in bfloat16."""
    flat, n_tokens = experts.flatten(1).long().cpu(), max(experts.shape[1], 1)
    given = weights.flatten(1).double().cpu()
    zeros = torch.zeros(len(flat), n_experts, dtype=torch.float64)
    dims = ("layer", "expert")
    load = zeros.scatter_add(1, flat, torch.ones_like(given)) / n_tokens
    share = zeros.scatter_add(1, flat, given) / n_tokens
    return {
        "load": (dims, load.numpy(), quantity("share of tokens that go to the expert")),
        "weight_share": (dims, share.numpy(), quantity("mean routing weight")),
    }
