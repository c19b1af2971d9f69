"""Ablation sweeps: what each component is worth to a task, beside a noise floor of matched random controls.

An effect is only as good as what stands beside it. The control of a component moves the stream as far, with no meaning
in it: where the ablation moves the stream that leaves the layer by a vector, the control moves it by a random one
of the same length, at the same positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from workbench.activations import provenance_of
from workbench.experiments.effects.clean import Clean, Components, check, check_controls, components_of, name_of
from workbench.experiments.metrics import Metric
from workbench.experiments.prompts import batches
from workbench.experiments.rows import quantity
from workbench.experiments.watch import Cancel, Watch
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.sweeps import Cell, Grid, Results


@without_gradients
def ablation_sweep(
    model: HookedGptOss,
    prompts: Sequence[Any],
    metric: Metric | None = None,
    components: Components | Sequence[Any] = "experts",
    *,
    policies: Sequence[str] = ("zero",),
    controls: int = 0,
    seed: int = 0,
    sources: dict[str, Any] | None = None,
    given: Sequence[Any] = (),
    progress: bool = True,
    cancel: Cancel = None,
    on_result: Callable[[Cell, Any], None] | None = None,
    resume: xr.Dataset | None = None,
) -> xr.Dataset:
    """Ablate each component alone, over all prompts, and measure.

    Only the layers from the component's own on are computed again.

    Args:
        prompts: texts, Chats, token rows, or pairs (their clean side).
        metric: of the logits after each prompt's last token; None, for pairs: their own logit difference.
        components: "experts" or "heads", all of the model; or interventions of your own, one (or a list) for each.
        policies: for "experts" and "heads": each component is ablated by each of these.
        controls: random controls for each component; 20 give a floor of 5 %.
        seed: of the controls.
        sources: for interventions that take something from elsewhere.
        given: interventions that are on all the time: clean is the run with them, and each component is ablated on top.
        progress: show a progress bar.
        cancel: an Event, or a function that gives true, to stop before the next component; those not reached are NaN.
        on_result: called with each cell (``cell["component"]``) and its numbers, as they come.
        resume: what the same call returned when it was cancelled: it goes on from there.

    Returns:
        effect (component, prompt), metric ablated − metric clean; mean_effect (component); clean (prompt); kl
        (component, prompt), KL(clean ‖ ablated) in nats. With controls: control_effect (component, control), the mean
        effect of each; floor (component), the largest |control_effect|; p (component), (1 + controls at least as large)
        / (1 + controls). Coordinates spec, layer, index, policy (component).

    Raises:
        ValueError: for prompts, a metric or components that do not fit, before anything runs.

    >>> some = [wb.AblateExpert(0, 6, "zero"), wb.AblateHead(3, 1)]
    >>> sweep = experiments.ablation_sweep(model, [pair], components=some, progress=False)
    >>> sweep.mean_effect.values < -1
    array([ True, False])
    """
    check_controls(controls)
    chosen, always = components_of(model, components, policies), tuple(given)
    there = {} if sources is None else sources
    parts, said = batches(model, prompts, metric)
    check(model, chosen, parts, there, always)
    clean = Clean(model, parts, there, always)

    def measure(cells: list[Cell]) -> list[dict[str, xr.DataArray]]:
        return [_numbers(clean, chosen[cell["component"]], controls, seed) for cell in cells]

    grid = Grid(component=range(len(chosen)))
    about = {"metric": said} | ({"seed": seed} if controls else {})
    results = _finished_before(resume, grid, chosen, clean.measured, controls, about)
    one_by_one = partial(map, lambda cell: [cell])
    for _ in Watch(progress, cancel, on_result).through(measure, grid, one_by_one, results):
        pass
    return _dataset(model, chosen, said, clean.measured, results, controls, seed)


def _numbers(clean: Clean, specs: Sequence[Any], controls: int, seed: int) -> dict[str, xr.DataArray]:
    """What is measured of one component."""
    after, kl = clean.ablated(specs)
    found = {"effect": xr.DataArray(after - clean.measured, dims="prompt"), "kl": xr.DataArray(kl, dims="prompt")}
    if controls:
        found["control_effect"] = xr.DataArray(clean.controls(specs, controls, seed), dims="control")
    return found


def _number(spec: Any, *names: str) -> int:
    """The first of these fields that a spec has; −1 where it has none, or means all."""
    found = [getattr(spec, name) for name in names if getattr(spec, name, None) is not None]
    return found[0] if found else -1


def _finished_before(
    before: xr.Dataset | None,
    grid: Grid,
    chosen: list[list],
    clean: Float[np.ndarray, " prompt"],
    controls: int,
    about: dict[str, Any],
) -> Results:
    """The components that an earlier sweep of the same has."""
    results = Results(grid)
    if before is None:
        return results
    same = list(before.get("spec", xr.DataArray([])).values) == [name_of(specs) for specs in chosen]
    same = same and before.sizes.get("control", 0) == controls and before.clean.shape == clean.shape
    same = same and all(before.attrs.get(name) == value for name, value in about.items())
    if not same or not np.allclose(before.clean.values, clean, atol=1e-4):
        raise ValueError(
            "resume= is the dataset of another sweep (other components, prompts, metric, controls or their seed): pass "
            "what this very call returned before, or leave it out"
        )
    names = ["effect", "kl", *(["control_effect"] if controls else [])]
    done = [cell for cell in grid if np.isfinite(before.mean_effect.values[cell["component"]])]
    results.record(
        done,
        [
            {name: before[name].isel(component=cell["component"]).reset_coords(drop=True) for name in names}
            for cell in done
        ],
    )
    return results


def _dataset(
    model: HookedGptOss,
    chosen: list[list],
    said: str,
    clean: Float[np.ndarray, " prompt"],
    results: Results,
    controls: int,
    seed: int,
) -> xr.Dataset:
    found = results.to_xarray()
    shape = (len(chosen), len(clean))
    effects, kls = (found[name].values if name in found else np.full(shape, np.nan) for name in ("effect", "kl"))
    both, mean = ("component", "prompt"), effects.mean(1)
    variables: dict[str, Any] = {
        "effect": (both, effects, quantity(f"{said}: ablated − clean")),
        "mean_effect": ("component", mean, quantity(f"{said}: ablated − clean, mean over prompts")),
        "clean": ("prompt", clean, quantity(said)),
        "kl": (both, kls, quantity("KL(clean ‖ ablated) of the next token", "nats")),
    }
    if controls:
        empty = np.full((len(chosen), controls), np.nan)
        control = found["control_effect"].values if "control_effect" in found else empty
        larger = (np.abs(control) >= np.abs(mean)[:, None]).sum(1)
        p = np.where(np.isfinite(mean), (1 + larger) / (1 + controls), np.nan)
        variables["control_effect"] = (
            ("component", "control"),
            control,
            quantity("mean effect of a matched random move"),
        )
        variables["floor"] = ("component", np.abs(control).max(1), quantity("largest |mean effect| of a control"))
        variables["p"] = ("component", p, quantity("share of controls as large"))
    attrs = {"experiment": "ablation_sweep", "metric": said, "seed": seed, "n_prompts": len(clean)}
    attrs["components_left"] = results.left
    return xr.Dataset(variables, _coordinates(chosen, len(clean)), attrs | provenance_of(model))


def _coordinates(chosen: list[list], n_prompts: int) -> dict[str, Any]:
    singles = [specs[0] if len(specs) == 1 else None for specs in chosen]
    return {
        "component": np.arange(len(chosen)),
        "spec": ("component", [name_of(specs) for specs in chosen]),
        "layer": ("component", [_number(spec, "layer") for spec in singles]),
        "index": ("component", [_number(spec, "expert", "head") for spec in singles]),
        "policy": ("component", [str(getattr(spec, "policy", "")) for spec in singles]),
        "prompt": np.arange(n_prompts),
    }
