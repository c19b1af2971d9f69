"""Steering: the effect over scales, and what vectors that mean nothing do."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import curves
from workbench.figures.style import need
from workbench.figures.text import label


def steering_effect(data: xr.Dataset, title: str = "What the vector does, and what chance does") -> go.Figure:
    """What ``experiments.steer`` returns: the effect at each scale over the band of the controls."""
    need(data, "steer", "effect", "control_quantile")
    data = data.sortby("scale")
    low, high = (data.control_quantile.sel(quantile=q).values for q in (0.05, 0.95))
    n = data.sizes["control"]
    said = f"added to {label(str(data.attrs.get('site', '?')), 40)}; band: 5 to 95 % of {n} vectors of the same norm"
    bands = {"controls": (low, high)} if n else {}
    made = curves(data.scale.values, {"steering vector": data.effect.values}, title=title, subtitle=said, source=data,
                  bands=bands, x_title="scale", y_title=label(str(data.effect.attrs["long_name"]), 48))  # fmt: skip
    return made.add_hline(y=0, line={"color": "#616b78", "width": 1, "dash": "dot"})
