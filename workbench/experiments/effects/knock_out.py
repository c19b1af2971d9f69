"""Greedy knock-out: which few components together hurt a task most, beside random groups of as many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from workbench.activations import provenance_of
from workbench.experiments.effects.clean import Clean, Components, check, check_controls, components_of, name_of
from workbench.experiments.metrics import Metric
from workbench.experiments.prompts import batches
from workbench.experiments.rows import is_whole, quantity
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients


@without_gradients
def greedy_knock_out(
    model: HookedGptOss,
    prompts: Sequence[Any],
    metric: Metric | None = None,
    components: Components | Sequence[Any] = "experts",
    steps: int = 4,
    *,
    policies: Sequence[str] = ("zero",),
    controls: int = 20,
    seed: int = 0,
    sources: dict[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Ablate, one after the other, the component that then hurts the mean metric most, beside random groups.

    Args:
        steps: how many to knock out.
        controls: random groups of components of the same number, at each step.

    Returns:
        mean (step), the mean metric with so many knocked out, step 0 the clean one; chosen (step), the spec;
        control_mean (step, control), of random groups of as many.
    """
    check_controls(controls)
    chosen = components_of(model, components, policies)
    if not is_whole(steps) or not 1 <= steps <= len(chosen):
        raise ValueError(f"steps={steps!r}: expected 1 to {len(chosen)}, the number of components")
    given = {} if sources is None else sources
    parts, said = batches(model, prompts, metric)
    check(model, chosen, parts, given)
    most = model.config.n_experts - model.config.experts_per_token
    if steps > most and any(getattr(spec, "reroutes", False) for specs in chosen for spec in specs):
        raise ValueError(
            f"steps={steps}: re-routing from more than {most} experts of a layer leaves too few; knock out fewer, or "
            "use policy 'zero'"
        )
    draw, left, gone, clean = np.random.default_rng(seed), list(range(len(chosen))), [], Clean(model, parts, given)
    means, names = [float(clean.measured.mean())], ["none"]
    random_groups = np.full((steps + 1, controls), means[0])
    total = sum(len(chosen) - i for i in range(steps)) + steps * controls
    with tqdm(total=total, desc="knocking out", unit="run", disable=not progress) as bar:
        for step in range(1, steps + 1):
            scores = [_mean_with(clean, [*gone, *chosen[i]], bar) for i in left]
            lowest = int(np.argmin(scores))
            means.append(scores[lowest])
            best = left.pop(lowest)
            gone += chosen[best]
            names.append(name_of(chosen[best]))
            for control in range(controls):
                group = draw.choice(len(chosen), size=step, replace=False)
                specs = [spec for i in group for spec in chosen[i]]
                random_groups[step, control] = _mean_with(clean, specs, bar)
    variables = {
        "mean": ("step", np.array(means), quantity(f"mean of {said}")),
        "chosen": ("step", np.array(names), quantity("component knocked out at this step")),
        "control_mean": (("step", "control"), random_groups, quantity(f"mean of {said}, random groups of as many")),
    }
    attrs = {"experiment": "greedy_knock_out", "metric": said, "seed": seed} | provenance_of(model)
    return xr.Dataset(variables, {"step": np.arange(steps + 1), "control": np.arange(controls)}, attrs)


def _mean_with(clean: Clean, specs: Sequence[Any], bar: tqdm) -> float:
    """The mean metric with all of these ablated."""
    bar.update()
    return float(clean.ablated(specs)[0].mean())
