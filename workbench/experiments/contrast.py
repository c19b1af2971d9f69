"""Two texts of one length, a clean and a corrupted one, run and measured alike: where patching methods start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run, run
from workbench.experiments.metrics import Measure, Metric, as_metric
from workbench.experiments.rows import provenance, quantity, token_coords
from workbench.model import HookedGptOss


@dataclass(frozen=True, eq=False)
class Contrast:
    """Both texts without padding, cut after the position whose logits are read, and their runs.

    Attributes:
        clean, corrupt: unedited runs of one row each, with the sites that were asked for.
        measure: logits [batch d_vocab] → [batch].
        said: the metric in words.
        columns: where the corrupted tokens stood in what was given.
        clean_columns: the same for the clean ones.
    """

    model: HookedGptOss
    clean: Run
    corrupt: Run
    measure: Measure
    said: str
    columns: tuple[int, ...]
    clean_columns: tuple[int, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The metric of the clean run and of the corrupted one."""
        clean, corrupt = (float(self.measure(done.logits[:, -1])[0]) for done in (self.clean, self.corrupt))
        return clean, corrupt

    @property
    def span(self) -> float:
        """Clean minus corrupted; NaN where that is 0, so that nothing is a share of it."""
        clean, corrupt = self.ends
        return clean - corrupt or float("nan")

    def difference(self, read: Callable[[Callable[[str], Tensor]], Tensor]) -> Tensor:
        """What ``read`` makes of the clean run's sites, minus the same of the corrupted run's; float32 at least."""
        clean, corrupt = (at_least_float32(read(done.__getitem__)) for done in (self.clean, self.corrupt))
        return clean - corrupt

    def coords(self) -> dict:
        """Along ``pos``: the corrupted tokens, and the clean ones as clean_token and clean_token_id."""
        corrupt = token_coords(self.corrupt.tokens[0].tolist(), self.model.tokenizer, self.columns)
        clean = token_coords(self.clean.tokens[0].tolist(), self.model.tokenizer, self.clean_columns)
        return corrupt | {f"clean_{name}": clean[name] for name in ("token", "token_id")}

    def scalars(self) -> dict:
        """``clean`` and ``corrupted``, the metric of the two runs."""
        said = (f"{self.said}, clean run", f"{self.said}, corrupted run")
        names = ("clean", "corrupted")
        return {n: ((), value, quantity(s)) for n, value, s in zip(names, self.ends, said, strict=True)}

    def attrs(self, experiment: str, **more: Any) -> dict[str, Any]:
        """Where the numbers came from."""
        return provenance(self.clean, experiment, **{"metric": self.said, "logits_at": self.columns[-1]} | more)

    def both_scales(self, name: str, dims: Sequence[str], effect: np.ndarray, meaning: str) -> dict:
        """``name``effect in the metric's own units, and ``name``recovered, its share of clean − corrupted."""
        units = "units of the metric"
        return {
            f"{name}effect": (tuple(dims), effect, quantity(meaning, units)),
            f"{name}recovered": (tuple(dims), effect / self.span, quantity(f"{meaning}, ÷ (clean − corrupted)")),
        }


def contrast(
    model: HookedGptOss,
    clean: Any,
    corrupt: Any,
    metric: Metric,
    sites: Sequence[str],
    row: int = 0,
    logits_at: int | None = None,
) -> Contrast:
    """Run both texts, keeping ``sites``.

    Args:
        clean, corrupt: text, a Chat, tokens, or an unedited run (its tokens are run again): as many real tokens each.
        logits_at: the position of the corrupted text whose logits the metric reads; None for its last.

    Raises:
        ValueError: for unequal lengths, an edited run or one of another model, a row or position that is not there, or
            what is no metric.
    """
    measure, said = as_metric(model, metric)
    good, clean_columns = real_row(model, clean, row, "clean")
    bad, columns = real_row(model, corrupt, row, "corrupt")
    if len(good) != len(bad):
        raise ValueError(
            f"clean has {len(good)} tokens and corrupt {len(bad)}: expected as many, so that each position has its "
            "counterpart"
        )
    if logits_at is not None:
        if logits_at not in columns:
            raise ValueError(f"logits_at={logits_at}: the corrupted text has positions {columns[0]} to {columns[-1]}")
        end = columns.index(logits_at) + 1
        good, bad, columns, clean_columns = good[:end], bad[:end], columns[:end], clean_columns[:end]
    done, undone = (run(model, tokens[None], sites=list(sites)) for tokens in (good, bad))
    return Contrast(model, done, undone, measure, said, tuple(columns), tuple(clean_columns))


def at_least_float32(values: Tensor) -> Tensor:
    """float32 for the half-precision types, unchanged otherwise."""
    return values.to(torch.promote_types(values.dtype, torch.float32)) if values.is_floating_point() else values


def router_margin(done: Run) -> Float[Tensor, "layer pos"]:
    """How far each token of row 0 is from another set of experts: the logit of the last one chosen minus that of the
    first one left out; inf where every expert is chosen.

    Args:
        done: with hook_router_logits of every layer.
    """
    k, n_experts = done.model.config.experts_per_token, done.model.config.n_experts
    logits = torch.stack([done[f"blocks.{i}.mlp.hook_router_logits"][0] for i in range(done.model.config.n_layers)])
    if k == n_experts:
        return torch.full(logits.shape[:2], float("inf"))
    best = at_least_float32(logits).topk(k + 1, dim=-1).values
    return best[..., k - 1] - best[..., k]


def routes(done: Run) -> Int[Tensor, "layer pos slot"]:
    """The set of experts of each token of row 0, as sorted ids."""
    layers = range(done.model.config.n_layers)
    return torch.stack([done[f"blocks.{i}.mlp.hook_expert_indices"][0] for i in layers]).sort(-1).values


def real_row(model: HookedGptOss, given: Any, row: int, what: str) -> tuple[Int[Tensor, " pos"], list[int]]:
    """The real tokens of a row of text, a Chat, tokens or an unedited run, and their columns.

    Raises:
        ValueError: for an edited run or one of another model, or a row that is not there, by the name ``what``.
    """
    if isinstance(given, Run):
        if given.model is not model:
            raise ValueError(
                f"{what} is a run of another model, {given.model.config.name!r}; give its tokens to run here"
            )
        if given.interventions or given.routing != "live":
            did = "; ".join(map(str, given.interventions)) or f"routing={given.routing!r}"
            raise ValueError(f"{what} was edited ({did}), and it is run again here without that; give it unedited")
        tokens, mask = given.tokens, given.attention_mask
    else:
        tokens, mask = model.as_batch(given)
    if not 0 <= row < len(tokens):
        raise ValueError(f"row={row}: {what} has rows 0 to {len(tokens) - 1}")
    columns = (torch.ones_like(tokens[row]) if mask is None else mask[row]).nonzero()[:, 0]
    if not len(columns):
        raise ValueError(f"row={row} of {what} is padding alone: expected at least one real token")
    return tokens[row, columns], columns.tolist()
