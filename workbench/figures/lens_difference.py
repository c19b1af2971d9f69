"""What each layer of one run would say, against another run: a row for each token, a column for each layer."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import strided
from workbench.figures.grid import Panel, Scale, tables
from workbench.figures.style import need
from workbench.figures.text import label, visible

SHADES = {
    "probability": ("word_change", "change of the word's probability", True),
    "target": ("target_change", "change of the target's probability", True),
    "rank": ("rank_change", "change of log10 of the target's rank", True),
    "entropy": ("entropy_change", "change of entropy (nats)", True),
    "kl": ("kl", "KL(run ‖ other) at this layer (nats)", False),
}
_LONGEST = 14  # characters of a token beside a row


def lens_difference_heatmap(
    data: xr.Dataset, shade: str = "probability", title: str = "Logit lens: where two runs part", max_columns: int = 13
) -> go.Figure:
    """What ``experiments.lens_difference`` returns: in each cell the run's likeliest word, and the other's if another.

    Args:
        shade: what the colour says of run less other: "probability" (of the cell's word), "target", "rank" (of the
            target), "entropy", or "kl", the distance of the two.
        max_columns: layers beyond that are strided; the last one is always kept.

    Raises:
        ValueError: for a dataset that is no lens difference, or an unknown shade.
    """
    if shade not in SHADES:
        raise ValueError(f"shade={shade!r}: expected one of {list(SHADES)}")
    need(data, "lens_difference", "top_token", "other_token", "kl")
    data = data.isel(layer=strided(data.sizes["layer"], max_columns)).transpose("pos", "layer", ...)
    variable, name, signed = SHADES[shade]
    values = data[variable].values.astype(float)
    tokens = [visible(str(token), _LONGEST) for token in data.coords["token"].values]
    rows = [f"{token} {pos}" for token, pos in zip(tokens, data.coords["pos"].values, strict=True)]
    stages = [str(stage) for stage in data.coords["stage"].values]
    scale = Scale.of(values, name, ".3f", signed)
    other = label(str(data.attrs.get("other", "the other")), 40)
    subtitle = f"run less {other}; “a ≠ b” where the likeliest words differ"
    panel = Panel("", values, _written(data))
    cell = 72.0 if len(stages) <= 9 else max(58.0, 620.0 / len(stages))
    return tables([panel], rows, stages, scale, title=title, subtitle=subtitle, source=data,
                  column_title="read after", cell=cell)  # fmt: skip


def _written(data: xr.Dataset) -> list[list[str]]:
    pairs = np.stack([data.top_token.values, data.other_token.values], -1)
    return [[_word(str(mine), str(theirs)) for mine, theirs in row] for row in pairs]


def _word(mine: str, theirs: str) -> str:
    if not mine and not theirs:
        return ""
    return visible(mine) if mine == theirs else f"{visible(mine, 8)} ≠ {visible(theirs, 8)}"
