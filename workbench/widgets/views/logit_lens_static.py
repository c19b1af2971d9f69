"""The logit lens without scripts: words where there is room for them, and a picture of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.figures.axes import strided
from workbench.figures.style import DIVERGING, SEQUENTIAL
from workbench.figures.text import visible
from workbench.widgets import static
from workbench.widgets.views.logit_lens_grid import Grid

COLUMNS, ROWS = 13, 40  # of the table with words
_TOKEN = 20  # characters beside a row


def said(about: dict[str, Any], target: dict[str, Any] | None, other: str | None, grid: Grid) -> str:
    """What is shown, in a line."""
    followed = "the final prediction" if target is None else f"“{target['text']}”"
    parts = [f"colour: {about['title']}", f"target: {followed}"]
    if other is not None:
        parts.append(f"less {other}")
    if not grid.is_whole:
        parts.append(f"{grid.done} of {grid.total} parts are read")
    return static.note(" · ".join(parts))


def grids(
    tokens: list[str],
    stages: list[str],
    values: np.ndarray,
    about: dict[str, Any],
    written: np.ndarray,
    chosen: int | None,
) -> str:
    """A table of the words round the chosen position (else of the last ones), before it a picture if there is more."""
    n = len(tokens)
    scale = DIVERGING if about["kind"] == "diverging" else SEQUENTIAL[::-1] if about["reverse"] else SEQUENTIAL
    ends = (scale, about["low"], about["high"])
    columns = strided(len(stages), COLUMNS)
    start = max(0, min(n - ROWS, n if chosen is None else chosen - ROWS // 2))
    rows = np.arange(start, min(start + ROWS, n))
    part = np.ix_(rows, np.array(columns))
    names = [f"{visible(tokens[i], _TOKEN)} {i}" for i in rows]
    made = []
    if len(rows) < n:
        whole = [str(i) for i in range(n)]
        made.append(static.grid(values, *ends, whole, stages, f"{about['title']}, every token by every layer"))
        made.append(static.note(f"positions {rows[0]} to {rows[-1]} of {n}:"))
    cells = np.array([[visible(str(word), 12) if word else "" for word in row] for row in written[part]], dtype=object)
    heads = [stages[i] for i in columns]
    made.append(static.grid(values[part], *ends, names, heads, "likeliest next token, read after each layer", cells))
    return "".join(made)
