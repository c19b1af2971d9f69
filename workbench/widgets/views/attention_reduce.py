"""Patterns made as small as a screen: blocks of which the largest number stands for all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num, UInt8

THUMB, TINY, ZOOM = (
    48,
    16,
    256,
)  # most cells along one side of a thumbnail, of one in the overview, of the large pattern
STEPS = 127  # of a change in a thumbnail, to either side of 0


def block_size(n: int, most: int) -> int:
    """How many positions share a block, so that there are at most so many blocks."""
    return max(1, -(-n // most))


def largest(x: Num[np.ndarray, "*rest query key"], block: int) -> Num[np.ndarray, "*rest row col"]:
    """The largest number of each block; the last blocks may be smaller."""
    if block == 1:
        return x
    starts = np.arange(0, x.shape[-1], block)
    return np.maximum.reduceat(np.maximum.reduceat(x, starts, axis=-1), np.arange(0, x.shape[-2], block), axis=-2)


def strongest(x: Num[np.ndarray, "*rest query key"], block: int) -> Num[np.ndarray, "*rest row col"]:
    """The number of each block that is farthest from 0, with its sign."""
    if block == 1:
        return x
    high, low = largest(x, block), -largest(-x, block)
    return np.where(high >= -low, high, low)


def along(x: Float[np.ndarray, " query"], block: int, signed: bool = False) -> Float[np.ndarray, " row"]:
    """The same for one number a query, as of the sink."""
    if block == 1:
        return x
    starts = np.arange(0, len(x), block)
    high = np.maximum.reduceat(x, starts)
    low = np.minimum.reduceat(x, starts)
    return np.where(high >= -low, high, low) if signed else high


def as_bytes(x: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Attention from 0 to 1 as 0 to 255."""
    return np.rint(np.nan_to_num(x).clip(0, 1) * 255).astype(np.uint8)


def change_bytes(x: Float[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape"]:
    """A change from −limit to limit as 1 to 255; 128 is no change."""
    return np.rint(128 + STEPS * np.nan_to_num(x / (limit or 1.0)).clip(-1, 1)).astype(np.uint8)


def smaller(thumbs: UInt8[np.ndarray, "head row col"], most: int, signed: bool) -> UInt8[np.ndarray, "head r c"]:
    """Thumbnails of thumbnails."""
    block = block_size(thumbs.shape[-1], most)
    if not signed:
        return largest(thumbs, block)
    return (strongest(thumbs.astype(np.int16) - 128, block) + 128).astype(np.uint8)


def peak(x: Float[np.ndarray, "query key"], block: int, row: int, col: int) -> tuple[int, int]:
    """The position (query, key) of the number farthest from 0 in one block."""
    part = np.abs(x[row * block : (row + 1) * block, col * block : (col + 1) * block])
    query, key = np.unravel_index(np.nanargmax(np.nan_to_num(part)), part.shape)
    return int(row * block + query), int(col * block + key)
