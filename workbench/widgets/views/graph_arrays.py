"""A traced graph as the browser reads it: nodes, edges by falling share, and what was confirmed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

KINDS = ("embed", "head", "expert", "logits", "error")
MOST_EDGES = 4000
PREFERRED = 120  # edges that are seen before anybody moves the threshold
NUMBERS = ("activation", "influence", "bias", "error", "rest", "total", "routing_weight", "bias_influence")


@dataclass(frozen=True, eq=False)
class Arrays:
    """A graph in numbers.

    Attributes:
        names: of the nodes: those kept, "logits", and the errors of experts as "error of L1E2@3".
        node: [node 4] kind, layer, index, position.
        number: [node 8] NUMBERS, NaN where a node has none; of an error, its effect and share.
        ends: [edge 2] nodes, source and target; the edges fall in share.
        edge: [edge 4] effect in logits, share of the flow into the logits, share of what comes in at the target,
            attention of the target to the source's position (NaN but for heads).
        n_edges: how many there are, with those beyond MOST_EDGES.
        share_left: of the flow of all edges, what those beyond it have.
    """

    names: list[str]
    node: np.ndarray
    number: np.ndarray
    ends: np.ndarray
    edge: np.ndarray
    n_edges: int
    share_left: float

    @property
    def index(self) -> dict[tuple[str, str], int]:
        """Edge by its ends' names."""
        return {(self.names[a], self.names[b]): i for i, (a, b) in enumerate(self.ends.tolist())}

    @property
    def threshold(self) -> float:
        """The share of an edge from which on edges are seen at first."""
        return float(self.edge[min(PREFERRED, len(self.edge)) - 1, 1]) if len(self.edge) else 0.0


def arrays_of(data: xr.Dataset) -> Arrays:
    """The arrays of ``attribution_graph``'s dataset."""
    sources, targets = map(str, data.source.values), map(str, data.target.values)
    names = [*sources, "logits"]
    place = {name: i for i, name in enumerate(names)}
    rows = np.array([place[name] for name in targets])
    node, number = _nodes(data, rows, len(names))
    wrong = np.flatnonzero((data.target_kind.values == "expert") & (data.error.values != 0))
    names += [f"error of {data.target.values[i]}" for i in wrong]
    of_errors = np.full((len(wrong), number.shape[1]), np.nan, np.float32)
    of_errors[:, 0], of_errors[:, 1] = data.error.values[wrong], data.error_influence.values[wrong]
    kinds = node[rows[wrong]]
    kinds[:, 0] = KINDS.index("error")
    first = len(node)
    ends, edge = _edges(data, rows, wrong, first)
    order = np.argsort(-edge[:, 1], kind="stable")
    kept = order[:MOST_EDGES]
    whole = float(edge[:, 1].sum())
    left = float(edge[order[MOST_EDGES:], 1].sum()) / whole if whole else 0.0
    all_nodes, numbers = np.concatenate([node, kinds]), np.concatenate([number, of_errors])
    return Arrays(names, all_nodes, numbers, ends[kept], edge[kept], len(order), left)


def _nodes(data: xr.Dataset, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    node, number = np.zeros((n, 4), np.int32), np.full((n, len(NUMBERS)), np.nan, np.float32)
    for dim, at in (("source", np.arange(n - 1)), ("target", rows)):
        node[at, 0] = [KINDS.index(kind) for kind in data[f"{dim}_kind"].values.tolist()]
        for i, part in enumerate(("layer", "index", "pos"), 1):
            node[at, i] = data[f"{dim}_{part}"].values
    number[:-1, 0], number[:-1, 1] = data.activation.values, data.influence.values
    number[-1, 0], number[-1, 1] = float(data.value), 1.0
    for i, name in enumerate(NUMBERS[2:], 2):
        number[rows, i] = data[name].values
    return node, number


def _edges(data: xr.Dataset, rows: np.ndarray, wrong: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends and numbers of all edges, those of errors last."""
    effect, flow = data.adjacency.values, data.edge_influence.values
    at, of = np.nonzero(effect)
    influence = dict(zip(map(str, data.source.values), data.influence.values.tolist(), strict=True))
    into = np.array([1.0 if name == "logits" else influence[name] for name in map(str, data.target.values)])
    share = flow[at, of] / np.maximum(into[at], 1e-30)
    plain = np.stack([effect[at, of], flow[at, of], share, data.attention.values[at, of]], 1)
    error = data.error_influence.values[wrong]
    more = [data.error.values[wrong], error, error / np.maximum(into[wrong], 1e-30), np.full(len(wrong), np.nan)]
    ends = np.concatenate([np.stack([of, rows[at]], 1), np.stack([first + np.arange(len(wrong)), rows[wrong]], 1)])
    return ends.astype(np.int32), np.concatenate([plain, np.stack(more, 1)]).astype(np.float32)


# ---------------------------------------------------------------- what was confirmed


def checked(data: xr.Dataset, arrays: Arrays) -> dict[str, np.ndarray]:
    """Edges that were taken away, by their place among those sent (−1: not sent), and what that did."""
    if "edge" not in data.coords and "predicted" not in data:
        return {"checked": np.zeros(0, np.int32), "found": np.zeros((0, 3), np.float32)}
    index = arrays.index
    places = [index.get(_ends(name), -1) for name in map(str, data.edge.values)]
    found = np.stack([data[name].values for name in ("predicted", "frozen_effect", "live_effect")], 1)
    return {"checked": np.array(places, np.int32), "found": found.astype(np.float32)}


def _ends(name: str) -> tuple[str, str]:
    source, target = name.split(" → ")
    return source, target


def summary(data: xr.Dataset) -> dict[str, Any]:
    """What stands beside every graph: where it starts, how much of it is kept, how far it is the live model."""
    shares = {name: float(data[f"{name}_share"]) for name in ("embed", "bias", "error", "kept")}
    n = data.sizes.get("edge", 0)
    parts = ("frozen_correlation", "frozen_signs", "live_correlation", "live_signs")
    found = {name: float(data[name]) if n else None for name in parts}
    return {"value": float(data.value), **shares, "n_checked": n, **found, "verdict": verdict(n, found)}


def verdict(n: int, found: dict[str, float | None]) -> str:
    """How far the graph describes the live model, in words."""
    if not n:
        return "No edge was confirmed yet: the graph is of the held model, and need not be the live one's."
    r, signs = found["live_correlation"], found["live_signs"] or 0.0
    r = float("nan") if r is None else r
    alike = f"{round(signs * n)} of {n} edges have the predicted sign in the live model"
    alike += f", r = {r:.2f}." if np.isfinite(r) else "."
    if n < 3 or not np.isfinite(r):
        return f"Too few edges to judge: {alike}"
    if r >= 0.9 and signs >= 0.9:
        return f"The live model agrees: {alike}"
    if r >= 0.5 and signs >= 0.7:
        return f"The live model agrees in part: {alike} Sizes may be off."
    return f"The live model does not agree: {alike} Read the graph as one of the held model only."
