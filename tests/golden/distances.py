"""Whether we are no farther from either reference than the references are from each other, over many trials.

A distance is a root mean square difference. The claim is about the mean over trials of (ours − theirs)/(ours + theirs),
ours being our distance from a reference and theirs the distance between the references. Trials scatter, also around 0,
so that mean must not be above 0 by more than five of its standard errors. For 24 or more trials that is a false alarm
in fewer than one of 10,000 comparisons, while an implementation that rounds in other places than both references
fails: one rounding saved, where an expert's bias is added, is 3 % more distance in the logits and nine standard errors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.golden.measured import Measured

STANDARD_ERRORS = 5
REFERENCES = ("transformers", "openai")


def rms(difference: Tensor) -> float:
    """Root mean square."""
    return difference.float().pow(2).mean().sqrt().item()


def largest(difference: Tensor) -> float:
    """Largest absolute value, 0 if there is none."""
    return difference.abs().max().item() if difference.numel() else 0.0


def is_not_above_zero(excess: list[float]) -> bool:
    """Whether the mean is at most STANDARD_ERRORS of its standard errors above 0."""
    values = torch.tensor(excess, dtype=torch.float64)
    return bool(values.mean() <= STANDARD_ERRORS * values.std() / math.sqrt(len(values)))


def check_distances(trials: list[dict[str, Tensor]], form: str, row: str, measured: Measured, seed: int) -> None:
    """Assert the claim. A trial holds what each implementation gave, by name, ours as "ours", its experts held in
    ``form``; the figures of all trials together are recorded under ``row``."""
    between = [rms(trial["transformers"] - trial["openai"]) for trial in trials]
    assert max(between) > 0
    measured.record_in(form, row, "between them", rms(torch.tensor(between)))
    for reference in REFERENCES:
        ours = [rms(trial["ours"] - trial[reference]) for trial in trials]
        measured.record_in(form, row, reference, rms(torch.tensor(ours)))
        pairs = zip(ours, between, strict=True)
        excess = [(mine - theirs) / max(mine + theirs, 1e-30) for mine, theirs in pairs]  # 0 if all three round alike
        assert is_not_above_zero(excess), f"{form}, {row}: {ours} from {reference}, {between} between, seed {seed}"
