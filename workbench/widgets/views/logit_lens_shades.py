"""What the colour of a cell of the logit lens can mean, and how its scale runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.widgets.views.logit_lens_grid import Grid


@dataclass(frozen=True)
class Shade:
    """A number of each cell.

    Attributes:
        single, apart: its variable with one run, and with two.
        title, title_apart: with its unit.
        good_is_low: dark where the number is small: rank 1, no doubt, no distance.
    """

    single: str
    apart: str
    title: str
    title_apart: str
    good_is_low: bool = False


SHADES = {
    "probability": Shade(
        "top_probability", "word_change", "Probability of the word", "Change of the word’s probability"
    ),
    "target": Shade(
        "target_probability", "target_change", "Probability of the target", "Change of the target’s probability"
    ),
    "rank": Shade("target_rank", "rank_change", "Rank of the target", "Change of log₁₀ rank of the target", True),
    "entropy": Shade("entropy", "entropy_change", "Entropy, nats", "Change of entropy, nats", True),
    "kl": Shade("kl", "kl", "KL(final ‖ layer), nats", "KL(run ‖ other) at the layer, nats", True),
}
MEASURES = ("target", "rank", "entropy", "kl", "probability")


def shade_values(grid: Grid, shade: str) -> np.ndarray:
    """[pos stage] the number of each cell; of a rank its log10."""
    of = SHADES[shade]
    values = grid.numbers[of.single if grid.partner is None else of.apart]
    return np.log10(values) if of.single == "target_rank" and grid.partner is None else values


def described(shade: str, values: np.ndarray, compared: bool) -> dict[str, Any]:
    """How the browser colours a shade: its ends, and which of them is dark."""
    of, finite = SHADES[shade], values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0))
    signed = compared and shade != "kl"
    high = 1.0 if shade in ("probability", "target") and not compared else max(largest, 1e-6)
    if shade == "rank" and not compared:
        high = max(high, 1.0)
    return {
        "name": shade,
        "title": of.title_apart if compared else of.title,
        "kind": "diverging" if signed else "sequential",
        "low": -high if signed else 0.0,
        "high": high,
        "reverse": of.good_is_low and not compared,
        "log": shade == "rank" and not compared,
    }
