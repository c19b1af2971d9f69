"""Attribution graphs of a mixture of experts: which parts told which, on the way from the tokens to one answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run, run
from workbench.experiments.contrast import at_least_float32
from workbench.experiments.edge_checks import checked_edges
from workbench.experiments.frozen import Frozen, frozen_sites
from workbench.experiments.metrics import Token, token_id
from workbench.experiments.nodes import Node
from workbench.experiments.rows import numpy, provenance, quantity, real_columns, token_coords
from workbench.model import HookedGptOss


def attribution_graph(
    model: HookedGptOss,
    tokens: Any,
    target: tuple[Token, Token] | Token,
    *,
    n_nodes: int = 200,
    confirm: int = 30,
    row: int = 0,
    logits_at: int | None = None,
) -> xr.Dataset:
    """The graph of what led to a logit, with experts, heads and embeddings at each position as nodes.

    As in circuit tracing (Ameisen et al. 2025, transformer-circuits.pub), with experts in the place of transcoder
    features: routing (choice and weights), attention patterns and norm scales are held at what they were in this run.
    The model is linear then but inside the experts, and of an expert we take the Jacobian at what it read. What that
    leaves is the expert's ``error``: its biases, and how far it is from linear.

    An edge is what the source's write adds to the target along that edge first: write · Jᵀg, where J is the linear part
    of the node that reads it and g the gradient of the target at that node's own write. So what comes in at a node
    (edges, bias, error) adds up to what its own write adds to the target, its ``activation``, and what comes in at the
    logits adds up to the target.

    Influence as in circuit tracing: |what comes in| of each node is normalised to 1, and (I − A)⁻¹ sums over all paths
    to the logits. Pruning keeps the nodes of largest influence; ``rest`` is what others tell those that are kept.

    The held model is not the model. ``confirm`` takes away the largest edges between kept nodes, one at a time: in the
    held model with its experts as they are (non-linear), and in the live one, where the node's own attention or routing
    and everything later answers too. An expert in the live model may lose its route.

    Args:
        tokens: text, a Chat, tokens, or an unedited run (whose tokens are run again).
        target: (right, wrong), text or ids: the difference of their logits; or one token, its logit.
        n_nodes: how many nodes to keep.
        confirm: how many edges to take away; 0 for none. Edges into the logits are not among them: those are exact.
        row: of the tokens.
        logits_at: the position whose logits are the target; None for the last.

    Returns:
        adjacency (target, source), in logits, between kept nodes and "logits"; edge_influence, the same as shares of
        the flow into the logits; activation, influence (source). bias, error, rest, total (target): edges + bias +
        error + rest = total, the activation. value (), of the target. embed_share, bias_share, error_share (): of the
        flow, before pruning, where it starts; together 1. kept_share (), the influence kept among heads and experts.
        With ``confirm``: predicted, frozen_effect, live_effect (edge), of having the edge, and their agreement:
        frozen_correlation, frozen_signs, live_correlation, live_signs (). Names are as ``Node`` spells them.

    Raises:
        ValueError: for an edited run, or a row, position, token or number that is not there.
    """
    for name, value, least in (("n_nodes", n_nodes, 1), ("confirm", confirm, 0)):
        if value < least:
            raise ValueError(f"{name}={value}: expected at least {least}")
    ids, said = _target(model, target)
    read, columns = _read(model, tokens, row, logits_at)
    with torch.no_grad():
        done = run(model, read[None], sites=frozen_sites(model.config.n_layers))
        unembedded = [at_least_float32(model.unembed.weight[i]) for i in ids]
        frozen = Frozen(done, unembedded[0] - unembedded[1] if len(ids) == 2 else unembedded[0])
        graph = _Graph(frozen, n_nodes)
        variables = graph.variables()
        if confirm:
            variables |= checked_edges(frozen, *graph.strongest(confirm))
    attrs = provenance(done, "attribution_graph", row, target=said, logits_at=columns[-1], n_nodes=n_nodes)
    coords = token_coords(read.tolist(), model.tokenizer, columns)
    return xr.Dataset(variables, coords | graph.coords(columns), attrs)


def _target(model: HookedGptOss, target: tuple[Token, Token] | Token) -> tuple[tuple[int, ...], str]:
    named = target if isinstance(target, tuple) else (target,)
    if len(named) not in (1, 2):
        raise ValueError(f"target={target!r}: expected one token, or (right, wrong)")
    return tuple(token_id(model, token) for token in named), " − ".join(f"logit of {name!r}" for name in named)


def _read(model: HookedGptOss, given: Any, row: int, logits_at: int | None) -> tuple[Tensor, list[int]]:
    """The real tokens of a row up to the position that is read, and their columns."""
    if isinstance(given, Run):
        if given.interventions or given.routing != "live":
            raise ValueError("the run was edited, and it is run again here without that; give an unedited one")
        tokens, mask = given.tokens, given.attention_mask
        columns = real_columns(given, row).tolist()
    else:
        tokens, mask = model.as_batch(given)
        if not 0 <= row < len(tokens):
            raise ValueError(f"row={row}: there are rows 0 to {len(tokens) - 1}")
        columns = (torch.ones_like(tokens[row]) if mask is None else mask[row]).nonzero()[:, 0].tolist()
    if logits_at is not None:
        if logits_at not in columns:
            raise ValueError(f"logits_at={logits_at}: the text has positions {columns[0]} to {columns[-1]}")
        columns = columns[: columns.index(logits_at) + 1]
    return tokens[row, columns], columns


class _Graph:
    """All nodes of a held run, their influence, and those that are kept."""

    def __init__(self, frozen: Frozen, n_nodes: int) -> None:
        self.frozen, self.n = frozen, len(frozen.nodes)
        self.influence, shares = _influence(frozen)
        order = self.influence[: self.n].argsort(descending=True, stable=True)[:n_nodes]
        self.kept = order.sort().values
        self.targets = torch.tensor([i for i in self.kept.tolist() if frozen.nodes[i].kind != "embed"] + [self.n])
        inner = [i for i, node in enumerate(frozen.nodes) if node.kind != "embed"]
        among = float(self.influence[self.targets[:-1]].sum() / self.influence[inner].sum().clamp(min=1e-30))
        self.shares = {**shares, "kept_share": among}
        self._rows()

    def _rows(self) -> None:
        """Edges, and what else comes in, of the nodes that are kept."""
        frozen, rows, more = self.frozen, [], []
        for stage in frozen.stages:
            nodes = self.targets[(self.targets >= stage.first) & (self.targets < stage.first + len(stage.bias))]
            nodes = nodes - stage.first
            edges = stage.edges(frozen.writes[: stage.sees], frozen.pos[: stage.sees], nodes)
            whole = torch.zeros(len(nodes), self.n).to(edges)
            whole[:, : stage.sees] = edges
            rows.append(whole[:, self.kept])
            absolute = edges.abs().sum(1) + stage.bias[nodes].abs() + stage.error[nodes].abs()
            rest = edges.sum(1) - rows[-1].sum(1)
            more.append(torch.stack([stage.bias[nodes], stage.error[nodes], rest, stage.activation[nodes], absolute]))
        self.adjacency = torch.cat(rows)
        self.bias, self.error, self.rest, self.total, self.absolute = torch.cat(more, 1)

    def strongest(self, n: int) -> tuple[list[Node], list[Node], Float[Tensor, " edge"]]:
        """Sources, targets and values of the n largest edges that do not lead to the logits."""
        inner = self.adjacency[:-1]
        flat = inner.abs().flatten().argsort(descending=True, stable=True)[:n]
        flat = flat[inner.flatten()[flat] != 0]
        targets, sources = flat // max(1, len(self.kept)), flat % max(1, len(self.kept))
        nodes = self.frozen.nodes
        made = [nodes[self.kept[i]] for i in sources], [nodes[self.targets[i]] for i in targets]
        return *made, inner.flatten()[flat]

    def variables(self) -> dict:
        adjacency, of_targets = numpy(self.adjacency), ("target",)
        share = np.abs(adjacency) / np.maximum(numpy(self.absolute), 1e-30)[:, None]
        flow = share * numpy(self.influence[self.targets])[:, None]
        made = {
            "adjacency": (("target", "source"), adjacency, quantity("effect on the target along the edge", "logits")),
            "edge_influence": (("target", "source"), flow, quantity("share of the flow into the logits")),
            "activation": (
                ("source",),
                numpy(self.frozen.activations[self.kept]),
                quantity("effect of the node's write", "logits"),
            ),
            "influence": (("source",), numpy(self.influence[self.kept]), quantity("share of the flow")),
            "bias": (of_targets, numpy(self.bias), quantity("what biases add at the node", "logits")),
            "error": (of_targets, numpy(self.error), quantity("what an expert adds beyond its linear part", "logits")),
            "rest": (of_targets, numpy(self.rest), quantity("edges from nodes that were not kept", "logits")),
            "total": (of_targets, numpy(self.total), quantity("all that comes in: the activation", "logits")),
            "value": ((), self.frozen.target, quantity("the target", "logits")),
        }
        said = {
            "embed_share": "influence of the embeddings",
            "bias_share": "influence of the biases",
            "error_share": "influence of what is not linear in experts",
            "kept_share": "influence of kept heads and experts, of all of them",
        }
        return made | {name: ((), self.shares[name], quantity(text)) for name, text in said.items()}

    def coords(self, columns: list[int]) -> dict:
        nodes = self.frozen.nodes
        sources = [nodes[i] for i in self.kept.tolist()]
        targets = [nodes[i] for i in self.targets[:-1].tolist()]
        end = ("logits", "logits", self.frozen.model.config.n_layers, -1, columns[-1])
        return _along("source", [_row(node, columns) for node in sources]) | _along(
            "target", [*(_row(node, columns) for node in targets), end]
        )


def _row(node: Node, columns: list[int]) -> tuple[str, str, int, int, int]:
    """Name, kind, layer, index, position: of the embedding, layer and index are −1."""
    assert node.pos is not None
    node = node.at(columns[node.pos])
    layer, index = (-1 if value is None else value for value in (node.layer, node.index))
    return node.name, node.kind, layer, index, columns[-1] if node.pos is None else node.pos


def _along(dim: str, rows: list[tuple[str, str, int, int, int]]) -> dict:
    names = ("", "_kind", "_layer", "_index", "_pos")
    columns = zip(*rows, strict=True)
    return {f"{dim}{name}": (dim, np.array(values)) for name, values in zip(names, columns, strict=True)}


def _influence(frozen: Frozen) -> tuple[Float[Tensor, " node"], dict[str, float]]:
    """Of every node and, last, of the logits (1); and of what has no input: the embeddings, the biases, the errors.

    Rows of the adjacency are made stage by stage, from the logits back, and thrown away: all of it would not fit in
    memory at the real size.
    """
    influence = torch.zeros(len(frozen.nodes) + 1, dtype=torch.float64)
    influence[-1] = 1
    ends = {"bias_share": 0.0, "error_share": 0.0}
    for stage in reversed(frozen.stages):
        edges = stage.edges(frozen.writes[: stage.sees], frozen.pos[: stage.sees]).abs().double()
        bias, error = stage.bias.abs().double(), stage.error.abs().double()
        arriving = influence[stage.first : stage.first + len(bias)]
        share = arriving / (edges.sum(1) + bias + error).clamp(min=1e-30)
        influence[: stage.sees] += share @ edges
        ends["bias_share"] += float(share @ bias)
        ends["error_share"] += float(share @ error)
    return influence, ends | {"embed_share": float(influence[: frozen.n_pos].sum())}
