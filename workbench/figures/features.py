"""Features of a dictionary, token by token."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, tables
from workbench.figures.style import need


def feature_heatmap(data: xr.Dataset, most: int = 24, title: str = "Features of the dictionary") -> go.Figure:
    """What ``experiments.feature_activations`` returns: the strongest features down, the tokens across.

    Args:
        most: how many features.

    Raises:
        ValueError: for a dataset that is none.
    """
    need(data, "feature_activations", "activation", "token")
    values = data.activation.transpose("feature", "pos").values
    order = np.argsort(-values.max(1), kind="stable")[:most]
    columns = [f"{token} {pos}" for token, pos in zip(data.token.values, data.pos.values, strict=True)]
    rows = [f"feature {feature}" for feature in data.feature.values[order]]
    scale = Scale.of(values[order], "activation", ".1f")
    return tables([Panel("", values[order])], rows, columns, scale, title=title, source=data, across=1)
