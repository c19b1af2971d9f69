"""What a hook needs to know while a run is under way: where the pass is, and the sources that specs name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

if TYPE_CHECKING:
    from workbench.model import HookedGptOss


@dataclass(frozen=True)
class Context:
    """A run as its hooks see it.

    Args:
        model: the one that runs; without it every pass is taken to start at column 0.
        sources: name → a Run, or a vector [d].
    """

    model: HookedGptOss | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_column(self) -> int:
        """The column of the row that the first query of this pass stands in: not 0 after a KV cache, or in resume."""
        return 0 if self.model is None or self.model.first_column is None else self.model.first_column

    def chosen(self, positions: tuple[int, ...] | None, n: int, device: torch.device) -> Bool[Tensor, " pos"]:
        """Which of this pass's n queries stand at the positions that a spec names (None: all)."""
        columns = torch.arange(self.first_column, self.first_column + n, device=device)
        if positions is None:
            return torch.ones_like(columns, dtype=torch.bool)
        return torch.isin(columns, torch.tensor(positions, dtype=columns.dtype, device=device))

    def values(self, source: str, site: str, like: Tensor) -> Tensor:
        """A site of a source run, on the device and in the dtype of ``like``."""
        return self.sources[source][site].to(like)

    def real(self, source: str) -> Bool[Tensor, "batch pos"]:
        """Which tokens of a source run are no padding."""
        run = self.sources[source]
        return torch.ones_like(run.tokens, dtype=torch.bool) if run.attention_mask is None else run.attention_mask

    def draw(self, n: int, shape: tuple[int, ...], seed: int) -> Int[Tensor, "*shape"]:
        """Random whole numbers below n, [batch pos …], the same for the same seed, row and column, on the CPU."""
        # Not torch's generator: it looks at 32 bits of a seed, and two numbers must count here. A generator a column:
        # its draw is then the same in a longer text, after a KV cache and in resume.
        batch, length, *rest = shape
        columns = range(self.first_column, self.first_column + length)
        drawn = [np.random.default_rng([seed, column]).integers(n, size=(batch, *rest)) for column in columns]
        return torch.from_numpy(np.stack(drawn, axis=1))


def of_rows(values: Shaped[Tensor, "rows ..."], n: int) -> Shaped[Tensor, "n ..."]:
    """A source of one row serves any number of rows."""
    return values.expand(n, *values.shape[1:]) if len(values) == 1 else values


def overlap(some: Sequence[int] | None, others: Sequence[int] | None) -> bool:
    """Whether two specs' positions have one in common; None is all."""
    return bool(set(some) & set(others)) if some is not None and others is not None else some != () and others != ()
