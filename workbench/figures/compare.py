"""Predictions side by side: before and after an intervention."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import BLUE, GREEN, GREY, MONO, ORANGE, PINK, SOFT, as_lists, figure, need
from workbench.figures.text import columns_of, label, labels, visible

_COLOURS = (GREY, ORANGE, BLUE, PINK, GREEN)
_PATTERNS = ("", "/", "x", ".", "-")  # so that bars differ without their colour too


def next_token_bars(
    data: xr.Dataset, pos: int, top: int = 8, title: str | None = None, subtitle: str | None = None
) -> go.Figure:
    """What ``experiments.compare`` returns, at one position: the likely next tokens, a bar for each run.

    Args:
        pos: the position after which the tokens would come, as the dataset's ``pos`` names it.
        top: how many tokens at most, the likeliest in any run first; none that every run gives less than a hundredth.

    Raises:
        ValueError: for a dataset that compares nothing, or a position that it does not have.
    """
    need(data, "compare", "probability", "candidate_token", "kl")
    if pos not in data.coords["pos"].values:
        positions = data.coords["pos"].values
        raise ValueError(f"pos={pos}: this dataset has positions {positions[0]} to {positions[-1]}")
    here = data.sel(pos=pos)
    here = here.isel(candidate=_worth_showing(here)[:top])
    runs = [str(name) for name in here.coords["run"].values]
    n, row = here.sizes["candidate"], 14 * len(runs) + 12
    title = title or f"What comes after “{label(str(here.coords['token'].item()))}” (position {pos})"
    if subtitle is None:
        subtitle = " · ".join(
            f"{label(name)}: KL {float(kl):.3f} nats" for name, kl in zip(runs[1:], here.kl.values[1:], strict=True)
        )
    made = figure(
        title, subtitle, data, barmode="group", bargap=0.25, bargroupgap=0.05, width=620, height=132 + 44 + row * n
    )
    made.add_traces([_bars(here, i, name) for i, name in enumerate(runs)])
    names = labels(here.candidate_token.values, 20)
    longest = max(columns_of(visible(str(token), 20)) for token in here.candidate_token.values)
    left = max(60, round(24 + 7.3 * longest))
    made.update_yaxes(
        tickvals=list(range(n)), ticktext=names, range=[n - 0.5, -0.5], tickfont={"family": MONO, "size": 12}
    )
    made.update_xaxes(
        range=[0, 1.15 * max(0.1, float(np.nanmax(here.probability)))],
        nticks=6,
        title="probability",
        showgrid=True,
        gridcolor="#eef0f3",
    )
    legend = {"traceorder": "normal", "y": 1, "yref": "paper", "yanchor": "bottom", "x": 0}
    return made.update_layout(margin={"l": left, "r": 30, "t": 112, "b": 50}, legend=legend)


def _worth_showing(here: xr.Dataset) -> np.ndarray:
    """The candidates that some run gives at least a hundredth, and every run's likeliest."""
    ids, highest = here.candidate_id.values, here.probability.max("run").values
    return np.flatnonzero((ids >= 0) & ((highest >= 0.01) | np.isin(ids, here.top_id.values)))


def _bars(here: xr.Dataset, i: int, name: str) -> go.Bar:
    values = here.probability.isel(run=i).values
    hover = [
        f"<b>{token}</b><br>{label(name)}: {value:.4f}"
        for token, value in zip(labels(here.candidate_token.values), values, strict=True)
    ]
    colour = _COLOURS[i % len(_COLOURS)]
    pattern = {"shape": _PATTERNS[i % len(_PATTERNS)], "bgcolor": colour, "fgcolor": "#ffffff", "fgopacity": 0.6}
    return go.Bar(
        orientation="h",
        x=as_lists(values),
        y=list(range(len(values))),
        text=[_short(float(value)) for value in values],
        textposition="outside",
        textfont={"size": 10, "color": SOFT},
        cliponaxis=False,
        marker={"color": colour, "pattern": pattern | {"size": 6, "solidity": 0.2}, "line": {"width": 0}},
        hovertext=hover,
        hoverinfo="text",
        name=label(name, 60),
    )


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.1g}" if value >= 1e-4 else "&#60;.0001"
