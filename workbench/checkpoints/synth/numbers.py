"""Random weights as bytes: a function of the seed, the tensor's name and the place in it, and of nothing else.

Each 16 random bits pick one of a table's 65,536 entries: a bfloat16 number, four FP4 codes or two block scales. The
tables hold each value as often as the distribution asks, so that making weights is one look-up. The bits come from
SFC64, seeded for each piece of a tensor, so any piece can be made without the others, in any order, on any machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from jaxtyping import UInt8, UInt16

from workbench.checkpoints.synth.scales import Normal
from workbench.model.mxfp4 import MAGNITUDES, SCALE_BIAS

PIECE = 1 << 18  # bytes: stays in a core's cache
_CHOICES = 1 << 16
# The codes are those of a normal with this standard deviation rounded to FP4: what packing leaves, since it scales the
# largest of 32 values to between 4 and 8.
_CODES_FROM = 2.5
# A block's scale is at the middle, seldom one below or above: with more of these the weights' tails are too heavy.
_SPREAD = {-1: 1 / 32, 0: 15 / 16, 1: 1 / 32}

Table = UInt16[np.ndarray, " 65536"]


def piece(seed: int, name: str, number: int, table: Table, n_bytes: int = PIECE) -> UInt8[np.ndarray, " byte"]:
    """The first ``n_bytes`` of a tensor's piece ``number``: bytes from ``number · PIECE`` on.

    Args:
        seed: any whole number.
        name: the tensor's name in the model, so that every form of checkpoint holds the same weights.
        table: what each 16 random bits stand for.
    """
    digest = hashlib.blake2b(f"{seed}/{name}/{number}".encode(), digest_size=16).digest()
    # The raw 64-bit words: numpy keeps those the same for good, unlike what its distributions make of them.
    words = np.random.SFC64(int.from_bytes(digest, "little")).random_raw(-(-n_bytes // 8))
    picked = np.empty(4 * len(words), dtype="<u2")
    # "clip" for speed: every 16-bit index is inside.
    np.take(table, words.astype("<u8", copy=False).view("<u2"), out=picked, mode="clip")
    return picked.view(np.uint8)[:n_bytes]


@lru_cache(maxsize=32)
def bfloat16_table(normal: Normal) -> Table:
    """The quantiles of a normal distribution at the middle of 65,536 equal steps, as bfloat16 (up to 4.3 σ)."""
    upper = [NormalDist().inv_cdf((i + 0.5) / _CHOICES) for i in range(_CHOICES // 2, _CHOICES)]
    values = np.array([-value for value in reversed(upper)] + upper) * normal.std + normal.mean
    bits = values.astype(np.float32).view(np.uint32)
    # Round to nearest even: half of what is cut off, less one if the last kept bit is 0.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


@lru_cache(maxsize=1)
def code_table() -> Table:
    """Four FP4 codes in 16 bits, each as often as in a rounded normal; signs are even and independent."""
    return _pairs(_code_bytes())


@lru_cache(maxsize=8)
def scale_table(std: float) -> Table:
    """Two block scales in 16 bits, such that :func:`code_table`'s values with them have this standard deviation.

    Scales are powers of two. Their middle is one power for some of the blocks and the next for the others, which hits
    any target to within a percent.
    """
    variance_at_0 = _code_std() ** 2 * sum(share * 4.0**step for step, share in _SPREAD.items())
    middle = math.floor(math.log2(std / math.sqrt(variance_at_0)))
    above = (std**2 / (variance_at_0 * 4.0**middle) - 1) / 3  # of blocks with the middle one higher: 0 to 1
    shares = [0.0] * 4
    for step, share in _SPREAD.items():
        shares[step + 1] += share * (1 - above)
        shares[step + 2] += share * above
    counts = _whole_shares(shares, 256)
    lowest = SCALE_BIAS + middle - 1
    return _pairs(np.repeat(np.arange(lowest, lowest + 4), counts).astype(np.uint8))


def _pairs(single: UInt8[np.ndarray, " 256"]) -> Table:
    """A table of bytes as a table of two bytes, chosen independently."""
    index = np.arange(_CHOICES)
    return (single[index & 255].astype(np.uint16) | (single[index >> 8].astype(np.uint16) << 8)).astype("<u2")


@lru_cache(maxsize=1)
def _code_bytes() -> UInt8[np.ndarray, " 256"]:
    """Two codes in a byte: 64 pairs of magnitudes, each with all four pairs of signs, so that no code leans."""
    share = _magnitude_shares()
    counts = _whole_shares([first * second for first in share for second in share], 64)
    pairs = np.repeat(np.arange(64), counts)
    magnitudes = ((pairs >> 3) | ((pairs & 7) << 4)).astype(np.uint8)
    signs = np.array([0x00, 0x08, 0x80, 0x88], dtype=np.uint8)
    return (magnitudes[:, None] | signs).reshape(-1)


def _code_std() -> float:
    values = np.array([*MAGNITUDES, *(-magnitude for magnitude in MAGNITUDES)])
    codes = _code_bytes()
    return float(np.concatenate((values[codes & 15], values[codes >> 4])).std())


def _magnitude_shares() -> list[float]:
    """How often a normal number rounds to each FP4 magnitude; the last takes all beyond it."""
    below = [(low + high) / 2 for low, high in pairwise(MAGNITUDES)]
    up_to = [0.0, *(2 * NormalDist(sigma=_CODES_FROM).cdf(edge) - 1 for edge in below), 1.0]
    return [high - low for low, high in pairwise(up_to)]


def _whole_shares(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers close to ``total`` · share that sum to ``total``: what is left over goes to the largest rests."""
    counts = [math.floor(total * share) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda i: (counts[i] - total * shares[i], i))
    for i in by_rest[: total - sum(counts)]:
        counts[i] += 1
    return counts
