"""Ablation sweeps: what each component is worth to a task, beside a noise floor of matched random controls.

An effect is only as good as what stands beside it. The control of a component moves the stream as far, with no meaning
in it: where the ablation moves the stream that leaves the layer by a vector, the control moves it by a random one
of the same length, at the same positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.activations import provenance_of
from workbench.experiments.metrics import Metric
from workbench.experiments.prompts import Batch, batches
from workbench.experiments.rows import numpy, quantity
from workbench.interventions import AblateExpert, AblateHead, Context, all_edits, check_all
from workbench.model import HookedGptOss, Recording

Components = Literal["experts", "heads"]


@torch.no_grad()
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
    progress: bool = True,
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
        progress: show a progress bar.

    Returns:
        effect (component, prompt), metric ablated − metric clean; mean_effect (component); clean (prompt); kl
        (component, prompt), KL(clean ‖ ablated) in nats. With controls: control_effect (component, control), the mean
        effect of each; floor (component), the largest |control_effect|; p (component), (1 + controls at least as large)
        / (1 + controls). Coordinates spec, layer, index, policy (component).

    Raises:
        ValueError: for prompts, a metric or components that do not fit, before anything runs.
    """
    chosen = _components(model, components, policies)
    given = {} if sources is None else sources
    parts, said = batches(model, prompts, metric)
    for specs in chosen:
        check_all(specs, model.config, None, given)
    sweep = _Sweep(model, parts, given, progress, len(chosen) * (1 + controls))
    with sweep:
        clean = sweep.clean()
        effects, kls = zip(*(sweep.ablated(specs) for specs in chosen), strict=True)
        floors = [sweep.controls(specs, controls, seed) for specs in chosen] if controls else []
    return _dataset(model, chosen, parts, said, clean, np.stack(effects), np.stack(kls), floors, seed)


@torch.no_grad()
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
    chosen = _components(model, components, policies)
    if not 1 <= steps <= len(chosen):
        raise ValueError(f"steps={steps}: expected 1 to {len(chosen)}, the number of components")
    given = {} if sources is None else sources
    parts, said = batches(model, prompts, metric)
    draw, left, gone = np.random.default_rng(seed), list(range(len(chosen))), []
    sweep = _Sweep(model, parts, given, progress, sum(len(chosen) - i for i in range(steps)) + steps * controls)
    means, names, random_groups = [], ["none"], np.full((steps + 1, controls), np.nan)
    with sweep:
        means.append(float(sweep.clean().mean()))
        random_groups[0] = means[0]
        for step in range(1, steps + 1):
            scores = [sweep.mean_of([*gone, *chosen[i]]) for i in left]
            best = left.pop(int(np.argmin(scores)))
            gone += chosen[best]
            means.append(min(scores))
            names.append(_name(chosen[best]))
            for control in range(controls):
                group = draw.choice(len(chosen), size=step, replace=False)
                random_groups[step, control] = sweep.mean_of([spec for i in group for spec in chosen[i]])
    variables = {
        "mean": ("step", np.array(means), quantity(f"mean of {said}")),
        "chosen": ("step", np.array(names), quantity("component knocked out at this step")),
        "control_mean": (("step", "control"), random_groups, quantity(f"mean of {said}, random groups of as many")),
    }
    attrs = {"experiment": "greedy_knock_out", "metric": said, "seed": seed} | provenance_of(model)
    return xr.Dataset(variables, {"step": np.arange(steps + 1), "control": np.arange(controls)}, attrs)


class _Sweep:
    """The clean runs of all batches, kept to run on from; and the bar."""

    def __init__(
        self, model: HookedGptOss, parts: list[Batch], sources: dict[str, Any], progress: bool, total: int
    ) -> None:
        self.model, self.parts, self.context = model, parts, Context(model, sources)
        self.bar = tqdm(total=total, desc="ablating", unit="run", disable=not progress)
        self.recordings: list[Recording] = []
        self.before: list[Tensor] = []

    def __enter__(self) -> _Sweep:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def clean(self) -> Float[np.ndarray, " prompt"]:
        """The unedited metric; what is recorded serves all the others."""
        self.recordings = [self.model.record(part.tokens, part.mask) for part in self.parts]
        n = self.model.config.n_layers
        self.before = [self.model.resume(recording, n, logits_at="last")[:, 0] for recording in self.recordings]
        pairs = zip(self.parts, self.before, strict=True)
        self.measured = np.concatenate([numpy(part.measure(logits)) for part, logits in pairs])
        return self.measured

    def ablated(self, specs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """(metric − clean, KL from clean), each [prompt]."""
        found, kls = [], []
        for part, recording, before in zip(self.parts, self.recordings, self.before, strict=True):
            logits = self._run(recording, specs)
            found.append(numpy(part.measure(logits)))
            kls.append(numpy(_kl(before, logits)))
        self.bar.update()
        return np.concatenate(found) - self.measured, np.concatenate(kls)

    def mean_of(self, specs: Sequence[Any]) -> float:
        """The mean metric with all of these ablated."""
        return float((self.ablated(specs)[0] + self.measured).mean())

    def controls(self, specs: Sequence[Any], n: int, seed: int) -> Float[np.ndarray, " control"]:
        """Mean effects of random moves of the stream, as long as this ablation's own, where the layer leaves it."""
        layer = _first_layer(self.model, specs, self.context)
        sums = np.zeros(n)
        for part, recording in zip(self.parts, self.recordings, strict=True):
            hooks = all_edits(specs, self.context)
            edited = self.model.resume(recording, layer, fwd_hooks=hooks, stop_at_layer=layer + 1)
            plain = recording.streams[layer + 1]
            lengths = (edited - plain).float().norm(dim=-1, keepdim=True)
            for control in range(n):
                draw = torch.Generator().manual_seed(seed + 7919 * control + part.first)
                direction = torch.randn(plain.shape, generator=draw).to(plain.device)
                moved = plain + (lengths * direction / direction.norm(dim=-1, keepdim=True)).to(plain)
                logits = self.model.resume(recording, layer + 1, stream=moved, logits_at="last")[:, 0]
                sums[control] += float(part.measure(logits).double().sum())
        self.bar.update(n)
        return sums / len(self.measured) - self.measured.mean()

    def _run(self, recording: Recording, specs: Sequence[Any]) -> Float[Tensor, "batch d_vocab"]:
        layer = _first_layer(self.model, specs, self.context)
        hooks = all_edits(specs, self.context)
        return self.model.resume(recording, layer, fwd_hooks=hooks, logits_at="last")[:, 0]


def _first_layer(model: HookedGptOss, specs: Sequence[Any], context: Context) -> int:
    """The first layer that these interventions touch."""
    sites = [model.sites[name] for name, _ in all_edits(specs, context)]
    if any(site.layer is None for site in sites):
        outside = next(site.name for site in sites if site.layer is None)
        raise ValueError(f"an ablation sweep runs on from a layer, and {specs} edits {outside}; use wb.run")
    return min(site.layer for site in sites if site.layer is not None)


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


def _name(specs: Sequence[Any]) -> str:
    return " + ".join(map(repr, specs))


def _dataset(
    model: HookedGptOss,
    chosen: list[list],
    parts: list[Batch],
    said: str,
    clean: np.ndarray,
    effects: np.ndarray,
    kls: np.ndarray,
    floors: list[np.ndarray],
    seed: int,
) -> xr.Dataset:
    both = ("component", "prompt")
    variables: dict[str, Any] = {
        "effect": (both, effects, quantity(f"{said}: ablated − clean")),
        "mean_effect": ("component", effects.mean(1), quantity(f"{said}: ablated − clean, mean over prompts")),
        "clean": ("prompt", clean, quantity(said)),
        "kl": (both, kls, quantity("KL(clean ‖ ablated) of the next token", "nats")),
    }
    if floors:
        control, mean = np.stack(floors), effects.mean(1)
        larger = (np.abs(control) >= np.abs(mean)[:, None]).sum(1)
        variables["control_effect"] = (
            ("component", "control"),
            control,
            quantity("mean effect of a matched random move"),
        )
        variables["floor"] = ("component", np.abs(control).max(1), quantity("largest |mean effect| of a control"))
        variables["p"] = ("component", (1 + larger) / (1 + control.shape[1]), quantity("share of controls as large"))
    singles = [specs[0] if len(specs) == 1 else None for specs in chosen]
    coords: dict[str, Any] = {
        "component": np.arange(len(chosen)),
        "spec": ("component", [_name(specs) for specs in chosen]),
        "layer": ("component", [getattr(spec, "layer", -1) for spec in singles]),
        "index": ("component", [getattr(spec, "expert", getattr(spec, "head", -1)) for spec in singles]),
        "policy": ("component", [str(getattr(spec, "policy", "")) for spec in singles]),
        "prompt": np.arange(len(clean)),
    }
    attrs = {"experiment": "ablation_sweep", "metric": said, "seed": seed, "n_prompts": len(clean)}
    return xr.Dataset(variables, coords, attrs | provenance_of(model))
