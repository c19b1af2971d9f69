"""The tuned lens as the logit lens is drawn, and the two compared."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import curves
from workbench.figures.logit_lens import logit_lens_heatmap
from workbench.figures.style import need


def tuned_lens_heatmap(
    data: xr.Dataset,
    shade: str = "probability",
    title: str = "Tuned lens: what each layer would say next, translated",
    subtitle: str | None = None,
    max_columns: int = 13,
) -> go.Figure:
    """What ``experiments.tuned_lens`` returns, drawn as ``logit_lens_heatmap`` draws the logit lens."""
    need(data, "tuned_lens", "top_token", "top_probability", "target_rank")
    return logit_lens_heatmap(data, shade, title, subtitle, max_columns)


def lens_kl(data: xr.Dataset, title: str = "How far each layer is from the final prediction") -> go.Figure:
    """What ``experiments.lens_kl`` returns: mean KL by layer, through the plain and the tuned lens."""
    need(data, "lens_kl", "kl")
    lines = {str(name): data.kl.sel(lens=name).values for name in data.coords["lens"].values}
    stages = ["embedding" if layer < 0 else str(layer) for layer in data.layer.values]
    return curves(data.layer.values, lines, title=title, source=data, x_title="read after layer",
                  y_title="KL(final ‖ layer), nats", ticks=stages)  # fmt: skip
