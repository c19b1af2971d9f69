"""Token lists of unequal length as one array and its mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def pad(
    rows: Sequence[Sequence[int]], side: str, pad_id: int
) -> tuple[Int[np.ndarray, "batch pos"], Int[np.ndarray, "batch pos"]]:
    """Fill the rows up to the longest one.

    Args:
        rows: token ids, one list per text; lengths may differ, and may be 0.
        side: where the filling goes: "left" keeps the last tokens aligned (generation), "right" the first.
        pad_id: the token that fills.

    Returns:
        ids and mask, both int64 [batch, pos]; the mask is 1 on real tokens and 0 on filling.

    Raises:
        ValueError: for any other side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"padding side {side!r} is unknown; give 'left' or 'right'")
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, where] = row
        mask[i, where] = 1
    return ids, mask
