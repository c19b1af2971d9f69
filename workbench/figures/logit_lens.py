"""The logit lens as a table: a row for each token, a column for each layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import label_room, role_bands, strided, token_ticks
from workbench.figures.style import (
    MONO,
    SEQUENTIAL,
    WIDTH,
    add_scale,
    as_lists,
    colours,
    figure,
    need,
    scale_bar,
    written_on,
)
from workbench.figures.text import label, labels

_CELL_HEIGHT, _SMALLEST_TEXT_ROW = 21, 150  # pixels; more rows than that are an overview without words
_OVERVIEW = 1200
_TOP = 104


@dataclass(frozen=True)
class Shade:
    """What the colour of a cell can mean: which variable, its name, and whether much of it is dark."""

    variable: str
    name: str
    reverse: bool = False


SHADES = {
    "probability": Shade("top_probability", "probability of the cell's word"),
    "target": Shade("target_probability", "probability of the target"),
    "rank": Shade("target_rank", "rank of the target", reverse=True),
    "entropy": Shade("entropy", "entropy (nats)", reverse=True),
    "kl": Shade("kl", "KL(final ‖ layer) (nats)", reverse=True),
}


def logit_lens_heatmap(
    data: xr.Dataset,
    shade: str = "probability",
    title: str = "Logit lens: what each layer would say next",
    subtitle: str | None = None,
    max_columns: int = 13,
) -> go.Figure:
    """What ``experiments.logit_lens`` returns: in each cell the likeliest next token, bold where it is the target.

    The target is the model's final prediction unless the experiment was told another. Above 150 tokens it is an
    overview without words; ``data.isel(pos=slice(…))`` brings them back.

    Args:
        shade: "probability" of the word in the cell; "probability", "rank" of the target ("target", "rank");
            "entropy"; or "kl" to the final distribution.
        max_columns: layers beyond that are strided; the last one is always kept.

    Raises:
        ValueError: for a dataset that is no logit lens, or an unknown shade.
    """
    if shade not in SHADES:
        raise ValueError(f"shade={shade!r}: expected one of {list(SHADES)}")
    need(data, "logit_lens", "top_token", "top_probability", "target_rank")
    data = data.isel(layer=strided(data.sizes["layer"], max_columns)).transpose("pos", "layer", ...)
    n_rows, n_columns = data.sizes["pos"], data.sizes["layer"]
    words = n_rows <= _SMALLEST_TEXT_ROW
    height = _CELL_HEIGHT * n_rows if words else _OVERVIEW
    left = label_room(data, "pos")
    cell_width = float(np.clip((WIDTH - left - 30) / n_columns, 68, 150))
    if subtitle is None:
        subtitle = "in bold: already the final prediction" if words else "too long for words: slice it to read them"
        if data.attrs.get("target", "the final prediction") != "the final prediction":
            subtitle = f"in bold: the target {label(data.attrs['target'])}"
    made = figure(title, subtitle, data, width=round(left + cell_width * n_columns + 30), height=_TOP + 18 + height)
    shading = Shading.of(data, SHADES[shade])
    made.add_trace(_cells(data, shading, _written(data, cell_width, shading.fills()) if words else None))
    stages = [str(stage) for stage in data.coords["stage"].values]
    made.update_xaxes(tickvals=list(range(n_columns)), ticktext=labels(stages), side="top", showline=False)
    made.update_yaxes(
        range=[n_rows - 0.5, -0.5], ticklabelstandoff=8, showline=False, **token_ticks(data, "pos", height / n_rows)
    )
    made.update_layout(margin={"l": left, "r": 30, "t": _TOP, "b": 18}, shapes=role_bands(data, "pos", "y"))
    add_scale(made, SHADES[shade].name)
    return made.update_xaxes(title={"text": "read after", "standoff": 4}, fixedrange=True)


def _written(data: xr.Dataset, cell_width: float, fills: list[list[str]]) -> list[list[str]]:
    """The word of each cell, in bold where it is the target, in the ink that reads on the cell's colour."""
    limit = max(3, int((cell_width - 8) / 6.7))
    top, is_target = data.top_token.isel(rank=0).values, data.target_rank.values == 1
    rows = [labels(row, limit) for row in top]
    bold = [
        [f"<b>{w}</b>" if b else w for w, b in zip(*pair, strict=True)] for pair in zip(rows, is_target, strict=True)
    ]
    return [[written_on(w, c) for w, c in zip(*pair, strict=True)] for pair in zip(bold, fills, strict=True)]


@dataclass(frozen=True)
class Shading:
    """The colours of the cells: numbers on a scale between two ends, and the ticks of its bar."""

    z: np.ndarray
    low: float
    high: float
    scale: list[str]
    ticks: dict

    @classmethod
    def of(cls, data: xr.Dataset, shade: Shade) -> Shading:
        values = data[shade.variable]
        values = (values.isel(rank=0) if "rank" in values.dims else values).values
        scale = SEQUENTIAL[::-1] if shade.reverse else SEQUENTIAL
        if shade.variable == "target_rank":
            z = np.log10(values.astype(float))
            high = max(1.0, float(z.max()))
            powers = list(range(int(high) + 1))
            return cls(z, 0.0, high, scale, {"tickvals": powers, "ticktext": [f"{10**power:,}" for power in powers]})
        high = max(float(np.nanmax(values, initial=0.0)), 1e-6) if shade.reverse else 1.0
        return cls(values, 0.0, high, scale, {})

    def fills(self) -> list[list[str]]:
        """The colour of each cell."""
        return [colours(row, self.scale, self.low, self.high) for row in self.z]


def _cells(data: xr.Dataset, shading: Shading, written: list[list[str]] | None) -> go.Heatmap:
    words = {"text": written, "texttemplate": "%{text}", "textfont": {"family": MONO, "size": 11}} if written else {}
    return go.Heatmap(
        z=as_lists(shading.z),
        x=list(range(data.sizes["layer"])),
        y=list(range(data.sizes["pos"])),
        zmin=shading.low,
        zmax=shading.high,
        colorscale=shading.scale,
        colorbar=scale_bar(**shading.ticks),
        xgap=1,
        ygap=1 if written else 0,
        hovertext=_hover(data),
        hoverinfo="text",
        **words,
    )


def _hover(data: xr.Dataset) -> list[list[str]]:
    """For each cell: where it is, its likeliest tokens, and how the target stands."""
    tokens, stages, targets = (labels(data[name].values, 40) for name in ("token", "stage", "target_token"))
    top, probability = data.top_token.values, data.top_probability.values
    numbers = (data.target_probability.values, data.target_rank.values, data.entropy.values, data.kl.values)
    positions = data.coords["pos"].values
    rows = []
    for i, (token, target) in enumerate(zip(tokens, targets, strict=True)):
        cells = []
        for j, stage in enumerate(stages):
            best = [f"{p:.3f}  {label(str(word), 40)}" for word, p in zip(top[i, j], probability[i, j], strict=True)]
            p, rank, entropy, kl = (values[i, j] for values in numbers)
            head = f"after <b>{token}</b> (position {positions[i]}), {stage}"
            tail = [f"target {target}: {p:.3f}, rank {rank}", f"entropy {entropy:.2f} nats · KL {kl:.2f} nats"]
            cells.append("<br>".join([head, *best, *tail]))
        rows.append(cells)
    return rows
