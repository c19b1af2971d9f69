"""The nodes of a held run: their influence, those that are kept, and what stands between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.experiments.contrast import at_least_float32
from workbench.experiments.graphs.frozen import Frozen, Stage
from workbench.experiments.nodes import Node
from workbench.experiments.rows import numpy, quantity

Step = Callable[[int, int], None]
_MOST = 1 << 20  # edges that are in memory at once
_ROWS = 64  # nodes at once: those that stand together read at the same few positions


class Kept:
    """The nodes of largest influence, and the edges between them. It holds nothing of the run's size.

    Attributes:
        nodes: those kept, in the order in which they write; their positions count the tokens that were read.
        adjacency: [target source] edges; the targets are the kept heads and experts and, last, the logits.
    """

    def __init__(
        self,
        frozen: Frozen,
        influence: Float[Tensor, " node"],
        shares: dict[str, float],
        n_nodes: int,
        columns: list[int],
    ) -> None:
        n = len(frozen.nodes)
        kept = influence[:n].argsort(descending=True, stable=True)[:n_nodes].sort().values
        self.nodes, self.columns = [frozen.nodes[i] for i in kept.tolist()], columns
        self.readers = [node for node in self.nodes if node.kind != "embed"]
        targets = torch.tensor([i for i in kept.tolist() if frozen.nodes[i].kind != "embed"] + [n])
        inner = [i for i, node in enumerate(frozen.nodes) if node.kind != "embed"]
        among = float(influence[targets[:-1]].sum() / influence[inner].sum().clamp(min=1e-30))
        self.shares = {**shares, "kept_share": among}
        self.influence, self.flow = influence[kept], influence[targets]
        self.activation, self.value = frozen.activations[kept], frozen.target
        self.n_layers = frozen.model.config.n_layers
        scale = at_least_float32(frozen.done["ln_final.hook_scale"][0])
        self.direct = frozen.writes[kept] / scale[frozen.pos[kept]].to(frozen.writes)
        self._rows(frozen, kept, targets)
        self._gates(frozen)
        self._column = {node: i for i, node in enumerate(self.nodes)}
        self._row = {node: i for i, node in enumerate(self.readers)}
        self._named = {row_of(node, columns)[0]: node for node in self.nodes}

    def _rows(self, frozen: Frozen, kept: Tensor, targets: Tensor) -> None:
        """Edges, and what else comes in, of the nodes that are kept."""
        rows, more = [], []
        for stage in frozen.stages:
            nodes = targets[(targets >= stage.first) & (targets < stage.first + len(stage.bias))] - stage.first
            edges = stage.edges(frozen.writes[: stage.sees], frozen.pos[: stage.sees], nodes)
            among = kept[kept < stage.sees]
            rows.append(torch.zeros(len(nodes), len(kept)).to(edges))
            rows[-1][:, : len(among)] = edges[:, among]
            absolute = edges.abs().sum(1) + stage.bias[nodes].abs() + stage.error[nodes].abs()
            rest = edges.sum(1) - rows[-1].sum(1)
            more.append(torch.stack([stage.bias[nodes], stage.error[nodes], rest, stage.activation[nodes], absolute]))
        self.adjacency = torch.cat(rows)
        self.bias, self.error, self.rest, self.total, self.absolute = torch.cat(more, 1)

    def _gates(self, frozen: Frozen) -> None:
        """How much heads look where the sources stand, and how much weight experts have."""
        self.attention = np.full(self.adjacency.shape, np.nan, np.float32)
        self.routing = np.full(len(self.adjacency), np.nan, np.float32)
        stages, at = np.array([node.stage for node in self.nodes]), np.array([node.pos for node in self.nodes])
        for i, node in enumerate(self.readers):
            assert node.layer is not None
            if node.kind == "head":
                pattern = numpy(frozen.site(node.layer, "attn.hook_pattern")[node.index, node.pos])
                self.attention[i] = np.where((stages < node.stage) & (at <= node.pos), pattern[at], np.nan)
            else:
                chosen = frozen.site(node.layer, "mlp.hook_expert_indices")[node.pos] == node.index
                self.routing[i] = float(frozen.site(node.layer, "mlp.hook_expert_weights")[node.pos][chosen].sum())

    # ------------------------------------------------------------------------------------------------- one of them
    def node(self, name: str) -> Node:
        """A kept node by its name.

        Raises:
            ValueError: for one that is not kept.
        """
        if name not in self._named:
            raise ValueError(f"{name!r:.80} is not among the {len(self.nodes)} nodes that were kept")
        return self._named[name]

    def edge(self, source: str, target: str) -> tuple[Node, Node]:
        """An edge between kept nodes.

        Raises:
            ValueError: for one that is not there, or that leads to the logits.
        """
        if target == "logits":
            raise ValueError(
                f"{source:.80} → logits is exact where the final norm is held: there is nothing to confirm"
            )
        pair = self.node(source), self.node(target)
        if pair[1].kind == "embed" or not self.effect(*pair):
            raise ValueError(f"there is no edge {source} → {target}")
        return pair

    def has(self, source: Node, target: Node) -> bool:
        """Whether both are kept."""
        return source in self._column and target in self._row

    def effect(self, source: Node, target: Node) -> float:
        """What an edge between kept nodes adds, in logits."""
        return float(self.adjacency[self._row[target], self._column[source]])

    def direct_write(self, node: Node) -> Float[Tensor, " d_model"]:
        """What a kept node writes ÷ by the final norm's scale at its position."""
        return self.direct[self._column[node]]

    def strongest(self, n: int) -> list[tuple[Node, Node]]:
        """Sources and targets of the n largest edges that do not lead to the logits."""
        inner = self.adjacency[:-1]
        flat = inner.abs().flatten().argsort(descending=True, stable=True)[:n]
        flat = flat[inner.flatten()[flat] != 0].tolist()
        return [(self.nodes[i % len(self.nodes)], self.readers[i // len(self.nodes)]) for i in flat]

    # ------------------------------------------------------------------------------------------------- all of them
    def variables(self) -> dict:
        """Those of the dataset, but for what was confirmed."""
        adjacency, edges, of_targets, of_sources = numpy(self.adjacency), ("target", "source"), ("target",), ("source",)
        share = np.abs(adjacency) / np.maximum(numpy(self.absolute), 1e-30)[:, None]
        made = {
            "adjacency": (edges, adjacency, quantity("effect on the target along the edge", "logits")),
            "edge_influence": (edges, share * numpy(self.flow)[:, None], quantity("share of the flow into the logits")),
            "attention": (edges, self.attention, quantity("attention of the target to the source's position")),
            "activation": (of_sources, numpy(self.activation), quantity("effect of the node's write", "logits")),
            "influence": (of_sources, numpy(self.influence), quantity("share of the flow")),
            "bias": (of_targets, numpy(self.bias), quantity("what biases add at the node", "logits")),
            "error": (of_targets, numpy(self.error), quantity("what an expert adds beyond its linear part", "logits")),
            "rest": (of_targets, numpy(self.rest), quantity("edges from nodes that were not kept", "logits")),
            "total": (of_targets, numpy(self.total), quantity("all that comes in: the activation", "logits")),
            "bias_influence": (
                of_targets,
                self._flow_of(self.bias),
                quantity("share of the flow from the node's biases"),
            ),
            "error_influence": (of_targets, self._flow_of(self.error), quantity("share of the flow from its error")),
            "routing_weight": (of_targets, self.routing, quantity("routing weight of an expert")),
            "value": ((), self.value, quantity("the target", "logits")),
        }
        said = {
            "embed_share": "influence of the embeddings",
            "bias_share": "influence of the biases",
            "error_share": "influence of what is not linear in experts",
            "kept_share": "influence of kept heads and experts, of all of them",
        }
        return made | {name: ((), self.shares[name], quantity(text)) for name, text in said.items()}

    def _flow_of(self, part: Float[Tensor, " target"]) -> np.ndarray:
        return numpy(part.abs() / self.absolute.clamp(min=1e-30) * self.flow)

    def coords(self) -> dict:
        """Names, kinds, layers, indices and positions of sources and targets."""
        end = ("logits", "logits", self.n_layers, -1, self.columns[-1])
        return _along("source", [row_of(node, self.columns) for node in self.nodes]) | _along(
            "target", [*(row_of(node, self.columns) for node in self.readers), end]
        )


def row_of(node: Node, columns: list[int]) -> tuple[str, str, int, int, int]:
    """Name, kind, layer, index, position: of the embedding, layer and index are −1."""
    assert node.pos is not None
    node = node.at(columns[node.pos])
    layer, index = (-1 if value is None else value for value in (node.layer, node.index))
    return node.name, node.kind, layer, index, columns[-1] if node.pos is None else node.pos


def _along(dim: str, rows: list[tuple[str, str, int, int, int]]) -> dict:
    names = ("", "_kind", "_layer", "_index", "_pos")
    columns = zip(*rows, strict=True)
    return {f"{dim}{name}": (dim, np.array(values)) for name, values in zip(names, columns, strict=True)}


def influence_of(frozen: Frozen, on_step: Step | None = None) -> tuple[Float[Tensor, " node"], dict[str, float]]:
    """Of every node and, last, of the logits (1); and of what has no input: the embeddings, the biases, the errors.

    Rows of the adjacency are made a few at a time, from the logits back, and thrown away: all of it would not fit in
    memory at the real size.
    """
    influence = torch.zeros(len(frozen.nodes) + 1, dtype=torch.float64)
    influence[-1] = 1
    ends = {"bias_share": 0.0, "error_share": 0.0}
    for done, stage in enumerate(reversed(frozen.stages), 1):
        bias, error = stage.bias.abs().double(), stage.error.abs().double()
        arriving = influence[stage.first : stage.first + len(bias)].clone()
        for nodes, seen in _parts(stage, frozen.pos):
            edges = stage.edges(frozen.writes[seen], frozen.pos[seen], nodes).abs_()
            incoming = edges.sum(1, dtype=torch.float64) + bias[nodes] + error[nodes]
            share = arriving[nodes] / incoming.clamp(min=1e-30)
            influence[seen] += (share.to(edges) @ edges).double()
            ends["bias_share"] += float(share @ bias[nodes])
            ends["error_share"] += float(share @ error[nodes])
        if on_step is not None:
            on_step(done, len(frozen.stages))
    return influence, ends | {"embed_share": float(influence[: frozen.n_pos].sum())}


def _parts(stage: Stage, pos: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The nodes of a stage, a few at a time, and the sources at positions that any of them reads."""
    most = min(_ROWS, max(1, _MOST // max(1, stage.sees)))
    before = pos[: stage.sees]
    for first in range(0, len(stage.bias), most):
        nodes = slice(first, first + most)
        yield nodes, (stage.weight[nodes] != 0).any(0)[before].nonzero()[:, 0]
