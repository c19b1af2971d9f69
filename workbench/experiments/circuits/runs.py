"""A model of which only a circuit works: what is not in the circuit says what it says in a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.experiments.circuits.circuit import Circuit
from workbench.experiments.nodes import (
    Node,
    all_nodes,
    all_receivers,
    expert_writes,
    head_writes,
    node_writes,
    write_sites,
)
from workbench.experiments.readers import normed, slots_gate_up
from workbench.model import Config, HookedGptOss
from workbench.model.interrupts import without_gradients

Ablation = Literal["corrupt", "mean", "zero"]
Hook = tuple[str, Callable[[Tensor, Any], Tensor | None]]
WRITERS = ("embed", "head", "expert")
DEFAULT_KINDS = ("head", "expert")


@without_gradients
def run_circuit(
    model: HookedGptOss,
    circuit: Circuit,
    clean: Any,
    corrupt: Any,
    *,
    ablation: Ablation = "corrupt",
    kinds: Sequence[str] = DEFAULT_KINDS,
    without: bool = False,
) -> Float[Tensor, "batch d_vocab"]:
    """The logits at the last position of the clean text, where only the circuit works.

    Of nodes: a head or expert that is not in the circuit writes what it writes in the reference, and every reader sees
    that; those in it compute live. Of edges: each reader reads, from every writer, its live write where the edge is in
    the circuit, and its reference where it is not. The biases b_O are always there.

    Args:
        clean, corrupt: tokens [batch pos], text or several, of one length without padding.
        ablation: the reference: "corrupt", the same place in the corrupted text; "mean", over all of those texts and
            positions; "zero", nothing.
        kinds: which kinds of nodes can be taken out, of "embed", "head", "expert": the others always work. Circuits of
            edges take all writers as they are named, and heed no kinds.
        without: run all but the circuit, in its place.

    Raises:
        ValueError: for texts that do not fit, or a circuit that the model does not have or that has nodes of other
            kinds.
    """
    good, bad = (_tokens(model, given, what) for given, what in ((clean, "clean"), (corrupt, "corrupt")))
    if good.shape != bad.shape:
        raise ValueError(f"clean has tokens {tuple(good.shape)} and corrupt {tuple(bad.shape)}: expected as many")
    return Setting.of(model, good, bad, ablation, kinds).logits(circuit, without)


def _tokens(model: HookedGptOss, given: Any, what: str) -> Int[Tensor, "batch pos"]:
    tokens, mask = model.as_batch(given)
    if mask is not None and not bool(mask.all()):
        raise ValueError(f"{what} has rows of several lengths: expected one length, or give them one by one")
    return tokens


@dataclass(frozen=True, eq=False)
class Setting:
    """Clean texts, and what is said in the place of what is not in a circuit.

    Attributes:
        reference: (kind, layer) → [#batch #pos node d_model], what each node writes there.
        z: layer → [#batch #pos head d_head], what heads write from.
    """

    model: HookedGptOss
    clean: Int[Tensor, "batch pos"]
    kinds: tuple[str, ...]
    reference: dict[tuple[str, int | None], Tensor]
    z: dict[int, Tensor]

    @classmethod
    @without_gradients
    def of(
        cls, model: HookedGptOss, clean: Tensor, corrupt: Tensor, ablation: str, kinds: Sequence[str] = DEFAULT_KINDS
    ) -> Setting:
        """Run the corrupted texts.

        Raises:
            ValueError: for an ablation or kind that there is not.
        """
        if ablation not in get_args(Ablation):
            raise ValueError(f"ablation={ablation!r}: expected one of {get_args(Ablation)}")
        if isinstance(kinds, str) or not kinds or not set(kinds) <= set(WRITERS):
            raise ValueError(f"kinds={kinds!r}: expected some of {WRITERS}")
        _, cache = model.run_with_cache(corrupt, names_filter=write_sites(model.config, WRITERS), return_type=None)
        layers = range(model.config.n_layers)
        at = [("embed", None), *((kind, layer) for layer in layers for kind in ("head", "expert"))]
        reference = {key: _reduced(node_writes(model, cache.__getitem__, *key), ablation) for key in at}
        z = {layer: _reduced(cache[f"blocks.{layer}.attn.hook_z"], ablation) for layer in layers}
        return cls(model, clean, tuple(kinds), reference, z)

    @without_gradients
    def logits(self, circuit: Circuit, without: bool = False) -> Float[Tensor, "batch d_vocab"]:
        """At the last position, with the circuit alone, or with all but it.

        Raises:
            ValueError: for a circuit that does not fit.
        """
        circuit.check(self.model.config, self.clean.shape[1])
        hooks = self._edges(circuit, without) if circuit.of == "edges" else self._nodes(circuit, without)
        with self.model.hooks(fwd_hooks=[*hooks]):
            return self.model(self.clean, logits_at="last")[:, -1]

    def _edges(self, circuit: Circuit, without: bool) -> list[Hook]:
        return _EdgeRun(self, live_edges(self.model.config, circuit) ^ without).hooks()

    # ------------------------------------------------------------------------------------------------- nodes
    def _nodes(self, circuit: Circuit, without: bool) -> list[Hook]:
        live = live_nodes(self.model.config, circuit, self.clean.shape[1], self.kinds)
        hooks: list[Hook] = []
        for (kind, layer), mask in live.items():
            mask = (mask ^ without)[None, ..., None].to(self.clean.device)
            if bool(mask.all()):
                continue
            if kind == "embed":
                value = self.reference["embed", None][:, :, 0]
                hooks.append(("hook_embed", lambda x, hook, m=mask[:, :, 0], v=value: torch.where(m, x, v)))
            elif layer is not None and kind == "head":
                site = f"blocks.{layer}.attn.hook_z"
                hooks.append((site, lambda z, hook, m=mask, v=self.z[layer]: torch.where(m, z, v)))
            elif layer is not None:
                hooks += self._experts(layer, mask)
        return hooks

    def _experts(self, layer: int, mask: Bool[Tensor, "1 pos expert 1"]) -> list[Hook]:
        heard: dict[str, Tensor] = {}

        def hear(x: Tensor, hook: Any) -> None:
            heard[hook.name.rsplit("_", 1)[-1]] = x

        def put(x: Float[Tensor, "batch pos d_model"], hook: Any) -> Tensor:
            live = expert_writes(heard["indices"], heard["weights"], heard["out"], mask.shape[2])
            return x + ((self.reference["expert", layer] - live) * ~mask).sum(2)

        at = f"blocks.{layer}."
        sites = [f"{at}mlp.hook_expert_{part}" for part in ("indices", "weights", "out")]
        return [*((site, hear) for site in sites), (f"{at}hook_mlp_out", put)]


def with_one_mean(settings: Sequence[Setting]) -> list[Setting]:
    """Settings with ablation "mean", each with the mean over the texts and positions of all of them."""
    lengths = torch.tensor([setting.clean.numel() for setting in settings])
    shares = (lengths / lengths.sum()).tolist()

    def mean(parts: Sequence[Tensor]) -> Tensor:
        total = sum(part.double() * share for part, share in zip(parts, shares, strict=True))
        assert isinstance(total, Tensor)
        return total.to(parts[0])

    reference = {key: mean([setting.reference[key] for setting in settings]) for key in settings[0].reference}
    z = {layer: mean([setting.z[layer] for setting in settings]) for layer in settings[0].z}
    return [replace(setting, reference=reference, z=z) for setting in settings]


def _reduced(values: Float[Tensor, "batch pos node d"], ablation: str) -> Float[Tensor, "rows cols node d"]:
    if ablation == "corrupt":
        return values
    return values.mean((0, 1), keepdim=True) if ablation == "mean" else torch.zeros_like(values[:1, :1])


def live_nodes(
    config: Config, circuit: Circuit, n_pos: int, kinds: Sequence[str]
) -> dict[tuple[str, int | None], Bool[Tensor, "pos node"]]:
    """(kind, layer) → which nodes are in the circuit, of the kinds that can be taken out.

    Raises:
        ValueError: for a node of another kind.
    """
    sizes = {"embed": 1, "head": config.n_heads, "expert": config.n_experts}
    made = {}
    for kind in kinds:
        for layer in [None] if kind == "embed" else range(config.n_layers):
            made[kind, layer] = torch.zeros(n_pos, sizes[kind], dtype=torch.bool)
    for node in circuit.nodes:
        kind = {"attn": "head", "mlp": "expert"}.get(node.kind, node.kind)
        if kind not in kinds:
            raise ValueError(f"{node} is of kind {kind!r}, and kinds={tuple(kinds)}: add it, or leave the node out")
        made[kind, node.layer][slice(None) if node.pos is None else node.pos, _columns(node)] = True
    return made


def _columns(node: Node) -> slice | int:
    if node.kind == "embed":
        return 0
    return slice(None) if node.index is None else node.index


# ------------------------------------------------------------------------------------------------------- edges
def all_edges(config: Config) -> tuple[str, ...]:
    """The name of every edge that a circuit can have."""
    nodes, receivers = all_nodes(config, kinds=WRITERS), all_receivers(config)
    return Circuit(tuple((n, r) for r in receivers for n in nodes if r.reads(n)), "edges").parts  # type: ignore[arg-type]


def live_edges(config: Config, circuit: Circuit) -> Bool[Tensor, "down up"]:
    """Which edges are in a circuit, in the order of ``all_receivers`` and ``all_nodes``."""
    up = {node: i for i, node in enumerate(all_nodes(config, kinds=WRITERS))}
    down = {receiver: i for i, receiver in enumerate(all_receivers(config))}
    live = torch.zeros(len(down), len(up), dtype=torch.bool)
    for node, receiver in circuit.edges:
        live[down[receiver], up[node]] = True
    return live


class _EdgeRun:
    """One pass in which every reader reads a stream of its own."""

    def __init__(self, setting: Setting, live: Bool[Tensor, "down up"]) -> None:
        self.setting, self.model, self.live = setting, setting.model, live
        self.down = {receiver: i for i, receiver in enumerate(all_receivers(self.model.config))}
        self.base: Tensor = torch.zeros(())  # the stream as it is in the reference
        self.moved: list[Tensor] = []  # what live writes have beyond it, [batch pos node d_model] of each stage

    def hooks(self) -> list[Hook]:
        made: list[Hook] = [("hook_embed", self._embed)]
        for layer in range(self.model.config.n_layers):
            at = f"blocks.{layer}."
            made += [(f"{at}attn.hook_{part}", self._heads(layer, part)) for part in "qkv"]
            made.append((f"{at}attn.hook_z", self._after_heads(layer)))
            made.append((f"{at}mlp.hook_router_logits", self._router(layer)))
            made += self._experts(layer)
        return [*made, (f"blocks.{self.model.config.n_layers - 1}.hook_resid_post", self._logits)]

    def stream(self, readers: list[int]) -> Float[Tensor, "batch pos reader d_model"]:
        """What each of these readers reads, before its norm: live writes along its edges, the reference otherwise."""
        moved = torch.cat(self.moved, 2)
        live = self.live[readers, : moved.shape[2]].to(moved)
        return self.base[:, :, None] + einsum(live, moved, "reader up, batch pos up d -> batch pos reader d")

    def _of(self, layer: int, part: str) -> list[int]:
        return [i for receiver, i in self.down.items() if (receiver.layer, receiver.part) == (layer, part)]

    def _add(self, kind: str, layer: int | None, live: Float[Tensor, "batch pos node d_model"]) -> None:
        reference = self.setting.reference[kind, layer].to(live)
        self.moved.append(live - reference)
        self.base = self.base + reference.sum(2).expand(live.shape[0], live.shape[1], -1)

    def _embed(self, x: Tensor, hook: Any) -> None:
        self.base, self.moved = torch.zeros_like(x), []
        self._add("embed", None, x[:, :, None])

    def _heads(self, layer: int, part: str) -> Callable[[Tensor, Any], Tensor]:
        block = self.model.blocks[layer]
        weight, bias = (getattr(block.attn, f"{kind}_{part.upper()}") for kind in "Wb")

        def put(x: Tensor, hook: Any) -> Tensor:
            read = normed(block.ln1, self.stream(self._of(layer, part)))
            return einsum(read, weight, "batch pos head d, head d d_head -> batch pos head d_head") + bias

        return put

    def _after_heads(self, layer: int) -> Callable[[Tensor, Any], None]:
        def hear(z: Tensor, hook: Any) -> None:
            self._add("head", layer, head_writes(self.model, layer, z))
            self.base = self.base + self.model.blocks[layer].attn.b_O

        return hear

    def _router(self, layer: int) -> Callable[[Tensor, Any], Tensor]:
        block = self.model.blocks[layer]
        return lambda x, hook: block.mlp.router(normed(block.ln2, self.stream(self._of(layer, "router"))[:, :, 0]))

    def _experts(self, layer: int) -> list[Hook]:
        block, n_experts = self.model.blocks[layer], self.model.config.n_experts
        heard: dict[str, Tensor] = {}

        def hear(x: Tensor, hook: Any) -> None:
            heard[hook.name.rsplit("_", 1)[-1]] = x

        def read(indices: Tensor, hook: Any) -> None:
            each = normed(block.ln2, self.stream(self._of(layer, "expert")))
            at = indices[..., None].expand(-1, -1, -1, each.shape[-1])
            heard["indices"] = indices
            heard["gate_up"] = slots_gate_up(block.mlp.experts, each.gather(2, at), indices, n_experts)

        def write(out: Tensor, hook: Any) -> None:
            self._add("expert", layer, expert_writes(heard["indices"], heard["weights"], out, n_experts))

        at = f"blocks.{layer}.mlp.hook_expert_"
        return [
            (f"{at}indices", read),
            (f"{at}weights", hear),
            (f"{at}gate", lambda x, hook: heard["gate_up"][..., 0::2]),
            (f"{at}up", lambda x, hook: heard["gate_up"][..., 1::2]),
            (f"{at}out", write),
        ]

    def _logits(self, x: Tensor, hook: Any) -> Tensor:
        return self.stream([len(self.down) - 1])[:, :, 0].to(x)
