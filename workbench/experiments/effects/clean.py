"""What is ablated, and the clean runs that it is ablated in: what a sweep and a greedy knock-out have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations.kept import layer_of
from workbench.experiments.prompts import Batch
from workbench.experiments.rows import is_whole, numpy
from workbench.interventions import AblateExpert, AblateHead, Context, all_edits, check_all
from workbench.model import HookedGptOss, Recording

Components = Literal["experts", "heads"]


class Clean:
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

    def ablated(self, specs: Sequence[Any]) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """(metric, KL from clean) with these ablated."""
        found, kls = [], []
        for part, recording, before in zip(self.parts, self.recordings, self.logits, strict=True):
            logits = self._run(recording, specs)
            found.append(numpy(part.measure(logits)))
            kls.append(numpy(_kl(before, logits)))
        return np.concatenate(found), np.concatenate(kls)

    def controls(self, specs: Sequence[Any], n: int, seed: int) -> Float[np.ndarray, " control"]:
        """Mean effects of random moves of the stream where the last layer is left, as long as the ablation's own."""
        (first, layer), sums = layers_of(self.model, specs, self.context), np.zeros(n)
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
        layer, _ = layers_of(self.model, specs, self.context)
        return self.model.resume(recording, layer, fwd_hooks=self._hooks(layer, specs), logits_at="last")[:, 0]

    def _hooks(self, first: int, specs: Sequence[Any] = (), stop: int | None = None) -> list[Any]:
        """Those that are always on, as far as they act from layer ``first`` on (before ``stop``); then the specs'."""
        end = self.model.config.n_layers + 1 if stop is None else stop
        always = all_edits(self.always, self.context)
        kept = [(name, hook) for name, hook in always if first <= layer_of(self.model, name) < end]
        return [*kept, *all_edits(specs, self.context)]


def check(
    model: HookedGptOss, chosen: list[list], parts: list[Batch], sources: dict[str, Any], always: Sequence[Any] = ()
) -> None:
    """Refuse what cannot be, or would do nothing in any prompt, before anything runs."""
    n_pos = max(part.tokens.shape[1] for part in parts)
    # A source with a row for each prompt fits only where all prompts are one batch.
    n_rows = len(parts[0]) if len(parts) == 1 else 1
    for specs in chosen:
        check_all([*always, *specs], model.config, n_pos, sources, n_rows)
        layers_of(model, specs, Context(model, sources))


def check_controls(controls: int) -> None:
    """Refuse fewer than none."""
    if not is_whole(controls) or controls < 0:
        raise ValueError(f"controls={controls!r}: expected a whole number, 0 (none) or more")


def layers_of(model: HookedGptOss, specs: Sequence[Any], context: Context) -> tuple[int, int]:
    """The first and the last layer that these interventions touch."""
    sites = [model.sites[name] for name, _ in all_edits(specs, context)]
    if any(site.layer is None for site in sites):
        outside = next(site.name for site in sites if site.layer is None)
        raise ValueError(f"an ablation sweep runs on from a layer, and {specs} edits {outside}; use wb.run")
    layers = [site.layer for site in sites if site.layer is not None]
    if not layers:
        raise ValueError(f"{specs} edit nothing in this model")
    return min(layers), max(layers)


def components_of(model: HookedGptOss, components: Components | Sequence[Any], policies: Sequence[str]) -> list[list]:
    """The interventions of each component, one list for each."""
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


def name_of(specs: Sequence[Any]) -> str:
    """What a component is called in a dataset."""
    return " + ".join(map(repr, specs))


def _kl(before: Float[Tensor, "batch d_vocab"], after: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
    expected, given = before.float().log_softmax(-1), after.float().log_softmax(-1)
    return (expected.exp() * (expected - given)).sum(-1).clamp(min=0)
