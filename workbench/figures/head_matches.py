"""Which heads look at the token before, at copies, at what followed them, or at nothing, on a text of one's own."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, tables
from workbench.figures.style import need


def head_matches(data: xr.Dataset, shade: str = "mean", title: str = "What each head does on this text") -> go.Figure:
    """What ``experiments.head_matches`` returns: a table of layers and heads for each kind, and one for the sink.

    Args:
        shade: "mean", the attention of a query to its places; "mean_without_sink"; or "share" of all attention.

    Raises:
        ValueError: for another shade, or a dataset of another experiment.
    """
    said = {"mean": "mean attention of a query to its places", "mean_without_sink": "of what the sink leaves",
            "share": "share of all attention to keys"}  # fmt: skip
    if shade not in said:
        raise ValueError(f"shade={shade!r}: expected one of {list(said)}")
    need(data, "head_matches", "share", "mean", "sink")
    values = data[shade].transpose("kind", "layer", "head")
    panels = [Panel(str(kind).replace("_", " "), values.sel(kind=kind).values) for kind in values["kind"].values]
    panels.append(Panel("sink", data.sink.transpose("layer", "head").values))
    return tables(panels, data.layer.values, data["head"].values, Scale("attention", 0.0, 1.0), title=title,
                  subtitle=said[shade], source=data, row_title="layer", column_title="head")  # fmt: skip
