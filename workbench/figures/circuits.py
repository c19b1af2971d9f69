"""Circuits: how much of the behaviour so few parts keep."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import curves
from workbench.figures.style import need


def faithfulness_curve(data: xr.Dataset, title: str = "Faithfulness of the best parts alone") -> go.Figure:
    """What ``experiments.faithfulness_curve`` returns: 1 is the whole model, 0 none of it.

    Raises:
        ValueError: for a dataset that is none.
    """
    need(data, "faithfulness_curve", "faithfulness", "cpr", "cmd")
    subtitle = f"CPR {float(data.cpr):.3f}, CMD {float(data.cmd):.3f}"
    return curves(
        data["size"].values,
        {"faithfulness": data.faithfulness.values},
        title=title,
        subtitle=subtitle,
        source=data,
        x_title="share of the parts",
        y_title="faithfulness",
    )
