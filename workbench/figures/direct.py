"""Direct logit attribution: what each head and each expert wrote of an answer's logit, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import DIVERGING, SOFT, add_scale, as_lists, colours, figure, need, scale_bar, written_on
from workbench.figures.text import label

_ROW, _TOP, _BOTTOM = 26, 124, 54
_WORDS = 26  # pixels that a number in a cell needs


def direct_logit_attribution(
    data: xr.Dataset,
    title: str | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """What ``experiments.direct_logit_attribution`` returns: layers × (heads, experts), and the embedding and biases.

    Orange raises the answer, blue lowers it. "·" stands where an expert was not routed to.

    Raises:
        ValueError: for a dataset of another experiment.
    """
    need(data, "direct_logit_attribution", "heads", "experts", "attn_bias", "embed", "total", "chosen")
    blocks = _blocks(data)
    high = max(1e-9, *(float(np.nanmax(np.abs(values), initial=0.0)) for _, values in blocks))
    n_layers, n_cells = data.sizes["layer"], sum(values.shape[1] for _, values in blocks) + len(blocks) - 1
    column = float(np.clip(760 / n_cells, 5, 34))
    title = title or f"Who wrote the {label(str(data.attrs.get('answers', 'logit')), 60)}"
    made = figure(title, _said(data) if subtitle is None else subtitle, data)
    ticks: list[tuple[float, str]] = []
    start = 0
    for name, values in blocks:
        made.add_trace(_cells(name, values, start, data.layer.values, high, column))
        every = max(1, int(np.ceil(14 / column)))
        ticks += [(start + i, str(i)) for i in range(0, values.shape[1], every)] if values.shape[1] > 1 else []
        middle, font = start + (values.shape[1] - 1) / 2, {"size": 12, "color": SOFT}
        made.add_annotation(x=middle, y=1, yref="paper", yanchor="bottom", text=name, showarrow=False, font=font)
        start += values.shape[1] + 1
    made.update_xaxes(tickvals=[at for at, _ in ticks], ticktext=[text for _, text in ticks], showline=False)
    layers = [str(layer) for layer in data.layer.values]
    made.update_yaxes(
        tickvals=list(range(n_layers)), ticktext=layers, range=[n_layers - 0.5, -0.5], title="layer", showline=False
    )
    size = {"width": max(700, round(96 + column * (start - 1))), "height": _TOP + _BOTTOM + _ROW * n_layers}
    axis = {"colorscale": DIVERGING, "cmin": -high, "cmax": high, "colorbar": scale_bar(nticks=3)}
    made.update_layout(coloraxis=axis, margin={"l": 60, "r": 36, "t": _TOP, "b": _BOTTOM}, **size)
    add_scale(made, "logits")
    return made


def _blocks(data: xr.Dataset) -> Sequence[tuple[str, np.ndarray]]:
    """Tables side by side, each [layer column]; NaN where there is nothing."""
    experts = data.experts.transpose("layer", "expert").values.astype(float)
    routed = np.zeros(experts.shape, dtype=bool)
    np.put_along_axis(routed, data.chosen.transpose("layer", "slot").values, True, axis=1)
    heads = data.heads.transpose("layer", "head").values
    return [("head", heads), ("b_O", data.attn_bias.values[:, None]), ("expert", np.where(routed, experts, np.nan))]


def _said(data: xr.Dataset) -> str:
    after = f"after {label(str(data.attrs['token']))} · " if "token" in data.attrs else ""
    total, embed = float(data.total), float(data.embed)
    return f"{after}in all {total:+.2f}, of which the embedding {embed:+.2f}; orange raises it, blue lowers it"


def _cells(name: str, values: np.ndarray, start: int, layers: np.ndarray, high: float, column: float) -> go.Heatmap:
    which = "" if values.shape[1] == 1 else name
    hover = [
        [f"layer {layer}, {which or name}{f' {i}' if which else ''}: {_number(value)}" for i, value in enumerate(row)]
        for layer, row in zip(layers, values, strict=True)
    ]
    words = {}
    if column >= _WORDS:
        text = [[_written(value, high) for value in row] for row in values]
        words = {"text": text, "texttemplate": "%{text}", "textfont": {"size": 9}}
    x = [start + i for i in range(values.shape[1])]
    look = {"coloraxis": "coloraxis", "xgap": 1, "ygap": 1, "hovertext": hover, "hoverinfo": "text", "name": name}
    return go.Heatmap(z=as_lists(values), x=x, y=list(range(len(values))), **look, **words)


def _number(value: np.floating) -> str:
    return f"{value:+.4f} logits" if np.isfinite(value) else "not routed"


def _written(value: np.floating, high: float) -> str:
    if not np.isfinite(value):
        return "·"
    short = f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".")
    return written_on(short, colours([float(value)], DIVERGING, -high, high)[0])
