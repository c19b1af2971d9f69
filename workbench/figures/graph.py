"""Attribution graphs, drawn: tokens from left to right, layers from below, and the edges that carry most."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import label_room, role_bands, token_ticks
from workbench.figures.style import GREY, INK, PAPER, figure, need
from workbench.figures.text import label

_BAND, _LEFT, _TOP = 46, 74, 96  # pixels of one row of nodes, and of the margins
_SMALL, _LARGE = 4.0, 20.0  # pixels of a node
_SYMBOLS = {"embed": "square", "head": "circle", "expert": "hexagon", "logits": "square"}
ADDS, TAKES = "#1b7837", "#762a83"  # the ends of ColorBrewer's PRGn (colorbrewer2.org)
_WIDTHS = 5  # steps in which edges get thicker: one trace for each, and not one for each edge


def attribution_graph(
    data: xr.Dataset,
    n_edges: int = 120,
    n_nodes: int | None = None,
    title: str | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """What ``experiments.attribution_graph`` returns. Heads are circles, experts hexagons, embeddings squares.

    A node is as large as its influence; green adds to the target, purple takes from it. So do the edges, of which the
    ``n_edges`` of largest influence are drawn.

    Args:
        n_nodes: draw the most influential ones only; None: all that the graph kept.

    Raises:
        ValueError: for a dataset of another experiment, or numbers below 1.
    """
    need(data, "attribution_graph", "adjacency", "edge_influence", "activation", "influence", "value")
    for name, value in (("n_edges", n_edges), ("n_nodes", n_nodes)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    nodes = _Nodes(data, n_nodes)
    n_layers, n_pos = int(data.target_layer.max()), data.sizes["pos"]
    cell = float(np.clip(760 / max(1, n_pos), 2, 60))
    title = title or f"What led to the {label(str(data.attrs.get('target', 'target')), 60)}"
    width = max(560, round(_LEFT + 30 + cell * n_pos))
    room = label_room(data, "pos")
    height = _TOP + room + 14 + _BAND * (2 * n_layers + 2)
    made = figure(title, _said(data) if subtitle is None else subtitle, data, width=width, height=height)
    for trace in _edges(data, nodes, n_edges):
        made.add_trace(trace)
    for kind, symbol in _SYMBOLS.items():
        made.add_trace(nodes.trace(kind, symbol))
    made.update_xaxes(range=[-0.7, n_pos - 0.3], tickangle=-90, showline=False, **token_ticks(data, "pos", cell))
    ticks = [(0, "embed")] + [
        (2 * i + 1 + j, f"{i} {n}") for i in range(n_layers) for j, n in enumerate(("attn", "exp"))
    ]
    ticks.append((2 * n_layers + 1, "logits"))
    look = {"tickvals": [at for at, _ in ticks], "ticktext": [text for _, text in ticks], "showline": False}
    made.update_yaxes(range=[-0.6, 2 * n_layers + 1.6], **look)
    margin = {"l": _LEFT, "r": 30, "t": _TOP, "b": room + 14}
    return made.update_layout(margin=margin, showlegend=False, shapes=role_bands(data, "pos", "x"))


def _said(data: xr.Dataset) -> str:
    shares = [f"{float(data[f'{name}_share']):.0%} {text}" for name, text in _SHARES.items() if f"{name}_share" in data]
    value = f"in all {float(data.value):+.2f}"
    return " · ".join(
        [value, "green adds to it, purple takes from it", *([f"flow from: {', '.join(shares)}"] if shares else [])]
    )


_SHARES = {"embed": "tokens", "bias": "biases", "error": "what is not linear in experts"}


class _Nodes:
    """Where each node stands: its token, its row, and beside the others of the same place."""

    def __init__(self, data: xr.Dataset, n_nodes: int | None) -> None:
        order = np.argsort(-data.influence.values, kind="stable")[:n_nodes]
        self.rows = sorted(order.tolist())
        self.data = data
        columns = {pos: i for i, pos in enumerate(data.pos.values.tolist())}
        self.place: dict[str, tuple[float, float]] = {}
        shared = defaultdict(list)
        for i in self.rows:
            kind, layer = str(data.source_kind.values[i]), int(data.source_layer.values[i])
            row = {"embed": 0, "head": 2 * layer + 1, "expert": 2 * layer + 2}[kind]
            shared[columns[int(data.source_pos.values[i])], row].append(str(data.source.values[i]))
        for (column, row), names in shared.items():
            for i, name in enumerate(names):
                self.place[name] = column, row + 0.62 * ((i + 0.5) / len(names) - 0.5)
        self.place["logits"] = columns[int(data.target_pos.values[-1])], 2 * int(data.target_layer.max()) + 1

    def trace(self, kind: str, symbol: str) -> go.Scatter:
        """All nodes of a kind."""
        data = self.data
        rows = [i for i in self.rows if data.source_kind.values[i] == kind]
        names = [str(data.source.values[i]) for i in rows]
        influence, activation = data.influence.values[rows], data.activation.values[rows]
        tokens = dict(zip(data.pos.values.tolist(), map(str, data.token.values), strict=True))
        if kind == "logits":
            names, influence, activation = ["logits"], np.ones(1), np.array([float(data.value)])
            at = [int(data.target_pos.values[-1])]
        else:
            at = data.source_pos.values[rows].tolist()
        hover = [
            f"{label(name)} at {label(tokens[pos])}<br>effect {value:+.4f} · influence {share:.1%}"
            for name, pos, value, share in zip(names, at, activation, influence, strict=True)
        ]
        high = max(float(data.influence.values.max(initial=0)), 1e-12)
        sizes = _SMALL + (_LARGE - _SMALL) * np.sqrt(np.clip(influence / high, 0, 1))
        marker = {
            "symbol": symbol,
            "size": [round(float(size), 1) for size in sizes],
            "color": [INK if kind == "logits" else _colour(float(value)) for value in activation],
            "opacity": 1,
            "line": {"width": 0.8, "color": PAPER},
        }
        x, y = ([self.place[name][i] for name in names] for i in (0, 1))
        return go.Scatter(
            x=x, y=y, mode="markers", marker=marker, hovertext=hover, hoverinfo="text", name=kind, cliponaxis=False
        )


def _colour(value: float) -> str:
    return ADDS if value > 0 else TAKES if value < 0 else GREY


def _edges(data: xr.Dataset, nodes: _Nodes, n_edges: int) -> list[go.Scatter]:
    """The edges of largest influence, the thinnest first, so that the thickest lie on top."""
    flow, value = data.edge_influence.values, data.adjacency.values
    order = np.argsort(-flow.ravel(), kind="stable")[:n_edges]
    targets, sources = map(str, data.target.values), map(str, data.source.values)
    target_names, source_names = list(targets), list(sources)
    high = max(float(flow.max(initial=0)), 1e-12)
    groups: dict[tuple[int, bool], tuple[list, list]] = defaultdict(lambda: ([], []))
    for i in order[::-1]:
        row, column = divmod(int(i), len(source_names))
        start, end = source_names[column], target_names[row]
        if flow[row, column] <= 0 or start not in nodes.place or end not in nodes.place:
            continue
        step = min(_WIDTHS - 1, int(_WIDTHS * np.sqrt(flow[row, column] / high)))
        xs, ys = groups[step, bool(value[row, column] > 0)]
        xs += [nodes.place[start][0], nodes.place[end][0], None]
        ys += [nodes.place[start][1], nodes.place[end][1], None]
    return [_lines(step, positive, xs, ys) for (step, positive), (xs, ys) in sorted(groups.items(), key=lambda g: g[0])]


def _lines(step: int, positive: bool, xs: list, ys: list) -> go.Scatter:
    line = {"width": 0.5 + 0.9 * step, "color": ADDS if positive else TAKES, "dash": "solid" if positive else "dot"}
    name = f"edges that {'add' if positive else 'take away'}"
    return go.Scatter(x=xs, y=ys, mode="lines", line=line, opacity=0.22 + 0.13 * step, hoverinfo="skip", name=name)
