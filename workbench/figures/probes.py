"""Linear probes by layer: what is read off, and what shuffled labels give."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import curves
from workbench.figures.style import need
from workbench.figures.text import label


def probe_scores(data: xr.Dataset, title: str = "What a linear probe reads off each layer") -> go.Figure:
    """What ``experiments.probe`` returns: held-out and training score by layer, over the band of shuffled labels."""
    need(data, "probe", "score", "train_score", "shuffled_score")
    lines = {"held out": data.score.mean("fold").values, "fitted on": data.train_score.mean("fold").values}
    controls = data.shuffled_score.mean("fold").transpose("layer", "shuffle").values
    bands = {}
    if controls.shape[1] and np.isfinite(controls).any():
        bands = {"labels shuffled (lowest to highest)": (np.nanmin(controls, 1), np.nanmax(controls, 1))}
    said = f"{label(str(data.attrs.get('site', '?')))}; {data.attrs.get('n_groups', '?')} groups of texts"
    return curves(data.layer.values, lines, title=title, subtitle=f"{said}, {data.sizes['fold']} folds", source=data,
                  bands=bands, x_title="layer", y_title=label(str(data.attrs.get("metric", "score"))))  # fmt: skip
