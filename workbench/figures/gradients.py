"""Attribution grids: tokens × layers, or layers × heads or experts, of patching, exact or guessed from gradients."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import label_room, role_bands, strided, token_ticks
from workbench.figures.style import DIVERGING, INK, WIDTH, add_scale, as_lists, figure, need, scale_bar
from workbench.figures.text import escape, label, labels

_TOP, _ROW, _SMALLEST_ROW = 104, 21, 4
_NARROWEST = 700  # so that the words beside the scale have room
_NAMES = {"recovered": "share of clean − corrupted", "effect": "units of the metric"}


def attribution_grid(
    data: xr.Dataset,
    kind: str | None = None,
    scale: str = "recovered",
    near: float | None = None,
    title: str | None = None,
    subtitle: str | None = None,
    max_columns: int = 24,
) -> go.Figure:
    """What ``attribution_patching``, ``integrated_gradients`` or ``patching_grid`` returns, of one kind of node.

    A site ("resid_pre", "attn_out", …) is drawn as tokens × layers; "head" and "expert" as layers × heads or experts,
    summed over positions. A dot marks the cells at whose token and layer a gradient may miss a change of route: where
    the two runs choose other experts, or the router's margin is below ``near``.

    Args:
        kind: None for the first site, or heads or experts where there is none.
        scale: "recovered", the share of clean − corrupted, or "effect", in units of the metric.
        near: router margin, in logits, below which a cell is marked; None marks only where the runs' routes differ.
        max_columns: layers beyond that are strided; the last one is always kept.

    Raises:
        ValueError: for a dataset of another experiment, or a kind or scale that it does not have.
    """
    kind = _checked(data, kind, scale)
    name = f"{kind}_{scale}" if kind in ("head", "expert") else scale
    by_token = kind not in ("head", "expert")
    values = data[name].sel(site=kind) if by_token else data[name].sum("pos", skipna=False)
    method = str(data.attrs.get("experiment", "patching")).replace("_", " ")
    if subtitle is None:
        more = "" if by_token else " · all positions together"
        more += " · dot: another route" if by_token and "routes_differ" in data else ""
        subtitle = f"{label(str(data.attrs.get('metric', 'the metric')), 40)} · orange: towards clean{more}"
    title = title or f"{escape(method.capitalize())}: {escape(kind)}"
    high = max(float(np.nanmax(np.abs(values.values), initial=0.0)), 1e-9)
    made = (
        _by_token(data, values, near, max_columns, title, subtitle)
        if by_token
        else _by_layer(data, values, title, subtitle)
    )
    axis = {"colorscale": DIVERGING, "cmin": -high, "cmax": high, "colorbar": scale_bar(nticks=3)}
    add_scale(made.update_layout(coloraxis=axis), _NAMES[scale])
    return made


def _checked(data: xr.Dataset, kind: str | None, scale: str) -> str:
    if scale not in _NAMES:
        raise ValueError(f"scale={scale!r}: expected one of {list(_NAMES)}")
    sites = [str(site) for site in data.coords["site"].values] if "site" in data.coords and scale in data else []
    kinds = sites + [other for other in ("head", "expert") if f"{other}_{scale}" in data]
    if not kinds:
        need(data, "attribution_patching", scale)
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind={kind!r}: this dataset has {kinds}")
    chosen = kinds[0] if kind is None else kind
    need(data, "attribution_patching", scale if chosen in sites else f"{chosen}_{scale}")
    return chosen


def _by_token(
    data: xr.Dataset, values: xr.DataArray, near: float | None, max_columns: int, title: str, subtitle: str
) -> go.Figure:
    chosen = strided(data.sizes["layer"], max_columns)
    table = values.transpose("pos", "layer").values[:, chosen]
    n, left = data.sizes["pos"], label_room(data, "pos")
    row = float(np.clip(1500 / n, _SMALLEST_ROW, _ROW))
    cell = float(np.clip((WIDTH - left - 30) / len(chosen), 16, 90))
    width = max(_NARROWEST, round(left + cell * len(chosen) + 30))
    made = figure(title, subtitle, data, width=width, height=round(_TOP + 24 + row * n))
    tokens, layers = labels(data.token.values, 40), [int(data.layer.values[i]) for i in chosen]
    hover = [
        [f"<b>{token}</b>, layer {layer}: {value:+.4f}" for layer, value in zip(layers, cells, strict=True)]
        for token, cells in zip(tokens, table, strict=True)
    ]
    gap = {"xgap": 1, "ygap": 1} if row >= 12 else {}
    made.add_trace(_heatmap(table, hover, **gap))
    if "routes_differ" in data:
        made.add_trace(_dots(data, chosen, near))
    made.update_xaxes(
        tickvals=list(range(len(chosen))), ticktext=[f"{layer}" for layer in layers], title="layer", side="top"
    )
    made.update_xaxes(showline=False, range=[-0.5, len(chosen) - 0.5])
    made.update_yaxes(range=[n - 0.5, -0.5], ticklabelstandoff=8, showline=False, **token_ticks(data, "pos", row))
    shapes = role_bands(data, "pos", "y")
    return made.update_layout(margin={"l": left, "r": 30, "t": _TOP, "b": 24}, shapes=shapes, showlegend=False)


def _by_layer(data: xr.Dataset, values: xr.DataArray, title: str, subtitle: str) -> go.Figure:
    kind = next(str(dim) for dim in values.dims if dim != "layer")
    table = values.transpose("layer", kind).values
    n_layers, n = table.shape
    cell = float(np.clip(720 / n, 5, 34))
    size = {"width": max(_NARROWEST, round(90 + cell * n)), "height": _TOP + 54 + 26 * n_layers}
    made = figure(title, subtitle, data, **size)
    layers = [int(layer) for layer in data.layer.values]
    hover = [
        [f"layer {layer}, {kind} {i}: {value:+.4f}" for i, value in enumerate(row)]
        for layer, row in zip(layers, table, strict=True)
    ]
    made.add_trace(_heatmap(table, hover, xgap=1, ygap=1))
    every = max(1, int(np.ceil(16 / cell)))
    ticks = list(range(0, n, every))
    made.update_xaxes(tickvals=ticks, ticktext=[str(i) for i in ticks], title=kind, showline=False)
    rows = {"tickvals": list(range(n_layers)), "ticktext": [str(layer) for layer in layers]}
    made.update_yaxes(range=[n_layers - 0.5, -0.5], title="layer", showline=False, **rows)
    return made.update_layout(margin={"l": 60, "r": 30, "t": _TOP, "b": 54})


def _heatmap(table: np.ndarray, hover: list[list[str]], **look: object) -> go.Heatmap:
    x, y = list(range(table.shape[1])), list(range(table.shape[0]))
    return go.Heatmap(z=as_lists(table), x=x, y=y, coloraxis="coloraxis", hovertext=hover, hoverinfo="text", **look)


def _dots(data: xr.Dataset, chosen: list[int], near: float | None) -> go.Scatter:
    marked = data.routes_differ.transpose("pos", "layer").values
    if near is not None:
        marked = marked | (data.router_margin.transpose("pos", "layer").values < near)
    at = np.argwhere(marked[:, chosen])
    dot = {"size": 3, "color": INK, "opacity": 0.6}
    return go.Scatter(
        x=at[:, 1].tolist(), y=at[:, 0].tolist(), mode="markers", marker=dot, hoverinfo="skip", name="another route"
    )
