"""Which queries attention takes at a time, and which keys they see: no mask [query_pos key_pos] is ever made whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.model.state import Pass

# Scores of one tile, over all heads and rows: on a CPU they should stay in its cache, elsewhere fill the device.
TILE_BYTES = {"cpu": 2**21}
TILE_BYTES_ELSEWHERE = 2**28
LEAST_QUERIES = 16  # fewer would make the matrix products too thin, however long the row
STEP = 128  # of a tile's columns where they grow from tile to tile: each new shape costs oneDNN about a millisecond


class Tile(NamedTuple):
    """Queries start to stop − 1 of the pass, and the columns of the keys given, first to last − 1, that they see.

    Each query sees every column before ``masked``; which it sees from there on, :meth:`Tiling.bias` says.
    """

    start: int
    stop: int
    first: int
    last: int
    masked: int


@dataclass(frozen=True, eq=False)
class Tiling:
    """The tiles of one pass for the layers of one window, and what their queries see.

    ``dropped`` columns stand before the first key given: a sliding layer's cache has let go of them.
    """

    query_positions: Int[Tensor, "#batch query_pos"]
    key_positions: Int[Tensor, "#batch key_pos"]
    query_mask: Bool[Tensor, "batch query_pos"] | None
    key_mask: Bool[Tensor, "batch key_pos"] | None
    window: int | None
    dropped: int
    tiles: tuple[Tile, ...]
    _only: dict[torch.dtype, Tensor] = field(default_factory=dict)

    @property
    def n_queries(self) -> int:
        """Columns of the pass."""
        return self.query_positions.shape[1]

    @property
    def n_keys(self) -> int:
        """Columns of the keys given."""
        return self.key_positions.shape[1] - self.dropped

    def split(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        """The tiles' parts of x along its axis of queries."""
        return (x,) if len(self.tiles) == 1 else x.split([tile.stop - tile.start for tile in self.tiles], axis)

    def bias(self, tile: Tile, dtype: torch.dtype) -> Float[Tensor, "#batch 1 query_pos masked"] | None:
        """What joins the scores of a tile from its column ``masked`` on: 0 where the query sees the key, else −inf.

        A query sees no key after it, none outside the window, no padding, and nothing if it is padding itself.
        """
        if tile.masked >= tile.last:
            return None
        if len(self.tiles) > 1:
            return self._bias(tile, dtype)
        if dtype not in self._only:  # small, and the same for every layer
            self._only[dtype] = self._bias(tile, dtype)
        return self._only[dtype]

    def _bias(self, tile: Tile, dtype: torch.dtype) -> Float[Tensor, "#batch 1 query_pos masked"]:
        rows = slice(tile.start, tile.stop)
        columns = slice(self.dropped + tile.masked, self.dropped + tile.last)
        query, keys = self.query_positions[:, rows, None], self.key_positions[:, None, columns]
        hidden = keys > query
        if self.window is not None:
            hidden = hidden | (keys <= query - self.window)
        if self.key_mask is not None and self.query_mask is not None:
            hidden = hidden | ~(self.key_mask[:, None, columns] & self.query_mask[:, rows, None])
        bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
        return bias[:, None]


def tiling(this: Pass, window: int | None, dropped: int, bytes_per_score: int) -> Tiling:
    """The tiles of a pass, the same for every layer of a window.

    Args:
        this: the pass.
        window: of the layer, None if it sees everything.
        dropped: columns before the first key given.
        bytes_per_score: of one query and one key, over all heads and rows.
    """
    key = ("tiling", window, dropped, bytes_per_score)
    if key not in this.memo:
        tiles = tuple(_tiles(this, window, dropped, bytes_per_score))
        # Not the pass itself: a graph that goes backward through tiles must not keep its cache alive.
        seen = (this.query_positions, this.key_positions, this.query_mask, this.key_mask)
        this.memo[key] = Tiling(*seen, window, dropped, tiles)
    return this.memo[key]


def _tiles(this: Pass, window: int | None, dropped: int, bytes_per_score: int) -> list[Tile]:
    room = TILE_BYTES.get(this.query_positions.device.type, TILE_BYTES_ELSEWHERE) // bytes_per_score
    n, before = this.query_positions.shape[1], this.first_column - dropped
    # Over one tile backward has nothing to compute again, which is worth a tile of twice the size.
    whole = n * (before + n) <= 2 * room
    seen_from = [0] * n if whole or window is None else _seen_from(this, window, dropped)
    tiles, start = [], 0
    while start < n:
        stop = n if whole else min(n, start + _fitting(room, before + start - min(seen_from[start], before + start)))
        last = before + stop
        first = min(*seen_from[start:stop], last - 1)
        # Without padding each query sees all up to itself, unless the window of the last begins after the first key.
        cut = this.key_mask is not None or (window is not None and last - window > first)
        last = last if window is not None else min(before + n, -(-last // STEP) * STEP)
        tiles.append(Tile(start, stop, first, last, first if cut else before + start + 1))
        start = stop
    return tiles


def _fitting(room: int, columns: int) -> int:
    """How many queries r, with ``columns`` keys before the first of them: r · (columns + r) ≤ room."""
    rows = int(((columns**2 + 4 * room) ** 0.5 - columns) / 2)
    return max(LEAST_QUERIES, rows - rows % LEAST_QUERIES)


def _seen_from(this: Pass, window: int, dropped: int) -> list[int]:
    """For each query the first column of the keys given that it may see, in any row; too early does no harm."""
    n = this.query_positions.shape[1]
    if this.key_mask is None or this.query_mask is None:
        before = this.first_column - dropped
        return [max(0, before + i - window + 1) for i in range(n)]
    positions = this.key_positions[:, dropped:].contiguous()
    columns = torch.searchsorted(positions, (this.query_positions - window).contiguous(), right=True)
    real = this.key_mask[:, dropped:]
    columns = torch.maximum(columns, real.long().argmax(1, keepdim=True))  # padding on the left is before all windows
    columns = torch.where(this.query_mask, columns, real.shape[1])  # padding sees nothing
    return columns.amin(0).tolist()
