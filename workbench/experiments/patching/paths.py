"""Path patching: what one part of the model tells another directly, with everything in between as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.experiments.contrast import Contrast, at_least_float32, contrast
from workbench.experiments.metrics import Metric
from workbench.experiments.nodes import Node, Receiver, as_node, as_receiver, node_writes, write_sites
from workbench.experiments.readers import normed, slots_gate_up
from workbench.experiments.rows import quantity
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

_MOST = 4096  # tokens in one pass
_Named = TypeVar("_Named", Node, Receiver)
Senders = Sequence[Node | str | Sequence[Node | str]]
Receivers = Sequence[Receiver | str | Sequence[Receiver | str]]
Hook = tuple[str, Callable[[Tensor, Any], Tensor | None]]


@without_gradients
def path_patching(
    model: HookedGptOss,
    clean: Any,
    corrupt: Any,
    metric: Metric,
    senders: Senders,
    receivers: Receivers,
    *,
    freeze_routing: bool = False,
    row: int = 0,
    logits_at: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Patch each path sender → receiver: the receiver reads the corrupted stream with the sender's clean write in it.

    Wang et al. (arXiv 2211.00593), Goldowsky-Dill et al. (arXiv 2304.05969). The clean value goes along the direct path
    alone: nothing between sender and receiver sees it, and no other reader of the stream does. What comes after the
    receiver runs on live. Exact: the receiver's norm, and what it computes, are those of the changed stream. To noise
    in place of denoising, give the two texts the other way round.

    Args:
        clean, corrupt: text, a Chat, tokens or an unedited run, as many tokens each.
        metric: two tokens (right, wrong), one of ``experiments.metrics``, or a function.
        senders: each a ``Node`` or its name ("L1H3", "L0E2@5", "embed"), or several whose writes are patched together.
        receivers: each a ``Receiver`` or its name ("L2H1.q", "L2KV0.k", "L2E3.in", "L2experts", "L2router", "logits"),
            or several that read the patched stream together. What one of those then tells another counts, so that all
            the readers after a sender, together, are the patch of the sender itself.
        freeze_routing: after the receiver too, experts and their weights stay those of the corrupted run.
        row: of both.
        logits_at: the position that the metric reads; None for the last.
        progress: show a progress bar.

    Returns:
        metric (sender, receiver) of the patched run; effect, less the corrupted run's; recovered, that divided by clean
        − corrupted; NaN where no direct path leads from the sender to the receiver. Positions are those of the
        corrupted text. clean, corrupted.

    Raises:
        ValueError: for texts of unequal length, an edited run, a sender or receiver that is not there or named twice,
            or a router that is to receive while routing is frozen.
    """
    from_groups, to_groups = _groups(senders, as_node, "senders"), _groups(receivers, as_receiver, "receivers")
    _check(model, from_groups, to_groups, freeze_routing)
    kinds = sorted({node.kind for group in from_groups for node in group})
    routing = ("mlp.hook_expert_indices", "mlp.hook_expert_weights") if freeze_routing else ()
    frozen = [f"blocks.{layer}.{site}" for layer in range(model.config.n_layers) for site in routing]
    pair = contrast(model, clean, corrupt, metric, [*write_sites(model.config, kinds), *frozen], row, logits_at)
    _check_positions(pair, [*from_groups, *to_groups])
    recording = model.record(pair.corrupt.tokens)
    changes = _Changes(pair)
    effect = np.full((len(from_groups), len(to_groups)), np.nan)
    with tqdm(total=effect.size, desc="patching paths", unit="path", disable=not progress) as bar:
        for column, group in enumerate(to_groups):
            fed = [i for i, nodes in enumerate(from_groups) if any(r.reads(n) for r in group for n in nodes)]
            for part in _parts(fed, max(1, _MOST // len(pair.columns) - 1)):
                rows = [from_groups[i] for i in part]
                effect[part, column] = _effects(pair, recording, group, lambda at, r=rows: changes.of(r, at), frozen)
            bar.update(len(from_groups))
    return _dataset(pair, from_groups, to_groups, effect, row, freeze_routing)


def _dataset(
    pair: Contrast,
    senders: list[tuple[Node, ...]],
    receivers: list[tuple[Receiver, ...]],
    effect: np.ndarray,
    row: int,
    freeze_routing: bool,
) -> xr.Dataset:
    dims, units = ("sender", "receiver"), "units of the metric"
    variables = {
        "metric": (dims, effect + pair.ends[1], quantity(pair.said)),
        "effect": (dims, effect, quantity("metric with the path patched, less the corrupted run's", units)),
        "recovered": (dims, effect / pair.span, quantity("share of the clean metric that the path brings back")),
        **pair.scalars(),
    }
    names = {"sender": [_name(group) for group in senders], "receiver": [_name(group) for group in receivers]}
    attrs = pair.attrs("path_patching", routing="frozen" if freeze_routing else "live", row=row)
    return xr.Dataset(variables, names | pair.coords(), attrs)


# ------------------------------------------------------------------------------------------------------- what is asked
def _groups(given: Sequence[Any], read: Callable[[Any], _Named], what: str) -> list[tuple[_Named, ...]]:
    if isinstance(given, str | Node | Receiver) or not len(given):
        raise ValueError(f"{what}={given!r}: expected a list of at least one")
    groups = [(read(item),) if isinstance(item, str | Node | Receiver) else tuple(map(read, item)) for item in given]
    for group in groups:
        if not group or len(set(group)) < len(group):
            raise ValueError(f"{what}: {[str(item) for item in group]} is a group without members or names one twice")
    return groups


def _name(group: tuple[Node | Receiver, ...]) -> str:
    return "+".join(item.name for item in group)


def _check(
    model: HookedGptOss, senders: list[tuple[Node, ...]], receivers: list[tuple[Receiver, ...]], freeze: bool
) -> None:
    for group in (*senders, *receivers):
        for item in group:
            item.check(model.config)
    for group in receivers:
        whole = {receiver.layer for receiver in group if receiver.part == "experts"}
        twice = [receiver.name for receiver in group if receiver.part == "expert" and receiver.layer in whole]
        if twice:
            raise ValueError(f"{_name(group)}: {twice[0]} is one of the layer's experts already; leave one of them out")
        if freeze and any(receiver.part == "router" for receiver in group):
            raise ValueError(
                f"{_name(group)} with freeze_routing=True: a frozen router passes nothing on; leave it out"
            )


def _check_positions(pair: Contrast, groups: Sequence[tuple[Node | Receiver, ...]]) -> None:
    for item in (item for group in groups for item in group):
        if item.pos is not None and item.pos not in pair.columns:
            first, last = pair.columns[0], pair.columns[-1]
            raise ValueError(f"{item.name}: the corrupted text has positions {first} to {last}")


def _parts(items: list[int], most: int) -> Iterator[list[int]]:
    return (items[first : first + most] for first in range(0, len(items), most))


# ------------------------------------------------------------------------------------------------------ how it is done
class _Changes:
    """What senders add to the stream that a reader reads: clean less corrupted write."""

    def __init__(self, pair: Contrast) -> None:
        self.pair = pair
        self.layers: dict[tuple[str, int | None], Tensor] = {}

    def of(self, groups: list[tuple[Node, ...]], reader: Receiver) -> Float[Tensor, "sender pos d_model"]:
        """For each group, the sum over those of its nodes that the reader reads."""
        clean = self.pair.clean
        zero = clean.logits.new_zeros(len(self.pair.columns), self.pair.model.config.d_model)
        read = [[self._node(node) for node in group if reader.reads(node)] for group in groups]
        return torch.stack([sum(parts, at_least_float32(zero)) for parts in read])

    def _node(self, node: Node) -> Float[Tensor, "pos d_model"]:
        key = (node.kind, node.layer)
        if key not in self.layers:
            self.layers[key] = self.pair.difference(lambda read: node_writes(self.pair.model, read, *key))[0]
        change = self.layers[key][:, node.index or 0]
        return change if node.pos is None else change * _only(self.pair, node.pos).to(change)


def _only(pair: Contrast, pos: int | None) -> Bool[Tensor, "pos 1"]:
    """True at the position, or at all."""
    columns = torch.tensor(pair.columns, device=pair.clean.tokens.device)
    return (torch.ones_like(columns, dtype=torch.bool) if pos is None else columns == pos)[:, None]


def _effects(
    pair: Contrast,
    recording: Any,
    receivers: tuple[Receiver, ...],
    changes: Callable[[Receiver], Float[Tensor, "sender pos d_model"]],
    frozen: list[str],
) -> np.ndarray:
    """Of each sender, on the metric. One more row goes along unchanged, and is what the others are compared with."""
    stages = [[r for r in receivers if r.stage == stage] for stage in sorted({r.stage for r in receivers})]
    change = torch.stack([changes(group[0]) for group in stages])
    # A row that is sent nothing is the corrupted run: its effect is 0, and not what rounding makes of another batch.
    moved = change.flatten(2).any(2).any(0)
    effect = np.zeros(change.shape[1])
    if not bool(moved.any()):
        return effect
    change = torch.cat([change[:, moved], torch.zeros_like(change[:, :1])], 1)
    model = pair.model
    first = min(model.config.n_layers - 1 if r.layer is None else r.layer for r in receivers)
    hooks: list[Hook] = [(site, _pin(pair.corrupt[site])) for site in frozen if (model.sites[site].layer or 0) >= first]
    for group, sent in zip(stages, change, strict=True):
        hooks += _Reading(pair, group, sent).hooks()
    logits = model.resume(recording, first, 0, change.shape[1], hooks, logits_at="last")
    found = pair.measure(logits[:, -1]).double()
    effect[moved.cpu().numpy()] = (found[:-1] - found[-1]).cpu().numpy()
    return effect


def _pin(values: Tensor) -> Callable[[Tensor, Any], Tensor]:
    return lambda x, hook: values.to(x).expand_as(x)


@dataclass(eq=False)
class _Reading:
    """The receivers of one norm: they get what it makes of the changed stream, the other readers what they got before.

    What they read is changed by the difference of the two, which is exactly 0 where nothing is sent.
    """

    pair: Contrast
    receivers: list[Receiver]
    change: Float[Tensor, "row pos d_model"]

    def hooks(self) -> list[Hook]:
        if self.receivers[0].part == "logits":
            last = f"blocks.{self.pair.model.config.n_layers - 1}.hook_resid_post"
            mask = self._where(self.receivers)[0]
            return [(last, lambda x, hook: x + (self.change * mask).to(x))]
        into = {"q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v"}
        into |= {"router": "mlp.hook_router_in", "experts": "mlp.hook_expert_in"}
        attention = self.receivers[0].part in ("q", "k", "v")
        made: list[Hook] = [(self._site("hook_resid_pre" if attention else "hook_resid_mid"), self._hear)]
        for part, site in into.items():
            if these := [receiver for receiver in self.receivers if receiver.part == part]:
                edit = self._add_to_heads(part, these) if attention else self._add_to_stream(these)
                made.append((self._site(site), edit))
        if these := [receiver for receiver in self.receivers if receiver.part == "expert"]:
            made.append((self._site("mlp.hook_expert_indices"), self._hear_routes))
            made += [
                (self._site(f"mlp.hook_expert_{part}"), self._add_to_slots(these, offset))
                for offset, part in enumerate(("gate", "up"))
            ]
        return made

    @property
    def block(self) -> Any:
        return self.pair.model.blocks[self.receivers[0].layer]

    def _site(self, name: str) -> str:
        return f"blocks.{self.receivers[0].layer}.{name}"

    def _where(self, receivers: list[Receiver]) -> list[Bool[Tensor, "pos 1"]]:
        return [_only(self.pair, receiver.pos) for receiver in receivers]

    def _hear(self, stream: Tensor, hook: Any) -> None:
        norm = self.block.ln1 if hook.name.endswith("resid_pre") else self.block.ln2
        self.before = normed(norm, stream)
        self.moved = normed(norm, stream + self.change.to(stream)) - self.before

    def _hear_routes(self, indices: Tensor, hook: Any) -> None:
        self.indices = indices

    def _add_to_stream(self, receivers: list[Receiver]) -> Callable[[Tensor, Any], Tensor]:
        mask = torch.stack(self._where(receivers)).any(0)
        return lambda x, hook: x + self.moved * mask

    def _add_to_heads(self, part: str, receivers: list[Receiver]) -> Callable[[Tensor, Any], Tensor]:
        weight = {"q": self.block.attn.W_Q, "k": self.block.attn.W_K, "v": self.block.attn.W_V}[part]

        def add(x: Float[Tensor, "row pos head d_head"], hook: Any) -> Float[Tensor, "row pos head d_head"]:
            x = x.clone()
            for receiver, mask in zip(receivers, self._where(receivers), strict=True):
                head = receiver.index
                x[:, :, head] += einsum(self.moved * mask, weight[head], "row pos d, d d_head -> row pos d_head")
            return x

        return add

    def _add_to_slots(self, receivers: list[Receiver], offset: int) -> Callable[[Tensor, Any], Tensor]:
        """To what those experts' gates (offset 0) or ups (offset 1) make of what they read."""

        def add(x: Float[Tensor, "row pos slot d_mlp"], hook: Any) -> Float[Tensor, "row pos slot d_mlp"]:
            n_slots, n_experts = self.indices.shape[-1], self.pair.model.config.n_experts
            reads = [read[:, :, None].expand(-1, -1, n_slots, -1) for read in (self.before, self.before + self.moved)]
            was, now = (slots_gate_up(self.block.mlp.experts, read, self.indices, n_experts) for read in reads)
            theirs = [
                (self.indices == receiver.index) & mask
                for receiver, mask in zip(receivers, self._where(receivers), strict=True)
            ]
            mask = torch.stack(theirs).any(0)[..., None]
            return x + ((now - was)[..., offset::2] * mask).to(x)

        return add
