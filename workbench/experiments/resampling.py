"""Tables of effects [prompt cell], resampled over prompts or with the signs of prompts flipped; all in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch

Statistic = Literal["mean", "median"] | Callable[..., Any]
Reduction = Callable[..., Any] | Literal["mean"]
# How many numbers one step holds at once.
_AT_ONCE = 20_000_000


def reduction(statistic: Statistic) -> Reduction:
    """A function of (array, axis=); "mean" stays a word, because it can be had without making the samples."""
    if callable(statistic):
        return statistic
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic={statistic!r}: expected 'mean', 'median' or a function of (array, axis=)")
    return "mean" if statistic == "mean" else np.median


def estimated(of: Reduction, table: np.ndarray) -> np.ndarray:
    """The statistic of each cell."""
    # A product here as in the resamples: whole numbers then tie with themselves to the bit.
    return np.ones(len(table)) @ table / len(table) if of == "mean" else np.asarray(of(table, axis=0), dtype=float)


def resampled(of: Reduction, table: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """[resample cell]; every cell has the same prompts in the same resample. The draws are scipy.stats.bootstrap's."""
    prompts = len(table)
    drawn = random.integers(0, prompts, (n, prompts))
    if of == "mean":
        flat = (drawn + np.arange(n)[:, None] * prompts).reshape(-1)
        return np.bincount(flat, minlength=n * prompts).reshape(n, prompts) @ table / prompts
    parts = _split(n, table.size)
    return np.concatenate([np.asarray(of(table[drawn[a:b]], axis=1), dtype=float) for a, b in parts])


def bca_shares(
    of: Reduction,
    table: np.ndarray,
    samples: np.ndarray,
    estimate: np.ndarray,
    tail: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The shares of the resamples at which each cell's interval ends (Efron and Tibshirani 1993, 14.3)."""
    below = ((samples < estimate).mean(0) + (samples <= estimate).mean(0)) / 2
    bias = _normal_quantile(below)
    if of == "mean":
        without = (table.sum(0) - table) / (len(table) - 1)
    else:
        without = np.stack([np.asarray(of(np.delete(table, i, axis=0), axis=0)) for i in range(len(table))])
    off = without.mean(0) - without
    spread = (off**2).sum(0) ** 1.5
    # All prompts the same: nothing is skewed, and the interval is the one point.
    skew = np.divide((off**3).sum(0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    ends = []
    for z in (_normal_quantile(np.array(tail)), _normal_quantile(np.array(1 - tail))):
        moved = bias + z
        with np.errstate(invalid="ignore"):
            ends.append(torch.special.ndtr(torch.from_numpy(np.asarray(bias + moved / (1 - skew * moved)))).numpy())
    return ends[0], ends[1]


def _normal_quantile(share: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(np.asarray(share, dtype=float))).numpy()


def quantiles(ordered: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Each column's own quantile, interpolated as numpy does, of columns in ascending order."""
    place = np.nan_to_num(share) * (len(ordered) - 1)
    low = np.floor(place).astype(int)
    high, columns = np.minimum(low + 1, len(ordered) - 1), np.arange(ordered.shape[1])
    a, b = ordered[low, columns], ordered[high, columns]
    return np.where(np.isnan(share), np.nan, a + (b - a) * (place - low))


# ---------------------------------------------------------------- sign flips


def _few(prompts: int, n: int) -> bool:
    """Whether all flips are no more than those that were asked for."""
    return prompts < 63 and 2**prompts <= n


def _flips(prompts: int, n: int, seed: int, at_once: int) -> Iterator[np.ndarray]:
    """Signs [flip prompt] in blocks: all there are, or n drawn ones."""
    if _few(prompts, n):
        codes = np.arange(2**prompts)[:, None] >> np.arange(prompts)
        yield 1.0 - 2.0 * (codes & 1)
        return
    random = np.random.default_rng([seed, 1])  # other draws than the resamples'
    for start, end in _split(n, at_once):
        yield 1.0 - 2.0 * random.integers(0, 2, (end - start, prompts))


def _share(counts: np.ndarray, prompts: int, n: int) -> np.ndarray:
    """p: with drawn flips, the one that was observed counts as one of them, or p could be 0."""
    return counts / 2**prompts if _few(prompts, n) else (counts + 1) / (n + 1)


def sign_flip_p(of: Reduction, table: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Two-sided p of each cell: the share of sign flips whose statistic is as far from 0."""
    observed = np.abs(estimated(of, table))
    least = observed - 1e-12 * np.abs(table).max(0)  # a flip that only reorders a sum is as strong
    counts = np.zeros(table.shape[1])
    size = table.size if of != "mean" else table.shape[1]
    for signs in _flips(len(table), n, seed, size):
        if of == "mean":
            counts += (np.abs(signs @ table / len(table)) >= least).sum(0)
        else:
            for a, b in _split(len(signs), table.size):
                counts += (np.abs(of(signs[a:b, :, None] * table, axis=1)) >= least).sum(0)
    return _share(counts, len(table), n)


def step_down(table: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Adjusted p of each column by the step-down maximum.

    Columns are compared by r = |Σd| / √(N Σd²), which grows as |t| does (t² = (N − 1) r² / (1 − r²)) and, unlike it,
    is finite where all prompts agree.
    """
    length = np.sqrt((table**2).sum(0) * len(table))
    unit = np.divide(table, length, out=np.zeros_like(table), where=length > 0)
    observed = np.abs(unit.sum(0))
    order = np.argsort(-observed, kind="stable")
    unit, least = unit[:, order], observed[order] - 1e-12
    counts = np.zeros(len(order))
    for signs in _flips(len(table), n, seed, table.shape[1]):
        strength = np.abs(signs @ unit)
        # The strongest among a column and all that are weaker than it.
        strongest = np.maximum.accumulate(strength[:, ::-1], axis=1)[:, ::-1]
        counts += (strongest >= least).sum(0)
    made = np.empty(len(order))
    made[order] = np.maximum.accumulate(_share(counts, len(table), n))
    return made


def _split(n: int, each: int) -> Iterator[tuple[int, int]]:
    step = max(1, _AT_ONCE // max(each, 1))
    return ((start, min(start + step, n)) for start in range(0, n, step))
