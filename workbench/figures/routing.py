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

_ROW, _SMALLEST_ROW, _NUMBERED_ROW, _CELL = 21, 4, 12, 150.0
_PARTS = 24  # steps into which an overview divides the weights of a cell
# EXPERTS as a scale of steps: one flat colour for each whole number.
_STEPS = [[(i + end) / len(EXPERTS), colour] for i, colour in enumerate(EXPERTS) for end in (0, 1)]
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
    # Wide enough for a number in each slot: a model of many layers makes a wide figure.
    cell = float(np.clip((WIDTH - left - 30) / len(chosen), 17 * data.sizes["slot"], _CELL))
    row = float(np.clip(1500 / n, _SMALLEST_ROW, _ROW))
    many = row < _NUMBERED_ROW
    if subtitle is None:
        named = "colour: the expert, slice it to read its number" if many else "number and colour: the expert"
        subtitle = f"{named} (each layer has its own); width: its routing weight"
    width = round(left + max(cell * len(chosen), 470) + 30)
    made = figure(title, subtitle, data, showlegend=False, barmode="overlay", bargap=0, width=width)
    made.add_traces([_overview(data)] if many else [_slot(data, slot, cell) for slot in range(data.sizes["slot"])])
    made.update_xaxes(tickvals=[i + 0.5 for i in range(len(chosen))], ticktext=[f"layer {layer}" for layer in chosen])
    end = (width - left - 30) / cell
    made.update_xaxes(range=[0, end], side="top", showline=False, fixedrange=True)
    made.update_yaxes(range=[n - 0.5, -0.5], ticklabelstandoff=8, showline=False, **token_ticks(data, "pos", row))
    margin = {"l": left, "r": 30, "t": _TOP, "b": 20}
    return made.update_layout(margin=margin, shapes=role_bands(data, "pos", "y"), height=round(_TOP + 20 + row * n))


def _layers(data: xr.Dataset, layers: Sequence[int] | None) -> list[int]:
    there = [int(layer) for layer in data.coords["layer"].values]
    chosen = there if layers is None else [int(layer) for layer in layers]
    if not chosen or not set(chosen) <= set(there):
        raise ValueError(f"layers={layers}: this dataset has layers {there[0]} to {there[-1]}")
    return chosen


def _slot(data: xr.Dataset, slot: int, cell: float) -> dict:
    """One slot of every token and layer, side by side with the slots before it; a dict, for plotly to check once."""
    weights = data.weight.transpose("pos", "layer", "slot").values
    n, n_layers, _ = weights.shape
    share = 1 - 6 / cell  # a gap of six pixels between layers
    base = np.arange(n_layers) + 3 / cell + share * weights[..., :slot].sum(-1)
    here = data.chosen.transpose("pos", "layer", "slot").values[..., slot].reshape(-1)
    weight = weights[..., slot].reshape(-1)
    # Colours as numbers on a scale of steps: names would take plotly seconds to check.
    fill = {"color": (here % len(EXPERTS)).tolist(), "colorscale": _STEPS, "cmin": -0.5, "cmax": len(EXPERTS) - 0.5}
    return {
        "type": "bar",
        "orientation": "h",
        "base": as_lists(base.reshape(-1)),
        "x": as_lists(weight.astype(float) * share),
        "y": np.repeat(np.arange(n), n_layers).tolist(),
        "width": 0.84,
        "marker": {**fill, "line": {"color": PAPER, "width": 1}},
        "customdata": here.tolist(),
        "meta": as_lists(weight),
        "hovertext": _hover(data, here, weight),
        "hoverinfo": "text",
        "name": f"slot {slot}",
        **_numbers(here, weight * share * cell),
    }


def _overview(data: xr.Dataset) -> dict:
    """The same for a long text, as one picture of small steps: as bars it would be tens of thousands of shapes."""
    weights = data.weight.transpose("pos", "layer", "slot").values
    experts = data.chosen.transpose("pos", "layer", "slot").values
    middles = (np.arange(_PARTS) + 0.5) / _PARTS
    # The slot in which each step lies: the first whose weights, added up, reach it.
    slot = (weights.cumsum(-1)[..., None, :-1] < middles[:, None]).sum(-1)
    steps = np.take_along_axis(experts, slot, axis=-1).astype(float)
    gap = np.full((*steps.shape[:-1], 1), np.nan)
    z = np.concatenate([steps, gap], axis=-1).reshape(len(steps), -1)
    last = int(experts.max()) + 1
    flat = [[(e + end) / last, expert_colour(e)] for e in range(last) for end in (0, 1)]
    return {
        "type": "heatmap",
        "z": as_lists(z),
        "x": as_lists((np.arange(z.shape[1]) + 0.5) / (_PARTS + 1)),
        "y": list(range(len(z))),
        "zmin": -0.5,
        "zmax": last - 0.5,
        "colorscale": flat,
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": "row %{y}: expert %{z}<extra></extra>",
        "name": "overview",
    }


def _numbers(experts: np.ndarray, widths: np.ndarray) -> dict:
    """Each expert's number on its bar, wherever that is wide enough."""
    text = [str(e) if w >= 7 * len(str(e)) + 2 else "" for e, w in zip(experts, widths, strict=True)]
    inks = [ink_on(colour) for colour in EXPERTS]
    font = {"family": MONO, "size": 11, "color": [inks[expert % len(inks)] for expert in experts]}
    place = {"textposition": "inside", "insidetextanchor": "middle", "constraintext": "none", "textangle": 0}
    return {"text": text, "textfont": font, **place}


def _hover(data: xr.Dataset, experts: np.ndarray, weights: np.ndarray) -> list[str]:
    tokens, positions, layers = labels(data.token.values, 40), data.pos.values, data.layer.values
    heads = [
        f"<b>{token}</b> (position {position}), layer {layer}"
        for token, position in zip(tokens, positions, strict=True)
        for layer in layers
    ]
    return [f"{head}<br>expert {e}: {w:.3f}" for head, e, w in zip(heads, experts, weights, strict=True)]


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
    if subtitle is None:
        subtitle = f"dotted: an even spread, {100 * even:.3g}%" if even is not None else ""
    made = figure(
        title,
        subtitle,
        data,
        showlegend=False,
        height=height,
        width=min(WIDTH, 90 + 200 * n_columns + 180 * (n_columns == 1)) if data.sizes["expert"] <= 16 else WIDTH,
    )
    grid.update_layout(made.layout.to_plotly_json())
    grid.update_layout(template=TEMPLATE, bargap=0.15, margin={"l": 56, "r": 20, "t": 104, "b": 46})
    if even is not None:
        grid.update_layout(shapes=[_even_line(even, i + 1) for i in range(len(chosen))])
    grid.update_annotations(font={"size": 12, "color": SOFT})
    ticks = data.sizes["expert"] <= 16
    return grid.update_xaxes(dtick=1 if ticks else 4).update_yaxes(rangemode="tozero", tickformat=".0%", nticks=5)


def _even_line(even: float, number: int) -> dict:
    """A dotted line across one of the small plots."""
    name = "" if number == 1 else str(number)
    across = {"x0": 0, "x1": 1, "xref": f"x{name} domain", "y0": even, "y1": even, "yref": f"y{name}"}
    return {"type": "line", "line": {"color": SOFT, "width": 1, "dash": "dot"}, **across}


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
