"""Two forms that many figures share: tables of numbers as colours, side by side, and curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.figures.style import (
    DIVERGING,
    EXPERTS,
    LINE,
    SEQUENTIAL,
    SOFT,
    TEMPLATE,
    WIDTH,
    add_scale,
    as_lists,
    colours,
    figure,
    scale_bar,
    thinned,
    tint,
    written_on,
)
from workbench.figures.text import columns_of, label, labels, visible

_TOP, _ROW, _LARGEST_CELL, _TITLE_ROOM, _LONGEST = 104, 24, 60, 24, 22
_WRITTEN = 34  # pixels that a number in a cell needs


@dataclass(frozen=True)
class Scale:
    """What the colours of a table mean: between two ends, or on both sides of 0 where low is below it."""

    name: str
    low: float
    high: float
    form: str = ".2f"

    @classmethod
    def of(cls, values: np.ndarray, name: str, form: str = ".2f", signed: bool | None = None) -> Scale:
        """From 0 (or, signed, from the opposite) to the largest finite value."""
        finite = values[np.isfinite(values)]
        most = float(np.abs(finite).max(initial=0.0)) or 1.0
        signed = bool((finite < 0).any()) if signed is None else signed
        return cls(name, -most if signed else 0.0, most, form)

    @property
    def colours(self) -> list[str]:
        return DIVERGING if self.low < 0 else SEQUENTIAL


@dataclass(frozen=True)
class Panel:
    """One table: its name, and its values [row column]; ``written`` stands in the cells, where there is room."""

    name: str
    values: np.ndarray
    written: Sequence[Sequence[str]] | None = None


def tables(
    panels: Sequence[Panel],
    rows: Iterable[object],
    columns: Iterable[object],
    scale: Scale,
    *,
    title: str,
    subtitle: str = "",
    source: xr.Dataset | None = None,
    row_title: str = "",
    column_title: str = "",
    across: int = 4,
    cell: float | None = None,
) -> go.Figure:
    """Tables of one shape side by side, at most ``across`` in a row, on one scale. NaN is a gap.

    Args:
        rows, columns: their names, any text.
        cell: pixels that a column takes; by default what fits.
    """
    rows, columns, across = list(rows), list(columns), min(across, len(panels))
    down = -(-len(panels) // across)
    row_names, column_names = labels(rows, _LONGEST), labels(columns, _LONGEST)
    left = 40 + round(6.8 * max(columns_of(visible(str(name), _LONGEST)) for name in rows))
    below = 34 + min(round(6.4 * max(columns_of(visible(str(name), _LONGEST)) for name in columns)), 150)
    wide = cell or float(np.clip((WIDTH - left - 60) / (across * (len(columns) + 1)), 0.4, _LARGEST_CELL))
    tall = float(np.clip(560 / (down * len(rows)), 3, _ROW))
    plot = max(wide * len(columns) * across + 24.0 * (across - 1), 430.0)
    height = round(_TOP + below + down * tall * len(rows) + (down - 1) * (_TITLE_ROOM + 8))
    names = [label(panel.name, 40) for panel in panels] if any(panel.name for panel in panels) else None
    made = make_subplots(down, across, subplot_titles=names, shared_xaxes="all", shared_yaxes="all",
                         horizontal_spacing=24 / plot if across > 1 else 0,
                         vertical_spacing=(_TITLE_ROOM + 8) / (height - _TOP - below) if down > 1 else 0)  # fmt: skip
    for i, panel in enumerate(panels):
        trace = _cells(panel, row_names, column_names, scale, wide if tall >= 12 else 0.0)
        made.add_trace(trace, row=i // across + 1, col=i % across + 1)
    look = figure(title, subtitle, source, width=round(left + plot + 30), height=height)
    made.update_layout(look.layout.to_plotly_json())
    made.update_annotations(font={"size": 12, "color": SOFT})
    axis = {"colorscale": scale.colours, "cmin": scale.low, "cmax": scale.high, "colorbar": scale_bar()}
    made.update_layout(template=TEMPLATE, coloraxis=axis, margin={"l": left, "r": 30, "t": _TOP, "b": below})
    at = thinned(len(columns), wide, 14.0 if max(map(len, column_names)) > 2 else 9.0)
    turned = -90 if wide < 8 * max(columns_of(visible(str(name), _LONGEST)) for name in columns) else 0
    made.update_xaxes(tickvals=at, ticktext=[column_names[i] for i in at], showline=False, tickangle=turned)
    at = thinned(len(rows), tall, 10.0)
    made.update_yaxes(tickvals=at, ticktext=[row_names[i] for i in at], showline=False, ticklabelstandoff=5)
    made.update_yaxes(range=[len(rows) - 0.5, -0.5])
    made.update_xaxes(title=column_title, row=down).update_yaxes(title=row_title, col=1)
    add_scale(made, scale.name)
    return made


def _cells(panel: Panel, rows: list[str], columns: list[str], scale: Scale, wide: float) -> go.Heatmap:
    head = f"{label(panel.name, 40)}<br>" if panel.name else ""
    hover = [
        [f"{head}{row} · {name}: {format(float(value), scale.form)}" for name, value in zip(columns, line, strict=True)]
        for row, line in zip(rows, panel.values, strict=True)
    ]
    words = panel.written
    if words is None and wide >= _WRITTEN:
        words = [[_number(v, scale.form) if np.isfinite(v) else "" for v in line] for line in panel.values]
    look = {}
    if words is not None:
        limit = max(3, int((wide - 6) / 6.2)) if wide else 3
        fills = [colours(np.nan_to_num(line), scale.colours, scale.low, scale.high) for line in panel.values]
        text = [
            [written_on(label(word, limit), fill) if word else "" for word, fill in zip(*pair, strict=True)]
            for pair in zip(words, fills, strict=True)
        ]
        look = {"text": text, "texttemplate": "%{text}", "textfont": {"size": 10}}
    gap = 1 if wide >= 6 else 0
    at = {"x": list(range(len(columns))), "y": list(range(len(rows)))}
    return go.Heatmap(z=as_lists(panel.values), coloraxis="coloraxis", hovertext=hover, hoverinfo="text",
                      xgap=gap, ygap=gap, hoverongaps=False, name=label(panel.name, 40), **at, **look)  # fmt: skip


def _number(value: float | np.floating, form: str) -> str:
    """Without a sign before a zero that is only rounded."""
    text = format(float(value), form)
    return text.removeprefix("-") if not float(text) else text


def curves(
    x: np.ndarray,
    lines: Mapping[str, np.ndarray],
    *,
    title: str,
    subtitle: str = "",
    source: xr.Dataset | None = None,
    x_title: str = "",
    y_title: str = "",
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    ticks: Iterable[object] | None = None,
) -> go.Figure:
    """A line for each name, and where asked a band behind them from a low to a high.

    Args:
        bands: name → (low, high) at each x, drawn pale behind the lines.
        ticks: what to write at each x instead of its number.
    """
    made = figure(title, subtitle, source, width=700, height=400)
    at = as_lists(np.asarray(x))
    places = labels(at if ticks is None else ticks)
    for i, (name, (low, high)) in enumerate((bands or {}).items()):
        edge = {"x": [*at, *at[::-1]], "y": [*as_lists(high), *as_lists(low)[::-1]], "hoverinfo": "skip"}
        fill = {
            "fill": "toself",
            "fillcolor": tint(EXPERTS[(len(lines) + i) % len(EXPERTS)], 0.3),
            "line": {"width": 0},
        }
        made.add_trace(go.Scatter(mode="lines", name=label(name, 50), opacity=0.6, **edge, **fill))
    for i, (name, y) in enumerate(lines.items()):
        look = {"color": EXPERTS[i % len(EXPERTS)], "width": 2}
        # Text, not a template: plotly would read %{…} in a name.
        said = [f"{label(name, 50)}<br>{place}: {value:.4g}" for place, value in zip(places, y, strict=True)]
        made.add_trace(go.Scatter(x=at, y=as_lists(y), mode="lines+markers", line=look, name=label(name, 50),
                                  hovertext=said, hoverinfo="text"))  # fmt: skip
    whole = np.asarray(x).dtype.kind in "iu"
    if whole and ticks is None:
        made.update_xaxes(tickvals=[at[i] for i in thinned(len(at), 560 / max(len(at), 1), 24.0)])
    if ticks is not None:
        made.update_xaxes(tickvals=at, ticktext=places)
    made.update_xaxes(title=x_title, showgrid=True, gridcolor=LINE).update_yaxes(title=y_title, nticks=6)
    return made.update_layout(margin={"l": 70, "r": 30, "t": 116, "b": 56}, showlegend=True)
