"""The strongest connections between parts of the model, as bars."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import BLUE, MONO, ORANGE, SOFT, as_lists, figure, need
from workbench.figures.text import columns_of, label, visible

_ROW, _TOP, _BOTTOM = 20, 88, 50
_LONGEST = 24  # characters of a name


def top_edges(
    data: xr.Dataset, n: int = 20, title: str = "The edges that carry most", subtitle: str | None = None
) -> go.Figure:
    """What ``experiments.edge_attribution`` or ``experiments.path_patching`` returns: its n largest edges, either sign.

    Raises:
        ValueError: for a dataset of another experiment, one without a single edge, or n below 1.
    """
    paths = "effect" in data and data.effect.dims == ("sender", "receiver")
    if not paths:
        need(data, "edge_attribution", "score", "share")
    if n < 1:
        raise ValueError(f"n={n}: expected at least 1 edge")
    score, share = (data.effect, data.recovered) if paths else (data.score, data.share)
    pairs, values, shares = _largest(score, share, n)
    names = [" → ".join(label(name, _LONGEST) for name in pair) for pair in pairs]
    if subtitle is None:
        subtitle = (
            f"{label(str(data.attrs.get('metric', 'the metric')), 40)} · orange: towards clean, blue: away from it"
        )
    made = figure(title, subtitle, data, width=640, height=_TOP + _BOTTOM + _ROW * len(names))
    made.add_trace(_bars(names, values, shares))
    # Past the ends of the bars stand their numbers.
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.14 * ((high - low) or 1.0)
    ends = [low - room * (low < 0), high + room * (high > 0)]
    font = {"family": MONO, "size": 11}
    rows = {"tickvals": list(range(len(names))), "ticktext": names, "tickfont": font}
    made.update_yaxes(range=[len(names) - 0.5, -0.5], showline=False, **rows)
    made.update_xaxes(range=ends, title="units of the metric", zeroline=True, zerolinecolor=SOFT, nticks=6)
    left = round(24 + 6.8 * max(3 + sum(columns_of(visible(name, _LONGEST)) for name in pair) for pair in pairs))
    return made.update_layout(margin={"l": left, "r": 24, "t": _TOP, "b": _BOTTOM}, bargap=0.25)


def _largest(score: xr.DataArray, share: xr.DataArray, n: int) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """Names (from, to), scores and shares, the largest first."""
    up, down = (score.coords[dim].values for dim in score.dims)
    flat = score.values.reshape(-1)
    there = np.flatnonzero(np.isfinite(flat))
    if not len(there):
        raise ValueError("every score is NaN: there is no edge to draw")
    order = there[np.argsort(-np.abs(flat[there]), kind="stable")][:n]
    names = [(str(up[i // len(down)]), str(down[i % len(down)])) for i in order]
    return names, flat[order], share.values.reshape(-1)[order]


def _bars(names: list[str], values: np.ndarray, shares: np.ndarray) -> go.Bar:
    hover = [
        f"{name}<br>{value:+.4f}, {share:+.1%} of clean − corrupted"
        if np.isfinite(share)
        else f"{name}<br>{value:+.4f}"
        for name, value, share in zip(names, values, shares, strict=True)
    ]
    return go.Bar(
        orientation="h",
        x=as_lists(values.astype(float)),
        y=list(range(len(names))),
        text=[f"{value:+.3f}" for value in values],
        textposition="outside",
        textfont={"size": 10, "color": SOFT},
        cliponaxis=False,
        marker={"color": [ORANGE if value > 0 else BLUE for value in values], "line": {"width": 0}},
        hovertext=hover,
        hoverinfo="text",
        name="edges",
    )
