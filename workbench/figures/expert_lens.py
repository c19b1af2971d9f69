"""The expert lens as a table: a row for each token, in each layer its experts, with the word that each says."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import label_room, role_bands, strided, token_ticks
from workbench.figures.style import (
    DIVERGING,
    SEQUENTIAL,
    WIDTH,
    add_scale,
    as_lists,
    colours,
    figure,
    need,
    scale_bar,
    written_on,
)
from workbench.figures.text import label, labels

_ROW, _TOP, _WORDS = 21, 104, 150
SHADES = {"magnitude": "‖w · y‖ / rms(final)", "contribution": "logits added to the target"}


def expert_lens_heatmap(
    data: xr.Dataset,
    shade: str = "magnitude",
    title: str = "Expert lens: what each expert says, and how loudly",
    subtitle: str | None = None,
    max_layers: int = 6,
) -> go.Figure:
    """What ``experiments.expert_lens`` returns: in each cell the token that the expert raises the most.

    Args:
        shade: "magnitude", how much of the final stream the route is; or "contribution", what it adds to the target.
        max_layers: layers beyond that are strided; the last one is always kept.

    Raises:
        ValueError: for a dataset that is no expert lens, or an unknown shade.
    """
    if shade not in SHADES:
        raise ValueError(f"shade={shade!r}: expected one of {list(SHADES)}")
    need(data, "expert_lens", "magnitude", "contribution", "top_token")
    data = data.isel(layer=strided(data.sizes["layer"], max_layers)).transpose("pos", "layer", "slot", ...)
    n, n_layers, n_slots = (data.sizes[dim] for dim in ("pos", "layer", "slot"))
    row, left = (_ROW if n <= _WORDS else 8), label_room(data, "pos")
    cell = float(np.clip((WIDTH - left - 30) / (n_layers * n_slots), 20, 96))
    z = data[shade].values.reshape(n, -1)
    signed = shade == "contribution"
    high = float(np.abs(z).max(initial=0.0)) or 1.0
    low, scale = (-high, DIVERGING) if signed else (0.0, SEQUENTIAL)
    width = round(max(left + cell * z.shape[1] + 30, 480))
    said = "a column for each slot, strongest first; word: the token that the expert raises the most"
    made = figure(title, said if subtitle is None else subtitle, data, width=width, height=_TOP + 18 + row * n)
    words = _written(data, z, scale, low, high, cell) if n <= _WORDS and cell >= 34 else {}
    look = {"zmin": low, "zmax": high, "colorscale": scale, "colorbar": scale_bar(), "hoverinfo": "text"}
    gaps = {"xgap": 1, "ygap": 1 if row == _ROW else 0}
    at = {"x": list(range(z.shape[1])), "y": list(range(n))}
    made.add_trace(go.Heatmap(z=as_lists(z), hovertext=_hover(data), **at, **look, **gaps, **words))
    middles = [i * n_slots + (n_slots - 1) / 2 for i in range(n_layers)]
    made.update_xaxes(tickvals=middles, ticktext=[f"layer {i}" for i in data.layer.values], side="top", showline=False)
    made.update_yaxes(
        range=[n - 0.5, -0.5], ticklabelstandoff=8, showline=False, **token_ticks(data, "pos", float(row))
    )
    made.update_layout(margin={"l": left, "r": 30, "t": _TOP, "b": 18}, shapes=role_bands(data, "pos", "y"))
    add_scale(made, SHADES[shade])
    return made


def _written(data: xr.Dataset, z: np.ndarray, scale: list[str], low: float, high: float, cell: float) -> dict:
    words = data.top_token.isel(rank=0).values.reshape(len(z), -1)
    limit = max(3, int((cell - 6) / 6.2))
    text = [
        [written_on(word, fill) for word, fill in zip(labels(line, limit), colours(zs, scale, low, high), strict=True)]
        for line, zs in zip(words, z, strict=True)
    ]
    return {"text": text, "texttemplate": "%{text}", "textfont": {"size": 10}}


def _hover(data: xr.Dataset) -> list[list[str]]:
    tokens, targets = labels(data.token.values, 40), labels(data.target_token.values, 40)
    numbers = [data[name].values for name in ("chosen", "weight", "magnitude", "contribution")]
    best, logit = data.top_token.values, data.top_logit.values
    rows = []
    for i, (token, target) in enumerate(zip(tokens, targets, strict=True)):
        cells = []
        for j, layer in enumerate(data.layer.values):
            for k in range(data.sizes["slot"]):
                expert, weight, magnitude, added = (values[i, j, k] for values in numbers)
                head = f"<b>{token}</b>, layer {layer}, expert {expert} (weight {weight:.3f})"
                words = [f"{v:.2f}  {label(str(w), 40)}" for w, v in zip(best[i, j, k], logit[i, j, k], strict=True)]
                tail = f"magnitude {magnitude:.2f}; adds {added:+.3f} to the logit of {target}"
                cells.append("<br>".join([head, *words, tail]))
        rows.append(cells)
    return rows
