"""Many prompts as batches, and the metric of each row: what experiments over prompt sets share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.experiments.metrics import Measure, Metric, as_metric, logit_difference, named, of_rows
from workbench.model import HookedGptOss

MOST_TOKENS = 4096  # in one batch, where one prompt does not need more


@dataclass(frozen=True, eq=False)
class Batch:
    """Some of the prompts, padded on the right.

    Attributes:
        first: index of the first of them among all.
        mask: None where all are of one length.
        measure: logits [batch d_vocab] of each row's last real token → [batch].
    """

    first: int
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None
    measure: Measure

    def __len__(self) -> int:
        return len(self.tokens)


def batches(
    model: HookedGptOss, prompts: Sequence[Any], metric: Metric | None, most: int = MOST_TOKENS
) -> tuple[list[Batch], str]:
    """Prompts in batches of at most so many tokens, in order, and the metric's name.

    Args:
        prompts: texts, Chats, rows of token ids, or pairs (of which ``clean`` is taken).
        metric: as :func:`~workbench.experiments.metrics.as_metric` takes it; tokens that are named row by row are one
            for each prompt, and a function of your own meets the logits of one batch at a time; None, for pairs: the
            logit difference of each pair's own right and wrong token.

    Raises:
        ValueError: for no prompts, or no metric where they are no pairs.
    """
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError(f"prompts={prompts!r}: expected several texts, token rows or pairs, in a list")
    rows = [row_of(model, getattr(prompt, "clean", prompt)) for prompt in prompts]
    whole, made = _metric(prompts, metric), []
    for first, last in _spans([len(row) for row in rows], most):
        part = of_rows(whole, range(first, last), len(rows))
        made.append(Batch(first, *padded(rows[first:last]), as_metric(model, part)[0]))
    said = "logit of each pair's right token − logit of its wrong one"
    return made, said if metric is None else as_metric(model, whole)[1]


def row_of(model: HookedGptOss, prompt: Any) -> Int[Tensor, " pos"]:
    """One prompt's tokens."""
    if isinstance(prompt, list | tuple) and prompt and all(isinstance(token, int) for token in prompt):
        prompt = torch.tensor(prompt)
    tokens, mask = model.as_batch(prompt)
    if len(tokens) != 1:
        raise ValueError(f"a prompt has {len(tokens)} rows: expected one; give the others as prompts of their own")
    return tokens[0] if mask is None else tokens[0][mask[0]]


def padded(rows: Sequence[Int[Tensor, " _"]]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"] | None]:
    """Rows as one batch, padded on the right, and its mask; no mask where none is needed."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return tokens, None if bool(mask.all()) else mask


def _spans(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    spans, first = [], 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or (last + 1 - first) * max(lengths[first : last + 1]) > most:
            spans.append((first, last))
            first = last
    return spans


def _metric(prompts: Sequence[Any], metric: Metric | None) -> Metric:
    if metric is not None:
        return named(metric)
    if not all(hasattr(prompt, "right") and hasattr(prompt, "wrong") for prompt in prompts):
        raise ValueError("metric=None takes the tokens of pairs, and these prompts are none: name a metric")
    return logit_difference([pair.right for pair in prompts], [pair.wrong for pair in prompts])
