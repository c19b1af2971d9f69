"""Routing: each token's experts, layer by layer, and how the load is spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.figures.axes import label_room, role_bands, token_ticks
from workbench.figures.style import EXPERTS, INK, MONO, PAPER, SOFT, TEMPLATE, WIDTH, as_lists, figure, ink_on, need
from workbench.figures.text import labels

_ROW, _SMALLEST_ROW, _CELL = 21, 4, 150.0
_TOP = 92


def expert_colour(expert: int | np.integer) -> str:
    """The colour of an expert's number. There are twelve, so the number is always written too."""
    return EXPERTS[int(expert) % len(EXPERTS)]


def routing_ribbon(
    data: xr.Dataset,
    layers: Sequence[int] | None = None,
    title: str = "Routing: which experts each token goes to",
    subtitle: str | None = None,
) -> go.Figure:
    """What ``experiments.routing`` returns: a row for each token, in each layer its experts, as wide as their weights.

    Args:
        layers: only these, for a model of many.

    Raises:
        ValueError: for a dataset that holds no routing, or a layer that it does not have.
    """
    need(data, "routing", "chosen", "weight")
    chosen = _layers(data, layers)
    data = data.sel(layer=chosen)
    n, left = data.sizes["pos"], label_room(data, "pos")
    cell = min((WIDTH - left - 24) / len(chosen), _CELL)
    row = float(np.clip(1500 / n, _SMALLEST_ROW, _ROW))
    if subtitle is None:
        subtitle = "number and colour: the expert (each layer has its own); width: its routing weight"
    width = round(left + max(cell * len(chosen), 470) + 24)
    made = figure(title, subtitle, data, showlegend=False, barmode="overlay", bargap=0, width=width)
    made.add_traces([_slot(data, slot, cell, row) for slot in range(data.sizes["slot"])])
    made.update_xaxes(tickvals=[i + 0.5 for i in range(len(chosen))], ticktext=[f"layer {layer}" for layer in chosen])
    end = (width - left - 24) / cell
    made.update_xaxes(range=[0, end], side="top", showline=False, fixedrange=True)
    made.update_yaxes(range=[n - 0.5, -0.5], ticklabelstandoff=8, showline=False, **token_ticks(data, "pos", row))
    margin = {"l": left, "r": 24, "t": _TOP, "b": 20}
    return made.update_layout(margin=margin, shapes=role_bands(data, "pos", "y"), height=round(_TOP + 20 + row * n))


def _layers(data: xr.Dataset, layers: Sequence[int] | None) -> list[int]:
    there = [int(layer) for layer in data.coords["layer"].values]
    chosen = there if layers is None else [int(layer) for layer in layers]
    if not chosen or not set(chosen) <= set(there):
        raise ValueError(f"layers={layers}: this dataset has layers {there[0]} to {there[-1]}")
    return chosen


def _slot(data: xr.Dataset, slot: int, cell: float, row: float) -> go.Bar:
    """One slot of every token and layer, side by side with the slots before it."""
    weights = data.weight.transpose("pos", "layer", "slot").values
    experts = data.chosen.transpose("pos", "layer", "slot").values
    n, n_layers, _ = weights.shape
    share = 1 - 6 / cell  # a gap of six pixels between layers
    base = np.arange(n_layers) + 3 / cell + share * weights[..., :slot].sum(-1)
    here = experts[..., slot].reshape(-1)
    wide = weights[..., slot].reshape(-1) * share * cell
    numbers = [str(e) if w >= 7 * len(str(e)) + 2 and row >= 12 else "" for e, w in zip(here, wide, strict=True)]
    fills = [expert_colour(expert) for expert in here]
    return go.Bar(
        orientation="h",
        base=as_lists(base.reshape(-1)),
        x=as_lists(weights[..., slot].reshape(-1).astype(float) * share),
        y=np.repeat(np.arange(n), n_layers).tolist(),
        width=0.84,
        text=numbers,
        textfont={"family": MONO, "size": 11, "color": [ink_on(fill) for fill in fills]},
        textposition="inside",
        insidetextanchor="middle",
        constraintext="none",
        textangle=0,
        marker={"color": fills, "line": {"color": PAPER, "width": 1 if row >= 12 else 0.3}},
        customdata=np.stack([here, weights[..., slot].reshape(-1)], axis=1).tolist(),
        hovertext=_hover(data, experts, weights),
        hoverinfo="text",
        name=f"slot {slot}",
    )


def _hover(data: xr.Dataset, experts: np.ndarray, weights: np.ndarray) -> list[str]:
    tokens, positions, layers = labels(data.token.values, 40), data.pos.values, data.layer.values
    lines = []
    for i, token in enumerate(tokens):
        for j, layer in enumerate(layers):
            routes = [f"expert {e}: {w:.3f}" for e, w in zip(experts[i, j], weights[i, j], strict=True)]
            lines.append("<br>".join([f"<b>{token}</b> (position {positions[i]}), layer {layer}", *routes]))
    return lines


def expert_load(
    data: xr.Dataset,
    layers: Sequence[int] | None = None,
    title: str = "Load: what share of the tokens each expert gets",
    subtitle: str | None = None,
) -> go.Figure:
    """What ``experiments.expert_load`` (or ``routing``) returns: bars for each layer, and a line at an even spread."""
    need(data, "expert_load", "load")
    chosen, even = _layers(data, layers), data.attrs.get("even_load")
    n_columns = min(len(chosen), 4 if data.sizes["expert"] <= 16 else 2)
    n_rows = -(-len(chosen) // n_columns)
    height = 104 + 46 + 130 * n_rows
    names = [f"layer {layer}" for layer in chosen]
    grid = make_subplots(n_rows, n_columns, subplot_titles=names, shared_yaxes="all", shared_xaxes="all",
                         vertical_spacing=min(0.3, 34 / height), horizontal_spacing=0.03)  # fmt: skip
    for i, layer in enumerate(chosen):
        where = {"row": i // n_columns + 1, "col": i % n_columns + 1}
        grid.add_trace(_load_bars(data, layer), **where)
        if even is not None:
            grid.add_hline(even, line={"color": SOFT, "width": 1, "dash": "dot"}, **where)
    if subtitle is None:
        subtitle = f"dotted: an even spread, {even:.0%}" if even is not None else ""
    made = figure(
        title,
        subtitle,
        data,
        showlegend=False,
        height=height,
        width=min(WIDTH, 90 + 200 * n_columns + 180 * (n_columns == 1)),
    )
    grid.update_layout(made.layout.to_plotly_json())
    grid.update_layout(template=TEMPLATE, bargap=0.15, margin={"l": 56, "r": 20, "t": 104, "b": 46})
    grid.update_annotations(font={"size": 12, "color": SOFT})
    ticks = data.sizes["expert"] <= 16
    return grid.update_xaxes(dtick=1 if ticks else 4).update_yaxes(rangemode="tozero", tickformat=".0%", nticks=5)


def _load_bars(data: xr.Dataset, layer: int) -> go.Bar:
    load, experts = data["load"].sel(layer=layer), data.coords["expert"].values
    hover = [
        f"layer {layer}, expert {e}<br>{float(v):.1%} of the tokens" for e, v in zip(experts, load.values, strict=True)
    ]
    fills, line = [expert_colour(e) for e in experts], {"color": INK, "width": 0}
    return go.Bar(
        x=experts.tolist(),
        y=as_lists(load.values),
        hovertext=hover,
        hoverinfo="text",
        marker={"color": fills, "line": line},
        name=f"layer {layer}",
    )
