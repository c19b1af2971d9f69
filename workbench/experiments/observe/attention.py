"""Attention of one head: where each token looks, and how much it leaves on the sink."""

from __future__ import annotations

import numpy as np
import xarray as xr

from workbench.activations import Run
from workbench.experiments.rows import check_index, numpy, provenance, quantity, real_columns, row_coords


def attention(run: Run, layer: int, head: int, row: int = 0) -> xr.Dataset:
    """The pattern of one head over one row's tokens.

    Returns:
        pattern (query_pos, key_pos), 0 where the query cannot see the key; sink (query_pos), the share that the head
        leaves on its learned sink, so that a row of pattern and its sink sum to 1; visible (query_pos, key_pos).
        Attributes: layer, head, kv_head, and window, the number of keys a query sees with itself (0: all before it).

    Raises:
        ValueError: for a layer, head or row that is not there.
        KeyError: if the run did not keep the pattern or the sink.

    >>> experiments.attention(run, layer=1, head=5).pattern.dims
    ('query_pos', 'key_pos')
    """
    config = run.model.config
    check_index("layer", layer, config.n_layers)
    check_index("head", head, config.n_heads)
    columns = real_columns(run, row)
    pattern = run[f"blocks.{layer}.attn.hook_pattern"][row, head][columns][:, columns]
    sink = run[f"blocks.{layer}.attn.hook_sink"][row, columns, head]
    window = config.window(layer)
    square = ("query_pos", "key_pos")
    variables = {
        "pattern": (square, numpy(pattern), quantity("attention")),
        "sink": ("query_pos", numpy(sink), quantity("attention left on the sink")),
        "visible": (square, _visible(len(columns), window), quantity("whether the query can see the key")),
    }
    about = {"layer": layer, "head": head, "kv_head": head // config.n_query_groups, "window": window or 0}
    return xr.Dataset(variables, _square_coords(row_coords(run, row)), provenance(run, "attention", row, **about))


def _visible(n: int, window: int | None) -> np.ndarray:
    back = np.arange(n)[:, None] - np.arange(n)
    return (back >= 0) & (back < (window or n))


def _square_coords(coords: dict) -> dict:
    """The coordinates of pos, once for the queries and once for the keys: query_token, key_role, …"""
    made = {}
    for side in ("query", "key"):
        for name, (_, values) in coords.items():
            made[f"{side}_pos" if name == "pos" else f"{side}_{name}"] = (f"{side}_pos", values)
    return made
