"""How far two computations of the same thing are apart, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# In half precision transformers is itself as far from the exact result as its rounding takes it. Whoever rounds as much
# as it does, elsewhere, is at most twice as far from it (the triangle inequality). The largest of many thousands of
# differences scatters more than their mean square, hence twice that for the maximum.
TIMES_RMS, TIMES_MAX = 2.0, 4.0
# Rounding in float32 comes to some 1e-6 of the result after sums of a few thousand terms. A factor of 100 leaves room
# for large models and deep cancellation; a mistake in a formula, a weight or a mask is orders of magnitude above it.
FLOAT32_RMS, FLOAT32_MAX = 1e-4, 1e-3
REASONS = {
    "float32": f"rms at most {FLOAT32_RMS:g} and largest at most {FLOAT32_MAX:g} of the result's rms: rounding in "
    "float32 is some 1e-6",
    "half": f"rms at most {TIMES_RMS:g} × and largest at most {TIMES_MAX:g} × what transformers itself is away from "
    "its own float32 result on the same input",
}


@dataclass(frozen=True)
class Error:
    """Our distance from transformers on the same input, relative to the root mean square of the result.

    Attributes:
        rms: root mean square of the difference.
        max: its largest absolute value.
        rms_bound, max_bound: what they may be at most.
        exact: our rms distance from transformers in float32, None where the comparison is in float32.
        exact_theirs: transformers' own, in the dtype of the comparison.
    """

    rms: float
    max: float
    rms_bound: float
    max_bound: float
    exact: float | None = None
    exact_theirs: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether both are within their bounds; never where a number is NaN."""
        return self.rms <= self.rms_bound and self.max <= self.max_bound

    def __str__(self) -> str:
        return (
            f"rms {self.rms:.2g} (at most {self.rms_bound:.2g}), largest {self.max:.2g} (at most {self.max_bound:.2g})"
        )


def error_of(
    ours: Float[Tensor, "token d"],
    theirs: Float[Tensor, "token d"],
    exact: Float[Tensor, "token d"] | None = None,
    tokens: Bool[Tensor, " token"] | None = None,
) -> Error:
    """Compare over the chosen tokens.

    Args:
        exact: transformers' result in float32 where the other two are in half precision; None where all is float32.
    """
    if tokens is not None:
        ours, theirs = ours[tokens], theirs[tokens]
        exact = None if exact is None else exact[tokens]
    ours, theirs = ours.float(), theirs.float()
    size = max(_rms(theirs if exact is None else exact), 1e-30)
    rms, largest = _rms(ours - theirs) / size, _largest(ours - theirs) / size
    if exact is None:
        return Error(rms, largest, FLOAT32_RMS, FLOAT32_MAX)
    away, most = _rms(theirs - exact) / size, _largest(theirs - exact) / size
    return Error(rms, largest, TIMES_RMS * away, TIMES_MAX * most, _rms(ours - exact) / size, away)


def _rms(x: Tensor) -> float:
    return float(x.double().pow(2).mean().sqrt())


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def same_sets(first: Tensor, second: Tensor) -> Bool[Tensor, " token"]:
    """The tokens that two runs route to the same experts, in whatever order."""
    return (first.sort(-1).values == second.sort(-1).values).all(-1)


def explained_flips(
    ours: Float[Tensor, "token expert"], theirs: Float[Tensor, "token expert"], n_chosen: int
) -> Bool[Tensor, " token"]:
    """Tokens whose choice may differ: the last expert taken and the first one left out are no farther apart than the
    two sets of logits are from each other, twice."""
    top = theirs.float().topk(min(n_chosen + 1, theirs.shape[-1]), dim=-1).values
    if top.shape[-1] == n_chosen:  # every expert is taken
        return torch.zeros(len(top), dtype=torch.bool, device=top.device)
    return top[:, n_chosen - 1] - top[:, n_chosen] <= 2 * (ours.float() - theirs.float()).abs().amax(-1)
