"""Names for axes: numpy values → xarray.DataArray whose positions carry their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

POSITION_DIMS = ("pos", "query_pos", "key_pos")


def token_coordinates(dim: str, str_tokens: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """The token of each position, as a coordinate along ``dim`` (named ``token``, ``query_token`` or ``key_token``)."""
    name = {"pos": "token", "query_pos": "query_token", "key_pos": "key_token"}[dim]
    return {name: (dim, list(str_tokens))}


def labelled(
    values: np.ndarray,
    dims: Sequence[str],
    str_tokens: Sequence[str] = (),
    name: str | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Values with named dims, whole-number coordinates 0, 1, 2, … on each, and the tokens along the position dims.

    Raises:
        ValueError: if the number of dims, or of tokens, does not fit the values.
    """
    if values.ndim != len(dims):
        raise ValueError(
            f"values have shape {values.shape}, {values.ndim} axes, and {len(dims)} names were given: {tuple(dims)}"
        )
    coords: dict[str, Any] = {dim: np.arange(size) for dim, size in zip(dims, values.shape, strict=True)}
    for dim, size in zip(dims, values.shape, strict=True):
        if dim in POSITION_DIMS and len(str_tokens):
            if len(str_tokens) != size:
                raise ValueError(f"{dim} has {size} positions, and {len(str_tokens)} tokens were given")
            coords |= token_coordinates(dim, str_tokens)
    return xr.DataArray(values, coords=coords, dims=tuple(dims), name=name, attrs=dict(attrs or {}))
