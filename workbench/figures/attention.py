"""Attention of one head, and what each head of a model does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import label_room, role_bands, token_ticks
from workbench.figures.style import (
    DIVERGING,
    LINE,
    ORANGE,
    SEQUENTIAL,
    SOFT,
    add_scale,
    as_lists,
    colours,
    figure,
    need,
    scale_bar,
    written_on,
)
from workbench.figures.text import label, labels

_LARGEST_SIDE, _CELL, _SMALLEST_CELL, _LEAST_WIDTH = 560, 26, 2.0, 560
_TOP = 84
_HOVER_TOKENS = 100  # beyond it hovering tells positions only: a text for each of n² cells would be megabytes


def attention_pattern(
    data: xr.Dataset, title: str | None = None, subtitle: str | None = None, minus: xr.Dataset | None = None
) -> go.Figure:
    """What ``experiments.attention`` returns: a row for each query, a column for each key, the sink at the left.

    What a query cannot see is hatched: later tokens, and in a sliding layer those before its window, whose edge is
    drawn as a line.

    Args:
        minus: the same head in another run of the same tokens; what is drawn is the change from there to ``data``.

    Raises:
        ValueError: for a dataset of another experiment, or two that are not of the same tokens.
    """
    need(data, "attention", "pattern", "sink", "visible")
    limit = None
    if minus is not None:
        data = _change(data, minus)
        limit = float(max(np.abs(data.pattern.values).max(), np.abs(data.sink.values).max())) or 1.0
    n, window = data.sizes["query_pos"], int(data.attrs.get("window", 0))
    cell = float(np.clip(_LARGEST_SIDE / n, _SMALLEST_CELL, _CELL))
    left, below = label_room(data, "query_pos"), max(label_room(data, "key_pos"), 56)
    sink = _sink_edges(cell)
    width, height = cell * (n - sink[0] - 0.5), max(cell * n, 60)
    kind = f"sliding window of {window}" if window else "full attention"
    what = "Attention" if limit is None else "Change of attention"
    title = title or f"{what} of head {data.attrs.get('head', '?')} in layer {data.attrs.get('layer', '?')} ({kind})"
    if subtitle is None:
        last = "a row and its sink sum to 1" if limit is None else "orange: more than before, blue: less"
        subtitle = f"row: the token that looks; column: where it looks; {last}"
    room = max(width, _LEAST_WIDTH)
    size = {"width": round(left + room + 30), "height": round(_TOP + height + below)}
    made = figure(title, subtitle, data, showlegend=False, **size)
    made.add_traces([_sink(data, sink), _pattern(data), *_hatches(n, window)])
    scale, low, high = (SEQUENTIAL, 0.0, 1.0) if limit is None else (DIVERGING, -limit, limit)
    made.update_layout(coloraxis={"colorscale": scale, "cmin": low, "cmax": high, "colorbar": scale_bar()})
    end = sink[0] + room / cell
    made.update_xaxes(
        range=[sink[0], end], ticklabelstandoff=8, tickangle=-90, showline=False, **_key_ticks(data, cell, sink)
    )
    made.update_yaxes(
        range=[n - 0.5, -0.5], ticklabelstandoff=8, showline=False, **token_ticks(data, "query_pos", cell)
    )
    frame = {"x0": sink[0], "x1": sink[1], "y0": -0.5, "y1": n - 0.5, "line": {"color": LINE, "width": 1}}
    bands = [*role_bands(data, "query_pos", "y"), *role_bands(data, "key_pos", "x"), frame]
    made.update_layout(margin={"l": left, "r": 30, "t": _TOP, "b": below}, shapes=bands)
    add_scale(made, "attention" if limit is None else "change")
    return made


def _change(data: xr.Dataset, before: xr.Dataset) -> xr.Dataset:
    need(before, "attention", "pattern", "sink")
    if not np.array_equal(data.query_token.values, before.query_token.values):
        raise ValueError("data and minus are of different tokens; the change of a pattern needs two runs of one text")
    return data.assign(pattern=data.pattern - before.pattern.values, sink=data.sink - before.sink.values)


def _sink_edges(cell: float) -> tuple[float, float]:
    """Left and right edge of the sink's column on the key axis: at least 14 pixels wide, a gap before the first key."""
    gap, wide = max(0.5, 8 / cell), max(1.0, 14 / cell)
    return -0.5 - gap - wide, -0.5 - gap


def _key_ticks(data: xr.Dataset, cell: float, sink: tuple[float, float]) -> dict:
    ticks = token_ticks(data, "key_pos", cell)
    ticks["tickvals"] = [sum(sink) / 2, *ticks["tickvals"]]
    ticks["ticktext"] = ["<b>sink</b>", *ticks["ticktext"]]
    return ticks


def _sink(data: xr.Dataset, edges: tuple[float, float]) -> go.Heatmap:
    tokens = labels(data.query_token.values)
    hover = [
        [f"<b>{token}</b> leaves {float(value):.3f} on the sink"]
        for token, value in zip(tokens, data.sink.values, strict=True)
    ]
    gap = 1 if len(tokens) <= 40 else 0
    cells = {"x": list(edges), "y": list(range(len(tokens))), "hovertext": hover, "hoverinfo": "text", "ygap": gap}
    return go.Heatmap(z=[[value] for value in as_lists(data.sink.values)], coloraxis="coloraxis", name="sink", **cells)


def _pattern(data: xr.Dataset) -> go.Heatmap:
    """The visible part; None where the query cannot see, so that the hatching shows through."""
    n = data.sizes["query_pos"]
    seen = np.where(data.visible.values, data.pattern.values, np.float32("nan"))
    look = {"xgap": 1, "ygap": 1} if n <= 40 else {}
    if n <= _HOVER_TOKENS:
        tokens = labels(data.query_token.values)
        hover = [
            [
                f"<b>{query}</b> → <b>{key}</b>: {value:.3f}" if np.isfinite(value) else ""
                for key, value in zip(tokens, row, strict=True)
            ]
            for query, row in zip(tokens, seen, strict=True)
        ]
        look |= {"hovertext": hover, "hoverinfo": "text"}
    else:
        look["hovertemplate"] = "position %{y} → %{x}: %{z:.3f}<extra></extra>"
    at = list(range(n))
    return go.Heatmap(z=as_lists(seen), x=at, y=at, coloraxis="coloraxis", name="pattern", hoverongaps=False, **look)


def _hatches(n: int, window: int) -> Iterator[go.Scatter]:
    """Staircases: over the keys after each query, and in a sliding layer over those before its window."""
    hatch = {"shape": "/", "fgcolor": LINE, "bgcolor": "#fafbfc", "size": 5, "solidity": 0.25}
    look = {"mode": "lines", "fill": "toself", "fillpattern": hatch, "hoverinfo": "skip", "line": {"width": 0}}
    steps = np.repeat(np.arange(n + 1), 2) - 0.5
    if n > 1:
        yield go.Scatter(x=[*steps[1:-1].tolist(), n - 0.5], y=[*steps[:-2].tolist(), -0.5], name="later", **look)
    if window and n > window:
        # The query i sees keys from i − window + 1 on.
        edge_x = steps[1 : 2 * (n - window) + 2].tolist()
        edge_y = (steps[: 2 * (n - window) + 1] + window).tolist()
        yield go.Scatter(x=[*edge_x, -0.5], y=[*edge_y, n - 0.5], name="before the window", **look)
        line = {"color": ORANGE, "width": 1.5}
        yield go.Scatter(x=edge_x, y=edge_y, mode="lines", line=line, hoverinfo="skip", name="edge of the window")


def head_scores(data: xr.Dataset, title: str = "What each head does, on random tokens said twice") -> go.Figure:
    """What ``experiments.head_scores`` returns: for each kind of head a table of layers and heads, its score in it.

    "·" stands where a layer's window does not reach as far as the kind looks.
    """
    need(data, "head_scores", "score")
    kinds, n_layers, n_heads = (data.sizes[dim] for dim in ("kind", "layer", "head"))
    column, gap = float(np.clip(760 / (kinds * (n_heads + 1)), 5, 34)), 1
    made = figure(title, "mean attention at the offset that the kind looks at; 1 is all of it", data)
    words = column >= 22
    for k, kind in enumerate(data.kind.values):
        score = data.score.sel(kind=kind).transpose("layer", "head").values
        x = [k * (n_heads + gap) + head for head in range(n_heads)]
        hover = [
            [
                f"layer {layer}, head {head}<br>{label(str(kind).replace('_', ' '))} {value:.3f}"
                for head, value in enumerate(row)
            ]
            for layer, row in enumerate(score)
        ]
        text = [[_score(value) for value in row] for row in score]
        written = {"text": text, "texttemplate": "%{text}", "textfont": {"size": 10}} if words else {}
        cells = {"x": x, "y": list(range(n_layers)), "hovertext": hover, "hoverinfo": "text", "xgap": 1, "ygap": 1}
        made.add_trace(go.Heatmap(z=as_lists(score), coloraxis="coloraxis", name=str(kind), **cells, **written))
        middle, font = x[0] + (n_heads - 1) / 2, {"size": 12, "color": SOFT}
        name = label(str(kind).replace("_", " "))
        made.add_annotation(x=middle, y=1, yref="paper", yanchor="bottom", text=name, showarrow=False, font=font)
    heads = [
        (k * (n_heads + gap) + head, str(head)) for k in range(kinds) for head in range(0, n_heads, 1 if words else 8)
    ]
    made.update_xaxes(
        tickvals=[at for at, _ in heads], ticktext=[text for _, text in heads], title="head", showline=False
    )
    made.update_yaxes(tickvals=list(range(n_layers)), range=[n_layers - 0.5, -0.5], title="layer", showline=False)
    axis = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": scale_bar()}
    size = {"width": round(90 + column * kinds * (n_heads + gap)), "height": 108 + 54 + 26 * n_layers}
    made.update_layout(coloraxis=axis, margin={"l": 60, "r": 30, "t": 108, "b": 54}, **size)
    add_scale(made, "score")
    return made


def _score(value: np.floating) -> str:
    """A score in two decimals, "·" where there is none."""
    if not np.isfinite(value):
        return "·"
    return written_on(f"{value:.2f}".removeprefix("0"), colours([float(value)], SEQUENTIAL, 0.0, 1.0)[0])
