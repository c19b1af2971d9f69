"""Axes of tokens: integer positions with their tokens as ticks, thinned where there is no room, and who speaks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import xarray as xr

from workbench.figures.style import MONO, role_colour, role_name, thinned
from workbench.figures.text import columns_of, position_labels, visible

LONGEST = 18  # characters of a token on an axis
_BAND = 4


def token_ticks(data: xr.Dataset, dim: str, cell: float, smallest: float = 10.0) -> dict:
    """tickvals and ticktext for a dim of positions: each its token and position, or every k-th where cells are small.

    Ticks stand at 0, 1, 2, …, the index along the dim, so that equal tokens never share a place.

    Args:
        cell: pixels from one position to the next.
        smallest: pixels that a label needs.
    """
    n = data.sizes[dim]
    at = thinned(n, cell, smallest)
    texts, positions = data.coords[token_name(dim)].values[at], data.coords[dim].values[at]
    size = 11 if cell >= 15 else 10 if cell >= 12 or cell < smallest else 9
    font = {"family": MONO, "size": size}
    return {
        "tickmode": "array",
        "tickvals": at,
        "ticktext": position_labels(texts, positions, LONGEST),
        "tickfont": font,
    }


def token_name(dim: str) -> str:
    """The coordinate that holds the tokens of a dim."""
    return {"pos": "token", "query_pos": "query_token", "key_pos": "key_token"}[dim]


def label_room(data: xr.Dataset, dim: str) -> int:
    """Pixels that the longest tick label of a dim needs."""
    longest = max(
        (columns_of(visible(str(token), LONGEST)) for token in data.coords[token_name(dim)].values), default=0
    )
    return round(longest * 6.7 + 5.5 * len(str(data.coords[dim].values[-1]))) + 26


def role_bands(data: xr.Dataset, dim: str, axis: str) -> list[dict]:
    """Shapes: a thin band along an axis of tokens, in the colours of those who speak; none where nobody is named.

    Args:
        axis: "y", beside the left edge of the cells, or "x", under their lower edge.
    """
    side = "" if dim == "pos" else dim.removesuffix("pos")
    if f"{side}role" not in data.coords:
        return []
    pairs = zip(data.coords[f"{side}role"].values, data.coords[f"{side}channel"].values, strict=True)
    return list(_band_shapes([role_name(*pair) for pair in pairs], axis))


def _band_shapes(names: Sequence[str], axis: str) -> list[dict]:
    made, start = [], 0
    for name, group in groupby(names):
        end = start + len(list(group))
        if name:
            along = {f"{axis}0": start - 0.5, f"{axis}1": end - 0.5, f"{axis}ref": axis}
            made.append(
                {**along, **_across(axis), "type": "rect", "fillcolor": role_colour(name), "line": {"width": 0}}
            )
        start = end
    return made


def _across(axis: str) -> dict:
    """Where a band lies: a few pixels outside of the plot, however large that is."""
    if axis == "y":
        return {"xref": "paper", "xsizemode": "pixel", "xanchor": 0, "x0": -2 - _BAND, "x1": -2}
    return {"yref": "paper", "ysizemode": "pixel", "yanchor": 0, "y0": -2 - _BAND, "y1": -2}


def strided(n: int, room: int) -> list[int]:
    """At most ``room`` of n layers, evenly, the last always among them."""
    if n <= room:
        return list(range(n))
    return sorted({round(i) for i in np.linspace(0, n - 1, max(room, 2))})
