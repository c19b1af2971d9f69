"""Edges of an attribution graph, confirmed by taking them away: in the held model, and in the live one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.experiments.contrast import at_least_float32
from workbench.experiments.graphs.frozen import Frozen
from workbench.experiments.nodes import Node
from workbench.experiments.readers import normed, slots_out
from workbench.experiments.rows import quantity

Hook = tuple[str, Callable[[Tensor, Any], Tensor | None]]
_MOST = 4096  # tokens in one pass


def edge_variables(names: Sequence[str], predicted: np.ndarray, held: np.ndarray, live: np.ndarray) -> dict:
    """Variables along ``edge``: the effect of each edge as predicted, and on taking it away; and their agreement."""
    values = {"predicted": predicted, "frozen_effect": held, "live_effect": live}
    said = {
        "predicted": "the edge in the graph",
        "frozen_effect": "target with the edge less without it, in the held model",
        "live_effect": "the same in the live model",
    }
    made: dict[str, tuple] = {
        name: (("edge",), value, quantity(said[name], "logits")) for name, value in values.items()
    }
    for mode in ("frozen", "live"):
        correlation, signs = agreement(values["predicted"], values[f"{mode}_effect"])
        made[f"{mode}_correlation"] = ((), correlation, quantity(f"of predicted with {mode}_effect"))
        made[f"{mode}_signs"] = ((), signs, quantity(f"share of edges where {mode}_effect has the predicted sign"))
    return made | {"edge": (("edge",), np.array(names, dtype=str))}


def agreement(predicted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Pearson's correlation (NaN where there is none to speak of) and the share of equal signs (NaN for no edges)."""
    if not len(predicted):
        return float("nan"), float("nan")
    spread = min(np.ptp(predicted), np.ptp(found)) if len(predicted) > 1 else 0.0
    correlation = float(np.corrcoef(predicted, found)[0, 1]) if spread > 0 else float("nan")
    return correlation, float(np.mean(np.sign(predicted) == np.sign(found)))


class EdgeChecks:
    """Takes edges away from one run.

    The target node reads the stream without the source's write, at the source's position, and what its own write
    changes by is put into the stream; nothing else sees the edge go. In the held model, routing, patterns and norms
    stay, before and after; experts are what they are, not linear. In the live model the target's norm, its attention or
    its routing weight answer, and everything after it.
    """

    def __init__(self, frozen: Frozen) -> None:
        self.frozen, self.model, self.done = frozen, frozen.model, frozen.done
        self.recording = self.model.record(self.done.tokens)
        self.place = {node: i for i, node in enumerate(frozen.nodes)}

    def parts(self, targets: Sequence[Node]) -> Iterator[list[int]]:
        """Indices of edges, by their targets, that can go together in one pass: into heads, or experts, of a layer."""
        most = max(1, _MOST // self.frozen.n_pos - 1)
        for stage in sorted({(node.layer or 0, node.kind) for node in targets}):
            here = [i for i, node in enumerate(targets) if (node.layer, node.kind) == stage]
            yield from (here[first : first + most] for first in range(0, len(here), most))

    def effects(self, sources: list[Node], targets: list[Node]) -> Float[Tensor, "two edge"]:
        """Of the edges of one part: in the held model and in the live one."""
        layer, kind = targets[0].layer or 0, targets[0].kind
        writes = self.frozen.writes[[self.place[node] for node in sources]]
        change = self._held_head if kind == "head" else self._held_expert
        held = self._target(layer, kind, targets, change(layer, sources, targets, writes), held=True)
        change = self._live_head if kind == "head" else self._live_expert
        live = self._target(layer, kind, targets, change(layer, sources, targets, writes), held=False)
        return torch.stack([held, live])

    # --------------------------------------------------------------------- how the node's own write changes: [edge d]
    def _held_head(self, layer: int, sources: list[Node], targets: list[Node], writes: Tensor) -> Tensor:
        attn, config = self.model.blocks[layer].attn, self.model.config
        heads, at = [node.index or 0 for node in targets], [node.pos for node in sources]
        pattern = self.frozen.site(layer, "attn.hook_pattern")[heads, [node.pos for node in targets], at]
        scale = self.frozen.site(layer, "ln1.hook_scale")[at, 0]
        read = writes * self.frozen.gain(layer, "ln1") * (pattern / scale)[:, None]
        values = at_least_float32(attn.W_V)[[head // config.n_query_groups for head in heads]]
        return -einsum(read, values, at_least_float32(attn.W_O)[heads], "e d, e d h, e h out -> e out")

    def _held_expert(self, layer: int, sources: list[Node], targets: list[Node], writes: Tensor) -> Tensor:
        at = [node.pos for node in targets]
        stream, scale = self.frozen.site(layer, "hook_resid_mid")[at], self.frozen.site(layer, "ln2.hook_scale")[at]
        gain = self.frozen.gain(layer, "ln2")
        weight = self._weights(layer)[at, [node.index for node in targets]]
        with_it, without = (self._put_out(layer, targets, x / scale * gain) for x in (stream, stream - writes))
        return weight[:, None] * (without - with_it)

    def _live_expert(self, layer: int, sources: list[Node], targets: list[Node], writes: Tensor) -> Tensor:
        """The expert's own weight is what the router makes of the same changed stream; 0 where it loses its route."""
        block, at, which = self.model.blocks[layer], [node.pos for node in targets], [node.index for node in targets]
        stream = self.done[f"blocks.{layer}.hook_resid_mid"][0, at]
        read = normed(block.ln2, (stream - writes).to(stream))
        values, chosen = block.mlp.router(read).topk(self.model.config.experts_per_token)
        own = chosen == torch.tensor(which).to(chosen)[:, None]
        now = at_least_float32((values.softmax(-1) * own).sum(-1))
        before = self._weights(layer)[at, which]
        with_it = self._put_out(layer, targets, normed(block.ln2, stream))
        return now[:, None] * self._put_out(layer, targets, read) - before[:, None] * with_it

    def _live_head(self, layer: int, sources: list[Node], targets: list[Node], writes: Tensor) -> Tensor:
        """The whole layer is run on the changed stream, and only this head's z is taken from it."""
        block, n = self.model.blocks[layer], len(sources)
        stream = self.done[f"blocks.{layer}.hook_resid_pre"].repeat(n, 1, 1)
        edges, at = torch.arange(n), torch.tensor([node.pos for node in sources])
        stream[edges, at] -= writes.to(stream)
        changed, found = normed(block.ln1, stream), {}
        hooks: list[Hook] = [(f"blocks.{layer}.attn.hook_{part}_in", lambda x, hook: changed) for part in "qkv"]
        hooks.append((f"blocks.{layer}.attn.hook_z", lambda z, hook: found.update(z=z)))
        self.model.resume(self.recording, layer, 0, n, hooks, stop_at_layer=layer + 1)
        heads = torch.tensor([node.index for node in targets])
        query = torch.tensor([node.pos for node in targets])
        moved = found["z"][edges, query, heads] - self.done[f"blocks.{layer}.attn.hook_z"][0, query, heads]
        return einsum(at_least_float32(moved), at_least_float32(block.attn.W_O)[heads], "e h, e h d -> e d")

    def _put_out(self, layer: int, targets: list[Node], read: Float[Tensor, "edge d_model"]) -> Tensor:
        """What each target expert makes of what it reads, before its routing weight."""
        experts, config = self.model.blocks[layer].mlp.experts, self.model.config
        which = torch.tensor([node.index for node in targets], device=read.device)[None, :, None]
        read = read.to(self.model.embed.weight.dtype)[None, :, None]
        return at_least_float32(slots_out(experts, read, which, config)[0, :, 0])

    def _weights(self, layer: int) -> Float[Tensor, "pos expert"]:
        """Routing weights by expert, 0 where not routed."""
        chosen, weights = (self.frozen.site(layer, f"mlp.hook_expert_{part}") for part in ("indices", "weights"))
        return weights.new_zeros(len(weights), self.model.config.n_experts).scatter(1, chosen, weights)

    # ----------------------------------------------------------------------------------- what comes of it: [edge]
    def _target(self, layer: int, kind: str, targets: list[Node], change: Tensor, held: bool) -> Tensor:
        """The target with the edges less without them. One more row goes along unchanged, to compare with."""
        at, n = torch.tensor([node.pos for node in targets]), len(targets)

        def put(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()
            x[torch.arange(n), at] += change.to(x)
            return x

        part, last = {"head": "attn", "expert": "mlp"}[kind], {}
        final = f"blocks.{self.model.config.n_layers - 1}.hook_resid_post"
        hooks = self._held(layer, kind) if held else []
        hooks += [(f"blocks.{layer}.hook_{part}_out", put), (final, lambda x, hook: last.update(x=x[:, -1]))]
        self.model.resume(self.recording, layer, 0, n + 1, hooks, logits_at="last")
        stream = at_least_float32(last["x"])
        gain, norm = self.frozen.direction, self.model.ln_final
        if held:
            values = stream @ gain
        else:
            scale = at_least_float32(self.done["ln_final.hook_scale"][0, -1])
            values = normed(norm, stream) @ (gain * scale / at_least_float32(norm.w))
        return (values[-1] - values[:-1]).double()

    def _held(self, layer: int, kind: str) -> list[Hook]:
        """Hooks that hold what is read after the edge."""
        names = ["ln1.hook_scale", "attn.hook_pattern"]
        experts = ["ln2.hook_scale", "mlp.hook_expert_indices", "mlp.hook_expert_weights"]
        made: list[Hook] = []
        for i in range(layer, self.model.config.n_layers):
            sites = [*names, *experts] if i > layer or kind == "head" else experts
            made += [(f"blocks.{i}.{site}", self._pin) for site in sites]
        return made

    def _pin(self, x: Tensor, hook: Any) -> Tensor:
        return self.done[hook.name].to(x).expand_as(x)
