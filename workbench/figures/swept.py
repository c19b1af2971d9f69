"""What a sweep found, as tables: two of its axes drawn, one more as a row of tables, the others averaged."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, tables

_PANELS = 12


def swept_heatmap(
    data: xr.Dataset,
    rows: str,
    columns: str,
    variable: str = "value",
    *,
    panels: str | None = None,
    minus: float | xr.DataArray | None = None,
    title: str = "Sweep",
    name: str = "",
    across: int = 4,
) -> go.Figure:
    """A variable of a sweep's dataset over two of its axes; its mean over all others, of the cells that were measured.

    Args:
        rows, columns: axes of the variable.
        panels: an axis that gets a table for each of its values (at most 12).
        minus: what to take off first: a number, or values along some of the axes (an unedited run's, by prompt).
        name: of the number, beside the scale.

    Raises:
        ValueError: for a variable or an axis that the dataset does not have, or more than 12 tables.
    """
    if variable not in data.data_vars:
        raise ValueError(f"this dataset has no variable {variable!r}; it has {sorted(map(str, data.data_vars))}")
    values = data[variable] if minus is None else data[variable] - minus
    chosen = [axis for axis in (panels, rows, columns) if axis is not None]
    for axis in chosen:
        if axis not in values.dims or chosen.count(axis) > 1:
            raise ValueError(f"axis {axis!r}: expected axes of {variable!r}, each once; it has {list(values.dims)}")
    over = [axis for axis in values.dims if axis not in chosen]
    mean = values.mean(over).transpose(*chosen)
    if panels is not None and mean.sizes[panels] > _PANELS:
        raise ValueError(f"{panels!r} has {mean.sizes[panels]} values: expected at most {_PANELS} tables; select some")
    made = [Panel("" if panels is None else f"{panels} {label}", np.asarray(table.values, float))
            for label, table in _tables(mean, panels)]  # fmt: skip
    every = np.concatenate([panel.values.ravel() for panel in made])
    spread = np.nanmax(np.abs(every), initial=0.0)
    scale = Scale.of(every, name or variable, ".2f" if spread < 10 else ".1f", signed=minus is not None or None)
    sizes = " × ".join(f"{values.sizes[axis]} {axis}s" for axis in over)
    subtitle = f"mean over {sizes}" if over else ""
    named = [f"{rows} {label}" for label in _labels(mean, rows)]
    return tables(
        made, named, _labels(mean, columns), scale, title=title, subtitle=subtitle, source=data, column_title=columns,
        across=across,
    )  # fmt: skip


def _tables(mean: xr.DataArray, panels: str | None) -> list[tuple[object, xr.DataArray]]:
    if panels is None:
        return [("", mean)]
    return list(zip(_labels(mean, panels), mean, strict=True))


def _labels(values: xr.DataArray, axis: str) -> list[object]:
    return values[axis].values.tolist() if axis in values.coords else list(range(values.sizes[axis]))
