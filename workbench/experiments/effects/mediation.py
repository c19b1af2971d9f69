"""Mediation: what an edit does, split into what travels by changed routing, by changed content, and by both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.activations import Run, run
from workbench.experiments.contrast import at_least_float32
from workbench.experiments.metrics import Measure, Metric, as_metric
from workbench.experiments.nodes import expert_writes
from workbench.experiments.readers import slots_out
from workbench.experiments.rows import numpy, provenance, quantity
from workbench.interventions import Context, FreezeRouting, Intervention, all_edits, check_all
from workbench.interventions.patches import FrozenRouting
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

PARTS = ("routing", "content", "interaction")
_ROUTING = ("hook_router_in", "hook_router_logits", "hook_expert_indices", "hook_expert_weights")
_KEPT = tuple(f"mlp.hook_expert_{part}" for part in ("in", "indices", "weights", "out"))
_MOST = 4096  # tokens in one pass
_UNITS = "units of the metric"


@without_gradients
def mediation(
    model: HookedGptOss,
    tokens: Any,
    interventions: Sequence[Any],
    metric: Metric,
    sources: Mapping[str, Run | Tensor] | None = None,
    *,
    what: FrozenRouting = "set_and_weights",
    by_expert: bool = True,
    attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Split an edit's total effect on a metric, exactly, into routing, content and their interaction.

    Four runs: M(r, c) has the routing r of the unedited or of the edited run, and is itself unedited or edited (c).
    total = M(1, 1) − M(0, 0), routing = M(1, 0) − M(0, 0), content = M(0, 1) − M(0, 0), interaction = the rest. (Pearl
    2001, "Direct and indirect effects": routing alone is the natural indirect effect, content alone the direct one.)

    Routing mediates at the layers where the edit does not itself set it: where a spec acts on a router or on routing
    weights, that is the edit, not something it brings about. ``mediates`` says which.

    Args:
        tokens: text, a Chat, tokens [batch pos] or several texts: the metric reads each row's last real position.
        interventions: specs, as ``wb.run`` takes them. To compare two texts, patch one into the other:
            ``Patch("blocks.0.hook_resid_pre", source="other")``.
        metric: two tokens (right, wrong), one of ``experiments.metrics``, or a function.
        sources: name → a run or a vector, for the specs that take something from elsewhere.
        what: "set_and_weights": a route is the choice of experts and their weights; "set": the choice alone, and the
            weights are content (but for the effects of single experts, whose w is routing).
        by_expert: also measure every expert on its own.
        attention_mask: [batch pos], true for real tokens.
        progress: show a progress bar.

    Returns:
        metric (routing_from, content_from, batch), the four runs; total, routing, content, interaction (batch).
        layer_routing, layer_interaction (batch, layer): layers take the edited routing one after the other, the first
        layer first, in the unedited and the edited run; they add up to routing and to interaction. mediates (layer);
        routes_changed (batch, layer), the share of tokens whose set of experts is another.
        With ``by_expert``: expert_routing, expert_content, expert_interaction (batch, layer, expert). An expert's
        write w·f changes by (w′−w)·f + w·(f′−f) + (w′−w)·(f′−f); each is the effect of that part of the change alone,
        at all positions, in the unedited run with its routing held. Being measured alone, they need not add up.

    Raises:
        ValueError: for no interventions, or specs, sources or a metric that do not fit.

    >>> edit = [wb.AblateHead(0, 5)]
    >>> parts = experiments.mediation(model, pair.clean, edit, (pair.right, pair.wrong), progress=False)
    >>> bool(abs(parts.total - parts.routing - parts.content - parts.interaction).max() < 1e-4)
    True
    """
    if isinstance(interventions, Intervention):
        raise ValueError(f"interventions={interventions}: expected a list, [{interventions}]")
    if not interventions:
        raise ValueError("no interventions were given: expected at least one, whose effect is split")
    if what not in get_args(FrozenRouting):
        raise ValueError(f"what={what!r}: expected one of {get_args(FrozenRouting)}")
    batch, mask = model.as_batch(tokens, attention_mask)
    measure, said = as_metric(model, metric)
    sources = {} if sources is None else dict(sources)
    check_all(interventions, model.config, batch.shape[1], sources, len(batch))
    split = _Split(model, batch, mask, tuple(interventions), sources, measure, what)
    table, layers = split.table(), split.by_layer(progress)
    variables = _variables(table, layers, split)
    if by_expert:
        variables |= split.by_expert(progress)
    attrs = provenance(split.clean, "mediation", metric=said, routing_is=what)
    attrs |= {"interventions": "; ".join(map(str, interventions))}
    config = model.config
    coords = {"routing_from": ["clean", "edited"], "content_from": ["clean", "edited"]}
    coords |= {"batch": np.arange(len(batch)), "layer": np.arange(config.n_layers)}
    return xr.Dataset(variables, coords | ({"expert": np.arange(config.n_experts)} if by_expert else {}), attrs)


def _variables(table: np.ndarray, layers: np.ndarray, split: _Split) -> dict:
    start, routing, content = table[0, 0], table[1, 0] - table[0, 0], table[0, 1] - table[0, 0]
    total = table[1, 1] - start
    rows = ("batch",)
    return {
        "metric": (("routing_from", "content_from", "batch"), table, quantity("the metric of the four runs", _UNITS)),
        "total": (rows, total, quantity("edited less unedited", _UNITS)),
        "routing": (rows, routing, quantity("by changed routing alone", _UNITS)),
        "content": (rows, content, quantity("by changed content alone", _UNITS)),
        "interaction": (rows, total - routing - content, quantity("by both together, beyond each alone", _UNITS)),
        "layer_routing": (("batch", "layer"), layers[0], quantity("of routing, by layer", _UNITS)),
        "layer_interaction": (("batch", "layer"), layers[1] - layers[0], quantity("of interaction, by layer", _UNITS)),
        "mediates": (("layer",), split.mediates, quantity("the edit leaves the layer's routing to itself")),
        "routes_changed": (("batch", "layer"), split.routes_changed(), quantity("share of tokens routed elsewhere")),
    }


class _Split:
    """The unedited run, the edited one, and runs that take something of each."""

    def __init__(
        self,
        model: HookedGptOss,
        tokens: Int[Tensor, "batch pos"],
        mask: Tensor | None,
        interventions: tuple[Any, ...],
        sources: Mapping[str, Any],
        measure: Measure,
        what: FrozenRouting,
    ) -> None:
        self.model, self.tokens, self.mask, self.measure = model, tokens, mask, measure
        self.what: FrozenRouting = what
        self.edits = all_edits(interventions, Context(model, sources))
        sites = [f"blocks.{layer}.{site}" for layer in range(model.config.n_layers) for site in _KEPT]
        with model._lock:
            self.clean = run(model, tokens, sites=sites, attention_mask=mask)
            self.edited = run(model, tokens, interventions, sites=sites, sources=sources, attention_mask=mask)
            self.mediates = self._mediating()

    def _mediating(self) -> Bool[np.ndarray, " layer"]:
        """The layers whose routing no edit sets, found by watching what the edits do to it."""
        found = np.ones(self.model.config.n_layers, dtype=bool)

        def watched(edit: Callable, layer: int) -> Callable:
            def watch(x: Tensor, hook: Any) -> Tensor | None:
                before = x.clone()
                made = edit(x, hook=hook)
                found[layer] &= torch.equal(x if made is None else made, before)
                return made

            return watch

        hooks = []
        for name, edit in self.edits:
            layer = self.model.sites[name].layer
            hooks.append((name, watched(edit, layer) if layer is not None and name.endswith(_ROUTING) else edit))
        self._run(hooks)
        return found

    def table(self) -> Float[np.ndarray, "2 2 batch"]:
        """The metric, by where routing and content are from."""
        corners = [[self._ends(self.clean), self.measured(self.clean, True)]]
        corners.append([self.measured(self.edited, False), self._ends(self.edited)])
        return np.stack([np.stack(row) for row in corners])

    def by_layer(self, progress: bool) -> Float[np.ndarray, "2 batch layer"]:
        """What each layer's routing adds as layers take the edited one in turn, in the unedited and the edited run."""
        n_layers = self.model.config.n_layers
        found = np.zeros((2, len(self.tokens), n_layers))
        turns = [layer for layer in range(n_layers) if self.mediates[layer]]
        with tqdm(total=2 * len(turns), desc="mediation by layer", unit="run", disable=not progress) as bar:
            for content in (False, True):
                before = self.measured(self.clean, content)
                for layer in turns:
                    after = self.measured(self.edited, content, upto=layer)
                    found[int(content), :, layer], before = after - before, after
                    bar.update()
        return found

    def measured(self, routing: Run, edited: bool, upto: int | None = None) -> Float[np.ndarray, " batch"]:
        """The metric with routing from a run; with ``upto``, of the layers to that one, and of later ones unedited."""
        layers = [layer for layer in range(self.model.config.n_layers) if self.mediates[layer]]
        first = [layer for layer in layers if upto is None or layer <= upto]
        hooks = self._frozen(routing, first)
        hooks += self._frozen(self.clean, [layer for layer in layers if layer not in first])
        return self._run([*hooks, *(self.edits if edited else [])])

    def _frozen(self, source: Run, layers: list[int]) -> list:
        spec = FreezeRouting("source", self.what, tuple(layers))
        return spec.hooks(Context(self.model, {"source": source})) if layers else []

    def _run(self, hooks: Sequence[Any]) -> Float[np.ndarray, " batch"]:
        with self.model.hooks(fwd_hooks=list(hooks)):
            logits = self.model(self.tokens, attention_mask=self.mask, logits_at="last")
        return numpy(self.measure(logits[:, -1]).double())

    def _ends(self, done: Run) -> Float[np.ndarray, " batch"]:
        return self._run([] if done is self.clean else self.edits)

    def routes_changed(self) -> Float[np.ndarray, "batch layer"]:
        """Of real tokens."""
        real = torch.ones_like(self.tokens, dtype=torch.bool) if self.mask is None else self.mask.bool()
        sites = [f"blocks.{layer}.mlp.hook_expert_indices" for layer in range(self.model.config.n_layers)]
        other = [(self.clean[s].sort(-1).values != self.edited[s].sort(-1).values).any(-1) & real for s in sites]
        return numpy(torch.stack(other, -1).sum(1) / real.sum(1, keepdim=True))

    # ------------------------------------------------------------------------------------------------- by expert
    def by_expert(self, progress: bool) -> dict:
        """The effect of each part of each expert's change alone."""
        config = self.model.config
        found = np.zeros((3, len(self.tokens), config.n_layers, config.n_experts))
        recording = self.model.record(self.tokens, self.mask)
        with tqdm(total=config.n_layers, desc="mediation by expert", unit="layer", disable=not progress) as bar:
            for layer in range(config.n_layers):
                changes = self._changes(layer)
                moved = changes.flatten(3).any(-1).any(1).nonzero().tolist()
                for part in _parts(moved, max(1, _MOST // self.tokens.numel() - 1)):
                    change = [changes[kind, :, expert] for kind, expert in part]
                    # One more goes along unchanged, and is what the others are compared with.
                    after = self._with(recording, layer, torch.stack([*change, torch.zeros_like(changes[0, :, 0])]))
                    for (kind, expert), values in zip(part, after, strict=False):
                        found[kind, :, layer, expert] = values - after[-1]
                bar.update()
        dims = ("batch", "layer", "expert")
        return {
            f"expert_{name}": (dims, values, quantity(f"one expert's {name} change alone", _UNITS))
            for name, values in zip(PARTS, found, strict=True)
        }

    def _changes(self, layer: int) -> Float[Tensor, "3 batch expert pos d_model"]:
        """(w′−w)·f, w·(f′−f) and (w′−w)·(f′−f) of every expert that either run routes to."""
        runs = (self.clean, self.edited)
        writes = [[self._write(layer, content, routing) for content in runs] for routing in runs]
        (here, there_content), (there_routing, both) = writes
        parts = torch.stack(
            [there_routing - here, there_content - here, (both - there_content) - (there_routing - here)]
        )
        return parts.transpose(2, 3)

    def _write(self, layer: int, content: Run, routing: Run) -> Float[Tensor, "batch pos expert d_model"]:
        """What each expert writes with the routing of one run and what it puts out in the other."""
        site = f"blocks.{layer}.mlp.hook_expert_"
        indices, weights = routing[f"{site}indices"], at_least_float32(routing[f"{site}weights"])
        out = content[f"{site}out"] if content is routing else self._put_out(layer, content, indices)
        return expert_writes(indices, weights, at_least_float32(out), self.model.config.n_experts)

    def _put_out(
        self, layer: int, content: Run, indices: Int[Tensor, "batch pos slot"]
    ) -> Float[Tensor, "batch pos slot d_model"]:
        """What these experts put out in a run: as they did, edits of it included; where it did not route to one, what
        its stream would have made of that."""
        site = f"blocks.{layer}.mlp.hook_expert_"
        read = content[f"{site}in"][:, :, None].expand(-1, -1, indices.shape[-1], -1)
        made = slots_out(self.model.blocks[layer].mlp.experts, read, indices, self.model.config)
        same = indices[..., None] == content[f"{site}indices"][..., None, :]
        theirs = same.to(torch.uint8).argmax(-1, keepdim=True).expand_as(made)
        return torch.where(same.any(-1, keepdim=True), content[f"{site}out"].gather(2, theirs), made)

    def _with(
        self, recording: Any, layer: int, change: Float[Tensor, "change batch pos d_model"]
    ) -> Float[np.ndarray, "change batch"]:
        """The metric of the unedited run, its routing held, with each change in what the layer's experts write."""
        rows = [row for _ in change for row in range(len(self.tokens))]
        later = range(layer + 1, self.model.config.n_layers)
        sites = [f"blocks.{i}.mlp.hook_expert_{part}" for i in later for part in ("indices", "weights")]
        hooks = [(site, lambda x, hook: self.clean[hook.name][rows].to(x)) for site in sites]
        hooks.append((f"blocks.{layer}.hook_mlp_out", lambda x, hook: x + change.flatten(0, 1).to(x)))
        logits = self.model.resume(recording, layer, 0, rows, hooks, logits_at="last")
        each = logits[:, -1].unflatten(0, (len(change), -1))
        return np.stack([numpy(self.measure(some).double()) for some in each])


def _parts(items: list, most: int) -> list[list]:
    return [items[first : first + most] for first in range(0, len(items), most)]
