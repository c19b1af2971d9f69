"""What an edit changes through routing, and what through content."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, tables
from workbench.figures.style import need
from workbench.figures.text import label

PARTS = ("total", "routing", "content", "interaction")


def mediation_table(
    data: xr.Dataset, row: int | None = None, title: str = "What travels by routing, what by content"
) -> go.Figure:
    """What ``experiments.mediation`` returns: the split of the whole effect, and each layer's share of the routing.

    Args:
        row: of the batch; None for the mean over all.

    Raises:
        ValueError: for a dataset that is no mediation, or a row that it does not have.
    """
    need(data, "mediation", *PARTS, "layer_routing", "layer_interaction")
    if row is not None and not 0 <= row < data.sizes["batch"]:
        raise ValueError(f"row={row}: this dataset has rows 0 to {data.sizes['batch'] - 1}")
    data = data.mean("batch") if row is None else data.isel(batch=row)
    layers = [f"layer {layer}" for layer in data.layer.values]
    nothing = np.full(len(layers), np.nan)
    names = ["routing", "interaction"]
    values = np.stack([data.layer_routing.values, data.layer_interaction.values])
    whole = np.array([[float(data[part])] for part in PARTS])
    # One table: the first column is the whole effect, the others are the layers' parts of its two routed rows.
    rows = np.concatenate([whole, np.stack([nothing, values[0], nothing, values[1]])], axis=1)
    metric = str(data.attrs.get("metric", "effect on the metric"))
    metric = metric if len(metric) <= 60 else metric[:59] + "…"  # that of a batch names a token for each row
    subtitle = f"{metric}; layers: of {names[0]} and of {names[1]}"
    scale = Scale.of(rows, "effect", signed=True)
    return tables([Panel("", rows)], PARTS, ["whole", *layers], scale, title=title, subtitle=label(subtitle, 120),
                  source=data, across=1)  # fmt: skip
