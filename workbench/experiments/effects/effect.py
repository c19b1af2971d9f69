"""What an intervention does to several texts at once: is the damage everywhere, or in one kind of text?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from workbench.activations import Run, run
from workbench.experiments.rows import provenance, quantity


def effect(runs: Mapping[str, Run], interventions: Sequence[Any]) -> xr.Dataset:
    """Run each run's tokens again with interventions on, and average what changed over its real tokens.

    Args:
        runs: unedited runs by a name for their text, each of one row or many.
        interventions: specs, as ``wb.run`` takes them.

    Returns:
        On ``text``, the names: kl, the mean KL(unedited ‖ edited) in nats; flipped, the share of positions whose
        likeliest next token changed; routes_flipped (text, layer), the share of tokens whose experts changed.

    Raises:
        ValueError: without a run or an intervention, or for a run that was edited itself, or took its routing from
            another.

    >>> cost = experiments.effect({"names": run}, [wb.AblateHead(0, 5)])
    >>> sorted(cost.data_vars)
    ['flipped', 'kl', 'routes_flipped']
    """
    if not runs or not interventions:
        raise ValueError(f"{len(runs)} runs and {len(interventions)} interventions were given: expected some of both")
    edited_before = [name for name, done in runs.items() if done.interventions or done.routing != "live"]
    if edited_before:
        raise ValueError(
            f"{edited_before} were edited themselves; give the unedited runs, and every spec in interventions"
        )
    measured = [_measure(done, interventions) for done in runs.values()]
    kl, flipped, routes = (np.array(column) for column in zip(*measured, strict=True))
    variables = {
        "kl": ("text", kl, quantity("mean KL(unedited ‖ edited)", "nats")),
        "flipped": ("text", flipped, quantity("share of next tokens changed")),
        "routes_flipped": (("text", "layer"), routes, quantity("share of tokens whose experts changed")),
    }
    coords = {"text": list(runs), "layer": np.arange(routes.shape[1])}
    edits = "; ".join(map(str, interventions))
    return xr.Dataset(variables, coords, provenance(next(iter(runs.values())), "effect") | {"interventions": edits})


def _measure(done: Run, interventions: Sequence[Any]) -> tuple[float, float, list[float]]:
    none = torch.ones_like(done.tokens, dtype=torch.bool)
    real = none if done.attention_mask is None else done.attention_mask
    # No site is asked for, so nothing large is kept: KL and flips come with every edited run.
    edited = run(done.model, done.tokens, interventions, sites="hook_embed", attention_mask=done.attention_mask)
    assert edited.kl is not None and edited.flipped_routes is not None
    flipped = edited.logits.argmax(-1) != done.logits.argmax(-1)
    routes = edited.flipped_routes[:, real].double().mean(1)
    return float(edited.kl[real].double().mean()), float(flipped[real].double().mean()), routes.tolist()
