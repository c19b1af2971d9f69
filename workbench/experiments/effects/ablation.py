"""Ablation sweeps: what each component is worth to a task, beside a noise floor of matched random controls.

An effect is only as good as what stands beside it. The control of a component moves the stream as far, with no meaning
in it: where the ablation moves the stream that leaves the layer by a vector, the control moves it by a random one
of the same length, at the same positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.activations import provenance_of
from workbench.activations.kept import layer_of
from workbench.experiments.metrics import Metric
from workbench.experiments.prompts import Batch, batches
from workbench.experiments.rows import numpy, quantity
from workbench.experiments.watch import Cancel, Watch
from workbench.interventions import AblateExpert, AblateHead, Context, all_edits, check_all
from workbench.model import HookedGptOss, Recording
from workbench.model.interrupts import without_gradients
from workbench.sweeps import Cell, Grid, Results

Components = Literal["experts", "heads"]


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
    _check_controls(controls)
    chosen, always = _components(model, components, policies), tuple(given)
    there = {} if sources is None else sources
    parts, said = batches(model, prompts, metric)
    _check(model, chosen, parts, there, always)
    clean = _Clean(model, parts, there, always)

    def measure(cells: list[Cell]) -> list[dict[str, xr.DataArray]]:
        return [clean.numbers(chosen[cell["component"]], controls, seed) for cell in cells]

    grid = Grid(component=range(len(chosen)))
    results = _finished_before(resume, grid, chosen, clean.measured, controls)
    one_by_one = partial(map, lambda cell: [cell])
    for _ in Watch(progress, cancel, on_result).through(measure, grid, one_by_one, results):
        pass
    return _dataset(model, chosen, said, clean.measured, results, controls, seed)


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
    _check_controls(controls)
    chosen = _components(model, components, policies)
    if not 1 <= steps <= len(chosen):
        raise ValueError(f"steps={steps}: expected 1 to {len(chosen)}, the number of components")
    given = {} if sources is None else sources
    parts, said = batches(model, prompts, metric)
    _check(model, chosen, parts, given)
    most = model.config.n_experts - model.config.experts_per_token
    if steps > most and any(getattr(spec, "reroutes", False) for specs in chosen for spec in specs):
        raise ValueError(
            f"steps={steps}: re-routing from more than {most} experts of a layer leaves too few; knock out fewer, or "
            "use policy 'zero'"
        )
    draw, left, gone, clean = np.random.default_rng(seed), list(range(len(chosen))), [], _Clean(model, parts, given)
    means, names = [float(clean.measured.mean())], ["none"]
    random_groups = np.full((steps + 1, controls), means[0])
    total = sum(len(chosen) - i for i in range(steps)) + steps * controls
    with tqdm(total=total, desc="knocking out", unit="run", disable=not progress) as bar:
        for step in range(1, steps + 1):
            scores = [clean.mean_with([*gone, *chosen[i]], bar) for i in left]
            best = left.pop(int(np.argmin(scores)))
            gone += chosen[best]
            means.append(min(scores))
            names.append(_name(chosen[best]))
            for control in range(controls):
                group = draw.choice(len(chosen), size=step, replace=False)
                random_groups[step, control] = clean.mean_with([spec for i in group for spec in chosen[i]], bar)
    variables = {
        "mean": ("step", np.array(means), quantity(f"mean of {said}")),
        "chosen": ("step", np.array(names), quantity("component knocked out at this step")),
        "control_mean": (("step", "control"), random_groups, quantity(f"mean of {said}, random groups of as many")),
    }
    attrs = {"experiment": "greedy_knock_out", "metric": said, "seed": seed} | provenance_of(model)
    return xr.Dataset(variables, {"step": np.arange(steps + 1), "control": np.arange(controls)}, attrs)


class _Clean:
    """The clean runs of all prompts, kept to run on from; ``always`` is on in them, and in all that follows."""

    def __init__(
        self, model: HookedGptOss, parts: list[Batch], sources: dict[str, Any], always: Sequence[Any] = ()
    ) -> None:
        self.model, self.parts, self.context, self.always = model, parts, Context(model, sources), always
        with model.hooks(fwd_hooks=[*all_edits(always, self.context)]):
            self.recordings = [model.record(part.tokens, part.mask) for part in parts]
        n = model.config.n_layers
        hooks = self._hooks(n)
        self.logits = [
            model.resume(recording, n, fwd_hooks=hooks, logits_at="last")[:, 0] for recording in self.recordings
        ]
        pairs = zip(parts, self.logits, strict=True)
        self.measured: Float[np.ndarray, " prompt"] = np.concatenate([numpy(p.measure(logits)) for p, logits in pairs])

    def numbers(self, specs: Sequence[Any], controls: int, seed: int) -> dict[str, xr.DataArray]:
        """What is measured of one component."""
        after, kl = self.ablated(specs)
        found = {"effect": xr.DataArray(after - self.measured, dims="prompt"), "kl": xr.DataArray(kl, dims="prompt")}
        if controls:
            found["control_effect"] = xr.DataArray(self.controls(specs, controls, seed), dims="control")
        return found

    def ablated(self, specs: Sequence[Any]) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """(metric, KL from clean) with these ablated."""
        found, kls = [], []
        for part, recording, before in zip(self.parts, self.recordings, self.logits, strict=True):
            logits = self._run(recording, specs)
            found.append(numpy(part.measure(logits)))
            kls.append(numpy(_kl(before, logits)))
        return np.concatenate(found), np.concatenate(kls)

    def mean_with(self, specs: Sequence[Any], bar: tqdm) -> float:
        """The mean metric with all of these ablated."""
        bar.update()
        return float(self.ablated(specs)[0].mean())

    def controls(self, specs: Sequence[Any], n: int, seed: int) -> Float[np.ndarray, " control"]:
        """Mean effects of random moves of the stream where the last layer is left, as long as the ablation's own."""
        (first, layer), sums = _layers(self.model, specs, self.context), np.zeros(n)
        for part, recording in zip(self.parts, self.recordings, strict=True):
            hooks = self._hooks(first, specs, layer + 1)
            edited = self.model.resume(recording, first, fwd_hooks=hooks, stop_at_layer=layer + 1)
            plain = recording.streams[layer + 1]
            lengths = (edited - plain).float().norm(dim=-1, keepdim=True)
            for control in range(n):
                draw = torch.Generator().manual_seed(seed + 7919 * control + part.first)
                direction = torch.randn(plain.shape, generator=draw).to(plain.device)
                moved = plain + (lengths * direction / direction.norm(dim=-1, keepdim=True)).to(plain)
                logits = self.model.resume(
                    recording, layer + 1, fwd_hooks=self._hooks(layer + 1), stream=moved, logits_at="last"
                )[:, 0]
                sums[control] += float(part.measure(logits).double().sum())
        return sums / len(self.measured) - self.measured.mean()

    def _run(self, recording: Recording, specs: Sequence[Any]) -> Float[Tensor, "batch d_vocab"]:
        layer, _ = _layers(self.model, specs, self.context)
        return self.model.resume(recording, layer, fwd_hooks=self._hooks(layer, specs), logits_at="last")[:, 0]

    def _hooks(self, first: int, specs: Sequence[Any] = (), stop: int | None = None) -> list[Any]:
        """Those that are always on, as far as they act from layer ``first`` on (before ``stop``); then the specs'."""
        end = self.model.config.n_layers + 1 if stop is None else stop
        always = all_edits(self.always, self.context)
        kept = [(name, hook) for name, hook in always if first <= layer_of(self.model, name) < end]
        return [*kept, *all_edits(specs, self.context)]


def _check(
    model: HookedGptOss, chosen: list[list], parts: list[Batch], sources: dict[str, Any], always: Sequence[Any] = ()
) -> None:
    """Refuse what cannot be, or would do nothing in any prompt, before anything runs."""
    n_pos = max(part.tokens.shape[1] for part in parts)
    # A source with a row for each prompt fits only where all prompts are one batch.
    n_rows = len(parts[0]) if len(parts) == 1 else 1
    for specs in chosen:
        check_all([*always, *specs], model.config, n_pos, sources, n_rows)
        _layers(model, specs, Context(model, sources))


def _check_controls(controls: int) -> None:
    if controls < 0:
        raise ValueError(f"controls={controls}: expected 0 (none) or more")


def _layers(model: HookedGptOss, specs: Sequence[Any], context: Context) -> tuple[int, int]:
    """The first and the last layer that these interventions touch."""
    sites = [model.sites[name] for name, _ in all_edits(specs, context)]
    if any(site.layer is None for site in sites):
        outside = next(site.name for site in sites if site.layer is None)
        raise ValueError(f"an ablation sweep runs on from a layer, and {specs} edits {outside}; use wb.run")
    layers = [site.layer for site in sites if site.layer is not None]
    if not layers:
        raise ValueError(f"{specs} edit nothing in this model")
    return min(layers), max(layers)


def _components(model: HookedGptOss, components: Components | Sequence[Any], policies: Sequence[str]) -> list[list]:
    if isinstance(components, str):
        return [[spec] for spec in _every(model, components, policies)]
    chosen = [list(each) if isinstance(each, list | tuple) else [each] for each in components]
    if not chosen or not all(chosen):
        raise ValueError(f"components={components!r}: expected 'experts', 'heads' or at least one intervention")
    return chosen


def _every(model: HookedGptOss, components: str, policies: Sequence[str]) -> Iterable[Any]:
    config = model.config
    kinds: dict[str, tuple[Callable, int]] = {
        "experts": (AblateExpert, config.n_experts),
        "heads": (AblateHead, config.n_heads),
    }
    if components not in kinds:
        raise ValueError(f"components={components!r}: expected one of {list(kinds)}, or a list of interventions")
    if isinstance(policies, str) or not policies:
        raise ValueError(f"policies={policies!r}: expected a list of at least one, such as ('zero',)")
    kind, n = kinds[components]
    return (kind(layer, i, policy) for policy, layer, i in product(policies, range(config.n_layers), range(n)))


def _kl(before: Float[Tensor, "batch d_vocab"], after: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
    expected, given = before.float().log_softmax(-1), after.float().log_softmax(-1)
    return (expected.exp() * (expected - given)).sum(-1).clamp(min=0)


def _number(spec: Any, *names: str) -> int:
    """The first of these fields that a spec has; −1 where it has none, or means all."""
    found = [getattr(spec, name) for name in names if getattr(spec, name, None) is not None]
    return found[0] if found else -1


def _name(specs: Sequence[Any]) -> str:
    return " + ".join(map(repr, specs))


def _finished_before(
    before: xr.Dataset | None, grid: Grid, chosen: list[list], clean: Float[np.ndarray, " prompt"], controls: int
) -> Results:
    """The components that an earlier sweep of the same has."""
    results = Results(grid)
    if before is None:
        return results
    same = list(before.get("spec", xr.DataArray([])).values) == [_name(specs) for specs in chosen]
    same = same and before.sizes.get("control", 0) == controls and before.clean.shape == clean.shape
    if not same or not np.allclose(before.clean.values, clean, atol=1e-4):
        raise ValueError(
            "resume= is the dataset of another sweep (other components, prompts, metric or controls): pass what this "
            "very call returned before, or leave it out"
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
        "spec": ("component", [_name(specs) for specs in chosen]),
        "layer": ("component", [_number(spec, "layer") for spec in singles]),
        "index": ("component", [_number(spec, "expert", "head") for spec in singles]),
        "policy": ("component", [str(getattr(spec, "policy", "")) for spec in singles]),
        "prompt": np.arange(n_prompts),
    }
