"""Nodes: the parts of a model that write into the residual stream, and the readers that the stream flows into.

A head's write is z[head] @ W_O[head]; b_O belongs to no head. An expert's write is routing weight × what it puts out
(b_down included) at the tokens that are routed to it, and 0 at all others. Experts go by their id, never by their slot:
slots are in rank order, so that equal slots of two runs may hold different experts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, SupportsIndex, cast, get_args

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from workbench.experiments.rows import check_index, check_whole
from workbench.model import Config, HookedGptOss

Kind = Literal["embed", "head", "attn", "mlp", "expert"]
Part = Literal["q", "k", "v", "router", "expert", "experts", "logits"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PARTS: tuple[Part, ...] = get_args(Part)

_NODE = re.compile(
    r"(?:(?P<embed>embed)|L(?P<layer>\d+)(?:(?P<whole>attn|mlp)|(?P<of>[HE])(?P<index>\d+)))(?:@(?P<pos>\d+))?"
)
_RECEIVER = re.compile(
    r"(?:(?P<logits>logits)|L(?P<layer>\d+)(?:(?P<whole>router|experts)|H(?P<q>\d+)\.q|KV(?P<kv>\d+)\.(?P<part>[kv])"
    r"|E(?P<expert>\d+)\.in))(?:@(?P<pos>\d+))?"
)


@dataclass(frozen=True)
class Node:
    """Something that writes into the residual stream, at one position or (``pos=None``) at all of them.

    "embed", "attn" (a layer's attention, b_O included), "mlp" (a layer's experts together), "head" and "expert" (by
    id). ``str(node)`` and ``Node.parse`` spell it "embed@3", "L1attn", "L1mlp", "L1H7@12", "L2E5".

    Raises:
        ValueError: for a kind that is none of these, or a layer or index where the kind has none.

    >>> str(Node("head", 1, 7, pos=12)), Node.parse("L2E5").kind
    ('L1H7@12', 'expert')
    """

    kind: Kind
    layer: int | None = None
    index: int | None = None
    pos: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: expected one of {KINDS}")
        _check_fields(self, self.kind != "embed", self.kind in ("head", "expert"))

    @property
    def name(self) -> str:
        """As :meth:`parse` reads it."""
        what = {"embed": "embed", "head": f"H{self.index}", "expert": f"E{self.index}"}.get(self.kind, self.kind)
        return _named(what, self.layer, self.pos)

    @classmethod
    def parse(cls, name: str) -> Node:
        """The node of a name.

        Raises:
            ValueError: for text that names none.
        """
        found = _NODE.fullmatch(name)
        if found is None:
            raise ValueError(
                f"{name!r} names no node: expected one like 'embed', 'L1H7@12', 'L2E5', 'L0attn' or 'L3mlp@4'"
            )
        layer, index, pos = (None if found[key] is None else int(found[key]) for key in ("layer", "index", "pos"))
        kind = found["embed"] or found["whole"] or {"H": "head", "E": "expert"}[found["of"]]
        return cls(cast(Kind, kind), layer, index, pos)

    def check(self, config: Config, n_pos: int | None = None) -> None:
        """Refuse a layer, head, expert or position that the model or the text does not have.

        Raises:
            ValueError: naming the nearest that there is.
        """
        _check_in(self, config, n_pos, {"head": config.n_heads, "expert": config.n_experts}.get(self.kind), self.kind)

    def at(self, pos: int | None) -> Node:
        """The same node at another position."""
        return replace(self, pos=pos)

    @property
    def stage(self) -> int:
        """When it writes, counted from the embedding at 0: a reader of the same stage or a later one sees it."""
        return 0 if self.layer is None else 2 * self.layer + (1 if self.kind in ("head", "attn") else 2)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Receiver:
    """Something that reads the residual stream (through its norm), at one position or at all of them.

    "q" of a head; "k" and "v" of a key-value head, which the heads of its group share; "router"; "expert", what one
    expert reads at the tokens routed to it; "experts", what all of them read; "logits", what the final norm reads.
    Spelled "L1H7.q@12", "L1KV0.k", "L1KV0.v", "L2router", "L2E5.in", "L2experts", "logits".

    Raises:
        ValueError: for a part that is none of these, or a layer or index where the part has none.

    >>> str(Receiver("q", 1, 7)), Receiver.parse("logits").part
    ('L1H7.q', 'logits')
    """

    part: Part
    layer: int | None = None
    index: int | None = None
    pos: int | None = None

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ValueError(f"part={self.part!r}: expected one of {PARTS}")
        _check_fields(self, self.part != "logits", self.part in ("q", "k", "v", "expert"))

    @property
    def name(self) -> str:
        """As :meth:`parse` reads it."""
        i = self.index
        parts = {"q": f"H{i}.q", "k": f"KV{i}.k", "v": f"KV{i}.v", "expert": f"E{i}.in"}
        return _named(parts.get(self.part, self.part), self.layer, self.pos)

    @classmethod
    def parse(cls, name: str) -> Receiver:
        """The receiver of a name.

        Raises:
            ValueError: for text that names none.
        """
        found = _RECEIVER.fullmatch(name)
        if found is None:
            raise ValueError(
                f"{name!r} names no receiver: expected one like 'L1H7.q@12', 'L1KV0.k', 'L1KV0.v', 'L2E5.in', "
                "'L2experts', 'L2router' or 'logits' (keys and values belong to key-value heads)"
            )
        layer, q, kv, expert, pos = (
            None if found[key] is None else int(found[key]) for key in ("layer", "q", "kv", "expert", "pos")
        )
        part = found["logits"] or found["whole"] or found["part"] or ("q" if q is not None else "expert")
        return cls(cast(Part, part), layer, next((i for i in (q, kv, expert) if i is not None), None), pos)

    def check(self, config: Config, n_pos: int | None = None) -> None:
        """Refuse a layer, head, expert or position that the model or the text does not have.

        Raises:
            ValueError: naming the nearest that there is.
        """
        kv = ("key-value head", config.n_key_value_heads)
        sizes = {"q": ("head", config.n_heads), "k": kv, "v": kv, "expert": ("expert", config.n_experts)}
        what, size = sizes.get(self.part, (self.part, None))
        _check_in(self, config, n_pos, size, what)

    @property
    def stage(self) -> int | float:
        """When it reads: it sees the writes of every node of the same stage or an earlier one."""
        return float("inf") if self.layer is None else 2 * self.layer + (0 if self.part in ("q", "k", "v") else 1)

    def reads(self, node: Node) -> bool:
        """Whether the node's write is in the stream that this reads, with nothing in between."""
        return node.stage <= self.stage

    def __str__(self) -> str:
        return self.name


def _named(what: str, layer: int | None, pos: int | None) -> str:
    return ("" if layer is None else f"L{layer}") + what + ("" if pos is None else f"@{pos}")


def _check_fields(given: Node | Receiver, has_layer: bool, has_index: bool) -> None:
    what = given.kind if isinstance(given, Node) else given.part
    for field, has in (("layer", has_layer), ("index", has_index)):
        value = getattr(given, field)
        if (value is not None) != has or (value is not None and not isinstance(value, SupportsIndex)):
            expected = "a whole number" if has else "none"
            raise ValueError(f"{field}={value!r} for {what!r}: expected {expected}")


def _check_in(given: Node | Receiver, config: Config, n_pos: int | None, size: int | None, what: str) -> None:
    if given.layer is not None:
        check_index("layer", given.layer, config.n_layers)
    if given.index is not None and size is not None:
        check_index(what, given.index, size)
    if given.pos is not None and (given.pos < 0 or (n_pos is not None and given.pos >= n_pos)):
        last = "" if n_pos is None else f" to {n_pos - 1}"
        raise ValueError(f"pos={given.pos} of {given.name}: the text has positions 0{last}")


def all_nodes(
    config: Config, n_pos: int | None = None, kinds: Sequence[str] = ("embed", "head", "expert")
) -> list[Node]:
    """Every node of these kinds, in the order in which they write, at each of ``n_pos`` positions (None: at all).

    Raises:
        ValueError: for a kind that there is not, or less than one position.
    """
    for kind in kinds:
        if kind not in KINDS:
            near = get_close_matches(str(kind), KINDS, n=1)
            raise ValueError(f"kind {kind!r}: expected some of {KINDS}" + (f"; closest is {near[0]!r}" if near else ""))
    if n_pos is not None:
        check_whole(1, n_pos=n_pos)
    sizes: dict[Kind, int | None] = {"head": config.n_heads, "attn": None, "expert": config.n_experts, "mlp": None}
    nodes = [Node("embed")] if "embed" in kinds else []
    for layer in range(config.n_layers):
        for kind, size in sizes.items():
            if kind in kinds:
                nodes += [Node(kind, layer, i) for i in ([None] if size is None else range(size))]
    return nodes if n_pos is None else [node.at(pos) for node in nodes for pos in range(n_pos)]


def all_receivers(config: Config) -> list[Receiver]:
    """Every head's, expert's and router's own receiver, in the order in which they read, at all positions."""
    made: list[Receiver] = []
    for layer in range(config.n_layers):
        made += [Receiver("q", layer, head) for head in range(config.n_heads)]
        made += [Receiver(part, layer, head) for part in ("k", "v") for head in range(config.n_key_value_heads)]
        made += [Receiver("router", layer), *(Receiver("expert", layer, e) for e in range(config.n_experts))]
    return [*made, Receiver("logits")]


def as_node(given: Node | str) -> Node:
    """A node as it is, or of its name."""
    return Node.parse(given) if isinstance(given, str) else given


def as_receiver(given: Receiver | str) -> Receiver:
    """A receiver as it is, or of its name."""
    return Receiver.parse(given) if isinstance(given, str) else given


# ---------------------------------------------------------------------------------------------- what they write
def write_sites(config: Config, kinds: Sequence[str] = KINDS) -> list[str]:
    """The sites from which :func:`node_writes` reads the nodes of these kinds."""
    experts = ("mlp.hook_expert_indices", "mlp.hook_expert_weights", "mlp.hook_expert_out")
    needed = {"head": ("attn.hook_z",), "attn": ("hook_attn_out",), "mlp": ("hook_mlp_out",), "expert": experts}
    names = [site for kind in kinds for site in needed.get(kind, ())]
    found = [f"blocks.{layer}.{site}" for layer in range(config.n_layers) for site in names]
    return (["hook_embed"] if "embed" in kinds else []) + found


def head_writes(
    model: HookedGptOss, layer: int, z: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos head d_model"]:
    """What each head of a layer writes, without b_O."""
    return einsum(
        z, model.blocks[layer].attn.W_O.to(z), "batch pos head d_head, head d_head d_model -> batch pos head d_model"
    )


def expert_writes(
    indices: Int[Tensor, "batch pos slot"],
    weights: Float[Tensor, "batch pos slot"],
    out: Float[Tensor, "batch pos slot d_model"],
    n_experts: int,
) -> Float[Tensor, "batch pos expert d_model"]:
    """What each expert of a layer writes, by id: weight × output, 0 where it is not routed."""
    written = weights[..., None] * out
    by_id = written.new_zeros(*indices.shape[:2], n_experts, out.shape[-1])
    return by_id.scatter_add(2, indices[..., None].expand_as(written), written)


def node_writes(
    model: HookedGptOss, read: Callable[[str], Tensor], kind: str, layer: int | None = None
) -> Float[Tensor, "batch pos node d_model"]:
    """What all nodes of a kind in a layer write; "embed", "attn" and "mlp" are one node each.

    Args:
        read: site → tensor, for each of :func:`write_sites`; of a run, ``run.__getitem__``.
    """
    if kind == "embed":
        return read("hook_embed")[:, :, None]
    block = f"blocks.{layer}."
    if kind in ("attn", "mlp"):
        return read(f"{block}hook_{kind}_out")[:, :, None]
    assert layer is not None
    if kind == "head":
        return head_writes(model, layer, read(f"{block}attn.hook_z"))
    indices, weights, out = (read(f"{block}mlp.hook_expert_{part}") for part in ("indices", "weights", "out"))
    return expert_writes(indices, weights, out, model.config.n_experts)


def node_write(model: HookedGptOss, read: Callable[[str], Tensor], node: Node) -> Float[Tensor, "batch pos d_model"]:
    """What one node writes at each position; 0 at other positions than its own, where it has one."""
    written = node_writes(model, read, node.kind, node.layer)[:, :, node.index or 0]
    if node.pos is None:
        return written
    kept = torch.zeros_like(written)
    kept[:, node.pos] = written[:, node.pos]
    return kept
