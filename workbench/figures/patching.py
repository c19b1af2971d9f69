"""Patching grids: which place, put back, brings the answer back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, tables
from workbench.figures.style import need
from workbench.figures.text import label

KINDS = ("site", "head", "expert")


def patching_heatmap(data: xr.Dataset, title: str | None = None) -> go.Figure:
    """What ``experiments.patching_grid`` or ``component_patching`` returns: layers down, positions across, a table for
    each site; heads and experts stand under each other within their layer, those that nowhere do anything left out.
    What ``joint_patching`` returns: layers down, heads or experts across.

    Raises:
        ValueError: for a dataset that is no patching grid.
    """
    need(data, "patching_grid", "metric", "layer")
    share = "recovered" if "recovered" in data else "lost"
    kind = next(kind for kind in KINDS if kind in data.dims)
    word = {"recovered": "brings back", "lost": "takes away"}[share]
    title = title or f"Patching: what each {kind} {word}"
    said = label(str(data.attrs.get("metric", "metric")), 60)
    subtitle = f"{said}; clean {float(data.clean):.2f}, corrupted {float(data.corrupted):.2f}"
    scale = Scale(f"share {share}", -1.0, 1.0)
    panels, rows, columns = _panels(data, share, kind)
    panels = [replace(panel, written=_written(panel.values)) for panel in panels]
    return tables(panels, rows, columns, scale, title=title, subtitle=subtitle, source=data, across=1)


def _panels(data: xr.Dataset, share: str, kind: str) -> tuple[list[Panel], list[str], list[str]]:
    """The tables, and the names of their rows and columns."""
    rows = [f"layer {layer}" for layer in data.layer.values]
    if "pos" not in data.dims:
        return (
            [Panel("", data[share].transpose("layer", kind).values)],
            rows,
            [f"{kind} {i}" for i in data[kind].values],
        )
    columns = [f"{token} {pos}" for token, pos in zip(data.token.values, data.pos.values, strict=True)]
    if kind != "site":
        return *_by_component(data, share, kind), columns
    tables_of = [data[share].sel(site=site).transpose("layer", "pos").values for site in data.site.values]
    return [Panel(str(site), values) for site, values in zip(data.site.values, tables_of, strict=True)], rows, columns


def _written(values: np.ndarray) -> list[list[str]]:
    """Two digits where there is something; most cells have nothing."""
    return [[f"{v:.2f}" if np.isfinite(v) and abs(v) >= 0.005 else "" for v in line] for line in values]


def _by_component(data: xr.Dataset, share: str, kind: str) -> tuple[list[Panel], list[str]]:
    values = data[share].transpose("layer", kind, "pos").values
    flat = values.reshape(-1, values.shape[-1])
    names = [f"L{layer} {kind} {i}" for layer in data.layer.values for i in data[kind].values]
    kept = np.nan_to_num(np.abs(flat)).max(1, initial=0) > 1e-3
    if not kept.any():
        kept[:] = True
    return [Panel("", flat[kept])], [name for name, keep in zip(names, kept, strict=True) if keep]
