"""Ablation sweeps: what each component is worth, beside its noise floor."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, curves, tables
from workbench.figures.style import BLUE, GREY, figure, need
from workbench.figures.text import label, labels


def ablation_heatmap(
    data: xr.Dataset, title: str = "Ablation: what the metric loses without each component"
) -> go.Figure:
    """What ``experiments.ablation_sweep`` returns for all heads or all experts: a table for each policy.

    Raises:
        ValueError: for a dataset that is no ablation sweep of such components.
    """
    need(data, "ablation_sweep", "mean_effect", "layer", "index")
    if (data["index"].values < 0).any():
        raise ValueError("these components are not heads or experts of a layer: use ablation_bars")
    panels = []
    layers, indices = np.unique(data.layer.values), np.unique(data["index"].values)
    for policy in dict.fromkeys(data.policy.values.tolist()):
        table = np.full((len(layers), len(indices)), np.nan)
        some = data.isel(component=np.flatnonzero(data.policy.values == policy))
        at = np.searchsorted(layers, some.layer.values), np.searchsorted(indices, some["index"].values)
        table[at] = some.mean_effect.values
        panels.append(Panel(str(policy), table))
    every = np.concatenate([panel.values.ravel() for panel in panels])
    scale = Scale.of(every, "mean effect", ".2f" if np.nanmax(np.abs(every), initial=0.0) < 10 else ".1f", signed=True)
    subtitle = f"{label(str(data.attrs.get('metric', 'metric')), 60)}, mean over {data.sizes['prompt']} prompts"
    kind = "expert" if "Expert" in str(data.spec.values[0]) else "head"
    rows = [f"layer {layer}" for layer in layers]
    return tables(
        panels, rows, indices, scale, title=title, subtitle=subtitle, source=data, column_title=kind, across=2
    )


def ablation_bars(data: xr.Dataset, most: int = 20, title: str = "Ablation: the largest effects") -> go.Figure:
    """The largest mean effects; the grey band is the floor, the largest effect of a matched random control.

    Args:
        most: how many to show.

    Raises:
        ValueError: for a dataset that is no ablation sweep.
    """
    need(data, "ablation_sweep", "mean_effect", "spec")
    order = np.argsort(-np.abs(data.mean_effect.values))[:most][::-1]
    some = data.isel(component=order)
    subtitle = f"{label(str(data.attrs.get('metric', 'metric')), 60)}, mean over {data.sizes['prompt']} prompts"
    made = figure(title, subtitle, data, width=760, height=140 + 24 * len(order))
    names, y = labels(some.spec.values, 60), list(range(len(order)))
    if "floor" in some:
        width = some.floor.values
        made.add_trace(go.Bar(x=(2 * width).tolist(), base=(-width).tolist(), y=y, orientation="h", name="noise floor",
                              marker={"color": GREY, "opacity": 0.25}, hoverinfo="skip"))  # fmt: skip
    made.add_trace(go.Bar(x=some.mean_effect.values.tolist(), y=y, orientation="h", name="mean effect", width=0.5,
                          marker={"color": BLUE}, hovertext=_hover(some, names), hoverinfo="text"))  # fmt: skip
    made.update_layout(barmode="overlay", showlegend="floor" in some, margin={"l": 330, "t": 110})
    return made.update_yaxes(tickvals=y, ticktext=names).update_xaxes(title="mean effect")


def _hover(data: xr.Dataset, names: list[str]) -> list[str]:
    found = []
    for i, name in enumerate(names):
        line = f"{name}<br>mean effect {float(data.mean_effect[i]):.4f}"
        if "p" in data:
            line += f"<br>floor {float(data.floor[i]):.4f}, p = {float(data.p[i]):.3f}"
        found.append(line)
    return found


def knock_out_curve(data: xr.Dataset, title: str = "Greedy knock-out") -> go.Figure:
    """What ``experiments.greedy_knock_out`` returns, over the range of random groups of as many components.

    Raises:
        ValueError: for a dataset that is none.
    """
    need(data, "greedy_knock_out", "mean", "chosen")
    bands = {}
    if data.sizes["control"]:
        bands["random groups"] = data.control_mean.min("control").values, data.control_mean.max("control").values
    return curves(
        data.step.values,
        {"greedy": data["mean"].values},
        title=title,
        subtitle=label(str(data.attrs["metric"]), 60) if "metric" in data.attrs else "",
        source=data,
        x_title="components knocked out",
        y_title="mean metric",
        bands=bands,
    )
