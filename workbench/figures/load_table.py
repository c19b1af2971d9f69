"""Which experts serve which kind of text: a table of loads."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import SEQUENTIAL, add_scale, as_lists, colours, figure, need, scale_bar, written_on
from workbench.figures.text import columns_of, label, visible

_CELL, _ROW, _TOP = 60, 26, 96


def load_table(
    data: xr.Dataset, layer: int, by: str = "kind", title: str | None = None, subtitle: str | None = None
) -> go.Figure:
    """Loads of one layer's experts on several kinds of text, a row for each kind, a column for each expert.

    Args:
        data: datasets of ``experiments.expert_load`` joined along a new dim, as by ``xr.concat(…, dim="kind")``.
        by: the name of that dim.

    Raises:
        ValueError: for a dataset without that dim, or without that layer.
    """
    need(data, "expert_load", "load")
    if by not in data.dims or layer not in data.coords["layer"].values:
        raise ValueError(
            f"by={by!r}, layer={layer}: this dataset has dims {dict(data.sizes)}; join loads with xr.concat"
        )
    load = data["load"].sel(layer=layer).transpose(by, "expert")
    kinds, experts = [str(kind) for kind in data.coords[by].values], load.coords["expert"].values
    cell = min(_CELL, 720 / len(experts))
    left = 24 + 7 * max(columns_of(visible(kind, 30)) for kind in kinds)
    title = title or f"Load in layer {layer}: what share of a text's tokens each expert gets"
    even = data.attrs.get("even_load")
    subtitle = subtitle if subtitle is not None else f"an even spread would be {even:.0%} everywhere" if even else ""
    size = {"width": round(max(left + cell * len(experts) + 30, 620)), "height": _TOP + 52 + _ROW * len(kinds)}
    made = figure(title, subtitle, data, **size)
    text = [
        [written_on(f"{v:.0%}", c) for v, c in zip(row, colours(row, SEQUENTIAL, 0.0, 1.0), strict=True)]
        for row in load.values
    ]
    written = {"text": text, "texttemplate": "%{text}", "textfont": {"size": 11}} if cell >= 34 else {}
    hover = [[f"{label(k)}<br>expert {e}: {v:.1%} of the tokens" for e, v in zip(experts, row, strict=True)]
             for k, row in zip(kinds, load.values, strict=True)]  # fmt: skip
    at = {"x": list(range(len(experts))), "y": list(range(len(kinds)))}
    look = {"hovertext": hover, "hoverinfo": "text", "xgap": 1, "ygap": 1, "coloraxis": "coloraxis"}
    made.add_trace(go.Heatmap(z=as_lists(load.values), **at, **look, **written))
    end = (size["width"] - left - 30) / cell - 0.5
    made.update_xaxes(
        tickvals=at["x"], ticktext=[str(e) for e in experts], title="expert", range=[-0.5, end], showline=False
    )
    made.update_yaxes(tickvals=at["y"], ticktext=[label(kind, 30) for kind in kinds], range=[len(kinds) - 0.5, -0.5])
    axis = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": scale_bar(tickformat=".0%")}
    made.update_layout(coloraxis=axis, margin={"l": left, "r": 30, "t": _TOP, "b": 52}).update_yaxes(showline=False)
    add_scale(made, "share of the tokens")
    return made
